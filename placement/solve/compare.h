/* Placements beside each other, on the traffic that a plan was fitted to and on traffic that it has not seen. */
#ifndef SOLVE_COMPARE_H
#define SOLVE_COMPARE_H

#include "placement/solve/active.h"
#include "placement/solve/drift.h"
#include "placement/solve/evaluate.h"
#include "placement/solve/inputs.h"
#include "placement/solve/links.h"
#include "placement/solve/report.h"
#include "placement/solve/solvers.h"

/* Traffic to judge by. Owns all but the paths. */
typedef struct {
    char name[64];
    bool held_out;
    const char *const *path;
    uint32_t paths;
    solve_inputs_t inputs;
    solve_problem_t *problem;
    place_trace_t **trace; /* [paths]; NULL unless all are token traces */
} solve_column_t;

/* One placement on one column's traffic. */
typedef struct {
    solve_figures_t figures; /* with copies token by token where there are tokens */
    int64_t value;           /* the objective, as a solver counts it, in thousandths */
    solve_active_t active;   /* mean < 0: top_k unknown */
    solve_detail_t detail;
    int64_t rows[SOLVE_LINKS_MOST]; /* by group of links, in thousandths */
} solve_cell_t;

typedef struct {
    const char *name;
    place_plan_t *plan; /* owned but for the plan that is judged */
    solve_cell_t *cell; /* [columns] */
} solve_row_t;

/* A new plan made for a column's traffic, starting from the old one. */
typedef struct {
    bool done;
    solve_cell_t cell;
    solve_moves_t moves;
    double loss;       /* of the objective, (old - new) / old; at least 0 */
    double saved_ns;   /* of one step; NAN: no step time */
    double pays_after; /* steps until the moves have paid; INFINITY: never; NAN: unknown */
} solve_replan_t;

#define SOLVE_ROWS_MOST 8U

typedef struct {
    const cot_settings_t *settings;
    const char *path; /* of the plan */
    place_plan_t *plan;
    solve_column_t *column; /* the first is what the plan was fitted to */
    uint32_t columns;
    solve_row_t row[SOLVE_ROWS_MOST]; /* the last is the plan itself */
    uint32_t rows;
    solve_links_t links;
    solve_drift_t *drift;   /* [columns]; of the first: all 0 */
    solve_replan_t *replan; /* [columns] */
} solve_compare_t;

/* Reads the plan and the traces that the settings name, and judges every placement on every column. */
cot_status_t solve_compare(const cot_settings_t *settings, solve_compare_t *compare_out);
void solve_compare_free(solve_compare_t *compare);

cot_status_t solve_compare_text(const solve_compare_t *compare, cot_buffer_t *out);
cot_status_t solve_compare_json(const solve_compare_t *compare, cot_buffer_t *out);
cot_status_t solve_compare_report(const solve_compare_t *compare, const char *path);

/* ---- what the three show of a cell ---- */

/* NAN: not known for this trace. */
typedef struct {
    const char *title, *unit;
    double value;
} solve_metric_t;

#define SOLVE_METRICS_MOST (12U + SOLVE_LINKS_MOST)
/* Metrics in the order of the table; the same for every cell of a comparison. Returns how many. */
uint32_t solve_compare_metrics(const solve_compare_t *compare, const solve_column_t *column, const solve_cell_t *cell,
                               solve_metric_t metrics_out[SOLVE_METRICS_MOST]);
/* A figure for people: "-" for NAN, else some four digits. Into `out`, which is returned. */
const char *solve_compare_figure(double value, char out[32]);
/* When the moves of a new plan have paid, as a sentence. */
const char *solve_compare_pays(const solve_compare_t *compare, uint32_t column, char out[160]);

#endif
