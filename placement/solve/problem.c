#include "placement/solve/problem.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

const char *solve_objective_name(solve_objective_t objective)
{
    static const char *const NAMES[] = {"crossings", "balance", "weighted", "step_time"};
    return NAMES[objective];
}

const char *solve_exchange_name(solve_exchange_t exchange)
{
    static const char *const NAMES[] = {"home", "shuffle", "coherent"};
    return NAMES[exchange];
}

void solve_problem_destroy(solve_problem_t *problem)
{
    if (problem == NULL) return;
    cot_free(problem->slots);
    cot_free(problem->cost);
    cot_free(problem->transition);
    cot_free(problem->transposed);
    cot_free(problem->load);
    cot_free(problem->slowness);
    cot_free(problem->wire);
    cot_free(problem->latency);
    cot_free(problem);
}

static bool needs_transitions(const solve_problem_t *problem)
{
    if (problem->layers < 2 || problem->objective == SOLVE_BALANCE) return false;
    return problem->objective != SOLVE_STEP_TIME || problem->exchange == SOLVE_COHERENT;
}

static cot_status_t take_arrays(solve_problem_t *problem)
{
    size_t ranks = problem->ranks, pairs = (size_t)problem->experts * problem->experts;
    size_t boundaries = needs_transitions(problem) ? problem->layers - 1 : 0;
    problem->slots = cot_calloc(ranks, sizeof(*problem->slots));
    problem->cost = cot_calloc(ranks * ranks, sizeof(*problem->cost));
    problem->load = cot_calloc(solve_cells(problem), sizeof(*problem->load));
    problem->slowness = cot_calloc(ranks, sizeof(*problem->slowness));
    problem->wire = cot_calloc(ranks * ranks, sizeof(*problem->wire));
    problem->latency = cot_calloc(ranks * ranks, sizeof(*problem->latency));
    if (boundaries > 0) {
        problem->transition = cot_calloc(boundaries * pairs, sizeof(*problem->transition));
        problem->transposed = cot_calloc(boundaries * pairs, sizeof(*problem->transposed));
    }
    bool whole = problem->slots != NULL && problem->cost != NULL && problem->load != NULL &&
                 problem->slowness != NULL && problem->wire != NULL && problem->latency != NULL &&
                 (boundaries == 0 || (problem->transition != NULL && problem->transposed != NULL));
    return whole ? COT_OK : cot_fail(COT_ERR_NO_MEMORY, "no memory for a problem of %u experts", problem->experts);
}

static cot_status_t copy_transitions(solve_problem_t *problem)
{
    const place_stats_t *stats = problem->stats;
    size_t experts = problem->experts, pairs = experts * experts;
    for (size_t l = 0; l + 1 < problem->layers; l++)
        for (size_t e = 0; e < experts; e++)
            for (size_t f = 0; f < experts; f++) {
                int64_t count = stats->transition[l * pairs + e * experts + f];
                if (count > INT32_MAX)
                    return cot_fail(COT_ERR_LIMIT,
                                    "layer %u: %lld transitions of one pair are more than the planner counts",
                                    stats->layer_index[l], (long long)count);
                problem->transition[l * pairs + e * experts + f] = (int32_t)count;
                problem->transposed[l * pairs + f * experts + e] = (int32_t)count;
            }
    return COT_OK;
}

/* The largest value the objective could take must fit; doubles are exact enough to tell. */
static cot_status_t check_range(const solve_problem_t *problem)
{
    double transitions = 0, loads = 0, dearest = 0, slowest = 0, latest = 0;
    size_t pairs = (size_t)problem->experts * problem->experts, links = (size_t)problem->ranks * problem->ranks;
    for (size_t i = 0; problem->transition != NULL && i < (problem->layers - 1) * pairs; i++)
        transitions += problem->transition[i];
    for (size_t i = 0; i < solve_cells(problem); i++) loads += (double)problem->load[i];
    for (size_t i = 0; i < links; i++) {
        dearest = fmax(dearest, fmax((double)problem->cost[i], (double)problem->wire[i]));
        latest = fmax(latest, (double)problem->latency[i]);
    }
    for (size_t r = 0; r < problem->ranks; r++) slowest = fmax(slowest, (double)problem->slowness[r]);
    double most = transitions * dearest + loads * slowest * fmax(1, (double)problem->load_weight / SOLVE_UNIT);
    if (problem->objective == SOLVE_STEP_TIME) {
        double scale = (double)problem->ranks * problem->top_k;
        most = scale * (3 * loads * dearest * problem->ranks + loads * slowest + 2 * latest * problem->layers) +
               2 * transitions * dearest * problem->ranks;
    }
    if (most < 4e18) return COT_OK;
    return cot_fail(COT_ERR_LIMIT, "the counts are too large to add up exactly: record fewer tokens");
}

static void find_tiers(solve_problem_t *problem)
{
    const place_cluster_t *cluster = problem->cluster;
    bool alike = true;
    problem->tiered = true;
    problem->near_cost = problem->far_cost = -1;
    for (uint32_t a = 0; a < problem->ranks; a++) {
        alike &= problem->slots[a] == problem->slots[0] && problem->slowness[a] == problem->slowness[0];
        for (uint32_t b = 0; b < problem->ranks; b++) {
            if (a == b) continue;
            bool near = cluster->rank[a].node == cluster->rank[b].node;
            int64_t *seen = near ? &problem->near_cost : &problem->far_cost,
                    cost = problem->cost[(size_t)a * problem->ranks + b];
            if (*seen < 0) *seen = cost;
            problem->tiered &= *seen == cost;
        }
    }
    problem->uniform = problem->tiered && alike;
    if (problem->near_cost < 0) problem->near_cost = 0;
    if (problem->far_cost < 0) problem->far_cost = problem->near_cost;
}

/* ---- loads ---- */

/* How often an expert is activated over all steps, in thousandths: each step of step_tokens tokens touches it with
 * probability 1 - (1 - load / tokens)^step_tokens (METRO, arXiv 2512.09277, counts these). */
static int64_t activations(const solve_problem_t *problem, int64_t load)
{
    double miss = 1 - fmin((double)load / problem->tokens, 1);
    return llround((double)problem->steps * 1000 * (1 - pow(miss, (double)problem->step_tokens)));
}

static void fill_loads(solve_problem_t *problem)
{
    const place_stats_t *stats = problem->stats;
    double choices = 0;
    for (size_t i = 0; i < solve_cells(problem); i++) {
        problem->load[i] = stats->load[i];
        choices += (double)stats->load[i];
    }
    problem->tokens = choices / problem->layers / (problem->top_k > 0 ? problem->top_k : 1);
    problem->steps = llround(ceil(problem->tokens / (double)problem->step_tokens));
    if (!problem->decode) return;
    for (size_t i = 0; i < solve_cells(problem); i++) problem->load[i] = activations(problem, stats->load[i]);
}

static void fill_speeds(solve_problem_t *problem, const solve_problem_config_t *config)
{
    double unit = problem->objective == SOLVE_STEP_TIME ? problem->expert_ns : 1;
    for (uint32_t r = 0; r < problem->ranks; r++)
        problem->slowness[r] = llround(unit * (double)SOLVE_UNIT / problem->cluster->rank[r].relative_speed);
    if (problem->objective == SOLVE_BALANCE || problem->objective == SOLVE_STEP_TIME) problem->load_weight = SOLVE_UNIT;
    if (problem->objective == SOLVE_WEIGHTED)
        problem->load_weight = llround(config->lambda * SOLVE_UNIT) * problem->top_k * problem->ranks;
    if (problem->decode) problem->load_weight /= SOLVE_UNIT; /* its loads are thousandths */
}

/* ---- links ---- */

static void fill_links(solve_problem_t *problem, const solve_problem_config_t *config)
{
    bool crossings = problem->objective == SOLVE_CROSSINGS || problem->objective == SOLVE_WEIGHTED;
    for (size_t i = 0; i < (size_t)problem->ranks * problem->ranks; i++) {
        const place_link_t *link = &problem->cluster->link[i];
        if (i / problem->ranks == i % problem->ranks) continue;
        if (crossings) problem->cost[i] = link->crossing_cost * SOLVE_UNIT;
        if (problem->objective != SOLVE_STEP_TIME) continue;
        problem->wire[i] = llround(config->row_bytes * (double)SOLVE_UNIT / link->gigabytes_per_s);
        problem->latency[i] = llround(link->latency_us * 1e6 * (double)problem->steps);
    }
}

static cot_status_t fill(solve_problem_t *problem, const solve_problem_config_t *config)
{
    COT_TRY(
        place_cluster_slots(problem->cluster, problem->experts, problem->layers, config->expert_bytes, problem->slots));
    uint64_t total = 0;
    for (uint32_t r = 0; r < problem->ranks; r++) total += problem->slots[r];
    problem->free_slots = (uint32_t)(total - problem->experts);
    fill_loads(problem);
    fill_speeds(problem, config);
    fill_links(problem, config);
    if (problem->transition != NULL) COT_TRY(copy_transitions(problem));
    find_tiers(problem);
    return check_range(problem);
}

/* ---- what the objective needs ---- */

static cot_status_t check_needs(const solve_problem_t *problem, const solve_problem_config_t *config)
{
    const char *objective = solve_objective_name(problem->objective);
    if (needs_transitions(problem) && problem->stats->transition == NULL)
        return cot_fail(COT_ERR_UNSUPPORTED,
                        "the trace holds no transitions, which the objective %s needs: plan with "
                        "--objective balance",
                        objective);
    if ((problem->objective == SOLVE_WEIGHTED || problem->objective == SOLVE_STEP_TIME) && problem->top_k == 0)
        return cot_fail(COT_ERR_UNSUPPORTED, "the trace does not state top_k, which the objective %s needs", objective);
    if (problem->objective == SOLVE_WEIGHTED && !(config->lambda >= 0 && config->lambda <= 1e6))
        return cot_fail(COT_ERR_INVALID, "--lambda must be from 0 to 1000000");
    if (config->step_tokens == 0) return cot_fail(COT_ERR_INVALID, "--step-tokens must be at least 1");
    if (problem->decode && problem->top_k == 0)
        return cot_fail(COT_ERR_UNSUPPORTED, "the trace does not state top_k, which --decode needs");
    if (problem->objective == SOLVE_STEP_TIME && problem->exchange != SOLVE_HOME && !problem->pairs &&
        (problem->top_k > 1 || problem->exchange == SOLVE_SHUFFLE))
        return cot_fail(COT_ERR_UNSUPPORTED,
                        "the trace holds no co-activations, which the step time of --exchange %s "
                        "needs",
                        solve_exchange_name(problem->exchange));
    bool timed = problem->row_bytes > 0 && problem->expert_ns > 0;
    if (problem->objective == SOLVE_STEP_TIME && !timed)
        return cot_fail(COT_ERR_UNSUPPORTED,
                        "the objective step_time needs the bytes of a row and the time of an expert: give --model "
                        "(a model directory or config.json), or plan with --objective crossings");
    return COT_OK;
}

cot_status_t solve_problem_create(const solve_problem_config_t *config, solve_problem_t **problem_out)
{
    const place_stats_t *stats = config->stats;
    solve_problem_t *problem = cot_calloc(1, sizeof(*problem));
    if (problem == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the problem");
    *problem = (solve_problem_t){.stats = stats,
                                 .cluster = config->cluster,
                                 .objective = config->objective,
                                 .exchange = config->exchange,
                                 .decode = config->decode,
                                 .layers = stats->layers,
                                 .experts = stats->experts,
                                 .ranks = config->cluster->ranks,
                                 .nodes = config->cluster->nodes,
                                 .top_k = stats->top_k,
                                 .step_tokens = config->step_tokens,
                                 .row_bytes = config->row_bytes,
                                 .expert_ns = config->decode ? config->expert_ns_per_touch : config->expert_ns_per_row,
                                 .pairs = stats->coactivation != NULL};
    cot_status_t status = check_needs(problem, config);
    if (status == COT_OK) status = take_arrays(problem);
    if (status == COT_OK) status = fill(problem, config);
    if (status != COT_OK) {
        solve_problem_destroy(problem);
        return status;
    }
    *problem_out = problem;
    return COT_OK;
}

/* ---- placements ---- */

void solve_contiguous(const solve_problem_t *problem, solve_rank_t *rank_of)
{
    uint32_t expert = 0, left = problem->experts;
    for (uint32_t rank = 0; rank < problem->ranks; rank++) {
        uint32_t share = (left + problem->ranks - rank - 1) / (problem->ranks - rank);
        uint32_t held = share < problem->slots[rank] ? share : problem->slots[rank];
        left -= held;
        while (held-- > 0) rank_of[expert++] = (solve_rank_t)rank;
    }
    /* What small ranks could not take goes where there is room. */
    for (uint32_t rank = 0; rank < problem->ranks && expert < problem->experts; rank++) {
        uint32_t held = 0;
        for (uint32_t e = 0; e < expert; e++) held += rank_of[e] == rank;
        while (held++ < problem->slots[rank] && expert < problem->experts) rank_of[expert++] = (solve_rank_t)rank;
    }
    for (uint32_t l = 1; l < problem->layers; l++)
        memcpy(rank_of + (size_t)l * problem->experts, rank_of, problem->experts * sizeof(*rank_of));
}

cot_status_t solve_plan_from_ranks(const solve_problem_t *problem, const solve_rank_t *rank_of, place_plan_t **plan_out)
{
    place_plan_t *plan = NULL;
    COT_TRY(
        place_plan_contiguous(problem->layers, problem->stats->layer_index, problem->experts, problem->ranks, &plan));
    for (uint32_t l = 0, slot = 0; l < problem->layers; l++)
        for (uint32_t r = 0; r < problem->ranks; r++) {
            for (uint32_t e = 0; e < problem->experts; e++)
                if (rank_of[(size_t)l * problem->experts + e] == r) plan->slot_expert[slot++] = e;
            plan->slot_begin[l * problem->ranks + r + 1] = slot;
        }
    *plan_out = plan;
    return COT_OK;
}

cot_status_t solve_plan_to_ranks(const solve_problem_t *problem, const place_plan_t *plan, solve_rank_t *rank_of)
{
    if (plan->layers != problem->layers || plan->experts != problem->experts || plan->ranks != problem->ranks)
        return cot_fail(COT_ERR_MISMATCH, "the plan is for %u layers of %u experts on %u ranks, not %u of %u on %u",
                        plan->layers, plan->experts, plan->ranks, problem->layers, problem->experts, problem->ranks);
    if (plan->slot_begin[(size_t)plan->layers * plan->ranks] != solve_cells(problem))
        return cot_fail(COT_ERR_UNSUPPORTED, "the plan has replicas");
    for (uint32_t l = 0; l < plan->layers; l++)
        for (uint32_t r = 0; r < plan->ranks; r++) {
            const uint32_t *begin = plan->slot_begin + (size_t)l * plan->ranks + r;
            for (uint32_t slot = begin[0]; slot < begin[1]; slot++)
                rank_of[(size_t)l * plan->experts + plan->slot_expert[slot]] = (solve_rank_t)r;
        }
    return COT_OK;
}
