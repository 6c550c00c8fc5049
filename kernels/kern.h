/* The mathematics, as stages: each backend fuses as it likes inside a stage and is free in its order of execution, but
 * not in its order of summation. Promise (DESIGN.md section 2): the bits of a row depend on nothing but the row, its
 * sequence's keys and values, and the weights: not on other rows, threads, chunking, nor on prefill or decode.
 *
 * Rounding points (activation type KERN_BF16): normed rows, Q, K, V, attention probabilities and outputs, SwiGLU
 * outputs and expert outputs are rounded to bf16; the residual stream, router logits, gate weights and LM logits are
 * fp32. With KERN_F32 nothing is rounded below fp32. Products accumulate in fp32 (the reference: in double).
 *
 * Shapes: T rows (tokens) of a step on this rank, H hidden, D head_dim, E experts, K top-k, V vocabulary. Row-major.
 * "act" is a bf16 (uint16_t) or float array, as kern_config_t.act says. */
#ifndef KERN_H
#define KERN_H

#include "base/status.h"
#include "base/threads.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KERN_KV_BLOCK 16       /* tokens of a KV block */
#define KERN_ATTN_KEYS 64      /* keys of one softmax block, aligned to absolute position 0 */
#define KERN_NO_EXPERT (-1)    /* expert id, or slot, of a padded assignment: it touches no weight */
#define KERN_NO_RUN UINT32_MAX /* run of a padded row */
/* K segments of the O projection: the halves of its inputs. cuda adds x + P0 + P1 in this order, each P taken in K
 * order from zero (the host backends sum each in their own one order). */
#define KERN_O_SEGMENTS 2
#define KERN_MAX_HEAD_DIM 512

typedef enum { KERN_BF16, KERN_F32 } kern_dtype_t;

static inline size_t kern_dtype_bytes(kern_dtype_t dtype)
{
    return dtype == KERN_BF16 ? 2 : 4;
}

/* Instruction sets of the cpu backend, worst first. Bits are promised within one. */
#define KERN_ISA_MAP(X) X(SCALAR, "scalar") X(AVX2, "avx2") X(AVX512, "avx512") X(AVX512_BF16, "avx512_bf16")
typedef enum {
#define X(name, text) KERN_ISA_##name,
    KERN_ISA_MAP(X)
#undef X
        KERN_ISA_COUNT
} kern_isa_t;

const char *kern_isa_name(kern_isa_t isa);
bool kern_isa_parse(const char *name, kern_isa_t *isa_out);
bool kern_isa_present(kern_isa_t isa); /* on this machine */
kern_isa_t kern_isa_best(void);

typedef enum { KERN_QK_NORM_NONE, KERN_QK_NORM_HEAD, KERN_QK_NORM_FULL } kern_qk_norm_t;

/* What all layers share. Copied by create, but for `pool` and `stream`, which are borrowed. */
typedef struct {
    kern_dtype_t act;
    kern_isa_t isa;   /* cpu backend only */
    cot_pool_t *pool; /* NULL: the calling thread alone */
    void *stream; /* cuda backend only: the cudaStream_t that stages are launched on, borrowed; NULL: the default one */
    int device;   /* cuda backend only: CUDA's number of the device */
    uint32_t hidden, heads, kv_heads, head_dim, vocab;
    uint32_t experts, top_k;
    uint32_t max_width;       /* widest inner dimension of any expert, shared expert or dense layer */
    uint32_t max_rows;        /* most home rows of a step */
    uint32_t max_assignments; /* most (row, expert) pairs that arrive on this rank in a step */
    uint32_t max_context;
    float norm_eps;
    float clip_qkv; /* Q, K and V are clamped to [-clip, clip] after the q/k norm; 0: none */
    bool norm_topk; /* gate weights of the top-k divided by their sum */
    kern_qk_norm_t qk_norm;
    const double *inv_freq; /* [head_dim / 2] RoPE inverse frequencies */
    double rope_factor;     /* factor on cos and sin (YaRN's attention factor); 1 without */
} kern_config_t;

/* A weight as the backend wants it: [rows = outputs, cols = inputs]. Made by ops->matrix_create. */
typedef struct {
    const void *data;
    kern_dtype_t dtype;
    uint32_t rows, cols;
    void *owned; /* what matrix_destroy frees; NULL: `data` is borrowed from the model's mapping */
} kern_matrix_t;

/* Vectors (norm weights, biases) are float, widened at load; NULL where the model has none. */
typedef struct {
    const float *input_norm;  /* [H] */
    kern_matrix_t q, k, v, o; /* [heads*D, H] [kv_heads*D, H] [kv_heads*D, H] [H, heads*D] */
    const float *q_bias, *k_bias, *v_bias, *o_bias;
    const float *q_norm, *k_norm; /* [D] (HEAD) or the full width (FULL) */
    const float *post_norm;       /* [H] */
    uint32_t window;              /* sliding window in tokens, the query's own included; 0: none */
} kern_attn_weights_t;

/* out = down( silu(gate x) * (up x) ): an expert, a shared expert or a dense layer. */
typedef struct {
    kern_matrix_t gate, up, down; /* [I, H] [I, H] [H, I] */
} kern_ffn_weights_t;

/* All experts of a layer that live on one device, stacked in slot order; cuda backend only (kernels/cuda/cuda.h). */
typedef struct kern_bank kern_bank_t;

/* Keys and values of one layer: blocks of KERN_KV_BLOCK tokens; the layout inside is the backend's. */
typedef struct {
    void *data;
    uint32_t blocks;
} kern_kv_t;

/* A run of consecutive tokens of one sequence in this step: rows [row, row + rows) of the step's arrays, at positions
 * [position, position + rows). blocks[p / 16] holds the KV of position p, for all positions up to the last row. */
typedef struct {
    uint32_t row, rows, position;
    const uint32_t *blocks;
} kern_run_t;

/* The cuda backend. Every pointer in the arguments of a stage, and in an array that they point to (kern_run_t and its
 * blocks), is memory of the device (ops->alloc); structs that are passed by pointer themselves (weights, kern_kv_t) are
 * the host's. Counts in the arguments are capacities that the host knows, such as a padded batch: padded rows have
 * KERN_NO_RUN, their assignments KERN_NO_EXPERT. Stages are launched on config.stream, in order; they never wait for
 * the device, take no memory, and can be captured into a graph. Activations are bf16. */

typedef struct kern kern_t; /* a backend's instance: owns scratch. One thread at a time. */

typedef struct {
    const kern_matrix_t *table; /* [V, H] */
    uint32_t rows;
    const int32_t *tokens; /* [T] each < V */
    float *x;              /* out [T, H] residual */
} kern_embed_args_t;

/* norm, QKV (+ bias), q/k norm, clip (in this order, as OLMoE does), RoPE (half-split: element i turns with i + D/2),
 * write of K and V into the blocks. */
typedef struct {
    const kern_attn_weights_t *weights;
    uint32_t rows, runs;
    const kern_run_t *run; /* [runs], cover all rows but padded ones */
    /* cuda backend only: the run of each row [T], KERN_NO_RUN for padding; and bounds of what the runs hold. */
    const uint32_t *row_run;
    uint32_t max_run_rows, max_position;
    const float *x;     /* [T, H] */
    const void *normed; /* act [T, H]: rms_norm(x) * input_norm where it was made already (combine); NULL: made here */
    void *q;            /* out act [T, heads, D] */
    kern_kv_t *kv;
} kern_attn_in_args_t;

/* Causal grouped-query attention over the runs' blocks. Blocks of KERN_ATTN_KEYS keys are taken in order; the running
 * maximum of score / ln 2 is rounded up to an integer, so that every rescale is by a power of two and exact. The
 * denominator adds the rounded probabilities. Keys outside a row's causal window are never read as values. */
typedef struct {
    const kern_attn_weights_t *weights;
    uint32_t rows, runs;
    const kern_run_t *run;
    const uint32_t *row_run; /* as in kern_attn_in_args_t */
    uint32_t max_run_rows, max_position;
    const void *q; /* act [T, heads, D] */
    const kern_kv_t *kv;
    void *out; /* out act [T, heads, D] */
} kern_attention_args_t;

/* x += O attn (+ bias); normed = rms_norm(x) * post_norm, the row that is routed and dispatched. */
typedef struct {
    const kern_attn_weights_t *weights;
    uint32_t rows;
    const void *attn; /* act [T, heads, D] */
    float *x;         /* in, out [T, H] */
    void *normed;     /* out act [T, H] */
} kern_attn_out_args_t;

/* logits = normed · gateᵀ; softmax over all E in fp32; the K largest (logit descending, then id ascending); weights
 * divided by their sum if norm_topk. A row with a NaN gets K distinct valid ids and harms no other row. */
typedef struct {
    const kern_matrix_t *gate; /* [E, H] */
    uint32_t rows;
    const uint32_t *row_run; /* cuda backend: [T], rows with KERN_NO_RUN get KERN_NO_EXPERT, weight 0; NULL: none has */
    const void *normed;      /* act [T, H] */
    int32_t *expert;         /* out [T, K] */
    float *weight;           /* out [T, K] */
} kern_route_args_t;

/* Stable counting sort of assignments by local slot. Padded ones (KERN_NO_EXPERT) are left out: slot_begin[slots] is
 * the number of the others, and `order` is not written from there on. */
typedef struct {
    uint32_t assignments, slots;
    const int32_t *slot;  /* [assignments] in [0, slots), or KERN_NO_EXPERT */
    uint32_t *order;      /* out [assignments]: assignment indices in slot order */
    uint32_t *slot_begin; /* out [slots + 1]: range of `order` of each slot */
} kern_sort_args_t;

/* y[a] = expert(slot of a)(x[row[a]]) for every assignment a that `order` lists; other rows of y stay. */
typedef struct {
    const kern_ffn_weights_t *expert; /* [slots]; NULL with a bank */
    const kern_bank_t *bank;          /* cuda backend: instead of `expert` */
    uint32_t slots, assignments;
    const void *x;              /* act [*, H] */
    const uint32_t *row;        /* [assignments] row of x */
    const uint32_t *order;      /* from sort */
    const uint32_t *slot_begin; /* from sort */
    void *y;                    /* out act [assignments, H], by assignment */
    /* cuda backend: where the outputs of assignment a go instead of `y`: row a % per_base of y_base[a / per_base];
     * memory of this device or of a peer. NULL: `y`. */
    void *const *y_base;
    uint32_t per_base;
} kern_experts_args_t;

/* A dense layer, or a shared expert: y = ffn(normed); scale[t] = sigmoid(normed[t] · gate) where there is a gate. */
typedef struct {
    const kern_ffn_weights_t *ffn;
    const kern_matrix_t *gate; /* [1, H] or NULL */
    uint32_t rows;
    const void *normed; /* act [T, H] */
    void *y;            /* out act [T, H] */
    float *scale;       /* out [T]; 1 without a gate */
} kern_mlp_args_t;

/* x[t] += ( sum over k in order of weight[t,k] * y[t,k] ) + scale[t] * shared[t], in fp32; then, where asked for,
 * next_normed = rms_norm(x) * next_norm: the input of the next layer, or of the head. */
typedef struct {
    uint32_t rows, top_k;   /* top_k 0: a dense layer */
    const float *weight;    /* [T, K] */
    const void *y;          /* act [T, K, H] */
    const void *shared;     /* act [T, H] or NULL */
    const float *scale;     /* [T] with `shared` */
    float *x;               /* in, out [T, H] */
    const float *next_norm; /* [H]; NULL: not wanted */
    void *next_normed;      /* out act [T, H] */
} kern_combine_args_t;

/* logits[i] = lm_head · (rms_norm(x[row[i]]) * norm). */
typedef struct {
    const float *norm;            /* [H] */
    const kern_matrix_t *lm_head; /* [V, H] */
    uint32_t rows;                /* n */
    const uint32_t *row;          /* [n] */
    const float *x;               /* [T, H] */
    float *logits;                /* out [n, V] */
} kern_head_args_t;

#define KERN_TOP_LOGPROBS 20

/* One draw. Order of the steps, as in Hugging Face: repetition penalty, temperature, top-k, top-p, min-p, draw. The
 * generator is Philox-4x32-10 keyed by `seed` at counter `position`: a draw depends on nothing else. Logprobs are of
 * the raw logits (before penalty and temperature). Candidates are ordered by (logit descending, id ascending). top-k
 * keeps exactly k of them (Hugging Face also keeps those that tie with the k-th); top-p, after it, keeps a candidate
 * while those before it hold less than top_p; min-p keeps it while its probability is at least min_p of the first
 * one's. A NaN logit counts as minus infinity. */
typedef struct {
    const float *logits;      /* [V] */
    float temperature;        /* 0: greedy (ties to the lower id) */
    float top_p, min_p;       /* 1 and 0: off */
    float repetition_penalty; /* 1: off */
    uint32_t top_k;           /* 0: off */
    uint64_t seed;
    uint32_t position;      /* of the token that is drawn */
    const int32_t *history; /* [history_tokens] prompt and generated so far */
    uint32_t history_tokens;
    uint32_t top_logprobs; /* how many of the likeliest to return, at most KERN_TOP_LOGPROBS */
    int32_t forced;        /* a token to score instead of drawing; -1: draw */
} kern_draw_t;

typedef struct {
    int32_t token;                        /* drawn, or `forced` */
    float logprob;                        /* of `token` */
    int32_t top_token[KERN_TOP_LOGPROBS]; /* [0] is always set: the likeliest token; -1 past the vocabulary's end */
    float top_logprob[KERN_TOP_LOGPROBS];
} kern_drawn_t;

typedef struct {
    uint32_t rows;
    const kern_draw_t *draw; /* [n] */
    kern_drawn_t *drawn;     /* out [n] */
} kern_sample_args_t;

/* A backend. create refuses a shape that it cannot serve (COT_ERR_INVALID) and an instruction set that this machine
 * lacks (COT_ERR_UNSUPPORTED); stages return COT_ERR_DEVICE or COT_ERR_NO_MEMORY at worst; their shapes are checked by
 * assert. */
typedef struct kern_ops {
    const char *name;
    cot_status_t (*create)(const kern_config_t *config, kern_t **kern_out);
    void (*destroy)(kern_t *kern);
    size_t (*scratch_bytes)(const kern_t *kern);
    void *(*alloc)(kern_t *kern,
                   size_t bytes); /* memory that the stages read and write; zeroed; NULL when there is none */
    void (*free)(kern_t *kern, void *memory);
    /* Bytes of one KV block of one layer. */
    size_t (*kv_block_bytes)(const kern_t *kern);
    /* `data` [rows, cols] of `dtype` (mapped, maybe unaligned) becomes a weight: borrowed where the backend reads that
     * layout as it lies, else converted or repacked. */
    cot_status_t (*matrix_create)(kern_t *kern, const void *data, kern_dtype_t dtype, uint32_t rows, uint32_t cols,
                                  kern_matrix_t *matrix_out);
    void (*matrix_destroy)(kern_t *kern, kern_matrix_t *matrix);
    cot_status_t (*embed)(kern_t *kern, const kern_embed_args_t *args);
    cot_status_t (*attn_in)(kern_t *kern, const kern_attn_in_args_t *args);
    cot_status_t (*attention)(kern_t *kern, const kern_attention_args_t *args);
    cot_status_t (*attn_out)(kern_t *kern, const kern_attn_out_args_t *args);
    cot_status_t (*route)(kern_t *kern, const kern_route_args_t *args);
    cot_status_t (*sort)(kern_t *kern, const kern_sort_args_t *args);
    cot_status_t (*experts)(kern_t *kern, const kern_experts_args_t *args);
    cot_status_t (*mlp)(kern_t *kern, const kern_mlp_args_t *args);
    cot_status_t (*combine)(kern_t *kern, const kern_combine_args_t *args);
    cot_status_t (*head)(kern_t *kern, const kern_head_args_t *args);
    cot_status_t (*sample)(kern_t *kern, const kern_sample_args_t *args);
} kern_ops_t;

extern const kern_ops_t kern_ref; /* plain C, double accumulation: the oracle */
extern const kern_ops_t kern_cpu;

/* bf16 <-> float: round to nearest even; NaN stays NaN. */
static inline float kern_bf16_to_float(uint16_t bits)
{
    union {
        uint32_t u;
        float f;
    } pun = {.u = (uint32_t)bits << 16};
    return pun.f;
}

static inline uint16_t kern_float_to_bf16(float value)
{
    union {
        float f;
        uint32_t u;
    } pun = {.f = value};
    if ((pun.u & 0x7fffffffU) > 0x7f800000U) return (uint16_t)((pun.u >> 16) | 0x40U);
    return (uint16_t)((pun.u + 0x7fffU + ((pun.u >> 16) & 1U)) >> 16);
}

#endif
