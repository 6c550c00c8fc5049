/* Re-planning with few moves: an engine that runs wants most of its experts left where they are. */
#ifndef SOLVE_REPLAN_H
#define SOLVE_REPLAN_H

#include "placement/solve/solvers.h"

/* From context->start the best swap (or move into a free slot) again and again, until context->max_moves experts stand
 * on ranks that did not hold them, or nothing helps. Crossings, balance, weighted; plans without replicas. */
cot_status_t solve_replan(const solve_problem_t *problem, const solve_context_t *context, solve_answer_t *answer_out);

#endif
