#include "worker/meter.h"

#include "base/memory.h"
#include "proto/measure.h"
#include "worker/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    REPEATS = 7,
    CHUNK_BYTES = 256 << 10, /* of bulk messages: about what an exchange sends to a peer */
    WINDOW = 16,             /* bulk messages under way */
    COPY_BYTES = 32 << 20,
    ROWS_MAX = 256, /* for one expert */
};

struct worker_meter {
    comm_link_t *link;
    cot_settings_t *settings;
    cot_pool_t *pool;
    place_plan_t *plan;
    model_weights_t *files;
    worker_model_t model;
    worker_weights_t *weights;
    const worker_layer_t *layer; /* the one whose experts are here */
    int64_t timeout_ms;          /* of one measurement */

    void *x, *y; /* [ROWS_MAX, hidden] and [max_assignments, hidden] */
    uint32_t *row, *order, *slot_begin;
    int32_t *slot;
    uint8_t *from, *to; /* [COPY_BYTES] each; `from` is also what is sent */
};

/* ---- life ---- */

static cot_status_t open_model(worker_meter_t *meter, const rpc_setup_t *setup)
{
    worker_model_t *model = &meter->model;
    const char *directory = cot_settings_argument(meter->settings, 0);
    uint32_t layer_index[MODEL_MAX_LAYERS], layers = 0;
    COT_TRY(model_config_load(directory, &model->config));
    for (uint32_t l = 0; l < model->config.layers; l++)
        if (model->config.layer[l].moe) layer_index[layers++] = l;
    model->act = worker_activation_type(meter->settings, &model->config);
    model->worker = comm_rank(meter->link) - 1;
    model->workers = comm_ranks(meter->link) - 1;
    COT_TRY(place_plan_contiguous(layers, layer_index, model->config.experts, model->workers, &meter->plan));
    model->max_slots = meter->plan->slot_begin[model->worker + 1] - meter->plan->slot_begin[model->worker];
    model->max_rows = ROWS_MAX;
    model->max_context = KERN_KV_BLOCK;
    model->max_assignments = ROWS_MAX * (model->max_slots > 0 ? model->max_slots : 1);
    COT_TRY(worker_kernels_start(meter->link, meter->settings, setup->isa, model, &meter->pool));
    if (strcmp(cot_settings_string(meter->settings, COT_SET_LOAD_FORMAT), "dummy") == 0)
        return model_weights_dummy(&model->config, 0, &meter->files);
    return model_weights_open(directory, &model->config, &meter->files);
}

/* Values from -1 to 1 that differ: no product is 0 and none is denormal. */
static void fill_rows(const worker_model_t *model, void *x)
{
    uint32_t state = 1;
    for (size_t i = 0; i < (size_t)ROWS_MAX * model->config.hidden; i++) {
        state = state * 1664525U + 1013904223U;
        float value = (float)(int32_t)(state | 1) / 2147483648.0F;
        if (model->act == KERN_F32)
            ((float *)x)[i] = value;
        else
            ((uint16_t *)x)[i] = kern_float_to_bf16(value);
    }
}

static cot_status_t take_buffers(worker_meter_t *meter)
{
    const worker_model_t *model = &meter->model;
    size_t row_bytes = model->config.hidden * kern_dtype_bytes(model->act), pairs = model->max_assignments;
    struct {
        void **buffer;
        size_t bytes;
    } wanted[] = {
        {&meter->x, ROWS_MAX * row_bytes},
        {&meter->y, pairs * row_bytes},
        {(void **)&meter->row, pairs * sizeof(uint32_t)},
        {(void **)&meter->order, pairs * sizeof(uint32_t)},
        {(void **)&meter->slot, pairs * sizeof(int32_t)},
        {(void **)&meter->slot_begin, ((size_t)model->max_slots + 1) * sizeof(uint32_t)},
        {(void **)&meter->from, COPY_BYTES},
        {(void **)&meter->to, COPY_BYTES},
    };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
        *wanted[i].buffer = model->ops->alloc(model->kern, wanted[i].bytes);
        if (*wanted[i].buffer == NULL)
            return cot_fail(COT_ERR_NO_MEMORY, "no memory to measure with (%zu bytes)", wanted[i].bytes);
    }
    fill_rows(model, meter->x);
    return COT_OK;
}

static cot_status_t open_meter(worker_meter_t *meter, const rpc_setup_t *setup)
{
    COT_TRY(cot_settings_unpack(setup->settings, setup->settings_bytes, &meter->settings));
    meter->timeout_ms = cot_settings_int(meter->settings, COT_SET_STEP_TIMEOUT);
    COT_TRY(open_model(meter, setup));
    COT_TRY(take_buffers(meter));
    uint32_t layer = 0;
    COT_TRY(worker_load_first_experts(&(worker_load_t){.ops = meter->model.ops,
                                                       .kern = meter->model.kern,
                                                       .config = &meter->model.config,
                                                       .files = meter->files,
                                                       .plan = meter->plan,
                                                       .worker = meter->model.worker,
                                                       .act = meter->model.act},
                                      &layer, &meter->weights));
    meter->layer = &meter->weights->layer[layer];
    return COT_OK;
}

cot_status_t worker_meter_create(comm_link_t *link, const rpc_setup_t *setup, worker_meter_t **meter_out)
{
    worker_meter_t *meter = cot_calloc(1, sizeof(*meter));
    if (meter == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory to measure with");
    meter->link = link;
    cot_status_t status = open_meter(meter, setup);
    if (status != COT_OK) {
        worker_meter_destroy(meter);
        return status;
    }
    *meter_out = meter;
    return COT_OK;
}

void worker_meter_destroy(worker_meter_t *meter)
{
    if (meter == NULL) return;
    const worker_model_t *model = &meter->model;
    if (model->kern != NULL) {
        void *buffers[] = {meter->x,    meter->y,          meter->row,  meter->order,
                           meter->slot, meter->slot_begin, meter->from, meter->to};
        for (size_t i = 0; i < sizeof(buffers) / sizeof(*buffers); i++) model->ops->free(model->kern, buffers[i]);
        worker_weights_destroy(model->ops, model->kern, meter->weights);
        model->ops->destroy(model->kern);
    }
    model_weights_close(meter->files);
    place_plan_destroy(meter->plan);
    cot_pool_destroy(meter->pool);
    cot_settings_destroy(meter->settings);
    cot_free(meter);
}

/* ---- one measurement each ---- */

static int compare_ns(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

/* The middle one; at least 1 ns. */
static int64_t median(int64_t *ns, size_t count)
{
    qsort(ns, count, sizeof(*ns), compare_ns);
    return ns[count / 2] > 0 ? ns[count / 2] : 1;
}

/* The stage as a step runs it: sort, then experts, over rows whose assignments alternate between the experts. */
static cot_status_t run_stage(worker_meter_t *meter, uint32_t assignments)
{
    const worker_model_t *model = &meter->model;
    COT_TRY(model->ops->sort(model->kern, &(kern_sort_args_t){.assignments = assignments,
                                                              .slots = meter->layer->slots,
                                                              .slot = meter->slot,
                                                              .order = meter->order,
                                                              .slot_begin = meter->slot_begin}));
    return model->ops->experts(model->kern, &(kern_experts_args_t){.expert = meter->layer->expert,
                                                                   .slots = meter->layer->slots,
                                                                   .assignments = assignments,
                                                                   .x = meter->x,
                                                                   .row = meter->row,
                                                                   .order = meter->order,
                                                                   .slot_begin = meter->slot_begin,
                                                                   .y = meter->y});
}

static cot_status_t measure_experts(worker_meter_t *meter, const rpc_measure_t *order, rpc_measured_t *measured)
{
    uint32_t slots = meter->layer->slots;
    int64_t ns[REPEATS];
    if (slots == 0) return COT_OK; /* more workers than experts: nothing to say */
    if (order->amount == 0 || order->amount > ROWS_MAX)
        return cot_fail(COT_ERR_PROTOCOL, "%llu rows for an expert: from 1 to %d can be measured",
                        (unsigned long long)order->amount, ROWS_MAX);
    uint32_t assignments = slots * (uint32_t)order->amount;
    for (uint32_t a = 0; a < assignments; a++) {
        meter->slot[a] = (int32_t)(a % slots);
        meter->row[a] = a / slots;
    }
    COT_TRY(run_stage(meter, assignments)); /* brings the weights in */
    for (int i = 0; i < REPEATS; i++) {
        int64_t began_ns = cot_now_ns();
        COT_TRY(run_stage(meter, assignments));
        ns[i] = cot_now_ns() - began_ns;
    }
    measured->units = assignments;
    measured->ns = median(ns, REPEATS);
    return COT_OK;
}

static cot_status_t measure_copy(worker_meter_t *meter, const rpc_measure_t *order, rpc_measured_t *measured)
{
    int64_t ns[REPEATS];
    if (order->amount == 0 || order->amount > COPY_BYTES)
        return cot_fail(COT_ERR_PROTOCOL, "%llu bytes to copy: at most %d can be", (unsigned long long)order->amount,
                        COPY_BYTES);
    for (int i = 0; i < REPEATS; i++) {
        int64_t began_ns = cot_now_ns();
        memcpy(meter->to, meter->from, order->amount);
        ns[i] = cot_now_ns() - began_ns;
        meter->from[i] = (uint8_t)(meter->to[i] + 1); /* so that no copy can be left out */
    }
    measured->units = order->amount;
    measured->ns = median(ns, REPEATS);
    return COT_OK;
}

static cot_status_t answer_pings(worker_meter_t *meter, const rpc_measure_t *order, cot_deadline_t deadline)
{
    for (uint64_t i = 0; i < order->amount; i++) {
        comm_message_t message;
        COT_TRY(comm_receive(meter->link, order->from, COMM_TAG_COUNTS, deadline, "a ping", &message));
        COT_TRY(comm_send(meter->link, order->from, COMM_TAG_COUNTS, message.bytes, message.count));
    }
    return comm_flush(meter->link, deadline);
}

static cot_status_t measure_latency(worker_meter_t *meter, const rpc_measure_t *order, rpc_measured_t *measured)
{
    cot_deadline_t deadline = cot_deadline_in_ms(meter->timeout_ms);
    if (order->to == RPC_MEASURE_NOBODY) return answer_pings(meter, order, deadline);
    int64_t *ns = cot_calloc(order->amount, sizeof(*ns));
    if (ns == NULL || order->amount == 0)
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for %llu pings", (unsigned long long)order->amount);
    cot_status_t status = COT_OK;
    for (uint64_t i = 0; i < order->amount && status == COT_OK; i++) {
        comm_message_t message;
        int64_t began_ns = cot_now_ns();
        status = comm_send(meter->link, order->to, COMM_TAG_COUNTS, &i, sizeof(i));
        if (status == COT_OK)
            status = comm_receive(meter->link, order->to, COMM_TAG_COUNTS, deadline, "an answer to a ping", &message);
        ns[i] = cot_now_ns() - began_ns;
    }
    if (status == COT_OK) {
        measured->units = 1;
        measured->ns = median(ns, order->amount);
    }
    cot_free(ns);
    return status;
}

/* A bulk transfer each way, in chunks. The receiver grants one chunk at a time, WINDOW of them at first. */
typedef struct {
    const rpc_measure_t *order;
    uint64_t chunks, sent, received, granted; /* chunks that we may send, and did; that came; grants that we gave */
    uint64_t grants;                          /* that came */
    int64_t began_ns, ended_ns;               /* of receiving */
} transfer_t;

static cot_status_t grant(worker_meter_t *meter, transfer_t *transfer)
{
    while (transfer->granted < transfer->chunks && transfer->granted < transfer->received + WINDOW) {
        COT_TRY(comm_send(meter->link, transfer->order->from, COMM_TAG_ROWS, "", 1));
        transfer->granted++;
    }
    return COT_OK;
}

static cot_status_t move_chunks(worker_meter_t *meter, transfer_t *transfer, bool *moved)
{
    comm_message_t message;
    bool found = false;
    COT_TRY(comm_poll(meter->link, COMM_TAG_ROWS, &message, &found));
    if (found) transfer->grants++;
    *moved = found;
    if (transfer->sent < transfer->grants) {
        COT_TRY(comm_send(meter->link, transfer->order->to, COMM_TAG_RETURN, meter->from, CHUNK_BYTES));
        transfer->sent++;
        *moved = true;
    }
    COT_TRY(comm_poll(meter->link, COMM_TAG_RETURN, &message, &found));
    if (!found) return COT_OK;
    *moved = true;
    if (++transfer->received == transfer->chunks) transfer->ended_ns = cot_now_ns();
    return grant(meter, transfer);
}

static cot_status_t measure_rate(worker_meter_t *meter, const rpc_measure_t *order, rpc_measured_t *measured)
{
    transfer_t transfer = {.order = order, .chunks = (order->amount + CHUNK_BYTES - 1) / CHUNK_BYTES};
    bool sends = order->to != RPC_MEASURE_NOBODY, receives = order->from != RPC_MEASURE_NOBODY;
    cot_deadline_t deadline = cot_deadline_in_ms(meter->timeout_ms);
    cot_backoff_t backoff = {0};
    transfer.began_ns = cot_now_ns();
    if (receives) COT_TRY(grant(meter, &transfer));
    while ((sends && transfer.sent < transfer.chunks) || (receives && transfer.received < transfer.chunks)) {
        bool moved = false;
        COT_TRY(move_chunks(meter, &transfer, &moved));
        if (cot_deadline_passed(deadline))
            return cot_fail(COT_ERR_TIMEOUT, "rank %u: %llu of %llu bytes came within %lld ms", comm_rank(meter->link),
                            (unsigned long long)(transfer.received * CHUNK_BYTES), (unsigned long long)order->amount,
                            (long long)meter->timeout_ms);
        if (moved)
            cot_backoff_reset(&backoff);
        else
            cot_backoff_wait(&backoff);
    }
    COT_TRY(comm_flush(meter->link, deadline));
    if (!receives) return COT_OK;
    measured->units = transfer.chunks * CHUNK_BYTES;
    measured->ns = transfer.ended_ns > transfer.began_ns ? transfer.ended_ns - transfer.began_ns : 1;
    return COT_OK;
}

/* ---- orders ---- */

static bool is_worker(const comm_link_t *link, uint32_t rank)
{
    return rank > 0 && rank < comm_ranks(link) && rank != comm_rank(link);
}

static cot_status_t carry_out(worker_meter_t *meter, const rpc_measure_t *order, rpc_measured_t *measured)
{
    bool to = order->to != RPC_MEASURE_NOBODY, from = order->from != RPC_MEASURE_NOBODY;
    if ((to && !is_worker(meter->link, order->to)) || (from && !is_worker(meter->link, order->from)))
        return cot_fail(COT_ERR_PROTOCOL, "a measurement between ranks %u and %u", order->from, order->to);
    switch (order->kind) {
    case RPC_MEASURE_EXPERTS: return measure_experts(meter, order, measured);
    case RPC_MEASURE_COPY: return measure_copy(meter, order, measured);
    case RPC_MEASURE_LATENCY:
        if (to != from) return measure_latency(meter, order, measured);
        return cot_fail(COT_ERR_PROTOCOL, "a latency has one end that asks and one that answers");
    default: return measure_rate(meter, order, measured);
    }
}

static cot_status_t take_order(comm_link_t *link, worker_meter_t *meter, const comm_message_t *message, bool *stop_out)
{
    rpc_step_t step;
    if (rpc_step_decode(message->bytes, message->count, &step) == COT_OK && step.header.kind == RPC_STEP_STOP) {
        *stop_out = true;
        return COT_OK;
    }
    rpc_measure_t order;
    COT_TRY(rpc_measure_decode(message->bytes, message->count, &order));
    if (meter == NULL) return cot_fail(COT_ERR_PROTOCOL, "an order came to a worker that failed to start");
    rpc_measured_t measured;
    memset(&measured, 0, sizeof(measured)); /* the padding crosses the wire */
    measured.magic = RPC_STEP_MAGIC;
    measured.version = RPC_STEP_VERSION;
    measured.rank = comm_rank(link);
    cot_status_t status = carry_out(meter, &order, &measured);
    measured.status = (uint32_t)-status;
    if (status != COT_OK) snprintf(measured.text, sizeof(measured.text), "%s", cot_error_text());
    return comm_send(link, 0, COMM_TAG_RESULT, &measured, sizeof(measured));
}

cot_status_t worker_meter_run(comm_link_t *link, worker_meter_t *meter)
{
    cot_backoff_t backoff = {0};
    bool stop = false;
    while (!stop) {
        comm_message_t message;
        bool found = false;
        COT_TRY(comm_poll(link, COMM_TAG_STEP, &message, &found));
        if (!found) {
            cot_backoff_wait(&backoff);
            continue;
        }
        COT_TRY(take_order(link, meter, &message, &stop));
        cot_backoff_reset(&backoff);
    }
    return COT_OK;
}
