/* How many transitions can stay inside a group at most, boundary by boundary: the dual of a b-matching. */
#ifndef SOLVE_MATCHING_H
#define SOLVE_MATCHING_H

#include "placement/solve/bound.h"

/* The slots that stand beside an expert in its group, most first: one entry for each slot. caps [experts + free_slots]
 * (a group's slots count up to `experts`). */
void solve_group_caps(const solve_problem_t *problem, const solve_level_t *level, uint32_t *caps);

/* Coordinate descent on u, v >= 0 of
 *   sum of cap x u + sum of cap x v + sum over pairs of max(0, T - u - v),
 * caps going to the largest duals; with free slots an expert may be a successor in several groups, so the largest v
 * count once for each copy. Fills level->before, after, within. */
cot_status_t solve_matching_bound(const solve_problem_t *problem, const solve_bound_config_t *config,
                                  solve_level_t *level);

#endif
