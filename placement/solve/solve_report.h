/* The page of a planning (report.h): what was found and proved, how the search went, and all other solvers beside it.
 */
#ifndef SOLVE_SOLVE_REPORT_H
#define SOLVE_SOLVE_REPORT_H

#include "placement/solve/inputs.h"
#include "placement/solve/progress.h"
#include "placement/solve/solvers.h"

typedef struct {
    const solve_problem_t *problem;
    const solve_inputs_t *inputs;
    const solve_solver_t *solver; /* that made the plan */
    const place_plan_t *plan;
    int64_t bound; /* in thousandths */
    const char *proof;
    double seconds;
    const solve_progress_t *progress;
    const atomic_bool *stop; /* Ctrl-C: the other solvers are left out */
} solve_solved_t;

/* Runs the other solvers, SOLVE_REPORT_PEER_MS each at most, and writes the page. */
#define SOLVE_REPORT_PEER_MS 2000
cot_status_t solve_report_solved(const solve_solved_t *solved, const char *path);

#endif
