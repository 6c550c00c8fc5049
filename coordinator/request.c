#include "coordinator/engine_int.h"

#include "base/memory.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* ---- lists, oldest first ---- */

void coord_list_insert(coord_list_t *list, coord_request_t *request)
{
    /* A new request is the youngest, a preempted one mostly the oldest of the queue: both ends are near. */
    coord_request_t *before = list->last;
    if (list->first != NULL && request->age < list->first->age) before = NULL;
    while (before != NULL && before->age > request->age) before = before->before;
    request->before = before;
    request->after = before != NULL ? before->after : list->first;
    *(request->before != NULL ? &request->before->after : &list->first) = request;
    *(request->after != NULL ? &request->after->before : &list->last) = request;
    list->count++;
}

void coord_list_remove(coord_list_t *list, coord_request_t *request)
{
    *(request->before != NULL ? &request->before->after : &list->first) = request->after;
    *(request->after != NULL ? &request->after->before : &list->last) = request->before;
    request->before = request->after = NULL;
    list->count--;
}

/* ---- what is refused ---- */

static cot_status_t check_sampling(const coord_sampling_t *sampling)
{
    if (!(isfinite(sampling->temperature) && sampling->temperature >= 0))
        return cot_fail(COT_ERR_INVALID, "temperature %g: must be 0 (greedy) or above", (double)sampling->temperature);
    if (!(sampling->top_p > 0 && sampling->top_p <= 1))
        return cot_fail(COT_ERR_INVALID, "top_p %g: must be above 0 and at most 1 (off)", (double)sampling->top_p);
    if (!(sampling->min_p >= 0 && sampling->min_p <= 1))
        return cot_fail(COT_ERR_INVALID, "min_p %g: must be from 0 (off) to 1", (double)sampling->min_p);
    if (!(isfinite(sampling->repetition_penalty) && sampling->repetition_penalty > 0))
        return cot_fail(COT_ERR_INVALID, "repetition_penalty %g: must be above 0 (1: off)",
                        (double)sampling->repetition_penalty);
    return COT_OK;
}

static cot_status_t check_room(const coord_engine_t *engine, const coord_submit_t *submit)
{
    const coord_engine_config_t *config = &engine->config;
    uint32_t most = submit->score ? engine->context : engine->context - 1; /* room for one token to draw */
    if (submit->count <= most) return COT_OK;
    if (engine->context < config->max_context)
        return cot_fail(COT_ERR_LIMIT,
                        "%u tokens are over the %u that the KV cache of a worker holds: raise --kv-memory or send less",
                        submit->count, most);
    return cot_fail(COT_ERR_LIMIT,
                    "%u tokens are over the %u that the context of %u takes: raise --max-context or send less",
                    submit->count, most, config->max_context);
}

static cot_status_t check_submit(const coord_engine_t *engine, const coord_submit_t *submit)
{
    const coord_engine_config_t *config = &engine->config;
    if (submit->count == 0) return cot_fail(COT_ERR_INVALID, "no tokens: send at least one");
    COT_TRY(check_room(engine, submit));
    for (uint32_t i = 0; i < submit->count; i++)
        if (submit->tokens[i] < 0 || (uint32_t)submit->tokens[i] >= config->vocab)
            return cot_fail(COT_ERR_INVALID, "token %d at position %u: must be from 0 to %u", submit->tokens[i], i,
                            config->vocab - 1);
    if (submit->sampling.top_logprobs > RPC_TOP_LOGPROBS)
        return cot_fail(COT_ERR_INVALID, "%u logprobs a token: at most %d", submit->sampling.top_logprobs,
                        RPC_TOP_LOGPROBS);
    if (submit->score && submit->max_tokens > 0)
        return cot_fail(COT_ERR_INVALID, "a request is scored or drawn from, not both: max_tokens is %u",
                        submit->max_tokens);
    if (submit->score) return COT_OK;
    if (submit->max_tokens == 0) return cot_fail(COT_ERR_INVALID, "max_tokens is 0: must be at least 1");
    return check_sampling(&submit->sampling);
}

/* ---- life ---- */

cot_status_t coord_request_create(const coord_engine_t *engine, const coord_submit_t *submit,
                                  coord_request_t **request_out)
{
    COT_TRY(check_submit(engine, submit));
    uint32_t room = engine->context - submit->count;
    uint32_t limit = submit->count + (submit->max_tokens < room ? submit->max_tokens : room);
    coord_request_t *request = cot_calloc(1, sizeof(*request));
    if (request == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a request of %u tokens", limit);
    *request = (coord_request_t){.submit = *submit, .count = submit->count, .limit = limit};
    request->submit.tokens = NULL;
    request->token = cot_alloc(limit * sizeof(*request->token));
    request->block = cot_alloc(coord_blocks_of(limit) * sizeof(*request->block));
    if (request->token == NULL || request->block == NULL) {
        coord_request_free(request);
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for a request of %u tokens", limit);
    }
    memcpy(request->token, submit->tokens, submit->count * sizeof(*request->token));
    *request_out = request;
    return COT_OK;
}

void coord_request_free(coord_request_t *request)
{
    if (request == NULL) return;
    cot_free(request->token);
    cot_free(request->block);
    cot_free(request);
}

void coord_request_admit(coord_engine_t *engine, coord_request_t *request, uint32_t worker)
{
    coord_worker_t *home = &engine->worker[worker];
    assert(request->state == COORD_WAITING && request->blocks == 0);
    coord_list_remove(&engine->waiting, request);
    coord_list_insert(&home->running, request);
    request->state = COORD_RUNNING;
    request->worker = worker;
    request->slot = coord_numbers_take(&home->slots);
    request->sequence = ++engine->sequences;
    request->rows = request->drawing = 0;
    request->prefill_end = request->count;
    while (request->blocks < coord_blocks_of(request->count))
        request->block[request->blocks++] = coord_numbers_take(&home->blocks);
}

/* From now on its blocks and its slot may be another's: see the top of engine_int.h. */
static void leave_worker(coord_engine_t *engine, coord_request_t *request)
{
    coord_worker_t *home = &engine->worker[request->worker];
    coord_list_remove(&home->running, request);
    while (request->blocks > 0) coord_numbers_give(&home->blocks, request->block[--request->blocks]);
    coord_numbers_give(&home->slots, request->slot);
}

void coord_request_preempt(coord_engine_t *engine, coord_request_t *request)
{
    assert(request->state == COORD_RUNNING);
    leave_worker(engine, request);
    request->state = COORD_WAITING;
    coord_list_insert(&engine->waiting, request);
    engine->preemptions++;
}

void coord_request_finish(coord_engine_t *engine, coord_request_t *request, coord_finish_t finish, const char *error)
{
    assert(request->state != COORD_DONE);
    if (request->state == COORD_RUNNING)
        leave_worker(engine, request);
    else
        coord_list_remove(&engine->waiting, request);
    request->state = COORD_DONE;
    engine->requests_finished++;
    request->flights++; /* it stays until the callback is back */
    request->submit.events->finished(request->submit.user, finish, error);
    coord_request_land(request);
}

void coord_request_land(coord_request_t *request)
{
    assert(request->flights > 0);
    if (--request->flights == 0 && request->state == COORD_DONE) coord_request_free(request);
}
