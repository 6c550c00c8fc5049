/* A comparison as a page (report.h): a table for each figure, drift, and maps of the first placement and the plan. */
#include "placement/solve/compare.h"

#include "base/memory.h"
#include "placement/solve/progress.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define CELL_BYTES 176U

/* Text of all tables' cells, and the pointers that the report wants. */
typedef struct {
    const solve_compare_t *compare;
    uint32_t metrics, table_columns;
    bool columns_fit; /* two tables stand side by side */
    solve_report_table_t table[SOLVE_METRICS_MOST + 2];
    uint32_t tables;
    char (*text)[CELL_BYTES];
    const char **cell, **head;
    size_t used, room;
    char title[SOLVE_METRICS_MOST][80];
} page_t;

static const char *keep(page_t *page, const char *text)
{
    if (page->used == page->room) return NULL;
    snprintf(page->text[page->used], CELL_BYTES, "%s", text);
    return page->text[page->used++];
}

static void add_metric(page_t *page, uint32_t metric, const char **cell)
{
    const solve_compare_t *compare = page->compare;
    solve_metric_t metrics[SOLVE_METRICS_MOST];
    for (uint32_t r = 0; r < compare->rows; r++) {
        *cell++ = compare->row[r].name;
        for (uint32_t c = 0; c < compare->columns; c++) {
            char figure[32];
            solve_compare_metrics(compare, &compare->column[c], &compare->row[r].cell[c], metrics);
            *cell++ = keep(page, solve_compare_figure(metrics[metric].value, figure));
        }
    }
    snprintf(page->title[metric], sizeof(page->title[0]), "%s (%s)", metrics[metric].title, metrics[metric].unit);
}

static void add_metrics(page_t *page)
{
    const solve_compare_t *compare = page->compare;
    page->head[0] = "placement";
    for (uint32_t c = 0; c < compare->columns; c++) page->head[1 + c] = compare->column[c].name;
    for (uint32_t m = 0; m < page->metrics; m++) {
        const char **cell = page->cell + (size_t)m * compare->rows * page->table_columns;
        add_metric(page, m, cell);
        page->table[page->tables++] = (solve_report_table_t){.title = page->title[m],
                                                             .columns = page->table_columns,
                                                             .rows = compare->rows,
                                                             .chosen = compare->rows - 1,
                                                             .narrow = page->columns_fit,
                                                             .head = page->head,
                                                             .cells = cell};
    }
}

static void add_drift(page_t *page, const char **cell)
{
    static const char *const HEAD[] = {"traces", "experts", "sampling alone", "ranks", "planned anew", "moved", "pays"};
    const solve_compare_t *compare = page->compare;
    page->table[page->tables++] = (solve_report_table_t){
        .title = "Drift from the fitted traces",
        .note = "Total variation of the shares of load, mean over layers: 0 alike, 1 disjoint. Sampling alone: "
                "what two samples of one routing would differ by. Planned anew: how much the objective falls.",
        .columns = 7,
        .rows = compare->columns - 1,
        .chosen = UINT32_MAX,
        .head = HEAD,
        .cells = cell};
    for (uint32_t c = 1; c < compare->columns; c++) {
        const solve_drift_t *drift = &compare->drift[c];
        const solve_replan_t *replan = &compare->replan[c];
        char text[CELL_BYTES], figure[32], pays[160];
        *cell++ = compare->column[c].name;
        *cell++ = keep(page, solve_compare_figure(drift->experts, figure));
        *cell++ = keep(page, solve_compare_figure(drift->noise, figure));
        *cell++ = keep(page, solve_compare_figure(drift->ranks, figure));
        snprintf(text, sizeof(text), "-%.2f %%", 100 * replan->loss);
        *cell++ = replan->done ? keep(page, text) : NULL;
        snprintf(text, sizeof(text), "%llu of %llu", (unsigned long long)replan->moves.copies,
                 (unsigned long long)replan->moves.experts);
        *cell++ = replan->done ? keep(page, text) : NULL;
        *cell++ = keep(page, solve_compare_pays(compare, c, pays));
    }
}

#define FACTS_MOST 6U

/* The figures that a reader looks for first, of the plan on the widest traffic, beside the first placement's. */
typedef struct {
    solve_report_fact_t fact[FACTS_MOST];
    uint32_t count;
    char value[FACTS_MOST][64], note[FACTS_MOST][96];
} facts_t;

static void add_fact(facts_t *facts, const char *peer, const solve_metric_t *is, const solve_metric_t *was)
{
    char figure[32];
    uint32_t at = facts->count++;
    snprintf(facts->value[at], sizeof(facts->value[at]), "%s", solve_compare_figure(is->value, figure));
    snprintf(facts->note[at], sizeof(facts->note[at]), "%s; %s %s", is->unit, peer,
             solve_compare_figure(was->value, figure));
    facts->fact[at] = (solve_report_fact_t){is->title, facts->value[at], facts->note[at]};
}

static void fill_facts(const solve_compare_t *compare, facts_t *facts)
{
    static const char *const WANTED[] = {"predicted step time", "cross_node", "largest rank load", "mean imbalance"};
    uint32_t last = compare->columns - 1;
    solve_metric_t was[SOLVE_METRICS_MOST], is[SOLVE_METRICS_MOST];
    solve_compare_metrics(compare, &compare->column[last], &compare->row[0].cell[last], was);
    uint32_t count = solve_compare_metrics(compare, &compare->column[last], &compare->row[compare->rows - 1].cell[last],
                                           is);
    add_fact(facts, compare->row[0].name, &is[0], &was[0]);
    for (uint32_t m = 1; m < count; m++)
        for (size_t w = 0; w < sizeof(WANTED) / sizeof(*WANTED) && facts->count < FACTS_MOST; w++)
            if (strcmp(is[m].title, WANTED[w]) == 0 && !isnan(is[m].value))
                add_fact(facts, compare->row[0].name, &is[m], &was[m]);
}

static cot_status_t save(page_t *page, const char *path)
{
    const solve_compare_t *compare = page->compare;
    uint32_t last = compare->columns - 1;
    const solve_column_t *shown = &compare->column[last]; /* the widest traffic that the plan met */
    char subtitle[640], before[128], after[128];
    const char *model = compare->plan->model_name != NULL ? compare->plan->model_name : "a model";
    snprintf(
        subtitle, sizeof(subtitle),
        "%.200s on %u ranks; objective %s, exchange %s, steps of %llu tokens%s. The figures below and the maps are "
        "of %s, %lld tokens.",
        model, compare->plan->ranks, solve_objective_name(shown->problem->objective),
        solve_exchange_name(shown->problem->exchange), (unsigned long long)shown->problem->step_tokens,
        shown->problem->decode ? ", decode" : "", shown->name, (long long)compare->row[0].cell[last].figures.tokens);
    snprintf(before, sizeof(before), "%s, on %s", compare->row[0].name, shown->name);
    snprintf(after, sizeof(after), "plan, on %s", shown->name);
    facts_t facts = {0};
    fill_facts(compare, &facts);
    const solve_report_map_t maps[] = {{before, &compare->row[0].cell[last].detail},
                                       {after, &compare->row[compare->rows - 1].cell[last].detail}};
    const solve_report_t report = {.title = "Expert placement, judged",
                                   .subtitle = subtitle,
                                   .facts = facts.fact,
                                   .fact_count = facts.count,
                                   .tables = page->table,
                                   .table_count = page->tables,
                                   .maps = maps,
                                   .map_count = 2,
                                   .cluster = shown->inputs.cluster,
                                   .layer_index = compare->plan->layer_index,
                                   .row_bytes = shown->inputs.config.row_bytes,
                                   .transitions = shown->problem->objective == SOLVE_CROSSINGS ||
                                                  shown->problem->objective == SOLVE_WEIGHTED};
    return solve_report_save(&report, path);
}

cot_status_t solve_compare_report(const solve_compare_t *compare, const char *path)
{
    solve_metric_t metrics[SOLVE_METRICS_MOST];
    page_t page = {.compare = compare, .table_columns = compare->columns + 1, .columns_fit = compare->columns <= 4};
    page.metrics = solve_compare_metrics(compare, &compare->column[0], &compare->row[0].cell[0], metrics);
    size_t cells = (size_t)page.metrics * compare->rows * page.table_columns + (size_t)7 * compare->columns;
    page.room = cells;
    page.text = cot_calloc(cells, sizeof(*page.text));
    page.cell = cot_calloc(cells, sizeof(*page.cell));
    page.head = cot_calloc(page.table_columns, sizeof(*page.head));
    cot_status_t status = COT_OK;
    if (page.text == NULL || page.cell == NULL || page.head == NULL) {
        status = cot_fail(COT_ERR_NO_MEMORY, "no memory for the report");
    } else {
        add_metrics(&page);
        if (compare->columns > 1)
            add_drift(&page, page.cell + (size_t)page.metrics * compare->rows * page.table_columns);
        status = save(&page, path);
    }
    cot_free(page.text);
    cot_free((void *)page.cell);
    cot_free((void *)page.head);
    return status;
}
