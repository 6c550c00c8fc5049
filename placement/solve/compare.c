#include "placement/solve/compare.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/signals.h"
#include "base/threads.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void free_cell(solve_cell_t *cell)
{
    solve_detail_free(&cell->detail);
}

static void free_column(solve_column_t *column)
{
    for (uint32_t i = 0; column->trace != NULL && i < column->paths; i++) place_trace_close(column->trace[i]);
    cot_free(column->trace);
    cot_free((void *)(uintptr_t)column->path);
    solve_problem_destroy(column->problem);
    solve_inputs_free(&column->inputs);
}

void solve_compare_free(solve_compare_t *compare)
{
    for (uint32_t r = 0; r < compare->rows; r++) {
        for (uint32_t c = 0; compare->row[r].cell != NULL && c < compare->columns; c++)
            free_cell(&compare->row[r].cell[c]);
        cot_free(compare->row[r].cell);
        if (compare->row[r].plan != compare->plan) place_plan_destroy(compare->row[r].plan);
    }
    for (uint32_t c = 0; c < compare->columns; c++) {
        if (compare->replan != NULL) free_cell(&compare->replan[c].cell);
        free_column(&compare->column[c]);
    }
    cot_free(compare->column);
    cot_free(compare->drift);
    cot_free(compare->replan);
    place_plan_destroy(compare->plan);
    *compare = (solve_compare_t){0};
}

/* ---- traffic ---- */

/* The file's name without folder and ending. */
static void name_column(solve_column_t *column, const char *path)
{
    const char *slash = strrchr(path, '/'), *base = slash != NULL ? slash + 1 : path;
    const char *end = strstr(base, ".trace.safetensors");
    size_t length = end != NULL ? (size_t)(end - base) : strlen(base);
    snprintf(column->name, sizeof(column->name), "%.*s", (int)(length < 60 ? length : 60), base);
}

static uint32_t list_length(const cot_settings_t *settings, cot_setting_t id)
{
    uint32_t count = 0;
    while (cot_settings_list(settings, id, count) != NULL) count++;
    return count;
}

static cot_status_t take_paths(solve_column_t *column, const cot_settings_t *settings, cot_setting_t id, uint32_t first,
                               uint32_t count)
{
    const char **path = cot_calloc(count, sizeof(*path));
    if (path == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for %u names", count);
    for (uint32_t i = 0; i < count; i++) path[i] = cot_settings_list(settings, id, first + i);
    column->path = path;
    column->paths = count;
    return COT_OK;
}

/* Fitted traffic together; each held-out trace for itself; and these together if there are several. */
static cot_status_t name_columns(solve_compare_t *compare)
{
    const cot_settings_t *settings = compare->settings;
    uint32_t fitted = list_length(settings, COT_SET_FITTED), held = list_length(settings, COT_SET_TRACE);
    if (fitted == 0)
        return cot_fail(COT_ERR_INVALID, "--fitted is missing: which traces was the plan made from? They are what LPT "
                                         "and EPLB are given, and what drift is measured from");
    compare->columns = 1 + held + (held > 1);
    compare->column = cot_calloc(compare->columns, sizeof(*compare->column));
    compare->drift = cot_calloc(compare->columns, sizeof(*compare->drift));
    compare->replan = cot_calloc(compare->columns, sizeof(*compare->replan));
    if (compare->column == NULL || compare->drift == NULL || compare->replan == NULL) {
        compare->columns = 0;
        return cot_fail(COT_ERR_NO_MEMORY, "no memory to compare by %u traces", held);
    }
    snprintf(compare->column[0].name, sizeof(compare->column[0].name), "fitted");
    COT_TRY(take_paths(&compare->column[0], settings, COT_SET_FITTED, 0, fitted));
    for (uint32_t i = 0; i < held; i++) {
        solve_column_t *column = &compare->column[1 + i];
        COT_TRY(take_paths(column, settings, COT_SET_TRACE, i, 1));
        name_column(column, column->path[0]);
        column->held_out = true;
    }
    if (held < 2) return COT_OK;
    solve_column_t *all = &compare->column[1 + held];
    snprintf(all->name, sizeof(all->name), "all held-out");
    all->held_out = true;
    return take_paths(all, settings, COT_SET_TRACE, 0, held);
}

/* Opens the traces for counting token by token, if all of them hold tokens. */
static cot_status_t open_tokens(solve_column_t *column)
{
    column->trace = cot_calloc(column->paths, sizeof(*column->trace));
    if (column->trace == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for %u traces", column->paths);
    bool tokens = true;
    for (uint32_t i = 0; i < column->paths && tokens; i++) {
        COT_TRY(place_trace_open(column->path[i], &column->trace[i]));
        tokens = place_trace_kind(column->trace[i]) == PLACE_TRACE_TOKENS;
    }
    if (tokens) return COT_OK;
    for (uint32_t i = 0; i < column->paths; i++) place_trace_close(column->trace[i]);
    cot_free(column->trace);
    column->trace = NULL;
    return COT_OK;
}

static cot_status_t load_column(solve_compare_t *compare, solve_column_t *column)
{
    const place_plan_t *plan = compare->plan;
    COT_TRY(solve_inputs_load(compare->settings, column->path, column->paths, &column->inputs));
    place_stats_t *stats = column->inputs.stats;
    const place_plan_need_t need = {.layers = stats->layers,
                                    .experts = stats->experts,
                                    .ranks = plan->ranks,
                                    .layer_index = stats->layer_index,
                                    .config_sha256 = stats->config_sha256[0] != '\0' ? stats->config_sha256 : NULL};
    cot_status_t status = place_plan_check(plan, &need);
    if (status != COT_OK) return cot_fail_in(status, "%s", column->path[0]);
    for (uint32_t x = SOLVE_HOME; plan->exchange != NULL && x <= SOLVE_COHERENT; x++)
        if (!cot_settings_given(compare->settings, COT_SET_EXCHANGE) &&
            strcmp(plan->exchange, solve_exchange_name((solve_exchange_t)x)) == 0)
            column->inputs.config.exchange = (solve_exchange_t)x;
    return open_tokens(column);
}

/* ---- the objective ---- */

/* Problems of all columns by one objective. */
static cot_status_t make_problems(solve_compare_t *compare, solve_objective_t objective)
{
    for (uint32_t c = 0; c < compare->columns; c++) {
        solve_column_t *column = &compare->column[c];
        solve_problem_destroy(column->problem);
        column->problem = NULL;
        column->inputs.config.objective = objective;
        cot_status_t status = solve_problem_create(&column->inputs.config, &column->problem);
        if (status != COT_OK) return cot_fail_in(status, "%s", column->name);
    }
    return COT_OK;
}

/* As asked; else as the plan was made; else the first of step time, crossings and balance that all traces allow. */
static cot_status_t choose_objective(solve_compare_t *compare)
{
    static const solve_objective_t TRIED[] = {SOLVE_STEP_TIME, SOLVE_CROSSINGS, SOLVE_BALANCE};
    if (cot_settings_given(compare->settings, COT_SET_OBJECTIVE))
        return make_problems(compare, compare->column[0].inputs.config.objective);
    const char *name = NULL;
    COT_TRY(cot_json_get_string(json_object_get(compare->plan->extra, "objective"), "name", &name));
    cot_status_t status = COT_ERR_UNSUPPORTED;
    for (uint32_t o = SOLVE_CROSSINGS; name != NULL && o <= SOLVE_STEP_TIME; o++)
        if (strcmp(name, solve_objective_name((solve_objective_t)o)) == 0)
            status = make_problems(compare, (solve_objective_t)o);
    for (size_t i = 0; i < 3 && status == COT_ERR_UNSUPPORTED; i++) status = make_problems(compare, TRIED[i]);
    return status;
}

/* ---- judging ---- */

/* Token by token where there are tokens. What the counts cannot tell of an exchange is left out. */
static solve_case_t case_of(const solve_column_t *column)
{
    solve_case_t judged = solve_case_of(column->problem);
    judged.trace = column->trace;
    judged.traces = column->trace != NULL ? column->paths : 0;
    bool together = judged.exchange == SOLVE_SHUFFLE || (judged.exchange == SOLVE_COHERENT && judged.stats->top_k != 1);
    if ((together && judged.stats->coactivation == NULL) ||
        (judged.exchange == SOLVE_COHERENT && judged.stats->transition == NULL))
        judged.row_bytes = 0;
    return judged;
}

static cot_status_t judge(const solve_compare_t *compare, const solve_column_t *column, const place_plan_t *plan,
                          solve_cell_t *cell)
{
    solve_case_t judged = case_of(column);
    solve_figures_t counted;
    COT_TRY(solve_evaluate(column->problem, plan, &counted));
    COT_TRY(solve_judge(&judged, plan, &cell->figures, &cell->detail));
    cell->value = counted.value;
    solve_links_sum(&compare->links, cell->detail.traffic, cell->rows);
    cell->active.mean = -1;
    return judged.stats->top_k > 0 ? solve_active_count(&judged, plan, &cell->active) : COT_OK;
}

static cot_status_t add_row(solve_compare_t *compare, const char *name, place_plan_t *plan)
{
    solve_row_t *row = &compare->row[compare->rows++];
    row->name = name;
    row->plan = plan;
    row->cell = cot_calloc(compare->columns, sizeof(*row->cell));
    if (row->cell == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a placement's figures");
    for (uint32_t c = 0; c < compare->columns; c++) COT_TRY(judge(compare, &compare->column[c], plan, &row->cell[c]));
    return COT_OK;
}

static cot_status_t add_peers(solve_compare_t *compare)
{
    static const char *const PEERS[] = {"contiguous", "lpt", "eplb"};
    for (size_t i = 0; i < sizeof(PEERS) / sizeof(*PEERS); i++) {
        const solve_solver_t *solver = solve_find_solver(PEERS[i]);
        const solve_context_t context = {.threads = 1, .deadline = COT_NEVER, .work = 1};
        solve_answer_t answer = {0};
        if (solver == NULL) continue;
        cot_status_t status = solver->solve(compare->column[0].problem, &context, &answer);
        if (status == COT_ERR_UNSUPPORTED) {
            cot_log_warn("%s is left out: %s", PEERS[i], cot_error_text());
            continue;
        }
        COT_TRY(status);
        COT_TRY(add_row(compare, PEERS[i], answer.plan));
    }
    return COT_OK;
}

/* ---- planning anew ---- */

static cot_status_t make_context(const solve_compare_t *compare, solve_context_t *context)
{
    const cot_settings_t *settings = compare->settings;
    double seconds = cot_settings_number(settings, COT_SET_TIME_LIMIT);
    uint64_t threads = (uint64_t)cot_settings_int(settings, COT_SET_THREADS);
    if (!(seconds > 0 && seconds <= 1e7)) return cot_fail(COT_ERR_INVALID, "--time-limit must be above 0 seconds");
    if (threads > 1024) return cot_fail(COT_ERR_INVALID, "--threads must be at most 1024");
    *context = (solve_context_t){.seed = (uint64_t)cot_settings_int(settings, COT_SET_SEED),
                                 .threads = threads > 0 ? (uint32_t)threads : cot_usable_cores(1),
                                 .work = (uint64_t)cot_settings_int(settings, COT_SET_WORK),
                                 .max_moves = (uint64_t)cot_settings_int(settings, COT_SET_MAX_MOVES),
                                 .deadline = COT_NEVER,
                                 .start = compare->plan,
                                 .stop = cot_signals_install_stop()};
    bool timed = context->work == 0 || cot_settings_given(settings, COT_SET_TIME_LIMIT);
    uint32_t held = compare->columns - 1;
    if (timed) context->deadline = cot_now_ns() + llround(seconds * 1e9 / held);
    return COT_OK;
}

static void weigh(const solve_compare_t *compare, const solve_column_t *column, const solve_cell_t *old,
                  const place_plan_t *plan, solve_replan_t *replan)
{
    double steps = (double)column->problem->steps;
    solve_moves_count(column->inputs.cluster, compare->plan, plan, column->inputs.config.expert_bytes, &replan->moves);
    replan->loss = old->value > 0 ? fmax(0, (double)(old->value - replan->cell.value) / (double)old->value) : 0;
    bool timed = old->figures.step_ns >= 0 && replan->cell.figures.step_ns >= 0;
    replan->saved_ns = timed ? (double)(old->figures.step_ns - replan->cell.figures.step_ns) / steps : NAN;
    replan->pays_after = NAN;
    if (!timed || replan->moves.ns < 0) return;
    replan->pays_after = replan->saved_ns > 0 ? ceil((double)replan->moves.ns / replan->saved_ns) : INFINITY;
}

static cot_status_t plan_anew(solve_compare_t *compare, uint32_t c)
{
    solve_column_t *column = &compare->column[c];
    const solve_cell_t *old = &compare->row[compare->rows - 1].cell[c];
    solve_replan_t *replan = &compare->replan[c];
    solve_context_t context;
    solve_answer_t answer = {0};
    COT_TRY(make_context(compare, &context));
    cot_status_t status = SOLVE_SOLVERS[0].solve(column->problem, &context, &answer);
    if (status == COT_ERR_UNSUPPORTED) {
        cot_log_warn("%s is not planned anew: %s", column->name, cot_error_text());
        return COT_OK;
    }
    COT_TRY(status);
    status = judge(compare, column, answer.plan, &replan->cell);
    if (status == COT_OK) {
        weigh(compare, column, old, answer.plan, replan);
        replan->done = true;
    }
    place_plan_destroy(answer.plan);
    return status;
}

/* ---- the whole ---- */

static cot_status_t compare_all(solve_compare_t *compare)
{
    if (cot_settings_arguments(compare->settings) != 1)
        return cot_fail(COT_ERR_INVALID, "give one plan, first: coterie plan evaluate PLAN --fitted TRACE… --trace "
                                         "TRACE… --cluster FILE");
    compare->path = cot_settings_argument(compare->settings, 0);
    COT_TRY(place_plan_load(compare->path, &compare->plan));
    COT_TRY(name_columns(compare));
    for (uint32_t c = 0; c < compare->columns; c++) COT_TRY(load_column(compare, &compare->column[c]));
    COT_TRY(choose_objective(compare));
    solve_links_find(compare->column[0].inputs.cluster, &compare->links);
    COT_TRY(add_peers(compare));
    COT_TRY(add_row(compare, "plan", compare->plan));
    for (uint32_t c = 1; c < compare->columns; c++) {
        solve_case_t fitted = case_of(&compare->column[0]), live = case_of(&compare->column[c]);
        COT_TRY(solve_drift(&fitted, &live, compare->plan, &compare->drift[c]));
        COT_TRY(plan_anew(compare, c));
    }
    return COT_OK;
}

cot_status_t solve_compare(const cot_settings_t *settings, solve_compare_t *compare_out)
{
    solve_compare_t compare = {.settings = settings};
    cot_status_t status = compare_all(&compare);
    if (status != COT_OK) {
        solve_compare_free(&compare);
        return status;
    }
    *compare_out = compare;
    return COT_OK;
}
