#include "proto/framing.h"

#include "base/memory.h"
#include "proto/limits.h"

#include <string.h>

/* ---- frames ---- */

cot_status_t rpc_frame_bytes(const void *bytes, size_t count, size_t limit, size_t *bytes_out)
{
    const uint8_t *head = bytes;
    *bytes_out = 0;
    if (count < RPC_FRAME_HEAD_BYTES) return COT_OK;
    size_t length = ((size_t)head[0] << 24) | ((size_t)head[1] << 16) | ((size_t)head[2] << 8) | head[3];
    if (length == 0) return cot_fail(COT_ERR_PROTOCOL, "an empty frame: the peer does not speak Coterie's protocol");
    if (length > limit)
        return cot_fail(COT_ERR_PROTOCOL,
                        "a frame of %zu bytes, over the limit of %zu (or the peer does not speak Coterie's protocol)",
                        length, limit);
    *bytes_out = RPC_FRAME_HEAD_BYTES + length;
    return COT_OK;
}

cot_status_t rpc_frame_append(const Coterie__Envelope *envelope, cot_buffer_t *out)
{
    size_t length = coterie__envelope__get_packed_size(envelope);
    if (length > RPC_REPLY_FRAME_BYTES)
        return cot_fail(COT_ERR_LIMIT, "a message of %zu bytes, over the limit of %u", length, RPC_REPLY_FRAME_BYTES);
    void *space = NULL;
    COT_TRY(cot_buffer_extend(out, RPC_FRAME_HEAD_BYTES + length, &space));
    uint8_t *frame = space;
    for (int i = 0; i < 4; i++) frame[i] = (uint8_t)(length >> (24 - 8 * i));
    coterie__envelope__pack(envelope, frame + RPC_FRAME_HEAD_BYTES);
    return COT_OK;
}

/* ---- envelopes ---- */

/* What unpacking may still take. Two bytes of a frame can ask for an object of some 60 bytes. */
typedef struct {
    size_t left_bytes;
} budget_t;

enum { MEMORY_PER_BYTE = 16, MEMORY_BASE = 64 << 10 };

static void *take(void *data, size_t bytes)
{
    budget_t *budget = data;
    if (bytes > budget->left_bytes) return NULL;
    void *memory = cot_alloc(bytes);
    if (memory != NULL) budget->left_bytes -= bytes;
    return memory;
}

static void give_back(void *data, void *memory)
{
    (void)data;
    cot_free(memory);
}

cot_status_t rpc_envelope_unpack(const void *bytes, size_t count, Coterie__Envelope **envelope_out)
{
    budget_t budget = {.left_bytes = MEMORY_BASE + count * MEMORY_PER_BYTE};
    ProtobufCAllocator allocator = {.alloc = take, .free = give_back, .allocator_data = &budget};
    Coterie__Envelope *envelope = coterie__envelope__unpack(&allocator, count, bytes);
    if (envelope == NULL)
        return cot_fail(COT_ERR_PROTOCOL,
                        "a frame of %zu bytes that holds no message: the peer does not speak Coterie's protocol",
                        count);
    if (envelope->body_case == COTERIE__ENVELOPE__BODY__NOT_SET) {
        rpc_envelope_free(envelope);
        return cot_fail(COT_ERR_PROTOCOL, "a message that protocol version %u does not know", RPC_PROTOCOL_VERSION);
    }
    *envelope_out = envelope;
    return COT_OK;
}

void rpc_envelope_free(Coterie__Envelope *envelope)
{
    ProtobufCAllocator allocator = {.alloc = take, .free = give_back};
    if (envelope != NULL) coterie__envelope__free_unpacked(envelope, &allocator);
}

/* ---- statuses ---- */

#define X(name, value, exit_code, text) \
    _Static_assert((value) <= 0 && (value) > -64, "codes 1 to 63 are the statuses, negated");
COT_STATUS_MAP(X)
#undef X
_Static_assert((int)COTERIE__CODE__BUSY == -COT_ERR_BUSY && (int)COTERIE__CODE__AUTH == -COT_ERR_AUTH &&
                   (int)COTERIE__CODE__PROTOCOL == -COT_ERR_PROTOCOL && (int)COTERIE__CODE__LIMIT == -COT_ERR_LIMIT &&
                   (int)COTERIE__CODE__INTERNAL == -COT_ERR_INTERNAL,
               "coterie.proto's Code and base/status.h state the same numbers");

Coterie__Code rpc_code_of(cot_status_t status)
{
    return (Coterie__Code)(-(int)status);
}

cot_status_t rpc_status_of(Coterie__Code code)
{
    if (code == COTERIE__CODE__LOADING || code == COTERIE__CODE__DRAINING) return COT_ERR_BUSY;
    switch (-(int)code) {
#define X(name, value, exit_code, text) case value:
        COT_STATUS_MAP(X)
#undef X
        return code == COTERIE__CODE__UNKNOWN ? COT_ERR_INTERNAL : (cot_status_t)(-(int)code);
    default: return COT_ERR_INTERNAL;
    }
}
