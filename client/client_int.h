/* The two parts of the client library: the channel (channel.c, tls.c: connecting, bytes, frames) and the calls over it
 * (client.c, generate.c, status_json.c). */
#ifndef CLIENT_INT_H
#define CLIENT_INT_H

#include "base/buffer.h"
#include "base/clock.h"
#include "base/status.h"
#include "client/coterie_client.h"
#include "proto/address.h"
#include "proto/framing.h"

#include <openssl/ssl.h>
#include <stdatomic.h>
#include <stdbool.h>

/* A connected socket, and TLS over it. Owns all of it. */
typedef struct {
    int fd, wake; /* `wake`: an eventfd that becomes readable when a call is cancelled */
    atomic_int cancelled;
    SSL_CTX *tls;
    SSL *ssl; /* NULL: no TLS. Its two BIOs are memory: all socket calls are ours */
    cot_buffer_t in, out;
    char address[RPC_ADDRESS_TEXT_BYTES];
    bool broken; /* the stream of frames is lost: nothing can be called any more */
} client_channel_t;

/* `tls_ca` NULL: no TLS. */
cot_status_t client_channel_open(client_channel_t *channel, const char *address, const char *tls_ca,
                                 cot_deadline_t deadline);
void client_channel_close(client_channel_t *channel);
cot_status_t client_channel_send(client_channel_t *channel, const Coterie__Envelope *envelope, cot_deadline_t deadline);
/* The next frame. `may_cancel`: COT_ERR_CANCELLED once coterie_client_cancel was called; the channel stays usable. */
cot_status_t client_channel_receive(client_channel_t *channel, cot_deadline_t deadline, bool may_cancel,
                                    Coterie__Envelope **envelope_out);

/* Bytes through the socket, without TLS. Receive: at least one; the end of the stream is COT_ERR_PEER_LOST. */
cot_status_t client_socket_send(client_channel_t *channel, const void *bytes, size_t count, cot_deadline_t deadline);
cot_status_t client_socket_receive(client_channel_t *channel, void *bytes, size_t *count, cot_deadline_t deadline,
                                   bool may_cancel);

cot_status_t client_tls_open(client_channel_t *channel, const rpc_address_t *address, const char *tls_ca,
                             cot_deadline_t deadline);
void client_tls_close(client_channel_t *channel);
cot_status_t client_tls_send(client_channel_t *channel, const void *bytes, size_t count, cot_deadline_t deadline);
cot_status_t client_tls_receive(client_channel_t *channel, void *bytes, size_t *count, cot_deadline_t deadline,
                                bool may_cancel);

struct coterie_client {
    client_channel_t channel;
    uint64_t last_id;
    char *model, *server;
    uint32_t vocabulary;
};

cot_deadline_t client_deadline(int64_t timeout_ms); /* 0 or less: none */
/* Sends `envelope` under a new id, and receives the answer to it; an Error becomes its status and sentence. */
cot_status_t client_call(coterie_client_t *client, Coterie__Envelope *envelope, cot_deadline_t deadline,
                         Coterie__Envelope **answer_out);
cot_status_t client_fail_with(const Coterie__Error *error);
cot_status_t client_status_print(const Coterie__Status *status, cot_buffer_t *json);

#endif
