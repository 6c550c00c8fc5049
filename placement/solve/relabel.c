/* Labels of ranks mean nothing from one boundary to the next: permuting those of all later layers, whole nodes to whole
 * nodes, changes the cost of one boundary alone, and the best permutation is an assignment problem. */
#include "placement/solve/hungarian.h"
#include "placement/solve/moves.h"

#include <string.h>

typedef struct {
    solve_search_t *search;
    uint32_t first;         /* the first layer whose labels change */
    int64_t *flow;          /* [ranks, ranks] transitions from a rank to a label, then the cost of label h at rank p */
    int64_t *price;         /* [ranks, ranks] */
    int64_t *inner, *outer; /* one node pair; [nodes, nodes] */
    uint32_t *chosen;       /* [ranks] new rank of each label */
    uint32_t *column;       /* of one Hungarian */
    void *scratch;
} relabel_t;

static relabel_t set_up(solve_search_t *search, uint32_t first)
{
    size_t ranks = search->table->problem->ranks;
    relabel_t r = {.search = search, .first = first, .flow = search->scratch};
    r.price = r.flow + ranks * ranks;
    r.inner = r.price + ranks * ranks;
    r.outer = r.inner + ranks * ranks;
    r.chosen = (uint32_t *)(r.outer + ranks * ranks);
    r.column = r.chosen + ranks;
    r.scratch = r.column + ranks + ranks % 2;
    return r;
}

/* price[h][p]: what the boundary costs of label h if it becomes rank p. */
static void fill_prices(relabel_t *r)
{
    const solve_problem_t *p = r->search->table->problem;
    const solve_rank_t *to = r->search->table->rank_of + (size_t)r->first * p->experts, *from = to - p->experts;
    size_t ranks = p->ranks;
    memset(r->flow, 0, ranks * ranks * sizeof(*r->flow));
    for (uint32_t e = 0; e < p->experts; e++) {
        const int32_t *row = solve_row(p, r->first - 1, e);
        int64_t *flow = r->flow + from[e] * ranks;
        for (uint32_t f = 0; f < p->experts; f++) flow[to[f]] += row[f];
    }
    memset(r->price, 0, ranks * ranks * sizeof(*r->price));
    for (size_t g = 0; g < ranks; g++)
        for (size_t h = 0; h < ranks; h++)
            for (size_t at = 0; at < ranks; at++)
                r->price[h * ranks + at] += r->flow[g * ranks + h] * p->cost[g * ranks + at];
}

/* Ranks of a node in order; their number. */
static uint32_t list_ranks(const solve_problem_t *p, uint32_t node, uint32_t *list)
{
    uint32_t count = 0;
    for (uint32_t r = 0; r < p->ranks; r++)
        if (p->cluster->rank[r].node == node) list[count++] = r;
    return count;
}

/* The best way to lay the labels of one node onto the ranks of another; INT64_MAX / 4 if they are not of one size. */
static int64_t match_nodes(relabel_t *r, uint32_t label_node, uint32_t rank_node, bool apply)
{
    const solve_problem_t *p = r->search->table->problem;
    uint32_t labels[PLACE_MAX_RANKS], ranks[PLACE_MAX_RANKS];
    uint32_t count = list_ranks(p, label_node, labels);
    if (list_ranks(p, rank_node, ranks) != count) return INT64_MAX / 4 / (p->nodes + 1);
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t j = 0; j < count; j++)
            r->inner[(size_t)i * count + j] = r->price[(size_t)labels[i] * p->ranks + ranks[j]];
    int64_t sum = solve_hungarian(r->inner, count, r->column, r->scratch);
    for (uint32_t i = 0; apply && i < count; i++) r->chosen[labels[i]] = ranks[r->column[i]];
    return sum;
}

/* Chooses the permutation; returns its cost. */
static int64_t choose(relabel_t *r)
{
    const solve_problem_t *p = r->search->table->problem;
    if (p->nodes == 1 || p->near_cost == p->far_cost) return solve_hungarian(r->price, p->ranks, r->chosen, r->scratch);
    uint32_t node_of[PLACE_MAX_RANKS];
    for (uint32_t a = 0; a < p->nodes; a++)
        for (uint32_t b = 0; b < p->nodes; b++) r->outer[(size_t)a * p->nodes + b] = match_nodes(r, a, b, false);
    int64_t sum = solve_hungarian(r->outer, p->nodes, node_of, r->scratch);
    for (uint32_t a = 0; a < p->nodes; a++) match_nodes(r, a, node_of[a], true);
    return sum;
}

bool solve_relabel(solve_search_t *search)
{
    solve_table_t *table = search->table;
    const solve_problem_t *p = table->problem;
    bool better = false;
    for (uint32_t first = 1; first < p->layers; first++) {
        relabel_t r = set_up(search, first);
        fill_prices(&r);
        int64_t now = 0;
        for (size_t h = 0; h < p->ranks; h++) now += r.price[h * p->ranks + h];
        if (choose(&r) >= now) continue;
        for (size_t cell = (size_t)first * p->experts; cell < solve_cells(p); cell++)
            table->rank_of[cell] = (solve_rank_t)r.chosen[table->rank_of[cell]];
        better = true;
    }
    if (better) solve_table_set(table, table->rank_of);
    return better;
}
