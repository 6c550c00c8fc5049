#include "placement/solve/milp.h"

#include "base/memory.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define TOLERANCE 1e-6

void solve_milp_destroy(solve_milp_t *milp)
{
    if (milp == NULL) return;
    cot_free(milp->objective);
    cot_free(milp->lower);
    cot_free(milp->upper);
    cot_free(milp->integer);
    cot_free(milp->begin);
    cot_free(milp->column);
    cot_free(milp->value);
    cot_free(milp->row_lower);
    cot_free(milp->row_upper);
    cot_free(milp);
}

cot_status_t solve_milp_create(uint64_t columns, uint64_t rows, uint64_t nonzeros, solve_milp_t **milp_out)
{
    if (nonzeros > SOLVE_MILP_NONZEROS || columns > SOLVE_MILP_NONZEROS || rows > SOLVE_MILP_NONZEROS)
        return cot_fail(COT_ERR_LIMIT,
                        "the program of %llu columns, %llu rows and %llu nonzeros is not built: over %llu of these "
                        "GLPK gets nowhere",
                        (unsigned long long)columns, (unsigned long long)rows, (unsigned long long)nonzeros,
                        (unsigned long long)SOLVE_MILP_NONZEROS);
    solve_milp_t *milp = cot_calloc(1, sizeof(*milp));
    if (milp == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a linear program");
    *milp = (solve_milp_t){.columns = (uint32_t)columns, .row_room = (uint32_t)rows, .nonzero_room = nonzeros};
    milp->objective = cot_calloc(columns, sizeof(*milp->objective));
    milp->lower = cot_calloc(columns, sizeof(*milp->lower));
    milp->upper = cot_calloc(columns, sizeof(*milp->upper));
    milp->integer = cot_calloc(columns, sizeof(*milp->integer));
    milp->begin = cot_calloc(rows + 1, sizeof(*milp->begin));
    milp->column = cot_calloc(nonzeros, sizeof(*milp->column));
    milp->value = cot_calloc(nonzeros, sizeof(*milp->value));
    milp->row_lower = cot_calloc(rows, sizeof(*milp->row_lower));
    milp->row_upper = cot_calloc(rows, sizeof(*milp->row_upper));
    if (milp->objective == NULL || milp->lower == NULL || milp->upper == NULL || milp->integer == NULL ||
        milp->begin == NULL || milp->column == NULL || milp->value == NULL || milp->row_lower == NULL ||
        milp->row_upper == NULL) {
        solve_milp_destroy(milp);
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for a linear program of %llu nonzeros",
                        (unsigned long long)nonzeros);
    }
    for (uint64_t j = 0; j < columns; j++) milp->upper[j] = HUGE_VAL;
    *milp_out = milp;
    return COT_OK;
}

void solve_milp_row(solve_milp_t *milp, double lower, double upper)
{
    assert(milp->rows < milp->row_room);
    milp->row_lower[milp->rows] = lower;
    milp->row_upper[milp->rows] = upper;
    milp->rows++;
    milp->begin[milp->rows] = milp->nonzeros;
}

void solve_milp_add(solve_milp_t *milp, uint32_t column, double value)
{
    assert(milp->nonzeros < milp->nonzero_room && column < milp->columns && milp->rows > 0);
    milp->column[milp->nonzeros] = column;
    milp->value[milp->nonzeros++] = value;
    milp->begin[milp->rows] = milp->nonzeros;
}

void solve_milp_binary(solve_milp_t *milp, uint32_t column)
{
    milp->integer[column] = true;
    milp->upper[column] = 1;
}

static bool within(double value, double lower, double upper, double scale)
{
    double slack = TOLERANCE * (1 + fabs(scale));
    return value >= lower - slack && value <= upper + slack; /* false for a NaN */
}

bool solve_milp_holds(const solve_milp_t *milp, const double *x, double *objective_out)
{
    double objective = 0;
    for (uint32_t j = 0; j < milp->columns; j++) {
        if (!isfinite(x[j]) || !within(x[j], milp->lower[j], milp->upper[j], x[j])) return false;
        if (milp->integer[j] && fabs(x[j] - round(x[j])) > TOLERANCE) return false;
        objective += milp->objective[j] * x[j];
    }
    for (uint32_t i = 0; i < milp->rows; i++) {
        double sum = 0, scale = 0;
        for (uint64_t at = milp->begin[i]; at < milp->begin[i + 1]; at++) {
            sum += milp->value[at] * x[milp->column[at]];
            scale += fabs(milp->value[at] * x[milp->column[at]]);
        }
        if (!within(sum, milp->row_lower[i], milp->row_upper[i], scale)) return false;
    }
    *objective_out = objective;
    return true;
}
