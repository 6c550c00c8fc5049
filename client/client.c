#include "client/client_int.h"

#include "base/memory.h"
#include "proto/limits.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

/* The public numbers are the tree's statuses. */
_Static_assert(
    (int)COTERIE_CLIENT_INVALID == (int)COT_ERR_INVALID && (int)COTERIE_CLIENT_LIMIT == (int)COT_ERR_LIMIT &&
        (int)COTERIE_CLIENT_NOT_FOUND == (int)COT_ERR_NOT_FOUND && (int)COTERIE_CLIENT_FORMAT == (int)COT_ERR_FORMAT &&
        (int)COTERIE_CLIENT_UNSUPPORTED == (int)COT_ERR_UNSUPPORTED &&
        (int)COTERIE_CLIENT_MISMATCH == (int)COT_ERR_MISMATCH && (int)COTERIE_CLIENT_BUSY == (int)COT_ERR_BUSY &&
        (int)COTERIE_CLIENT_AUTH == (int)COT_ERR_AUTH && (int)COTERIE_CLIENT_CANCELLED == (int)COT_ERR_CANCELLED &&
        (int)COTERIE_CLIENT_PEER_LOST == (int)COT_ERR_PEER_LOST &&
        (int)COTERIE_CLIENT_TIMEOUT == (int)COT_ERR_TIMEOUT && (int)COTERIE_CLIENT_PROTOCOL == (int)COT_ERR_PROTOCOL &&
        (int)COTERIE_CLIENT_DEVICE == (int)COT_ERR_DEVICE && (int)COTERIE_CLIENT_NO_MEMORY == (int)COT_ERR_NO_MEMORY &&
        (int)COTERIE_CLIENT_IO == (int)COT_ERR_IO && (int)COTERIE_CLIENT_INTERNAL == (int)COT_ERR_INTERNAL,
    "coterie_client.h states the statuses of base/status.h");
_Static_assert((int)COTERIE_CLIENT_LOADING == (int)COTERIE__STATE__STATE_LOADING &&
                   (int)COTERIE_CLIENT_READY == (int)COTERIE__STATE__STATE_OK &&
                   (int)COTERIE_CLIENT_DRAINING == (int)COTERIE__STATE__STATE_DRAINING,
               "and the states of coterie.proto");

#define CONNECT_TIMEOUT_MS 10000

const char *coterie_client_error(void)
{
    return cot_error_text();
}

cot_deadline_t client_deadline(int64_t timeout_ms)
{
    return timeout_ms > 0 ? cot_deadline_in_ms(timeout_ms) : COT_NEVER;
}

/* ---- calls ---- */

cot_status_t client_fail_with(const Coterie__Error *error)
{
    const char *message = error->message != NULL && error->message[0] != '\0' ? error->message : "no reason given";
    return cot_fail(rpc_status_of(error->code), "%s", message);
}

static cot_status_t receive_answer(coterie_client_t *client, uint64_t id, cot_deadline_t deadline,
                                   Coterie__Envelope **answer_out)
{
    for (;;) {
        Coterie__Envelope *answer = NULL;
        COT_TRY(client_channel_receive(&client->channel, deadline, false, &answer));
        bool error = answer->body_case == COTERIE__ENVELOPE__BODY_ERROR;
        if (error && (answer->id == id || answer->id == 0)) {
            cot_status_t status = client_fail_with(answer->error);
            if (answer->id == 0) client->channel.broken = true; /* the server closes it */
            rpc_envelope_free(answer);
            return status;
        }
        if (answer->id == id) {
            *answer_out = answer;
            return COT_OK;
        }
        rpc_envelope_free(answer); /* of an earlier call that was given up */
    }
}

cot_status_t client_call(coterie_client_t *client, Coterie__Envelope *envelope, cot_deadline_t deadline,
                         Coterie__Envelope **answer_out)
{
    envelope->has_id = 1;
    envelope->id = ++client->last_id;
    COT_TRY(client_channel_send(&client->channel, envelope, deadline));
    return receive_answer(client, envelope->id, deadline, answer_out);
}

/* ---- connecting ---- */

static cot_status_t fail_protocol(coterie_client_t *client, Coterie__Envelope *answer)
{
    rpc_envelope_free(answer);
    client->channel.broken = true;
    return cot_fail(COT_ERR_PROTOCOL, "%s gave an answer that does not belong to the question",
                    client->channel.address);
}

static cot_status_t take_welcome(coterie_client_t *client, Coterie__Envelope *answer)
{
    if (answer->body_case != COTERIE__ENVELOPE__BODY_WELCOME) return fail_protocol(client, answer);
    const Coterie__Welcome *welcome = answer->welcome;
    client->model = cot_strdup(welcome->model != NULL ? welcome->model : "");
    client->server = cot_strdup(welcome->server != NULL ? welcome->server : "");
    client->vocabulary = welcome->vocabulary;
    rpc_envelope_free(answer);
    if (client->model == NULL || client->server == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a client");
    return COT_OK;
}

static cot_status_t say_hello(coterie_client_t *client, const char *token, cot_deadline_t deadline)
{
    Coterie__Hello hello = COTERIE__HELLO__INIT;
    Coterie__Envelope envelope = COTERIE__ENVELOPE__INIT, *answer = NULL;
    hello.has_version = 1;
    hello.version = RPC_PROTOCOL_VERSION;
    hello.agent = (char *)"libcoterie-client " COTERIE_VERSION;
    if (token != NULL) {
        hello.has_token = 1;
        hello.token = (ProtobufCBinaryData){.data = (uint8_t *)token, .len = strlen(token)};
    }
    envelope.body_case = COTERIE__ENVELOPE__BODY_HELLO;
    envelope.hello = &hello;
    COT_TRY(client_channel_send(&client->channel, &envelope, deadline));
    cot_status_t status = receive_answer(client, 0, deadline, &answer);
    if (status == COT_ERR_PEER_LOST && client->channel.ssl == NULL)
        return cot_fail(status, "%s hung up before it answered (does it want TLS? --tls-ca turns it on)",
                        client->channel.address);
    COT_TRY(status);
    return take_welcome(client, answer);
}

int coterie_client_connect(const coterie_client_options_t *options, coterie_client_t **client_out)
{
    if (options == NULL || options->size < sizeof(*options))
        return cot_fail(COT_ERR_INVALID, "coterie_client_connect: begin with COTERIE_CLIENT_OPTIONS_INIT");
    coterie_client_t *client = cot_calloc(1, sizeof(*client));
    if (client == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a client");
    cot_deadline_t deadline = cot_deadline_in_ms(options->timeout_ms > 0 ? options->timeout_ms : CONNECT_TIMEOUT_MS);
    const char *tls_ca = options->tls_ca != NULL && options->tls_ca[0] != '\0' ? options->tls_ca : NULL;
    cot_status_t status;
    COT_TRY_GOTO(client_channel_open(&client->channel, options->address, tls_ca, deadline), status, free_client);
    COT_TRY_GOTO(say_hello(client, options->token, deadline), status, close_client);
    *client_out = client;
    return COT_OK;

close_client:
    coterie_client_close(client);
    return status;
free_client:
    cot_free(client);
    return status;
}

void coterie_client_close(coterie_client_t *client)
{
    if (client == NULL) return;
    client_channel_close(&client->channel);
    cot_free(client->model);
    cot_free(client->server);
    cot_free(client);
}

const char *coterie_client_model(const coterie_client_t *client)
{
    return client->model;
}

const char *coterie_client_server(const coterie_client_t *client)
{
    return client->server;
}

uint32_t coterie_client_vocabulary(const coterie_client_t *client)
{
    return client->vocabulary;
}

void coterie_client_cancel(coterie_client_t *client)
{
    int error = errno; /* a signal handler leaves it as it was */
    atomic_store(&client->channel.cancelled, 1);
    uint64_t one = 1;
    if (write(client->channel.wake, &one, sizeof(one)) < 0) {
        /* The flag is set; the counter of the eventfd is full, so it is readable already. */
    }
    errno = error;
}

/* ---- health, status, drain ---- */

int coterie_client_health(coterie_client_t *client, int64_t timeout_ms, coterie_client_state_t *state_out,
                          double *progress_out)
{
    Coterie__HealthRequest request = COTERIE__HEALTH_REQUEST__INIT;
    Coterie__Envelope envelope = COTERIE__ENVELOPE__INIT, *answer = NULL;
    envelope.body_case = COTERIE__ENVELOPE__BODY_HEALTH_REQUEST;
    envelope.health_request = &request;
    COT_TRY(client_call(client, &envelope, client_deadline(timeout_ms), &answer));
    if (answer->body_case != COTERIE__ENVELOPE__BODY_HEALTH) return fail_protocol(client, answer);
    *state_out = (coterie_client_state_t)answer->health->state;
    if (progress_out != NULL) *progress_out = (double)answer->health->progress;
    rpc_envelope_free(answer);
    return COT_OK;
}

int coterie_client_status(coterie_client_t *client, int64_t timeout_ms, char **json_out)
{
    Coterie__StatusRequest request = COTERIE__STATUS_REQUEST__INIT;
    Coterie__Envelope envelope = COTERIE__ENVELOPE__INIT, *answer = NULL;
    envelope.body_case = COTERIE__ENVELOPE__BODY_STATUS_REQUEST;
    envelope.status_request = &request;
    COT_TRY(client_call(client, &envelope, client_deadline(timeout_ms), &answer));
    if (answer->body_case != COTERIE__ENVELOPE__BODY_STATUS) return fail_protocol(client, answer);
    cot_buffer_t json = {0};
    cot_status_t status = client_status_print(answer->status, &json);
    if (status == COT_OK) status = cot_buffer_append(&json, "", 1);
    rpc_envelope_free(answer);
    if (status != COT_OK) {
        cot_buffer_free(&json);
        return status;
    }
    *json_out = (char *)json.data;
    return COT_OK;
}

void coterie_client_free(char *json)
{
    cot_free(json);
}

int coterie_client_drain(coterie_client_t *client, int64_t timeout_ms, uint32_t *unfinished_out)
{
    Coterie__Drain request = COTERIE__DRAIN__INIT;
    Coterie__Envelope envelope = COTERIE__ENVELOPE__INIT, *answer = NULL;
    envelope.body_case = COTERIE__ENVELOPE__BODY_DRAIN;
    envelope.drain = &request;
    COT_TRY(client_call(client, &envelope, client_deadline(timeout_ms), &answer));
    if (answer->body_case != COTERIE__ENVELOPE__BODY_DRAINING) return fail_protocol(client, answer);
    if (unfinished_out != NULL) *unfinished_out = answer->draining->waiting + answer->draining->running;
    rpc_envelope_free(answer);
    return COT_OK;
}

int coterie_client_wait_end(coterie_client_t *client, int64_t timeout_ms)
{
    cot_deadline_t deadline = client_deadline(timeout_ms);
    for (;;) {
        Coterie__Envelope *answer = NULL;
        cot_status_t status = client_channel_receive(&client->channel, deadline, true, &answer);
        if (status == COT_ERR_PEER_LOST) return COT_OK;
        COT_TRY(status);
        rpc_envelope_free(answer);
    }
}
