/* The nccl transport: grouped sends and receives of fixed size, so that they can be captured: rows and slots to every
 * rank, and home the outputs of all (token, k) places of a source, of which it picks those that the sender computed.
 * That is top_k x tokens rows for each pair of ranks where about top_k x tokens / ranks are needed: exact sizes would
 * need the host, or NCCL's device API (docs/design.md).
 *
 * A wait inside NCCL has no deadline of its own: comm_gpu_wait watches the progress from the host and aborts the
 * communicator from a thread, since ncclCommAbort may itself wait for captured graphs. */
#include "comm/gpu_int.h"

#include "base/log.h"
#include "base/memory.h"

#include <nccl.h>
#include <pthread.h>
#include <time.h>

enum { START_TIMEOUT_S = 60 };

typedef struct {
    ncclComm_t comm;
    int32_t *slots_out; /* [ranks, max_tokens, top_k] */
    uint8_t *staged;    /* [ranks, max_tokens * top_k, row_bytes] outputs that came home, before they are picked */
} nccl_t;

static cot_status_t nccl_try(ncclResult_t code, const char *doing)
{
    if (code == ncclSuccess || code == ncclInProgress) return COT_OK;
    return cot_fail(COT_ERR_DEVICE, "NCCL cannot %s: %s", doing, ncclGetErrorString(code));
}

static void nccl_destroy(comm_gpu_t *gpu)
{
    nccl_t *nccl = gpu->transport;
    if (nccl == NULL) return;
    if (!gpu->failed) { /* after a failure the abort has taken the communicator, and the process is about to end */
        if (nccl->comm != NULL) (void)ncclCommDestroy(nccl->comm);
        (void)cudaFree(nccl->slots_out);
        (void)cudaFree(nccl->staged);
    }
    cot_free(nccl);
    gpu->transport = NULL;
}

/* ncclCommInitRank has no deadline: it runs in a thread that is given up when it is late. Owned by both sides, freed by
 * the last. */
typedef struct {
    ncclUniqueId id;
    ncclComm_t comm;
    ncclResult_t code;
    int device, ranks, me;
} connect_t;

static void *connect_thread(void *argument)
{
    connect_t *connect = argument;
    connect->code = ncclSystemError;
    if (cudaSetDevice(connect->device) == cudaSuccess)
        connect->code = ncclCommInitRank(&connect->comm, connect->ranks, connect->id, connect->me);
    return NULL;
}

static cot_status_t connect_all(comm_gpu_t *gpu, ncclUniqueId id, ncclComm_t *comm_out)
{
    connect_t *connect = cot_calloc(1, sizeof(*connect));
    if (connect == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for NCCL");
    *connect = (connect_t){
        .id = id, .device = gpu->config.device, .ranks = (int)gpu->config.ranks, .me = (int)gpu->kernel.me};
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += START_TIMEOUT_S;
    pthread_t thread;
    if (pthread_create(&thread, NULL, connect_thread, connect) != 0) {
        cot_free(connect);
        return cot_fail(COT_ERR_NO_MEMORY, "no thread to start NCCL in");
    }
    if (pthread_timedjoin_np(thread, NULL, &until) != 0) {
        pthread_detach(thread); /* `connect` stays: the thread may still write to it */
        return cot_fail(COT_ERR_TIMEOUT, "NCCL did not connect %u GPUs within %d s: look at NCCL_DEBUG=INFO",
                        gpu->config.ranks, START_TIMEOUT_S);
    }
    *comm_out = connect->comm;
    cot_status_t status = nccl_try(connect->code, "connect the GPUs");
    cot_free(connect);
    return status;
}

static cot_status_t nccl_create(comm_gpu_t *gpu)
{
    const comm_gpu_config_t *config = &gpu->config;
    const size_t places = (size_t)config->ranks * config->max_tokens * config->top_k;
    ncclUniqueId own = {0}, all[COMM_GPU_MAX_RANKS];
    cot_status_t status = COT_OK;
    if (gpu->kernel.me == 0) status = nccl_try(ncclGetUniqueId(&own), "start");
    COT_TRY(comm_gpu_share(gpu, &own, sizeof(own), all));
    COT_TRY(status);

    nccl_t *nccl = cot_calloc(1, sizeof(*nccl));
    if (nccl == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for NCCL");
    gpu->transport = nccl;
    gpu->kernel.base[gpu->kernel.me] = gpu->memory;
    COT_TRY(comm_gpu_cuda(cudaMalloc((void **)&nccl->slots_out, places * sizeof(int32_t)), "take memory"));
    COT_TRY(comm_gpu_cuda(cudaMalloc((void **)&nccl->staged, places * config->row_bytes), "take memory"));
    return connect_all(gpu, all[0], &nccl->comm);
}

static cot_status_t nccl_dispatch(comm_gpu_t *gpu, const comm_gpu_dispatch_args_t *args)
{
    nccl_t *nccl = gpu->transport;
    const comm_gpu_config_t *config = &gpu->config;
    const size_t row_bytes = (size_t)args->tokens * config->row_bytes, slots = (size_t)args->tokens * config->top_k;
    cudaStream_t stream = args->stream;
    comm_gpu_kernel_t kernel = gpu->kernel;
    kernel.tokens = args->tokens;
    kernel.layer = args->layer;
    comm_gpu_buffers_t buffers;
    comm_gpu_buffers(gpu, args->tokens, &buffers);
    COT_TRY(comm_gpu_fill_slots(&kernel, args, nccl->slots_out));
    if (args->rows != buffers.own_rows)
        COT_TRY(comm_gpu_cuda(
            cudaMemcpyAsync(buffers.own_rows, args->rows, row_bytes, cudaMemcpyDeviceToDevice, stream), "copy rows"));
    COT_TRY(comm_gpu_cuda(cudaMemcpyAsync(buffers.slots + kernel.me * slots, nccl->slots_out + kernel.me * slots,
                                          slots * sizeof(int32_t), cudaMemcpyDeviceToDevice, stream),
                          "copy slots"));
    COT_TRY(nccl_try(ncclGroupStart(), "open a group"));
    for (uint32_t i = 1; i < config->ranks; i++) {
        const uint32_t to = (kernel.me + i) % config->ranks, from = (kernel.me + config->ranks - i) % config->ranks;
        COT_TRY(nccl_try(ncclSend(args->rows, row_bytes, ncclUint8, (int)to, nccl->comm, stream), "send rows"));
        COT_TRY(nccl_try(ncclSend(nccl->slots_out + to * slots, slots, ncclInt32, (int)to, nccl->comm, stream),
                         "send slots"));
        COT_TRY(nccl_try(
            ncclRecv((uint8_t *)buffers.rows + from * row_bytes, row_bytes, ncclUint8, (int)from, nccl->comm, stream),
            "receive rows"));
        COT_TRY(nccl_try(ncclRecv(buffers.slots + from * slots, slots, ncclInt32, (int)from, nccl->comm, stream),
                         "receive slots"));
    }
    return nccl_try(ncclGroupEnd(), "send rows");
}

static cot_status_t nccl_give_back(comm_gpu_t *gpu, const comm_gpu_return_args_t *args)
{
    nccl_t *nccl = gpu->transport;
    const comm_gpu_config_t *config = &gpu->config;
    const size_t block = (size_t)args->tokens * config->top_k * config->row_bytes;
    const uint8_t *outputs = args->outputs;
    cudaStream_t stream = args->stream;
    comm_gpu_kernel_t kernel = gpu->kernel;
    kernel.tokens = args->tokens;
    kernel.layer = args->layer;
    if (outputs == NULL) return cot_fail(COT_ERR_INTERNAL, "the nccl exchange needs the outputs in one place");
    COT_TRY(comm_gpu_mark(&kernel, COMM_GPU_RETURN, stream));
    COT_TRY(nccl_try(ncclGroupStart(), "open a group"));
    for (uint32_t i = 1; i < config->ranks; i++) {
        const uint32_t to = (kernel.me + i) % config->ranks, from = (kernel.me + config->ranks - i) % config->ranks;
        COT_TRY(
            nccl_try(ncclSend(outputs + to * block, block, ncclUint8, (int)to, nccl->comm, stream), "send outputs"));
        COT_TRY(nccl_try(ncclRecv(nccl->staged + from * block, block, ncclUint8, (int)from, nccl->comm, stream),
                         "receive outputs"));
    }
    COT_TRY(nccl_try(ncclGroupEnd(), "send outputs"));
    return comm_gpu_pick_home(&kernel, args, nccl->staged);
}

static void *abort_thread(void *argument)
{
    (void)ncclCommAbort(argument);
    return NULL;
}

/* Not joined: it may wait for graphs that hold NCCL's operations, and the process ends anyway. */
static void nccl_abandon(comm_gpu_t *gpu)
{
    nccl_t *nccl = gpu->transport;
    pthread_t thread;
    if (pthread_create(&thread, NULL, abort_thread, nccl->comm) == 0)
        pthread_detach(thread);
    else
        cot_log_warn("no thread to abort NCCL with");
    nccl->comm = NULL;
}

const comm_gpu_ops_t comm_gpu_nccl = {.name = "nccl",
                                      .create = nccl_create,
                                      .destroy = nccl_destroy,
                                      .dispatch = nccl_dispatch,
                                      .give_back = nccl_give_back,
                                      .abandon = nccl_abandon};
