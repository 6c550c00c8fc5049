/* How many transitions can stay inside one of equal groups at most, the chain of layers seen as a whole.
 *
 * Give every expert of every layer a unit vector: the corner of a regular simplex that stands for its group. Then
 * <x, y> is 1 inside a group and -1 / (groups - 1) across, and the vectors of a layer sum to 0, groups being equal. So
 *   within = sum T / groups + (1 - 1 / groups) x sum T <x, y>,
 * and sum T <x, y> is at most its maximum over all unit vectors that sum to 0 in each layer, whatever the groups. That
 * is a semidefinite program, and its dual asks for a diagonal d with
 *   diag(d) + centre x (ones in each layer's block) - B  positive semidefinite,   B = T between consecutive layers:
 * then sum T <x, y> <= sum d / 2. The vectors are found by block-coordinate ascent (each layer exactly, given its
 * neighbours: its vectors are the pulls on them, less the pulls' geometric median, cut to length 1), which also gives
 * d: the lengths. What d lacks is found by trial with a Cholesky factorisation. */
#ifndef SOLVE_GRAM_H
#define SOLVE_GRAM_H

#include "placement/solve/bound.h"

/* Whether the bound holds for some level: no free slots (so every group is full), and a chain. */
bool solve_gram_applies(const solve_problem_t *problem);

/* diagonal [layers, experts] in 1 / SOLVE_GRAM_SCALE, *centre_out the same, and whether a proof was found before the
 * deadline. */
cot_status_t solve_gram_bound(const solve_problem_t *problem, const solve_bound_config_t *config, int64_t *diagonal,
                              int64_t *centre_out, bool *found_out);

/* Transitions within equal groups, at most, by the diagonal. */
int64_t solve_gram_within(const solve_problem_t *problem, uint32_t groups, const int64_t *diagonal);

#endif
