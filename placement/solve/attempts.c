#include "placement/solve/attempts.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

static uint32_t below(solve_search_t *search, uint32_t limit)
{
    return (uint32_t)(((solve_random(search) >> 32) * limit) >> 32);
}

static double uniform(solve_search_t *search)
{
    return (double)(solve_random(search) >> 11) * 0x1p-53;
}

/* ---- greedy ---- */

static void shuffle_layer(solve_search_t *search, solve_rank_t *rank_of)
{
    for (uint32_t e = search->table->problem->experts; e > 1; e--) {
        uint32_t other = below(search, e);
        solve_rank_t kept = rank_of[e - 1];
        rank_of[e - 1] = rank_of[other];
        rank_of[other] = kept;
    }
}

void solve_greedy(solve_search_t *search)
{
    const solve_problem_t *p = search->table->problem;
    solve_rank_t *rank_of = search->table->rank_of;
    solve_contiguous(p, rank_of);
    for (uint32_t l = 0; l < p->layers; l++) shuffle_layer(search, rank_of + (size_t)l * p->experts);
    solve_table_set(search->table, rank_of);
    for (uint32_t l = 1; p->transition != NULL && l < p->layers && !solve_search_over(search); l++)
        solve_transport(search, l);
    if (p->transition != NULL) solve_sweep(search);
    solve_descend(search);
}

/* ---- kicks ---- */

/* Swaps two random experts of different ranks in a layer. */
static void swap_random(solve_search_t *search, uint32_t layer)
{
    const solve_problem_t *p = search->table->problem;
    const solve_rank_t *rank_of = search->table->rank_of + (size_t)layer * p->experts;
    uint32_t e = below(search, p->experts), f = below(search, p->experts);
    uint32_t from = rank_of[e], to = rank_of[f];
    if (from == to) return;
    solve_table_move(search->table, layer, e, to);
    solve_table_move(search->table, layer, f, from);
}

/* Brings the layers around the disturbance to rest. */
static void settle(solve_search_t *search, uint32_t first, uint32_t last)
{
    const solve_problem_t *p = search->table->problem;
    bool again = p->load_weight == 0;
    for (int round = 0; again && round < 20; round++) {
        again = false;
        for (uint32_t l = first; l <= last; l++) again |= solve_transport(search, l);
        for (uint32_t l = last + 1; l-- > first;) again |= solve_transport(search, l);
        if (again && first > 0) first--;
        if (again && last + 1 < p->layers) last++;
    }
    uint32_t a = below(search, p->ranks), pairs = p->ranks < 4 ? p->ranks : 4;
    for (uint32_t i = 0; i < pairs; i++) {
        uint32_t b = below(search, p->ranks);
        if (a != b) solve_pair(search, a < b ? a : b, a < b ? b : a);
        a = b;
    }
}

void solve_kicks(solve_search_t *search, uint32_t kicks)
{
    solve_table_t *table = search->table;
    const solve_problem_t *p = table->problem;
    size_t bytes = solve_cells(p) * sizeof(solve_rank_t);
    solve_rank_t *kept = cot_alloc(bytes);
    if (kept == NULL || p->ranks < 2) {
        cot_free(kept);
        return;
    }
    memcpy(kept, table->rank_of, bytes);
    int64_t value = solve_table_value(table);
    for (uint32_t kick = 0; kick < kicks && !solve_search_over(search); kick++) {
        uint32_t length = 1 + below(search, p->layers < 6 ? p->layers : 6), swaps = 1 + below(search, 4);
        uint32_t first = below(search, p->layers - length + 1);
        for (uint32_t l = first; l < first + length; l++)
            for (uint32_t s = 0; s < swaps; s++) swap_random(search, l);
        settle(search, first > 0 ? first - 1 : 0, first + length < p->layers ? first + length : p->layers - 1);
        int64_t now = solve_table_value(table);
        if (now <= value) {
            memcpy(kept, table->rank_of, bytes);
            value = now;
        } else {
            solve_table_set(table, kept);
        }
    }
    cot_free(kept);
}

/* ---- annealing ---- */

typedef struct {
    uint32_t layer, e, f;
    int64_t change;
} trial_t;

static bool draw_trial(solve_search_t *search, trial_t *trial)
{
    const solve_table_t *table = search->table;
    const solve_problem_t *p = table->problem;
    uint64_t random = solve_random(search);
    trial->layer = (uint32_t)(((random & 0xffff) * p->layers) >> 16);
    trial->e = (uint32_t)((((random >> 16) & 0xffffff) * p->experts) >> 24);
    trial->f = (uint32_t)((((random >> 40) & 0xffffff) * p->experts) >> 24);
    const solve_rank_t *rank_of = table->rank_of + (size_t)trial->layer * p->experts;
    uint32_t a = rank_of[trial->e], b = rank_of[trial->f];
    if (a == b) return false;
    trial->change = 0;
    if (p->transition != NULL)
        trial->change = solve_move_cost(table, trial->layer, trial->e, b) +
                        solve_move_cost(table, trial->layer, trial->f, a);
    if (p->load_weight == 0) return true;
    const int64_t *load = table->load + (size_t)trial->layer * p->ranks;
    const int64_t *tokens = p->load + (size_t)trial->layer * p->experts;
    int64_t shift = tokens[trial->f] - tokens[trial->e];
    trial->change += solve_load_term(table, trial->layer, a, load[a] + shift * p->slowness[a], b,
                                     load[b] - shift * p->slowness[b]) -
                     solve_load_term(table, trial->layer, a, load[a], b, load[b]);
    return true;
}

static double mean_change(solve_search_t *search)
{
    double sum = 0;
    uint32_t drawn = 0;
    trial_t trial;
    for (int i = 0; i < 2000; i++) {
        if (!draw_trial(search, &trial)) continue;
        sum += fabs((double)trial.change);
        drawn++;
    }
    return drawn > 0 ? sum / drawn : 0;
}

void solve_anneal(solve_search_t *search, uint64_t trials, double heat)
{
    solve_table_t *table = search->table;
    const solve_problem_t *p = table->problem;
    size_t bytes = solve_cells(p) * sizeof(solve_rank_t);
    solve_rank_t *kept = cot_alloc(bytes);
    double hot = heat * mean_change(search);
    if (kept == NULL || !(hot > 0)) {
        cot_free(kept);
        return;
    }
    memcpy(kept, table->rank_of, bytes);
    int64_t value = solve_table_value(table);
    const uint64_t stride = 1024;
    double cooling = pow(0.01, (double)stride / (double)trials), temperature = hot;
    for (uint64_t t = 0; t < trials; t += stride, temperature *= cooling) {
        if (solve_search_over(search)) break;
        for (uint64_t i = 0; i < stride; i++) {
            trial_t trial;
            if (!draw_trial(search, &trial)) continue;
            if (trial.change > 0 && uniform(search) >= exp(-(double)trial.change / temperature)) continue;
            const solve_rank_t *rank_of = table->rank_of + (size_t)trial.layer * p->experts;
            uint32_t a = rank_of[trial.e], b = rank_of[trial.f];
            solve_table_move(table, trial.layer, trial.e, b);
            solve_table_move(table, trial.layer, trial.f, a);
        }
    }
    solve_descend(search);
    if (solve_table_value(table) > value) solve_table_set(table, kept);
    cot_free(kept);
}
