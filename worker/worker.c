#include "worker/worker.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/settings.h"
#include "base/threads.h"
#include "kernels/kern.h"
#include "proto/step.h"
#include "worker/ep.h"
#include "worker/kernels.h"
#include "worker/memory.h"
#include "worker/meter.h"
#include "worker/model.h"
#include "worker/step.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    comm_link_t *link;
    cot_settings_t *settings;
    cot_pool_t *pool;
    place_plan_t *plan;
    model_weights_t *files;
    worker_model_t model;
    worker_ep_t *ep;
    worker_stepper_t *stepper;
    uint32_t threads;
    worker_need_t need;
    uint32_t *node_worker; /* [need.node_workers] */
    bool shares;           /* the node's other workers have heard of us, or will */
    int64_t progress_sent_ns;
} worker_t;

/* ---- what rank 0 hears while we start ---- */

static rpc_start_t start_message(const worker_t *worker, rpc_start_kind_t kind)
{
    rpc_start_t start;
    memset(&start, 0, sizeof(start)); /* the padding crosses the wire */
    start.magic = RPC_STEP_MAGIC;
    start.version = RPC_STEP_VERSION;
    start.kind = kind;
    start.rank = comm_rank(worker->link);
    start.node = comm_node(worker->link, start.rank);
    start.node_memory_bytes = worker_node_memory();
    return start;
}

static cot_status_t say(worker_t *worker, const rpc_start_t *start)
{
    return comm_send(worker->link, 0, COMM_TAG_SETUP, start, sizeof(*start));
}

static cot_status_t say_hello(worker_t *worker)
{
    rpc_start_t hello = start_message(worker, RPC_START_HELLO);
    hello.isa = kern_isa_best();
    hello.threads = cot_usable_cores(worker_node_workers(worker->link));
    return say(worker, &hello);
}

/* At most ten times a second; a lost progress message harms nothing. */
static void say_progress(void *user, float fraction)
{
    worker_t *worker = user;
    int64_t now = cot_now_ns();
    if (now - worker->progress_sent_ns < 100 * INT64_C(1000000) && fraction < 1) return;
    worker->progress_sent_ns = now;
    rpc_start_t progress = start_message(worker, RPC_START_PROGRESS);
    progress.progress = fraction;
    COT_IGNORE(say(worker, &progress));
}

/* READY, or why not. */
static cot_status_t say_ready(worker_t *worker, cot_status_t status)
{
    rpc_start_t ready = start_message(worker, RPC_START_READY);
    ready.status = (uint32_t)-status;
    ready.threads = worker->threads;
    ready.progress = 1;
    if (status != COT_OK) snprintf(ready.text, sizeof(ready.text), "%s", cot_error_text());
    if (status != COT_OK || worker->model.weights == NULL) return say(worker, &ready); /* measuring needs no more */
    ready.weight_bytes = worker->model.weights->copied_bytes;
    ready.mapped_bytes = worker->model.weights->shared_bytes;
    ready.kv_bytes = worker->need.kv;
    ready.buffer_bytes = worker->need.buffers;
    ready.kv_blocks = worker->model.kv_blocks;
    return say(worker, &ready);
}

/* ---- start, in the order in which things need each other ---- */

static cot_status_t read_plan(worker_t *worker, const rpc_setup_t *setup)
{
    const model_config_t *config = &worker->model.config;
    uint32_t layer_index[MODEL_MAX_LAYERS], layers = 0;
    for (uint32_t l = 0; l < config->layers; l++)
        if (config->layer[l].moe) layer_index[layers++] = l;
    if (setup->plan_bytes == 0)
        return place_plan_contiguous(layers, layer_index, config->experts, worker->model.workers, &worker->plan);
    COT_TRY(place_plan_parse(setup->plan, setup->plan_bytes, "the placement plan", &worker->plan));
    return place_plan_check(worker->plan, &(place_plan_need_t){.layers = layers,
                                                               .experts = config->experts,
                                                               .ranks = worker->model.workers,
                                                               .layer_index = layer_index,
                                                               .config_sha256 = config->sha256});
}

static cot_status_t open_model(worker_t *worker, const rpc_setup_t *setup)
{
    const cot_settings_t *settings = worker->settings;
    const char *directory = cot_settings_argument(settings, 0);
    worker_model_t *model = &worker->model;
    COT_TRY(model_config_load(directory, &model->config));
    model->act = worker_activation_type(settings, &model->config);
    model->worker = comm_rank(worker->link) - 1;
    model->workers = comm_ranks(worker->link) - 1;
    COT_TRY(read_plan(worker, setup));
    if (strcmp(cot_settings_string(settings, COT_SET_LOAD_FORMAT), "dummy") == 0)
        return model_weights_dummy(&model->config, (uint64_t)cot_settings_int(settings, COT_SET_SEED), &worker->files);
    return model_weights_open(directory, &model->config, &worker->files);
}

/* Limits that every buffer is sized by. */
static cot_status_t set_limits(worker_t *worker)
{
    worker_model_t *model = &worker->model;
    const cot_settings_t *settings = worker->settings;
    model->max_rows = (uint32_t)cot_settings_int(settings, COT_SET_MAX_STEP_TOKENS);
    model->max_sequences = (uint32_t)cot_settings_int(settings, COT_SET_MAX_SEQUENCES);
    COT_TRY(model_config_context(&model->config, cot_settings_int(settings, COT_SET_MAX_CONTEXT), &model->max_context));
    for (uint32_t layer = 0; layer < worker->plan->layers; layer++) {
        const uint32_t *begin = worker->plan->slot_begin + (size_t)layer * model->workers + model->worker;
        if (begin[1] - begin[0] > model->max_slots) model->max_slots = begin[1] - begin[0];
    }
    uint32_t here = model->max_slots < model->config.top_k ? model->max_slots : model->config.top_k;
    uint64_t assignments = (uint64_t)model->workers * model->max_rows * here;
    if (assignments > INT32_MAX)
        return cot_fail(COT_ERR_LIMIT,
                        "%llu assignments could arrive here in one step, at most %d may: lower --max-step-tokens",
                        (unsigned long long)assignments, INT32_MAX);
    model->max_assignments = (uint32_t)assignments;
    return COT_OK;
}

static cot_status_t start_kernels(worker_t *worker, const rpc_setup_t *setup)
{
    COT_TRY(worker_kernels_start(worker->link, worker->settings, setup->isa, &worker->model, &worker->pool));
    worker->threads = cot_pool_threads(worker->pool);
    return COT_OK;
}

static cot_status_t start_steps(worker_t *worker)
{
    worker_model_t *model = &worker->model;
    COT_TRY(worker_ep_home.create(
        &(worker_ep_config_t){.model = model,
                              .link = worker->link,
                              .timeout_ms = cot_settings_int(worker->settings, COT_SET_STEP_TIMEOUT)},
        &worker->ep));
    return worker_stepper_create(
        &(worker_stepper_config_t){.model = model, .ep_ops = &worker_ep_home, .ep = worker->ep}, &worker->stepper);
}

/* Adds up what the node's workers will hold, and refuses with the figures before any of it is taken. */
static cot_status_t check_memory(worker_t *worker, const worker_load_t *load)
{
    worker_model_t *model = &worker->model;
    worker_need_t *need = &worker->need;
    size_t block_bytes = model->ops->kv_block_bytes(model->kern) * model->config.layers;
    need->kv = cot_settings_bytes(worker->settings, COT_SET_KV_MEMORY);
    model->kv_blocks = (uint32_t)(need->kv / block_bytes < UINT32_MAX ? need->kv / block_bytes : UINT32_MAX);
    if (model->kv_blocks == 0)
        return cot_fail(COT_ERR_INVALID, "--kv-memory holds no KV block: one takes %zu bytes over %u layers",
                        block_bytes, model->config.layers);
    need->buffers = cot_memory_live_bytes(); /* all that was taken so far are buffers */
    need->node_workers = load->node_workers;
    worker_load_need_t weights;
    COT_TRY(worker_load_measure(load, &weights));
    need->private_weights = weights.private_bytes;
    need->mapped_weights = weights.mapped_bytes;
    need->stored_weights = weights.store_bytes;
    return worker_memory_check(need, worker_node_memory());
}

static cot_status_t list_node(worker_t *worker)
{
    const comm_link_t *link = worker->link;
    uint32_t count = 0;
    worker->node_worker = cot_calloc(worker_node_workers(link), sizeof(*worker->node_worker));
    if (worker->node_worker == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the list of workers");
    for (uint32_t rank = 1; rank < comm_ranks(link); rank++)
        if (comm_node(link, rank) == comm_node(link, comm_rank(link))) worker->node_worker[count++] = rank - 1;
    return COT_OK;
}

static cot_status_t load_all(worker_t *worker)
{
    worker_model_t *model = &worker->model;
    COT_TRY(list_node(worker));
    const worker_load_t load = {.ops = model->ops,
                                .kern = model->kern,
                                .config = &model->config,
                                .files = worker->files,
                                .plan = worker->plan,
                                .worker = model->worker,
                                .act = model->act,
                                .link = worker->link,
                                .node_worker = worker->node_worker,
                                .node_workers = worker_node_workers(worker->link),
                                .timeout_ms = cot_settings_int(worker->settings, COT_SET_START_TIMEOUT),
                                .progress = say_progress,
                                .user = worker};
    COT_TRY(check_memory(worker, &load));
    model->kv = cot_calloc(model->config.layers, sizeof(*model->kv));
    if (model->kv == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for %u layers of KV", model->config.layers);
    for (uint32_t l = 0; l < model->config.layers; l++) {
        size_t bytes = model->ops->kv_block_bytes(model->kern) * model->kv_blocks;
        model->kv[l] = (kern_kv_t){.data = model->ops->alloc(model->kern, bytes), .blocks = model->kv_blocks};
        if (model->kv[l].data == NULL)
            return cot_fail(COT_ERR_NO_MEMORY, "no memory for the KV cache (%zu bytes a layer): lower --kv-memory",
                            bytes);
    }
    worker->shares = true;
    return worker_load(&load, &model->weights);
}

static cot_status_t start(worker_t *worker, const rpc_setup_t *setup)
{
    COT_TRY(cot_settings_unpack(setup->settings, setup->settings_bytes, &worker->settings));
    cot_log_level_t level;
    if (cot_log_level_parse(cot_settings_string(worker->settings, COT_SET_LOG_LEVEL), &level)) cot_log_set_level(level);
    COT_TRY(open_model(worker, setup));
    COT_TRY(set_limits(worker));
    COT_TRY(start_kernels(worker, setup));
    COT_TRY(start_steps(worker));
    return load_all(worker);
}

static void finish(worker_t *worker)
{
    worker_model_t *model = &worker->model;
    worker_stepper_destroy(worker->stepper);
    if (worker->ep != NULL) worker_ep_home.destroy(worker->ep);
    if (model->kern != NULL) {
        worker_weights_destroy(model->ops, model->kern, model->weights);
        for (uint32_t l = 0; model->kv != NULL && l < model->config.layers; l++)
            model->ops->free(model->kern, model->kv[l].data);
        model->ops->destroy(model->kern);
    }
    cot_free(model->kv);
    cot_free(worker->node_worker);
    model_weights_close(worker->files);
    place_plan_destroy(worker->plan);
    cot_pool_destroy(worker->pool);
    cot_settings_destroy(worker->settings);
}

/* ---- steps ---- */

/* Tells rank 0 which step failed and why; rank 0 ends the job. */
static void report_fault(worker_t *worker, uint64_t step, cot_status_t status)
{
    cot_buffer_t message = {0};
    const rpc_result_t result = {.header = {.magic = RPC_STEP_MAGIC,
                                            .version = RPC_STEP_VERSION,
                                            .rank = comm_rank(worker->link),
                                            .status = (uint32_t)-status,
                                            .step = step,
                                            .text_bytes = (uint32_t)strlen(cot_error_text())},
                                 .text = cot_error_text()};
    cot_status_t sent = rpc_result_encode(&result, &message);
    if (sent == COT_OK) sent = comm_send(worker->link, 0, COMM_TAG_RESULT, message.data, message.size);
    if (sent == COT_OK) sent = comm_flush(worker->link, cot_deadline_in_ms(2000));
    if (sent != COT_OK) cot_log_error("step %llu failed, and rank 0 could not be told", (unsigned long long)step);
    cot_buffer_free(&message);
}

/* Takes one step message; *stop_out is set by the one that says stop. */
static cot_status_t take_step(worker_t *worker, const comm_message_t *message, cot_buffer_t *result, bool *stop_out)
{
    rpc_step_t step;
    COT_TRY(rpc_step_decode(message->bytes, message->count, &step));
    if (step.header.kind == RPC_STEP_STOP) {
        *stop_out = true;
        return COT_OK;
    }
    if (worker->stepper == NULL || worker->model.weights == NULL)
        return cot_fail(COT_ERR_PROTOCOL, "step %llu came to a worker that failed to start",
                        (unsigned long long)step.header.step);
    cot_status_t status = worker_stepper_run(worker->stepper, &step, result);
    if (status == COT_OK) return comm_send(worker->link, 0, COMM_TAG_RESULT, result->data, result->size);
    report_fault(worker, step.header.step, status);
    return status;
}

/* An idle worker has nothing to wait for but rank 0; mpirun ends it if rank 0 dies. */
static cot_status_t run_steps(worker_t *worker)
{
    cot_buffer_t result = {0};
    cot_backoff_t backoff = {0};
    cot_status_t status = COT_OK;
    bool stop = false;
    while (status == COT_OK && !stop) {
        comm_message_t message;
        bool found = false;
        status = comm_poll(worker->link, COMM_TAG_STEP, &message, &found);
        if (status == COT_OK && found) {
            status = take_step(worker, &message, &result, &stop);
            cot_backoff_reset(&backoff);
        } else if (status == COT_OK) {
            cot_backoff_wait(&backoff);
        }
    }
    cot_buffer_free(&result);
    return status;
}

/* Waits without burning a core until rank 0 says what to load: it may first have to read a large tokenizer. */
static cot_status_t await_setup(worker_t *worker, rpc_setup_t *setup_out)
{
    comm_message_t message;
    COT_TRY(comm_receive(worker->link, 0, COMM_TAG_SETUP, cot_deadline_in_ms(600000), "what to load", &message));
    return rpc_setup_decode(message.bytes, message.count, setup_out);
}

/* `coterie calibrate`. */
static cot_status_t measure(worker_t *worker, const rpc_setup_t *setup)
{
    worker_meter_t *meter = NULL;
    cot_status_t status = worker_meter_create(worker->link, setup, &meter);
    cot_status_t said = say_ready(worker, status);
    if (said == COT_OK) said = worker_meter_run(worker->link, meter);
    worker_meter_destroy(meter);
    return status != COT_OK ? status : said;
}

cot_status_t worker_main(comm_link_t *link)
{
    worker_t worker = {.link = link};
    rpc_setup_t setup;
    COT_TRY(say_hello(&worker));
    COT_TRY(await_setup(&worker, &setup));
    if (setup.go == RPC_GO_LEAVE) return COT_OK; /* rank 0 has said why */
    if (setup.go == RPC_GO_MEASURE) return measure(&worker, &setup);

    cot_status_t status = start(&worker, &setup);
    if (status != COT_OK && !worker.shares) worker_store_give_up(link);
    cot_status_t said = say_ready(&worker, status);
    /* A worker that failed to start waits with the others for rank 0's word to leave. */
    if (said == COT_OK) said = run_steps(&worker);
    finish(&worker);
    return status != COT_OK ? status : said;
}
