/* The moves of the search. Each leaves the table's objective no worse, and says whether it got better. */
#ifndef SOLVE_MOVES_H
#define SOLVE_MOVES_H

#include "base/clock.h"
#include "placement/solve/table.h"

#include <stdatomic.h>

/* States of a pair of ranks in one layer: nothing, or one of the most promising swaps. */
#define SOLVE_PAIR_STATES 640

/* Scratch of one searcher; a seeded generator; when to stop. */
typedef struct {
    solve_table_t *table;
    uint64_t random; /* state of splitmix64 */
    cot_deadline_t deadline;
    const atomic_bool *stop; /* another reason to stop; may be NULL */
    void *scratch;
    size_t scratch_bytes;
} solve_search_t;

cot_status_t solve_search_create(const solve_problem_t *problem, uint64_t seed, solve_search_t *search_out);
void solve_search_destroy(solve_search_t *search);
bool solve_search_over(const solve_search_t *search);
uint64_t solve_random(solve_search_t *search);

/* Optimal placement of one layer given its neighbours, loads aside (negative cycles of the exchange graph). */
bool solve_transport(solve_search_t *search, uint32_t layer);
/* Forward and backward over all layers until nothing improves. */
bool solve_sweep(solve_search_t *search);
/* From one layer on, permutes the labels of all later layers: exact for each boundary (Hungarian, in two levels where
 * there are nodes). Uniform problems only. */
bool solve_relabel(solve_search_t *search);
/* For two ranks, at each layer nothing or one swap: the best choice along the whole chain by dynamic programming. */
bool solve_pair(solve_search_t *search, uint32_t a, uint32_t b);
bool solve_pairs(solve_search_t *search); /* all pairs until nothing improves */
/* For two ranks, exchange the whole contents over any set of layers: exact two-state dynamic programming. */
bool solve_blocks(solve_search_t *search);
/* Swaps and moves inside layers that make the objective better (with loads). */
bool solve_swaps(solve_search_t *search);

/* All of these to a fixed point. */
void solve_descend(solve_search_t *search);

#endif
