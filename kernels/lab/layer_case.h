/* A stack of whole layers on one GPU or several: plan `home` through the cuda backend and the exchange, with made-up
 * weights, as one graph or stage by stage. What `coterie-lab layer` times and `coterie-lab bits` compares. */
#ifndef LAB_LAYER_CASE_H
#define LAB_LAYER_CASE_H

#include "comm/gpu.h"
#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { LAB_CONTIGUOUS, LAB_REVERSED, LAB_RANDOM, LAB_PLACEMENTS } lab_placement_t;

typedef struct {
    comm_link_t *link;
    uint32_t first, ranks; /* of the group: one rank alone makes a group of itself */
    int device;
    comm_gpu_transport_t transport;
    lab_placement_t placement;
    uint32_t layers, hidden, heads, kv_heads, head_dim, experts, top_k, width, window;
    float norm_eps;
    bool norm_topk, qk_norm;
    const double *inv_freq;      /* [head_dim / 2] */
    uint32_t sequences, context; /* KV space of this rank */
    uint32_t max_tokens;         /* largest bucket */
} lab_stack_config_t;

/* Owns its weights, KV and buffers. Create, destroy and forward are collective over the group. */
typedef struct lab_stack lab_stack_t;

cot_status_t lab_stack_create(const lab_stack_config_t *config, lab_stack_t **stack_out);
void lab_stack_destroy(lab_stack_t *stack);
kern_t *lab_stack_kern(lab_stack_t *stack);
const char *lab_stack_transport(const lab_stack_t *stack);
size_t lab_stack_bytes(const lab_stack_t *stack);

/* Consecutive tokens of a sequence of this rank. */
typedef struct {
    uint32_t sequence, position, rows;
} lab_span_t;

/* The rows of this rank in a step, padded to `bucket`, the same on all ranks. */
typedef struct {
    uint32_t bucket, spans;
    const lab_span_t *span;
} lab_step_t;

/* The residual that token `position` of global sequence `name` starts with is a function of both and of nothing else.
 */
void lab_stack_input(const lab_stack_t *stack, uint32_t name, uint32_t position, float *x);

/* Sets up a step: uploads runs and residuals x [rows, hidden] (host). */
cot_status_t lab_stack_prepare(lab_stack_t *stack, const lab_step_t *step, const float *x);
/* All layers of the prepared step: enqueued, or as a graph captured the first time a bucket is seen. */
cot_status_t lab_stack_run(lab_stack_t *stack, bool graph);
/* Waits, with the exchange's deadline. */
cot_status_t lab_stack_wait(lab_stack_t *stack, uint64_t step);
/* Residuals after the last layer, [rows, hidden], and the milliseconds between the events around the last run. */
cot_status_t lab_stack_fetch(lab_stack_t *stack, float *x_out);
cot_status_t lab_stack_elapsed(lab_stack_t *stack, float *ms_out);
/* Fills the KV of all sequences with random values, as if they had been prefilled. */
cot_status_t lab_stack_fill_kv(lab_stack_t *stack, uint32_t seed);
/* Drops captured graphs: after kern_cuda_force. */
void lab_stack_forget_graphs(lab_stack_t *stack);

#ifdef __cplusplus
}
#endif

#endif
