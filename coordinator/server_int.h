/* The parts of the RPC server: listening (server_listen.c), connections and their frames (server_connection.c),
 * requests (server_request.c), status (server_status.c), and the loop over them (server.c). */
#ifndef COORD_SERVER_INT_H
#define COORD_SERVER_INT_H

#include "base/buffer.h"
#include "base/clock.h"
#include "coordinator/server.h"
#include "coordinator/server_text.h"
#include "proto/address.h"
#include "proto/framing.h"

#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <openssl/ssl.h>
#include <sys/types.h>

typedef struct coord_connection coord_connection_t;
typedef struct coord_call coord_call_t;

/* ---- listening ---- */

/* A listening socket. Owns `fd` (-1: none), and the socket file. */
typedef struct {
    int fd;
    rpc_address_t address; /* as bound: with the port that was chosen */
    dev_t device;          /* of the socket file, so that another's is never removed */
    ino_t inode;
} coord_listener_t;

/* `guarded`: there are a token and TLS, so it may listen beyond loopback. */
cot_status_t coord_listen(const char *text, bool guarded, coord_listener_t *listener_out);
void coord_unlisten(coord_listener_t *listener);
cot_status_t coord_tls_create(const char *cert, const char *key, SSL_CTX **tls_out);

/* ---- the server ---- */

struct coord_server {
    coord_server_config_t config; /* strings are copied: to `text` */
    char *text[6];                /* token, model name, dtype, backend, exchange, plan */
    size_t request_frame_bytes;
    coord_listener_t listener;
    char address[RPC_ADDRESS_TEXT_BYTES];
    SSL_CTX *tls;
    struct event_base *base;
    struct evconnlistener *acceptor;
    struct event *tick;          /* ends a poll */
    cot_deadline_t accept_again; /* after the process ran out of file descriptors */
    coord_engine_t *engine;      /* NULL: loading */
    float progress;
    bool draining, worked, reap;
    coord_connection_t *connections;
    uint32_t connection_count, call_count;
    uint64_t connection_number;
    uint32_t requests; /* accepted so far: numbers them in the trace */
    int64_t created_ns;
    coord_server_rank_t *rank; /* [config.ranks], those set first */
    uint32_t ranks;
    cot_buffer_t frame; /* scratch */
};

/* ---- connections ---- */

struct coord_connection {
    coord_server_t *server;
    struct bufferevent *event;
    struct event *timer; /* until Hello, or until the end after an error */
    uint64_t number;
    bool admitted; /* Hello was accepted */
    bool surplus;  /* beyond the bound: told so, then closed */
    bool closing;  /* its last words are on their way; what comes in is thrown away */
    bool doomed;   /* to be freed by the loop */
    coord_call_t *calls;
    uint32_t call_count;
    coord_connection_t *before, *after;
};

/* Takes over `fd`. */
void coord_connection_open(coord_server_t *server, int fd);
/* Cancels its calls. Never from an event of the engine: use coord_connection_doom there. */
void coord_connection_free(coord_connection_t *connection);
void coord_connection_doom(coord_connection_t *connection);
/* Whether all that was sent has left the process. */
bool coord_connection_flushed(const coord_connection_t *connection);

/* Sends; a client that does not read is cut off, and COT_ERR_LIMIT returned; nothing is sent to a doomed one. */
cot_status_t coord_send(coord_connection_t *connection, const Coterie__Envelope *envelope);
/* An Error for call `id`; id 0 is for the connection, which closes once it is sent. */
void coord_send_error(coord_connection_t *connection, uint64_t id, Coterie__Code code, const char *sentence);

/* ---- requests ---- */

void coord_call_start(coord_connection_t *connection, uint64_t id, const Coterie__Generate *generate);
void coord_call_cancel(coord_connection_t *connection, uint64_t id); /* one that is not there is over already */
void coord_calls_end(coord_connection_t *connection);                /* cancels all, without a word to the client */

/* ---- status ---- */

void coord_send_status(coord_connection_t *connection, uint64_t id);
void coord_send_health(coord_connection_t *connection, uint64_t id);
void coord_send_draining(coord_connection_t *connection, uint64_t id);

#endif
