/* Simulated annealing over swaps of two experts of a layer. While one layer is worked on its neighbours stand still, so
 * what an expert costs on each rank is a fixed table and a swap is judged in a few loads; the neighbours' tables follow
 * when the layer is left. */
#ifndef SOLVE_ANNEAL_H
#define SOLVE_ANNEAL_H

#include "placement/solve/moves.h"

/* Trials of a layer before it is left, for each expert. */
#define SOLVE_ANNEAL_STAY 4

/* solve_annealer_t owns a placement of its own and tables. One thread. */

/* Experts of a rank in a layer that a pair move looks at. */
#define SOLVE_PAIR_EXPERTS 8

cot_status_t solve_annealer_create(const solve_problem_t *problem, solve_annealer_t **annealer_out);
void solve_annealer_destroy(solve_annealer_t *annealer);

void solve_annealer_set(solve_annealer_t *annealer, const solve_rank_t *rank_of);
const solve_rank_t *solve_annealer_get(const solve_annealer_t *annealer); /* [layers, experts] */

/* Mean change of the objective by a random swap, without its sign: the unit of temperature. */
double solve_annealer_scale(solve_annealer_t *annealer, solve_search_t *random);
/* One pass over all layers at a temperature (in the objective's thousandths). */
void solve_annealer_sweep(solve_annealer_t *annealer, solve_search_t *random, double temperature);

/* Redraws a pair of ranks along the whole chain at a temperature; 0: the best chain. Returns the swaps made. Of ranks
 * with more than SOLVE_PAIR_EXPERTS experts it looks at a random choice. Tiered problems only. */
uint32_t solve_annealer_pair(solve_annealer_t *annealer, solve_search_t *random, const uint32_t pair[2],
                             double temperature);
size_t solve_annealer_pair_bytes(const solve_problem_t *problem);

#endif
