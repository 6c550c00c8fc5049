/* The expert-parallel exchange between GPUs: what comm.h's dispatch and combine are for host memory, for device memory
 * and streams. Everything is enqueued; counts stay on the device, nothing synchronises with the host, and a sequence of
 * exchanges can be captured in a CUDA graph and replayed.
 *
 * Dispatch: every rank has the same number of token slots in a step ("tokens", the padded bucket of the fullest rank).
 * A row goes to the receive slab of the ranks that hold one of its experts, `slab.rows` [source rank, token,
 * row_bytes], with `slab.slots` [source rank, token, k]: the expert slot there that computes it, or -1. GATHER  every
 * row goes to every rank: token index = place in the slab. With two ranks and top-8, 99.6 % of the rows have an expert
 * on the other one anyway. SIZED   only the rows that a rank needs, packed; slab.token says which token a place holds.
 * For many ranks. Return: the outputs of (token, k) go into the home rank's `home` [token, k, row_bytes]: either the
 * expert kernel stores them there itself (home_base holds every rank's address; the return is then a barrier), or it
 * stores locally [source rank, token, k, row_bytes] and the return moves them.
 *
 * Two transports, best first: `window` (stores through peer pointers and an own flag barrier with a deadline: GPUs of
 * one host) and `nccl` (grouped send and receive: any GPUs). Same slabs, same bits.
 *
 * Buffers are used again without a second generation. A rank stores into a peer's slab for exchange n + 1 only after
 * its own return n completed; that needed the peer's flag, which the peer raised after its expert kernels, the slab's
 * only readers, were done. Likewise it stores into a peer's `home` only after that peer's dispatch flag n + 1, which
 * follows the peer's combine n in its stream. This holds while the dispatch kernel starts after all earlier work of its
 * stream: a programmatic dependent launch must wait (griddepcontrol.wait) before its first store, and it does. */
#ifndef COMM_GPU_H
#define COMM_GPU_H

#include "comm/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

#define COMM_GPU_MAX_RANKS 64

/* X(name, text, what it is), best first */
#define COMM_GPU_TRANSPORT_MAP(X)                                         \
    X(WINDOW, "window", "stores through peer pointers, GPUs of one host") \
    X(NCCL, "nccl", "NCCL's grouped send and receive, any GPUs")
typedef enum {
    COMM_GPU_AUTO,
#define X(name, text, what) COMM_GPU_##name,
    COMM_GPU_TRANSPORT_MAP(X)
#undef X
} comm_gpu_transport_t;

typedef enum { COMM_GPU_GATHER, COMM_GPU_SIZED } comm_gpu_mode_t;

typedef struct {
    comm_link_t *link; /* borrowed: handles travel over it at create */
    uint32_t first, ranks;
    int device;
    comm_gpu_transport_t transport; /* AUTO: the first that all ranks can use */
    comm_gpu_mode_t mode;           /* SIZED needs `window` */
    uint32_t row_bytes;             /* a multiple of 16 */
    uint32_t max_tokens, top_k, experts;
    int64_t timeout_ms; /* of one exchange */
} comm_gpu_config_t;

/* Owns its device memory. One host thread at a time; create and destroy are collective. */
typedef struct comm_gpu comm_gpu_t;

cot_status_t comm_gpu_create(const comm_gpu_config_t *config, comm_gpu_t **gpu_out);
void comm_gpu_destroy(comm_gpu_t *gpu);
const char *comm_gpu_transport(const comm_gpu_t *gpu);
size_t comm_gpu_buffer_bytes(const comm_gpu_t *gpu);

/* Device memory of the exchange for a bucket of `tokens`. All of it is 16-byte aligned. */
typedef struct {
    void *own_rows; /* [tokens, row_bytes] this rank's part of the slab: write rows here and save a copy (GATHER) */
    void *rows;     /* [ranks, tokens, row_bytes] */
    int32_t *slots; /* [ranks, tokens, top_k] */
    int32_t *token; /* [ranks, tokens] SIZED: token of each place, -1 past the last; GATHER: NULL */
    void *home;     /* [tokens, top_k, row_bytes] outputs that came home */
    void *const *home_base; /* [ranks] every rank's `home` for this bucket as this GPU reaches it; NULL with `nccl` */
} comm_gpu_buffers_t;

void comm_gpu_buffers(const comm_gpu_t *gpu, uint32_t tokens, comm_gpu_buffers_t *buffers_out);

/* Who computes an expert for tokens of this rank. */
typedef struct {
    int16_t rank; /* of the group */
    int16_t slot; /* of that rank's experts of the layer */
} comm_gpu_place_t;

typedef struct {
    void *stream;                  /* cudaStream_t */
    uint32_t tokens;               /* bucket, the same on all ranks */
    uint32_t layer;                /* for last words */
    const void *rows;              /* [tokens, row_bytes] */
    const int32_t *expert;         /* [tokens, top_k] logical expert; negative: none (padding) */
    const comm_gpu_place_t *place; /* [experts] of this layer for this home rank */
} comm_gpu_dispatch_args_t;

/* Enqueues; when the kernel is done, everything of this exchange has arrived from all ranks. */
cot_status_t comm_gpu_dispatch(comm_gpu_t *gpu, const comm_gpu_dispatch_args_t *args);

typedef struct {
    void *stream;
    uint32_t tokens, layer;
    const void *outputs;   /* [ranks, tokens, top_k, row_bytes] where slab.slots >= 0; NULL: already stored in home */
    const int32_t *expert; /* this rank's, as in dispatch (`nccl` picks the sender by it) */
    const comm_gpu_place_t *place;
} comm_gpu_return_args_t;

cot_status_t comm_gpu_return(comm_gpu_t *gpu, const comm_gpu_return_args_t *args);

/* Waits on the host until the stream is done. COT_ERR_PEER_LOST with the last word (rank, step, layer, what was waited
 * for and whose flag was missing) once an exchange passed its deadline on the device, or, with `nccl`, on the host;
 * the group is then of no use but for destroy. */
cot_status_t comm_gpu_wait(comm_gpu_t *gpu, void *stream, uint64_t step);

#ifdef __cplusplus
}
#endif

#endif
