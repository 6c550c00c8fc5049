/* The window transport: every rank maps every other rank's memory (CUDA IPC between processes of a host, the plain
 * address inside one) and kernels store into it. NCCL's symmetric windows would give the same addresses, but their
 * device structures change between patch releases (88 or 200 bytes in 2.28.3 and 2.28.9), and their waits cannot time
 * out. */
#include "comm/gpu_int.h"

#include <unistd.h>

typedef struct {
    cudaIpcMemHandle_t handle;
    uint64_t address;
    int64_t process;
    int32_t device, exported;
} offer_t;

static void window_destroy(comm_gpu_t *gpu)
{
    for (uint32_t r = 0; r < gpu->config.ranks; r++) {
        if (gpu->opened[r] != NULL && !gpu->failed) (void)cudaIpcCloseMemHandle(gpu->opened[r]);
        gpu->opened[r] = NULL;
    }
    if (!gpu->failed) (void)cudaFree(gpu->home_base);
    gpu->home_base = NULL;
}

static cot_status_t reach(comm_gpu_t *gpu, uint32_t rank, const offer_t *offer)
{
    if (offer->process == getpid()) {
        if (offer->device != gpu->config.device) {
            cudaError_t code = cudaDeviceEnablePeerAccess(offer->device, 0);
            if (code == cudaErrorPeerAccessAlreadyEnabled) code = cudaGetLastError() == code ? cudaSuccess : code;
            COT_TRY(comm_gpu_cuda(code, "reach the other GPU"));
        }
        gpu->kernel.base[rank] = (uint8_t *)(uintptr_t)offer->address;
        return COT_OK;
    }
    if (!offer->exported) return cot_fail(COT_ERR_UNSUPPORTED, "rank %u cannot share its GPU memory", rank);
    COT_TRY(comm_gpu_cuda(cudaIpcOpenMemHandle(&gpu->opened[rank], offer->handle, cudaIpcMemLazyEnablePeerAccess),
                          "map another rank's GPU memory"));
    gpu->kernel.base[rank] = gpu->opened[rank];
    return COT_OK;
}

static cot_status_t fill_home_base(comm_gpu_t *gpu)
{
    void *home[COMM_GPU_MAX_RANKS];
    const size_t bytes = gpu->config.ranks * sizeof(*home);
    for (uint32_t r = 0; r < gpu->config.ranks; r++) home[r] = gpu->kernel.base[r] + gpu->kernel.layout.home;
    COT_TRY(comm_gpu_cuda(cudaMalloc((void **)&gpu->home_base, bytes), "take memory"));
    return comm_gpu_cuda(cudaMemcpy(gpu->home_base, home, bytes, cudaMemcpyHostToDevice), "copy to the GPU");
}

static cot_status_t window_create(comm_gpu_t *gpu)
{
    comm_link_t *link = gpu->config.link;
    offer_t own = {.address = (uint64_t)(uintptr_t)gpu->memory, .process = getpid(), .device = gpu->config.device};
    offer_t all[COMM_GPU_MAX_RANKS];
    own.exported = cudaIpcGetMemHandle(&own.handle, gpu->memory) == cudaSuccess;
    (void)cudaGetLastError();
    COT_TRY(comm_gpu_share(gpu, &own, sizeof(own), all));
    for (uint32_t r = 0; r < gpu->config.ranks; r++) {
        if (comm_node(link, gpu->config.first + r) != comm_node(link, comm_rank(link)))
            return cot_fail(COT_ERR_UNSUPPORTED, "rank %u is on another host", gpu->config.first + r);
        if (r == gpu->kernel.me)
            gpu->kernel.base[r] = gpu->memory;
        else
            COT_TRY(reach(gpu, r, &all[r]));
    }
    return fill_home_base(gpu);
}

static cot_status_t window_dispatch(comm_gpu_t *gpu, const comm_gpu_dispatch_args_t *args)
{
    comm_gpu_kernel_t kernel = gpu->kernel;
    kernel.tokens = args->tokens;
    kernel.layer = args->layer;
    return comm_gpu_push_rows(&kernel, args, gpu->config.mode == COMM_GPU_SIZED);
}

static cot_status_t window_give_back(comm_gpu_t *gpu, const comm_gpu_return_args_t *args)
{
    comm_gpu_kernel_t kernel = gpu->kernel;
    kernel.tokens = args->tokens;
    kernel.layer = args->layer;
    return comm_gpu_push_outputs(&kernel, args, gpu->config.mode == COMM_GPU_SIZED);
}

const comm_gpu_ops_t comm_gpu_window = {.name = "window",
                                        .create = window_create,
                                        .destroy = window_destroy,
                                        .dispatch = window_dispatch,
                                        .give_back = window_give_back};
