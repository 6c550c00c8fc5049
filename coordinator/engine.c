#include "coordinator/engine_int.h"

#include "base/log.h"
#include "base/memory.h"

#include <assert.h>
#include <string.h>

/* ---- life ---- */

static cot_status_t check_config(const coord_engine_config_t *config)
{
    if (config->link == NULL || config->workers == 0 || comm_rank(config->link) != 0 ||
        comm_ranks(config->link) <= config->workers)
        return cot_fail(COT_ERR_INVALID, "the engine runs on rank 0 of a link with at least one worker");
    if (config->kv_blocks == 0) return cot_fail(COT_ERR_INVALID, "no KV block: raise --kv-memory");
    if (config->max_context < 2 || config->max_step_tokens == 0 || config->max_sequences == 0 ||
        config->max_waiting == 0 || config->vocab == 0 || config->step_timeout_ms <= 0)
        return cot_fail(COT_ERR_INVALID,
                        "a limit of the engine is 0: context %u, step %u rows, %u sequences, queue %u, "
                        "vocabulary %u, step timeout %lld ms",
                        config->max_context, config->max_step_tokens, config->max_sequences, config->max_waiting,
                        config->vocab, (long long)config->step_timeout_ms);
    return COT_OK;
}

static cot_status_t create_tables(coord_engine_t *engine)
{
    const coord_engine_config_t *config = &engine->config;
    for (uint32_t f = 0; f < COORD_FLIGHTS; f++) {
        engine->flight[f].first = cot_calloc(config->workers, sizeof(uint32_t));
        engine->flight[f].last = cot_calloc(config->workers, sizeof(uint32_t));
        if (engine->flight[f].first == NULL || engine->flight[f].last == NULL)
            return cot_fail(COT_ERR_NO_MEMORY, "no memory for the steps of %u workers", config->workers);
    }
    engine->worker = cot_calloc(config->workers, sizeof(*engine->worker));
    engine->eos = cot_calloc(config->eos_count, sizeof(*engine->eos));
    if (engine->worker == NULL || engine->eos == NULL)
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for the tables of %u workers", config->workers);
    if (config->eos_count > 0) memcpy(engine->eos, config->eos, config->eos_count * sizeof(*engine->eos));
    for (uint32_t w = 0; w < config->workers; w++) {
        COT_TRY(coord_numbers_create(config->kv_blocks, &engine->worker[w].blocks));
        COT_TRY(coord_numbers_create(config->max_sequences, &engine->worker[w].slots));
    }
    return COT_OK;
}

cot_status_t coord_engine_create(const coord_engine_config_t *config, coord_engine_t **engine_out)
{
    COT_TRY(check_config(config));
    coord_engine_t *engine = cot_calloc(1, sizeof(*engine));
    if (engine == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the engine");
    engine->config = *config;
    if (engine->config.max_logits_rows == 0) engine->config.max_logits_rows = 1;
    uint64_t kv_tokens = (uint64_t)config->kv_blocks * COORD_KV_BLOCK;
    engine->context = kv_tokens < config->max_context ? (uint32_t)kv_tokens : config->max_context;
    engine->created_ns = cot_now_ns();
    cot_status_t status = create_tables(engine);
    if (status != COT_OK) {
        coord_engine_destroy(engine);
        return status;
    }
    *engine_out = engine;
    return COT_OK;
}

static void drop_list(coord_list_t *list)
{
    while (list->first != NULL) {
        coord_request_t *request = list->first;
        coord_list_remove(list, request);
        coord_request_free(request);
    }
}

void coord_engine_destroy(coord_engine_t *engine)
{
    if (engine == NULL) return;
    for (uint32_t f = 0; f < COORD_FLIGHTS; f++) coord_flight_clear(&engine->flight[f]);
    drop_list(&engine->waiting);
    for (uint32_t w = 0; engine->worker != NULL && w < engine->config.workers; w++) {
        drop_list(&engine->worker[w].running);
        coord_numbers_destroy(&engine->worker[w].blocks);
        coord_numbers_destroy(&engine->worker[w].slots);
    }
    for (uint32_t f = 0; f < COORD_FLIGHTS; f++) {
        cot_buffer_free(&engine->flight[f].runs);
        cot_free(engine->flight[f].first);
        cot_free(engine->flight[f].last);
    }
    cot_buffer_free(&engine->runs);
    cot_buffer_free(&engine->tokens);
    cot_buffer_free(&engine->blocks);
    cot_buffer_free(&engine->message);
    cot_free(engine->worker);
    cot_free(engine->eos);
    cot_free(engine->fault_text);
    cot_free(engine);
}

/* ---- requests ---- */

static cot_status_t repeat_fault(const coord_engine_t *engine)
{
    if (engine->fault == COT_OK) return COT_OK;
    return cot_fail(engine->fault, "%s", engine->fault_text != NULL ? engine->fault_text : "the engine failed");
}

cot_status_t coord_engine_submit(coord_engine_t *engine, const coord_submit_t *submit, coord_request_t **request_out)
{
    COT_TRY(repeat_fault(engine));
    if (engine->waiting.count >= engine->config.max_waiting)
        return cot_fail(COT_ERR_BUSY, "busy: %u requests wait already, try again later", engine->waiting.count);
    coord_request_t *request = NULL;
    COT_TRY(coord_request_create(engine, submit, &request));
    request->age = ++engine->ages;
    coord_list_insert(&engine->waiting, request);
    if (request_out != NULL) *request_out = request;
    return COT_OK;
}

void coord_engine_cancel(coord_engine_t *engine, coord_request_t *request)
{
    if (request->state != COORD_DONE) coord_request_finish(engine, request, COORD_FINISH_CANCELLED, NULL);
}

/* ---- the loop ---- */

static cot_status_t advance(coord_engine_t *engine, bool *worked)
{
    COT_TRY(coord_results_take(engine, worked));
    COT_TRY(coord_results_check_deadline(engine));
    bool sent = true;
    while (sent && !engine->stopped && engine->in_flight < COORD_FLIGHTS) {
        COT_TRY(coord_compose(engine, &sent));
        *worked = *worked || sent;
    }
    return COT_OK;
}

/* Keeps the sentence, and ends every request with it. */
static void fail_requests(coord_engine_t *engine, cot_status_t status)
{
    engine->fault = status;
    engine->fault_text = cot_strdup(cot_error_text());
    const char *text = engine->fault_text != NULL ? engine->fault_text : "the engine failed";
    while (engine->waiting.first != NULL) coord_request_finish(engine, engine->waiting.first, COORD_FINISH_ERROR, text);
    for (uint32_t w = 0; w < engine->config.workers; w++)
        while (engine->worker[w].running.first != NULL)
            coord_request_finish(engine, engine->worker[w].running.first, COORD_FINISH_ERROR, text);
}

cot_status_t coord_engine_poll(coord_engine_t *engine, bool *worked_out)
{
    assert(!engine->polling);
    bool worked = false;
    if (engine->fault == COT_OK) {
        engine->polling = true;
        cot_status_t status = advance(engine, &worked);
        if (status != COT_OK) fail_requests(engine, status);
        engine->polling = false;
    }
    *worked_out = worked;
    return repeat_fault(engine);
}

uint32_t coord_engine_context(const coord_engine_t *engine)
{
    return engine->context;
}

bool coord_engine_idle(const coord_engine_t *engine)
{
    if (engine->waiting.count > 0 || engine->in_flight > 0) return false;
    for (uint32_t w = 0; w < engine->config.workers; w++)
        if (engine->worker[w].running.count > 0) return false;
    return true;
}

cot_status_t coord_engine_stop(coord_engine_t *engine)
{
    if (engine->stopped) return COT_OK;
    engine->stopped = true; /* a worker takes no step after this one */
    const rpc_step_t stop = {.header = {.magic = RPC_STEP_MAGIC, .version = RPC_STEP_VERSION, .kind = RPC_STEP_STOP}};
    cot_buffer_clear(&engine->message);
    COT_TRY(rpc_step_encode(&stop, &engine->message));
    for (uint32_t w = 0; w < engine->config.workers; w++)
        COT_TRY(comm_send(engine->config.link, w + 1, COMM_TAG_STEP, engine->message.data, engine->message.size));
    return COT_OK;
}

/* ---- figures ---- */

static double mean_step_ms(const coord_engine_t *engine)
{
    uint64_t landed = engine->steps - engine->in_flight;
    uint64_t count = landed < COORD_STEP_TIMES ? landed : COORD_STEP_TIMES;
    int64_t sum_ns = 0;
    for (uint64_t i = 0; i < count; i++) sum_ns += engine->step_ns[(landed - i) % COORD_STEP_TIMES];
    return count > 0 ? (double)sum_ns * 1e-6 / (double)count : 0;
}

static double tokens_per_second(const coord_engine_t *engine)
{
    int64_t now_ns = cot_now_ns(), second = now_ns / 1000000000;
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < COORD_RATE_SECONDS; i++)
        if (second - engine->rate_second[i] < COORD_RATE_SECONDS) tokens += engine->rate_tokens[i];
    double seconds = (double)(now_ns - engine->created_ns) * 1e-9; /* of the last 10 s, those that it has lived */
    if (seconds > COORD_RATE_SECONDS - 1) seconds = COORD_RATE_SECONDS - 1 + (double)(now_ns % 1000000000) * 1e-9;
    return seconds > 0 ? (double)tokens / seconds : 0;
}

void coord_engine_stats(const coord_engine_t *engine, coord_engine_stats_t *stats_out)
{
    coord_engine_stats_t stats = {
        .steps = engine->steps - engine->in_flight,
        .tokens_drawn = engine->tokens_drawn,
        .tokens_prefilled = engine->tokens_prefilled,
        .preemptions = engine->preemptions,
        .requests_finished = engine->requests_finished,
        .waiting = engine->waiting.count,
        .tokens_per_second = tokens_per_second(engine),
        .step_ms = mean_step_ms(engine),
    };
    for (uint32_t w = 0; w < engine->config.workers; w++) {
        const coord_worker_t *worker = &engine->worker[w];
        stats.running += worker->running.count;
        stats.kv_blocks += worker->blocks.count;
        stats.kv_blocks_used += worker->blocks.count - worker->blocks.free;
    }
    *stats_out = stats;
}

void coord_engine_worker_stats(const coord_engine_t *engine, uint32_t worker, coord_worker_stats_t *stats_out)
{
    assert(worker < engine->config.workers);
    const coord_worker_t *from = &engine->worker[worker];
    int64_t since_ns = from->answered_step > 0 ? from->answered_ns : engine->created_ns;
    *stats_out = from->stats;
    stats_out->seconds_since_result = (double)(cot_now_ns() - since_ns) * 1e-9;
}
