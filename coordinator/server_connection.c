#include "base/log.h"
#include "base/memory.h"
#include "coordinator/server_int.h"

#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <string.h>
#include <unistd.h>

enum { LINGER_MS = 1000, SURPLUS_CONNECTIONS = 16 };

/* ---- ending ---- */

void coord_connection_doom(coord_connection_t *connection)
{
    if (connection->doomed) return;
    connection->doomed = true;
    connection->server->reap = true;
    bufferevent_disable(connection->event, EV_READ | EV_WRITE);
}

void coord_connection_free(coord_connection_t *connection)
{
    coord_server_t *server = connection->server;
    connection->doomed = true;
    coord_calls_end(connection);
    if (connection->before != NULL)
        connection->before->after = connection->after;
    else
        server->connections = connection->after;
    if (connection->after != NULL) connection->after->before = connection->before;
    server->connection_count--;
    event_free(connection->timer);
    bufferevent_free(connection->event);
    cot_free(connection);
}

bool coord_connection_flushed(const coord_connection_t *connection)
{
    return connection->doomed || evbuffer_get_length(bufferevent_get_output(connection->event)) == 0;
}

static void set_timer(coord_connection_t *connection, int64_t timeout_ms)
{
    const struct timeval after = {.tv_sec = timeout_ms / 1000, .tv_usec = (timeout_ms % 1000) * 1000};
    event_add(connection->timer, &after);
}

/* The last words have left: tells the peer so, and waits a moment for it to hang up. A socket that is closed while
 * unread bytes lie in it may take the last words with it. */
static void half_close(coord_connection_t *connection)
{
    SSL *ssl = bufferevent_openssl_get_ssl(connection->event);
    if (ssl != NULL) SSL_shutdown(ssl);
    ERR_clear_error(); /* of a handshake that was not over, say: it is no other connection's */
    shutdown(bufferevent_getfd(connection->event), SHUT_WR);
    set_timer(connection, LINGER_MS);
}

static void close_after_sending(coord_connection_t *connection)
{
    if (connection->closing) return;
    connection->closing = true;
    coord_calls_end(connection);
    set_timer(connection, LINGER_MS);
    if (coord_connection_flushed(connection)) half_close(connection);
}

/* ---- sending ---- */

static cot_status_t send_frame(coord_connection_t *connection, const Coterie__Envelope *envelope)
{
    coord_server_t *server = connection->server;
    struct evbuffer *output = bufferevent_get_output(connection->event);
    cot_buffer_clear(&server->frame);
    COT_TRY(rpc_frame_append(envelope, &server->frame));
    if (server->frame.size + evbuffer_get_length(output) > server->config.max_output_bytes)
        return cot_fail(COT_ERR_LIMIT, "it reads too slowly: %zu bytes wait for it, and %zu more",
                        evbuffer_get_length(output), server->frame.size);
    if (bufferevent_write(connection->event, server->frame.data, server->frame.size) != 0)
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for an answer of %zu bytes", server->frame.size);
    return COT_OK;
}

cot_status_t coord_send(coord_connection_t *connection, const Coterie__Envelope *envelope)
{
    if (connection->doomed || connection->closing) return COT_OK;
    cot_status_t status = send_frame(connection, envelope);
    if (status != COT_OK) {
        cot_log_info("client %llu is cut off: %s", (unsigned long long)connection->number, cot_error_text());
        coord_connection_doom(connection);
    }
    return status;
}

void coord_send_error(coord_connection_t *connection, uint64_t id, Coterie__Code code, const char *sentence)
{
    Coterie__Error error = COTERIE__ERROR__INIT;
    Coterie__Envelope envelope = COTERIE__ENVELOPE__INIT;
    char text[RPC_MAX_SENTENCE_BYTES];
    snprintf(text, sizeof(text), "%s", sentence);
    error.has_code = 1;
    error.code = code;
    error.message = text;
    if (code == COTERIE__CODE__LOADING) {
        error.has_progress = 1;
        error.progress = connection->server->progress;
    }
    envelope.has_id = 1;
    envelope.id = id;
    envelope.body_case = COTERIE__ENVELOPE__BODY_ERROR;
    envelope.error = &error;
    if (coord_send(connection, &envelope) != COT_OK || id != 0) return;
    cot_log_info("client %llu is closed: %s", (unsigned long long)connection->number, text);
    close_after_sending(connection);
}

/* ---- Hello ---- */

static void welcome(coord_connection_t *connection)
{
    const coord_server_config_t *config = &connection->server->config;
    Coterie__Welcome welcome = COTERIE__WELCOME__INIT;
    Coterie__Envelope envelope = COTERIE__ENVELOPE__INIT;
    welcome.has_version = 1;
    welcome.version = RPC_PROTOCOL_VERSION;
    welcome.server = (char *)"coterie " COTERIE_VERSION;
    welcome.model = (char *)config->model_name;
    welcome.has_vocabulary = 1;
    welcome.vocabulary = config->model->vocab;
    envelope.body_case = COTERIE__ENVELOPE__BODY_WELCOME;
    envelope.welcome = &welcome;
    coord_send(connection, &envelope);
}

static void admit(coord_connection_t *connection, const Coterie__Envelope *envelope)
{
    const coord_server_config_t *config = &connection->server->config;
    if (connection->surplus) {
        coord_send_error(connection, 0, COTERIE__CODE__BUSY,
                         "busy: as many clients are connected as --max-connections allows; try again later");
        return;
    }
    if (envelope->body_case != COTERIE__ENVELOPE__BODY_HELLO) {
        coord_send_error(connection, 0, COTERIE__CODE__PROTOCOL, "the first message must be Hello");
        return;
    }
    const Coterie__Hello *hello = envelope->hello;
    if (hello->version != RPC_PROTOCOL_VERSION) {
        char sentence[128];
        snprintf(sentence, sizeof(sentence),
                 "this server speaks version %u of the protocol, the client version %u: use the same release",
                 RPC_PROTOCOL_VERSION, hello->version);
        coord_send_error(connection, 0, COTERIE__CODE__PROTOCOL, sentence);
        return;
    }
    if (config->token != NULL && !rpc_token_equal(config->token, hello->token.data, hello->token.len)) {
        coord_send_error(connection, 0, COTERIE__CODE__AUTH,
                         hello->token.len == 0 ? "this server wants an access token: give --token-file or COTERIE_TOKEN"
                                               : "the access token is wrong: see --token-file or COTERIE_TOKEN");
        return;
    }
    connection->admitted = true;
    event_del(connection->timer);
    bufferevent_setwatermark(connection->event, EV_READ, 0,
                             connection->server->request_frame_bytes + RPC_FRAME_HEAD_BYTES);
    welcome(connection);
}

/* ---- frames ---- */

static void handle(coord_connection_t *connection, const Coterie__Envelope *envelope)
{
    if (!connection->admitted) {
        admit(connection, envelope);
        return;
    }
    if (envelope->id == 0) {
        coord_send_error(connection, 0, COTERIE__CODE__PROTOCOL, "a call needs an id that is not 0");
        return;
    }
    switch (envelope->body_case) {
    case COTERIE__ENVELOPE__BODY_GENERATE: coord_call_start(connection, envelope->id, envelope->generate); return;
    case COTERIE__ENVELOPE__BODY_CANCEL: coord_call_cancel(connection, envelope->id); return;
    case COTERIE__ENVELOPE__BODY_STATUS_REQUEST: coord_send_status(connection, envelope->id); return;
    case COTERIE__ENVELOPE__BODY_HEALTH_REQUEST: coord_send_health(connection, envelope->id); return;
    case COTERIE__ENVELOPE__BODY_DRAIN:
        cot_log_info("client %llu asks to drain", (unsigned long long)connection->number);
        coord_server_drain(connection->server);
        coord_send_draining(connection, envelope->id);
        return;
    default: coord_send_error(connection, 0, COTERIE__CODE__PROTOCOL, "a message that only a server may send"); return;
    }
}

/* Takes one whole frame from the input, if there is one. */
static cot_status_t take_frame(coord_connection_t *connection, bool *taken_out)
{
    const coord_server_t *server = connection->server;
    struct evbuffer *input = bufferevent_get_input(connection->event);
    uint8_t head[RPC_FRAME_HEAD_BYTES];
    size_t limit = connection->admitted ? server->request_frame_bytes : RPC_HELLO_FRAME_BYTES, bytes;
    ev_ssize_t count = evbuffer_copyout(input, head, sizeof(head));
    COT_TRY(rpc_frame_bytes(head, count > 0 ? (size_t)count : 0, limit, &bytes));
    *taken_out = bytes > 0 && evbuffer_get_length(input) >= bytes;
    if (!*taken_out) return COT_OK;
    const uint8_t *frame = evbuffer_pullup(input, (ev_ssize_t)bytes);
    if (frame == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a frame of %zu bytes", bytes);
    Coterie__Envelope *envelope = NULL;
    COT_TRY(rpc_envelope_unpack(frame + RPC_FRAME_HEAD_BYTES, bytes - RPC_FRAME_HEAD_BYTES, &envelope));
    evbuffer_drain(input, bytes);
    handle(connection, envelope);
    rpc_envelope_free(envelope);
    return COT_OK;
}

static void on_read(struct bufferevent *event, void *user)
{
    coord_connection_t *connection = user;
    connection->server->worked = true;
    bool taken = true;
    while (taken && !connection->doomed && !connection->closing) {
        cot_status_t status = take_frame(connection, &taken);
        if (status == COT_OK) continue;
        coord_send_error(connection, 0, rpc_code_of(status), cot_error_text());
        break;
    }
    struct evbuffer *input = bufferevent_get_input(event);
    if (connection->closing) evbuffer_drain(input, evbuffer_get_length(input));
}

/* Everything has been written. */
static void on_written(struct bufferevent *event, void *user)
{
    (void)event;
    coord_connection_t *connection = user;
    if (connection->closing && !connection->doomed) half_close(connection);
}

static void on_event(struct bufferevent *event, short what, void *user)
{
    (void)event;
    coord_connection_t *connection = user;
    connection->server->worked = true;
    if ((what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) == 0) return; /* TLS is up */
    if (connection->call_count > 0)
        cot_log_info("client %llu is gone; %u requests are freed", (unsigned long long)connection->number,
                     connection->call_count);
    coord_connection_doom(connection);
}

static void on_timer(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    coord_connection_t *connection = user;
    connection->server->worked = true;
    if (connection->closing)
        coord_connection_doom(connection);
    else
        coord_send_error(connection, 0, COTERIE__CODE__TIMEOUT, "no Hello came in time");
}

/* ---- beginning ---- */

static struct bufferevent *open_event(coord_server_t *server, int fd)
{
    if (server->tls == NULL) return bufferevent_socket_new(server->base, fd, BEV_OPT_CLOSE_ON_FREE);
    SSL *ssl = SSL_new(server->tls);
    if (ssl == NULL) return NULL;
    struct bufferevent *event = bufferevent_openssl_socket_new(server->base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING,
                                                               BEV_OPT_CLOSE_ON_FREE);
    if (event == NULL)
        SSL_free(ssl);
    else
        bufferevent_openssl_set_allow_dirty_shutdown(event, 1);
    return event;
}

static void tune(int fd)
{
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)); /* a host that fell silent is noticed at some time */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* fails on a Unix socket, which does not need it */
}

void coord_connection_open(coord_server_t *server, int fd)
{
    uint32_t most = server->config.max_connections;
    coord_connection_t *connection = NULL;
    if (server->connection_count < most + SURPLUS_CONNECTIONS) connection = cot_calloc(1, sizeof(*connection));
    if (connection == NULL) {
        cot_log_info("a client is turned away: %u are connected", server->connection_count);
        close(fd);
        return;
    }
    connection->server = server;
    connection->number = ++server->connection_number;
    connection->surplus = server->connection_count >= most;
    connection->timer = event_new(server->base, -1, 0, on_timer, connection);
    connection->event = connection->timer != NULL ? open_event(server, fd) : NULL;
    if (connection->event == NULL) {
        cot_log_warn("no memory for one more client");
        if (connection->timer != NULL) event_free(connection->timer);
        cot_free(connection);
        close(fd);
        return;
    }
    tune(fd);
    connection->after = server->connections;
    if (connection->after != NULL) connection->after->before = connection;
    server->connections = connection;
    server->connection_count++;
    bufferevent_setcb(connection->event, on_read, on_written, on_event, connection);
    bufferevent_setwatermark(connection->event, EV_READ, 0, RPC_HELLO_FRAME_BYTES + RPC_FRAME_HEAD_BYTES);
    bufferevent_enable(connection->event, EV_READ | EV_WRITE);
    set_timer(connection, server->config.handshake_timeout_ms);
    cot_log_debug("client %llu connects", (unsigned long long)connection->number);
}
