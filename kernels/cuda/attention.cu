/* The attention stage: which form serves which runs. The forms give the same bits (attention.cuh). */
#include "kernels/cuda/attention.cuh"

#include <math.h>

using namespace kcu;

/* Runs of up to this many packed rows (tokens times heads of a key/value head) are split over keys; longer ones have
 * tiles enough to fill the device. */
constexpr uint32_t FEW_PACKED = 256;

/* Scratch for this many splits at most: 136 MB at head_dim 128. Steps with more are served without it, a tile to a
 * thread block, which then is what keeps the device busy. */
constexpr uint64_t MOST_SLOTS = 16384;

cot_status_t kern_cuda_attention_create(kern_t *kern)
{
    const kern_config_t *config = &kern->config;
    const uint64_t tiles = (static_cast<uint64_t>(config->max_rows) * (config->heads / config->kv_heads)) /
                               ATTENTION_FEW_TILE +
                           config->max_rows;
    const uint64_t items = tiles * config->kv_heads * (config->max_context / ATTENTION_SPLIT + 1);
    kern->attention_slots = static_cast<uint32_t>(items < MOST_SLOTS ? items : MOST_SLOTS);
    const size_t slot_bytes = kern_attention_slot_floats(config->head_dim) * sizeof(float);
    void *partial;
    COT_TRY(kern_cuda_take(kern, kern->attention_slots * slot_bytes, &partial));
    kern->attention_partial = static_cast<float *>(partial);
    return COT_OK;
}

attention_params_t kern_attention_params(const kern_t *kern, const kern_attention_args_t *args)
{
    const kern_config_t *config = &kern->config;
    attention_params_t params = {};
    params.run = args->run;
    params.q = static_cast<const uint16_t *>(args->q);
    params.kv = static_cast<const uint16_t *>(args->kv->data);
    params.out = static_cast<uint16_t *>(args->out);
    params.partial = kern->attention_partial;
    params.slots = kern->attention_slots;
    params.runs = args->runs;
    params.heads = config->heads;
    params.kv_heads = config->kv_heads;
    params.group = config->heads / config->kv_heads;
    params.window = args->weights->window;
    params.most = UINT32_MAX;
    params.scale = static_cast<float>(1.4426950408889634 / sqrt(static_cast<double>(config->head_dim)));
    return params;
}

static cot_status_t many(const kern_t *kern, const kern_attention_args_t *args, const attention_params_t &params,
                         const attention_bounds_t &bounds)
{
    const kern_config_t *config = &kern->config;
    if (kern->form != KERN_FORM_WGMMA) return kern_attention_many(kern, params, bounds);
    CUtensorMap map;
    const uint64_t rows = 2ULL * args->kv->blocks * config->kv_heads * (config->head_dim / 64) * KERN_KV_BLOCK;
    COT_TRY(kern_cuda_encode(kern, args->kv->data, rows, 64, 64, &map));
    return kern_attention_wgmma(kern, params, bounds, map);
}

cot_status_t kern_cuda_attention(kern_t *kern, const kern_attention_args_t *args)
{
    attention_params_t params = kern_attention_params(kern, args);
    const attention_bounds_t bounds = {kern->config.head_dim, args->rows, args->max_position};
    if (args->runs == 0 || args->rows == 0) return COT_OK;
    if (args->max_run_rows * params.group > FEW_PACKED) {
        params.least = FEW_PACKED + 1;
        COT_TRY(many(kern, args, params, bounds));
        if (args->runs == 1) return COT_OK;
    }
    params.least = 0;
    params.most = FEW_PACKED;
    return kern_attention_few(kern, params, bounds);
}
