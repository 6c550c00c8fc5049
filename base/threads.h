/* A small pool of threads with fixed partitions: part p of a job always covers the same work, whatever the number of
 * threads, so no result depends on it. One caller at a time. */
#ifndef COT_THREADS_H
#define COT_THREADS_H

#include "base/status.h"

#include <stdint.h>

/* Owns its threads. cot_pool_run may be called from one thread at a time; parts run on all threads and the caller. */
typedef struct cot_pool cot_pool_t;

/* `threads` >= 1 counts the caller. */
cot_status_t cot_pool_create(unsigned threads, cot_pool_t **pool_out);
void cot_pool_destroy(cot_pool_t *pool); /* NULL is allowed */
unsigned cot_pool_threads(const cot_pool_t *pool);

/* Calls work(argument, part) for every part in 0 … parts-1, each once, in no order; returns when all are done.
 * `pool` NULL runs them here. Threads take parts from a counter: which thread runs a part is not fixed, what a part
 * covers is. */
void cot_pool_run(cot_pool_t *pool, uint32_t parts, void (*work)(void *argument, uint32_t part), void *argument);

/* Cores that this process may use: its affinity mask, or, when a launcher bound it to one core of several, its share
 * (`node_ranks` processes on this node) of the node's cores, or of its container's CPU quota. At least 1. */
unsigned cot_usable_cores(unsigned node_ranks);

#endif
