#include "placement/solve/moves.h"

#include "base/memory.h"
#include "placement/solve/anneal.h"

#include <string.h>

enum { PASSES = 30 };

/* Enough for every move: see where each takes it. */
static size_t scratch_need(const solve_problem_t *p)
{
    size_t ranks = p->ranks + 1, transport = ranks * ranks * 24 + ranks * 64;
    size_t relabel = (size_t)p->ranks * p->ranks * 48 + (size_t)p->ranks * 128;
    size_t blocks = (size_t)p->layers * ((size_t)p->ranks * p->ranks * 8 + 24);
    if (p->uniform && p->nodes > 1 && blocks > relabel) relabel = blocks;
    return (transport > relabel ? transport : relabel) + 4096;
}

cot_status_t solve_search_create(const solve_problem_t *problem, uint64_t seed, solve_search_t *search_out)
{
    solve_search_t search = {.random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1, .deadline = COT_NEVER};
    COT_TRY(solve_table_create(problem, &search.table));
    cot_status_t status = solve_annealer_create(problem, &search.annealer);
    search.scratch_bytes = scratch_need(problem);
    search.scratch = cot_alloc_aligned(search.scratch_bytes);
    if (status == COT_OK && search.scratch == NULL)
        status = cot_fail(COT_ERR_NO_MEMORY, "no memory to search (%zu bytes)", search.scratch_bytes);
    if (status != COT_OK) {
        solve_search_destroy(&search);
        return status;
    }
    *search_out = search;
    return COT_OK;
}

void solve_search_destroy(solve_search_t *search)
{
    cot_free(search->scratch);
    solve_annealer_destroy(search->annealer);
    solve_table_destroy(search->table);
    *search = (solve_search_t){0};
}

bool solve_search_over(const solve_search_t *search)
{
    return (search->stop != NULL && atomic_load_explicit(search->stop, memory_order_relaxed)) ||
           cot_deadline_passed(search->deadline);
}

/* One pass over all pairs of ranks; false if it was cut short. */
static bool pass_pairs(solve_search_t *search)
{
    uint32_t ranks = search->table->problem->ranks;
    for (uint32_t a = 0; a < ranks; a++)
        for (uint32_t b = a + 1; b < ranks; b++) {
            solve_annealer_pair(search->annealer, search, (const uint32_t[]){a, b}, 0);
            if (solve_search_over(search)) return false;
        }
    return true;
}

/* The annealer counts in single precision; what the table says decides. */
bool solve_pairs(solve_search_t *search)
{
    solve_table_t *table = search->table;
    size_t bytes = solve_cells(table->problem) * sizeof(*table->rank_of);
    solve_rank_t *kept = cot_alloc(bytes);
    bool better = false, again = kept != NULL;
    for (uint32_t pass = 0; again && pass < PASSES; pass++) {
        int64_t value = solve_table_value(table);
        memcpy(kept, table->rank_of, bytes);
        solve_annealer_set(search->annealer, table->rank_of);
        again = pass_pairs(search);
        solve_table_set(table, solve_annealer_get(search->annealer));
        int64_t now = solve_table_value(table);
        if (now > value) solve_table_set(table, kept);
        again = again && now < value;
        better |= now < value;
    }
    cot_free(kept);
    return better;
}

/* The moves feed each other: sweeps first, since they are cheap, then the dear ones. With loads in the objective,
 * sweeps would trade balance away, so only the moves that see the whole objective are used. */
static void descend(solve_search_t *search, bool pairs)
{
    const solve_problem_t *p = search->table->problem;
    bool better = true;
    while (better && !solve_search_over(search)) {
        better = false;
        if (p->transition != NULL && p->load_weight == 0) better |= solve_sweep(search);
        if (p->transition != NULL && p->uniform) better |= solve_relabel(search);
        if (p->transition != NULL && p->uniform && p->nodes > 1) better |= solve_blocks(search);
        if (p->load_weight != 0) better |= solve_swaps(search);
        if (pairs && p->transition != NULL && p->tiered) better |= solve_pairs(search);
    }
}

void solve_descend(solve_search_t *search)
{
    descend(search, true);
}

/* ---- greedy ---- */

static void shuffle_layer(solve_search_t *search, solve_rank_t *rank_of)
{
    for (uint32_t e = search->table->problem->experts; e > 1; e--) {
        uint32_t other = (uint32_t)(((solve_random(search) >> 32) * e) >> 32);
        solve_rank_t kept = rank_of[e - 1];
        rank_of[e - 1] = rank_of[other];
        rank_of[other] = kept;
    }
}

/* The rank that would be done first, among those with room. */
static uint32_t first_done(const solve_problem_t *p, const int64_t *load, const uint32_t *held, int64_t tokens)
{
    uint32_t best = UINT32_MAX;
    int64_t least = INT64_MAX;
    for (uint32_t r = 0; r < p->ranks; r++) {
        if (held[r] >= p->slots[r] || load[r] + tokens * p->slowness[r] >= least) continue;
        least = load[r] + tokens * p->slowness[r];
        best = r;
    }
    return best;
}

/* Longest processing time first (Graham, 1969); the table's load and held of the layer are scratch here. */
static void pack_layer(solve_table_t *table, uint32_t layer)
{
    const solve_problem_t *p = table->problem;
    solve_rank_t *rank_of = table->rank_of + (size_t)layer * p->experts;
    const int64_t *tokens = p->load + (size_t)layer * p->experts;
    int64_t *load = table->load + (size_t)layer * p->ranks;
    uint32_t *held = table->held + (size_t)layer * p->ranks;
    memset(load, 0, p->ranks * sizeof(*load));
    memset(held, 0, p->ranks * sizeof(*held));
    memset(rank_of, 0xff, p->experts * sizeof(*rank_of));
    for (uint32_t i = 0; i < p->experts; i++) {
        uint32_t next = UINT32_MAX;
        for (uint32_t e = 0; e < p->experts; e++)
            if (rank_of[e] == UINT16_MAX && (next == UINT32_MAX || tokens[e] > tokens[next])) next = e;
        uint32_t rank = first_done(p, load, held, tokens[next]);
        rank_of[next] = (solve_rank_t)rank;
        load[rank] += tokens[next] * p->slowness[rank];
        held[rank]++;
    }
}

void solve_greedy(solve_search_t *search)
{
    const solve_problem_t *p = search->table->problem;
    solve_rank_t *rank_of = search->table->rank_of;
    solve_contiguous(p, rank_of);
    for (uint32_t l = 0; l < p->layers; l++) {
        shuffle_layer(search, rank_of + (size_t)l * p->experts);
        if (p->transition == NULL) pack_layer(search->table, l);
    }
    solve_table_set(search->table, rank_of);
    for (uint32_t l = 1; p->transition != NULL && l < p->layers && !solve_search_over(search); l++)
        solve_transport(search, l);
    if (p->transition != NULL) solve_sweep(search);
    descend(search, false); /* annealing comes next: the dear moves can wait */
}
