#include "client/client_int.h"

#include "base/memory.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

enum { CANCEL_TIMEOUT_MS = 2000, LOADING_RETRY_MS = 200 };

_Static_assert((int)COTERIE_CLIENT_FINISH_STOP == (int)COTERIE__FINISH__STOP &&
                   (int)COTERIE_CLIENT_FINISH_EOS == (int)COTERIE__FINISH__EOS &&
                   (int)COTERIE_CLIENT_FINISH_LENGTH == (int)COTERIE__FINISH__LENGTH &&
                   (int)COTERIE_CLIENT_FINISH_CANCELLED == (int)COTERIE__FINISH__CANCELLED_BY_CLIENT,
               "coterie_client.h states the ends of coterie.proto");

void coterie_client_request_init(coterie_client_request_t *request)
{
    *request = (coterie_client_request_t){.size = sizeof(*request)};
}

const char *coterie_client_finish_name(coterie_client_finish_t finish)
{
    switch (finish) {
    case COTERIE_CLIENT_FINISH_STOP: return "stop";
    case COTERIE_CLIENT_FINISH_EOS: return "eos";
    case COTERIE_CLIENT_FINISH_LENGTH: return "length";
    case COTERIE_CLIENT_FINISH_CANCELLED: return "cancelled";
    default: return "none";
    }
}

/* ---- the request ---- */

static void fill_sampling(const coterie_client_request_t *request, Coterie__Sampling *sampling)
{
    sampling->has_temperature = (request->set & COTERIE_CLIENT_TEMPERATURE) != 0;
    sampling->temperature = request->temperature;
    sampling->has_top_k = (request->set & COTERIE_CLIENT_TOP_K) != 0;
    sampling->top_k = request->top_k;
    sampling->has_top_p = (request->set & COTERIE_CLIENT_TOP_P) != 0;
    sampling->top_p = request->top_p;
    sampling->has_min_p = (request->set & COTERIE_CLIENT_MIN_P) != 0;
    sampling->min_p = request->min_p;
    sampling->has_repetition_penalty = (request->set & COTERIE_CLIENT_REPETITION_PENALTY) != 0;
    sampling->repetition_penalty = request->repetition_penalty;
    sampling->has_seed = (request->set & COTERIE_CLIENT_SEED) != 0;
    sampling->seed = request->seed;
}

/* Borrows everything from `request` but the list of stop texts, which the caller frees. */
static cot_status_t fill_generate(const coterie_client_request_t *request, Coterie__Generate *generate)
{
    generate->has_text = request->text != NULL;
    generate->text = (ProtobufCBinaryData){.data = (uint8_t *)request->text, .len = request->text_bytes};
    generate->n_tokens = request->token_count;
    generate->tokens = (int32_t *)request->tokens;
    generate->has_add_special = 1;
    generate->add_special = !request->no_special;
    generate->has_max_tokens = (request->set & COTERIE_CLIENT_MAX_TOKENS) != 0;
    generate->max_tokens = request->max_tokens;
    generate->has_logprobs = request->logprobs > 0;
    generate->logprobs = request->logprobs;
    generate->has_ignore_eos = generate->has_stream = 1;
    generate->ignore_eos = request->ignore_eos != 0;
    generate->stream = !request->at_once;
    generate->n_resume = request->resume_count;
    generate->resume = (int32_t *)request->resume;
    if (request->stop_count == 0) return COT_OK;
    generate->stop = cot_calloc(request->stop_count, sizeof(*generate->stop));
    if (generate->stop == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the stop texts");
    generate->n_stop = request->stop_count;
    for (uint32_t i = 0; i < request->stop_count; i++)
        generate->stop[i] = (ProtobufCBinaryData){.data = (uint8_t *)request->stops[i],
                                                  .len = strlen(request->stops[i])};
    return COT_OK;
}

static cot_status_t send_cancel(coterie_client_t *client, uint64_t id, cot_deadline_t deadline)
{
    Coterie__Cancel cancel = COTERIE__CANCEL__INIT;
    Coterie__Envelope envelope = COTERIE__ENVELOPE__INIT;
    envelope.has_id = 1;
    envelope.id = id;
    envelope.body_case = COTERIE__ENVELOPE__BODY_CANCEL;
    envelope.cancel = &cancel;
    return client_channel_send(&client->channel, &envelope, deadline);
}

/* ---- the answer ---- */

/* One call as it goes on. */
typedef struct {
    coterie_client_t *client;
    const coterie_client_request_t *request;
    coterie_client_result_t result;
    uint64_t id;
    cot_deadline_t deadline;
    cot_status_t given_up; /* why Cancel was sent: CANCELLED or TIMEOUT */
    bool loading;          /* the server asks to try again */
} call_t;

static cot_status_t check_delta(const Coterie__Delta *delta)
{
    bool fits = delta->n_logprobs == delta->n_tokens && (delta->n_tops == 0 || delta->n_tops == delta->n_tokens);
    for (size_t i = 0; i < delta->n_tops && fits; i++) fits = delta->tops[i]->n_tokens == delta->tops[i]->n_logprobs;
    return fits ? COT_OK : cot_fail(COT_ERR_PROTOCOL, "the server's answer has tokens without their logprobs");
}

/* Hands the news to the caller. *cancel_out: it has enough. */
static cot_status_t deliver(call_t *call, const Coterie__Delta *delta, bool *cancel_out)
{
    *cancel_out = false;
    if (call->request->on_delta == NULL || (delta->text.len == 0 && delta->n_tokens == 0)) return COT_OK;
    coterie_client_top_t *tops = NULL;
    if (delta->n_tops > 0) {
        tops = cot_calloc(delta->n_tops, sizeof(*tops));
        if (tops == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the logprobs of an answer");
        for (size_t i = 0; i < delta->n_tops; i++)
            tops[i] = (coterie_client_top_t){.count = (uint32_t)delta->tops[i]->n_tokens,
                                             .tokens = delta->tops[i]->tokens,
                                             .logprobs = delta->tops[i]->logprobs};
    }
    const coterie_client_delta_t news = {
        .size = sizeof(news),
        .text = delta->text.data != NULL ? (const char *)delta->text.data : "",
        .text_bytes = delta->text.len,
        .count = (uint32_t)delta->n_tokens,
        .tokens = delta->tokens,
        .logprobs = delta->logprobs,
        .tops = tops,
    };
    *cancel_out = call->request->on_delta(call->request->user, &news) != 0;
    cot_free(tops);
    return COT_OK;
}

static cot_status_t finish(call_t *call, const Coterie__Delta *delta)
{
    if (delta->finish == COTERIE__FINISH__FAILED)
        return cot_fail(COT_ERR_PEER_LOST, "the server could not finish the request: %s",
                        delta->error != NULL && delta->error[0] != '\0' ? delta->error : "no reason given");
    call->result.finish = (coterie_client_finish_t)delta->finish;
    if (delta->finish != COTERIE__FINISH__CANCELLED_BY_CLIENT) return COT_OK;
    if (call->given_up == COT_ERR_TIMEOUT)
        return cot_fail(COT_ERR_TIMEOUT, "the answer was not complete before the deadline; --timeout sets it");
    return cot_fail(COT_ERR_CANCELLED, "cancelled");
}

/* Tells the server to stop; its last word is awaited for a while. */
static cot_status_t give_up(call_t *call, cot_status_t reason)
{
    call->given_up = reason;
    call->deadline = cot_deadline_in_ms(CANCEL_TIMEOUT_MS);
    return send_cancel(call->client, call->id, call->deadline);
}

static cot_status_t take_delta(call_t *call, const Coterie__Delta *delta, bool *over_out)
{
    COT_TRY(check_delta(delta));
    if (delta->has_seed) call->result.seed = delta->seed;
    if (delta->usage != NULL) {
        call->result.prompt_tokens = delta->usage->prompt_tokens;
        call->result.generated_tokens = delta->usage->generated_tokens;
    }
    bool cancel = false;
    if (call->given_up == COT_OK) COT_TRY(deliver(call, delta, &cancel));
    *over_out = delta->has_finish;
    if (delta->has_finish) return finish(call, delta);
    return cancel ? give_up(call, COT_ERR_CANCELLED) : COT_OK;
}

static cot_status_t take_answer(call_t *call, const Coterie__Envelope *answer, bool *over_out)
{
    bool ours = answer->id == call->id;
    if (answer->body_case == COTERIE__ENVELOPE__BODY_ERROR && (ours || answer->id == 0)) {
        *over_out = true;
        call->loading = ours && answer->error->code == COTERIE__CODE__LOADING;
        if (call->loading && call->request->on_loading != NULL)
            call->request->on_loading(call->request->user, (double)answer->error->progress);
        return client_fail_with(answer->error);
    }
    if (!ours) return COT_OK; /* of an earlier call that was given up */
    if (answer->body_case != COTERIE__ENVELOPE__BODY_DELTA)
        return cot_fail(COT_ERR_PROTOCOL, "%s gave an answer that does not belong to the question",
                        call->client->channel.address);
    return take_delta(call, answer->delta, over_out);
}

static cot_status_t receive(call_t *call)
{
    bool over = false;
    while (!over) {
        Coterie__Envelope *answer = NULL;
        bool may_cancel = call->given_up == COT_OK;
        cot_status_t status = client_channel_receive(&call->client->channel, call->deadline, may_cancel, &answer);
        if (may_cancel && (status == COT_ERR_CANCELLED || status == COT_ERR_TIMEOUT)) {
            COT_TRY(give_up(call, status));
            continue;
        }
        if (status == COT_ERR_TIMEOUT)
            return cot_fail(call->given_up, "given up, and the server did not confirm it within %d ms",
                            CANCEL_TIMEOUT_MS);
        COT_TRY(status);
        status = take_answer(call, answer, &over);
        rpc_envelope_free(answer);
        if (status != COT_OK && !over) call->client->channel.broken = true;
        COT_TRY(status);
    }
    return COT_OK;
}

static cot_status_t pause_loading(call_t *call)
{
    struct pollfd wake = {.fd = call->client->channel.wake, .events = POLLIN};
    poll(&wake, 1, LOADING_RETRY_MS);
    if (atomic_load(&call->client->channel.cancelled)) return cot_fail(COT_ERR_CANCELLED, "cancelled");
    if (!cot_deadline_passed(call->deadline)) return COT_OK;
    return cot_fail(COT_ERR_TIMEOUT, "the model was still loading at the deadline; --timeout sets it");
}

static cot_status_t run(call_t *call)
{
    Coterie__Generate generate = COTERIE__GENERATE__INIT;
    Coterie__Sampling sampling = COTERIE__SAMPLING__INIT;
    Coterie__Envelope envelope = COTERIE__ENVELOPE__INIT;
    COT_TRY(fill_generate(call->request, &generate));
    fill_sampling(call->request, &sampling);
    generate.sampling = &sampling;
    envelope.has_id = 1;
    envelope.body_case = COTERIE__ENVELOPE__BODY_GENERATE;
    envelope.generate = &generate;
    cot_status_t status;
    do {
        call->loading = false;
        envelope.id = call->id = ++call->client->last_id;
        status = client_channel_send(&call->client->channel, &envelope, call->deadline);
        if (status == COT_OK) status = receive(call);
        if (!call->loading) break;
        status = pause_loading(call);
    } while (status == COT_OK);
    cot_free(generate.stop);
    return status;
}

static void forget_cancel(client_channel_t *channel)
{
    uint64_t count;
    if (read(channel->wake, &count, sizeof(count)) < 0) {
        /* Nobody cancelled. */
    }
    atomic_store(&channel->cancelled, 0);
}

int coterie_client_generate(coterie_client_t *client, const coterie_client_request_t *request,
                            coterie_client_result_t *result_out)
{
    if (request->size < sizeof(*request) || (result_out != NULL && result_out->size < sizeof(*result_out)))
        return cot_fail(COT_ERR_INVALID, "coterie_client_generate: set the sizes of request and result");
    call_t call = {.client = client,
                   .request = request,
                   .result = {.size = sizeof(call.result)},
                   .deadline = client_deadline(request->timeout_ms)};
    cot_status_t status = run(&call);
    if (status == COT_ERR_CANCELLED) call.result.finish = COTERIE_CLIENT_FINISH_CANCELLED;
    if (result_out != NULL) *result_out = call.result;
    forget_cancel(&client->channel);
    return status;
}
