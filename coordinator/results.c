/* What the workers answer: each checked against the runs that were sent, then handed to the requests. */
#include "coordinator/engine_int.h"

#include "base/log.h"

#include <assert.h>
#include <stdio.h>

/* ---- checks ---- */

static cot_status_t check_status(const rpc_result_t *result, uint32_t peer)
{
    const rpc_result_header_t *header = &result->header;
    if (header->status == 0) return COT_OK;
    cot_status_t status = header->status <= (uint32_t)-COT_ERR_INTERNAL ? (cot_status_t) - (int)header->status
                                                                        : COT_ERR_INTERNAL;
    return cot_fail(status, "rank %u step %llu: %.*s", peer, (unsigned long long)header->step,
                    (int)(header->text_bytes < 1024 ? header->text_bytes : 1024), result->text);
}

/* What the step asked of this worker. */
typedef struct {
    uint64_t drawn, routed, logits_rows;
} expected_t;

static const coord_flight_run_t *run_at(const coord_flight_t *flight, uint32_t index)
{
    return index == COORD_NO_RUN ? NULL : (const coord_flight_run_t *)(const void *)flight->runs.data + index;
}

static expected_t count_expected(const coord_flight_t *flight, uint32_t worker)
{
    expected_t expected = {0};
    const coord_flight_run_t *run = NULL;
    for (uint32_t at = flight->first[worker]; (run = run_at(flight, at)) != NULL; at = run->next) {
        expected.drawn += (run->flags & RPC_RUN_SCORE ? run->rows : 0) + (run->flags & RPC_RUN_SAMPLE ? 1 : 0);
        expected.routed += run->flags & RPC_RUN_TRACE ? run->rows : 0;
        expected.logits_rows += run->flags & RPC_RUN_LOGITS ? run->rows : 0;
    }
    return expected;
}

static cot_status_t check_counts(const coord_engine_t *engine, const coord_flight_t *flight, const rpc_result_t *result,
                                 uint32_t peer)
{
    const rpc_result_header_t *header = &result->header;
    expected_t expected = count_expected(flight, peer - 1);
    if (header->drawn != expected.drawn || header->routed != expected.routed ||
        header->logits_rows != expected.logits_rows)
        return cot_fail(COT_ERR_PROTOCOL,
                        "rank %u step %llu: answered %u drawn, %u routed, %u logits rows instead of %llu, %llu, %llu",
                        peer, (unsigned long long)flight->step, header->drawn, header->routed, header->logits_rows,
                        (unsigned long long)expected.drawn, (unsigned long long)expected.routed,
                        (unsigned long long)expected.logits_rows);
    if (header->logits_rows > 0 && header->vocab != engine->config.vocab)
        return cot_fail(COT_ERR_PROTOCOL, "rank %u step %llu: logits of %u tokens, the vocabulary has %u", peer,
                        (unsigned long long)flight->step, header->vocab, engine->config.vocab);
    if (header->routed > 0 && header->route_width != place_recorder_width(engine->config.recorder))
        return cot_fail(COT_ERR_PROTOCOL, "rank %u step %llu: routing of %u choices a row, the trace has %u", peer,
                        (unsigned long long)flight->step, header->route_width,
                        place_recorder_width(engine->config.recorder));
    return COT_OK;
}

static cot_status_t check_drawn(const coord_engine_t *engine, const coord_flight_run_t *run, const rpc_drawn_t *drawn,
                                uint32_t flag, uint32_t position)
{
    bool valid = drawn->sequence == run->sequence && drawn->flags == flag && drawn->position == position &&
                 drawn->token >= 0 && (uint32_t)drawn->token < engine->config.vocab && drawn->tops <= run->top_logprobs;
    for (uint32_t i = 0; valid && i < drawn->tops; i++)
        valid = drawn->top_token[i] >= 0 && (uint32_t)drawn->top_token[i] < engine->config.vocab;
    if (valid) return COT_OK;
    return cot_fail(COT_ERR_PROTOCOL,
                    "answered token %d (%u likeliest) at position %u of sequence %llu, expected position %u of %llu",
                    drawn->token, drawn->tops, drawn->position, (unsigned long long)drawn->sequence, position,
                    (unsigned long long)run->sequence);
}

/* ---- to the requests ---- */

/* Whether what a run gave is still wanted: its request goes on, and was not computed anew since. A preempted request
 * that waits still takes what was in flight. */
static bool wanted(const coord_flight_run_t *run)
{
    return run->request->state != COORD_DONE && run->request->sequence == run->sequence;
}

/* A row may come a second time, after a preemption: the same bits, and the recorder keeps one. */
static cot_status_t record(coord_engine_t *engine, const coord_flight_run_t *run, const rpc_result_t *result,
                           uint32_t first)
{
    const coord_request_t *request = run->request;
    size_t width = result->header.route_width;
    for (uint32_t row = 0; row < run->rows; row++) {
        const rpc_routed_t *routed = &result->routed[first + row];
        uint32_t position = run->position + row;
        if (routed->sequence != run->sequence || routed->position != position)
            return cot_fail(
                COT_ERR_PROTOCOL, "answered the routing of position %u of sequence %llu, expected %u of %llu",
                routed->position, (unsigned long long)routed->sequence, position, (unsigned long long)run->sequence);
        if (!wanted(run)) continue;
        if (position >= request->count || routed->token != request->token[position])
            return cot_fail(COT_ERR_PROTOCOL, "answered the routing of token %d at position %u of sequence %llu",
                            routed->token, position, (unsigned long long)run->sequence);
        cot_status_t status = place_recorder_add(
            engine->config.recorder, &(place_trace_row_t){.request = request->submit.trace_request,
                                                          .position = position,
                                                          .token_id = routed->token,
                                                          .phase = position >= request->submit.prompt_count,
                                                          .experts = result->experts + (first + row) * width,
                                                          .weights = result->weights + (first + row) * width});
        if (status == COT_ERR_LIMIT) {
            if (!engine->trace_full) cot_log_warn("%s", cot_error_text());
            engine->trace_full = true; /* said once; the recorder leaves out what does not fit */
            status = COT_OK;
        }
        COT_TRY(status);
    }
    return COT_OK;
}

static coord_token_t token_of(const rpc_drawn_t *drawn)
{
    return (coord_token_t){.token = drawn->token,
                           .position = drawn->position,
                           .logprob = drawn->logprob,
                           .tops = drawn->tops,
                           .top_token = drawn->top_token,
                           .top_logprob = drawn->top_logprob};
}

static void give_scored(coord_engine_t *engine, const coord_flight_run_t *run, const rpc_drawn_t *drawn,
                        const float *logits)
{
    coord_request_t *request = run->request;
    if (!wanted(run) || drawn->position < request->scored) return;
    request->scored = drawn->position + 1;
    coord_token_t token = token_of(drawn);
    token.logits = logits;
    request->submit.events->scored(request->submit.user, &token);
    if (request->state != COORD_DONE && request->scored == request->limit)
        coord_request_finish(engine, request, COORD_FINISH_LENGTH, NULL);
}

static bool is_eos(const coord_engine_t *engine, int32_t token)
{
    for (uint32_t i = 0; i < engine->config.eos_count; i++)
        if (engine->eos[i] == token) return true;
    return false;
}

static void count_drawn(coord_engine_t *engine)
{
    int64_t second = cot_now_ns() / 1000000000;
    uint32_t bucket = (uint32_t)(second % COORD_RATE_SECONDS);
    if (engine->rate_second[bucket] != second) engine->rate_tokens[bucket] = 0;
    engine->rate_second[bucket] = second;
    engine->rate_tokens[bucket]++;
    engine->tokens_drawn++;
}

static void give_drawn(coord_engine_t *engine, const coord_flight_run_t *run, const rpc_drawn_t *drawn)
{
    coord_request_t *request = run->request;
    if (!wanted(run)) return;
    assert(drawn->position == request->count && request->count < request->limit);
    if (request->drawing > 0) request->drawing--;
    request->token[request->count++] = drawn->token;
    count_drawn(engine);
    coord_token_t token = token_of(drawn);
    bool more = request->submit.events->token(request->submit.user, &token);
    if (request->state == COORD_DONE) return; /* cancelled by the callback */
    if (!request->submit.ignore_eos && is_eos(engine, drawn->token))
        coord_request_finish(engine, request, COORD_FINISH_EOS, NULL);
    else if (!more)
        coord_request_finish(engine, request, COORD_FINISH_STOP, NULL);
    else if (request->count == request->limit)
        coord_request_finish(engine, request, COORD_FINISH_LENGTH, NULL);
}

/* All routing first: a request that ends with this result has its last rows in it. */
static cot_status_t take_runs(coord_engine_t *engine, const coord_flight_t *flight, const rpc_result_t *result,
                              uint32_t worker)
{
    uint32_t routed = 0, at_drawn = 0;
    size_t logits_row = 0, vocab = engine->config.vocab;
    const coord_flight_run_t *run = NULL;
    for (uint32_t at = flight->first[worker]; (run = run_at(flight, at)) != NULL; at = run->next) {
        if (!(run->flags & RPC_RUN_TRACE)) continue;
        COT_TRY(record(engine, run, result, routed));
        routed += run->rows;
    }
    for (uint32_t at = flight->first[worker]; (run = run_at(flight, at)) != NULL; at = run->next) {
        for (uint32_t row = 0; row < run->rows && run->flags & RPC_RUN_SCORE; row++) {
            const rpc_drawn_t *drawn = &result->drawn[at_drawn++];
            const float *logits = run->flags & RPC_RUN_LOGITS ? result->logits + logits_row++ * vocab : NULL;
            COT_TRY(check_drawn(engine, run, drawn, RPC_RUN_SCORE, run->position + row));
            give_scored(engine, run, drawn, logits);
        }
        if (!(run->flags & RPC_RUN_SAMPLE)) continue;
        const rpc_drawn_t *drawn = &result->drawn[at_drawn++];
        COT_TRY(check_drawn(engine, run, drawn, RPC_RUN_SAMPLE, run->position + run->rows));
        give_drawn(engine, run, drawn);
    }
    return COT_OK;
}

/* ---- steps ---- */

static void land_oldest(coord_engine_t *engine)
{
    coord_flight_t *flight = coord_oldest_flight(engine);
    coord_flight_clear(flight);
    int64_t now_ns = cot_now_ns();
    engine->step_ns[flight->step % COORD_STEP_TIMES] = now_ns - flight->sent_ns;
    engine->in_flight--;
    if (engine->in_flight == 0) return;
    flight = coord_oldest_flight(engine);
    flight->sent_ns = now_ns; /* until now it waited behind the other */
    flight->deadline = cot_deadline_in_ms(engine->config.step_timeout_ms);
}

static void note_stats(coord_worker_t *worker, const rpc_result_header_t *header)
{
    worker->answered_step = header->step;
    worker->answered_ns = cot_now_ns();
    worker->stats = (coord_worker_stats_t){.step = header->step,
                                           .assignments = header->assignments,
                                           .dispatch_bytes = header->dispatch_bytes,
                                           .combine_bytes = header->combine_bytes,
                                           .compute_ns = header->compute_ns,
                                           .wait_ns = header->wait_ns};
}

static cot_status_t take_result(coord_engine_t *engine, const comm_message_t *message)
{
    uint32_t peer = message->peer;
    rpc_result_t result;
    if (peer == 0 || peer > engine->config.workers)
        return cot_fail(COT_ERR_PROTOCOL, "rank %u sent a result, but is no worker", peer);
    if (rpc_result_decode(message->bytes, message->count, &result) != COT_OK)
        return cot_fail_in(COT_ERR_PROTOCOL, "rank %u", peer);
    COT_TRY(check_status(&result, peer));
    coord_worker_t *worker = &engine->worker[peer - 1];
    uint64_t step = worker->answered_step + 1;
    if (result.header.rank != peer || result.header.step != step || step > engine->steps)
        return cot_fail(COT_ERR_PROTOCOL, "rank %u answered step %llu as rank %u; step %llu was %s", peer,
                        (unsigned long long)result.header.step, result.header.rank, (unsigned long long)step,
                        step > engine->steps ? "not sent yet" : "its next");
    coord_flight_t *flight = &engine->flight[step % COORD_FLIGHTS];
    COT_TRY(check_counts(engine, flight, &result, peer));
    note_stats(worker, &result.header);
    cot_status_t status = take_runs(engine, flight, &result, peer - 1);
    if (status != COT_OK) return cot_fail_in(status, "rank %u step %llu", peer, (unsigned long long)step);
    flight->answered++;
    while (engine->in_flight > 0 && coord_oldest_flight(engine)->answered == engine->config.workers)
        land_oldest(engine);
    return COT_OK;
}

cot_status_t coord_results_take(coord_engine_t *engine, bool *worked_out)
{
    for (;;) {
        comm_message_t message;
        bool found = false;
        COT_TRY(comm_poll(engine->config.link, COMM_TAG_RESULT, &message, &found));
        if (!found) return COT_OK;
        *worked_out = true;
        COT_TRY(take_result(engine, &message));
    }
}

/* "rank 2, 5 (last heard of 5.2 s ago)": those that have not answered. */
static void name_silent(const coord_engine_t *engine, uint64_t step, char *text, size_t bytes)
{
    size_t used = 0;
    for (uint32_t w = 0; w < engine->config.workers && used + 64 < bytes; w++) {
        const coord_worker_t *worker = &engine->worker[w];
        if (worker->answered_step >= step) continue;
        used += (size_t)snprintf(text + used, bytes - used, "%srank %u ", used > 0 ? ", " : "", w + 1);
        used += worker->answered_step == 0
                    ? (size_t)snprintf(text + used, bytes - used, "(which answered no step)")
                    : (size_t)snprintf(text + used, bytes - used, "(last seen with step %llu %.1f s ago)",
                                       (unsigned long long)worker->answered_step,
                                       (double)(cot_now_ns() - worker->answered_ns) * 1e-9);
    }
}

cot_status_t coord_results_check_deadline(coord_engine_t *engine)
{
    if (engine->in_flight == 0) return COT_OK;
    const coord_flight_t *flight = coord_oldest_flight(engine);
    if (!cot_deadline_passed(flight->deadline)) return COT_OK;
    char silent[512] = "";
    name_silent(engine, flight->step, silent, sizeof(silent));
    return cot_fail(COT_ERR_TIMEOUT, "step %llu: %u of %u workers answered within %lld ms; nothing from %s",
                    (unsigned long long)flight->step, flight->answered, engine->config.workers,
                    (long long)engine->config.step_timeout_ms, silent);
}
