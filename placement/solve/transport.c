/* One layer is a transportation problem once its neighbours stand: the exchange graph's nodes are the ranks and one
 * node for free slots; an arc a -> b is the cheapest expert of a to move to b. No negative cycle: optimal. */
#include "placement/solve/moves.h"

#include <string.h>

typedef struct {
    solve_search_t *search;
    uint32_t layer, nodes; /* ranks + 1; the last is the free slots */
    int64_t *weight;       /* [nodes, nodes] */
    int64_t *distance;     /* [nodes] */
    uint32_t *expert;      /* [nodes, nodes] behind each arc */
    uint32_t *before;      /* [nodes] */
} exchange_t;

#define NO_ARC INT64_MAX

static exchange_t set_up(solve_search_t *search, uint32_t layer)
{
    uint32_t nodes = search->table->problem->ranks + 1;
    exchange_t x = {.search = search, .layer = layer, .nodes = nodes};
    x.weight = search->scratch;
    x.distance = x.weight + (size_t)nodes * nodes;
    x.expert = (uint32_t *)(x.distance + nodes);
    x.before = x.expert + (size_t)nodes * nodes;
    return x;
}

/* Arcs out of rank `a`: its cheapest expert for every other rank. */
static void fill_rank(exchange_t *x, uint32_t a)
{
    const solve_table_t *table = x->search->table;
    const solve_problem_t *p = table->problem;
    int64_t *weight = x->weight + (size_t)a * x->nodes;
    for (uint32_t b = 0; b < x->nodes; b++) weight[b] = NO_ARC;
    for (uint32_t e = 0; e < p->experts; e++) {
        if (table->rank_of[(size_t)x->layer * p->experts + e] != a) continue;
        for (uint32_t b = 0; b < p->ranks; b++) {
            if (b == a) continue;
            int64_t cost = solve_move_cost(table, x->layer, e, b);
            if (cost >= weight[b]) continue;
            weight[b] = cost;
            x->expert[(size_t)a * x->nodes + b] = e;
        }
    }
    bool room = table->held[(size_t)x->layer * p->ranks + a] < p->slots[a];
    weight[p->ranks] = room ? 0 : NO_ARC;           /* a's free slot takes part */
    x->weight[(size_t)p->ranks * x->nodes + a] = 0; /* any rank may be left with one more free slot */
}

/* Bellman-Ford from everywhere; a node on a negative cycle, or `nodes` if there is none. */
static uint32_t find_cycle(exchange_t *x)
{
    memset(x->distance, 0, x->nodes * sizeof(*x->distance));
    uint32_t changed = x->nodes;
    for (uint32_t round = 0; round < x->nodes; round++) {
        changed = x->nodes;
        for (uint32_t a = 0; a < x->nodes; a++) {
            const int64_t *weight = x->weight + (size_t)a * x->nodes;
            for (uint32_t b = 0; b < x->nodes; b++) {
                if (a == b || weight[b] == NO_ARC || x->distance[a] + weight[b] >= x->distance[b]) continue;
                x->distance[b] = x->distance[a] + weight[b];
                x->before[b] = a;
                changed = b;
            }
        }
        if (changed == x->nodes) return x->nodes;
    }
    for (uint32_t i = 0; i < x->nodes; i++) changed = x->before[changed];
    return changed;
}

/* Moves one expert along each arc of the cycle. Arcs of the free slots move nothing. */
static void turn_cycle(exchange_t *x, uint32_t on)
{
    uint32_t ranks = x->nodes - 1, b = on;
    do {
        uint32_t a = x->before[b];
        if (a != ranks && b != ranks)
            solve_table_move(x->search->table, x->layer, x->expert[(size_t)a * x->nodes + b], b);
        b = a;
    } while (b != on);
    do {
        if (b != ranks) fill_rank(x, b);
        b = x->before[b];
    } while (b != on);
}

bool solve_transport(solve_search_t *search, uint32_t layer)
{
    exchange_t x = set_up(search, layer);
    x.weight[(size_t)x.nodes * x.nodes - 1] = NO_ARC;
    for (uint32_t a = 0; a + 1 < x.nodes; a++) fill_rank(&x, a);
    bool better = false;
    for (uint32_t on; (on = find_cycle(&x)) != x.nodes;) {
        turn_cycle(&x, on);
        better = true;
    }
    return better;
}

bool solve_sweep(solve_search_t *search)
{
    uint32_t layers = search->table->problem->layers;
    bool better = false, again = true;
    while (again && !solve_search_over(search)) {
        again = false;
        for (uint32_t l = 0; l < layers; l++) again |= solve_transport(search, l);
        for (uint32_t l = layers; l-- > 0;) again |= solve_transport(search, l);
        better |= again;
    }
    return better;
}
