/* The moves of the search. Each leaves the table's objective no worse, and says whether it got better. */
#ifndef SOLVE_MOVES_H
#define SOLVE_MOVES_H

#include "base/clock.h"
#include "placement/solve/table.h"

#include <stdatomic.h>

typedef struct solve_annealer solve_annealer_t;

/* What one searcher owns: a placement with its tables, an annealer, scratch, a seeded generator; and when to stop. */
typedef struct {
    solve_table_t *table;
    solve_annealer_t *annealer;
    uint64_t random; /* state of splitmix64 */
    cot_deadline_t deadline;
    const atomic_bool *stop; /* another reason to stop; may be NULL */
    void *scratch;
    size_t scratch_bytes;
} solve_search_t;

cot_status_t solve_search_create(const solve_problem_t *problem, uint64_t seed, solve_search_t *search_out);
void solve_search_destroy(solve_search_t *search);
bool solve_search_over(const solve_search_t *search);

/* splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. */
static inline uint64_t solve_random(solve_search_t *search)
{
    uint64_t z = search->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Optimal placement of one layer given its neighbours, loads aside (negative cycles of the exchange graph). */
bool solve_transport(solve_search_t *search, uint32_t layer);
/* Forward and backward over all layers until nothing improves. */
bool solve_sweep(solve_search_t *search);
/* From one layer on, permutes the labels of all later layers: exact for each boundary (Hungarian, in two levels where
 * there are nodes). Uniform problems only. */
bool solve_relabel(solve_search_t *search);
/* For two ranks, exchange the whole contents over any set of layers: exact two-state dynamic programming. Uniform
 * problems only. */
bool solve_blocks(solve_search_t *search);
/* All pairs of ranks, one swap a layer along the whole chain (anneal.h), until nothing improves. Tiered problems
 * only. */
bool solve_pairs(solve_search_t *search);
/* Swaps and moves inside layers that make the objective better (with loads). */
bool solve_swaps(solve_search_t *search);

/* A seeded start: layer by layer, each placed best after the one before (without crossings: heaviest expert first, to
 * the rank that is done first with it), then descended by the cheap moves. */
void solve_greedy(solve_search_t *search);
/* All moves to a fixed point. */
void solve_descend(solve_search_t *search);

#endif
