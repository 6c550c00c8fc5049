/* The reference inside: no scratch but one row of doubles, no threads, no cleverness. */
#ifndef KERN_REF_INT_H
#define KERN_REF_INT_H

#include "kernels/kern_int.h"

struct kern {
    kern_config_t config;
    double *inv_freq; /* [D / 2] */
    float *row;       /* [width] a rounded row that enters a product */
    double *sum;      /* [width] what a product gives */
    void *sample_scratch;
    size_t scratch_bytes;
};

/* Element i of an activation array, of a weight; and a value stored as an activation. */
double kern_ref_get(const kern_t *kern, const void *act, size_t i);
double kern_ref_weight(const kern_matrix_t *matrix, size_t row, size_t col);
void kern_ref_put(const kern_t *kern, void *act, size_t i, double value);
/* `value` rounded to float, then as an activation is. */
double kern_ref_round(const kern_t *kern, double value);

/* out[n] = x · w[n] */
void kern_ref_product(const kern_matrix_t *w, const float *x, double *out);
/* out = rms_norm(x) weight, each value rounded as an activation. */
void kern_ref_norm(const kern_t *kern, const float *x, const float *weight, float *out);

size_t kern_ref_kv_block_bytes(const kern_t *kern);
cot_status_t kern_ref_attn_in(kern_t *kern, const kern_attn_in_args_t *args);
cot_status_t kern_ref_attention(kern_t *kern, const kern_attention_args_t *args);
cot_status_t kern_ref_attn_out(kern_t *kern, const kern_attn_out_args_t *args);
cot_status_t kern_ref_route(kern_t *kern, const kern_route_args_t *args);
cot_status_t kern_ref_experts(kern_t *kern, const kern_experts_args_t *args);
cot_status_t kern_ref_mlp(kern_t *kern, const kern_mlp_args_t *args);
cot_status_t kern_ref_combine(kern_t *kern, const kern_combine_args_t *args);

#endif
