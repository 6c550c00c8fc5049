/* The one judge: recomputes a placement's figures from the counts in int64, and shares no code with any solver. */
#ifndef SOLVE_EVALUATE_H
#define SOLVE_EVALUATE_H

#include "placement/solve/problem.h"

typedef struct {
    int64_t crossings;     /* transitions x crossing cost */
    int64_t transitions;   /* all of them */
    int64_t far_crossings; /* transitions between nodes */
    int64_t any_crossings; /* transitions between ranks */
    double balance;        /* sum over layers of the largest rank load / speed */
    double largest_load;   /* of any rank in any layer, as a share of the layer's mean load */
    double mean_imbalance; /* mean over layers of (max - mean) / mean of the ranks' load / speed */
    int64_t value;         /* the problem's objective, in thousandths */
} solve_figures_t;

/* COT_ERR_INTERNAL if the plan is not one: an expert without a rank, a rank over its slots. */
cot_status_t solve_evaluate(const solve_problem_t *problem, const place_plan_t *plan, solve_figures_t *figures_out);

#endif
