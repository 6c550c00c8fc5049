/* Before and after attention: projections, norms, RoPE, the KV blocks. */
#include "kernels/cpu/cpu_int.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static size_t key_bytes(const kern_t *kern)
{
    return (size_t)KERN_KV_BLOCK * kern->config.head_dim * kern_dtype_bytes(kern->config.act);
}

static size_t value_bytes(const kern_t *kern)
{
    return (size_t)KERN_KV_BLOCK * kern_value_stride(kern) * kern_dtype_bytes(kern->config.act);
}

size_t kern_cpu_kv_block_bytes(const kern_t *kern)
{
    return kern->config.kv_heads * (key_bytes(kern) + value_bytes(kern));
}

char *kern_keys(const kern_t *kern, const kern_kv_t *kv, uint32_t block, uint32_t kv_head)
{
    assert(block < kv->blocks);
    return (char *)kv->data + block * kern_cpu_kv_block_bytes(kern) + kv_head * key_bytes(kern);
}

char *kern_values(const kern_t *kern, const kern_kv_t *kv, uint32_t block, uint32_t kv_head)
{
    assert(block < kv->blocks);
    return (char *)kv->data + block * kern_cpu_kv_block_bytes(kern) + kern->config.kv_heads * key_bytes(kern) +
           kv_head * value_bytes(kern);
}

void kern_list_runs(kern_t *kern, const kern_run_t *run, uint32_t runs, uint32_t rows)
{
    assert(rows <= kern->config.max_rows);
    for (uint32_t r = 0; r < runs; r++) {
        assert(run[r].row + run[r].rows <= rows && run[r].position + run[r].rows <= kern->config.max_context);
        for (uint32_t row = 0; row < run[r].rows; row++) kern->row_run[run[r].row + row] = r;
    }
}

/* ---- attn_in ---- */

typedef struct {
    kern_t *kern;
    const kern_attn_in_args_t *args;
} attn_in_t;

static void norm_part(void *argument, uint32_t row)
{
    const attn_in_t *in = argument;
    kern_t *kern = in->kern;
    const float *x = in->args->x + (size_t)row * kern->config.hidden;
    kern_norm_packed(kern, x, in->args->weights->input_norm, kern_packed_row(kern, row));
}

/* x = x / rms(x) weight */
static void norm_in_place(const kern_t *kern, float *x, const float *weight, uint32_t count)
{
    float mean = kern->prims->sum_squares(x, count) / (float)count;
    kern->prims->scale(x, 1.0f / sqrtf(mean + kern->config.norm_eps), weight, count, x);
}

/* Bias, q/k norm and clip of the `heads` heads of Q, K or V of one row. `norm` NULL: none. */
static void finish_heads(const kern_t *kern, float *x, uint32_t heads, const float *bias, const float *norm)
{
    const uint32_t head_dim = kern->config.head_dim, width = heads * head_dim;
    const float clip = kern->config.clip_qkv;
    if (bias != NULL)
        for (uint32_t i = 0; i < width; i++) x[i] += bias[i];
    if (norm != NULL && kern->config.qk_norm == KERN_QK_NORM_FULL) norm_in_place(kern, x, norm, width);
    if (norm != NULL && kern->config.qk_norm == KERN_QK_NORM_HEAD)
        for (uint32_t h = 0; h < heads; h++) norm_in_place(kern, x + h * head_dim, norm, head_dim);
    if (clip > 0)
        for (uint32_t i = 0; i < width; i++) x[i] = x[i] > clip ? clip : x[i] < -clip ? -clip : x[i];
}

/* Element i turns with element i + D/2, as in rotate_half of Hugging Face. */
static void turn(const kern_t *kern, float *x, uint32_t heads, uint32_t position)
{
    const uint32_t half = kern->config.head_dim / 2;
    const float *cosine = kern->rope + (size_t)position * kern->config.head_dim, *sine = cosine + half;
    for (uint32_t h = 0; h < heads; h++, x += kern->config.head_dim)
        for (uint32_t i = 0; i < half; i++) {
            float left = x[i], right = x[i + half];
            x[i] = left * cosine[i] - right * sine[i];
            x[i + half] = right * cosine[i] + left * sine[i];
        }
}

/* One row's keys, a column of the transposed block, and its values, a row of it. */
static void write_kv(const kern_t *kern, const attn_in_t *in, const float *k, const float *v, uint32_t row)
{
    const uint32_t head_dim = kern->config.head_dim, stride = kern_value_stride(kern);
    const kern_run_t *run = &in->args->run[kern->row_run[row]];
    const uint32_t position = run->position + row - run->row, slot = position % KERN_KV_BLOCK;
    const uint32_t block = run->blocks[position / KERN_KV_BLOCK];
    const size_t bytes = kern_dtype_bytes(kern->config.act);
    for (uint32_t h = 0; h < kern->config.kv_heads; h++) {
        float rounded[KERN_MAX_HEAD_DIM];
        char *key = kern_keys(kern, in->args->kv, block, h), *value = kern_values(kern, in->args->kv, block, h);
        kern->prims->pack(k + h * head_dim, head_dim, kern_act_form(kern), rounded);
        for (uint32_t d = 0; d < head_dim; d++)
            memcpy(key + (d * KERN_KV_BLOCK + slot) * bytes, (const char *)rounded + d * bytes, bytes);
        kern->prims->pack(v + h * head_dim, head_dim, kern_act_form(kern), value + slot * stride * bytes);
    }
}

static void finish_part(void *argument, uint32_t row)
{
    const attn_in_t *in = argument;
    const kern_t *kern = in->kern;
    const kern_config_t *config = &kern->config;
    const kern_attn_weights_t *weights = in->args->weights;
    const uint32_t q_width = config->heads * config->head_dim, kv_width = config->kv_heads * config->head_dim;
    const kern_run_t *run = &in->args->run[kern->row_run[row]];
    const uint32_t position = run->position + row - run->row;
    float *q = kern->qkv + (size_t)row * (q_width + 2 * kv_width), *k = q + q_width, *v = k + kv_width;

    finish_heads(kern, q, config->heads, weights->q_bias, weights->q_norm);
    finish_heads(kern, k, config->kv_heads, weights->k_bias, weights->k_norm);
    finish_heads(kern, v, config->kv_heads, weights->v_bias, NULL);
    turn(kern, q, config->heads, position);
    turn(kern, k, config->kv_heads, position);
    kern->prims->pack(q, q_width, kern_act_form(kern),
                      (char *)in->args->q + (size_t)row * q_width * kern_dtype_bytes(config->act));
    write_kv(kern, in, k, v, row);
}

cot_status_t kern_cpu_attn_in(kern_t *kern, const kern_attn_in_args_t *args)
{
    const kern_attn_weights_t *weights = args->weights;
    const size_t q_width = weights->q.rows, kv_width = weights->k.rows, stride = q_width + 2 * kv_width;
    attn_in_t in = {.kern = kern, .args = args};
    assert(q_width == (size_t)kern->config.heads * kern->config.head_dim);
    kern_list_runs(kern, args->run, args->runs, args->rows);
    if (args->normed == NULL)
        kern_spread(kern, args->rows, 8ULL * kern->config.hidden, norm_part, &in);
    else
        kern_pack_rows(kern, args->normed, args->rows, kern->config.hidden);
    const kern_job_t common = {
        .x = kern->packed, .x_stride = kern->packed_stride, .rows = args->rows, .out_stride = stride};
    kern_job_t jobs[3] = {common, common, common};
    jobs[0].w = &weights->q, jobs[0].out = kern->qkv;
    jobs[1].w = &weights->k, jobs[1].out = kern->qkv + q_width;
    jobs[2].w = &weights->v, jobs[2].out = kern->qkv + q_width + kv_width;
    kern_products(kern, jobs, 3);
    kern_spread(kern, args->rows, 8 * stride, finish_part, &in);
    return COT_OK;
}

/* ---- attn_out ---- */

typedef struct {
    const kern_t *kern;
    const kern_attn_out_args_t *args;
} attn_out_t;

static void residual_part(void *argument, uint32_t row)
{
    const attn_out_t *out = argument;
    const kern_t *kern = out->kern;
    const uint32_t hidden = kern->config.hidden;
    const float *added = kern->wide + (size_t)row * hidden, *bias = out->args->weights->o_bias;
    float *x = out->args->x + (size_t)row * hidden;
    for (uint32_t i = 0; i < hidden; i++) x[i] += bias != NULL ? added[i] + bias[i] : added[i];
    char *normed = (char *)out->args->normed + (size_t)row * hidden * kern_dtype_bytes(kern->config.act);
    kern_norm(kern, x, out->args->weights->post_norm, kern_act_form(kern), normed);
}

cot_status_t kern_cpu_attn_out(kern_t *kern, const kern_attn_out_args_t *args)
{
    assert(args->rows <= kern->config.max_rows);
    kern_pack_rows(kern, args->attn, args->rows, args->weights->o.cols);
    const kern_job_t job = {.w = &args->weights->o,
                            .x = kern->packed,
                            .x_stride = kern->packed_stride,
                            .rows = args->rows,
                            .out = kern->wide,
                            .out_stride = kern->config.hidden};
    kern_products(kern, &job, 1);
    attn_out_t out = {.kern = kern, .args = args};
    kern_spread(kern, args->rows, 8ULL * kern->config.hidden, residual_part, &out);
    return COT_OK;
}
