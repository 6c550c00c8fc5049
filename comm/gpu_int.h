/* Inside comm/: one rank's end of the exchange between GPUs. */
#ifndef COMM_GPU_INT_H
#define COMM_GPU_INT_H

#include "comm/gpu.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { COMM_GPU_DISPATCH, COMM_GPU_RETURN, COMM_GPU_PHASES } comm_gpu_phase_t;

/* In pinned host memory that the GPU writes: how far it is, and why it gave up. */
typedef struct {
    uint32_t progress; /* exchanges begun */
    uint32_t phase, layer;
    uint32_t failed; /* 0, or 1 once an exchange passed its deadline; the fields below then hold */
    uint32_t failed_phase, failed_layer, silent_rank;
} comm_gpu_cell_t;

/* At the start of each rank's device memory: what peers write, then what only this GPU uses. */
typedef struct {
    struct {
        uint32_t epoch;  /* of the last exchange whose data from this source is all here */
        uint32_t pad[7]; /* a sector of its own */
    } flag[COMM_GPU_PHASES][COMM_GPU_MAX_RANKS];
    uint32_t epoch[COMM_GPU_PHASES];     /* exchanges completed */
    uint32_t blocks_in[COMM_GPU_PHASES]; /* thread blocks done with their stores */
    uint32_t aborted;
} comm_gpu_control_t;

/* Where things lie in a rank's device memory, the same on all ranks. In bytes. */
typedef struct {
    size_t slots, token, rows, home, total;
} comm_gpu_layout_t;

/* What every kernel needs; passed by value. */
typedef struct {
    uint8_t *base[COMM_GPU_MAX_RANKS]; /* of each rank, as this GPU reaches it; nccl: only our own */
    comm_gpu_layout_t layout;
    comm_gpu_cell_t *cell;
    int64_t timeout_ns;
    uint32_t me, ranks, tokens, top_k, row_vectors; /* row_vectors: 16-byte pieces of a row */
    uint32_t layer;
    bool overlap;      /* kernels may start while the one before ends: their code knows how to wait for it */
    int32_t *place_of; /* SIZED: [ranks, max_tokens] place of each token in a rank's slab, -1: not sent; then count
                          [ranks] */
} comm_gpu_kernel_t;

typedef struct {
    const char *name;
    cot_status_t (*create)(comm_gpu_t *gpu);
    void (*destroy)(comm_gpu_t *gpu);
    cot_status_t (*dispatch)(comm_gpu_t *gpu, const comm_gpu_dispatch_args_t *args);
    cot_status_t (*give_back)(comm_gpu_t *gpu, const comm_gpu_return_args_t *args);
    void (*abandon)(
        comm_gpu_t *gpu); /* after a failure: makes what still runs on the device end; NULL: nothing to do */
} comm_gpu_ops_t;

struct comm_gpu {
    comm_gpu_config_t config;
    const comm_gpu_ops_t *ops;
    comm_gpu_kernel_t kernel; /* the fields that do not change from call to call */
    uint8_t *memory;          /* device, layout.total bytes */
    void **home_base;         /* device [ranks]; NULL with nccl */
    comm_gpu_cell_t *cell;    /* host's address of kernel.cell */
    bool failed;
    void *opened[COMM_GPU_MAX_RANKS]; /* mappings of other processes' memory */
    void *transport;                  /* the transport's own */
};

extern const comm_gpu_ops_t comm_gpu_window, comm_gpu_nccl;

/* Everybody's `bytes` bytes to everybody, in rank order, over the link. all [ranks, bytes]. */
cot_status_t comm_gpu_share(comm_gpu_t *gpu, const void *own, size_t bytes, void *all);

/* COT_ERR_DEVICE with CUDA's text. */
cot_status_t comm_gpu_cuda(cudaError_t code, const char *doing);

/* ---- kernels (gpu_kernels.cu) ---- */

/* Whether the code that runs on this device was compiled for compute_90 or newer, which can wait for its predecessor.
 */
cot_status_t comm_gpu_can_overlap(bool *can_out);

cot_status_t comm_gpu_push_rows(const comm_gpu_kernel_t *kernel, const comm_gpu_dispatch_args_t *args, bool sized);
cot_status_t comm_gpu_push_outputs(const comm_gpu_kernel_t *kernel, const comm_gpu_return_args_t *args, bool sized);
/* For nccl: the slots of every rank into slots_out [ranks, tokens, top_k]; marks the progress. */
cot_status_t comm_gpu_fill_slots(const comm_gpu_kernel_t *kernel, const comm_gpu_dispatch_args_t *args,
                                 int32_t *slots_out);
/* For nccl: home[t, k] = staged[rank of (t, k)][t, k]. */
cot_status_t comm_gpu_pick_home(const comm_gpu_kernel_t *kernel, const comm_gpu_return_args_t *args,
                                const uint8_t *staged);
cot_status_t comm_gpu_mark(const comm_gpu_kernel_t *kernel, comm_gpu_phase_t phase, void *stream);

#ifdef __cplusplus
}
#endif

#endif
