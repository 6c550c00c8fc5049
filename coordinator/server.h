/* The RPC server: clients' requests to the engine, its tokens back as text. One thread; nothing here blocks but
 * coord_server_poll, for as long as it is told. It listens from its creation on; until an engine is attached, requests
 * are told that the model is loading. */
#ifndef COORD_SERVER_H
#define COORD_SERVER_H

#include "base/status.h"
#include "coordinator/engine.h"
#include "model/config.h"
#include "model/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Owns its sockets, its connections and the requests that it submits. Borrows the engine, the tokenizer and the model's
 * configuration. Destroy it before the engine. */
typedef struct coord_server coord_server_t;

typedef struct {
    const char *listen;                 /* as rpc_address_parse */
    const char *token;                  /* access token; NULL: none is needed */
    const char *tls_cert, *tls_key;     /* PEM files; NULL or "": no TLS */
    uint32_t max_connections;           /* beyond: busy */
    size_t max_prompt_bytes;            /* of a prompt's text; beyond: refused */
    size_t max_output_bytes;            /* unread by a client; beyond: cut off. 0: RPC_OUTPUT_BYTES */
    int64_t handshake_timeout_ms;       /* from connecting to Hello; 0: RPC_HANDSHAKE_TIMEOUT_MS */
    uint32_t max_context;               /* prompt and output together, in tokens */
    const model_config_t *model;        /* vocabulary, EOS ids, default sampling */
    const model_tokenizer_t *tokenizer; /* NULL: token ids only */
    const char *model_name, *dtype, *backend, *exchange, *plan; /* for the status; copied; NULL: unknown */
    uint32_t ranks;                                             /* most ranks that coord_server_set_rank will name */
} coord_server_config_t;

/* Listens. COT_ERR_IN_USE: a live server listens there (a socket file that a dead one left is replaced);
 * COT_ERR_INVALID: TCP beyond loopback without token and TLS, or an address that makes no sense; COT_ERR_NOT_FOUND or
 * COT_ERR_FORMAT: the certificate or key. SIGPIPE is ignored in this process from then on. */
cot_status_t coord_server_create(const coord_server_config_t *config, coord_server_t **server_out);
/* Cancels what still runs, closes all connections, removes the socket file. NULL is allowed. */
void coord_server_destroy(coord_server_t *server);

/* The address clients use, with the port that the system chose for port 0. Valid as long as the server. */
const char *coord_server_address(const coord_server_t *server);

cot_status_t coord_server_set_plan(coord_server_t *server, const char *plan); /* as in the configuration */
void coord_server_set_progress(coord_server_t *server, float progress);       /* of loading, 0 to 1 */
/* From now on requests run. */
cot_status_t coord_server_attach(coord_server_t *server, coord_engine_t *engine);

/* Serves sockets: what is ready now, or, if nothing is, what comes first within `timeout_ms`. An error is fatal for the
 * server. */
cot_status_t coord_server_poll(coord_server_t *server, int64_t timeout_ms);

/* No new requests from now on. Drained: all requests are done and their answers are on their way. */
void coord_server_drain(coord_server_t *server);
bool coord_server_draining(const coord_server_t *server); /* a client may ask for it, too */
bool coord_server_drained(const coord_server_t *server);

/* What the status says of a worker rank beside what the engine knows. */
typedef struct {
    uint32_t rank, node, threads; /* rank 1 is the engine's worker 0 */
    const char *isa;              /* borrowed: a constant */
    uint64_t weight_bytes, mapped_bytes, kv_bytes, buffer_bytes;
} coord_server_rank_t;
void coord_server_set_rank(coord_server_t *server, const coord_server_rank_t *rank);

#endif
