#include "worker/load.h"

#include "base/half.h"
#include "base/memory.h"

#include <string.h>

/* ---- one tensor ---- */

static float value_at(const cot_tensor_t *tensor, size_t i)
{
    uint16_t bits;
    float value;
    if (tensor->dtype == COT_DTYPE_F32) {
        memcpy(&value, (const char *)tensor->data + i * sizeof(value), sizeof(value));
        return value;
    }
    memcpy(&bits, (const char *)tensor->data + i * sizeof(bits), sizeof(bits));
    return tensor->dtype == COT_DTYPE_BF16 ? kern_bf16_to_float(bits) : cot_half_to_float(bits);
}

static void convert(const cot_tensor_t *tensor, kern_dtype_t dtype, void *out)
{
    size_t count = tensor->bytes / cot_dtype_bytes(tensor->dtype);
    for (size_t i = 0; i < count; i++) {
        float value = value_at(tensor, i);
        if (dtype == KERN_BF16)
            ((uint16_t *)out)[i] = kern_float_to_bf16(value);
        else
            ((float *)out)[i] = value;
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
    convert(tensor, KERN_F32, copy);
    COT_TRY(keep(weights, copy, bytes));
    *out = copy;
    return COT_OK;
}

/* What a matrix is stored as: BF16 and F32 as they lie, but for F32 where activations are BF16; F16 has no kernel. */
static kern_dtype_t stored_type(const worker_load_t *load, cot_dtype_t dtype)
{
    if (dtype == COT_DTYPE_BF16) return KERN_BF16;
    return load->act;
}

/* Whether the matrix must be written to the store; else it is borrowed from the mapped files. */
static bool is_stored(const worker_load_t *load, cot_dtype_t dtype)
{
    return model_weights_made_up(load->files) || dtype == COT_DTYPE_F16 ||
           (dtype == COT_DTYPE_F32 && load->act == KERN_BF16);
}

/* ---- the list of this node's tensors, in one order on all its workers ---- */

/* A vector, or a matrix; `matrix` is NULL where only other workers of the node have it. */
typedef struct {
    model_role_t role;
    uint32_t layer, expert;
    kern_matrix_t *matrix;
    const float **vector;
    uint32_t writer; /* the worker that writes the matrix to the store, if it is stored */
} wanted_t;

typedef cot_status_t (*visit_t)(void *user, const wanted_t *wanted);

/* Layers that all have are written by the node's workers in turn. */
static uint32_t writer_of_layer(const worker_load_t *load, uint32_t l)
{
    return load->node_workers > 0 ? load->node_worker[l % load->node_workers] : load->worker;
}

static cot_status_t visit_attention(const worker_load_t *load, uint32_t l, kern_attn_weights_t *attn, visit_t visit,
                                    void *user)
{
    const uint32_t writer = writer_of_layer(load, l);
    const wanted_t list[] = {
        {MODEL_INPUT_NORM, l, 0, NULL, &attn->input_norm, writer},
        {MODEL_POST_NORM, l, 0, NULL, &attn->post_norm, writer},
        {MODEL_Q, l, 0, &attn->q, NULL, writer},
        {MODEL_K, l, 0, &attn->k, NULL, writer},
        {MODEL_V, l, 0, &attn->v, NULL, writer},
        {MODEL_O, l, 0, &attn->o, NULL, writer},
        {MODEL_Q_BIAS, l, 0, NULL, &attn->q_bias, writer},
        {MODEL_K_BIAS, l, 0, NULL, &attn->k_bias, writer},
        {MODEL_V_BIAS, l, 0, NULL, &attn->v_bias, writer},
        {MODEL_O_BIAS, l, 0, NULL, &attn->o_bias, writer},
        {MODEL_Q_NORM, l, 0, NULL, &attn->q_norm, writer},
        {MODEL_K_NORM, l, 0, NULL, &attn->k_norm, writer},
    };
    for (size_t i = 0; i < sizeof(list) / sizeof(*list); i++)
        if (model_role_present(load->config, list[i].role, l)) COT_TRY(visit(user, &list[i]));
    return COT_OK;
}

typedef struct {
    model_role_t role[3]; /* gate, up, down */
    uint32_t layer, expert, writer;
    kern_ffn_weights_t *ffn; /* NULL: only others of the node have it */
} wanted_ffn_t;

static cot_status_t visit_ffn(const wanted_ffn_t *wanted, visit_t visit, void *user)
{
    kern_ffn_weights_t *ffn = wanted->ffn;
    kern_matrix_t *matrix[3] = {NULL, NULL, NULL};
    if (ffn != NULL) matrix[0] = &ffn->gate, matrix[1] = &ffn->up, matrix[2] = &ffn->down;
    for (int i = 0; i < 3; i++)
        COT_TRY(visit(user, &(wanted_t){.role = wanted->role[i],
                                        .layer = wanted->layer,
                                        .expert = wanted->expert,
                                        .matrix = matrix[i],
                                        .writer = wanted->writer}));
    return COT_OK;
}

/* The first worker of the node that holds an expert; false: none. */
static bool find_holder(const worker_load_t *load, uint32_t moe_layer, uint32_t expert, uint32_t *worker_out)
{
    for (uint32_t i = 0; i < load->node_workers; i++) {
        *worker_out = load->node_worker[i];
        if (place_plan_slot(load->plan, moe_layer, *worker_out, expert) >= 0) return true;
    }
    *worker_out = load->worker;
    return load->node_workers == 0 && place_plan_slot(load->plan, moe_layer, load->worker, expert) >= 0;
}

static cot_status_t visit_experts(const worker_load_t *load, worker_layer_t *layer, uint32_t l, uint32_t moe_layer,
                                  visit_t visit, void *user)
{
    wanted_ffn_t wanted = {.role = {MODEL_EXPERT_GATE, MODEL_EXPERT_UP, MODEL_EXPERT_DOWN}, .layer = l};
    for (wanted.expert = 0; wanted.expert < load->config->experts; wanted.expert++) {
        if (!find_holder(load, moe_layer, wanted.expert, &wanted.writer)) continue;
        int32_t slot = layer->slot_of[wanted.expert];
        wanted.ffn = slot >= 0 ? &layer->expert[slot] : NULL;
        COT_TRY(visit_ffn(&wanted, visit, user));
    }
    return COT_OK;
}

static cot_status_t visit_layer(const worker_load_t *load, worker_layer_t *layer, uint32_t l, uint32_t moe_layer,
                                visit_t visit, void *user)
{
    const uint32_t writer = writer_of_layer(load, l);
    COT_TRY(visit_attention(load, l, &layer->attn, visit, user));
    if (layer->moe) {
        COT_TRY(visit(user, &(wanted_t){MODEL_ROUTER, l, 0, &layer->router, NULL, writer}));
        COT_TRY(visit_experts(load, layer, l, moe_layer, visit, user));
    }
    if (!layer->has_shared) return COT_OK;
    wanted_ffn_t shared = {.role = {MODEL_SHARED_GATE, MODEL_SHARED_UP, MODEL_SHARED_DOWN},
                           .layer = l,
                           .ffn = &layer->shared,
                           .writer = writer};
    if (!layer->moe)
        shared.role[0] = MODEL_DENSE_GATE, shared.role[1] = MODEL_DENSE_UP, shared.role[2] = MODEL_DENSE_DOWN;
    COT_TRY(visit_ffn(&shared, visit, user));
    if (!layer->moe || !model_role_present(load->config, MODEL_SHARED_ROUTER, l)) return COT_OK;
    return visit(user, &(wanted_t){MODEL_SHARED_ROUTER, l, 0, &layer->shared_router, NULL, writer});
}

static cot_status_t visit_all(const worker_load_t *load, worker_weights_t *weights, visit_t visit, void *user)
{
    COT_TRY(visit(user, &(wanted_t){MODEL_EMBED, 0, 0, &weights->embed, NULL, writer_of_layer(load, 0)}));
    for (uint32_t l = 0, moe_layer = 0; l < weights->layers; l++) {
        COT_TRY(visit_layer(load, &weights->layer[l], l, moe_layer, visit, user));
        moe_layer += weights->layer[l].moe;
    }
    COT_TRY(visit(user, &(wanted_t){MODEL_FINAL_NORM, 0, 0, NULL, (const float **)&weights->final_norm,
                                    writer_of_layer(load, 0)}));
    if (load->config->tie_embeddings) return COT_OK; /* the head is the embedding: see worker_load */
    return visit(user,
                 &(wanted_t){MODEL_LM_HEAD, 0, 0, &weights->lm_head, NULL, writer_of_layer(load, weights->layers)});
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
    worker_store_close(weights->store);
    cot_free(weights->owned);
    cot_free(weights->layer);
    cot_free(weights);
}

/* ---- measuring ---- */

typedef struct {
    const worker_load_t *load;
    worker_load_need_t need;
    uint64_t tensors;
} measure_t;

/* In the store every matrix begins a cache line. */
static uint64_t store_bytes(const worker_load_t *load, const uint64_t shape[2], cot_dtype_t dtype)
{
    return (shape[0] * shape[1] * kern_dtype_bytes(stored_type(load, dtype)) + 63) / 64 * 64;
}

static cot_status_t measure_one(void *user, const wanted_t *wanted)
{
    measure_t *measure = user;
    const worker_load_t *load = measure->load;
    uint64_t shape[2];
    cot_dtype_t dtype;
    COT_TRY(model_weights_shape(load->files, wanted->role, wanted->layer, wanted->expert, shape, &dtype));
    measure->tensors++;
    if (wanted->vector != NULL) measure->need.private_bytes += shape[0] * shape[1] * sizeof(float);
    if (wanted->vector == NULL && is_stored(load, dtype))
        measure->need.store_bytes += store_bytes(load, shape, dtype);
    else
        measure->need.mapped_bytes += shape[0] * shape[1] * cot_dtype_bytes(dtype);
    return COT_OK;
}

cot_status_t worker_load_measure(const worker_load_t *load, worker_load_need_t *need_out)
{
    worker_weights_t *weights = NULL;
    COT_TRY(frame_create(load, &weights));
    measure_t measure = {.load = load};
    cot_status_t status = visit_all(load, weights, measure_one, &measure);
    worker_weights_destroy(load->ops, load->kern, weights);
    COT_TRY(status);
    *need_out = measure.need;
    return COT_OK;
}

/* ---- loading: first what goes into the store, by whoever writes it; then, when all have written, everything ---- */

typedef struct {
    const worker_load_t *load;
    worker_weights_t *weights;
    uint64_t offset; /* in the store */
    uint64_t done, total;
} loading_t;

static void count_done(loading_t *loading)
{
    const worker_load_t *load = loading->load;
    loading->done++;
    if (load->progress != NULL) load->progress(load->user, (float)loading->done / (float)loading->total);
}

static cot_status_t write_one(void *user, const wanted_t *wanted)
{
    loading_t *loading = user;
    const worker_load_t *load = loading->load;
    uint64_t shape[2];
    cot_dtype_t dtype;
    count_done(loading);
    if (wanted->vector != NULL) return COT_OK;
    COT_TRY(model_weights_shape(load->files, wanted->role, wanted->layer, wanted->expert, shape, &dtype));
    if (!is_stored(load, dtype)) return COT_OK;
    void *at = worker_store_at(loading->weights->store, loading->offset);
    loading->offset += store_bytes(load, shape, dtype);
    if (wanted->writer != load->worker) return COT_OK;
    if (model_weights_made_up(load->files)) {
        model_weights_make(load->files, wanted->role, wanted->layer, wanted->expert, at);
        return COT_OK;
    }
    cot_tensor_t tensor;
    COT_TRY(model_weights_get(load->files, wanted->role, wanted->layer, wanted->expert, &tensor));
    convert(&tensor, stored_type(load, dtype), at);
    return COT_OK;
}

static cot_status_t load_matrix(loading_t *loading, const wanted_t *wanted)
{
    const worker_load_t *load = loading->load;
    worker_weights_t *weights = loading->weights;
    uint64_t shape[2];
    cot_dtype_t dtype;
    cot_tensor_t tensor = {0};
    COT_TRY(model_weights_shape(load->files, wanted->role, wanted->layer, wanted->expert, shape, &dtype));
    const kern_dtype_t type = stored_type(load, dtype);
    if (is_stored(load, dtype)) {
        tensor.data = worker_store_at(weights->store, loading->offset);
        loading->offset += store_bytes(load, shape, dtype);
    } else if (wanted->matrix != NULL) {
        COT_TRY(model_weights_get(load->files, wanted->role, wanted->layer, wanted->expert, &tensor));
    }
    if (wanted->matrix == NULL) return COT_OK;
    uint64_t bytes = shape[0] * shape[1] * kern_dtype_bytes(type);
    COT_TRY(load->ops->matrix_create(load->kern, tensor.data, type, (uint32_t)shape[0], (uint32_t)shape[1],
                                     wanted->matrix));
    *(wanted->matrix->owned != NULL ? &weights->copied_bytes : &weights->shared_bytes) += bytes;
    return COT_OK;
}

static cot_status_t load_one(void *user, const wanted_t *wanted)
{
    loading_t *loading = user;
    const worker_load_t *load = loading->load;
    count_done(loading);
    if (wanted->vector == NULL) return load_matrix(loading, wanted);
    cot_tensor_t tensor;
    float *vector = NULL;
    COT_TRY(model_weights_get(load->files, wanted->role, wanted->layer, wanted->expert, &tensor));
    COT_TRY(widened(loading->weights, &tensor, &vector));
    *wanted->vector = vector;
    return COT_OK;
}

/* What is walked: all, or one layer's experts. */
typedef struct {
    const worker_load_t *load;
    worker_weights_t *weights;
    uint32_t layer; /* UINT32_MAX: all */
} walk_t;

static cot_status_t walk(const walk_t *walked, visit_t visit, void *user)
{
    if (walked->layer == UINT32_MAX) return visit_all(walked->load, walked->weights, visit, user);
    return visit_experts(walked->load, &walked->weights->layer[walked->layer], walked->layer, 0, visit, user);
}

static cot_status_t fill_store(const walk_t *walked, loading_t *loading, uint64_t bytes)
{
    const worker_load_t *load = walked->load;
    cot_deadline_t deadline = cot_deadline_in_ms(load->timeout_ms);
    COT_TRY(worker_store_open(load->link, bytes, deadline, &walked->weights->store));
    cot_status_t status = walk(walked, write_one, loading);
    loading->offset = 0;
    return worker_store_seal(walked->weights->store, status, deadline);
}

static cot_status_t load_walked(const walk_t *walked)
{
    measure_t measure = {.load = walked->load};
    cot_status_t status = walk(walked, measure_one, &measure);
    if (status != COT_OK) {
        if (walked->load->link != NULL) worker_store_give_up(walked->load->link);
        return status;
    }
    const bool stores = measure.need.store_bytes > 0;
    loading_t loading = {.load = walked->load, .weights = walked->weights, .total = measure.tensors * (stores ? 2 : 1)};
    if (stores) COT_TRY(fill_store(walked, &loading, measure.need.store_bytes));
    return walk(walked, load_one, &loading);
}

cot_status_t worker_load(const worker_load_t *load, worker_weights_t **weights_out)
{
    worker_weights_t *weights = NULL;
    cot_status_t status = frame_create(load, &weights);
    if (status != COT_OK) {
        if (load->link != NULL) worker_store_give_up(load->link);
        return status;
    }
    status = load_walked(&(walk_t){.load = load, .weights = weights, .layer = UINT32_MAX});
    if (status != COT_OK) {
        worker_weights_destroy(load->ops, load->kern, weights);
        return status;
    }
    if (load->config->tie_embeddings) {
        weights->lm_head = weights->embed;
        weights->lm_head.owned = NULL; /* the embedding's */
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
    cot_status_t status = load_walked(&(walk_t){.load = load, .weights = weights, .layer = layer});
    if (status != COT_OK) {
        worker_weights_destroy(load->ops, load->kern, weights);
        return status;
    }
    *layer_out = layer;
    *weights_out = weights;
    return COT_OK;
}
