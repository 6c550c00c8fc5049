/* What all parts of a worker share: the backend, the weights, the KV cache, and the limits all buffers are sized by. */
#ifndef WORKER_MODEL_H
#define WORKER_MODEL_H

#include "kernels/kern.h"
#include "model/config.h"
#include "worker/load.h"

typedef struct {
    const kern_ops_t *ops;
    kern_t *kern;
    model_config_t config;
    worker_weights_t *weights;
    kern_kv_t *kv;      /* [layers] */
    uint32_t kv_blocks; /* of each layer */
    kern_dtype_t act;
    uint32_t worker, workers; /* index of this worker, number of workers */
    uint32_t max_rows, max_sequences, max_context;
    uint32_t max_assignments; /* most (row, expert) pairs that can arrive here in a step */
    uint32_t max_slots;       /* most expert slots here in any layer */
} worker_model_t;

#endif
