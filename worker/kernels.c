#include "worker/kernels.h"

#include <string.h>

uint32_t worker_node_workers(const comm_link_t *link)
{
    uint32_t here = comm_node(link, comm_rank(link)), count = 0;
    for (uint32_t rank = 1; rank < comm_ranks(link); rank++) count += comm_node(link, rank) == here;
    return count;
}

kern_dtype_t worker_activation_type(const cot_settings_t *settings, const model_config_t *config)
{
    const char *dtype = cot_settings_string(settings, COT_SET_DTYPE);
    if (strcmp(dtype, "float32") == 0) return KERN_F32;
    if (strcmp(dtype, "bfloat16") == 0) return KERN_BF16;
    return config->dtype == COT_DTYPE_BF16 ? KERN_BF16 : KERN_F32;
}

static kern_qk_norm_t kernel_qk_norm(model_qk_norm_t norm)
{
    switch (norm) {
    case MODEL_QK_NORM_HEAD: return KERN_QK_NORM_HEAD;
    case MODEL_QK_NORM_FULL: return KERN_QK_NORM_FULL;
    default: return KERN_QK_NORM_NONE;
    }
}

static uint32_t widest(const model_config_t *config)
{
    uint32_t width = config->expert_width;
    if (config->dense_width > width) width = config->dense_width;
    return config->shared_width > width ? config->shared_width : width;
}

cot_status_t worker_kernels_start(const comm_link_t *link, const cot_settings_t *settings, uint32_t isa,
                                  worker_model_t *model, cot_pool_t **pool_out)
{
    const model_config_t *config = &model->config;
    int64_t threads = cot_settings_int(settings, COT_SET_THREADS);
    COT_TRY(cot_pool_create(threads > 0 ? (unsigned)threads : cot_usable_cores(worker_node_workers(link)), pool_out));
    model->ops = strcmp(cot_settings_string(settings, COT_SET_BACKEND), "ref") == 0 ? &kern_ref : &kern_cpu;
    return model->ops->create(&(kern_config_t){.act = model->act,
                                               .isa = (kern_isa_t)isa,
                                               .pool = *pool_out,
                                               .hidden = config->hidden,
                                               .heads = config->heads,
                                               .kv_heads = config->kv_heads,
                                               .head_dim = config->head_dim,
                                               .vocab = config->vocab,
                                               .experts = config->experts,
                                               .top_k = config->top_k,
                                               .max_width = widest(config),
                                               .max_rows = model->max_rows,
                                               .max_assignments = model->max_assignments,
                                               .max_context = model->max_context,
                                               .norm_eps = config->norm_eps,
                                               .clip_qkv = config->clip_qkv,
                                               .norm_topk = config->norm_topk,
                                               .qk_norm = kernel_qk_norm(config->qk_norm),
                                               .inv_freq = config->inv_freq,
                                               .rope_factor = config->rope_factor},
                              &model->kern);
}
