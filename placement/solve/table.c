#include "placement/solve/table.h"

#include "base/memory.h"

#include <string.h>

void solve_table_destroy(solve_table_t *table)
{
    if (table == NULL) return;
    cot_free(table->rank_of);
    cot_free(table->flow);
    cot_free(table->node_flow);
    cot_free(table->price);
    cot_free(table->load);
    cot_free(table->held);
    cot_free(table);
}

cot_status_t solve_table_create(const solve_problem_t *problem, solve_table_t **table_out)
{
    solve_table_t *table = cot_calloc(1, sizeof(*table));
    if (table == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory to search");
    size_t cells = solve_cells(problem), rows = (size_t)problem->layers * problem->ranks;
    table->problem = problem;
    table->rank_of = cot_calloc(cells, sizeof(*table->rank_of));
    table->load = cot_calloc(rows, sizeof(*table->load));
    table->held = cot_calloc(rows, sizeof(*table->held));
    if (problem->tiered) {
        table->flow = cot_calloc(cells * problem->ranks, sizeof(*table->flow));
        table->node_flow = cot_calloc(cells * problem->nodes, sizeof(*table->node_flow));
    } else {
        table->price = cot_calloc(cells * problem->ranks, sizeof(*table->price));
    }
    bool costs = problem->tiered ? table->flow != NULL && table->node_flow != NULL : table->price != NULL;
    if (table->rank_of == NULL || table->load == NULL || table->held == NULL || !costs) {
        solve_table_destroy(table);
        return cot_fail(COT_ERR_NO_MEMORY, "no memory to search %zu cells", cells);
    }
    *table_out = table;
    return COT_OK;
}

/* Adds `count` transitions between `cell` and an expert on `rank` of the layer before (or after). */
static void add_flow(solve_table_t *table, size_t cell, uint32_t rank, int64_t count, bool before)
{
    const solve_problem_t *p = table->problem;
    if (table->price == NULL) {
        table->flow[cell * p->ranks + rank] += count;
        table->node_flow[cell * p->nodes + p->cluster->rank[rank].node] += count;
        return;
    }
    int64_t *price = table->price + cell * p->ranks;
    for (uint32_t g = 0; g < p->ranks; g++)
        price[g] += count * (before ? p->cost[(size_t)rank * p->ranks + g] : p->cost[(size_t)g * p->ranks + rank]);
}

static void add_neighbours(solve_table_t *table, uint32_t layer, uint32_t expert)
{
    const solve_problem_t *p = table->problem;
    size_t cell = (size_t)layer * p->experts + expert;
    const solve_rank_t *here = table->rank_of + (size_t)layer * p->experts;
    if (layer > 0) {
        const solve_rank_t *before = here - p->experts;
        const int32_t *column = solve_column(p, layer - 1, expert);
        for (uint32_t f = 0; f < p->experts; f++)
            if (column[f] != 0) add_flow(table, cell, before[f], column[f], true);
    }
    if (layer + 1 < p->layers) {
        const solve_rank_t *after = here + p->experts;
        const int32_t *row = solve_row(p, layer, expert);
        for (uint32_t f = 0; f < p->experts; f++)
            if (row[f] != 0) add_flow(table, cell, after[f], row[f], false);
    }
}

static void count_crossings(solve_table_t *table)
{
    const solve_problem_t *p = table->problem;
    table->crossings = 0;
    for (uint32_t l = 0; l + 1 < p->layers; l++) {
        const solve_rank_t *from = table->rank_of + (size_t)l * p->experts, *to = from + p->experts;
        for (uint32_t e = 0; e < p->experts; e++) {
            const int32_t *row = solve_row(p, l, e);
            const int64_t *cost = p->cost + (size_t)from[e] * p->ranks;
            for (uint32_t f = 0; f < p->experts; f++) table->crossings += row[f] * cost[to[f]];
        }
    }
}

void solve_table_set(solve_table_t *table, const solve_rank_t *rank_of)
{
    const solve_problem_t *p = table->problem;
    size_t cells = solve_cells(p), rows = (size_t)p->layers * p->ranks;
    if (rank_of != table->rank_of) memcpy(table->rank_of, rank_of, cells * sizeof(*rank_of));
    memset(table->load, 0, rows * sizeof(*table->load));
    memset(table->held, 0, rows * sizeof(*table->held));
    for (size_t cell = 0; cell < cells; cell++) {
        size_t row = cell / p->experts * p->ranks + table->rank_of[cell];
        table->held[row]++;
        table->load[row] += p->load[cell] * p->slowness[table->rank_of[cell]];
    }
    if (p->transition == NULL) return;
    if (table->price != NULL) memset(table->price, 0, cells * p->ranks * sizeof(*table->price));
    if (table->flow != NULL) memset(table->flow, 0, cells * p->ranks * sizeof(*table->flow));
    if (table->node_flow != NULL) memset(table->node_flow, 0, cells * p->nodes * sizeof(*table->node_flow));
    for (uint32_t l = 0; l < p->layers; l++)
        for (uint32_t e = 0; e < p->experts; e++) add_neighbours(table, l, e);
    count_crossings(table);
}

void solve_table_move(solve_table_t *table, uint32_t layer, uint32_t expert, uint32_t to)
{
    const solve_problem_t *p = table->problem;
    size_t cell = (size_t)layer * p->experts + expert, row = (size_t)layer * p->ranks;
    uint32_t from = table->rank_of[cell];
    if (from == to) return;
    if (p->transition != NULL) table->crossings += solve_move_cost(table, layer, expert, to);
    table->held[row + from]--;
    table->held[row + to]++;
    table->load[row + from] -= p->load[cell] * p->slowness[from];
    table->load[row + to] += p->load[cell] * p->slowness[to];
    table->rank_of[cell] = (solve_rank_t)to;
    if (p->transition == NULL) return;

    size_t first = (size_t)layer * p->experts, first_before = layer > 0 ? first - p->experts : 0;
    size_t first_after = first + p->experts;
    const int32_t *column = layer > 0 ? solve_column(p, layer - 1, expert) : NULL;
    const int32_t *successors = layer + 1 < p->layers ? solve_row(p, layer, expert) : NULL;
    for (uint32_t f = 0; f < p->experts; f++) {
        if (column != NULL && column[f] != 0) {
            add_flow(table, first_before + f, from, -column[f], false);
            add_flow(table, first_before + f, to, column[f], false);
        }
        if (successors != NULL && successors[f] != 0) {
            add_flow(table, first_after + f, from, -successors[f], true);
            add_flow(table, first_after + f, to, successors[f], true);
        }
    }
}

static int64_t largest(const int64_t *values, uint32_t count)
{
    int64_t worst = 0;
    for (uint32_t i = 0; i < count; i++)
        if (values[i] > worst) worst = values[i];
    return worst;
}

int64_t solve_table_balance(const solve_table_t *table)
{
    const solve_problem_t *p = table->problem;
    int64_t sum = 0;
    for (uint32_t l = 0; l < p->layers; l++) sum += largest(table->load + (size_t)l * p->ranks, p->ranks);
    return sum;
}

int64_t solve_table_value(const solve_table_t *table)
{
    int64_t crossings = table->problem->transition != NULL ? table->crossings : 0;
    return crossings + solve_weighed(table->problem, solve_table_balance(table));
}

int64_t solve_load_term(const solve_table_t *table, uint32_t layer, uint32_t a, int64_t load_a, uint32_t b,
                        int64_t load_b)
{
    const solve_problem_t *p = table->problem;
    const int64_t *load = table->load + (size_t)layer * p->ranks;
    int64_t worst = load_a > load_b ? load_a : load_b;
    for (uint32_t r = 0; r < p->ranks; r++)
        if (r != a && r != b && load[r] > worst) worst = load[r];
    return solve_weighed(p, worst);
}
