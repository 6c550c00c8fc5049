/* Two ranks a and b: at every layer either nothing or one swap of an expert of a with one of b. Swaps in one layer cost
 * what the table says; swaps in consecutive layers correct each other by D x (d[f'] - d[e']), where e -> b, f -> a in
 * the first layer, e' -> b, f' -> a in the second, d = T[e] - T[f], D = cost(a,b) + cost(b,a). Dynamic programming
 * along the chain finds the best choice; the largest rank load of a layer is part of its own cost, so it is exact with
 * loads too. */
#include "placement/solve/moves.h"

#include <string.h>

#define NO_EXPERT UINT16_MAX

typedef struct {
    int64_t total;   /* best sum up to this layer, ending in this state */
    uint32_t parent; /* state of the layer before */
    uint16_t e, f;   /* swapped experts, or NO_EXPERT */
} pair_state_t;

typedef struct {
    solve_search_t *search;
    uint32_t a, b;
    int64_t both_ways;   /* D */
    pair_state_t *state; /* [layers, SOLVE_PAIR_STATES] */
    uint32_t *states;    /* [layers] is in scratch after it */
} pair_t;

static int64_t swap_cost(const pair_t *pair, uint32_t layer, uint32_t e, uint32_t f)
{
    const solve_table_t *table = pair->search->table;
    const solve_problem_t *p = table->problem;
    int64_t cost = 0;
    if (p->transition != NULL)
        cost = solve_move_cost(table, layer, e, pair->b) + solve_move_cost(table, layer, f, pair->a);
    if (p->load_weight == 0) return cost;
    const int64_t *load = table->load + (size_t)layer * p->ranks, *tokens = p->load + (size_t)layer * p->experts;
    int64_t shift = tokens[f] - tokens[e];
    return cost +
           solve_load_term(table, layer, pair->a, load[pair->a] + shift * p->slowness[pair->a], pair->b,
                           load[pair->b] - shift * p->slowness[pair->b]) -
           solve_load_term(table, layer, pair->a, load[pair->a], pair->b, load[pair->b]);
}

/* Keeps the most promising swaps of a layer; `worst` is the place of the least promising kept. */
static void offer(pair_state_t *state, uint32_t *count, uint32_t *worst, pair_state_t offered)
{
    if (*count < SOLVE_PAIR_STATES) {
        state[(*count)++] = offered;
    } else {
        if (offered.total >= state[*worst].total) return;
        state[*worst] = offered;
    }
    if (*count < SOLVE_PAIR_STATES) return;
    *worst = 1;
    for (uint32_t s = 2; s < *count; s++)
        if (state[s].total > state[*worst].total) *worst = s;
}

static void list_states(pair_t *pair, uint32_t layer)
{
    const solve_problem_t *p = pair->search->table->problem;
    const solve_rank_t *rank_of = pair->search->table->rank_of + (size_t)layer * p->experts;
    pair_state_t *state = pair->state + (size_t)layer * SOLVE_PAIR_STATES;
    uint32_t count = 1, worst = 0;
    state[0] = (pair_state_t){.e = NO_EXPERT, .f = NO_EXPERT};
    for (uint32_t e = 0; e < p->experts; e++) {
        if (rank_of[e] != pair->a) continue;
        for (uint32_t f = 0; f < p->experts; f++)
            if (rank_of[f] == pair->b)
                offer(state, &count, &worst,
                      (pair_state_t){.total = swap_cost(pair, layer, e, f), .e = (uint16_t)e, .f = (uint16_t)f});
    }
    pair->states[layer] = count;
}

/* Best way from the layer before into each state of this one. */
static void extend(pair_t *pair, uint32_t layer)
{
    const solve_problem_t *p = pair->search->table->problem;
    const pair_state_t *from = pair->state + (size_t)(layer - 1) * SOLVE_PAIR_STATES;
    pair_state_t *to = pair->state + (size_t)layer * SOLVE_PAIR_STATES;
    int64_t best[SOLVE_PAIR_STATES], d[SOLVE_PAIR_STATES];
    uint32_t count = pair->states[layer];
    for (uint32_t t = 0; t < count; t++) {
        best[t] = from[0].total;
        to[t].parent = 0;
    }
    for (uint32_t s = 1; s < pair->states[layer - 1]; s++) {
        const int32_t *row_e = p->transition != NULL ? solve_row(p, layer - 1, from[s].e) : NULL;
        const int32_t *row_f = p->transition != NULL ? solve_row(p, layer - 1, from[s].f) : NULL;
        d[0] = 0;
        for (uint32_t t = 1; t < count; t++)
            d[t] = row_e == NULL
                       ? 0
                       : (int64_t)(row_e[to[t].f] - row_f[to[t].f]) - (int64_t)(row_e[to[t].e] - row_f[to[t].e]);
        for (uint32_t t = 0; t < count; t++) {
            int64_t total = from[s].total + pair->both_ways * d[t];
            if (total >= best[t]) continue;
            best[t] = total;
            to[t].parent = s;
        }
    }
    for (uint32_t t = 0; t < count; t++) to[t].total += best[t];
}

static void apply(pair_t *pair, uint32_t last)
{
    solve_table_t *table = pair->search->table;
    for (uint32_t layer = table->problem->layers, s = last; layer-- > 0;) {
        const pair_state_t state = pair->state[(size_t)layer * SOLVE_PAIR_STATES + s];
        if (state.e != NO_EXPERT) {
            solve_table_move(table, layer, state.e, pair->b);
            solve_table_move(table, layer, state.f, pair->a);
        }
        s = state.parent;
    }
}

bool solve_pair(solve_search_t *search, uint32_t a, uint32_t b)
{
    const solve_problem_t *p = search->table->problem;
    pair_t pair = {.search = search, .a = a, .b = b, .state = search->scratch};
    pair.both_ways = p->cost[(size_t)a * p->ranks + b] + p->cost[(size_t)b * p->ranks + a];
    pair.states = (uint32_t *)(pair.state + (size_t)p->layers * SOLVE_PAIR_STATES);
    list_states(&pair, 0);
    for (uint32_t layer = 1; layer < p->layers; layer++) {
        list_states(&pair, layer);
        extend(&pair, layer);
    }
    const pair_state_t *state = pair.state + (size_t)(p->layers - 1) * SOLVE_PAIR_STATES;
    uint32_t best = 0;
    for (uint32_t s = 1; s < pair.states[p->layers - 1]; s++)
        if (state[s].total < state[best].total) best = s;
    if (state[best].total >= 0) return false;
    apply(&pair, best);
    return true;
}

bool solve_pairs(solve_search_t *search)
{
    uint32_t ranks = search->table->problem->ranks;
    bool better = false, again = true;
    while (again && !solve_search_over(search)) {
        again = false;
        for (uint32_t a = 0; a < ranks && !solve_search_over(search); a++)
            for (uint32_t b = a + 1; b < ranks; b++) again |= solve_pair(search, a, b);
        better |= again;
    }
    return better;
}
