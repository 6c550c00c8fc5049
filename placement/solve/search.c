#include "placement/solve/moves.h"

#include "base/memory.h"

/* Enough for every move: see where each takes it. */
static size_t scratch_need(const solve_problem_t *p)
{
    size_t ranks = p->ranks + 1, transport = ranks * ranks * 24 + ranks * 64;
    size_t pairs = (size_t)p->layers * SOLVE_PAIR_STATES * 24 + SOLVE_PAIR_STATES * 64;
    size_t relabel = (size_t)p->ranks * p->ranks * 48 + (size_t)p->ranks * 128;
    size_t blocks = (size_t)p->layers * ((size_t)p->ranks * p->ranks * 8 + 24);
    if (p->uniform && p->nodes > 1 && blocks > relabel) relabel = blocks;
    size_t most = transport > pairs ? transport : pairs;
    return (most > relabel ? most : relabel) + 4096;
}

cot_status_t solve_search_create(const solve_problem_t *problem, uint64_t seed, solve_search_t *search_out)
{
    solve_search_t search = {.random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1, .deadline = COT_NEVER};
    COT_TRY(solve_table_create(problem, &search.table));
    search.scratch_bytes = scratch_need(problem);
    search.scratch = cot_alloc_aligned(search.scratch_bytes);
    if (search.scratch == NULL) {
        solve_table_destroy(search.table);
        return cot_fail(COT_ERR_NO_MEMORY, "no memory to search (%zu bytes)", search.scratch_bytes);
    }
    *search_out = search;
    return COT_OK;
}

void solve_search_destroy(solve_search_t *search)
{
    cot_free(search->scratch);
    solve_table_destroy(search->table);
    *search = (solve_search_t){0};
}

bool solve_search_over(const solve_search_t *search)
{
    return (search->stop != NULL && atomic_load_explicit(search->stop, memory_order_relaxed)) ||
           cot_deadline_passed(search->deadline);
}

/* splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. */
uint64_t solve_random(solve_search_t *search)
{
    uint64_t z = search->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* The moves feed each other: sweeps first, since they are cheap, then the dear ones. With loads in the objective,
 * sweeps would trade balance away, so only the moves that see the whole objective are used. */
void solve_descend(solve_search_t *search)
{
    const solve_problem_t *p = search->table->problem;
    bool better = true;
    while (better && !solve_search_over(search)) {
        better = false;
        if (p->transition != NULL && p->load_weight == 0) better |= solve_sweep(search);
        if (p->transition != NULL && p->uniform) better |= solve_relabel(search);
        if (p->transition != NULL && p->uniform && p->nodes > 1) better |= solve_blocks(search);
        if (p->load_weight != 0) better |= solve_swaps(search);
        if (p->transition != NULL) better |= solve_pairs(search);
    }
}
