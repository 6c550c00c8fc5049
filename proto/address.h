/* Where a server listens and how a client shows that it may enter: addresses and the access token. */
#ifndef RPC_ADDRESS_H
#define RPC_ADDRESS_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

typedef struct {
    bool local;      /* a Unix socket at `path`; else TCP */
    bool by_default; /* nobody named an address */
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    char host[256], port[8];
} rpc_address_t;

#define RPC_ADDRESS_TEXT_BYTES 280

/* unix:PATH, HOST:PORT or [IPV6]:PORT; "" or NULL is unix:$XDG_RUNTIME_DIR/coterie.sock, or /tmp/coterie-UID.sock. */
cot_status_t rpc_address_parse(const char *text, rpc_address_t *address_out);
void rpc_address_print(const rpc_address_t *address, char text[RPC_ADDRESS_TEXT_BYTES]);

bool rpc_is_loopback(const struct sockaddr *address);

/* The access token: the first line of `file`, or `variable` if no file is named ("" or NULL: unset). *token_out is NULL
 * if neither is; free it with cot_free. An empty token is refused. */
cot_status_t rpc_token_read(const char *file, const char *variable, char **token_out);
/* Takes as long for a wrong token as for the right one. */
bool rpc_token_equal(const char *token, const void *given, size_t given_bytes);

#endif
