#include "base/log.h"
#include "base/memory.h"
#include "coordinator/server_int.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/random.h>

/* One Generate that runs. Lives from coord_call_start until the engine has finished its request. */
struct coord_call {
    coord_connection_t *connection;
    uint64_t id, seed;
    coord_request_t *request;
    coord_text_t text;
    bool stream, want_tops, ignore_eos;
    bool stopped;        /* a stop text is complete */
    bool cancelled;      /* by its client */
    cot_status_t status; /* why it had to be given up */
    uint32_t prompt_tokens, generated, max_tokens;
    /* What the next Delta brings: i32, f32, and for each token the number and then the ids and logprobs of its tops. */
    cot_buffer_t new_text, new_tokens, new_logprobs, top_counts, top_tokens, top_logprobs;
    coord_call_t *before, *after;
};

/* ---- life ---- */

static coord_call_t *find_call(const coord_connection_t *connection, uint64_t id)
{
    coord_call_t *call = connection->calls;
    while (call != NULL && call->id != id) call = call->after;
    return call;
}

static void link_call(coord_connection_t *connection, coord_call_t *call)
{
    call->after = connection->calls;
    if (call->after != NULL) call->after->before = call;
    connection->calls = call;
    connection->call_count++;
    connection->server->call_count++;
}

static void unlink_call(coord_call_t *call)
{
    coord_connection_t *connection = call->connection;
    *(call->before != NULL ? &call->before->after : &connection->calls) = call->after;
    if (call->after != NULL) call->after->before = call->before;
    connection->call_count--;
    connection->server->call_count--;
}

static void free_call(coord_call_t *call)
{
    coord_text_free(&call->text);
    cot_buffer_free(&call->new_text);
    cot_buffer_free(&call->new_tokens);
    cot_buffer_free(&call->new_logprobs);
    cot_buffer_free(&call->top_counts);
    cot_buffer_free(&call->top_tokens);
    cot_buffer_free(&call->top_logprobs);
    cot_free(call);
}

/* ---- answers ---- */

static cot_status_t fill_tops(const coord_call_t *call, Coterie__Delta *delta, Coterie__Top **tops_out)
{
    size_t count = call->top_counts.size / sizeof(uint32_t);
    Coterie__Top *top = cot_calloc(count, sizeof(*top) + sizeof(top));
    if (top == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the logprobs of %zu tokens", count);
    delta->n_tops = count;
    delta->tops = (Coterie__Top **)(void *)(top + count);
    const uint32_t *tops = (const uint32_t *)(const void *)call->top_counts.data;
    int32_t *token = (int32_t *)(void *)call->top_tokens.data;
    float *logprob = (float *)(void *)call->top_logprobs.data;
    for (size_t i = 0; i < count; i++) {
        coterie__top__init(&top[i]);
        top[i].n_tokens = top[i].n_logprobs = tops[i];
        top[i].tokens = token;
        top[i].logprobs = logprob;
        token += tops[i];
        logprob += tops[i];
        delta->tops[i] = &top[i];
    }
    *tops_out = top;
    return COT_OK;
}

static void clear_news(coord_call_t *call)
{
    cot_buffer_clear(&call->new_text);
    cot_buffer_clear(&call->new_tokens);
    cot_buffer_clear(&call->new_logprobs);
    cot_buffer_clear(&call->top_counts);
    cot_buffer_clear(&call->top_tokens);
    cot_buffer_clear(&call->top_logprobs);
}

/* Puts what is new into `delta` and sends it. */
static cot_status_t send_delta(coord_call_t *call, Coterie__Delta *delta)
{
    Coterie__Envelope envelope = COTERIE__ENVELOPE__INIT;
    Coterie__Top *tops = NULL;
    if (call->top_counts.size > 0) COT_TRY(fill_tops(call, delta, &tops));
    delta->has_text = call->new_text.size > 0;
    delta->text = (ProtobufCBinaryData){.data = call->new_text.data, .len = call->new_text.size};
    delta->n_tokens = call->new_tokens.size / sizeof(int32_t);
    delta->tokens = (int32_t *)(void *)call->new_tokens.data;
    delta->n_logprobs = call->new_logprobs.size / sizeof(float);
    delta->logprobs = (float *)(void *)call->new_logprobs.data;
    envelope.has_id = 1;
    envelope.id = call->id;
    envelope.body_case = COTERIE__ENVELOPE__BODY_DELTA;
    envelope.delta = delta;
    cot_status_t status = coord_send(call->connection, &envelope);
    cot_free(tops);
    clear_news(call);
    return status;
}

static void fill_usage(const coord_call_t *call, Coterie__Delta *delta, Coterie__Usage *usage)
{
    usage->has_prompt_tokens = usage->has_generated_tokens = 1;
    usage->prompt_tokens = call->prompt_tokens;
    usage->generated_tokens = call->generated;
    delta->usage = usage;
    delta->has_seed = 1;
    delta->seed = call->seed;
}

static cot_status_t send_first(coord_call_t *call)
{
    Coterie__Delta delta = COTERIE__DELTA__INIT;
    Coterie__Usage usage = COTERIE__USAGE__INIT;
    fill_usage(call, &delta, &usage);
    return send_delta(call, &delta);
}

/* The last Delta; after it the call is no more. Held-back text follows only a text that is complete: after a failure or
 * a cancellation the client can resume, and gets it then. */
static void send_last(coord_call_t *call, Coterie__Finish finish, const char *error)
{
    Coterie__Delta delta = COTERIE__DELTA__INIT;
    Coterie__Usage usage = COTERIE__USAGE__INIT;
    if (call->status == COT_OK && (finish == COTERIE__FINISH__EOS || finish == COTERIE__FINISH__LENGTH))
        call->status = coord_text_finish(&call->text, &call->new_text);
    if (call->status != COT_OK) {
        coord_send_error(call->connection, call->id, rpc_code_of(call->status), cot_status_text(call->status));
        return;
    }
    fill_usage(call, &delta, &usage);
    delta.has_finish = 1;
    delta.finish = finish;
    delta.error = (char *)error;
    cot_status_t status = send_delta(call, &delta);
    if (status != COT_OK) coord_send_error(call->connection, call->id, rpc_code_of(status), cot_error_text());
}

/* ---- events of the engine ---- */

static cot_status_t add_token(coord_call_t *call, const coord_token_t *token)
{
    COT_TRY(coord_text_push(&call->text, token->token, &call->new_text, &call->stopped));
    COT_TRY(cot_buffer_append(&call->new_tokens, &token->token, sizeof(token->token)));
    COT_TRY(cot_buffer_append(&call->new_logprobs, &token->logprob, sizeof(token->logprob)));
    if (!call->want_tops) return COT_OK;
    COT_TRY(cot_buffer_append(&call->top_counts, &token->tops, sizeof(token->tops)));
    COT_TRY(cot_buffer_append(&call->top_tokens, token->top_token, token->tops * sizeof(*token->top_token)));
    return cot_buffer_append(&call->top_logprobs, token->top_logprob, token->tops * sizeof(*token->top_logprob));
}

static bool on_token(void *user, const coord_token_t *token)
{
    coord_call_t *call = user;
    call->generated++;
    cot_status_t status = add_token(call, token);
    if (status == COT_OK && call->stream) {
        Coterie__Delta delta = COTERIE__DELTA__INIT;
        status = send_delta(call, &delta);
    }
    if (status != COT_OK) call->status = status;
    return status == COT_OK && !call->stopped;
}

static void on_finished(void *user, coord_finish_t finish, const char *error)
{
    static const Coterie__Finish FINISH[] = {
        [COORD_FINISH_NONE] = COTERIE__FINISH__FAILED,
        [COORD_FINISH_STOP] = COTERIE__FINISH__STOP,
        [COORD_FINISH_EOS] = COTERIE__FINISH__EOS,
        [COORD_FINISH_LENGTH] = COTERIE__FINISH__LENGTH,
        [COORD_FINISH_CANCELLED] = COTERIE__FINISH__CANCELLED_BY_CLIENT,
        [COORD_FINISH_ERROR] = COTERIE__FINISH__FAILED,
    };
    coord_call_t *call = user;
    Coterie__Finish last = call->stopped ? COTERIE__FINISH__STOP : FINISH[finish];
    if (last == COTERIE__FINISH__CANCELLED_BY_CLIENT && !call->cancelled) { /* then it is the server that ends */
        last = COTERIE__FINISH__FAILED;
        error = "the server ended before the answer was whole; another one can resume it";
    }
    send_last(call, last, error);
    unlink_call(call);
    free_call(call);
}

static const coord_events_t EVENTS = {.token = on_token, .finished = on_finished};

/* ---- a new request ---- */

static cot_status_t check_state(const coord_connection_t *connection, Coterie__Code *code_out)
{
    const coord_server_t *server = connection->server;
    *code_out = COTERIE__CODE__BUSY;
    if (server->draining) {
        *code_out = COTERIE__CODE__DRAINING;
        return cot_fail(COT_ERR_BUSY, "the server is about to end and takes no new requests");
    }
    if (server->engine == NULL) {
        *code_out = COTERIE__CODE__LOADING;
        return cot_fail(COT_ERR_BUSY, "the model is still loading (%.0f %%): try again in a moment",
                        (double)server->progress * 100);
    }
    if (connection->call_count >= RPC_MAX_CALLS)
        return cot_fail(COT_ERR_BUSY, "busy: %u requests of this client are open already", connection->call_count);
    return COT_OK;
}

static cot_status_t read_prompt(const coord_server_t *server, const Coterie__Generate *generate, cot_buffer_t *ids)
{
    const model_tokenizer_t *tokenizer = server->config.tokenizer;
    if (generate->has_text == (generate->n_tokens > 0))
        return cot_fail(COT_ERR_INVALID, "give the prompt either as text or as token ids");
    if (!generate->has_text) return cot_buffer_append(ids, generate->tokens, generate->n_tokens * sizeof(int32_t));
    if (tokenizer == NULL)
        return cot_fail(COT_ERR_UNSUPPORTED, "this model has no tokenizer.json: send the prompt as token ids");
    if (generate->text.len > server->config.max_prompt_bytes)
        return cot_fail(COT_ERR_LIMIT, "a prompt of %zu bytes: at most %zu (--max-prompt)", generate->text.len,
                        server->config.max_prompt_bytes);
    COT_TRY(model_tokenizer_encode(tokenizer, (const char *)generate->text.data, generate->text.len,
                                   generate->add_special, ids));
    if (ids->size == 0) return cot_fail(COT_ERR_INVALID, "the prompt is empty");
    return COT_OK;
}

/* Below 2^53: what comes back as JSON, or is typed as --seed, is the same number everywhere. */
static cot_status_t draw_seed(uint64_t *seed_out)
{
    if (getrandom(seed_out, sizeof(*seed_out), 0) != (ssize_t)sizeof(*seed_out))
        return cot_fail(COT_ERR_IO, "cannot draw a seed: %s", strerror(errno));
    *seed_out >>= 11;
    return COT_OK;
}

/* What the request leaves open is the model's. */
static coord_sampling_t merge_sampling(const coord_server_t *server, const Coterie__Generate *generate, uint64_t seed)
{
    const model_config_t *model = server->config.model;
    coord_sampling_t sampling = {.temperature = model->sampling.temperature,
                                 .top_p = model->sampling.top_p,
                                 .min_p = model->sampling.min_p,
                                 .repetition_penalty = model->sampling.repetition_penalty,
                                 .top_k = model->sampling.top_k,
                                 .top_logprobs = generate->logprobs,
                                 .seed = seed};
    const Coterie__Sampling *given = generate->sampling;
    if (given == NULL) return sampling;
    if (given->has_temperature) sampling.temperature = given->temperature;
    if (given->has_top_p) sampling.top_p = given->top_p;
    if (given->has_min_p) sampling.min_p = given->min_p;
    if (given->has_repetition_penalty) sampling.repetition_penalty = given->repetition_penalty;
    if (given->has_top_k) sampling.top_k = given->top_k;
    return sampling;
}

static cot_status_t prepare(coord_call_t *call, const Coterie__Generate *generate, cot_buffer_t *ids)
{
    const coord_server_t *server = call->connection->server;
    COT_TRY(read_prompt(server, generate, ids));
    if (generate->has_max_tokens && generate->max_tokens == 0)
        return cot_fail(COT_ERR_INVALID, "max_tokens is 0: must be at least 1");
    call->prompt_tokens = (uint32_t)(ids->size / sizeof(int32_t));
    call->max_tokens = generate->has_max_tokens ? generate->max_tokens : UINT32_MAX;
    call->stream = generate->stream;
    call->want_tops = generate->logprobs > 0;
    call->ignore_eos = generate->ignore_eos;
    call->text.tokenizer = server->config.tokenizer;
    if (generate->sampling != NULL && generate->sampling->has_seed)
        call->seed = generate->sampling->seed;
    else
        COT_TRY(draw_seed(&call->seed));
    for (size_t i = 0; i < generate->n_stop; i++)
        COT_TRY(coord_text_add_stop(&call->text, generate->stop[i].data, generate->stop[i].len));
    COT_TRY(coord_text_follow(&call->text, (const int32_t *)(const void *)ids->data, call->prompt_tokens));
    return cot_buffer_append(ids, generate->resume, generate->n_resume * sizeof(int32_t));
}

static bool ends_text(const coord_call_t *call, int32_t token)
{
    const model_config_t *model = call->connection->server->config.model;
    for (uint32_t i = 0; i < model->eos_count && !call->ignore_eos; i++)
        if (model->eos[i] == token) return true;
    return false;
}

/* Takes the call to where it stood after the tokens that the client has already. *finish_out: how it ended with them;
 * 0: it goes on. */
static cot_status_t replay(coord_call_t *call, const Coterie__Generate *generate, int *finish_out)
{
    *finish_out = 0;
    for (size_t i = 0; i < generate->n_resume && *finish_out == 0; i++) {
        COT_TRY(coord_text_push(&call->text, generate->resume[i], &call->new_text, &call->stopped));
        call->generated++;
        if (call->stopped) *finish_out = COTERIE__FINISH__STOP;
        if (ends_text(call, generate->resume[i])) *finish_out = COTERIE__FINISH__EOS;
    }
    uint64_t tokens = (uint64_t)call->prompt_tokens + call->generated;
    bool full = call->generated >= call->max_tokens || tokens >= call->connection->server->config.max_context;
    if (*finish_out == 0 && call->generated > 0 && full) *finish_out = COTERIE__FINISH__LENGTH;
    cot_buffer_clear(&call->new_text);
    return COT_OK;
}

static cot_status_t submit(coord_call_t *call, const Coterie__Generate *generate, const cot_buffer_t *ids)
{
    coord_server_t *server = call->connection->server;
    const coord_submit_t request = {
        .tokens = (const int32_t *)(const void *)ids->data,
        .count = (uint32_t)(ids->size / sizeof(int32_t)),
        .max_tokens = call->max_tokens - call->generated,
        .ignore_eos = call->ignore_eos,
        .trace_request = server->requests,
        .prompt_count = call->prompt_tokens,
        .sampling = merge_sampling(server, generate, call->seed),
        .events = &EVENTS,
        .user = call,
    };
    COT_TRY(coord_engine_submit(server->engine, &request, &call->request));
    server->requests++;
    return COT_OK;
}

/* *over_out: it was over before the engine saw it. */
static cot_status_t start(coord_call_t *call, const Coterie__Generate *generate, bool *over_out)
{
    cot_buffer_t ids = {0};
    int finish = 0;
    cot_status_t status;
    COT_TRY_GOTO(prepare(call, generate, &ids), status, free_ids);
    COT_TRY_GOTO(replay(call, generate, &finish), status, free_ids);
    if (finish == 0) COT_TRY_GOTO(submit(call, generate, &ids), status, free_ids);
    if (call->stream) send_first(call); /* if that fails, the connection is closed soon, and the call with it */
    *over_out = finish != 0;
    if (*over_out) send_last(call, (Coterie__Finish)finish, NULL);
free_ids:
    cot_buffer_free(&ids);
    return status;
}

void coord_call_start(coord_connection_t *connection, uint64_t id, const Coterie__Generate *generate)
{
    if (find_call(connection, id) != NULL) {
        coord_send_error(connection, 0, COTERIE__CODE__PROTOCOL, "the id of a new call is that of an open one");
        return;
    }
    Coterie__Code code = COTERIE__CODE__UNKNOWN;
    if (check_state(connection, &code) != COT_OK) {
        coord_send_error(connection, id, code, cot_error_text());
        return;
    }
    coord_call_t *call = cot_calloc(1, sizeof(*call));
    if (call == NULL) {
        coord_send_error(connection, id, COTERIE__CODE__NO_MEMORY, "the server has no memory for one more request");
        return;
    }
    call->connection = connection;
    call->id = id;
    bool over = false;
    cot_status_t status = start(call, generate, &over);
    if (status != COT_OK) coord_send_error(connection, id, rpc_code_of(status), cot_error_text());
    if (status != COT_OK || over)
        free_call(call);
    else
        link_call(connection, call);
}

void coord_call_cancel(coord_connection_t *connection, uint64_t id)
{
    coord_call_t *call = find_call(connection, id);
    if (call == NULL) return;
    call->cancelled = true;
    coord_engine_cancel(connection->server->engine, call->request);
}

void coord_calls_end(coord_connection_t *connection)
{
    while (connection->calls != NULL) coord_engine_cancel(connection->server->engine, connection->calls->request);
}
