#include "placement/solve/evaluate_layer.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

#define SUM_MAX 4e18 /* of what is added in int64; doubles are exact enough to tell */

const char *solve_copies_name(solve_copies_t copies)
{
    static const char *const NAMES[] = {"duplicates", "pairs", "tokens"};
    return NAMES[copies];
}

void solve_detail_free(solve_detail_t *detail)
{
    cot_free(detail->load);
    cot_free(detail->traffic);
    cot_free(detail->flow);
    *detail = (solve_detail_t){0};
}

static void release(solve_layer_t *at)
{
    cot_free(at->copies);
    cot_free(at->copy_rank);
    cot_free(at->serve);
    cot_free(at->share);
    cot_free(at->share_before);
    cot_free(at->inflow);
    cot_free(at->rows);
    cot_free(at->phase.rows);
    cot_free(at->seen);
    cot_free(at->group);
    cot_free(at->group_begin);
    solve_detail_free(&at->detail);
}

static cot_status_t take(solve_layer_t *at)
{
    size_t ranks = at->ranks, cells = at->experts * ranks;
    at->copies = cot_calloc(at->experts, sizeof(*at->copies));
    at->copy_rank = cot_calloc(cells, sizeof(*at->copy_rank));
    at->serve = cot_calloc(cells, sizeof(*at->serve));
    at->share = cot_calloc(cells, sizeof(*at->share));
    at->share_before = cot_calloc(cells, sizeof(*at->share_before));
    at->inflow = cot_calloc(cells, sizeof(*at->inflow));
    at->rows = cot_calloc(cells, sizeof(*at->rows));
    at->phase.rows = cot_calloc(ranks * ranks, sizeof(*at->phase.rows));
    at->seen = cot_calloc(ranks, sizeof(*at->seen));
    at->group = cot_calloc(at->experts, sizeof(*at->group));
    at->group_begin = cot_calloc(ranks + 1, sizeof(*at->group_begin));
    at->detail = (solve_detail_t){.layers = at->layers,
                                  .ranks = at->ranks,
                                  .load = cot_calloc(at->layers * ranks, sizeof(*at->detail.load)),
                                  .traffic = cot_calloc(ranks * ranks, sizeof(*at->detail.traffic)),
                                  .flow = cot_calloc(ranks * ranks, sizeof(*at->detail.flow))};
    bool whole = at->copies != NULL && at->copy_rank != NULL && at->serve != NULL && at->share != NULL &&
                 at->share_before != NULL && at->inflow != NULL && at->rows != NULL && at->phase.rows != NULL &&
                 at->seen != NULL && at->group != NULL && at->group_begin != NULL && at->detail.load != NULL &&
                 at->detail.traffic != NULL && at->detail.flow != NULL;
    return whole ? COT_OK : cot_fail(COT_ERR_NO_MEMORY, "no memory to judge a placement of %u experts", at->experts);
}

/* ---- what must fit ---- */

static cot_status_t check_shape(const solve_layer_t *at)
{
    const place_stats_t *stats = at->judged->stats;
    const place_plan_need_t need = {.layers = stats->layers,
                                    .experts = stats->experts,
                                    .ranks = at->judged->cluster->ranks,
                                    .layer_index = stats->layer_index};
    if (at->plan->ranks != need.ranks)
        return cot_fail(COT_ERR_MISMATCH, "the plan is for %u ranks, the cluster has %u: make a plan for this cluster",
                        at->plan->ranks, need.ranks);
    return place_plan_check(at->plan, &need);
}

/* Every sum of parts stays below SUM_MAX: shares of transitions, and k x the larger unit of rows. */
static cot_status_t check_range(const solve_layer_t *at)
{
    const place_stats_t *stats = at->judged->stats;
    double loads = 0, transitions = 0, k = at->top_k > 0 ? at->top_k : 1;
    for (size_t i = 0; i < (size_t)at->layers * at->experts; i++) loads += (double)stats->load[i];
    size_t pairs = stats->transition != NULL ? (size_t)(at->layers - 1) * at->experts * at->experts : 0;
    for (size_t i = 0; i < pairs; i++) transitions += (double)stats->transition[i];
    double unit = k * fmax((double)at->ranks, (double)SOLVE_SHARE_ONE);
    if (fmax(loads, transitions) * unit < SUM_MAX && loads * at->ranks * 1e3 < SUM_MAX) return COT_OK;
    return cot_fail(COT_ERR_LIMIT, "the counts are too large to add up exactly: use a part of the trace");
}

/* ---- who computes what ---- */

static cot_status_t find_copies(solve_layer_t *at)
{
    const place_plan_t *plan = at->plan;
    memset(at->copies, 0, at->experts * sizeof(*at->copies));
    at->replicas = false;
    for (uint32_t r = 0; r < at->ranks; r++) {
        const uint32_t *begin = plan->slot_begin + (size_t)at->layer * at->ranks + r;
        if (at->judged->slots != NULL && begin[1] - begin[0] > at->judged->slots[r])
            return cot_fail(COT_ERR_LIMIT, "layer %u: rank %u holds %u experts in %u slots",
                            plan->layer_index[at->layer], r, begin[1] - begin[0], at->judged->slots[r]);
        for (uint32_t slot = begin[0]; slot < begin[1]; slot++) {
            uint32_t e = plan->slot_expert[slot];
            at->copy_rank[(size_t)e * at->ranks + at->copies[e]++] = r;
            at->replicas |= at->copies[e] > 1;
        }
    }
    for (uint32_t e = 0; e < at->experts; e++) {
        uint16_t *serve = at->serve + (size_t)e * at->ranks;
        const uint32_t *rank = at->copy_rank + (size_t)e * at->ranks;
        if (at->copies[e] == 0)
            return cot_fail(COT_ERR_FORMAT, "layer %u: expert %u stands on no rank", plan->layer_index[at->layer], e);
        for (uint32_t h = 0; h < at->ranks; h++) serve[h] = (uint16_t)rank[(h + e) % at->copies[e]];
        for (uint32_t i = 0; i < at->copies[e]; i++) serve[rank[i]] = (uint16_t)rank[i];
    }
    return COT_OK;
}

/* ---- loads ---- */

static int64_t slowness(const solve_layer_t *at, uint32_t rank)
{
    return llround(1000 / at->judged->cluster->rank[rank].relative_speed);
}

int64_t solve_judge_activations(const solve_layer_t *at, int64_t rows, int64_t unit)
{
    double p = fmin((double)rows / ((double)unit * (double)at->figures.tokens), 1);
    double missed = (double)at->judged->step_tokens * log1p(-p); /* log of (1 - p)^step_tokens */
    return llround(1000 * (double)at->figures.steps * -expm1(missed));
}

/* Activations of each rank instead of its rows: the layer's largest x slowness, in millionths. */
static int64_t judge_activations(const solve_layer_t *at)
{
    const int64_t *count = at->judged->stats->load + (size_t)at->layer * at->experts;
    int64_t active[PLACE_MAX_RANKS] = {0}, worst = 0;
    for (uint32_t e = 0; e < at->experts; e++) {
        int64_t homes[PLACE_MAX_RANKS] = {0};
        for (uint32_t h = 0; h < at->ranks; h++) homes[at->serve[(size_t)e * at->ranks + h]]++;
        for (uint32_t r = 0; r < at->ranks; r++)
            if (homes[r] > 0) active[r] += solve_judge_activations(at, count[e] * homes[r], at->ranks);
    }
    for (uint32_t r = 0; r < at->ranks; r++)
        if (active[r] * slowness(at, r) > worst) worst = active[r] * slowness(at, r);
    return worst;
}

/* Loads for uniform homes, the layer's imbalance, and its largest load x slowness in thousandths of 1/ranks (decode:
 * of 1/1000). */
static int64_t judge_loads(solve_layer_t *at)
{
    const int64_t *count = at->judged->stats->load + (size_t)at->layer * at->experts;
    int64_t *load = at->detail.load + (size_t)at->layer * at->ranks, worst = 0, heaviest = 0;
    double sum = 0, speeds = 0;
    for (uint32_t e = 0; e < at->experts; e++)
        for (uint32_t h = 0; h < at->ranks; h++) load[at->serve[(size_t)e * at->ranks + h]] += count[e];
    for (uint32_t r = 0; r < at->ranks; r++) {
        int64_t slow = load[r] * slowness(at, r);
        if (slow > worst) worst = slow;
        if (load[r] > heaviest) heaviest = load[r];
        sum += (double)load[r];
        speeds += 1000 / (double)slowness(at, r);
    }
    if (sum > 0) {
        double share = (double)heaviest * at->ranks / sum;
        if (share > at->figures.largest_load) at->figures.largest_load = share;
        at->figures.mean_imbalance += ((double)worst / 1000 * speeds / sum - 1) / at->layers;
    }
    return at->judged->decode ? judge_activations(at) : worst;
}

/* ---- the chain of layers ---- */

static void rest_to_first(const solve_layer_t *at, uint32_t e, int32_t *share)
{
    int64_t rest = SOLVE_SHARE_ONE;
    for (uint32_t r = 0; r < at->ranks; r++) rest -= share[r];
    share[at->copy_rank[(size_t)e * at->ranks]] += (int32_t)rest;
}

/* Shares for tokens that come from everywhere equally. */
static void share_uniform(solve_layer_t *at, uint32_t e)
{
    int32_t *share = at->share + (size_t)e * at->ranks;
    const uint16_t *serve = at->serve + (size_t)e * at->ranks;
    int64_t homes[PLACE_MAX_RANKS] = {0};
    for (uint32_t h = 0; h < at->ranks; h++) homes[serve[h]]++;
    for (uint32_t r = 0; r < at->ranks; r++) share[r] = (int32_t)(homes[r] * SOLVE_SHARE_ONE / at->ranks);
    rest_to_first(at, e, share);
}

/* The flow over the boundary before this layer, into phase.rows, and what comes to each expert on each rank. */
static void flow_in(solve_layer_t *at)
{
    memset(at->inflow, 0, (size_t)at->experts * at->ranks * sizeof(*at->inflow));
    memset(at->phase.rows, 0, (size_t)at->ranks * at->ranks * sizeof(*at->phase.rows));
    for (uint32_t e = 0; e < at->experts; e++) {
        const int64_t *count = at->judged->stats->transition + solve_pair(at, at->layer - 1, e, 0);
        for (uint32_t a = 0; a < at->ranks; a++) {
            int64_t share = at->share_before[(size_t)e * at->ranks + a];
            if (share == 0) continue;
            int64_t *flow = at->phase.rows + (size_t)a * at->ranks;
            for (uint32_t f = 0; f < at->experts; f++) {
                if (count[f] == 0) continue;
                size_t row = (size_t)f * at->ranks;
                uint32_t b = at->serve[row + a];
                flow[b] += count[f] * share;
                at->inflow[row + b] += count[f] * share;
            }
        }
    }
}

static void share_inflow(solve_layer_t *at, uint32_t e)
{
    const int64_t *inflow = at->inflow + (size_t)e * at->ranks;
    int32_t *share = at->share + (size_t)e * at->ranks;
    int64_t sum = 0;
    for (uint32_t r = 0; r < at->ranks; r++) sum += inflow[r];
    if (sum == 0) {
        share_uniform(at, e);
        return;
    }
    for (uint32_t r = 0; r < at->ranks; r++) share[r] = (int32_t)((solve_wide_t)inflow[r] * SOLVE_SHARE_ONE / sum);
    rest_to_first(at, e, share);
}

/* Sums of the whole chain, in shares. */
typedef struct {
    solve_wide_t all, any, far, cost;
} chain_t;

static int64_t nearest(solve_wide_t shares)
{
    return (int64_t)((shares + SOLVE_SHARE_ONE / 2) / SOLVE_SHARE_ONE);
}

static void judge_chain(solve_layer_t *at, chain_t *chain)
{
    int32_t *swap = at->share_before;
    at->share_before = at->share;
    at->share = swap;
    bool linked = at->layer > 0 && at->judged->stats->transition != NULL;
    if (linked) flow_in(at);
    for (uint32_t e = 0; e < at->experts; e++) {
        if (linked)
            share_inflow(at, e);
        else
            share_uniform(at, e);
    }
    const place_cluster_t *cluster = at->judged->cluster;
    for (uint32_t a = 0; a < at->ranks && linked; a++)
        for (uint32_t b = 0; b < at->ranks; b++) {
            int64_t rows = at->phase.rows[(size_t)a * at->ranks + b];
            chain->all += rows;
            at->detail.flow[(size_t)a * at->ranks + b] += nearest((solve_wide_t)rows * 1000);
            if (a == b) continue;
            chain->any += rows;
            chain->cost += (solve_wide_t)rows * place_cluster_link(cluster, a, b)->crossing_cost;
            if (cluster->rank[a].node != cluster->rank[b].node) chain->far += rows;
        }
}

/* ---- all layers ---- */

static cot_status_t judge_layers(solve_layer_t *at, bool timed, bool counted)
{
    chain_t chain = {0};
    solve_wide_t balance = 0;
    for (at->layer = 0; at->layer < at->layers; at->layer++) {
        const int64_t *load = at->judged->stats->load + (size_t)at->layer * at->experts;
        int64_t sum = 0;
        for (uint32_t e = 0; e < at->experts; e++) sum += load[e];
        at->tokens = at->top_k > 0 ? (sum + at->top_k - 1) / at->top_k : 0;
        COT_TRY(find_copies(at));
        balance += judge_loads(at);
        judge_chain(at, &chain);
        if (counted) COT_TRY(solve_judge_exchange(at, timed));
    }
    solve_wide_t most = (solve_wide_t)INT64_MAX * (SOLVE_SHARE_ONE / 2);
    if (chain.cost > most || balance > INT64_MAX)
        return cot_fail(COT_ERR_LIMIT, "the crossings are too many to count: use a part of the trace");
    at->figures.transitions = nearest(chain.all);
    at->figures.any_crossings = nearest(chain.any);
    at->figures.far_crossings = nearest(chain.far);
    at->figures.crossings = nearest(chain.cost);
    at->figures.balance = (int64_t)(balance / (at->judged->decode ? 1000 : at->ranks));
    return COT_OK;
}

/* Which rows can be counted at all, and how. */
static cot_status_t choose_copies(solve_layer_t *at, bool timed, bool *counted_out)
{
    const solve_case_t *judged = at->judged;
    const place_stats_t *stats = judged->stats;
    bool pairs = stats->coactivation != NULL && at->top_k > 0;
    at->figures.copies = judged->trace != NULL ? SOLVE_COPIES_TOKENS
                         : pairs               ? SOLVE_COPIES_PAIRS
                                               : SOLVE_COPIES_DUPLICATES;
    bool together = judged->exchange == SOLVE_SHUFFLE || (judged->exchange == SOLVE_COHERENT && at->top_k != 1);
    bool chained = judged->exchange == SOLVE_COHERENT && at->layers > 1;
    *counted_out = !(together && !pairs) && !(chained && stats->transition == NULL);
    if (*counted_out && judged->exchange == SOLVE_HOME) return COT_OK;
    if (*counted_out && judged->trace == NULL) at->figures.copies = SOLVE_COPIES_DUPLICATES;
    if (*counted_out || !timed) return COT_OK;
    return cot_fail(COT_ERR_UNSUPPORTED,
                    "the step time of exchange %s needs %s counts, which not every trace holds: plan from token "
                    "traces, or with --objective balance",
                    solve_exchange_name(judged->exchange), together && !pairs ? "co-activation" : "transition");
}

static void count_steps(solve_layer_t *at)
{
    if (at->top_k == 0) return;
    int64_t sum = 0, choices = (int64_t)at->layers * at->top_k, batch = (int64_t)at->judged->step_tokens;
    for (size_t i = 0; i < (size_t)at->layers * at->experts; i++) sum += at->judged->stats->load[i];
    at->figures.tokens = (sum + choices - 1) / choices;
    at->figures.steps = (at->figures.tokens + batch - 1) / batch;
}

cot_status_t solve_judge(const solve_case_t *judged, const place_plan_t *plan, solve_figures_t *figures_out,
                         solve_detail_t *detail_out)
{
    const place_stats_t *stats = judged->stats;
    solve_layer_t at = {.judged = judged,
                        .plan = plan,
                        .layers = stats->layers,
                        .experts = stats->experts,
                        .ranks = judged->cluster->ranks,
                        .top_k = stats->top_k};
    bool timed = judged->row_bytes != 0 && judged->expert_ns > 0 && at.top_k > 0, counted = false;
    COT_TRY(check_shape(&at));
    if (judged->step_tokens == 0 || judged->step_tokens > INT32_MAX)
        return cot_fail(COT_ERR_INVALID, "--step-tokens must be from 1 to %d", INT32_MAX);
    if (judged->decode && at.top_k == 0)
        return cot_fail(COT_ERR_UNSUPPORTED, "the trace does not state top_k, which --decode needs");
    COT_TRY(check_range(&at));
    COT_TRY(choose_copies(&at, timed, &counted));
    counted &= timed || detail_out != NULL;
    count_steps(&at);
    cot_status_t status = take(&at);
    if (status == COT_OK) status = judge_layers(&at, timed, counted);
    if (status == COT_OK) {
        if (!counted) at.figures.exchanged = -1;
        at.figures.step_ns = timed ? at.figures.compute_ns + at.figures.exchange_ns : -1;
        *figures_out = at.figures;
        if (detail_out != NULL) {
            *detail_out = at.detail;
            at.detail = (solve_detail_t){0};
        }
    }
    release(&at);
    return status;
}

/* ---- by a problem's objective ---- */

solve_case_t solve_case_of(const solve_problem_t *problem)
{
    return (solve_case_t){.stats = problem->stats,
                          .cluster = problem->cluster,
                          .slots = problem->slots,
                          .exchange = problem->exchange,
                          .row_bytes = problem->row_bytes,
                          .expert_ns = problem->expert_ns,
                          .step_tokens = problem->step_tokens,
                          .decode = problem->decode};
}

static solve_wide_t value_of(const solve_problem_t *problem, const solve_figures_t *figures)
{
    /* load_weight is for loads in rows; with decode they are in thousandths, and so it is a thousandth. */
    solve_wide_t balance = (solve_wide_t)problem->load_weight * figures->balance / (problem->decode ? 1 : SOLVE_UNIT);
    switch (problem->objective) {
    case SOLVE_CROSSINGS: return (solve_wide_t)figures->crossings * SOLVE_UNIT;
    case SOLVE_BALANCE: return balance;
    case SOLVE_WEIGHTED: return (solve_wide_t)figures->crossings * SOLVE_UNIT + balance;
    case SOLVE_STEP_TIME: break;
    }
    return (solve_wide_t)figures->step_ns * SOLVE_UNIT;
}

cot_status_t solve_evaluate(const solve_problem_t *problem, const place_plan_t *plan, solve_figures_t *figures_out)
{
    solve_case_t judged = solve_case_of(problem);
    solve_figures_t figures = {0};
    if (problem->objective != SOLVE_STEP_TIME) judged.row_bytes = 0; /* spares the exchanges */
    COT_TRY(solve_judge(&judged, plan, &figures, NULL));
    solve_wide_t value = value_of(problem, &figures);
    if (value > INT64_MAX)
        return cot_fail(COT_ERR_LIMIT, "the counts are too large to add up exactly: use a part of the trace");
    figures.value = (int64_t)value;
    *figures_out = figures;
    return COT_OK;
}
