/* What the next step of each worker holds: first one row of every sequence that decodes, then new requests as room
 * allows, then prefill, each from the oldest to the youngest. */
#include "coordinator/engine_int.h"

#include "base/log.h"

#include <assert.h>

/* Rows that could be sent now: all tokens known or being drawn, but for the last token of a text, after which nothing
 * is drawn. */
static uint32_t rows_wanted(const coord_request_t *request)
{
    uint32_t tokens = request->count + request->drawing;
    uint32_t end = request->submit.score ? request->limit : request->limit - 1;
    return (tokens < end ? tokens : end) - request->rows;
}

/* Of those, what the step of its worker still has room for. */
static uint32_t rows_allowed(const coord_worker_t *worker, const coord_request_t *request)
{
    uint32_t rows = rows_wanted(request);
    if (rows > worker->row_budget) rows = worker->row_budget;
    if (request->submit.want_logits && rows > worker->logits_budget) rows = worker->logits_budget;
    return rows;
}

static uint32_t run_flags(const coord_engine_t *engine, const coord_request_t *request, uint32_t rows)
{
    uint32_t flags = engine->config.recorder != NULL ? RPC_RUN_TRACE : 0;
    if (request->submit.score) return flags | RPC_RUN_SCORE | (request->submit.want_logits ? RPC_RUN_LOGITS : 0);
    return request->rows + rows == request->count + request->drawing ? flags | RPC_RUN_SAMPLE : flags;
}

/* What must come back for the run, chained to the worker's other runs. */
static cot_status_t note_run(coord_flight_t *flight, coord_request_t *request, uint32_t rows, uint32_t flags)
{
    void *space = NULL;
    uint32_t index = (uint32_t)(flight->runs.size / sizeof(coord_flight_run_t)), worker = request->worker;
    COT_TRY(cot_buffer_extend(&flight->runs, sizeof(coord_flight_run_t), &space));
    *(coord_flight_run_t *)space = (coord_flight_run_t){.request = request,
                                                        .sequence = request->sequence,
                                                        .position = request->rows,
                                                        .rows = rows,
                                                        .flags = flags,
                                                        .top_logprobs = request->submit.sampling.top_logprobs,
                                                        .next = COORD_NO_RUN};
    coord_flight_run_t *runs = (coord_flight_run_t *)(void *)flight->runs.data;
    *(flight->last[worker] == COORD_NO_RUN ? &flight->first[worker] : &runs[flight->last[worker]].next) = index;
    flight->last[worker] = index;
    request->flights++;
    return COT_OK;
}

/* Puts the next `rows` rows of a request into the step. */
static cot_status_t add_run(coord_engine_t *engine, coord_flight_t *flight, coord_request_t *request, uint32_t rows)
{
    uint32_t end = request->rows + rows, flags = run_flags(engine, request, rows);
    const coord_sampling_t *sampling = &request->submit.sampling;
    void *space = NULL;
    assert(rows > 0 && coord_blocks_of(end) <= request->blocks);
    const rpc_run_t run = {
        .sequence = request->sequence,
        .home = request->worker,
        .slot = request->slot,
        .position = request->rows,
        .rows = rows,
        .token_begin = (uint32_t)(engine->tokens.size / sizeof(int32_t)),
        .block_begin = (uint32_t)(engine->blocks.size / sizeof(uint32_t)),
        .flags = flags,
        .next_token = request->submit.score && end < request->count ? request->token[end] : -1,
        .seed = sampling->seed,
        .temperature = sampling->temperature,
        .top_p = sampling->top_p,
        .min_p = sampling->min_p,
        .repetition_penalty = sampling->repetition_penalty,
        .top_k = sampling->top_k,
        .top_logprobs = sampling->top_logprobs,
    };
    COT_TRY(cot_buffer_append(&engine->runs, &run, sizeof(run)));
    COT_TRY(cot_buffer_append(&engine->blocks, request->block, coord_blocks_of(end) * sizeof(*request->block)));
    COT_TRY(cot_buffer_extend(&engine->tokens, rows * sizeof(int32_t), &space));
    for (uint32_t i = 0; i < rows; i++)
        ((int32_t *)space)[i] = request->rows + i < request->count ? request->token[request->rows + i]
                                                                   : RPC_TOKEN_SAMPLED;
    COT_TRY(note_run(flight, request, rows, flags));

    coord_worker_t *worker = &engine->worker[request->worker];
    worker->row_budget -= rows;
    if (flags & RPC_RUN_LOGITS) worker->logits_budget -= rows;
    if (request->rows < request->prefill_end)
        engine->tokens_prefilled += (end < request->prefill_end ? end : request->prefill_end) - request->rows;
    request->rows = end;
    request->step = flight->step;
    if (flags & RPC_RUN_SAMPLE) request->drawing++;
    return COT_OK;
}

/* Takes the block of the request's next row, if it begins one. The youngest of the worker makes room; false: that was
 * the request itself. Those younger than it have no rows in this step yet, and the oldest always finds room, because no
 * request is accepted that does not fit alone. */
static bool hold_next_block(coord_engine_t *engine, coord_request_t *request)
{
    coord_worker_t *worker = &engine->worker[request->worker];
    while (request->blocks < coord_blocks_of(request->rows + 1)) {
        if (worker->blocks.free > 0) {
            request->block[request->blocks++] = coord_numbers_take(&worker->blocks);
            continue;
        }
        coord_request_t *youngest = worker->running.last;
        assert(youngest != worker->running.first);
        cot_log_debug("rank %u: no free KV block, a request of %u tokens is put back", request->worker + 1,
                      youngest->count);
        coord_request_preempt(engine, youngest);
        if (youngest == request) return false;
    }
    return true;
}

static cot_status_t add_decodes(coord_engine_t *engine, coord_flight_t *flight, coord_worker_t *worker)
{
    for (coord_request_t *request = worker->running.first; request != NULL; request = request->after) {
        if (rows_wanted(request) != 1 || rows_allowed(worker, request) != 1) continue;
        if (!hold_next_block(engine, request)) return COT_OK; /* it was the youngest: nobody comes after it */
        COT_TRY(add_run(engine, flight, request, 1));
    }
    return COT_OK;
}

/* The blocks of all known tokens were taken at admission. */
static cot_status_t add_prefills(coord_engine_t *engine, coord_flight_t *flight, coord_worker_t *worker)
{
    for (coord_request_t *request = worker->running.first; request != NULL && worker->row_budget > 0;
         request = request->after) {
        if (request->step == flight->step) continue;
        uint32_t rows = rows_allowed(worker, request);
        if (rows > 0) COT_TRY(add_run(engine, flight, request, rows));
    }
    return COT_OK;
}

/* The worker with the most free blocks among those that have a slot, blocks for all the known tokens, and one block to
 * spare for each request that runs there, so that what comes in does not push somebody out in the next 16 tokens. A
 * worker on which nothing runs takes anything. UINT32_MAX: none. */
static uint32_t find_home(const coord_engine_t *engine, const coord_request_t *request)
{
    uint32_t blocks = coord_blocks_of(request->count), best = UINT32_MAX;
    for (uint32_t w = 0; w < engine->config.workers; w++) {
        const coord_worker_t *worker = &engine->worker[w];
        if (worker->slots.free == 0 || worker->blocks.free < blocks + worker->running.count) continue;
        if (best == UINT32_MAX || worker->blocks.free > engine->worker[best].blocks.free) best = w;
    }
    return best;
}

/* First come, first served: nobody overtakes the head of the queue. */
static void admit(coord_engine_t *engine)
{
    while (engine->waiting.first != NULL) {
        uint32_t worker = find_home(engine, engine->waiting.first);
        if (worker == UINT32_MAX) return;
        coord_request_admit(engine, engine->waiting.first, worker);
    }
}

static cot_status_t send_step(coord_engine_t *engine, coord_flight_t *flight)
{
    const rpc_step_t step = {
        .header = {.magic = RPC_STEP_MAGIC,
                   .version = RPC_STEP_VERSION,
                   .kind = RPC_STEP_RUN,
                   .runs = (uint32_t)(engine->runs.size / sizeof(rpc_run_t)),
                   .step = flight->step,
                   .tokens = (uint32_t)(engine->tokens.size / sizeof(int32_t)),
                   .blocks = (uint32_t)(engine->blocks.size / sizeof(uint32_t))},
        .run = (const rpc_run_t *)(const void *)engine->runs.data,
        .token = (const int32_t *)(const void *)engine->tokens.data,
        .block = (const uint32_t *)(const void *)engine->blocks.data,
    };
    cot_buffer_clear(&engine->message);
    COT_TRY(rpc_step_encode(&step, &engine->message));
    for (uint32_t w = 0; w < engine->config.workers; w++)
        COT_TRY(comm_send(engine->config.link, w + 1, COMM_TAG_STEP, engine->message.data, engine->message.size));
    flight->sent_ns = cot_now_ns();
    flight->deadline = cot_deadline_in_ms(engine->config.step_timeout_ms);
    engine->steps = flight->step;
    engine->in_flight++;
    return COT_OK;
}

static void clear_step(coord_engine_t *engine, coord_flight_t *flight)
{
    cot_buffer_clear(&engine->runs);
    cot_buffer_clear(&engine->tokens);
    cot_buffer_clear(&engine->blocks);
    flight->answered = 0;
    for (uint32_t w = 0; w < engine->config.workers; w++) {
        flight->first[w] = flight->last[w] = COORD_NO_RUN;
        engine->worker[w].row_budget = engine->config.max_step_tokens;
        engine->worker[w].logits_budget = engine->config.max_logits_rows;
    }
}

void coord_flight_clear(coord_flight_t *flight)
{
    const coord_flight_run_t *run = (const coord_flight_run_t *)(const void *)flight->runs.data;
    for (size_t i = 0; i < flight->runs.size / sizeof(*run); i++) coord_request_land(run[i].request);
    cot_buffer_clear(&flight->runs);
}

cot_status_t coord_compose(coord_engine_t *engine, bool *sent_out)
{
    coord_flight_t *flight = &engine->flight[(engine->steps + 1) % COORD_FLIGHTS];
    assert(engine->in_flight < COORD_FLIGHTS && flight->runs.size == 0);
    clear_step(engine, flight);
    flight->step = engine->steps + 1;
    for (uint32_t w = 0; w < engine->config.workers; w++) COT_TRY(add_decodes(engine, flight, &engine->worker[w]));
    admit(engine);
    for (uint32_t w = 0; w < engine->config.workers; w++) COT_TRY(add_prefills(engine, flight, &engine->worker[w]));
    bool any = engine->runs.size > 0;
    if (any) COT_TRY(send_step(engine, flight));
    *sent_out = any;
    return COT_OK;
}
