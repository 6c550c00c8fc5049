/* The rows that the exchanges of one layer move, and how long they and the experts take (evaluate.h). */
#include "placement/solve/evaluate_layer.h"

#include <math.h>
#include <string.h>

static void phase_begin(solve_layer_t *at, int64_t unit)
{
    memset(at->phase.rows, 0, (size_t)at->ranks * at->ranks * sizeof(*at->phase.rows));
    at->phase.unit = unit;
}

/* Adds `picoseconds` / unit, rounded up to nanoseconds, to a sum. */
static cot_status_t add_ns(solve_wide_t picoseconds, int64_t unit, int64_t *sum)
{
    solve_wide_t ns = (picoseconds + (solve_wide_t)unit * 1000 - 1) / ((solve_wide_t)unit * 1000) + *sum;
    if (ns > INT64_MAX)
        return cot_fail(COT_ERR_LIMIT, "the step times do not fit 64 bits of nanoseconds: use a part of the trace");
    *sum = (int64_t)ns;
    return COT_OK;
}

/* One rank's share of a phase in one direction, in picoseconds / unit. */
static solve_wide_t direction(const solve_layer_t *at, uint32_t rank, bool send)
{
    const solve_case_t *judged = at->judged;
    solve_wide_t sum = 0;
    int64_t latency = 0;
    for (uint32_t peer = 0; peer < at->ranks; peer++) {
        uint32_t from = send ? rank : peer, to = send ? peer : rank;
        int64_t rows = at->phase.rows[(size_t)from * at->ranks + to];
        if (peer == rank || rows == 0) continue;
        const place_link_t *link = place_cluster_link(judged->cluster, from, to);
        sum += (solve_wide_t)rows * llround(judged->row_bytes * 1e3 / link->gigabytes_per_s);
        int64_t dearer = llround(link->latency_us * 1e6);
        if (dearer > latency) latency = dearer;
    }
    return sum + (solve_wide_t)latency * at->figures.steps * at->phase.unit;
}

/* The phase is over: its traffic, and with `timed` its time. */
static cot_status_t phase_end(solve_layer_t *at, bool timed)
{
    for (uint32_t a = 0; a < at->ranks; a++)
        for (uint32_t b = 0; b < at->ranks; b++) {
            size_t link = (size_t)a * at->ranks + b;
            if (a == b) continue;
            int64_t rows = (int64_t)(((solve_wide_t)at->phase.rows[link] * 1000 + at->phase.unit / 2) / at->phase.unit);
            at->detail.traffic[link] += rows;
            at->figures.exchanged += rows;
        }
    if (!timed) return COT_OK;
    solve_wide_t longest = 0;
    for (uint32_t r = 0; r < at->ranks; r++) {
        solve_wide_t out = direction(at, r, true), in = direction(at, r, false);
        if (out > longest) longest = out;
        if (in > longest) longest = in;
    }
    return add_ns(longest, at->phase.unit, &at->figures.exchange_ns);
}

/* ---- computing ---- */

static cot_status_t compute(solve_layer_t *at)
{
    const solve_case_t *judged = at->judged;
    int64_t unit = judged->decode ? 1000 : at->rows_unit;
    solve_wide_t longest = 0;
    for (uint32_t r = 0; r < at->ranks; r++) {
        solve_wide_t sum = 0;
        for (uint32_t e = 0; e < at->experts; e++) {
            int64_t rows = at->rows[(size_t)e * at->ranks + r];
            if (judged->decode && rows > 0) rows = solve_judge_activations(at, rows, at->rows_unit);
            sum += rows;
        }
        sum *= llround(judged->expert_ns * 1000 / judged->cluster->rank[r].relative_speed);
        if (sum > longest) longest = sum;
    }
    return add_ns(longest, unit, &at->figures.compute_ns);
}

/* ---- home ---- */

/* Experts by the rank that serves a token on `home`. */
static void group(solve_layer_t *at, uint32_t home)
{
    uint32_t at_slot = 0;
    for (uint32_t d = 0; d < at->ranks; d++) {
        at->group_begin[d] = at_slot;
        for (uint32_t e = 0; e < at->experts; e++)
            if (at->serve[(size_t)e * at->ranks + home] == d) at->group[at_slot++] = e;
    }
    at->group_begin[at->ranks] = at_slot;
}

/* Tokens that may have an expert of destination `d`, from the counts. */
static int64_t copies_by_counts(const solve_layer_t *at, uint32_t d)
{
    const place_stats_t *stats = at->judged->stats;
    const uint32_t *first = at->group + at->group_begin[d], *end = at->group + at->group_begin[d + 1];
    int64_t single = 0, pairs = 0, most = end - first < at->top_k ? end - first : at->top_k;
    for (const uint32_t *e = first; e < end; e++) {
        single += stats->load[(size_t)at->layer * at->experts + *e];
        for (const uint32_t *f = e + 1; f < end && at->figures.copies == SOLVE_COPIES_PAIRS; f++)
            pairs += stats->coactivation[solve_pair(at, at->layer, *e, *f)];
    }
    if (most > 0) single -= 2 * pairs / most;
    return at->top_k > 0 && single > at->tokens ? at->tokens : single;
}

/* Whether this is the first time that the token of the present stamp goes to `rank`. */
static bool first_visit(solve_layer_t *at, uint32_t rank)
{
    if (at->seen[rank] == at->stamp) return false;
    at->seen[rank] = at->stamp;
    return true;
}

static void copies_by_tokens(solve_layer_t *at, const place_trace_t *trace, uint32_t home)
{
    int64_t *flow = at->phase.rows + (size_t)home * at->ranks;
    for (uint64_t token = 0; token < place_trace_tokens(trace); token++) {
        at->stamp++;
        for (uint32_t k = 0; k < at->top_k; k++) {
            uint32_t e = place_trace_expert(trace, token, at->layer, k), d = at->serve[(size_t)e * at->ranks + home];
            if (first_visit(at, d)) flow[d]++;
        }
    }
}

static cot_status_t home_dispatch(solve_layer_t *at, bool timed)
{
    phase_begin(at, at->ranks);
    for (uint32_t h = 0; h < at->ranks; h++) {
        int64_t *flow = at->phase.rows + (size_t)h * at->ranks;
        if (h > 0 && !at->replicas) { /* every home sees the same experts on the same ranks */
            memcpy(flow, at->phase.rows, at->ranks * sizeof(*flow));
            continue;
        }
        if (at->figures.copies == SOLVE_COPIES_TOKENS) {
            for (uint32_t i = 0; i < at->judged->traces; i++) copies_by_tokens(at, at->judged->trace[i], h);
            continue;
        }
        group(at, h);
        for (uint32_t d = 0; d < at->ranks; d++) flow[d] = copies_by_counts(at, d);
    }
    return phase_end(at, timed);
}

static cot_status_t home_return(solve_layer_t *at, bool timed)
{
    const int64_t *load = at->judged->stats->load + (size_t)at->layer * at->experts;
    phase_begin(at, at->ranks);
    for (uint32_t e = 0; e < at->experts; e++)
        for (uint32_t h = 0; h < at->ranks; h++)
            at->phase.rows[(size_t)at->serve[(size_t)e * at->ranks + h] * at->ranks + h] += load[e];
    return phase_end(at, timed);
}

static void rows_of_uniform_homes(solve_layer_t *at)
{
    const int64_t *load = at->judged->stats->load + (size_t)at->layer * at->experts;
    memset(at->rows, 0, (size_t)at->experts * at->ranks * sizeof(*at->rows));
    at->rows_unit = at->ranks;
    for (uint32_t e = 0; e < at->experts; e++)
        for (uint32_t h = 0; h < at->ranks; h++)
            at->rows[(size_t)e * at->ranks + at->serve[(size_t)e * at->ranks + h]] += load[e];
}

static cot_status_t judge_home(solve_layer_t *at, bool timed)
{
    rows_of_uniform_homes(at);
    COT_TRY(home_dispatch(at, timed));
    return home_return(at, timed);
}

/* ---- shuffle ---- */

static cot_status_t shuffle_constant(solve_layer_t *at, bool timed)
{
    phase_begin(at, at->ranks);
    for (size_t link = 0; link < (size_t)at->ranks * at->ranks; link++) at->phase.rows[link] = at->tokens;
    return phase_end(at, timed);
}

/* Rows from where a token of expert e sits to where its expert f is computed, and what each rank computes. */
static void shuffle_pairs(solve_layer_t *at)
{
    memset(at->rows, 0, (size_t)at->experts * at->ranks * sizeof(*at->rows));
    at->rows_unit = at->phase.unit;
    for (uint32_t e = 0; e < at->experts; e++) {
        const int64_t *count = at->judged->stats->coactivation + solve_pair(at, at->layer, e, 0);
        for (uint32_t u = 0; u < at->ranks; u++) {
            uint32_t a = at->serve[(size_t)e * at->ranks + u];
            for (uint32_t f = 0; f < at->experts; f++) {
                if (count[f] == 0) continue;
                uint32_t b = at->serve[(size_t)f * at->ranks + a];
                at->phase.rows[(size_t)a * at->ranks + b] += count[f];
                at->rows[(size_t)f * at->ranks + b] += count[f];
            }
        }
    }
}

static void shuffle_tokens(solve_layer_t *at, const place_trace_t *trace)
{
    for (uint64_t token = 0; token < place_trace_tokens(trace); token++)
        for (uint32_t k = 0; k < at->top_k; k++) {
            uint32_t e = place_trace_expert(trace, token, at->layer, k);
            for (uint32_t u = 0; u < at->ranks; u++) {
                uint32_t a = at->serve[(size_t)e * at->ranks + u];
                at->stamp++;
                for (uint32_t j = 0; j < at->top_k; j++) {
                    uint32_t f = place_trace_expert(trace, token, at->layer, j);
                    uint32_t b = at->serve[(size_t)f * at->ranks + a];
                    if (first_visit(at, b)) at->phase.rows[(size_t)a * at->ranks + b]++;
                }
            }
        }
}

static void transpose(solve_layer_t *at)
{
    for (uint32_t a = 0; a < at->ranks; a++)
        for (uint32_t b = 0; b < a; b++) {
            int64_t *one = &at->phase.rows[(size_t)a * at->ranks + b];
            int64_t *other = &at->phase.rows[(size_t)b * at->ranks + a], swap = *one;
            *one = *other;
            *other = swap;
        }
}

static cot_status_t judge_shuffle(solve_layer_t *at, bool timed)
{
    COT_TRY(shuffle_constant(at, timed));
    int64_t unit = (int64_t)at->ranks * at->top_k;
    phase_begin(at, unit);
    if (at->figures.copies == SOLVE_COPIES_TOKENS)
        for (uint32_t i = 0; i < at->judged->traces; i++) shuffle_tokens(at, at->judged->trace[i]);
    else
        shuffle_pairs(at);
    COT_TRY(phase_end(at, timed));
    phase_begin(at, unit);
    shuffle_pairs(at);
    transpose(at); /* every dispatched choice returns one row */
    COT_TRY(phase_end(at, timed));
    return shuffle_constant(at, timed);
}

/* ---- coherent ---- */

static void coherent_pairs(solve_layer_t *at)
{
    for (uint32_t e = 0; e < at->experts; e++) {
        const int64_t *count = at->judged->stats->transition + solve_pair(at, at->layer - 1, e, 0);
        for (uint32_t a = 0; a < at->ranks; a++) {
            int64_t share = at->share_before[(size_t)e * at->ranks + a];
            int64_t *flow = at->phase.rows + (size_t)a * at->ranks;
            for (uint32_t f = 0; f < at->experts && share != 0; f++)
                flow[at->serve[(size_t)f * at->ranks + a]] += count[f] * share;
        }
    }
}

/* Copies of one token that sits on rank `a`, of the share `share`. */
static void coherent_visit(solve_layer_t *at, const place_trace_t *trace, uint64_t token, uint32_t a, int64_t share)
{
    at->stamp++;
    for (uint32_t j = 0; j < at->top_k; j++) {
        uint32_t b = at->serve[(size_t)place_trace_expert(trace, token, at->layer, j) * at->ranks + a];
        if (first_visit(at, b)) at->phase.rows[(size_t)a * at->ranks + b] += share;
    }
}

static void coherent_tokens(solve_layer_t *at, const place_trace_t *trace)
{
    for (uint64_t token = 0; token < place_trace_tokens(trace); token++)
        for (uint32_t k = 0; k < at->top_k; k++) {
            const int32_t *share = at->share_before +
                                   (size_t)place_trace_expert(trace, token, at->layer - 1, k) * at->ranks;
            for (uint32_t a = 0; a < at->ranks; a++)
                if (share[a] != 0) coherent_visit(at, trace, token, a, share[a]);
        }
}

/* The rows of all experts come together where one of them is. */
static cot_status_t coherent_gather(solve_layer_t *at, bool timed)
{
    phase_begin(at, at->top_k * SOLVE_SHARE_ONE);
    for (uint32_t e = 0; e < at->experts; e++)
        for (uint32_t f = 0; f < at->experts; f++) {
            int64_t count = e != f ? at->judged->stats->coactivation[solve_pair(at, at->layer, e, f)] : 0;
            const int32_t *from = at->share + (size_t)e * at->ranks, *to = at->share + (size_t)f * at->ranks;
            for (uint32_t a = 0; a < at->ranks && count != 0; a++)
                for (uint32_t b = 0; b < at->ranks && from[a] != 0; b++)
                    at->phase.rows[(size_t)a * at->ranks + b] += (int64_t)((solve_wide_t)count * from[a] * to[b] /
                                                                           SOLVE_SHARE_ONE);
        }
    return phase_end(at, timed);
}

static cot_status_t judge_coherent(solve_layer_t *at, bool timed)
{
    if (at->layer == 0) {
        COT_TRY(home_dispatch(at, timed));
    } else {
        phase_begin(at, at->top_k * SOLVE_SHARE_ONE);
        if (at->figures.copies == SOLVE_COPIES_TOKENS)
            for (uint32_t i = 0; i < at->judged->traces; i++) coherent_tokens(at, at->judged->trace[i]);
        else
            coherent_pairs(at);
        COT_TRY(phase_end(at, timed));
    }
    const int64_t *load = at->judged->stats->load + (size_t)at->layer * at->experts;
    at->rows_unit = SOLVE_SHARE_ONE;
    for (uint32_t e = 0; e < at->experts; e++)
        for (uint32_t r = 0; r < at->ranks; r++)
            at->rows[(size_t)e * at->ranks + r] = load[e] * at->share[(size_t)e * at->ranks + r];
    return at->top_k > 1 ? coherent_gather(at, timed) : COT_OK;
}

cot_status_t solve_judge_exchange(solve_layer_t *at, bool timed)
{
    switch (at->judged->exchange) {
    case SOLVE_HOME: COT_TRY(judge_home(at, timed)); break;
    case SOLVE_SHUFFLE: COT_TRY(judge_shuffle(at, timed)); break;
    case SOLVE_COHERENT: COT_TRY(judge_coherent(at, timed)); break;
    }
    return timed ? compute(at) : COT_OK;
}
