/* The search as a whole: streams of seeded attempts on all cores until a deadline or a number of rounds. */
#ifndef SOLVE_PORTFOLIO_H
#define SOLVE_PORTFOLIO_H

#include "placement/solve/solvers.h"

cot_status_t solve_portfolio(const solve_problem_t *problem, const solve_context_t *context,
                             solve_answer_t *answer_out);

#endif
