/* What a person sees while the planner searches: on a terminal one line that renews itself, else a plain line whenever
 * the plan got better, at most one a second. Everything on standard error. */
#ifndef SOLVE_PROGRESS_H
#define SOLVE_PROGRESS_H

#include "base/clock.h"
#include "base/status.h"
#include "placement/solve/problem.h"

/* How the search went, for the report: (seconds since start, value in thousandths), oldest first. */
typedef struct {
    double seconds;
    int64_t value;
} solve_point_t;

/* Owns a thread and the points. solve_progress_better may be called from any thread. */
typedef struct solve_progress solve_progress_t;

typedef struct {
    const solve_problem_t *problem;
    int64_t began_ns, bound; /* bound in thousandths; 0: none */
    cot_deadline_t deadline; /* COT_NEVER: no time left is shown */
    bool quiet;
} solve_progress_config_t;

cot_status_t solve_progress_create(const solve_progress_config_t *config, solve_progress_t **progress_out);
void solve_progress_bound(void *progress, int64_t bound);  /* a better bound, in thousandths */
void solve_progress_better(void *progress, int64_t value); /* solve_context_t's `better` */
/* Ends the line and the thread; the points stay until destroy. */
void solve_progress_end(solve_progress_t *progress);
const solve_point_t *solve_progress_points(const solve_progress_t *progress, uint32_t *count_out);
const solve_point_t *solve_progress_bounds(const solve_progress_t *progress, uint32_t *count_out); /* as told */
void solve_progress_destroy(solve_progress_t *progress);

/* The objective in its unit: step_time in us of one step, the others as they are. */
double solve_natural(const solve_problem_t *problem, int64_t value);
const char *solve_unit(const solve_problem_t *problem);

#endif
