#include "tests/coordinator/fake_engine.h"

#include <math.h>
#include <string.h>

static void finish(coord_engine_t *engine, coord_request_t *request, coord_finish_t how, const char *error)
{
    coord_submit_t submit = request->submit;
    request->taken = false;
    engine->live--;
    engine->finished++;
    submit.events->finished(submit.user, how, error);
}

cot_status_t coord_engine_submit(coord_engine_t *engine, const coord_submit_t *submit, coord_request_t **request_out)
{
    engine->last_sampling = submit->sampling;
    if (!(isfinite(submit->sampling.temperature) && submit->sampling.temperature >= 0))
        return cot_fail(COT_ERR_INVALID, "temperature %g: must be 0 or above", (double)submit->sampling.temperature);
    if (submit->count >= engine->max_context)
        return cot_fail(COT_ERR_LIMIT, "%u tokens are over the context of %u", submit->count, engine->max_context);
    for (uint32_t i = 0; i < submit->count; i++)
        if (submit->tokens[i] < 0 || (uint32_t)submit->tokens[i] >= engine->vocab)
            return cot_fail(COT_ERR_INVALID, "token %d: out of range", submit->tokens[i]);
    if (engine->live >= engine->max_requests) return cot_fail(COT_ERR_BUSY, "busy: the queue is full");
    coord_request_t *request = engine->request;
    while (request->taken) request++;
    *request = (coord_request_t){.submit = *submit, .drawn = submit->count - submit->prompt_count, .taken = true};
    request->submit.max_tokens += request->drawn; /* as an end, not a number */
    if (request->submit.max_tokens < request->drawn) request->submit.max_tokens = UINT32_MAX;
    engine->live++;
    engine->submitted++;
    *request_out = request;
    return COT_OK;
}

void coord_engine_cancel(coord_engine_t *engine, coord_request_t *request)
{
    engine->cancelled++;
    finish(engine, request, COORD_FINISH_CANCELLED, NULL);
}

static void draw(coord_engine_t *engine, coord_request_t *request)
{
    const coord_submit_t *submit = &request->submit;
    uint32_t i = request->drawn++;
    int32_t top_token[] = {engine->script[i % engine->script_count], 5};
    float top_logprob[] = {fake_engine_logprob(i), -8.0f};
    uint32_t tops = submit->sampling.top_logprobs < 2 ? submit->sampling.top_logprobs : 2;
    const coord_token_t token = {.token = top_token[0],
                                 .position = submit->prompt_count + i,
                                 .logprob = top_logprob[0],
                                 .tops = tops,
                                 .top_token = top_token,
                                 .top_logprob = top_logprob};
    bool more = submit->events->token(submit->user, &token);
    if (token.token == engine->eos && !submit->ignore_eos)
        finish(engine, request, COORD_FINISH_EOS, NULL);
    else if (!more)
        finish(engine, request, COORD_FINISH_STOP, NULL);
    else if (request->drawn >= submit->max_tokens || submit->prompt_count + request->drawn >= engine->max_context)
        finish(engine, request, COORD_FINISH_LENGTH, NULL);
}

cot_status_t coord_engine_poll(coord_engine_t *engine, bool *worked_out)
{
    *worked_out = false;
    for (uint32_t i = 0; i < FAKE_ENGINE_REQUESTS; i++) {
        if (!engine->request[i].taken) continue;
        if (engine->fail)
            finish(engine, &engine->request[i], COORD_FINISH_ERROR, "rank 2 stopped answering");
        else if (!engine->hold)
            draw(engine, &engine->request[i]);
        *worked_out = true;
    }
    return engine->fail ? cot_fail(COT_ERR_PEER_LOST, "rank 2 stopped answering") : COT_OK;
}

uint32_t coord_engine_context(const coord_engine_t *engine)
{
    (void)engine;
    return UINT32_MAX; /* the server's own limit counts */
}

bool coord_engine_idle(const coord_engine_t *engine)
{
    return engine->live == 0;
}

void coord_engine_stats(const coord_engine_t *engine, coord_engine_stats_t *stats_out)
{
    *stats_out = (coord_engine_stats_t){.steps = 881, .running = engine->live, .kv_blocks = 4096, .step_ms = 2.5};
}

void coord_engine_worker_stats(const coord_engine_t *engine, uint32_t worker, coord_worker_stats_t *stats_out)
{
    (void)engine;
    *stats_out = (coord_worker_stats_t){.step = 880 + worker, .compute_ns = 1500000, .seconds_since_result = 0.25};
}
