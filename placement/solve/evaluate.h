/* The one judge: recomputes a placement's figures from the counts, in integers, and shares no code with any solver.
 *
 * What is judged. L MoE layers, E experts, R ranks, k experts a token, T_l tokens in layer l (its load sum / k, rounded
 * up). load[l][e], transition[l][e][f] (all k x k pairs of one token in layers l and l+1) and coactivation[l][e][f]
 * come from the traces. serve(l, e, h) = place_plan_rank(plan, l, e, h) is the rank that computes expert e for a token
 * that is on rank h; without replicas it is the expert's rank, whatever h. Tokens are at home on every rank equally
 * often and homes do not depend on the experts, so expert e gives rank r the share n(e, r) / R, n = homes h with
 * serve(l, e, h) = r: loads W(l, r) = sum over e of load[l][e] x n(e, r) are exact in units of 1/R.
 *
 * crossings = sum over l, a, b of flow(l, a, b) x crossing_cost(a, b), where flow(l, a, b) is the number of transitions
 *     from layer l on rank a to layer l+1 on rank b. With q(l, e, a) the share of expert e's tokens computed on a, the
 *     flow is sum over e, f with serve(l+1, f, a) = b of transition[l][e][f] x q(l, e, a): ExFlow's count, whatever the
 *     exchange. q(0, e, a) = n(e, a) / R, and q(l+1, f, b) is the flow into f on b over all flow into f: a first-order
 *     Markov chain. Shares are whole numbers of 2^-20, rounded down, the rest given to the expert's first copy. Without
 *     replicas every share is 1 and the count is exact.
 * balance = sum over l of the largest W(l, r) x slowness(r), slowness = 1 / relative_speed in thousandths, rounded; the
 *     sum is rounded down to thousandths. Decode weighs what is read instead of rows (METRO, arXiv 2512.09277): W(l, r)
 *     is then A(l, r), the sum over e of S x (1 - (1 - p)^step_tokens), p = e's share on r x load[l][e] / T, each in
 *     whole thousandths; T is the tokens of the mean layer, rounded up.
 * step time (exchange, row_bytes and expert_ns known): the trace's tokens run in S = T_0 / step_tokens (rounded up)
 *     equal steps; the sum over the layers of compute + phases, each rounded up to a nanosecond, for all S steps:
 *   compute = largest over r of rows(l, r) x expert_ns / speed(r), in whole picoseconds a row. Decode weighs what is
 * read instead (METRO): rows(l, r) is then the sum over e of S x (1 - (1 - p)^step_tokens), p = e's rows on r / T_l, in
 *     thousandths, and expert_ns is that of one activated expert.
 *   a phase = largest over r, sending and receiving apart, of S x the dearest latency of a link used + the sum over the
 *     links of rows x row_bytes / rate, in whole picoseconds a row. Phases follow each other:
 *   home: dispatch from h to d, N(h, d) / R rows; then d returns to h the sum of load[l][e] / R over the experts with
 *     serve(l, e, h) = d. N(h, d) is the number of tokens with one of those experts at least (one copy a destination):
 *       tokens      counted token by token
 *       pairs       min(T_l, S1 - 2 S2 / m), 2 S2 / m rounded down, S1 and S2 the sums of load and of co-activation
 *                   pairs over those experts, m = min(k, their number): no set of tokens with these counts has more
 *                   (Kwerel 1975; equal when every token has 0, 1 or m of them)
 *       duplicates  min(T_l, S1): without co-activation counts, as if every expert had a copy of its own
 *   shuffle: a reduce-scatter and an all-gather of T_l / R rows from each rank to each other, whatever the placement;
 *     between them the residual exchange: the token sits where one of its k experts is (each equally often: the right
 *     guess of one expert), dispatches to its others, and they return one row each.
 *   coherent: the token sits where one of its k experts of the layer before was (layer 0: at home), dispatches to its
 *     experts, and the k rows are gathered where one of these is. The new keys and values that all ranks gather are the
 *     same under every placement and not counted.
 *     Dispatch in shuffle and coherent counts a copy for each expert, but with tokens one for each destination.
 *     With replicas the gather takes the shares q of two experts as independent.
 *
 * Units. Loads in 1/R, shares in 2^-20, sums in 128 bits; a figure that leaves int64 is COT_ERR_LIMIT. */
#ifndef SOLVE_EVALUATE_H
#define SOLVE_EVALUATE_H

#include "placement/solve/problem.h"

/* How the rows of a dispatch were counted. */
typedef enum { SOLVE_COPIES_DUPLICATES, SOLVE_COPIES_PAIRS, SOLVE_COPIES_TOKENS } solve_copies_t;

/* What a plan is judged on. Borrows everything. */
typedef struct {
    const place_stats_t *stats;
    const place_cluster_t *cluster;
    const uint32_t *slots; /* [ranks] no rank may hold more in a layer; NULL: not looked at */
    place_trace_t *const
        *trace; /* token traces that `stats` were counted from: copies token by token; NULL: from pairs */
    uint32_t traces;
    solve_exchange_t exchange;
    uint32_t row_bytes; /* of a dispatched row; 0: unknown, no step time */
    double expert_ns;   /* of one row at speed 1, or with `decode` of one activated expert; 0: unknown, no step time */
    uint64_t step_tokens; /* tokens of one step on all ranks together, at least 1 */
    bool decode;
} solve_case_t;

typedef struct {
    int64_t transitions;   /* all of them; 0 without transition counts, as are the next three */
    int64_t crossings;     /* transitions x crossing cost */
    int64_t any_crossings; /* transitions between ranks */
    int64_t far_crossings; /* transitions between nodes */
    int64_t balance;       /* sum over layers of the largest load / speed, in thousandths of a row or an activation */
    double largest_load;   /* of any rank in any layer, over the layer's mean load */
    double mean_imbalance; /* mean over layers of (largest load / speed) / (what it were if spread by speed) - 1 */
    int64_t tokens, steps; /* of the trace; 0: top_k unknown */
    int64_t exchanged;     /* rows between ranks in thousandths, all layers and phases, as `detail` has them by link;
                              -1: not counted (neither a step time nor a detail asked, or the counts do not tell) */
    int64_t step_ns;       /* all steps together; -1: cannot be computed */
    int64_t compute_ns, exchange_ns; /* its two parts */
    solve_copies_t copies;
    int64_t value; /* of solve_evaluate: the problem's objective, in thousandths */
} solve_figures_t;

/* By layer, rank and link; for reports. */
typedef struct {
    uint32_t layers, ranks;
    int64_t *load;    /* [layers, ranks] in 1/ranks of a token */
    int64_t *traffic; /* [ranks, ranks] rows from, to, in thousandths, summed over layers and phases */
    int64_t *flow;    /* [ranks, ranks] transitions from, to, in thousandths, summed over layers */
} solve_detail_t;

/* COT_ERR_MISMATCH: the plan is not for these counts or these ranks; COT_ERR_LIMIT: a rank over its slots, or sums that
 * leave int64; COT_ERR_UNSUPPORTED: shuffle, or coherent with top_k > 1, without co-activation counts (asked only where
 * a step time can be computed). `detail_out` may be NULL; what it gets is freed with solve_detail_free. */
cot_status_t solve_judge(const solve_case_t *judged, const place_plan_t *plan, solve_figures_t *figures_out,
                         solve_detail_t *detail_out);
void solve_detail_free(solve_detail_t *detail);

/* The case that a problem describes. Borrows from it. */
solve_case_t solve_case_of(const solve_problem_t *problem);
/* Judges a plan by a problem's objective, `value` and all: copies by pairs or duplicates, as the solvers count them. */
cot_status_t solve_evaluate(const solve_problem_t *problem, const place_plan_t *plan, solve_figures_t *figures_out);

const char *solve_copies_name(solve_copies_t copies); /* "duplicates", "pairs", "tokens" */

#endif
