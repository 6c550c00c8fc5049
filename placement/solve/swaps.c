/* Inside one layer: swaps of two experts and moves into free slots that make the objective, loads included, better. */
#include "placement/solve/moves.h"

/* Change of the objective if e went to `to`, and f (if it is an expert) took its place. */
static int64_t change(const solve_table_t *table, uint32_t layer, uint32_t e, uint32_t to, uint32_t f)
{
    const solve_problem_t *p = table->problem;
    const int64_t *load = table->load + (size_t)layer * p->ranks, *tokens = p->load + (size_t)layer * p->experts;
    uint32_t from = table->rank_of[(size_t)layer * p->experts + e];
    int64_t cost = p->transition != NULL ? solve_move_cost(table, layer, e, to) : 0, shift = tokens[e];
    if (f < p->experts) {
        cost += p->transition != NULL ? solve_move_cost(table, layer, f, from) : 0;
        shift -= tokens[f];
    }
    if (p->load_weight == 0) return cost;
    return cost +
           solve_load_term(table, layer, from, load[from] - shift * p->slowness[from], to,
                           load[to] + shift * p->slowness[to]) -
           solve_load_term(table, layer, from, load[from], to, load[to]);
}

static bool improve_expert(solve_table_t *table, uint32_t layer, uint32_t e)
{
    const solve_problem_t *p = table->problem;
    const solve_rank_t *rank_of = table->rank_of + (size_t)layer * p->experts;
    bool better = false;
    for (uint32_t f = 0; f < p->experts; f++) {
        uint32_t from = rank_of[e], to = rank_of[f];
        if (from == to || change(table, layer, e, to, f) >= 0) continue;
        solve_table_move(table, layer, e, to);
        solve_table_move(table, layer, f, from);
        better = true;
    }
    for (uint32_t to = 0; p->free_slots > 0 && to < p->ranks; to++) {
        if (to == rank_of[e] || table->held[(size_t)layer * p->ranks + to] >= p->slots[to] ||
            change(table, layer, e, to, UINT32_MAX) >= 0)
            continue;
        solve_table_move(table, layer, e, to);
        better = true;
    }
    return better;
}

bool solve_swaps(solve_search_t *search)
{
    solve_table_t *table = search->table;
    bool better = false;
    for (uint32_t l = 0; l < table->problem->layers; l++)
        for (bool again = true; again && !solve_search_over(search); better |= again) {
            again = false;
            for (uint32_t e = 0; e < table->problem->experts; e++) again |= improve_expert(table, l, e);
        }
    return better;
}
