/* A worker's weights: everything but the experts of other workers. Matrices are borrowed from the mapped files where
 * the backend reads them as they lie. */
#ifndef WORKER_LOAD_H
#define WORKER_LOAD_H

#include "kernels/kern.h"
#include "model/config.h"
#include "model/weights.h"
#include "placement/plan.h"
#include "worker/store.h"

typedef struct {
    kern_attn_weights_t attn;
    bool moe;
    kern_matrix_t router; /* MoE: [E, H] */
    uint32_t slots;
    kern_ffn_weights_t *expert; /* [slots] in the plan's slot order */
    int32_t *slot_of;           /* [E] this worker's slot, or -1 */
    int32_t *rank_of;           /* [E] the worker that computes the expert for tokens whose home is here */
    bool has_shared;            /* a shared expert, or (not MoE) the dense FFN */
    kern_ffn_weights_t shared;
    kern_matrix_t shared_router; /* data NULL: no gate */
} worker_layer_t;

/* Owns the layers, the store of converted and made-up matrices, copies of the backend's, and widened vectors. */
typedef struct {
    uint32_t layers;
    worker_layer_t *layer;
    kern_matrix_t embed, lm_head;
    float *final_norm;
    void **owned; /* vectors */
    uint32_t owned_count, owned_capacity;
    worker_store_t *store; /* NULL: every matrix is borrowed from the files */
    uint64_t copied_bytes; /* private to this process */
    uint64_t shared_bytes; /* of the matrices used here that the node has once: mapped, or in the store */
} worker_weights_t;

typedef struct {
    const kern_ops_t *ops;
    kern_t *kern;
    const model_config_t *config;
    model_weights_t *files; /* outlives the weights */
    const place_plan_t *plan;
    uint32_t worker; /* index */
    kern_dtype_t act;
    comm_link_t *link;           /* to the other workers of the node; NULL: alone, and node_workers is 0 */
    const uint32_t *node_worker; /* [node_workers] indices of this node's workers, ascending, ours included */
    uint32_t node_workers;
    int64_t timeout_ms; /* of the others' loading */
    void (*progress)(void *user, float fraction);
    void *user;
} worker_load_t;

typedef struct {
    uint64_t private_bytes;             /* of this worker */
    uint64_t store_bytes, mapped_bytes; /* of this node's workers together */
} worker_load_need_t;

/* What loading will take, before any of it is taken. */
cot_status_t worker_load_measure(const worker_load_t *load, worker_load_need_t *need_out);
/* Collective among the workers of the node: see worker/store.h. */
cot_status_t worker_load(const worker_load_t *load, worker_weights_t **weights_out);
/* Only the experts that this worker holds in the model's first MoE layer, for measuring. */
cot_status_t worker_load_first_experts(const worker_load_t *load, uint32_t *layer_out, worker_weights_t **weights_out);
void worker_weights_destroy(const kern_ops_t *ops, kern_t *kern, worker_weights_t *weights);

#endif
