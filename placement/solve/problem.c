#include "placement/solve/problem.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

void solve_problem_destroy(solve_problem_t *problem)
{
    if (problem == NULL) return;
    cot_free(problem->slots);
    cot_free(problem->cost);
    cot_free(problem->slowness);
    cot_free(problem->transition);
    cot_free(problem->transposed);
    cot_free(problem);
}

static cot_status_t take_arrays(solve_problem_t *problem, bool crossings)
{
    size_t ranks = problem->ranks, pairs = (size_t)problem->experts * problem->experts;
    size_t boundaries = crossings && problem->layers > 1 ? problem->layers - 1 : 0;
    problem->slots = cot_calloc(ranks, sizeof(*problem->slots));
    problem->cost = cot_calloc(ranks * ranks, sizeof(*problem->cost));
    problem->slowness = cot_calloc(ranks, sizeof(*problem->slowness));
    if (boundaries > 0) {
        problem->transition = cot_calloc(boundaries * pairs, sizeof(*problem->transition));
        problem->transposed = cot_calloc(boundaries * pairs, sizeof(*problem->transposed));
    }
    bool whole = problem->slots != NULL && problem->cost != NULL && problem->slowness != NULL &&
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
    const place_stats_t *stats = problem->stats;
    double transitions = 0, loads = 0, dearest = 0, slowest = 0;
    size_t pairs = (size_t)problem->experts * problem->experts;
    for (size_t i = 0; problem->transition != NULL && i < (problem->layers - 1) * pairs; i++)
        transitions += problem->transition[i];
    for (size_t i = 0; i < solve_cells(problem); i++) loads += (double)stats->load[i];
    for (size_t i = 0; i < (size_t)problem->ranks * problem->ranks; i++)
        dearest = fmax(dearest, (double)problem->cost[i]);
    for (size_t r = 0; r < problem->ranks; r++) slowest = fmax(slowest, (double)problem->slowness[r]);
    double most = transitions * dearest + loads * slowest * fmax(1, (double)problem->load_weight / SOLVE_UNIT);
    if (most < 4e18) return COT_OK;
    return cot_fail(COT_ERR_LIMIT, "the counts are too large to add up exactly: record fewer tokens");
}

static void find_uniform(solve_problem_t *problem)
{
    const place_cluster_t *cluster = problem->cluster;
    problem->uniform = true;
    problem->near_cost = problem->far_cost = -1;
    for (uint32_t a = 0; a < problem->ranks; a++) {
        problem->uniform &= problem->slots[a] == problem->slots[0] && problem->slowness[a] == problem->slowness[0];
        for (uint32_t b = 0; b < problem->ranks; b++) {
            if (a == b) continue;
            bool near = cluster->rank[a].node == cluster->rank[b].node;
            int64_t *seen = near ? &problem->near_cost : &problem->far_cost,
                    cost = problem->cost[a * problem->ranks + b];
            if (*seen < 0) *seen = cost;
            problem->uniform &= *seen == cost;
        }
    }
    if (problem->near_cost < 0) problem->near_cost = 0;
    if (problem->far_cost < 0) problem->far_cost = problem->near_cost;
}

static cot_status_t fill(solve_problem_t *problem, const solve_problem_config_t *config, bool crossings)
{
    const place_cluster_t *cluster = problem->cluster;
    COT_TRY(place_cluster_slots(cluster, problem->experts, problem->layers, config->expert_bytes, problem->slots));
    uint64_t total = 0;
    for (uint32_t r = 0; r < problem->ranks; r++) {
        total += problem->slots[r];
        problem->slowness[r] = llround((double)SOLVE_UNIT / cluster->rank[r].relative_speed);
    }
    problem->free_slots = (uint32_t)(total - problem->experts);
    for (size_t i = 0; crossings && i < (size_t)problem->ranks * problem->ranks; i++)
        problem->cost[i] = cluster->link[i].crossing_cost * SOLVE_UNIT;
    if (crossings && problem->layers > 1) COT_TRY(copy_transitions(problem));

    if (config->objective == SOLVE_BALANCE) problem->load_weight = SOLVE_UNIT;
    if (config->objective == SOLVE_WEIGHTED)
        problem->load_weight = llround(config->lambda * SOLVE_UNIT) * problem->stats->top_k * problem->ranks;
    find_uniform(problem);
    return check_range(problem);
}

cot_status_t solve_problem_create(const solve_problem_config_t *config, solve_problem_t **problem_out)
{
    const place_stats_t *stats = config->stats;
    bool crossings = config->objective != SOLVE_BALANCE;
    if (crossings && stats->transition == NULL && stats->layers > 1)
        return cot_fail(COT_ERR_UNSUPPORTED, "the trace holds no transitions: plan with --objective balance");
    if (config->objective == SOLVE_WEIGHTED && stats->top_k == 0)
        return cot_fail(COT_ERR_UNSUPPORTED, "the trace does not state top_k, which the weighted objective needs");
    if (config->objective == SOLVE_WEIGHTED && !(config->lambda >= 0 && config->lambda <= 1e6))
        return cot_fail(COT_ERR_INVALID, "--lambda must be from 0 to 1000000");
    solve_problem_t *problem = cot_calloc(1, sizeof(*problem));
    if (problem == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the problem");
    *problem = (solve_problem_t){.stats = stats,
                                 .cluster = config->cluster,
                                 .objective = config->objective,
                                 .layers = stats->layers,
                                 .experts = stats->experts,
                                 .ranks = config->cluster->ranks,
                                 .nodes = config->cluster->nodes};
    cot_status_t status = take_arrays(problem, crossings);
    if (status == COT_OK) status = fill(problem, config, crossings);
    if (status != COT_OK) {
        solve_problem_destroy(problem);
        return status;
    }
    *problem_out = problem;
    return COT_OK;
}

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
