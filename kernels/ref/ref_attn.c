#include "kernels/ref/ref_int.h"

#include <assert.h>
#include <math.h>

size_t kern_ref_kv_block_bytes(const kern_t *kern)
{
    const kern_config_t *config = &kern->config;
    return 2 * (size_t)config->kv_heads * KERN_KV_BLOCK * config->head_dim * kern_dtype_bytes(config->act);
}

/* Index of element 0 of a position's key (`value` 0) or value (1): [block][K|V][kv_head][16][D]. */
static size_t kv_index(const kern_t *kern, const kern_run_t *run, uint32_t position, uint32_t value, uint32_t kv_head)
{
    const kern_config_t *config = &kern->config;
    size_t at = (size_t)run->blocks[position / KERN_KV_BLOCK] * 2 + value;
    at = (at * config->kv_heads + kv_head) * KERN_KV_BLOCK + position % KERN_KV_BLOCK;
    return at * config->head_dim;
}

/* ---- attn_in ---- */

static void norm_in_place(const kern_t *kern, double *x, const float *weight, uint32_t count)
{
    double squares = 0;
    for (uint32_t i = 0; i < count; i++) squares += x[i] * x[i];
    double factor = 1 / sqrt(squares / count + kern->config.norm_eps);
    for (uint32_t i = 0; i < count; i++) x[i] *= factor * weight[i];
}

static void finish_heads(const kern_t *kern, double *x, uint32_t heads, const float *bias, const float *norm)
{
    const kern_config_t *config = &kern->config;
    const uint32_t width = heads * config->head_dim;
    for (uint32_t i = 0; bias != NULL && i < width; i++) x[i] += bias[i];
    if (norm != NULL && config->qk_norm == KERN_QK_NORM_FULL) norm_in_place(kern, x, norm, width);
    if (norm != NULL && config->qk_norm == KERN_QK_NORM_HEAD)
        for (uint32_t h = 0; h < heads; h++) norm_in_place(kern, x + h * config->head_dim, norm, config->head_dim);
    for (uint32_t i = 0; config->clip_qkv > 0 && i < width; i++)
        x[i] = fmax(-(double)config->clip_qkv, fmin((double)config->clip_qkv, x[i]));
}

static void turn(const kern_t *kern, double *x, uint32_t heads, uint32_t position)
{
    const uint32_t half = kern->config.head_dim / 2;
    for (uint32_t h = 0; h < heads; h++, x += 2 * half)
        for (uint32_t i = 0; i < half; i++) {
            double angle = position * kern->inv_freq[i], left = x[i], right = x[i + half];
            double cosine = cos(angle) * kern->config.rope_factor, sine = sin(angle) * kern->config.rope_factor;
            x[i] = left * cosine - right * sine;
            x[i + half] = right * cosine + left * sine;
        }
}

static void attn_in_row(kern_t *kern, const kern_attn_in_args_t *args, const kern_run_t *run, uint32_t row)
{
    const kern_config_t *config = &kern->config;
    const kern_attn_weights_t *weights = args->weights;
    const uint32_t position = run->position + row - run->row, head_dim = config->head_dim;
    double *q = kern->sum, *k = q + config->heads * head_dim, *v = k + config->kv_heads * head_dim;
    if (args->normed == NULL)
        kern_ref_norm(kern, args->x + (size_t)row * config->hidden, weights->input_norm, kern->row);
    for (uint32_t i = 0; args->normed != NULL && i < config->hidden; i++)
        kern->row[i] = (float)kern_ref_get(kern, args->normed, (size_t)row * config->hidden + i);
    kern_ref_product(&weights->q, kern->row, q);
    kern_ref_product(&weights->k, kern->row, k);
    kern_ref_product(&weights->v, kern->row, v);
    finish_heads(kern, q, config->heads, weights->q_bias, weights->q_norm);
    finish_heads(kern, k, config->kv_heads, weights->k_bias, weights->k_norm);
    finish_heads(kern, v, config->kv_heads, weights->v_bias, NULL);
    turn(kern, q, config->heads, position);
    turn(kern, k, config->kv_heads, position);
    for (uint32_t i = 0; i < config->heads * head_dim; i++)
        kern_ref_put(kern, args->q, (size_t)row * config->heads * head_dim + i, q[i]);
    for (uint32_t h = 0; h < config->kv_heads; h++)
        for (uint32_t d = 0; d < head_dim; d++) {
            kern_ref_put(kern, args->kv->data, kv_index(kern, run, position, 0, h) + d, k[h * head_dim + d]);
            kern_ref_put(kern, args->kv->data, kv_index(kern, run, position, 1, h) + d, v[h * head_dim + d]);
        }
}

cot_status_t kern_ref_attn_in(kern_t *kern, const kern_attn_in_args_t *args)
{
    for (uint32_t r = 0; r < args->runs; r++)
        for (uint32_t i = 0; i < args->run[r].rows; i++) attn_in_row(kern, args, &args->run[r], args->run[r].row + i);
    return COT_OK;
}

/* ---- attention ---- */

/* In units of ln 2. */
static double score_of(const kern_t *kern, const kern_attention_args_t *args, size_t q_at, size_t key_at)
{
    double score = 0;
    for (uint32_t d = 0; d < kern->config.head_dim; d++)
        score += kern_ref_get(kern, args->q, q_at + d) * kern_ref_get(kern, args->kv->data, key_at + d);
    return score / sqrt(kern->config.head_dim) / log(2);
}

/* Two passes: the maximum, then the sums. Rounding the maximum up to an integer makes the result the same as with a
 * running maximum: a bf16 probability is then rounded at the same place whatever power of two it is scaled by. */
static void attend(kern_t *kern, const kern_attention_args_t *args, const kern_run_t *run, uint32_t row, uint32_t head)
{
    const kern_config_t *config = &kern->config;
    const uint32_t position = run->position + row - run->row, window = args->weights->window;
    const uint32_t first = window > 0 && position >= window ? position + 1 - window : 0;
    const uint32_t kv_head = head / (config->heads / config->kv_heads);
    const size_t at = ((size_t)row * config->heads + head) * config->head_dim;
    double max = -INFINITY, total = 0, *sum = kern->sum;
    for (uint32_t d = 0; d < config->head_dim; d++) sum[d] = 0;
    for (uint32_t p = first; p <= position; p++)
        max = fmax(max, ceil(score_of(kern, args, at, kv_index(kern, run, p, 0, kv_head))));
    for (uint32_t p = first; p <= position; p++) {
        double share = exp2(score_of(kern, args, at, kv_index(kern, run, p, 0, kv_head)) - max);
        share = kern_ref_round(kern, share);
        total += share;
        for (uint32_t d = 0; d < config->head_dim; d++)
            sum[d] += share * kern_ref_get(kern, args->kv->data, kv_index(kern, run, p, 1, kv_head) + d);
    }
    for (uint32_t d = 0; d < config->head_dim; d++) kern_ref_put(kern, args->out, at + d, sum[d] / total);
}

cot_status_t kern_ref_attention(kern_t *kern, const kern_attention_args_t *args)
{
    for (uint32_t r = 0; r < args->runs; r++)
        for (uint32_t i = 0; i < args->run[r].rows; i++)
            for (uint32_t head = 0; head < kern->config.heads; head++)
                attend(kern, args, &args->run[r], args->run[r].row + i, head);
    return COT_OK;
}

/* ---- attn_out ---- */

cot_status_t kern_ref_attn_out(kern_t *kern, const kern_attn_out_args_t *args)
{
    const uint32_t hidden = kern->config.hidden, width = args->weights->o.cols;
    for (uint32_t t = 0; t < args->rows; t++) {
        float *x = args->x + (size_t)t * hidden;
        for (uint32_t i = 0; i < width; i++)
            kern->row[i] = (float)kern_ref_get(kern, args->attn, (size_t)t * width + i);
        kern_ref_product(&args->weights->o, kern->row, kern->sum);
        for (uint32_t i = 0; i < hidden; i++)
            x[i] = (float)(x[i] + kern->sum[i] + (args->weights->o_bias != NULL ? args->weights->o_bias[i] : 0));
        kern_ref_norm(kern, x, args->weights->post_norm, kern->row);
        for (uint32_t i = 0; i < hidden; i++) kern_ref_put(kern, args->normed, (size_t)t * hidden + i, kern->row[i]);
    }
    return COT_OK;
}
