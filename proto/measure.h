/* What rank 0 asks of the workers in `coterie calibrate`, and what they answer: flat records as in proto/step.h, orders
 * on the step tag, answers on the result tag. */
#ifndef RPC_MEASURE_H
#define RPC_MEASURE_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef enum {
    RPC_MEASURE_EXPERTS = 16, /* (no kind of a step) the expert stage at `amount` rows for each expert here */
    RPC_MEASURE_COPY,         /* `amount` bytes from memory to memory */
    RPC_MEASURE_LATENCY,      /* `amount` small messages to `to` and back; `to` has the same order with `from` */
    RPC_MEASURE_RATE,         /* `amount` bytes to `to`, and as many from `from`, at once; the receiver measures */
} rpc_measure_kind_t;

#define RPC_MEASURE_NOBODY UINT32_MAX

typedef struct {
    uint32_t magic, version, kind;
    uint32_t to, from; /* ranks of the job, or RPC_MEASURE_NOBODY */
    uint32_t unused;
    uint64_t amount;
} rpc_measure_t;

/* `ns` for `units`: (row, expert) pairs, bytes, or messages there and back. Both 0: nothing to measure here. */
typedef struct {
    uint32_t magic, version, rank, status; /* status: 0, or -cot_status_t with `text` */
    uint64_t units;
    int64_t ns;
    char text[256];
} rpc_measured_t;

cot_status_t rpc_measure_decode(const void *bytes, size_t count, rpc_measure_t *measure_out);
cot_status_t rpc_measured_decode(const void *bytes, size_t count, rpc_measured_t *measured_out);

#endif
