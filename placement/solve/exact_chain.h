/* Dynamic programming over whole partitions, for few experts (8, say). */
#ifndef SOLVE_EXACT_CHAIN_H
#define SOLVE_EXACT_CHAIN_H

#include "placement/solve/solvers.h"

/* Optimal where all links cost the same and ranks are alike with all slots taken: what a rank is called in one layer
 * does not bind the next, so a state is an unlabelled partition of a layer's experts, and a step the best matching of
 * two partitions' parts (Hungarian). COT_ERR_UNSUPPORTED for other problems, and where states x states x layers is
 * beyond what takes a second or so. */
cot_status_t solve_chain(const solve_problem_t *problem, const solve_context_t *context, solve_answer_t *answer_out);

#endif
