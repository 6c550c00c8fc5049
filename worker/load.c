#include "worker/load.h"

#include "base/half.h"
#include "base/memory.h"

#include <string.h>

/* ---- one tensor ---- */

static void widen(const cot_tensor_t *tensor, float *out)
{
    size_t count = tensor->bytes / cot_dtype_bytes(tensor->dtype);
    if (tensor->dtype == COT_DTYPE_F32) {
        memcpy(out, tensor->data, tensor->bytes);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, (const char *)tensor->data + i * sizeof(bits), sizeof(bits));
        out[i] = tensor->dtype == COT_DTYPE_BF16 ? kern_bf16_to_float(bits) : cot_half_to_float(bits);
    }
}

static cot_status_t keep(worker_weights_t *weights, void *memory, uint64_t bytes)
{
    if (weights->owned_count == weights->owned_capacity) {
        uint32_t capacity = weights->owned_capacity * 2 + 64;
        void **owned = cot_realloc(weights->owned, capacity * sizeof(*owned));
        if (owned == NULL) {
            cot_free(memory);
            return cot_fail(COT_ERR_NO_MEMORY, "no memory for the list of weights");
        }
        weights->owned = owned;
        weights->owned_capacity = capacity;
    }
    weights->owned[weights->owned_count++] = memory;
    weights->copied_bytes += bytes;
    return COT_OK;
}

static cot_status_t widened(worker_weights_t *weights, const cot_tensor_t *tensor, float **out)
{
    size_t bytes = tensor->bytes / cot_dtype_bytes(tensor->dtype) * sizeof(float);
    float *copy = cot_alloc_aligned(bytes);
    if (copy == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for %s (%zu bytes)", tensor->name, bytes);
    widen(tensor, copy);
    COT_TRY(keep(weights, copy, bytes));
    *out = copy;
    return COT_OK;
}

/* F16 has no kernel: it is widened here; BF16 and F32 go to the backend as they lie. */
static cot_status_t load_matrix(const worker_load_t *load, worker_weights_t *weights, const cot_tensor_t *tensor,
                                kern_matrix_t *out)
{
    uint32_t rows = (uint32_t)tensor->shape[0], cols = (uint32_t)tensor->shape[1];
    const void *data = tensor->data;
    kern_dtype_t dtype = tensor->dtype == COT_DTYPE_BF16 ? KERN_BF16 : KERN_F32;
    if (tensor->dtype == COT_DTYPE_F16) {
        float *copy = NULL;
        COT_TRY(widened(weights, tensor, &copy));
        data = copy;
    }
    COT_TRY(load->ops->matrix_create(load->kern, data, dtype, rows, cols, out));
    if (tensor->dtype == COT_DTYPE_F16 && out->owned != NULL) {
        cot_free(weights->owned[--weights->owned_count]);
        weights->copied_bytes -= (uint64_t)rows * cols * sizeof(float);
    }
    if (out->owned != NULL) weights->copied_bytes += (uint64_t)rows * cols * kern_dtype_bytes(out->dtype);
    return COT_OK;
}

/* ---- the list of a worker's tensors: walked once to measure, once to load ---- */

/* Exactly one of matrix and vector is set. */
typedef struct {
    model_role_t role;
    uint32_t layer, expert;
    kern_matrix_t *matrix;
    const float **vector;
} wanted_t;

typedef cot_status_t (*visit_t)(void *user, const wanted_t *wanted);

static cot_status_t visit_attention(const model_config_t *config, uint32_t l, kern_attn_weights_t *attn, visit_t visit,
                                    void *user)
{
    const wanted_t list[] = {
        {MODEL_INPUT_NORM, l, 0, NULL, &attn->input_norm},
        {MODEL_POST_NORM, l, 0, NULL, &attn->post_norm},
        {MODEL_Q, l, 0, &attn->q, NULL},
        {MODEL_K, l, 0, &attn->k, NULL},
        {MODEL_V, l, 0, &attn->v, NULL},
        {MODEL_O, l, 0, &attn->o, NULL},
        {MODEL_Q_BIAS, l, 0, NULL, &attn->q_bias},
        {MODEL_K_BIAS, l, 0, NULL, &attn->k_bias},
        {MODEL_V_BIAS, l, 0, NULL, &attn->v_bias},
        {MODEL_O_BIAS, l, 0, NULL, &attn->o_bias},
        {MODEL_Q_NORM, l, 0, NULL, &attn->q_norm},
        {MODEL_K_NORM, l, 0, NULL, &attn->k_norm},
    };
    for (size_t i = 0; i < sizeof(list) / sizeof(*list); i++)
        if (model_role_present(config, list[i].role, l)) COT_TRY(visit(user, &list[i]));
    return COT_OK;
}

static cot_status_t visit_ffn(const model_role_t roles[3], uint32_t layer, uint32_t expert, kern_ffn_weights_t *ffn,
                              visit_t visit, void *user)
{
    COT_TRY(visit(user, &(wanted_t){roles[0], layer, expert, &ffn->gate, NULL}));
    COT_TRY(visit(user, &(wanted_t){roles[1], layer, expert, &ffn->up, NULL}));
    return visit(user, &(wanted_t){roles[2], layer, expert, &ffn->down, NULL});
}

static const model_role_t EXPERT_ROLES[3] = {MODEL_EXPERT_GATE, MODEL_EXPERT_UP, MODEL_EXPERT_DOWN};
static const model_role_t SHARED_ROLES[3] = {MODEL_SHARED_GATE, MODEL_SHARED_UP, MODEL_SHARED_DOWN};
static const model_role_t DENSE_ROLES[3] = {MODEL_DENSE_GATE, MODEL_DENSE_UP, MODEL_DENSE_DOWN};

static cot_status_t visit_experts(const worker_load_t *load, worker_layer_t *layer, uint32_t l, uint32_t moe_layer,
                                  visit_t visit, void *user)
{
    uint32_t begin = load->plan->slot_begin[moe_layer * load->plan->ranks + load->worker];
    for (uint32_t slot = 0; slot < layer->slots; slot++)
        COT_TRY(visit_ffn(EXPERT_ROLES, l, load->plan->slot_expert[begin + slot], &layer->expert[slot], visit, user));
    return COT_OK;
}

static cot_status_t visit_layer(const worker_load_t *load, worker_layer_t *layer, uint32_t l, uint32_t moe_layer,
                                visit_t visit, void *user)
{
    COT_TRY(visit_attention(load->config, l, &layer->attn, visit, user));
    if (!layer->moe) return visit_ffn(DENSE_ROLES, l, 0, &layer->shared, visit, user);

    COT_TRY(visit(user, &(wanted_t){MODEL_ROUTER, l, 0, &layer->router, NULL}));
    COT_TRY(visit_experts(load, layer, l, moe_layer, visit, user));
    if (!layer->has_shared) return COT_OK;
    COT_TRY(visit_ffn(SHARED_ROLES, l, 0, &layer->shared, visit, user));
    if (!model_role_present(load->config, MODEL_SHARED_ROUTER, l)) return COT_OK;
    return visit(user, &(wanted_t){MODEL_SHARED_ROUTER, l, 0, &layer->shared_router, NULL});
}

static cot_status_t visit_all(const worker_load_t *load, worker_weights_t *weights, visit_t visit, void *user)
{
    COT_TRY(visit(user, &(wanted_t){MODEL_EMBED, 0, 0, &weights->embed, NULL}));
    for (uint32_t l = 0, moe_layer = 0; l < weights->layers; l++) {
        COT_TRY(visit_layer(load, &weights->layer[l], l, moe_layer, visit, user));
        moe_layer += weights->layer[l].moe;
    }
    COT_TRY(visit(user, &(wanted_t){MODEL_FINAL_NORM, 0, 0, NULL, (const float **)&weights->final_norm}));
    return visit(user, &(wanted_t){MODEL_LM_HEAD, 0, 0, &weights->lm_head, NULL});
}

/* ---- the frame: which layers, slots and ranks ---- */

static cot_status_t frame_layer(const worker_load_t *load, worker_layer_t *layer, uint32_t l, uint32_t moe_layer)
{
    const model_config_t *config = load->config;
    const place_plan_t *plan = load->plan;
    layer->moe = config->layer[l].moe;
    layer->attn.window = config->layer[l].window;
    layer->has_shared = !layer->moe || config->shared_width > 0;
    if (!layer->moe) return COT_OK;

    const uint32_t *begin = plan->slot_begin + (size_t)moe_layer * plan->ranks + load->worker;
    layer->slots = begin[1] - begin[0];
    layer->expert = cot_calloc(layer->slots, sizeof(*layer->expert));
    layer->slot_of = cot_calloc(config->experts, sizeof(*layer->slot_of));
    layer->rank_of = cot_calloc(config->experts, sizeof(*layer->rank_of));
    if (layer->expert == NULL || layer->slot_of == NULL || layer->rank_of == NULL)
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for layer %u", l);
    for (uint32_t expert = 0; expert < config->experts; expert++) {
        layer->slot_of[expert] = place_plan_slot(plan, moe_layer, load->worker, expert);
        layer->rank_of[expert] = (int32_t)place_plan_rank(plan, moe_layer, expert, load->worker);
    }
    return COT_OK;
}

static cot_status_t frame_create(const worker_load_t *load, worker_weights_t **weights_out)
{
    worker_weights_t *weights = cot_calloc(1, sizeof(*weights));
    if (weights == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the weights");
    weights->layers = load->config->layers;
    weights->layer = cot_calloc(weights->layers, sizeof(*weights->layer));
    cot_status_t status = weights->layer != NULL
                              ? COT_OK
                              : cot_fail(COT_ERR_NO_MEMORY, "no memory for %u layers", weights->layers);
    for (uint32_t l = 0, moe_layer = 0; status == COT_OK && l < weights->layers; l++) {
        status = frame_layer(load, &weights->layer[l], l, moe_layer);
        moe_layer += weights->layer[l].moe;
    }
    if (status != COT_OK) {
        worker_weights_destroy(load->ops, load->kern, weights);
        return status;
    }
    *weights_out = weights;
    return COT_OK;
}

static void destroy_ffn(const kern_ops_t *ops, kern_t *kern, kern_ffn_weights_t *ffn)
{
    ops->matrix_destroy(kern, &ffn->gate);
    ops->matrix_destroy(kern, &ffn->up);
    ops->matrix_destroy(kern, &ffn->down);
}

static void destroy_layer(const kern_ops_t *ops, kern_t *kern, worker_layer_t *layer)
{
    ops->matrix_destroy(kern, &layer->attn.q);
    ops->matrix_destroy(kern, &layer->attn.k);
    ops->matrix_destroy(kern, &layer->attn.v);
    ops->matrix_destroy(kern, &layer->attn.o);
    ops->matrix_destroy(kern, &layer->router);
    ops->matrix_destroy(kern, &layer->shared_router);
    destroy_ffn(ops, kern, &layer->shared);
    for (uint32_t slot = 0; layer->expert != NULL && slot < layer->slots; slot++)
        destroy_ffn(ops, kern, &layer->expert[slot]);
    cot_free(layer->expert);
    cot_free(layer->slot_of);
    cot_free(layer->rank_of);
}

void worker_weights_destroy(const kern_ops_t *ops, kern_t *kern, worker_weights_t *weights)
{
    if (weights == NULL) return;
    for (uint32_t l = 0; weights->layer != NULL && l < weights->layers; l++)
        destroy_layer(ops, kern, &weights->layer[l]);
    ops->matrix_destroy(kern, &weights->embed);
    ops->matrix_destroy(kern, &weights->lm_head);
    for (uint32_t i = 0; i < weights->owned_count; i++) cot_free(weights->owned[i]);
    cot_free(weights->owned);
    cot_free(weights->layer);
    cot_free(weights);
}

/* ---- measuring ---- */

typedef struct {
    const worker_load_t *load;
    kern_dtype_t act;
    uint64_t private_bytes, mapped_bytes;
} measure_t;

static cot_status_t measure_one(void *user, const wanted_t *wanted)
{
    measure_t *measure = user;
    const model_config_t *config = measure->load->config;
    uint64_t shape[2];
    cot_dtype_t dtype;
    COT_TRY(model_weights_shape(measure->load->files, wanted->role, wanted->layer, wanted->expert, shape, &dtype));
    uint64_t count = shape[0] * shape[1];
    bool tied = wanted->role == MODEL_LM_HEAD && config->tie_embeddings;
    if (tied) return COT_OK;
    measure->mapped_bytes += count * cot_dtype_bytes(dtype);
    if (wanted->vector != NULL || (dtype == COT_DTYPE_F16 && measure->act == KERN_F32))
        measure->private_bytes += count * sizeof(float);
    else if (measure->act == KERN_BF16 && dtype != COT_DTYPE_BF16)
        measure->private_bytes += count * sizeof(uint16_t);
    return COT_OK;
}

cot_status_t worker_load_measure(const worker_load_t *load, kern_dtype_t act, uint64_t *private_bytes_out,
                                 uint64_t *mapped_bytes_out)
{
    worker_weights_t *weights = NULL;
    COT_TRY(frame_create(load, &weights));
    measure_t measure = {.load = load, .act = act};
    cot_status_t status = visit_all(load, weights, measure_one, &measure);
    worker_weights_destroy(load->ops, load->kern, weights);
    COT_TRY(status);
    *private_bytes_out = measure.private_bytes;
    *mapped_bytes_out = measure.mapped_bytes;
    return COT_OK;
}

/* ---- loading ---- */

typedef struct {
    const worker_load_t *load;
    worker_weights_t *weights;
    uint64_t done, total;
} loading_t;

static cot_status_t count_one(void *user, const wanted_t *wanted)
{
    (void)wanted;
    ((loading_t *)user)->total++;
    return COT_OK;
}

static cot_status_t load_one(void *user, const wanted_t *wanted)
{
    loading_t *loading = user;
    const worker_load_t *load = loading->load;
    cot_tensor_t tensor;
    COT_TRY(model_weights_get(load->files, wanted->role, wanted->layer, wanted->expert, &tensor));
    if (wanted->matrix != NULL) {
        COT_TRY(load_matrix(load, loading->weights, &tensor, wanted->matrix));
    } else {
        float *vector = NULL;
        COT_TRY(widened(loading->weights, &tensor, &vector));
        *wanted->vector = vector;
    }
    loading->done++;
    if (load->progress != NULL) load->progress(load->user, (float)loading->done / (float)loading->total);
    return COT_OK;
}

cot_status_t worker_load(const worker_load_t *load, worker_weights_t **weights_out)
{
    worker_weights_t *weights = NULL;
    COT_TRY(frame_create(load, &weights));
    loading_t loading = {.load = load, .weights = weights};
    cot_status_t status = visit_all(load, weights, count_one, &loading);
    if (status == COT_OK) status = visit_all(load, weights, load_one, &loading);
    if (status != COT_OK) {
        worker_weights_destroy(load->ops, load->kern, weights);
        return status;
    }
    *weights_out = weights;
    return COT_OK;
}

cot_status_t worker_load_first_experts(const worker_load_t *load, uint32_t *layer_out, worker_weights_t **weights_out)
{
    worker_weights_t *weights = NULL;
    uint32_t layer = 0;
    while (layer < load->config->layers && !load->config->layer[layer].moe) layer++;
    if (layer == load->config->layers) return cot_fail(COT_ERR_INVALID, "the model has no MoE layer");
    COT_TRY(frame_create(load, &weights));
    loading_t loading = {.load = load, .weights = weights};
    cot_status_t status = visit_experts(load, &weights->layer[layer], layer, 0, load_one, &loading);
    if (status != COT_OK) {
        worker_weights_destroy(load->ops, load->kern, weights);
        return status;
    }
    *layer_out = layer;
    *weights_out = weights;
    return COT_OK;
}
