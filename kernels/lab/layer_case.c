#include "kernels/lab/layer_case.h"

#include "base/memory.h"

#include <cuda_runtime_api.h>
#include <math.h>
#include <string.h>

#define TRY_CUDA(call)                                                                                         \
    do {                                                                                                       \
        cudaError_t code_ = (call);                                                                            \
        if (code_ != cudaSuccess) return cot_fail(COT_ERR_DEVICE, "%s: %s", #call, cudaGetErrorString(code_)); \
    } while (0)

enum { POOL_WORDS = 1 << 24, MAX_GRAPHS = 32, TIMEOUT_MS = 5000 };

typedef struct {
    kern_attn_weights_t attn;
    kern_matrix_t gate;
    kern_bank_t *bank;
    kern_kv_t kv;
    comm_gpu_place_t *place; /* device [experts] */
} layer_t;

/* What the stages read and write in a step. Device memory. */
typedef struct {
    float *x_in, *x; /* [T, H] */
    void *normed, *q, *attn;
    kern_run_t *run;
    uint32_t *blocks, *row_run;
    int32_t *expert; /* [T, K] */
    float *weight;
    uint32_t *row, *order, *slot_begin;
    void *outputs; /* [ranks, T, K, H]; NULL where the experts store at home themselves */
} buffers_t;

struct lab_stack {
    lab_stack_config_t config;
    kern_t *kern;
    comm_gpu_t *gpu;
    cudaStream_t stream;
    cudaEvent_t begin, end;
    uint16_t *pool; /* host [POOL_WORDS] random bf16 */
    layer_t *layer;
    uint32_t slots; /* experts of this rank */
    buffers_t d;
    uint32_t blocks_each; /* KV blocks of a sequence */
    struct {
        uint32_t bucket, runs, max_run_rows, max_position;
    } step;
    uint32_t rows;
    struct {
        uint32_t bucket, runs, max_run_rows, max_position;
        cudaGraphExec_t exec;
    } graph[MAX_GRAPHS];
    uint32_t graphs;
    size_t bytes;
};

static const kern_ops_t *const OPS = &kern_cuda;

static uint64_t mix(uint64_t z)
{
    z += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* ---- made-up weights: windows of one pool of random values, chosen by name ---- */

/* Nearly normal bf16 of variance 1 / 1024: products over a few thousand inputs stay near 1. */
static void fill_pool(uint16_t *pool)
{
    for (size_t i = 0; i < POOL_WORDS; i++) {
        const uint64_t z = mix(i);
        double sum = 0;
        for (int part = 0; part < 4; part++) sum += (double)((z >> (16 * part)) & 0xffff) / 65536.0 - 0.5;
        pool[i] = kern_float_to_bf16((float)(sum * sqrt(3.0) / 32.0));
    }
}

static const uint16_t *window(const lab_stack_t *stack, uint64_t name, size_t words)
{
    return stack->pool + mix(name * UINT64_C(2654435761)) % (POOL_WORDS - words);
}

static uint64_t name_of(uint32_t layer, uint32_t what, uint32_t expert)
{
    return ((uint64_t)layer << 32) | ((uint64_t)what << 24) | expert;
}

enum { WEIGHT_Q, WEIGHT_K, WEIGHT_V, WEIGHT_O, WEIGHT_ROUTER, WEIGHT_GATE, WEIGHT_UP, WEIGHT_DOWN, INPUT };

static cot_status_t make_matrix(lab_stack_t *stack, uint64_t name, const uint32_t shape[2], kern_matrix_t *matrix_out)
{
    const uint16_t *data = window(stack, name, (size_t)shape[0] * shape[1]);
    stack->bytes += 2 * (size_t)shape[0] * shape[1];
    return OPS->matrix_create(stack->kern, data, KERN_BF16, shape[0], shape[1], matrix_out);
}

/* Norm weights of 1 + a little, on the device. */
static cot_status_t make_norm(lab_stack_t *stack, uint64_t name, uint32_t count, const float **norm_out)
{
    float *host = cot_alloc(count * sizeof(*host)), *device = OPS->alloc(stack->kern, count * sizeof(*device));
    if (host == NULL || device == NULL) {
        cot_free(host);
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for a norm's weights");
    }
    const uint16_t *data = window(stack, name, count);
    for (uint32_t i = 0; i < count; i++) host[i] = 1.0f + kern_bf16_to_float(data[i]);
    cudaError_t code = cudaMemcpy(device, host, count * sizeof(*host), cudaMemcpyHostToDevice);
    cot_free(host);
    TRY_CUDA(code);
    *norm_out = device;
    return COT_OK;
}

/* Contiguous runs of experts over ranks, the ranks in reverse order, or a seeded shuffle of experts. */
static void place_experts(const lab_stack_config_t *config, uint32_t layer, comm_gpu_place_t *place)
{
    uint32_t order[KERN_BANK_MAX_SLOTS], held[COMM_GPU_MAX_RANKS] = {0};
    for (uint32_t e = 0; e < config->experts; e++) order[e] = e;
    for (uint32_t e = config->experts; config->placement == LAB_RANDOM && e > 1; e--) {
        const uint32_t other = (uint32_t)(mix(name_of(layer, 99, e)) % e), kept = order[e - 1];
        order[e - 1] = order[other];
        order[other] = kept;
    }
    for (uint32_t i = 0; i < config->experts; i++) {
        uint32_t rank = (uint32_t)((uint64_t)i * config->ranks / config->experts);
        if (config->placement == LAB_REVERSED) rank = config->ranks - 1 - rank;
        place[order[i]] = (comm_gpu_place_t){.rank = (int16_t)rank, .slot = (int16_t)held[rank]++};
    }
}

static cot_status_t load_experts(lab_stack_t *stack, uint32_t l)
{
    const lab_stack_config_t *config = &stack->config;
    const uint32_t me = comm_rank(config->link) - config->first;
    const size_t words = (size_t)config->width * config->hidden;
    comm_gpu_place_t place[KERN_BANK_MAX_SLOTS];
    layer_t *layer = &stack->layer[l];
    place_experts(config, l, place);
    uint32_t slots = 0;
    for (uint32_t e = 0; e < config->experts; e++) slots += (uint32_t)place[e].rank == me;
    stack->slots = slots;
    COT_TRY(kern_bank_create(stack->kern, slots > 0 ? slots : 1, config->hidden, config->width, &layer->bank));
    stack->bytes += 6 * words * slots;
    for (uint32_t e = 0; e < config->experts; e++) {
        if ((uint32_t)place[e].rank != me) continue;
        const kern_bank_expert_t expert = {.gate = window(stack, name_of(l, WEIGHT_GATE, e), words),
                                           .up = window(stack, name_of(l, WEIGHT_UP, e), words),
                                           .down = window(stack, name_of(l, WEIGHT_DOWN, e), words),
                                           .dtype = KERN_BF16};
        COT_TRY(kern_bank_load(layer->bank, (uint32_t)place[e].slot, &expert));
    }
    const size_t bytes = config->experts * sizeof(*place);
    layer->place = OPS->alloc(stack->kern, bytes);
    if (layer->place == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a placement");
    TRY_CUDA(cudaMemcpy(layer->place, place, bytes, cudaMemcpyHostToDevice));
    return COT_OK;
}

static cot_status_t make_layer(lab_stack_t *stack, uint32_t l)
{
    const lab_stack_config_t *c = &stack->config;
    layer_t *layer = &stack->layer[l];
    kern_attn_weights_t *attn = &layer->attn;
    const uint32_t wide = c->heads * c->head_dim, narrow = c->kv_heads * c->head_dim;
    COT_TRY(make_matrix(stack, name_of(l, WEIGHT_Q, 0), (const uint32_t[2]){wide, c->hidden}, &attn->q));
    COT_TRY(make_matrix(stack, name_of(l, WEIGHT_K, 0), (const uint32_t[2]){narrow, c->hidden}, &attn->k));
    COT_TRY(make_matrix(stack, name_of(l, WEIGHT_V, 0), (const uint32_t[2]){narrow, c->hidden}, &attn->v));
    COT_TRY(make_matrix(stack, name_of(l, WEIGHT_O, 0), (const uint32_t[2]){c->hidden, wide}, &attn->o));
    COT_TRY(make_matrix(stack, name_of(l, WEIGHT_ROUTER, 0), (const uint32_t[2]){c->experts, c->hidden}, &layer->gate));
    COT_TRY(make_norm(stack, name_of(l, 20, 0), c->hidden, &attn->input_norm));
    COT_TRY(make_norm(stack, name_of(l, 21, 0), c->hidden, &attn->post_norm));
    if (c->qk_norm) {
        COT_TRY(make_norm(stack, name_of(l, 22, 0), c->head_dim, &attn->q_norm));
        COT_TRY(make_norm(stack, name_of(l, 23, 0), c->head_dim, &attn->k_norm));
    }
    attn->window = c->window;
    layer->kv.blocks = c->sequences * stack->blocks_each;
    const size_t bytes = layer->kv.blocks * OPS->kv_block_bytes(stack->kern);
    layer->kv.data = OPS->alloc(stack->kern, bytes);
    stack->bytes += bytes;
    if (layer->kv.data == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no GPU memory for %zu bytes of KV", bytes);
    return load_experts(stack, l);
}

/* ---- life ---- */

static cot_status_t take(lab_stack_t *stack, size_t bytes, void *memory_out)
{
    void *memory = OPS->alloc(stack->kern, bytes);
    if (memory == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no GPU memory for %zu bytes of a step", bytes);
    stack->bytes += bytes;
    memcpy(memory_out, &memory, sizeof(memory));
    return COT_OK;
}

static cot_status_t take_buffers(lab_stack_t *stack)
{
    const lab_stack_config_t *c = &stack->config;
    buffers_t *d = &stack->d;
    const size_t rows = c->max_tokens, pairs = rows * c->top_k, all = pairs * c->ranks, act = 2;
    const size_t wide = (size_t)c->heads * c->head_dim;
    COT_TRY(take(stack, rows * c->hidden * sizeof(float), &d->x_in));
    COT_TRY(take(stack, rows * c->hidden * sizeof(float), &d->x));
    COT_TRY(take(stack, rows * c->hidden * act, &d->normed));
    COT_TRY(take(stack, rows * wide * act, &d->q));
    COT_TRY(take(stack, rows * wide * act, &d->attn));
    COT_TRY(take(stack, rows * sizeof(kern_run_t), &d->run));
    COT_TRY(take(stack, (size_t)c->sequences * stack->blocks_each * sizeof(uint32_t), &d->blocks));
    COT_TRY(take(stack, rows * sizeof(uint32_t), &d->row_run));
    COT_TRY(take(stack, pairs * sizeof(int32_t), &d->expert));
    COT_TRY(take(stack, pairs * sizeof(float), &d->weight));
    COT_TRY(take(stack, all * sizeof(uint32_t), &d->row));
    COT_TRY(take(stack, all * sizeof(uint32_t), &d->order));
    COT_TRY(take(stack, (c->experts + 1) * sizeof(uint32_t), &d->slot_begin));
    comm_gpu_buffers_t exchange;
    comm_gpu_buffers(stack->gpu, c->max_tokens, &exchange);
    if (exchange.home_base == NULL) COT_TRY(take(stack, all * c->hidden * act, &d->outputs));

    /* Row of an assignment, and the KV blocks of the sequences: both never change. */
    const size_t blocks = (size_t)c->sequences * stack->blocks_each;
    uint32_t *host = cot_alloc((all > blocks ? all : blocks) * sizeof(*host));
    if (host == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory");
    for (size_t a = 0; a < all; a++) host[a] = (uint32_t)(a / c->top_k);
    cudaError_t code = cudaMemcpy(d->row, host, all * sizeof(*host), cudaMemcpyHostToDevice);
    /* Scattered, as a running server's are. */
    for (size_t b = 0; b < blocks; b++) host[b] = (uint32_t)((b * 7919) % blocks);
    for (size_t b = 0; blocks % 7919 == 0 && b < blocks; b++) host[b] = (uint32_t)b;
    if (code == cudaSuccess) code = cudaMemcpy(d->blocks, host, blocks * sizeof(*host), cudaMemcpyHostToDevice);
    cot_free(host);
    TRY_CUDA(code);
    return COT_OK;
}

static cot_status_t make_exchange(lab_stack_t *stack)
{
    const lab_stack_config_t *c = &stack->config;
    return comm_gpu_create(&(comm_gpu_config_t){.link = c->link,
                                                .first = c->first,
                                                .ranks = c->ranks,
                                                .device = c->device,
                                                .transport = c->transport,
                                                .row_bytes = 2 * c->hidden,
                                                .max_tokens = c->max_tokens,
                                                .top_k = c->top_k,
                                                .experts = c->experts,
                                                .timeout_ms = TIMEOUT_MS},
                           &stack->gpu);
}

static cot_status_t build(lab_stack_t *stack)
{
    const lab_stack_config_t *c = &stack->config;
    TRY_CUDA(cudaSetDevice(c->device));
    TRY_CUDA(cudaStreamCreateWithFlags(&stack->stream, cudaStreamNonBlocking));
    TRY_CUDA(cudaEventCreate(&stack->begin));
    TRY_CUDA(cudaEventCreate(&stack->end));
    const kern_config_t config = {.act = KERN_BF16,
                                  .stream = stack->stream,
                                  .device = c->device,
                                  .hidden = c->hidden,
                                  .heads = c->heads,
                                  .kv_heads = c->kv_heads,
                                  .head_dim = c->head_dim,
                                  .vocab = 256,
                                  .experts = c->experts,
                                  .top_k = c->top_k,
                                  .max_width = c->width,
                                  .max_rows = c->max_tokens,
                                  .max_assignments = c->max_tokens * c->top_k * c->ranks,
                                  .max_context = c->context,
                                  .norm_eps = c->norm_eps,
                                  .norm_topk = c->norm_topk,
                                  .qk_norm = c->qk_norm ? KERN_QK_NORM_HEAD : KERN_QK_NORM_NONE,
                                  .inv_freq = c->inv_freq,
                                  .rope_factor = 1};
    COT_TRY(OPS->create(&config, &stack->kern));
    COT_TRY(make_exchange(stack));
    COT_TRY(take_buffers(stack));
    for (uint32_t l = 0; l < c->layers; l++) COT_TRY(make_layer(stack, l));
    return COT_OK;
}

cot_status_t lab_stack_create(const lab_stack_config_t *config, lab_stack_t **stack_out)
{
    if (config->experts > KERN_BANK_MAX_SLOTS)
        return cot_fail(COT_ERR_UNSUPPORTED, "the lab stacks at most %d experts", KERN_BANK_MAX_SLOTS);
    lab_stack_t *stack = cot_calloc(1, sizeof(*stack));
    if (stack == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a stack of layers");
    stack->config = *config;
    stack->blocks_each = (config->context + KERN_KV_BLOCK - 1) / KERN_KV_BLOCK;
    stack->pool = cot_alloc(POOL_WORDS * sizeof(*stack->pool));
    stack->layer = cot_calloc(config->layers, sizeof(*stack->layer));
    cot_status_t status = COT_OK;
    if (stack->pool == NULL || stack->layer == NULL)
        status = cot_fail(COT_ERR_NO_MEMORY, "no memory for a stack of layers");
    if (status == COT_OK) {
        fill_pool(stack->pool);
        status = build(stack);
    }
    if (status != COT_OK) {
        lab_stack_destroy(stack);
        return status;
    }
    *stack_out = stack;
    return COT_OK;
}

static void free_layer(lab_stack_t *stack, layer_t *layer)
{
    kern_matrix_t *matrices[] = {&layer->attn.q, &layer->attn.k, &layer->attn.v, &layer->attn.o, &layer->gate};
    const void *memory[] = {layer->attn.input_norm, layer->attn.post_norm, layer->attn.q_norm,
                            layer->attn.k_norm,     layer->kv.data,        layer->place};
    for (size_t i = 0; i < sizeof(matrices) / sizeof(*matrices); i++)
        if (matrices[i]->data != NULL) OPS->matrix_destroy(stack->kern, matrices[i]);
    for (size_t i = 0; i < sizeof(memory) / sizeof(*memory); i++) OPS->free(stack->kern, (void *)(uintptr_t)memory[i]);
    kern_bank_destroy(layer->bank);
}

void lab_stack_forget_graphs(lab_stack_t *stack)
{
    for (uint32_t i = 0; i < stack->graphs; i++) (void)cudaGraphExecDestroy(stack->graph[i].exec);
    stack->graphs = 0;
}

void lab_stack_destroy(lab_stack_t *stack)
{
    if (stack == NULL) return;
    lab_stack_forget_graphs(stack);
    if (stack->kern != NULL) {
        for (uint32_t l = 0; stack->layer != NULL && l < stack->config.layers; l++) free_layer(stack, &stack->layer[l]);
        buffers_t *d = &stack->d;
        void *memory[] = {d->x_in,    d->x,      d->normed, d->q,   d->attn,  d->run,        d->blocks,
                          d->row_run, d->expert, d->weight, d->row, d->order, d->slot_begin, d->outputs};
        for (size_t i = 0; i < sizeof(memory) / sizeof(*memory); i++) OPS->free(stack->kern, memory[i]);
        comm_gpu_destroy(stack->gpu);
        OPS->destroy(stack->kern);
    }
    if (stack->begin != NULL) (void)cudaEventDestroy(stack->begin);
    if (stack->end != NULL) (void)cudaEventDestroy(stack->end);
    if (stack->stream != NULL) (void)cudaStreamDestroy(stack->stream);
    cot_free(stack->layer);
    cot_free(stack->pool);
    cot_free(stack);
}

kern_t *lab_stack_kern(lab_stack_t *stack)
{
    return stack->kern;
}

const char *lab_stack_transport(const lab_stack_t *stack)
{
    return comm_gpu_transport(stack->gpu);
}

size_t lab_stack_bytes(const lab_stack_t *stack)
{
    return stack->bytes;
}

/* ---- a step ---- */

void lab_stack_input(const lab_stack_t *stack, uint32_t name, uint32_t position, float *x)
{
    const uint16_t *data = window(stack, ((uint64_t)INPUT << 60) ^ ((uint64_t)name << 24) ^ position,
                                  stack->config.hidden);
    for (uint32_t i = 0; i < stack->config.hidden; i++) x[i] = 32 * kern_bf16_to_float(data[i]);
}

cot_status_t lab_stack_prepare(lab_stack_t *stack, const lab_step_t *step, const float *x)
{
    const uint32_t bucket = step->bucket;
    kern_run_t *run = cot_calloc(bucket, sizeof(*run));
    uint32_t *row_run = cot_alloc(bucket * sizeof(*row_run));
    cot_status_t status = COT_OK;
    if (run == NULL || row_run == NULL) status = cot_fail(COT_ERR_NO_MEMORY, "no memory for a step");
    uint32_t rows = 0, most = 1, position = 1;
    for (uint32_t s = 0; status == COT_OK && s < step->spans; s++) {
        const lab_span_t *span = &step->span[s];
        if (rows + span->rows > bucket || span->sequence >= stack->config.sequences) {
            status = cot_fail(COT_ERR_INVALID, "%u rows do not fit a bucket of %u", rows + span->rows, bucket);
            break;
        }
        run[s] = (kern_run_t){.row = rows,
                              .rows = span->rows,
                              .position = span->position,
                              .blocks = stack->d.blocks + (size_t)span->sequence * stack->blocks_each};
        for (uint32_t i = 0; i < span->rows; i++) row_run[rows++] = s;
        if (span->rows > most) most = span->rows;
        if (span->position + span->rows > position) position = span->position + span->rows;
    }
    for (uint32_t i = rows; status == COT_OK && i < bucket; i++) row_run[i] = KERN_NO_RUN;
    cudaError_t code = cudaSuccess;
    if (status == COT_OK) {
        const size_t x_bytes = (size_t)rows * stack->config.hidden * sizeof(float);
        code = cudaMemcpyAsync(stack->d.run, run, bucket * sizeof(*run), cudaMemcpyHostToDevice, stack->stream);
        if (code == cudaSuccess)
            code = cudaMemcpyAsync(stack->d.row_run, row_run, bucket * sizeof(*row_run), cudaMemcpyHostToDevice,
                                   stack->stream);
        if (code == cudaSuccess && x_bytes > 0)
            code = cudaMemcpyAsync(stack->d.x_in, x, x_bytes, cudaMemcpyHostToDevice, stack->stream);
        if (code == cudaSuccess) code = cudaStreamSynchronize(stack->stream);
        stack->rows = rows;
        stack->step.bucket = bucket;
        stack->step.runs = step->spans > 0 ? step->spans : 1;
        stack->step.max_run_rows = most;
        stack->step.max_position = position;
    }
    cot_free(run);
    cot_free(row_run);
    COT_TRY(status);
    TRY_CUDA(code);
    return COT_OK;
}

static cot_status_t attend(lab_stack_t *stack, layer_t *layer, bool normed)
{
    buffers_t *d = &stack->d;
    const uint32_t rows = stack->step.bucket, runs = stack->step.runs;
    comm_gpu_buffers_t exchange;
    comm_gpu_buffers(stack->gpu, rows, &exchange);
    COT_TRY(OPS->attn_in(stack->kern, &(kern_attn_in_args_t){.weights = &layer->attn,
                                                             .rows = rows,
                                                             .runs = runs,
                                                             .run = d->run,
                                                             .row_run = d->row_run,
                                                             .max_run_rows = stack->step.max_run_rows,
                                                             .max_position = stack->step.max_position,
                                                             .x = d->x,
                                                             .normed = normed ? d->normed : NULL,
                                                             .q = d->q,
                                                             .kv = &layer->kv}));
    COT_TRY(OPS->attention(stack->kern, &(kern_attention_args_t){.weights = &layer->attn,
                                                                 .rows = rows,
                                                                 .runs = runs,
                                                                 .run = d->run,
                                                                 .row_run = d->row_run,
                                                                 .max_run_rows = stack->step.max_run_rows,
                                                                 .max_position = stack->step.max_position,
                                                                 .q = d->q,
                                                                 .kv = &layer->kv,
                                                                 .out = d->attn}));
    return OPS->attn_out(
        stack->kern,
        &(kern_attn_out_args_t){
            .weights = &layer->attn, .rows = rows, .attn = d->attn, .x = d->x, .normed = exchange.own_rows});
}

static cot_status_t send_and_compute(lab_stack_t *stack, uint32_t l, const comm_gpu_buffers_t *exchange)
{
    const lab_stack_config_t *c = &stack->config;
    buffers_t *d = &stack->d;
    layer_t *layer = &stack->layer[l];
    const uint32_t tokens = stack->step.bucket, all = tokens * c->top_k * c->ranks;
    COT_TRY(comm_gpu_dispatch(stack->gpu, &(comm_gpu_dispatch_args_t){.stream = stack->stream,
                                                                      .tokens = tokens,
                                                                      .layer = l,
                                                                      .rows = exchange->own_rows,
                                                                      .expert = d->expert,
                                                                      .place = layer->place}));
    COT_TRY(OPS->sort(stack->kern, &(kern_sort_args_t){.assignments = all,
                                                       .slots = stack->slots,
                                                       .slot = exchange->slots,
                                                       .order = d->order,
                                                       .slot_begin = d->slot_begin}));
    COT_TRY(OPS->experts(stack->kern, &(kern_experts_args_t){.bank = layer->bank,
                                                             .slots = stack->slots,
                                                             .assignments = all,
                                                             .x = exchange->rows,
                                                             .row = d->row,
                                                             .order = d->order,
                                                             .slot_begin = d->slot_begin,
                                                             .y = d->outputs,
                                                             .y_base = exchange->home_base,
                                                             .per_base = tokens * c->top_k}));
    return comm_gpu_return(stack->gpu, &(comm_gpu_return_args_t){.stream = stack->stream,
                                                                 .tokens = tokens,
                                                                 .layer = l,
                                                                 .outputs = d->outputs,
                                                                 .expert = d->expert,
                                                                 .place = layer->place});
}

static cot_status_t run_layer(lab_stack_t *stack, uint32_t l)
{
    buffers_t *d = &stack->d;
    const uint32_t rows = stack->step.bucket;
    const bool last = l + 1 == stack->config.layers;
    comm_gpu_buffers_t exchange;
    comm_gpu_buffers(stack->gpu, rows, &exchange);
    COT_TRY(attend(stack, &stack->layer[l], l > 0));
    COT_TRY(OPS->route(stack->kern, &(kern_route_args_t){.gate = &stack->layer[l].gate,
                                                         .rows = rows,
                                                         .row_run = d->row_run,
                                                         .normed = exchange.own_rows,
                                                         .expert = d->expert,
                                                         .weight = d->weight}));
    COT_TRY(send_and_compute(stack, l, &exchange));
    return OPS->combine(stack->kern,
                        &(kern_combine_args_t){.rows = rows,
                                               .top_k = stack->config.top_k,
                                               .weight = d->weight,
                                               .y = exchange.home,
                                               .x = d->x,
                                               .next_norm = last ? NULL : stack->layer[l + 1].attn.input_norm,
                                               .next_normed = last ? NULL : d->normed});
}

static cot_status_t enqueue(lab_stack_t *stack)
{
    const size_t bytes = (size_t)stack->step.bucket * stack->config.hidden * sizeof(float);
    TRY_CUDA(cudaMemcpyAsync(stack->d.x, stack->d.x_in, bytes, cudaMemcpyDeviceToDevice, stack->stream));
    for (uint32_t l = 0; l < stack->config.layers; l++) COT_TRY(run_layer(stack, l));
    return COT_OK;
}

/* The graph of the step's shape: captured once, then replayed with whatever lies in the buffers. */
static cot_status_t graph_of_step(lab_stack_t *stack, cudaGraphExec_t *exec_out)
{
    for (uint32_t i = 0; i < stack->graphs; i++)
        if (memcmp(&stack->graph[i], &stack->step, sizeof(stack->step)) == 0) {
            *exec_out = stack->graph[i].exec;
            return COT_OK;
        }
    if (stack->graphs == MAX_GRAPHS) lab_stack_forget_graphs(stack);
    cudaGraph_t graph;
    TRY_CUDA(cudaStreamBeginCapture(stack->stream, cudaStreamCaptureModeThreadLocal));
    cot_status_t status = enqueue(stack);
    cudaError_t code = cudaStreamEndCapture(stack->stream, &graph);
    COT_TRY(status);
    TRY_CUDA(code);
    code = cudaGraphInstantiate(exec_out, graph, 0);
    (void)cudaGraphDestroy(graph);
    TRY_CUDA(code);
    memcpy(&stack->graph[stack->graphs], &stack->step, sizeof(stack->step));
    stack->graph[stack->graphs++].exec = *exec_out;
    return COT_OK;
}

cot_status_t lab_stack_run(lab_stack_t *stack, bool graph)
{
    cudaGraphExec_t exec = NULL;
    if (graph) COT_TRY(graph_of_step(stack, &exec));
    TRY_CUDA(cudaEventRecord(stack->begin, stack->stream));
    if (graph)
        TRY_CUDA(cudaGraphLaunch(exec, stack->stream));
    else
        COT_TRY(enqueue(stack));
    TRY_CUDA(cudaEventRecord(stack->end, stack->stream));
    return COT_OK;
}

cot_status_t lab_stack_wait(lab_stack_t *stack, uint64_t step)
{
    return comm_gpu_wait(stack->gpu, stack->stream, step);
}

cot_status_t lab_stack_fetch(lab_stack_t *stack, float *x_out)
{
    const size_t bytes = (size_t)stack->rows * stack->config.hidden * sizeof(float);
    if (bytes > 0) TRY_CUDA(cudaMemcpy(x_out, stack->d.x, bytes, cudaMemcpyDeviceToHost));
    return COT_OK;
}

cot_status_t lab_stack_elapsed(lab_stack_t *stack, float *ms_out)
{
    TRY_CUDA(cudaEventElapsedTime(ms_out, stack->begin, stack->end));
    return COT_OK;
}

cot_status_t lab_stack_fill_kv(lab_stack_t *stack, uint32_t seed)
{
    const size_t pool_bytes = POOL_WORDS * sizeof(*stack->pool);
    for (uint32_t l = 0; l < stack->config.layers; l++) {
        const size_t bytes = stack->layer[l].kv.blocks * OPS->kv_block_bytes(stack->kern);
        for (size_t at = 0; at < bytes;) {
            const size_t skip = mix(seed + l * 1000 + at) % (pool_bytes / 2) / 16 * 16;
            const size_t part = bytes - at < pool_bytes / 2 ? bytes - at : pool_bytes / 2;
            TRY_CUDA(cudaMemcpy((uint8_t *)stack->layer[l].kv.data + at, (const uint8_t *)stack->pool + skip, part,
                                cudaMemcpyHostToDevice));
            at += part;
        }
    }
    return COT_OK;
}
