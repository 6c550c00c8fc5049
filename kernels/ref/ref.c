/* The oracle: plain C, sums in double, rounded exactly where kern.h says. */
#include "kernels/ref/ref_int.h"

#include "base/memory.h"

#include <assert.h>
#include <math.h>
#include <string.h>

double kern_ref_get(const kern_t *kern, const void *act, size_t i)
{
    return kern->config.act == KERN_BF16 ? kern_bf16_to_float(((const uint16_t *)act)[i]) : ((const float *)act)[i];
}

double kern_ref_weight(const kern_matrix_t *matrix, size_t row, size_t col)
{
    const char *at = (const char *)matrix->data + (row * matrix->cols + col) * kern_dtype_bytes(matrix->dtype);
    if (matrix->dtype == KERN_BF16) {
        uint16_t bits;
        memcpy(&bits, at, sizeof(bits));
        return kern_bf16_to_float(bits);
    }
    float value;
    memcpy(&value, at, sizeof(value));
    return value;
}

void kern_ref_put(const kern_t *kern, void *act, size_t i, double value)
{
    if (kern->config.act == KERN_BF16)
        ((uint16_t *)act)[i] = kern_float_to_bf16((float)value);
    else
        ((float *)act)[i] = (float)value;
}

double kern_ref_round(const kern_t *kern, double value)
{
    return kern->config.act == KERN_BF16 ? kern_bf16_to_float(kern_float_to_bf16((float)value)) : (float)value;
}

void kern_ref_product(const kern_matrix_t *w, const float *x, double *out)
{
    for (uint32_t n = 0; n < w->rows; n++) {
        out[n] = 0;
        for (uint32_t k = 0; k < w->cols; k++) out[n] += x[k] * kern_ref_weight(w, n, k);
    }
}

void kern_ref_norm(const kern_t *kern, const float *x, const float *weight, float *out)
{
    const uint32_t hidden = kern->config.hidden;
    double squares = 0;
    for (uint32_t i = 0; i < hidden; i++) squares += (double)x[i] * x[i];
    double factor = 1 / sqrt(squares / hidden + kern->config.norm_eps);
    for (uint32_t i = 0; i < hidden; i++) out[i] = (float)kern_ref_round(kern, x[i] * factor * weight[i]);
}

/* ---- instance ---- */

static void ref_destroy(kern_t *kern)
{
    if (kern == NULL) return;
    cot_free(kern->inv_freq);
    cot_free(kern->row);
    cot_free(kern->sum);
    cot_free(kern->sample_scratch);
    cot_free(kern);
}

/* The longest row that enters or leaves a product. */
static size_t widest(const kern_config_t *config)
{
    const size_t widths[] = {config->hidden, config->max_width, config->experts,
                             ((size_t)config->heads + 2 * (size_t)config->kv_heads) * config->head_dim, config->vocab};
    size_t most = 1;
    for (size_t i = 0; i < sizeof(widths) / sizeof(*widths); i++)
        if (widths[i] > most) most = widths[i];
    return most;
}

static cot_status_t ref_create(const kern_config_t *config, kern_t **kern_out)
{
    COT_TRY(kern_config_check(config));
    kern_t *kern = cot_calloc(1, sizeof(*kern));
    if (kern == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the reference kernels");
    const size_t width = widest(config);
    kern->config = *config;
    kern->inv_freq = cot_calloc(config->head_dim / 2, sizeof(*kern->inv_freq));
    kern->row = cot_calloc(width, sizeof(*kern->row));
    kern->sum = cot_calloc(2 * width, sizeof(*kern->sum));
    kern->sample_scratch = cot_alloc_aligned(kern_sample_scratch_bytes(config->vocab));
    if (kern->inv_freq == NULL || kern->row == NULL || kern->sum == NULL || kern->sample_scratch == NULL) {
        ref_destroy(kern);
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for the reference kernels' scratch");
    }
    memcpy(kern->inv_freq, config->inv_freq, config->head_dim / 2 * sizeof(*kern->inv_freq));
    kern->config.inv_freq = NULL;
    kern->scratch_bytes = width * (sizeof(*kern->row) + 2 * sizeof(*kern->sum)) +
                          kern_sample_scratch_bytes(config->vocab);
    *kern_out = kern;
    return COT_OK;
}

static size_t ref_scratch_bytes(const kern_t *kern)
{
    return kern->scratch_bytes;
}

static cot_status_t ref_matrix_create(kern_t *kern, const void *data, kern_dtype_t dtype, uint32_t rows, uint32_t cols,
                                      kern_matrix_t *matrix_out)
{
    return kern_host_matrix(kern->config.act, data, dtype, (const uint32_t[2]){rows, cols}, matrix_out);
}

/* ---- embed, head, sample ---- */

static cot_status_t ref_embed(kern_t *kern, const kern_embed_args_t *args)
{
    for (uint32_t t = 0; t < args->rows; t++) {
        assert(args->tokens[t] >= 0 && (uint32_t)args->tokens[t] < args->table->rows);
        for (uint32_t i = 0; i < kern->config.hidden; i++)
            args->x[(size_t)t * kern->config.hidden + i] = (float)kern_ref_weight(args->table, (size_t)args->tokens[t],
                                                                                  i);
    }
    return COT_OK;
}

static cot_status_t ref_head(kern_t *kern, const kern_head_args_t *args)
{
    const uint32_t vocab = args->lm_head->rows;
    for (uint32_t i = 0; i < args->rows; i++) {
        kern_ref_norm(kern, args->x + (size_t)args->row[i] * kern->config.hidden, args->norm, kern->row);
        kern_ref_product(args->lm_head, kern->row, kern->sum);
        for (uint32_t n = 0; n < vocab; n++) args->logits[(size_t)i * vocab + n] = (float)kern->sum[n];
    }
    return COT_OK;
}

static cot_status_t ref_sample(kern_t *kern, const kern_sample_args_t *args)
{
    for (uint32_t i = 0; i < args->rows; i++)
        kern_sample_one(&args->draw[i], kern->config.vocab, kern->sample_scratch, &args->drawn[i]);
    return COT_OK;
}

const kern_ops_t kern_ref = {
    .name = "ref",
    .create = ref_create,
    .destroy = ref_destroy,
    .scratch_bytes = ref_scratch_bytes,
    .alloc = kern_host_alloc,
    .free = kern_host_free,
    .kv_block_bytes = kern_ref_kv_block_bytes,
    .matrix_create = ref_matrix_create,
    .matrix_destroy = kern_host_matrix_destroy,
    .embed = ref_embed,
    .attn_in = kern_ref_attn_in,
    .attention = kern_ref_attention,
    .attn_out = kern_ref_attn_out,
    .route = kern_ref_route,
    .sort = kern_sort,
    .experts = kern_ref_experts,
    .mlp = kern_ref_mlp,
    .combine = kern_ref_combine,
    .head = ref_head,
    .sample = ref_sample,
};
