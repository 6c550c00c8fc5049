#include "placement/solve/drift.h"

#include "base/memory.h"

#include <math.h>

static double sum_of(const int64_t *load, uint32_t count)
{
    double sum = 0;
    for (uint32_t i = 0; i < count; i++) sum += (double)load[i];
    return sum;
}

static double variation(const int64_t *a, const int64_t *b, uint32_t count)
{
    double sum_a = sum_of(a, count), sum_b = sum_of(b, count), apart = 0;
    if (!(sum_a > 0 && sum_b > 0)) return 0;
    for (uint32_t i = 0; i < count; i++) apart += fabs((double)a[i] / sum_a - (double)b[i] / sum_b);
    return apart / 2;
}

/* ---- noise ---- */

/* Every row has a request, and there are two at least. */
static bool has_requests(const solve_case_t *judged)
{
    int64_t first = -1, last = -1;
    for (uint32_t i = 0; i < judged->traces; i++) {
        uint64_t rows = place_trace_tokens(judged->trace[i]);
        if (rows == 0) return false;
        int64_t begin = place_trace_where(judged->trace[i], 0).request;
        if (begin < 0) return false; /* the column is there for all rows or for none */
        if (first < 0) first = begin;
        last = place_trace_where(judged->trace[i], rows - 1).request;
    }
    return judged->traces > 1 || (judged->traces == 1 && first != last);
}

/* Adds one request's share of the variances and clears its counts. */
static void end_request(const double *share, uint32_t experts, uint32_t *count, double *variance)
{
    double choices = 0;
    for (uint32_t e = 0; e < experts; e++) choices += count[e];
    for (uint32_t e = 0; e < experts; e++) {
        double apart = count[e] - share[e] * choices;
        variance[e] += apart * apart;
        count[e] = 0;
    }
}

/* Adds each expert's variance of its share in one layer. scratch: [experts] counts, all 0; shares [experts] */
static void add_by_requests(const solve_case_t *judged, uint32_t layer, double *variance, uint32_t *count,
                            double *share)
{
    const place_stats_t *stats = judged->stats;
    const int64_t *load = stats->load + (size_t)layer * stats->experts;
    double sum = sum_of(load, stats->experts), *squares = share + stats->experts;
    for (uint32_t e = 0; e < stats->experts; e++) {
        share[e] = sum > 0 ? (double)load[e] / sum : 0;
        squares[e] = 0;
    }
    for (uint32_t i = 0; i < judged->traces; i++) {
        const place_trace_t *trace = judged->trace[i];
        uint64_t rows = place_trace_tokens(trace);
        for (uint64_t row = 0; row < rows; row++) {
            for (uint32_t k = 0; k < stats->top_k; k++) count[place_trace_expert(trace, row, layer, k)]++;
            bool last = row + 1 == rows ||
                        place_trace_where(trace, row + 1).request != place_trace_where(trace, row).request;
            if (last) end_request(share, stats->experts, count, squares);
        }
    }
    for (uint32_t e = 0; e < stats->experts && sum > 0; e++) variance[e] += squares[e] / (sum * sum);
}

static void add_by_tokens(const int64_t *a, const int64_t *b, uint32_t experts, uint32_t top_k, double *variance)
{
    double sum_a = sum_of(a, experts), sum_b = sum_of(b, experts), k = top_k;
    for (uint32_t e = 0; e < experts && sum_a > 0 && sum_b > 0; e++) {
        double active = fmin(k * (double)(a[e] + b[e]) / (sum_a + sum_b), 1);
        variance[e] += active * (1 - active) / k * (1 / sum_a + 1 / sum_b);
    }
}

/* Mean over layers. */
static cot_status_t expected_noise(const solve_case_t *fitted, const solve_case_t *live, solve_drift_t *drift)
{
    uint32_t experts = live->stats->experts, layers = live->stats->layers, top_k = live->stats->top_k;
    double *variance = cot_calloc((size_t)experts * 3, sizeof(*variance));
    uint32_t *count = cot_calloc(experts, sizeof(*count));
    cot_status_t status = COT_OK;
    if (variance == NULL || count == NULL) status = cot_fail(COT_ERR_NO_MEMORY, "no memory to measure drift");
    drift->by_requests = has_requests(fitted) && has_requests(live);
    for (uint32_t l = 0; l < layers && status == COT_OK; l++) {
        for (uint32_t e = 0; e < experts; e++) variance[e] = 0;
        if (drift->by_requests) {
            add_by_requests(fitted, l, variance, count, variance + experts);
            add_by_requests(live, l, variance, count, variance + experts);
        } else {
            size_t first = (size_t)l * experts;
            add_by_tokens(fitted->stats->load + first, live->stats->load + first, experts, top_k, variance);
        }
        for (uint32_t e = 0; e < experts; e++) drift->noise += sqrt(variance[e] / (2 * acos(-1))) / layers;
    }
    if (top_k == 0) drift->noise = NAN;
    cot_free(variance);
    cot_free(count);
    return status;
}

/* ---- drift ---- */

static void rank_loads(const place_plan_t *plan, uint32_t layer, const int64_t *load, int64_t *out)
{
    for (uint32_t r = 0; r < plan->ranks; r++) out[r] = 0;
    for (uint32_t e = 0; e < plan->experts; e++)
        for (uint32_t h = 0; h < plan->ranks; h++) out[place_plan_rank(plan, layer, e, h)] += load[e];
}

cot_status_t solve_drift(const solve_case_t *fitted, const solve_case_t *live, const place_plan_t *plan,
                         solve_drift_t *drift_out)
{
    const place_stats_t *old = fitted->stats, *now = live->stats;
    if (old->layers != now->layers || old->experts != now->experts || plan->layers != now->layers ||
        plan->experts != now->experts || plan->ranks > PLACE_MAX_RANKS)
        return cot_fail(COT_ERR_MISMATCH,
                        "the traces and the plan are not of one model: %u layers of %u experts, %u of %u, and the "
                        "plan's %u of %u",
                        old->layers, old->experts, now->layers, now->experts, plan->layers, plan->experts);
    solve_drift_t drift = {0};
    for (uint32_t l = 0; l < now->layers; l++) {
        const int64_t *a = old->load + (size_t)l * now->experts, *b = now->load + (size_t)l * now->experts;
        int64_t at_a[PLACE_MAX_RANKS], at_b[PLACE_MAX_RANKS];
        rank_loads(plan, l, a, at_a);
        rank_loads(plan, l, b, at_b);
        drift.experts += variation(a, b, now->experts) / now->layers;
        drift.ranks += variation(at_a, at_b, plan->ranks) / now->layers;
    }
    COT_TRY(expected_noise(fitted, live, &drift));
    *drift_out = drift;
    return COT_OK;
}

/* ---- moves ---- */

/* The old holder that is fastest to send to `to`. */
static uint32_t fastest_holder(const place_cluster_t *cluster, const place_plan_t *from, uint32_t layer,
                               uint32_t expert, uint32_t to)
{
    uint32_t best = to;
    for (uint32_t r = 0; r < from->ranks; r++) {
        if (r == to || place_plan_slot(from, layer, r, expert) < 0) continue;
        if (best == to || place_cluster_link(cluster, r, to)->gigabytes_per_s >
                              place_cluster_link(cluster, best, to)->gigabytes_per_s)
            best = r;
    }
    return best;
}

void solve_moves_count(const place_cluster_t *cluster, const place_plan_t *from, const place_plan_t *to,
                       uint64_t expert_bytes, solve_moves_t *moves_out)
{
    double out[PLACE_MAX_RANKS] = {0}, in[PLACE_MAX_RANKS] = {0}, longest = 0;
    solve_moves_t moves = {0};
    for (uint32_t l = 0; l < to->layers; l++)
        for (uint32_t r = 0; r < to->ranks; r++) {
            const uint32_t *begin = to->slot_begin + (size_t)l * to->ranks + r;
            for (uint32_t slot = begin[0]; slot < begin[1]; slot++) {
                uint32_t e = to->slot_expert[slot];
                moves.experts++;
                if (place_plan_slot(from, l, r, e) >= 0) continue;
                uint32_t source = fastest_holder(cluster, from, l, e, r);
                double ns = (double)expert_bytes / place_cluster_link(cluster, source, r)->gigabytes_per_s;
                moves.copies++;
                out[source] += ns;
                in[r] += ns;
            }
        }
    for (uint32_t r = 0; r < to->ranks; r++) longest = fmax(longest, fmax(out[r], in[r]));
    moves.bytes = moves.copies * expert_bytes;
    moves.ns = expert_bytes > 0 || moves.copies == 0 ? llround(fmin(ceil(longest), 9e18)) : -1;
    *moves_out = moves;
}
