/* What it costs to put an expert on a rank, given where the neighbouring layers' experts are: kept for all layers and
 * brought up to date when an expert moves. The objective is linear in one layer, so moves within a layer add up. */
#ifndef SOLVE_TABLE_H
#define SOLVE_TABLE_H

#include "placement/solve/problem.h"

/* Owns a placement and its tables. One thread. */
typedef struct {
    const solve_problem_t *problem;
    solve_rank_t *rank_of; /* [layers, experts] */
    int64_t *flow;         /* [layers, experts, ranks] transitions to and from experts on a rank (tiered problems) */
    int64_t *node_flow;    /* [layers, experts, nodes] */
    int64_t *price;        /* [layers, experts, ranks] cost on a rank (other problems); else NULL */
    int64_t *load;         /* [layers, ranks] load x slowness */
    uint32_t *held;        /* [layers, ranks] experts there */
    int64_t crossings;     /* in thousandths */
} solve_table_t;

cot_status_t solve_table_create(const solve_problem_t *problem, solve_table_t **table_out);
void solve_table_destroy(solve_table_t *table);

/* Takes over a placement and computes everything anew. */
void solve_table_set(solve_table_t *table, const solve_rank_t *rank_of);
/* The same for one layer after its neighbours changed elsewhere: nothing to do, moves keep all tables right. */
void solve_table_move(solve_table_t *table, uint32_t layer, uint32_t expert, uint32_t to);

/* Change of the crossings if an expert moved from its rank to `to`, and nothing else did. */
static inline int64_t solve_move_cost(const solve_table_t *table, uint32_t layer, uint32_t expert, uint32_t to)
{
    const solve_problem_t *p = table->problem;
    size_t cell = (size_t)layer * p->experts + expert;
    uint32_t from = table->rank_of[cell];
    if (table->price != NULL) return table->price[cell * p->ranks + to] - table->price[cell * p->ranks + from];
    const int64_t *flow = table->flow + cell * p->ranks, *node_flow = table->node_flow + cell * p->nodes;
    uint32_t from_node = p->cluster->rank[from].node, to_node = p->cluster->rank[to].node;
    return p->near_cost * (flow[from] - flow[to]) +
           (p->far_cost - p->near_cost) * (node_flow[from_node] - node_flow[to_node]);
}

/* Sum over layers of the largest rank load x slowness. */
int64_t solve_table_balance(const solve_table_t *table);
/* The problem's objective, in thousandths. */
int64_t solve_table_value(const solve_table_t *table);
/* The objective's share of one layer's largest load, if its loads of two ranks became these. */
int64_t solve_load_term(const solve_table_t *table, uint32_t layer, uint32_t a, int64_t load_a, uint32_t b,
                        int64_t load_b);

static inline int64_t solve_weighed(const solve_problem_t *problem, int64_t load)
{
    return problem->load_weight * (load / SOLVE_UNIT) + problem->load_weight * (load % SOLVE_UNIT) / SOLVE_UNIT;
}

#endif
