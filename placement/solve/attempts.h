/* What one round of a search stream does to its placement. */
#ifndef SOLVE_ATTEMPTS_H
#define SOLVE_ATTEMPTS_H

#include "placement/solve/moves.h"

/* Layer by layer from a random first layer's shuffle on, each placed best after the one before, then descended. */
void solve_greedy(solve_search_t *search);
/* `kicks` times: disturbs a few layers, repairs, keeps the result if it is no worse (iterated local search). */
void solve_kicks(solve_search_t *search, uint32_t kicks);
/* Simulated annealing of `trials` swaps from `heat` x the mean change of a swap down to a hundredth of it, then
 * descended. */
void solve_anneal(solve_search_t *search, uint64_t trials, double heat);

#endif
