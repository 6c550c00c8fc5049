/* The cpu backend inside: its instance, and products spread over the pool. */
#ifndef KERN_CPU_INT_H
#define KERN_CPU_INT_H

#include "kernels/cpu/prims.h"
#include "kernels/kern_int.h"

/* A part of a product covers at most this many rows and outputs, whatever the number of threads: weights of a part and
 * its rows fit into the second-level cache at the usual widths. */
#define KERN_PART_ROWS 48
#define KERN_PART_OUTPUTS 32

struct kern {
    kern_config_t config;
    const kern_prims_t *prims;
    kern_form_t form; /* of rows that enter a product with act's weights */
    size_t scratch_bytes;

    float *rope;                         /* [max_context][cos, sin][D / 2] */
    float *qkv;                          /* [max_rows][(heads + 2 kv_heads) D] before they are rounded */
    float *wide;                         /* [max_rows][H] the O projection */
    float *logits;                       /* [max_rows][E] of the router; also [max_rows][1] of a shared expert's gate */
    char *packed;                        /* rows that enter a product, at packed_stride */
    char *middle;                        /* [max_assignments][max_width] SwiGLU outputs, at middle_stride */
    size_t packed_stride, middle_stride; /* bytes */
    uint32_t *row_run;                   /* [max_rows] run of each row */
    uint32_t *part_begin;                /* [E + 1] parts of each expert slot */
    char *sample_scratch;                /* one for each thread */
};

static inline uint32_t kern_blocks(uint32_t count, uint32_t block)
{
    return (count + block - 1) / block;
}

static inline char *kern_packed_row(const kern_t *kern, uint32_t row)
{
    return kern->packed + row * kern->packed_stride;
}

/* The form of activations as the stages hand them on. */
static inline kern_form_t kern_act_form(const kern_t *kern)
{
    return kern->config.act == KERN_BF16 ? KERN_FORM_BF16 : KERN_FORM_F32;
}

/* One element of a packed row, and of an array of activations. */
static inline size_t kern_form_bytes(kern_form_t form)
{
    return form == KERN_FORM_BF16 ? sizeof(uint16_t) : sizeof(float);
}

/* cot_pool_run, where each part takes about `part_work` multiply-adds: what is done sooner than other threads wake up
 * is done here. Which thread does a part changes no bits. */
void kern_spread(const kern_t *kern, uint32_t parts, uint64_t part_work, void (*work)(void *argument, uint32_t part),
                 void *argument);

/* `rows` rows of `stride` bytes times weights, outputs [first, first + outputs): into out[row][output - first]. */
typedef struct {
    const kern_matrix_t *w;
    const char *x;
    size_t x_stride; /* bytes */
    uint32_t rows;
    float *out;
    size_t out_stride; /* floats */
} kern_job_t;

/* Here, on this thread. */
void kern_product(const kern_t *kern, const kern_job_t *job, uint32_t first, uint32_t outputs);
/* Whole jobs over the pool. At most 3. */
void kern_products(const kern_t *kern, const kern_job_t *jobs, uint32_t count);

/* Packs [rows, cols] activations into kern->packed, over the pool. */
void kern_pack_rows(kern_t *kern, const void *act, uint32_t rows, uint32_t cols);
/* One row of activations; zeros after it up to a multiple of KERN_PAD. */
void kern_pack_act(const kern_t *kern, const void *act, uint32_t cols, char *packed);
/* rms_norm(x) weight, x [hidden], into `out` in `form`. */
void kern_norm(const kern_t *kern, const float *x, const float *weight, kern_form_t form, void *out);
/* ... into a packed row. */
void kern_norm_packed(const kern_t *kern, const float *x, const float *weight, char *packed);

/* Fills row_run. */
void kern_list_runs(kern_t *kern, const kern_run_t *run, uint32_t runs, uint32_t rows);

size_t kern_cpu_kv_block_bytes(const kern_t *kern);

/* Where a KV block keeps the keys of one head, act [head_dim][KERN_KV_BLOCK], and its values,
 * act [KERN_KV_BLOCK][kern_value_stride]. */
static inline uint32_t kern_value_stride(const kern_t *kern)
{
    return kern_blocks(kern->config.head_dim, 16) * 16;
}

char *kern_keys(const kern_t *kern, const kern_kv_t *kv, uint32_t block, uint32_t kv_head);
char *kern_values(const kern_t *kern, const kern_kv_t *kv, uint32_t block, uint32_t kv_head);

cot_status_t kern_cpu_attn_in(kern_t *kern, const kern_attn_in_args_t *args);
cot_status_t kern_cpu_attention(kern_t *kern, const kern_attention_args_t *args);
cot_status_t kern_cpu_attn_out(kern_t *kern, const kern_attn_out_args_t *args);
cot_status_t kern_cpu_route(kern_t *kern, const kern_route_args_t *args);
cot_status_t kern_cpu_experts(kern_t *kern, const kern_experts_args_t *args);
cot_status_t kern_cpu_mlp(kern_t *kern, const kern_mlp_args_t *args);
cot_status_t kern_cpu_combine(kern_t *kern, const kern_combine_args_t *args);

#endif
