/* A comparison for a terminal: a block for each figure, a line for each placement, a column for each trace. */
#include "placement/solve/compare.h"

#include "placement/solve/progress.h"

#include <stdio.h>
#include <string.h>

#define NAME_WIDTH 12
#define COLUMN_WIDTH 14

static cot_status_t head(const solve_compare_t *compare, cot_buffer_t *out)
{
    const solve_column_t *first = &compare->column[0];
    COT_TRY(cot_buffer_printf(
        out, "%s on %u ranks: objective %s, exchange %s, steps of %llu tokens%s\n", compare->path, compare->plan->ranks,
        solve_objective_name(first->problem->objective), solve_exchange_name(first->problem->exchange),
        (unsigned long long)first->problem->step_tokens, first->problem->decode ? ", decode" : ""));
    if (first->inputs.step_source != NULL)
        COT_TRY(cot_buffer_printf(out, "times of an expert: from %s\n", first->inputs.step_source));
    for (uint32_t c = 0; c < compare->columns; c++) {
        const solve_figures_t *figures = &compare->row[0].cell[c].figures;
        COT_TRY(cot_buffer_printf(out, "%s: %lld tokens, %s, copies to a rank counted by %s\n", compare->column[c].name,
                                  (long long)figures->tokens,
                                  compare->column[c].held_out ? "held out" : "what the plan was made from",
                                  solve_copies_name(figures->copies)));
    }
    return COT_OK;
}

static cot_status_t block(const solve_compare_t *compare, uint32_t metric, cot_buffer_t *out)
{
    solve_metric_t metrics[SOLVE_METRICS_MOST];
    solve_compare_metrics(compare, &compare->column[0], &compare->row[0].cell[0], metrics);
    COT_TRY(cot_buffer_printf(out, "\n%s (%s)\n%-*s", metrics[metric].title, metrics[metric].unit, NAME_WIDTH + 2, ""));
    for (uint32_t c = 0; c < compare->columns; c++)
        COT_TRY(cot_buffer_printf(out, " %*.*s", COLUMN_WIDTH, COLUMN_WIDTH, compare->column[c].name));
    COT_TRY(cot_buffer_printf(out, "\n"));
    for (uint32_t r = 0; r < compare->rows; r++) {
        COT_TRY(cot_buffer_printf(out, "  %-*s", NAME_WIDTH, compare->row[r].name));
        for (uint32_t c = 0; c < compare->columns; c++) {
            char figure[32];
            solve_compare_metrics(compare, &compare->column[c], &compare->row[r].cell[c], metrics);
            COT_TRY(cot_buffer_printf(out, " %*s", COLUMN_WIDTH, solve_compare_figure(metrics[metric].value, figure)));
        }
        COT_TRY(cot_buffer_printf(out, "\n"));
    }
    return COT_OK;
}

static cot_status_t drift(const solve_compare_t *compare, cot_buffer_t *out)
{
    COT_TRY(cot_buffer_printf(out, "\ndrift from the fitted traces (total variation of the loads' shares, mean over "
                                   "layers)\n"));
    for (uint32_t c = 1; c < compare->columns; c++) {
        const solve_drift_t *drift = &compare->drift[c];
        const solve_replan_t *replan = &compare->replan[c];
        char experts[32], noise[32], ranks[32], pays[160];
        COT_TRY(cot_buffer_printf(out, "  %s: experts %s, of which sampling explains %s; ranks %s\n",
                                  compare->column[c].name, solve_compare_figure(drift->experts, experts),
                                  solve_compare_figure(drift->noise, noise),
                                  solve_compare_figure(drift->ranks, ranks)));
        if (!replan->done) continue;
        COT_TRY(cot_buffer_printf(out,
                                  "    planned anew the objective falls by %.2f %%, moving %llu of %llu copies; "
                                  "pays %s\n",
                                  100 * replan->loss, (unsigned long long)replan->moves.copies,
                                  (unsigned long long)replan->moves.experts, solve_compare_pays(compare, c, pays)));
    }
    return COT_OK;
}

cot_status_t solve_compare_text(const solve_compare_t *compare, cot_buffer_t *out)
{
    solve_metric_t metrics[SOLVE_METRICS_MOST];
    uint32_t count = solve_compare_metrics(compare, &compare->column[0], &compare->row[0].cell[0], metrics);
    COT_TRY(head(compare, out));
    for (uint32_t m = 0; m < count; m++) COT_TRY(block(compare, m, out));
    return compare->columns > 1 ? drift(compare, out) : COT_OK;
}
