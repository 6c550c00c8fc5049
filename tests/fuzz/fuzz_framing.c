/* Bytes of a stranger as frames: whatever they are, unpacking ends, in bounded memory, and gives all of it back. */
#include "base/memory.h"
#include "proto/framing.h"
#include "proto/limits.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t live = cot_memory_live_blocks();
    while (size > 0) {
        size_t bytes = 0;
        if (rpc_frame_bytes(data, size, RPC_REQUEST_FRAME_BYTES, &bytes) != COT_OK || bytes == 0 || bytes > size) break;
        Coterie__Envelope *envelope = NULL;
        if (rpc_envelope_unpack(data + RPC_FRAME_HEAD_BYTES, bytes - RPC_FRAME_HEAD_BYTES, &envelope) == COT_OK) {
            cot_buffer_t again = {0};
            if (rpc_frame_append(envelope, &again) != COT_OK) abort();
            cot_buffer_free(&again);
            rpc_envelope_free(envelope);
        }
        data += bytes;
        size -= bytes;
    }
    if (cot_memory_live_blocks() != live) abort();
    return 0;
}
