/* A comparison for programs (docs/formats.md lists the keys). */
#include "placement/solve/compare.h"

#include "base/memory.h"
#include "placement/solve/progress.h"

#include <math.h>

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

/* Takes `value`, which may be NULL when memory is out. */
static bool put(json_t *object, const char *key, json_t *value)
{
    return json_object_set_new(object, key, value) == 0;
}

static bool put_traffic(const solve_compare_t *compare, const solve_column_t *column, const solve_cell_t *cell,
                        json_t *object)
{
    double row_bytes = column->inputs.config.row_bytes;
    json_t *links = json_object();
    bool whole = links != NULL;
    for (uint32_t g = 0; g < compare->links.count && whole; g++) {
        double rows = cell->figures.exchanged >= 0 ? (double)cell->rows[g] / 1000 : NAN;
        whole = put(links, compare->links.name[g], number(row_bytes > 0 ? round(rows * row_bytes) : rows));
    }
    return put(object, row_bytes > 0 ? "bytes_by_link" : "rows_by_link", links) && whole;
}

static json_t *cell_json(const solve_compare_t *compare, const solve_column_t *column, const solve_cell_t *cell)
{
    const solve_figures_t *figures = &cell->figures;
    double step = figures->step_ns >= 0 ? 1e3 * (double)figures->steps : NAN;
    bool active = cell->active.mean >= 0;
    json_t *object = json_pack(
        "{s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:s, s:f}", "transitions", (json_int_t)figures->transitions,
        "any_crossings", (json_int_t)figures->any_crossings, "far_crossings", (json_int_t)figures->far_crossings,
        "crossings", (json_int_t)figures->crossings, "balance", (double)figures->balance / SOLVE_UNIT, "largest_load",
        figures->largest_load, "mean_imbalance", figures->mean_imbalance, "copies", solve_copies_name(figures->copies),
        "value", solve_natural(column->problem, cell->value));
    bool whole = object != NULL && put_traffic(compare, column, cell, object) &&
                 put(object, "activated_mean", number(active ? cell->active.mean : NAN)) &&
                 put(object, "activated_largest", number(active ? cell->active.largest : NAN)) &&
                 put(object, "step_us", number((double)figures->step_ns / step)) &&
                 put(object, "compute_us", number((double)figures->compute_ns / step)) &&
                 put(object, "exchange_us", number((double)figures->exchange_ns / step));
    if (whole) return object;
    json_decref(object);
    return NULL;
}

static json_t *columns_json(const solve_compare_t *compare)
{
    json_t *list = json_array();
    for (uint32_t c = 0; c < compare->columns && list != NULL; c++) {
        const solve_column_t *column = &compare->column[c];
        const solve_cell_t *cell = &compare->row[0].cell[c];
        json_t *traces = json_array(), *object = NULL;
        bool whole = traces != NULL;
        for (uint32_t i = 0; i < column->paths && whole; i++)
            whole = json_array_append_new(traces, json_string(column->path[i])) == 0;
        if (whole)
            object = json_pack("{s:s, s:b, s:O, s:I, s:I, s:b}", "name", column->name, "held_out", column->held_out,
                               "traces", traces, "tokens", (json_int_t)cell->figures.tokens, "steps",
                               (json_int_t)cell->figures.steps, "activated_counted", cell->active.steps > 0);
        json_decref(traces);
        if (json_array_append_new(list, object) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *placements_json(const solve_compare_t *compare)
{
    json_t *list = json_array();
    for (uint32_t r = 0; r < compare->rows && list != NULL; r++) {
        json_t *cells = json_array();
        bool whole = cells != NULL;
        for (uint32_t c = 0; c < compare->columns && whole; c++)
            whole = json_array_append_new(cells, cell_json(compare, &compare->column[c], &compare->row[r].cell[c])) ==
                    0;
        json_t *object = whole ? json_pack("{s:s, s:O}", "name", compare->row[r].name, "columns", cells) : NULL;
        json_decref(cells);
        if (json_array_append_new(list, object) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *replan_json(const solve_compare_t *compare, uint32_t c)
{
    const solve_replan_t *replan = &compare->replan[c];
    if (!replan->done) return json_null();
    const solve_moves_t *moves = &replan->moves;
    double steps = replan->pays_after, tokens = steps * (double)compare->column[c].problem->step_tokens;
    json_t *object = json_pack("{s:f, s:I, s:I, s:b}", "loss", replan->loss, "moved_copies", (json_int_t)moves->copies,
                               "copies", (json_int_t)moves->experts, "pays", isfinite(steps));
    bool whole = object != NULL && put(object, "moved_bytes", number(moves->ns >= 0 ? (double)moves->bytes : NAN)) &&
                 put(object, "move_us", number(moves->ns >= 0 ? (double)moves->ns / 1e3 : NAN)) &&
                 put(object, "saved_us_per_step", number(replan->saved_ns / 1e3)) &&
                 put(object, "pays_after_steps", number(steps)) && put(object, "pays_after_tokens", number(tokens)) &&
                 put(object, "figures", cell_json(compare, &compare->column[c], &replan->cell));
    if (whole) return object;
    json_decref(object);
    return NULL;
}

static json_t *drift_json(const solve_compare_t *compare)
{
    json_t *list = json_array();
    for (uint32_t c = 1; c < compare->columns && list != NULL; c++) {
        const solve_drift_t *drift = &compare->drift[c];
        json_t *object = json_pack("{s:s, s:f, s:f, s:b}", "name", compare->column[c].name, "experts", drift->experts,
                                   "ranks", drift->ranks, "noise_by_requests", drift->by_requests);
        bool whole = object != NULL && put(object, "noise", number(drift->noise)) &&
                     put(object, "replan", replan_json(compare, c));
        if (!whole) json_decref(object);
        if (!whole || json_array_append_new(list, object) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

cot_status_t solve_compare_json(const solve_compare_t *compare, cot_buffer_t *out)
{
    const solve_problem_t *problem = compare->column[0].problem;
    json_t *root = json_object();
    bool whole = root != NULL && put(root, "plan", json_string(compare->path)) &&
                 put(root, "objective", json_string(solve_objective_name(problem->objective))) &&
                 put(root, "unit", json_string(solve_unit(problem))) &&
                 put(root, "exchange", json_string(solve_exchange_name(problem->exchange))) &&
                 put(root, "step_tokens", json_integer((json_int_t)problem->step_tokens)) &&
                 put(root, "decode", json_boolean(problem->decode)) && put(root, "columns", columns_json(compare)) &&
                 put(root, "placements", placements_json(compare)) && put(root, "drift", drift_json(compare));
    char *text = whole ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(12)) : NULL;
    json_decref(root);
    if (text == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory to print the comparison");
    cot_status_t status = cot_buffer_printf(out, "%s\n", text);
    cot_free(text);
    return status;
}
