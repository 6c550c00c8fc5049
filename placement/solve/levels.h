/* A cost matrix from below, as levels of groups of ranks. */
#ifndef SOLVE_LEVELS_H
#define SOLVE_LEVELS_H

#include "placement/solve/bound.h"

/* The links' subdominant ultrametric (the dearest step of the cheapest way between two ranks: single linkage), cut into
 * its distinct values: cost(a, b) >= sum over levels of weight where group [a] != group [b], equal where links come in
 * tiers. Of more than SOLVE_LEVELS_MAX the heaviest are kept. Fills bound->level [].weight, groups, group. */
cot_status_t solve_find_levels(const solve_problem_t *problem, solve_bound_t *bound);

#endif
