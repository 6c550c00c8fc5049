/* Copies of experts into the slots that a placement leaves free. */
#ifndef SOLVE_REPLICAS_H
#define SOLVE_REPLICAS_H

#include "placement/solve/solvers.h"

/* Layer by layer: of the copies that would take most load off the slowest rank, or meet most of what arrives at a rank
 * (where that is full, its lightest expert makes room), the few best by an estimate are judged under the engine's fixed
 * rule (place_plan_rank) on the layers around, and the best is kept if the objective gets better. Until nothing does,
 * or the context is over. *plan_inout is replaced by the better plan (or left); *added_out copies. */
cot_status_t solve_add_replicas(const solve_problem_t *problem, const solve_context_t *context,
                                place_plan_t **plan_inout, uint32_t *added_out);

/* The solver of that name: the context's start, or LPT (where loads count) or the search without replicas, and then
 * copies; the note says what ideal routing would give. */
cot_status_t solve_replicas(const solve_problem_t *problem, const solve_context_t *context, solve_answer_t *answer_out);

/* The least sum over layers of the largest rank load x slowness in thousandths, if each expert's tokens could be spread
 * over its copies at will: one linear program for each layer, by GLPK. COT_ERR_LIMIT if one was not solved in time. */
cot_status_t solve_ideal_balance(const solve_problem_t *problem, const place_plan_t *plan,
                                 const solve_context_t *context, int64_t *balance_out);

#endif
