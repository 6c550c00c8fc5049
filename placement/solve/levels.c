#include "placement/solve/levels.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

/* One edge of the minimum spanning tree of the links, the cheaper direction of each counting. */
typedef struct {
    int64_t cost;
    uint32_t a, b;
} edge_t;

static int64_t link_cost(const solve_problem_t *p, uint32_t a, uint32_t b)
{
    int64_t there = p->cost[(size_t)a * p->ranks + b], back = p->cost[(size_t)b * p->ranks + a];
    return (there < back ? there : back) / SOLVE_UNIT;
}

static int by_cost(const void *a, const void *b)
{
    int64_t x = ((const edge_t *)a)->cost, y = ((const edge_t *)b)->cost;
    return (x > y) - (x < y);
}

/* Prim's algorithm: tree [ranks - 1], cheapest edge first. */
static void grow_tree(const solve_problem_t *p, edge_t *tree)
{
    edge_t nearest[PLACE_MAX_RANKS]; /* of each rank outside the tree to one inside */
    for (uint32_t r = 1; r < p->ranks; r++) nearest[r] = (edge_t){link_cost(p, 0, r), 0, r};
    for (uint32_t outside = p->ranks - 1, i = 0; outside > 0; outside--, i++) {
        uint32_t next = 1;
        for (uint32_t r = 2; r <= outside; r++)
            if (nearest[r].cost < nearest[next].cost) next = r;
        tree[i] = nearest[next];
        nearest[next] = nearest[outside];
        for (uint32_t r = 1; r < outside; r++) {
            int64_t cost = link_cost(p, tree[i].b, nearest[r].b);
            if (cost < nearest[r].cost) nearest[r] = (edge_t){cost, tree[i].b, nearest[r].b};
        }
    }
    qsort(tree, p->ranks - 1, sizeof(*tree), by_cost);
}

/* The groups that edges cheaper than `below` join. */
static cot_status_t fill_groups(const solve_problem_t *p, const edge_t *tree, int64_t below, solve_level_t *level)
{
    level->group = cot_calloc(p->ranks, sizeof(*level->group));
    if (level->group == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for %u ranks", p->ranks);
    for (uint32_t r = 0; r < p->ranks; r++) level->group[r] = r;
    for (uint32_t i = 0; i + 1 < p->ranks && tree[i].cost < below; i++) {
        uint32_t a = level->group[tree[i].a], b = level->group[tree[i].b];
        for (uint32_t r = 0; r < p->ranks; r++)
            if (level->group[r] == b) level->group[r] = a;
    }
    uint32_t number[PLACE_MAX_RANKS];
    for (uint32_t r = 0; r < p->ranks; r++) {
        uint32_t name = level->group[r]; /* the rank that gave the group its name; it may come later */
        uint32_t first = 0;
        while (first < r && level->group[first] != name) first++;
        number[r] = first == r ? level->groups++ : number[first];
    }
    memcpy(level->group, number, p->ranks * sizeof(*number));
    return COT_OK;
}

/* Keeps a level, or the heavier ones if there are too many. */
static void keep(int64_t *weight, int64_t *below, uint32_t *count, int64_t step, int64_t cost)
{
    uint32_t at = *count;
    if (at < SOLVE_LEVELS_MAX) {
        ++*count;
    } else {
        at = 0;
        for (uint32_t i = 1; i < SOLVE_LEVELS_MAX; i++)
            if (weight[i] < weight[at]) at = i;
        if (weight[at] >= step) return;
    }
    weight[at] = step;
    below[at] = cost;
}

cot_status_t solve_find_levels(const solve_problem_t *p, solve_bound_t *bound)
{
    edge_t *tree = cot_calloc(p->ranks, sizeof(*tree));
    if (tree == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for %u ranks", p->ranks);
    grow_tree(p, tree);
    int64_t weight[SOLVE_LEVELS_MAX], below[SOLVE_LEVELS_MAX], last = 0;
    for (uint32_t i = 0; i + 1 < p->ranks; i++) {
        if (tree[i].cost == last) continue;
        keep(weight, below, &bound->levels, tree[i].cost - last, tree[i].cost);
        last = tree[i].cost;
    }
    cot_status_t status = COT_OK;
    for (uint32_t i = 0; i < bound->levels && status == COT_OK; i++) {
        bound->level[i].weight = weight[i];
        status = fill_groups(p, tree, below[i], &bound->level[i]);
    }
    cot_free(tree);
    return status;
}
