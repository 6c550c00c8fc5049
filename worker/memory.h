/* What a worker will take, added up before it is taken. */
#ifndef WORKER_MEMORY_H
#define WORKER_MEMORY_H

#include "base/status.h"

#include <stdint.h>

/* Bytes of memory that this node's processes may use: the machine's, or the cgroup's limit if that is lower. */
uint64_t worker_node_memory(void);

typedef struct {
    uint64_t private_weights, kv, buffers;   /* bytes of this worker */
    uint64_t mapped_weights, stored_weights; /* of the node: mapped files; converted or made up */
    uint32_t node_workers;
} worker_need_t;

/* COT_ERR_NO_MEMORY with all figures if the node's workers together do not fit into `available` bytes. */
cot_status_t worker_memory_check(const worker_need_t *need, uint64_t available);

#endif
