#include "worker/ep.h"

#include "base/half.h"
#include "base/memory.h"

struct worker_ep {
    const worker_model_t *model;
    comm_group_t *group;
    uint64_t assignments;

    /* Home rows: [max_rows, …] */
    void *q, *attn, *normed, *shared;
    float *scale, *weight;
    int32_t *expert, *rank;
    void *y; /* [max_rows, top_k, hidden] expert outputs come home here */

    /* Arrived assignments: [max_assignments, …] */
    int32_t *slot;
    uint32_t *order, *slot_begin;
    void *outputs;
};

static void ep_destroy(worker_ep_t *ep)
{
    if (ep == NULL) return;
    const kern_ops_t *ops = ep->model->ops;
    void *buffers[] = {ep->q,    ep->attn, ep->normed, ep->shared, ep->scale,      ep->weight, ep->expert,
                       ep->rank, ep->y,    ep->slot,   ep->order,  ep->slot_begin, ep->outputs};
    for (size_t i = 0; i < sizeof(buffers) / sizeof(*buffers); i++) ops->free(ep->model->kern, buffers[i]);
    comm_group_destroy(ep->group);
    cot_free(ep);
}

static cot_status_t take_buffers(worker_ep_t *ep)
{
    const worker_model_t *model = ep->model;
    const model_config_t *config = &model->config;
    size_t act = kern_dtype_bytes(model->act), rows = model->max_rows, pairs = model->max_assignments;
    size_t heads_bytes = rows * config->heads * config->head_dim * act;
    struct {
        void **buffer;
        size_t bytes;
    } wanted[] = {
        {&ep->q, heads_bytes},
        {&ep->attn, heads_bytes},
        {&ep->normed, rows * config->hidden * act},
        {&ep->shared, rows * config->hidden * act},
        {(void **)&ep->scale, rows * sizeof(float)},
        {(void **)&ep->weight, rows * config->top_k * sizeof(float)},
        {(void **)&ep->expert, rows * config->top_k * sizeof(int32_t)},
        {(void **)&ep->rank, rows * config->top_k * sizeof(int32_t)},
        {&ep->y, rows * config->top_k * config->hidden * act},
        {(void **)&ep->slot, pairs * sizeof(int32_t)},
        {(void **)&ep->order, pairs * sizeof(uint32_t)},
        {(void **)&ep->slot_begin, ((size_t)model->max_slots + 1) * sizeof(uint32_t)},
        {&ep->outputs, pairs * config->hidden * act},
    };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
        *wanted[i].buffer = model->ops->alloc(model->kern, wanted[i].bytes);
        if (*wanted[i].buffer == NULL)
            return cot_fail(COT_ERR_NO_MEMORY,
                            "no memory for the exchange's buffers (%zu bytes): lower --max-step-tokens",
                            wanted[i].bytes);
    }
    return COT_OK;
}

static cot_status_t ep_create(const worker_ep_config_t *config, worker_ep_t **ep_out)
{
    const worker_model_t *model = config->model;
    worker_ep_t *ep = cot_calloc(1, sizeof(*ep));
    if (ep == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the exchange");
    ep->model = model;
    const comm_group_config_t group = {
        .link = config->link,
        .first = 1,
        .ranks = model->workers,
        .row_bytes = model->config.hidden * kern_dtype_bytes(model->act),
        .max_tokens = model->max_rows,
        .top_k = model->config.top_k,
        .timeout_ms = config->timeout_ms,
    };
    cot_status_t status = take_buffers(ep);
    if (status == COT_OK) status = comm_group_create(&group, &ep->group);
    if (status != COT_OK) {
        ep_destroy(ep);
        return status;
    }
    *ep_out = ep;
    return COT_OK;
}

static cot_status_t attend(worker_ep_t *ep, uint32_t l, worker_batch_t *batch)
{
    const worker_model_t *model = ep->model;
    const kern_attn_weights_t *weights = &model->weights->layer[l].attn;
    kern_t *kern = model->kern;
    if (batch->rows == 0) return COT_OK;
    COT_TRY(model->ops->attn_in(kern, &(kern_attn_in_args_t){.weights = weights,
                                                             .rows = batch->rows,
                                                             .runs = batch->runs,
                                                             .run = batch->run,
                                                             .x = batch->x,
                                                             .q = ep->q,
                                                             .kv = &model->kv[l]}));
    COT_TRY(model->ops->attention(kern, &(kern_attention_args_t){.weights = weights,
                                                                 .rows = batch->rows,
                                                                 .runs = batch->runs,
                                                                 .run = batch->run,
                                                                 .q = ep->q,
                                                                 .kv = &model->kv[l],
                                                                 .out = ep->attn}));
    return model->ops->attn_out(
        kern, &(kern_attn_out_args_t){
                  .weights = weights, .rows = batch->rows, .attn = ep->attn, .x = batch->x, .normed = ep->normed});
}

/* A dense layer's FFN, or a shared expert beside the routed ones. */
static cot_status_t feed_shared(worker_ep_t *ep, const worker_layer_t *layer, const worker_batch_t *batch)
{
    if (!layer->has_shared || batch->rows == 0) return COT_OK;
    const kern_mlp_args_t args = {.ffn = &layer->shared,
                                  .gate = layer->shared_router.data != NULL ? &layer->shared_router : NULL,
                                  .rows = batch->rows,
                                  .normed = ep->normed,
                                  .y = ep->shared,
                                  .scale = ep->scale};
    return ep->model->ops->mlp(ep->model->kern, &args);
}

/* Which expert and which worker computes it, for each of the home rows' assignments. */
static cot_status_t route(worker_ep_t *ep, const worker_layer_t *layer, uint32_t moe_layer, worker_batch_t *batch)
{
    if (batch->rows == 0) return COT_OK;
    const worker_model_t *model = ep->model;
    uint32_t top_k = model->config.top_k;
    COT_TRY(model->ops->route(model->kern, &(kern_route_args_t){.gate = &layer->router,
                                                                .rows = batch->rows,
                                                                .normed = ep->normed,
                                                                .expert = ep->expert,
                                                                .weight = ep->weight}));
    size_t width = (size_t)model_config_moe_layers(&model->config) * top_k;
    for (uint32_t row = 0; row < batch->rows; row++)
        for (uint32_t k = 0; k < top_k; k++) {
            size_t at = (size_t)row * top_k + k, traced = row * width + (size_t)moe_layer * top_k + k;
            ep->rank[at] = layer->rank_of[ep->expert[at]];
            batch->experts[traced] = (int16_t)ep->expert[at];
            batch->gate_weights[traced] = cot_half_from_float(ep->weight[at]);
        }
    return COT_OK;
}

/* Computes what arrived for the experts that live here. */
static cot_status_t compute_arrived(worker_ep_t *ep, const worker_layer_t *layer, const comm_received_t *received)
{
    const worker_model_t *model = ep->model;
    if (received->assignments == 0) return COT_OK;
    if (received->assignments > model->max_assignments)
        return cot_fail(COT_ERR_PROTOCOL, "%u assignments arrived, at most %u can", received->assignments,
                        model->max_assignments);
    for (uint32_t a = 0; a < received->assignments; a++) {
        uint32_t expert = (uint32_t)received->expert[a];
        ep->slot[a] = expert < model->config.experts ? layer->slot_of[expert] : -1;
        if (ep->slot[a] < 0)
            return cot_fail(COT_ERR_PROTOCOL, "a token for expert %u arrived, which does not live here", expert);
    }
    COT_TRY(model->ops->sort(model->kern, &(kern_sort_args_t){.assignments = received->assignments,
                                                              .slots = layer->slots,
                                                              .slot = ep->slot,
                                                              .order = ep->order,
                                                              .slot_begin = ep->slot_begin}));
    ep->assignments += received->assignments;
    return model->ops->experts(model->kern, &(kern_experts_args_t){.expert = layer->expert,
                                                                   .slots = layer->slots,
                                                                   .assignments = received->assignments,
                                                                   .x = received->data,
                                                                   .row = received->row,
                                                                   .order = ep->order,
                                                                   .slot_begin = ep->slot_begin,
                                                                   .y = ep->outputs});
}

static cot_status_t exchange(worker_ep_t *ep, uint32_t l, uint32_t moe_layer, worker_batch_t *batch)
{
    const worker_layer_t *layer = &ep->model->weights->layer[l];
    COT_TRY(route(ep, layer, moe_layer, batch));
    comm_group_locate(ep->group, batch->step, l);
    comm_received_t received;
    COT_TRY(comm_dispatch(
        ep->group,
        &(comm_dispatch_args_t){.tokens = batch->rows, .rows = ep->normed, .expert = ep->expert, .rank = ep->rank},
        &received));
    COT_TRY(compute_arrived(ep, layer, &received));
    return comm_combine(ep->group, ep->outputs, ep->y);
}

static cot_status_t ep_forward(worker_ep_t *ep, worker_batch_t *batch)
{
    const worker_model_t *model = ep->model;
    for (uint32_t l = 0, moe_layer = 0; l < model->config.layers; l++) {
        const worker_layer_t *layer = &model->weights->layer[l];
        COT_TRY(attend(ep, l, batch));
        if (layer->moe) COT_TRY(exchange(ep, l, moe_layer++, batch));
        COT_TRY(feed_shared(ep, layer, batch));
        if (batch->rows == 0) continue;
        COT_TRY(model->ops->combine(model->kern, &(kern_combine_args_t){.rows = batch->rows,
                                                                        .top_k = layer->moe ? model->config.top_k : 0,
                                                                        .weight = ep->weight,
                                                                        .y = ep->y,
                                                                        .shared = layer->has_shared ? ep->shared : NULL,
                                                                        .scale = ep->scale,
                                                                        .x = batch->x}));
    }
    return COT_OK;
}

static void ep_traffic(const worker_ep_t *ep, comm_traffic_t *traffic_out, uint64_t *assignments_out)
{
    comm_group_traffic(ep->group, traffic_out);
    *assignments_out = ep->assignments;
}

const worker_ep_ops_t worker_ep_home = {"home", ep_create, ep_destroy, ep_forward, ep_traffic};
