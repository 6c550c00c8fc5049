/* Activated experts: how many of a rank's experts the tokens of one step touch. In decode their weights are what is
 * read, and so what takes time (METRO, arXiv 2512.09277). */
#ifndef SOLVE_ACTIVE_H
#define SOLVE_ACTIVE_H

#include "placement/solve/evaluate.h"

typedef struct {
    double mean;    /* of a rank, over steps, layers and ranks */
    double largest; /* of the step's and layer's most activated rank, mean over steps and layers */
    uint64_t steps; /* windows that were counted; 0: expected from the counts, tokens taken as independent */
} solve_active_t;

/* With token traces (judged->trace): windows of step_tokens rows, counted. Rows stand in the order of position, then
 * request, as when all requests run side by side; where the trace holds neither, in the file's order. A rest shorter
 * than a window is left out unless it is all there is. A token's home is its request (else its row) mod ranks.
 * Without: largest is that of the expected counts, which is at most the expected largest. COT_ERR_UNSUPPORTED if top_k
 * is unknown. The plan must fit the counts (solve_judge checks that). */
cot_status_t solve_active_count(const solve_case_t *judged, const place_plan_t *plan, solve_active_t *active_out);

#endif
