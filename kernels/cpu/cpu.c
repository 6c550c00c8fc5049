/* The cpu backend: its instance, and the stages at the two ends of the model. */
#include "kernels/cpu/cpu_int.h"

#include "base/memory.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static const kern_prims_t *prims_of(kern_isa_t isa)
{
    switch (isa) {
#if defined(__x86_64__)
    case KERN_ISA_AVX2: return &kern_prims_avx2;
    case KERN_ISA_AVX512: return &kern_prims_avx512;
    case KERN_ISA_AVX512_BF16: return &kern_prims_avx512_bf16;
#endif
    default: return &kern_prims_scalar;
    }
}

/* ---- instance ---- */

static void cpu_destroy(kern_t *kern)
{
    if (kern == NULL) return;
    cot_free(kern->rope);
    cot_free(kern->qkv);
    cot_free(kern->wide);
    cot_free(kern->logits);
    cot_free(kern->packed);
    cot_free(kern->middle);
    cot_free(kern->row_run);
    cot_free(kern->part_begin);
    cot_free(kern->sample_scratch);
    cot_free(kern);
}

static void fill_rope(kern_t *kern)
{
    const uint32_t half = kern->config.head_dim / 2;
    float *out = kern->rope;
    for (uint32_t position = 0; position < kern->config.max_context; position++, out += 2 * half)
        for (uint32_t i = 0; i < half; i++) {
            double angle = position * kern->config.inv_freq[i];
            out[i] = (float)(cos(angle) * kern->config.rope_factor);
            out[half + i] = (float)(sin(angle) * kern->config.rope_factor);
        }
}

static size_t packed_bytes(const kern_t *kern, uint32_t cols)
{
    return (size_t)kern_blocks(cols, KERN_PAD) * KERN_PAD * kern_form_bytes(kern->form);
}

static cot_status_t take_scratch(kern_t *kern)
{
    const kern_config_t *config = &kern->config;
    const uint32_t heads_width = config->heads * config->head_dim;
    const size_t rows = config->max_rows, act_rows = rows > config->max_assignments ? rows : config->max_assignments;
    const size_t qkv_width = heads_width + 2 * (size_t)config->kv_heads * config->head_dim;
    const size_t logits = config->experts > 0 ? config->experts : 1;
    const size_t draws = (size_t)cot_pool_threads(config->pool) * kern_sample_scratch_bytes(config->vocab);
    kern->packed_stride = packed_bytes(kern, heads_width > config->hidden ? heads_width : config->hidden);
    kern->middle_stride = packed_bytes(kern, config->max_width);
    const struct {
        void **memory;
        size_t bytes;
    } wanted[] = {
        {(void **)&kern->rope, (size_t)config->max_context * config->head_dim * sizeof(float)},
        {(void **)&kern->qkv, rows * qkv_width * sizeof(float)},
        {(void **)&kern->wide, rows * config->hidden * sizeof(float)},
        {(void **)&kern->logits, rows * logits * sizeof(float)},
        {(void **)&kern->packed, act_rows * kern->packed_stride},
        {(void **)&kern->middle, act_rows * kern->middle_stride},
        {(void **)&kern->row_run, rows * sizeof(uint32_t)},
        {(void **)&kern->part_begin, ((size_t)config->experts + 2) * sizeof(uint32_t)},
        {(void **)&kern->sample_scratch, draws},
    };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
        *wanted[i].memory = cot_alloc_aligned(wanted[i].bytes);
        if (*wanted[i].memory == NULL)
            return cot_fail(COT_ERR_NO_MEMORY,
                            "no memory for the kernels' scratch (%zu bytes): lower --max-step-tokens", wanted[i].bytes);
        kern->scratch_bytes += wanted[i].bytes;
    }
    return COT_OK;
}

static cot_status_t cpu_create(const kern_config_t *config, kern_t **kern_out)
{
    COT_TRY(kern_config_check(config));
    if (config->isa >= KERN_ISA_COUNT || !kern_isa_present(config->isa))
        return cot_fail(COT_ERR_UNSUPPORTED, "this CPU lacks %s; --isa %s works here",
                        config->isa < KERN_ISA_COUNT ? kern_isa_name(config->isa) : "that instruction set",
                        kern_isa_name(kern_isa_best()));
    kern_t *kern = cot_calloc(1, sizeof(*kern));
    if (kern == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the kernels");
    kern->config = *config;
    kern->prims = prims_of(config->isa);
    if (config->act == KERN_BF16)
        kern->form = kern->prims->product_pairs != NULL ? KERN_FORM_BF16 : KERN_FORM_ROUNDED;
    else
        kern->form = KERN_FORM_F32;
    cot_status_t status = take_scratch(kern);
    if (status != COT_OK) {
        cpu_destroy(kern);
        return status;
    }
    fill_rope(kern);
    kern->config.inv_freq = NULL; /* the caller's array may go away */
    *kern_out = kern;
    return COT_OK;
}

static size_t cpu_scratch_bytes(const kern_t *kern)
{
    return kern->scratch_bytes;
}

static cot_status_t cpu_matrix_create(kern_t *kern, const void *data, kern_dtype_t dtype, uint32_t rows, uint32_t cols,
                                      kern_matrix_t *matrix_out)
{
    return kern_host_matrix(kern->config.act, data, dtype, (const uint32_t[2]){rows, cols}, matrix_out);
}

/* ---- embed, head, sample ---- */

static cot_status_t cpu_embed(kern_t *kern, const kern_embed_args_t *args)
{
    const uint32_t hidden = kern->config.hidden;
    assert(args->table->cols == hidden);
    for (uint32_t t = 0; t < args->rows; t++) {
        assert(args->tokens[t] >= 0 && (uint32_t)args->tokens[t] < args->table->rows);
        const size_t row_bytes = hidden * kern_dtype_bytes(args->table->dtype);
        const char *from = (const char *)args->table->data + (size_t)args->tokens[t] * row_bytes;
        float *x = args->x + (size_t)t * hidden;
        if (args->table->dtype == KERN_BF16)
            kern->prims->widen(from, hidden, x);
        else
            memcpy(x, from, row_bytes);
    }
    return COT_OK;
}

typedef struct {
    const kern_t *kern;
    const kern_head_args_t *args;
    uint32_t first;
} head_t;

static void head_norm_part(void *argument, uint32_t i)
{
    const head_t *head = argument;
    const kern_t *kern = head->kern;
    const float *x = head->args->x + (size_t)head->args->row[head->first + i] * kern->config.hidden;
    kern_norm_packed(kern, x, head->args->norm, kern_packed_row(kern, i));
}

static cot_status_t cpu_head(kern_t *kern, const kern_head_args_t *args)
{
    const uint32_t vocab = args->lm_head->rows, most = kern->config.max_rows;
    head_t head = {.kern = kern, .args = args};
    for (; head.first < args->rows; head.first += most) {
        const uint32_t rows = args->rows - head.first < most ? args->rows - head.first : most;
        kern_spread(kern, rows, 8ULL * kern->config.hidden, head_norm_part, &head);
        const kern_job_t job = {.w = args->lm_head,
                                .x = kern->packed,
                                .x_stride = kern->packed_stride,
                                .rows = rows,
                                .out = args->logits + (size_t)head.first * vocab,
                                .out_stride = vocab};
        kern_products(kern, &job, 1);
    }
    return COT_OK;
}

typedef struct {
    const kern_t *kern;
    const kern_sample_args_t *args;
    uint32_t parts;
} sample_t;

/* Part p takes every parts-th draw from p on, in scratch of its own. */
static void sample_part(void *argument, uint32_t part)
{
    const sample_t *sample = argument;
    const uint32_t vocab = sample->kern->config.vocab;
    void *scratch = sample->kern->sample_scratch + part * kern_sample_scratch_bytes(vocab);
    for (uint32_t i = part; i < sample->args->rows; i += sample->parts)
        kern_sample_one(&sample->args->draw[i], vocab, scratch, &sample->args->drawn[i]);
}

static cot_status_t cpu_sample(kern_t *kern, const kern_sample_args_t *args)
{
    sample_t sample = {.kern = kern, .args = args, .parts = cot_pool_threads(kern->config.pool)};
    if (sample.parts > args->rows) sample.parts = args->rows;
    kern_spread(kern, sample.parts, 64ULL * kern->config.vocab, sample_part, &sample);
    return COT_OK;
}

const kern_ops_t kern_cpu = {
    .name = "cpu",
    .create = cpu_create,
    .destroy = cpu_destroy,
    .scratch_bytes = cpu_scratch_bytes,
    .alloc = kern_host_alloc,
    .free = kern_host_free,
    .kv_block_bytes = kern_cpu_kv_block_bytes,
    .matrix_create = cpu_matrix_create,
    .matrix_destroy = kern_host_matrix_destroy,
    .embed = cpu_embed,
    .attn_in = kern_cpu_attn_in,
    .attention = kern_cpu_attention,
    .attn_out = kern_cpu_attn_out,
    .route = kern_cpu_route,
    .sort = kern_sort,
    .experts = kern_cpu_experts,
    .mlp = kern_cpu_mlp,
    .combine = kern_cpu_combine,
    .head = cpu_head,
    .sample = cpu_sample,
};
