#include "base/log.h"
#include "base/memory.h"
#include "coordinator/server_int.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

/* One poll serves sockets again while they have something to say, but not for ever: the engine waits. */
enum { POLL_ROUNDS = 64, ACCEPT_PAUSE_MS = 1000 };

/* ---- the loop ---- */

static void on_accept(struct evconnlistener *acceptor, evutil_socket_t fd, struct sockaddr *peer, int bytes, void *user)
{
    (void)acceptor;
    (void)peer;
    (void)bytes;
    coord_server_t *server = user;
    server->worked = true;
    coord_connection_open(server, fd);
}

/* Out of file descriptors, mostly: what waits stays ready, so that trying again at once would spin. */
static void on_accept_error(struct evconnlistener *acceptor, void *user)
{
    coord_server_t *server = user;
    cot_log_warn("cannot accept a client: %s", strerror(errno));
    evconnlistener_disable(acceptor);
    server->accept_again = cot_deadline_in_ms(ACCEPT_PAUSE_MS);
}

static void on_tick(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    (void)user;
}

static void reap(coord_server_t *server)
{
    if (!server->reap) return;
    server->reap = false;
    for (coord_connection_t *connection = server->connections, *after; connection != NULL; connection = after) {
        after = connection->after;
        if (connection->doomed) coord_connection_free(connection);
    }
}

static cot_status_t turn(coord_server_t *server, int flags)
{
    server->worked = false;
    if (event_base_loop(server->base, flags) < 0) return cot_fail(COT_ERR_IO, "the event loop of the server failed");
    reap(server);
    return COT_OK;
}

cot_status_t coord_server_poll(coord_server_t *server, int64_t timeout_ms)
{
    reap(server);
    if (server->accept_again != 0 && cot_deadline_passed(server->accept_again)) {
        server->accept_again = 0;
        evconnlistener_enable(server->acceptor);
    }
    COT_TRY(turn(server, EVLOOP_ONCE | EVLOOP_NONBLOCK));
    if (!server->worked && timeout_ms > 0) {
        const struct timeval after = {.tv_sec = timeout_ms / 1000, .tv_usec = (timeout_ms % 1000) * 1000};
        event_add(server->tick, &after);
        COT_TRY(turn(server, EVLOOP_ONCE));
        event_del(server->tick);
    }
    for (int round = 0; round < POLL_ROUNDS && server->worked; round++)
        COT_TRY(turn(server, EVLOOP_ONCE | EVLOOP_NONBLOCK));
    return COT_OK;
}

/* ---- life ---- */

static cot_status_t copy_text(coord_server_t *server, uint32_t slot, const char **text)
{
    if (*text == NULL) return COT_OK;
    server->text[slot] = cot_strdup(*text);
    if (server->text[slot] == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the server");
    *text = server->text[slot];
    return COT_OK;
}

static cot_status_t copy_config(coord_server_t *server, const coord_server_config_t *config)
{
    server->config = *config;
    coord_server_config_t *own = &server->config;
    if (own->max_output_bytes == 0) own->max_output_bytes = RPC_OUTPUT_BYTES;
    if (own->handshake_timeout_ms == 0) own->handshake_timeout_ms = RPC_HANDSHAKE_TIMEOUT_MS;
    size_t most_bytes = RPC_REQUEST_FRAME_BYTES - RPC_REQUEST_SLACK_BYTES;
    if (own->max_prompt_bytes > most_bytes)
        return cot_fail(COT_ERR_INVALID, "--max-prompt is %zu bytes: at most %zu", own->max_prompt_bytes, most_bytes);
    server->request_frame_bytes = own->max_prompt_bytes + RPC_REQUEST_SLACK_BYTES;
    const char **texts[] = {&own->token, &own->model_name, &own->dtype, &own->backend, &own->exchange, &own->plan};
    for (uint32_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) COT_TRY(copy_text(server, i, texts[i]));
    server->rank = cot_calloc(own->ranks, sizeof(*server->rank));
    if (server->rank == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the status of %u ranks", own->ranks);
    return COT_OK;
}

static cot_status_t open_tls(coord_server_t *server)
{
    const char *cert = server->config.tls_cert, *key = server->config.tls_key;
    bool has_cert = cert != NULL && cert[0] != '\0', has_key = key != NULL && key[0] != '\0';
    if (has_cert != has_key) return cot_fail(COT_ERR_INVALID, "--tls-cert and --tls-key go together: give both");
    return has_cert ? coord_tls_create(cert, key, &server->tls) : COT_OK;
}

static cot_status_t open_loop(coord_server_t *server)
{
    server->base = event_base_new();
    if (server->base == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the server's event loop");
    server->tick = event_new(server->base, -1, 0, on_tick, NULL);
    server->acceptor = evconnlistener_new(server->base, on_accept, server, LEV_OPT_CLOSE_ON_EXEC, 0,
                                          server->listener.fd);
    if (server->tick == NULL || server->acceptor == NULL)
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for the server's event loop");
    evconnlistener_set_error_cb(server->acceptor, on_accept_error);
    return COT_OK;
}

static cot_status_t open_server(coord_server_t *server, const coord_server_config_t *config)
{
    COT_TRY(copy_config(server, config));
    COT_TRY(open_tls(server));
    COT_TRY(coord_listen(config->listen, server->config.token != NULL && server->tls != NULL, &server->listener));
    rpc_address_print(&server->listener.address, server->address);
    return open_loop(server);
}

cot_status_t coord_server_create(const coord_server_config_t *config, coord_server_t **server_out)
{
    coord_server_t *server = cot_calloc(1, sizeof(*server));
    if (server == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the server");
    server->listener.fd = -1;
    server->created_ns = cot_now_ns();
    cot_status_t status = open_server(server, config);
    if (status != COT_OK) {
        coord_server_destroy(server);
        return status;
    }
    signal(SIGPIPE, SIG_IGN); /* a client that is gone is an error of its socket */
    *server_out = server;
    return COT_OK;
}

/* Cancels what runs, and gives last words that wait one chance to leave. */
static void close_connections(coord_server_t *server)
{
    for (coord_connection_t *connection = server->connections; connection != NULL; connection = connection->after)
        coord_calls_end(connection);
    event_base_loop(server->base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
    while (server->connections != NULL) coord_connection_free(server->connections);
}

void coord_server_destroy(coord_server_t *server)
{
    if (server == NULL) return;
    if (server->acceptor != NULL) evconnlistener_free(server->acceptor);
    if (server->base != NULL) close_connections(server);
    if (server->tick != NULL) event_free(server->tick);
    if (server->base != NULL) event_base_free(server->base);
    coord_unlisten(&server->listener);
    SSL_CTX_free(server->tls);
    for (uint32_t i = 0; i < sizeof(server->text) / sizeof(*server->text); i++) cot_free(server->text[i]);
    cot_free(server->rank);
    cot_buffer_free(&server->frame);
    cot_free(server);
}

/* ---- state ---- */

const char *coord_server_address(const coord_server_t *server)
{
    return server->address;
}

cot_status_t coord_server_set_plan(coord_server_t *server, const char *plan)
{
    enum { PLAN_TEXT = sizeof(server->text) / sizeof(*server->text) - 1 };
    char *copy = cot_strdup(plan);
    if (copy == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the server");
    cot_free(server->text[PLAN_TEXT]);
    server->config.plan = server->text[PLAN_TEXT] = copy;
    return COT_OK;
}

void coord_server_set_progress(coord_server_t *server, float progress)
{
    server->progress = progress;
}

cot_status_t coord_server_attach(coord_server_t *server, coord_engine_t *engine)
{
    uint32_t context = coord_engine_context(engine);
    if (context < server->config.max_context) server->config.max_context = context;
    server->engine = engine;
    server->progress = 1;
    return COT_OK;
}

void coord_server_set_rank(coord_server_t *server, const coord_server_rank_t *rank)
{
    if (server->ranks < server->config.ranks) server->rank[server->ranks++] = *rank;
}

void coord_server_drain(coord_server_t *server)
{
    server->draining = true;
}

bool coord_server_draining(const coord_server_t *server)
{
    return server->draining;
}

bool coord_server_drained(const coord_server_t *server)
{
    if (!server->draining || server->call_count > 0) return false;
    for (const coord_connection_t *connection = server->connections; connection != NULL; connection = connection->after)
        if (!coord_connection_flushed(connection)) return false;
    return true;
}
