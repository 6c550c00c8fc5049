/* Mixed-integer linear programs as plain arrays, solved by GLPK in a forked child. GLPK 5 ends the process on what it
 * does not like, overruns its own time limits, and returns wrong incumbents when presolving meets a start: so it runs
 * behind child.h, without its presolver where there is a start, and nothing that it says is believed before
 * solve_milp_holds has seen it. */
#ifndef SOLVE_MILP_H
#define SOLVE_MILP_H

#include "base/clock.h"
#include "base/status.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* More are not built: GLPK would not get through the first relaxation (notes in docs/design.md). */
#define SOLVE_MILP_NONZEROS UINT64_C(200000)

/* Minimise objective x over lower <= x <= upper, row_lower <= A x <= row_upper; HUGE_VAL is no limit. Owns its arrays.
 * Rows are filled one after the other. */
typedef struct {
    uint32_t columns, rows;
    uint64_t nonzeros, nonzero_room;
    uint32_t row_room;
    double *objective, *lower, *upper; /* [columns] */
    bool *integer;                     /* [columns] */
    uint64_t *begin;                   /* [rows + 1] of each row in column [] and value [] */
    uint32_t *column;
    double *value;
    double *row_lower, *row_upper; /* [rows] */
} solve_milp_t;

/* Columns from 0 to infinity with objective 0, no rows yet, room for so many. COT_ERR_LIMIT beyond
 * SOLVE_MILP_NONZEROS. */
cot_status_t solve_milp_create(uint64_t columns, uint64_t rows, uint64_t nonzeros, solve_milp_t **milp_out);
void solve_milp_destroy(solve_milp_t *milp);
/* Ends the row before and begins one within these limits; its coefficients follow. */
void solve_milp_row(solve_milp_t *milp, double lower, double upper);
void solve_milp_add(solve_milp_t *milp, uint32_t column, double value);
void solve_milp_binary(solve_milp_t *milp, uint32_t column);

/* Whether x obeys every limit to 1e-6 and is whole where it must be; *objective_out is its objective. */
bool solve_milp_holds(const solve_milp_t *milp, const double *x, double *objective_out);

typedef enum {
    SOLVE_MILP_OPTIMAL,  /* GLPK says so (or within `gap`), and x holds */
    SOLVE_MILP_FEASIBLE, /* the best x so far: the start, or better */
    SOLVE_MILP_NOTHING   /* no x */
} solve_milp_outcome_t;

typedef struct {
    cot_deadline_t deadline;
    const atomic_bool *stop; /* may be NULL */
    uint64_t memory_bytes;
    double gap;          /* stops there: (x - bound) / x */
    const double *start; /* [columns] an x that holds; NULL: none */
} solve_milp_config_t;

typedef struct {
    solve_milp_outcome_t outcome;
    double objective, bound; /* of x, and below it (GLPK's word; -HUGE_VAL: none) */
    char ended[96];          /* in words: "optimal", "time limit, best so far", … */
} solve_milp_result_t;

/* x [columns] out unless SOLVE_MILP_NOTHING. */
cot_status_t solve_milp_run(const solve_milp_t *milp, const solve_milp_config_t *config, double *x,
                            solve_milp_result_t *result_out);

#endif
