/* Frames between clients and the coordinator: 4 bytes of length, big-endian, then one Envelope (coterie.proto). */
#ifndef RPC_FRAMING_H
#define RPC_FRAMING_H

#include "base/buffer.h"
#include "base/status.h"
#include "proto/coterie.pb-c.h"

#include <stddef.h>
#include <stdint.h>

/* Looks at the first `count` bytes of a stream. *bytes_out: of the whole frame with its head, once the head is there;
 * 0 before. COT_ERR_PROTOCOL if it is longer than `limit` (without the head) or empty. */
cot_status_t rpc_frame_bytes(const void *bytes, size_t count, size_t limit, size_t *bytes_out);

/* Appends one frame. */
cot_status_t rpc_frame_append(const Coterie__Envelope *envelope, cot_buffer_t *out);

/* The Envelope of a frame without its head. Takes memory in proportion to `count` and no more, whatever the bytes
 * say. COT_ERR_PROTOCOL: no Envelope, or one without a body that this version knows. Free with rpc_envelope_free. */
cot_status_t rpc_envelope_unpack(const void *bytes, size_t count, Coterie__Envelope **envelope_out);
void rpc_envelope_free(Coterie__Envelope *envelope); /* NULL is allowed */

/* A status as the other side sees it, and back; a code that this version does not know is COT_ERR_INTERNAL. */
Coterie__Code rpc_code_of(cot_status_t status);
cot_status_t rpc_status_of(Coterie__Code code);

#endif
