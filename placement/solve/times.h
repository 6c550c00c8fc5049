/* The search for step_time. While one layer is worked on its neighbours stand still, and a swap is judged by what it
 * does to the layer's compute and to each of its exchanges: sums of load and of co-activation of the two ranks, and
 * what every rank sends and receives. In the exchanges home and shuffle layers do not touch each other at all. */
#ifndef SOLVE_TIMES_H
#define SOLVE_TIMES_H

#include "placement/solve/solvers.h"

/* Rounds over all layers, even ones first, then odd ones, each layer annealed by itself: the same plan for any number
 * of threads. Problems with the objective step_time only. */
cot_status_t solve_times(const solve_problem_t *problem, const solve_context_t *context, solve_answer_t *answer_out);

#endif
