/* How little one layer's exchanges can cost in step_time, wherever its experts are. */
#ifndef SOLVE_TRAFFIC_BOUND_H
#define SOLVE_TRAFFIC_BOUND_H

#include "placement/solve/problem.h"

/* Picoseconds, at least, of the dispatch and the return of `layer` under the exchange plan `home`: homes are uniform,
 * so a rank sends back what it computed, and got at least a k-th of it, over all its links; the load bound with these
 * times for slowness. With free slots only what no replica can save counts. 0 for the other exchange plans: there
 * placement may bring everything onto one rank. */
cot_status_t solve_traffic_bound(const solve_problem_t *problem, uint32_t layer, int64_t *bound_out);

#endif
