/* How far routing has moved from what a plan was made for, and whether moving experts after it pays. */
#ifndef SOLVE_DRIFT_H
#define SOLVE_DRIFT_H

#include "placement/solve/evaluate.h"

/* Total variation, 1/2 sum |p - q|, of each layer's shares of load; means over the layers: 0 alike, 1 disjoint. `noise`
 * is what two samples of one routing of these sizes differ by on average, sum over e of sqrt((v_e + w_e) / (2 pi)) with
 * v_e, w_e the variances of e's share in the two samples. With token traces of several requests each, requests are
 * taken as independent: v_e = sum over requests of (x_re - p_e n_r)^2 / n^2, x_re of the request's n_r choices being e.
 * Else tokens are (too little noise, as a request's tokens are alike): v_e = a (1 - a) / (k n), a = k x the pooled
 * share. NAN where top_k is unknown. */
typedef struct {
    double experts, noise; /* of the experts' loads */
    double ranks;          /* of the ranks' loads under the plan: what of it the plan feels */
    bool by_requests;
} solve_drift_t;

/* COT_ERR_MISMATCH if the counts or the plan are not of one model. */
cot_status_t solve_drift(const solve_case_t *fitted, const solve_case_t *live, const place_plan_t *plan,
                         solve_drift_t *drift_out);

/* What it takes to go from one plan to another: copies on ranks that did not hold the expert. Each is sent once, by the
 * holder with the fastest link (ties: the lowest rank); all ranks send and receive at once. */
typedef struct {
    uint64_t copies, experts; /* moved; and all of the new plan's */
    uint64_t bytes;           /* 0: expert_bytes unknown */
    int64_t ns;               /* of the busiest rank and direction; -1: unknown */
} solve_moves_t;

void solve_moves_count(const place_cluster_t *cluster, const place_plan_t *from, const place_plan_t *to,
                       uint64_t expert_bytes, solve_moves_t *moves_out);

#endif
