#include "placement/solve/solve_report.h"

#include "base/memory.h"
#include "placement/solve/evaluate.h"
#include "placement/solve/report.h"

#include <stdio.h>
#include <string.h>

enum { COLUMNS = 7, CELL_BYTES = 200, PEERS_MOST = 32 };

/* Text of the table, a row for each solver. */
typedef struct {
    const solve_solved_t *solved;
    char text[PEERS_MOST][COLUMNS][CELL_BYTES];
    const char *cell[PEERS_MOST][COLUMNS];
    uint32_t rows;
    solve_detail_t before, after;
    solve_figures_t was, is;
    bool compared; /* before, was: contiguous */
} table_t;

static double gap_of(int64_t value, int64_t bound)
{
    return value > 0 ? 100 * (double)(value - bound) / (double)value : 0;
}

static cot_status_t judge(const solve_problem_t *problem, const place_plan_t *plan, solve_figures_t *figures,
                          solve_detail_t *detail)
{
    solve_case_t judged = solve_case_of(problem);
    solve_figures_t valued;
    COT_TRY(solve_evaluate(problem, plan, &valued));
    if (problem->objective != SOLVE_STEP_TIME) judged.row_bytes = 0; /* what cannot be timed need not be refused */
    COT_TRY(solve_judge(&judged, plan, figures, detail));
    figures->value = valued.value;
    return COT_OK;
}

static void add_row(table_t *table, const char *name, const solve_figures_t *figures, double seconds, const char *note)
{
    const solve_problem_t *problem = table->solved->problem;
    char(*text)[CELL_BYTES] = table->text[table->rows];
    double all = figures != NULL ? (double)figures->transitions : 0;
    snprintf(text[0], CELL_BYTES, "%s", name);
    if (figures != NULL) {
        snprintf(text[1], CELL_BYTES, "%.10g", solve_natural(problem, figures->value));
        snprintf(text[2], CELL_BYTES, "%.2f %%", gap_of(figures->value, table->solved->bound));
        if (all > 0) snprintf(text[3], CELL_BYTES, "%.2f %%", 100 * (double)figures->any_crossings / all);
        snprintf(text[4], CELL_BYTES, "%.3f", figures->largest_load);
    }
    snprintf(text[5], CELL_BYTES, "%.2f", seconds);
    snprintf(text[6], CELL_BYTES, "%s", note);
    for (uint32_t c = 0; c < COLUMNS; c++) table->cell[table->rows][c] = text[c];
    table->rows++;
}

/* A solver that cannot serve here says why in the table; only memory ends the report. */
static cot_status_t add_peer(table_t *table, const solve_solver_t *solver)
{
    const solve_solved_t *solved = table->solved;
    const solve_context_t context = {
        .threads = 1, .deadline = cot_deadline_in_ms(SOLVE_REPORT_PEER_MS), .stop = solved->stop};
    solve_answer_t answer = {0};
    solve_figures_t figures = {0};
    solve_detail_t detail = {0};
    int64_t began = cot_now_ns();
    cot_status_t status = solver->solve(solved->problem, &context, &answer);
    double seconds = (double)(cot_now_ns() - began) / 1e9;
    if (status == COT_OK) status = judge(solved->problem, answer.plan, &figures, &detail);
    bool contiguous = strcmp(solver->name, "contiguous") == 0;
    if (status == COT_OK) {
        add_row(table, solver->name, &figures, seconds, answer.note);
        if (contiguous && !table->compared) {
            table->before = detail;
            table->was = figures;
            table->compared = true;
            detail = (solve_detail_t){0};
        }
    } else if (status != COT_ERR_NO_MEMORY) {
        add_row(table, solver->name, NULL, seconds, cot_error_text());
        status = COT_OK;
    }
    solve_detail_free(&detail);
    place_plan_destroy(answer.plan);
    return status;
}

static cot_status_t fill(table_t *table)
{
    const solve_solved_t *solved = table->solved;
    char note[CELL_BYTES];
    for (uint32_t i = 0; i < SOLVE_SOLVER_COUNT && table->rows + 1 < PEERS_MOST; i++) {
        const solve_solver_t *solver = &SOLVE_SOLVERS[i];
        bool asked = solved->stop != NULL && atomic_load_explicit(solved->stop, memory_order_relaxed);
        bool quick = strcmp(solver->name, "contiguous") == 0;
        if (solver == solved->solver || solver == &SOLVE_SOLVERS[0] || (asked && !quick)) continue;
        COT_TRY(add_peer(table, solver));
    }
    COT_TRY(judge(solved->problem, solved->plan, &table->is, &table->after));
    snprintf(note, sizeof(note), "the plan; proof: %s", solved->proof);
    add_row(table, solved->solver->name, &table->is, solved->seconds, note);
    return COT_OK;
}

/* Points in the objective's own unit. NULL without memory or points. */
static solve_report_point_t *in_units(const solve_problem_t *problem, const solve_point_t *points, uint32_t count)
{
    solve_report_point_t *out = count > 0 ? cot_calloc(count, sizeof(*out)) : NULL;
    for (uint32_t i = 0; out != NULL && i < count; i++)
        out[i] = (solve_report_point_t){points[i].seconds, solve_natural(problem, points[i].value)};
    return out;
}

static cot_status_t save(const table_t *table, const solve_report_progress_t *progress, const char *path)
{
    static const char *const HEAD[COLUMNS] = {"solver",       "objective", "gap",    "transitions between ranks",
                                              "largest load", "seconds",   "remarks"};
    const solve_solved_t *solved = table->solved;
    const solve_problem_t *problem = solved->problem;
    const place_stats_t *stats = solved->inputs->stats;
    double value = solve_natural(problem, table->is.value), first = solve_natural(problem, table->was.value);
    char text[4][64], note[4][128], subtitle[400];
    snprintf(text[0], sizeof(text[0]), "%.10g", value);
    snprintf(note[0], sizeof(note[0]), table->compared ? "%s; contiguous %.10g" : "%s", solve_unit(problem), first);
    snprintf(text[1], sizeof(text[1]), "%.10g", solve_natural(problem, solved->bound));
    snprintf(note[1], sizeof(note[1]), "proof: %s", solved->proof);
    snprintf(text[2], sizeof(text[2]), "%.2f %%", gap_of(table->is.value, solved->bound));
    snprintf(note[2], sizeof(note[2]), "%s",
             table->is.value > solved->bound ? "the bound's weakness and what could still be gained, together"
                                             : "no plan is better");
    snprintf(text[3], sizeof(text[3]), "%.3f", table->is.largest_load);
    snprintf(note[3], sizeof(note[3]), table->compared ? "of its layer's mean; contiguous %.3f" : "of its layer's mean",
             table->was.largest_load);
    const solve_report_fact_t facts[] = {{solve_objective_name(problem->objective), text[0], note[0]},
                                         {"lower bound", text[1], note[1]},
                                         {"gap", text[2], note[2]},
                                         {"largest rank load", text[3], note[3]}};
    snprintf(subtitle, sizeof(subtitle), "%s: %u MoE layers of %u experts on %u ranks, %lld tokens, exchange %s",
             stats->model[0] != '\0' ? stats->model : "a model", problem->layers, problem->experts, problem->ranks,
             (long long)table->is.tokens, solve_exchange_name(problem->exchange));
    const solve_report_table_t solvers = {
        .title = "All solvers",
        .note = "Judged by one evaluator. The others got 2 s each, one thread, and the same problem.",
        .columns = COLUMNS,
        .rows = table->rows,
        .chosen = table->rows - 1,
        .head = HEAD,
        .cells = (const char *const *)table->cell};
    const solve_report_map_t maps[] = {{"Before: contiguous", &table->before}, {"After: the plan", &table->after}};
    const solve_report_t report = {.title = "Expert placement",
                                   .subtitle = subtitle,
                                   .facts = facts,
                                   .fact_count = 4,
                                   .tables = &solvers,
                                   .table_count = 1,
                                   .progress = progress,
                                   .maps = table->compared ? maps : maps + 1,
                                   .map_count = table->compared ? 2 : 1,
                                   .cluster = problem->cluster,
                                   .layer_index = stats->layer_index,
                                   .row_bytes = problem->row_bytes,
                                   .transitions = table->is.transitions > 0 && (problem->objective == SOLVE_CROSSINGS ||
                                                                                problem->objective == SOLVE_WEIGHTED)};
    return solve_report_save(&report, path);
}

cot_status_t solve_report_solved(const solve_solved_t *solved, const char *path)
{
    table_t *table = cot_calloc(1, sizeof(*table));
    if (table == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the report");
    table->solved = solved;
    cot_status_t status = fill(table);
    solve_report_progress_t progress = {.seconds = solved->seconds, .unit = solve_unit(solved->problem)};
    const solve_point_t *points = solve_progress_points(solved->progress, &progress.incumbents);
    const solve_point_t *bounds = solve_progress_bounds(solved->progress, &progress.bounds);
    solve_report_point_t *incumbent = in_units(solved->problem, points, progress.incumbents);
    solve_report_point_t *bound = in_units(solved->problem, bounds, progress.bounds);
    if (bound == NULL) progress.bounds = 0;
    progress.incumbent = incumbent;
    progress.bound = bound;
    if (status == COT_OK) status = save(table, incumbent != NULL ? &progress : NULL, path);
    cot_free(incumbent);
    cot_free(bound);
    solve_detail_free(&table->before);
    solve_detail_free(&table->after);
    cot_free(table);
    return status;
}
