/* What differs between instruction sets: a table of primitives, one per isa_*.c. The stages above (cpu.c and the files
 * beside it) are written once. The bits of a row must not depend on how the stages cut the work, so every primitive
 * gives each of its outputs one order of summation, whatever the shape it is called with. */
#ifndef KERN_CPU_PRIMS_H
#define KERN_CPU_PRIMS_H

#include "kernels/kern.h"

/* How a row of numbers is held. ROUNDED: float that carries bf16 values, so that products need no widening. */
typedef enum { KERN_FORM_F32, KERN_FORM_ROUNDED, KERN_FORM_BF16 } kern_form_t;

/* Rows that enter a product are padded with zeros to a multiple of this many elements. */
#define KERN_PAD 32

/* out[r][n] = x[r] · w[n] in fp32. */
typedef struct {
    const void *x;   /* [rows] of `cols` elements, padded, KERN_FORM_BF16 in pairs(), else float */
    size_t x_stride; /* bytes */
    const void *w;   /* [outputs, cols] row-major, not necessarily aligned */
    uint32_t rows, outputs, cols;
    float *out;
    size_t out_stride; /* floats */
} kern_product_t;

/* Scores of up to KERN_SCORE_HEADS query heads that share a key head, over one KV block. */
typedef struct {
    const float *q;  /* [heads, head_dim] */
    const void *key; /* act [head_dim][KERN_KV_BLOCK] */
    uint32_t heads, head_dim;
    float scale;
    float *score; /* [heads, KERN_ATTN_KEYS], this block's part of each */
} kern_scores_t;

#define KERN_SCORE_HEADS 8

/* sum[h] += p[h][key] value[key], over keys [first, last) of one KV block in order. */
typedef struct {
    const float *p;    /* [heads, KERN_ATTN_KEYS], this block's part */
    const void *value; /* act [KERN_KV_BLOCK][stride] */
    uint32_t first, last, heads;
    uint32_t stride; /* head_dim rounded up to 16 */
    float *sum;      /* [heads, stride] */
} kern_values_t;

typedef struct {
    void (*product_bf16)(const kern_product_t *product); /* float rows, bf16 weights */
    void (*product_f32)(const kern_product_t *product);  /* float rows, float weights */
    void (*product_pairs)(
        const kern_product_t *product); /* bf16 rows, bf16 weights; NULL: this set has no such product */
    /* Between forms; `out` in `form`, not padded. */
    void (*pack)(const float *in, uint32_t count, kern_form_t form, void *out);
    void (*widen)(const void *bf16, uint32_t count, float *out);
    float (*sum_squares)(const float *x, uint32_t count);
    void (*scale)(const float *x, float factor, const float *weight, uint32_t count, float *out); /* x factor weight */
    void (*add_scaled)(float factor, const void *x, kern_dtype_t dtype, uint32_t count, float *sum);
    void (*exp2)(float *x, uint32_t count);
    float (*sum)(const float *x, uint32_t count);
    void (*swiglu)(const float *gate, const float *up, uint32_t count, float *out); /* silu(gate) up */
    void (*scores)(const kern_scores_t *scores, kern_dtype_t dtype);
    /* x = exp2(x - max) over KERN_ATTN_KEYS, rounded if `dtype` is bf16; returns their sum. */
    float (*softmax)(float *x, float max, kern_dtype_t dtype);
    float (*max)(const float *x); /* over KERN_ATTN_KEYS */
    void (*values)(const kern_values_t *values, kern_dtype_t dtype);
} kern_prims_t;

extern const kern_prims_t kern_prims_scalar, kern_prims_avx2, kern_prims_avx512, kern_prims_avx512_bf16;

#endif
