/* The weights that no worker can borrow from the files as they lie, because they are converted or made up: one copy on
 * each node. The node's first worker makes an unnamed file in memory, the others map it; nothing of it outlives them.
 *
 * open and seal are collective among the workers of a node. A worker whose start fails before open says so with
 * give_up; then, and wherever a part of one fails, open or seal fails on all of them: on the others with
 * COT_ERR_CANCELLED. Every wait ends at the deadline. */
#ifndef WORKER_STORE_H
#define WORKER_STORE_H

#include "comm/comm.h"

typedef struct worker_store worker_store_t;

/* `bytes` is the same on all workers of the node, and not 0. link NULL: memory of this process alone; seal is then
 * nothing but the end of writing. */
cot_status_t worker_store_open(comm_link_t *link, uint64_t bytes, cot_deadline_t deadline, worker_store_t **store_out);
void *worker_store_at(worker_store_t *store, uint64_t offset); /* may be written until seal */
/* `status`: how this worker's writing went. All that was written by any worker can be read afterwards. */
cot_status_t worker_store_seal(worker_store_t *store, cot_status_t status, cot_deadline_t deadline);
void worker_store_give_up(comm_link_t *link);
void worker_store_close(worker_store_t *store); /* NULL is allowed */

#endif
