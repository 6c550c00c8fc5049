/* What a comparison shows of one placement on one trace. */
#include "placement/solve/compare.h"

#include "placement/solve/progress.h"

#include <math.h>
#include <stdio.h>

static void add(solve_metric_t *metrics, uint32_t *count, const char *title, const char *unit, double value)
{
    metrics[(*count)++] = (solve_metric_t){title, unit, value};
}

static const char *objective_unit(const solve_problem_t *problem)
{
    switch (problem->objective) {
    case SOLVE_STEP_TIME: return "us of a step";
    case SOLVE_BALANCE: return problem->decode ? "activations of a token" : "rows of a token";
    default: return "of a token";
    }
}

static double objective_value(const solve_problem_t *problem, const solve_cell_t *cell)
{
    double value = solve_natural(problem, cell->value);
    return problem->objective == SOLVE_STEP_TIME ? value : value / (double)cell->figures.tokens;
}

static void add_crossings(const solve_compare_t *compare, const solve_cell_t *cell, solve_metric_t *metrics,
                          uint32_t *count)
{
    const solve_figures_t *figures = &cell->figures;
    double all = figures->transitions > 0 ? (double)figures->transitions : NAN, tokens = (double)figures->tokens;
    add(metrics, count, "transitions between ranks", "%", 100 * (double)figures->any_crossings / all);
    if (compare->column[0].inputs.cluster->nodes > 1)
        add(metrics, count, "transitions between nodes", "%", 100 * (double)figures->far_crossings / all);
    add(metrics, count, "crossings x cost", "of a token",
        figures->transitions > 0 && tokens > 0 ? (double)figures->crossings / tokens : NAN);
}

static void add_traffic(const solve_compare_t *compare, const solve_cell_t *cell, uint32_t row_bytes,
                        solve_metric_t *metrics, uint32_t *count)
{
    double tokens = (double)cell->figures.tokens, unit = row_bytes > 0 ? row_bytes / 1e3 : 1;
    bool known = cell->figures.exchanged >= 0 && tokens > 0;
    for (uint32_t g = 0; g < compare->links.count; g++)
        add(metrics, count, compare->links.name[g], row_bytes > 0 ? "kB of a token" : "rows of a token",
            known ? (double)cell->rows[g] / 1e3 * unit / tokens : NAN);
}

uint32_t solve_compare_metrics(const solve_compare_t *compare, const solve_column_t *column, const solve_cell_t *cell,
                               solve_metric_t metrics_out[SOLVE_METRICS_MOST])
{
    const solve_figures_t *figures = &cell->figures;
    uint32_t count = 0;
    double step = figures->step_ns >= 0 ? 1e3 * (double)figures->steps : NAN;
    bool active = cell->active.mean >= 0;
    add(metrics_out, &count, solve_objective_name(column->problem->objective), objective_unit(column->problem),
        objective_value(column->problem, cell));
    add_crossings(compare, cell, metrics_out, &count);
    add_traffic(compare, cell, column->inputs.config.row_bytes, metrics_out, &count);
    add(metrics_out, &count, "largest rank load", "of its layer's mean", figures->largest_load);
    add(metrics_out, &count, "mean imbalance", "%", 100 * figures->mean_imbalance);
    add(metrics_out, &count, "activated experts", "of a rank, mean", active ? cell->active.mean : NAN);
    add(metrics_out, &count, "activated experts", "of the most activated rank", active ? cell->active.largest : NAN);
    add(metrics_out, &count, "predicted step time", "us", (double)figures->step_ns / step);
    add(metrics_out, &count, "of it computing", "us", (double)figures->compute_ns / step);
    add(metrics_out, &count, "of it exchanging", "us", (double)figures->exchange_ns / step);
    return count;
}

const char *solve_compare_figure(double value, char out[32])
{
    double size = fabs(value);
    if (isnan(value))
        snprintf(out, 32, "-");
    else
        snprintf(out, 32, size < 10 ? "%.3f" : size < 100 ? "%.2f" : size < 1000 ? "%.1f" : "%.0f", value);
    return out;
}

const char *solve_compare_pays(const solve_compare_t *compare, uint32_t column, char out[160])
{
    const solve_replan_t *replan = &compare->replan[column];
    uint64_t step_tokens = compare->column[column].problem->step_tokens;
    if (!replan->done)
        snprintf(out, 160, "not planned anew");
    else if (replan->moves.copies == 0)
        snprintf(out, 160, "nothing better was found");
    else if (isnan(replan->pays_after))
        snprintf(out, 160, "unknown without the bytes of an expert and a step time: give --model");
    else if (isinf(replan->pays_after))
        snprintf(out, 160, "never: it saves no time");
    else
        snprintf(out, 160, "after %.0f steps, %.3g tokens", replan->pays_after,
                 replan->pays_after * (double)step_tokens);
    return out;
}
