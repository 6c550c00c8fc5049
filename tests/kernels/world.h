/* A tiny model of two layers whose shapes a test chooses, its weights as a file would hold them, and a session that
 * runs steps of it on one backend. */
#ifndef TESTS_KERNELS_WORLD_H
#define TESTS_KERNELS_WORLD_H

#include "kernels/kern.h"
#include "tests/temporary.h"

#define WORLD_LAYERS 2
#define WORLD_MAX_EXPERTS 16

typedef struct {
    const char *name;
    uint32_t hidden, heads, kv_heads, head_dim, vocab, experts, top_k, width, window;
    kern_qk_norm_t qk_norm;
    float clip;
    bool norm_topk, biases, shared;
} shape_t;

/* Odd on purpose: sizes that are no multiple of any vector, one expert, all experts chosen, more than 8 heads a group.
 */
extern const shape_t SHAPES[];
extern const uint32_t SHAPES_COUNT;

/* Weights as raw bytes, `offset` bytes off their alignment. */
typedef struct {
    const shape_t *shape;
    kern_dtype_t dtype;
    size_t offset;
    char *memory;
    size_t used, capacity;
    uint64_t random;

    struct {
        char *q, *k, *v, *o, *router, *gate[WORLD_MAX_EXPERTS + 1], *up[WORLD_MAX_EXPERTS + 1],
            *down[WORLD_MAX_EXPERTS + 1], *shared_gate;
        float *input_norm, *post_norm, *q_norm, *k_norm, *q_bias, *k_bias, *v_bias, *o_bias;
    } layer[WORLD_LAYERS];
    char *embed, *lm_head;
    float *final_norm;
    double inv_freq[KERN_MAX_HEAD_DIM / 2];
} world_t;

/* Weights are bf16 values whatever the type, so worlds of both types hold the same numbers. */
void world_create(const shape_t *shape, kern_dtype_t dtype, size_t offset, world_t *world_out);
void world_destroy(world_t *world);
float *world_floats(uint64_t *random, size_t count, float scale); /* uniform in [-scale, scale]; cot_free */
uint64_t world_next(uint64_t *random);

kern_config_t world_config(const world_t *world, kern_dtype_t act);

typedef struct {
    const world_t *world;
    const kern_ops_t *ops;
    kern_config_t config;
    kern_t *kern;
    struct {
        kern_attn_weights_t attn;
        kern_matrix_t router, shared_gate;
        kern_ffn_weights_t expert[WORLD_MAX_EXPERTS], shared;
        kern_kv_t kv;
    } layer[WORLD_LAYERS];
    kern_matrix_t embed, lm_head;
    float *x, *weight, *scale, *logits;
    int32_t *expert;
    uint32_t *row, *order, *slot_begin;
    void *q, *attn, *normed, *y, *shared;
} session_t;

#define SESSION_BLOCKS 64

/* KV memory begins full of NaN: nobody may depend on what a block held before. */
void session_create(const world_t *world, const kern_ops_t *ops, const kern_config_t *config, session_t *session_out);
void session_destroy(session_t *session);
/* One step over `rows` rows; logits of all of them in session->logits, routes of the last layer in ->expert, ->weight.
 */
void session_step(session_t *session, const kern_run_t *run, uint32_t runs, uint32_t rows, const int32_t *tokens);

/* Whether this CPU has it; says so where not. */
bool isa_here(kern_isa_t isa);

#endif
