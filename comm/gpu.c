/* Life of the exchange between GPUs, the choice of a transport, and the host's wait with its last word. */
#include "comm/gpu_int.h"

#include "base/log.h"
#include "base/memory.h"

#include <string.h>

enum { START_TIMEOUT_MS = 60000, DRAIN_TIMEOUT_MS = 1000 };

cot_status_t comm_gpu_cuda(cudaError_t code, const char *doing)
{
    if (code == cudaSuccess) return COT_OK;
    return cot_fail(COT_ERR_DEVICE, "CUDA cannot %s: %s", doing, cudaGetErrorString(code));
}

/* ---- bootstrap ---- */

cot_status_t comm_gpu_share(comm_gpu_t *gpu, const void *own, size_t bytes, void *all)
{
    const comm_gpu_config_t *config = &gpu->config;
    const cot_deadline_t deadline = cot_deadline_in_ms(START_TIMEOUT_MS);
    for (uint32_t r = 0; r < config->ranks; r++)
        if (r != gpu->kernel.me) COT_TRY(comm_send(config->link, config->first + r, COMM_TAG_SETUP, own, bytes));
    for (uint32_t r = 0; r < config->ranks; r++) {
        uint8_t *to = (uint8_t *)all + r * bytes;
        if (r == gpu->kernel.me) {
            memcpy(to, own, bytes);
            continue;
        }
        comm_message_t message;
        COT_TRY(comm_receive(config->link, config->first + r, COMM_TAG_SETUP, deadline, "the GPUs' handles", &message));
        if (message.count != bytes)
            return cot_fail(COT_ERR_PROTOCOL,
                            "rank %u sent %zu bytes of GPU handles, expected %zu: is it another build?",
                            config->first + r, message.count, bytes);
        memcpy(to, message.bytes, bytes);
    }
    return COT_OK;
}

/* ---- life ---- */

static size_t rounded(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

static comm_gpu_layout_t lay_out(const comm_gpu_config_t *config)
{
    const size_t places = (size_t)config->ranks * config->max_tokens;
    comm_gpu_layout_t layout = {.slots = rounded(sizeof(comm_gpu_control_t))};
    layout.token = layout.slots + rounded(places * config->top_k * sizeof(int32_t));
    layout.rows = layout.token + rounded(places * sizeof(int32_t));
    layout.home = layout.rows + rounded(places * config->row_bytes);
    layout.total = layout.home + rounded((size_t)config->max_tokens * config->top_k * config->row_bytes);
    return layout;
}

static cot_status_t check(const comm_gpu_config_t *config)
{
    const uint32_t rank = comm_rank(config->link);
    if (rank < config->first || rank - config->first >= config->ranks || config->ranks > COMM_GPU_MAX_RANKS)
        return cot_fail(COT_ERR_INVALID, "rank %u cannot join a group of %u GPUs from rank %u on (at most %d)", rank,
                        config->ranks, config->first, COMM_GPU_MAX_RANKS);
    if (config->row_bytes == 0 || config->row_bytes % 16 != 0 || config->max_tokens == 0 || config->top_k == 0 ||
        config->experts == 0 || config->experts > INT16_MAX || config->timeout_ms <= 0)
        return cot_fail(COT_ERR_INVALID,
                        "the exchange between GPUs cannot take rows of %u bytes, %u tokens, top-%u of %u "
                        "experts, a deadline of %lld ms: rows must be a multiple of 16 bytes",
                        config->row_bytes, config->max_tokens, config->top_k, config->experts,
                        (long long)config->timeout_ms);
    if (config->mode == COMM_GPU_SIZED && config->transport == COMM_GPU_NCCL)
        return cot_fail(COT_ERR_UNSUPPORTED, "the sized exchange needs the window transport");
    return COT_OK;
}

static cot_status_t take_memory(comm_gpu_t *gpu)
{
    const comm_gpu_layout_t *layout = &gpu->kernel.layout;
    const size_t plan_ints = (size_t)gpu->config.ranks * gpu->config.max_tokens + gpu->config.ranks;
    COT_TRY(comm_gpu_cuda(cudaSetDevice(gpu->config.device), "use the GPU"));
    cudaError_t code = cudaMalloc((void **)&gpu->memory, layout->total);
    if (code == cudaErrorMemoryAllocation)
        return cot_fail(COT_ERR_NO_MEMORY,
                        "no GPU memory for the exchange's buffers (%zu bytes): lower --max-step-tokens", layout->total);
    COT_TRY(comm_gpu_cuda(code, "take memory for the exchange"));
    COT_TRY(comm_gpu_cuda(cudaMemset(gpu->memory, 0, layout->total), "clear the exchange's memory"));
    COT_TRY(comm_gpu_cuda(cudaMalloc((void **)&gpu->kernel.place_of, plan_ints * sizeof(int32_t)), "take memory"));
    COT_TRY(comm_gpu_cuda(cudaHostAlloc((void **)&gpu->cell, sizeof(*gpu->cell), cudaHostAllocMapped),
                          "take pinned memory"));
    memset(gpu->cell, 0, sizeof(*gpu->cell));
    COT_TRY(comm_gpu_can_overlap(&gpu->kernel.overlap));
    return comm_gpu_cuda(cudaHostGetDevicePointer((void **)&gpu->kernel.cell, gpu->cell, 0), "map pinned memory");
}

/* Whether all ranks came through `status`; the first that did not is named. */
static cot_status_t agree(comm_gpu_t *gpu, cot_status_t status)
{
    int32_t own = status, all[COMM_GPU_MAX_RANKS];
    COT_TRY(comm_gpu_share(gpu, &own, sizeof(own), all));
    if (status != COT_OK) return status;
    for (uint32_t r = 0; r < gpu->config.ranks; r++)
        if (all[r] != COT_OK)
            return cot_fail((cot_status_t)all[r], "rank %u cannot use the %s exchange", gpu->config.first + r,
                            gpu->ops->name);
    return COT_OK;
}

static cot_status_t choose(comm_gpu_t *gpu)
{
    static const comm_gpu_ops_t *const OPS[] = {&comm_gpu_window, &comm_gpu_nccl};
    const comm_gpu_transport_t wanted = gpu->config.transport;
    for (uint32_t i = 0; i < sizeof(OPS) / sizeof(*OPS); i++) {
        if (wanted != COMM_GPU_AUTO && wanted != (comm_gpu_transport_t)(i + 1)) continue;
        if (gpu->config.mode == COMM_GPU_SIZED && OPS[i] == &comm_gpu_nccl) continue;
        gpu->ops = OPS[i];
        cot_status_t status = agree(gpu, gpu->ops->create(gpu));
        if (status == COT_OK) {
            if (gpu->kernel.me == 0) cot_log_info("exchange between %u GPUs: %s", gpu->config.ranks, gpu->ops->name);
            return COT_OK;
        }
        gpu->ops->destroy(gpu);
        if (wanted != COMM_GPU_AUTO) return status;
        cot_log_info("the %s exchange cannot be used: %s", gpu->ops->name, cot_error_text());
    }
    gpu->ops = NULL;
    return cot_fail(COT_ERR_DEVICE, "no exchange between these %u GPUs works: start with --log-level info to see why",
                    gpu->config.ranks);
}

cot_status_t comm_gpu_create(const comm_gpu_config_t *config, comm_gpu_t **gpu_out)
{
    COT_TRY(check(config));
    comm_gpu_t *gpu = cot_calloc(1, sizeof(*gpu));
    if (gpu == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the exchange between GPUs");
    gpu->config = *config;
    gpu->kernel = (comm_gpu_kernel_t){.layout = lay_out(config),
                                      .timeout_ns = config->timeout_ms * 1000000,
                                      .me = comm_rank(config->link) - config->first,
                                      .ranks = config->ranks,
                                      .top_k = config->top_k,
                                      .row_vectors = config->row_bytes / 16};
    cot_status_t status = agree(gpu, take_memory(gpu));
    if (status == COT_OK) status = choose(gpu);
    if (status != COT_OK) {
        comm_gpu_destroy(gpu);
        return status;
    }
    *gpu_out = gpu;
    return COT_OK;
}

void comm_gpu_destroy(comm_gpu_t *gpu)
{
    if (gpu == NULL) return;
    if (gpu->ops != NULL) gpu->ops->destroy(gpu);
    if (!gpu->failed) { /* else kernels may still run on it: the process is about to end */
        (void)cudaFree(gpu->memory);
        (void)cudaFree(gpu->kernel.place_of);
        (void)cudaFreeHost(gpu->cell);
    }
    cot_free(gpu);
}

const char *comm_gpu_transport(const comm_gpu_t *gpu)
{
    return gpu->ops->name;
}

size_t comm_gpu_buffer_bytes(const comm_gpu_t *gpu)
{
    return gpu->kernel.layout.total;
}

void comm_gpu_buffers(const comm_gpu_t *gpu, uint32_t tokens, comm_gpu_buffers_t *buffers_out)
{
    const comm_gpu_layout_t *layout = &gpu->kernel.layout;
    uint8_t *rows = gpu->memory + layout->rows;
    *buffers_out = (comm_gpu_buffers_t){
        .own_rows = rows + (size_t)gpu->kernel.me * tokens * gpu->config.row_bytes,
        .rows = rows,
        .slots = (int32_t *)(void *)(gpu->memory + layout->slots),
        .token = gpu->config.mode == COMM_GPU_SIZED ? (int32_t *)(void *)(gpu->memory + layout->token) : NULL,
        .home = gpu->memory + layout->home,
        .home_base = gpu->home_base,
    };
}

/* ---- exchanges ---- */

static cot_status_t check_bucket(const comm_gpu_t *gpu, uint32_t tokens)
{
    if (tokens > 0 && tokens <= gpu->config.max_tokens && !gpu->failed) return COT_OK;
    if (gpu->failed) return cot_fail(COT_ERR_PEER_LOST, "the exchange between GPUs failed before: end the job");
    return cot_fail(COT_ERR_INTERNAL, "an exchange of %u tokens does not fit its %u", tokens, gpu->config.max_tokens);
}

cot_status_t comm_gpu_dispatch(comm_gpu_t *gpu, const comm_gpu_dispatch_args_t *args)
{
    COT_TRY(check_bucket(gpu, args->tokens));
    return gpu->ops->dispatch(gpu, args);
}

cot_status_t comm_gpu_return(comm_gpu_t *gpu, const comm_gpu_return_args_t *args)
{
    COT_TRY(check_bucket(gpu, args->tokens));
    return gpu->ops->give_back(gpu, args);
}

static const char *phase_name(uint32_t phase)
{
    return phase == COMM_GPU_DISPATCH ? "dispatch" : "return";
}

/* The device gave up, or the host did. What still runs gets a moment to end: after an abort later exchanges fall
 * through. */
static cot_status_t give_up(comm_gpu_t *gpu, cudaStream_t stream, uint64_t step)
{
    const volatile comm_gpu_cell_t *cell = gpu->cell;
    const bool by_device = cell->failed != 0;
    const uint32_t rank = gpu->config.first + gpu->kernel.me;
    gpu->failed = true;
    if (gpu->ops->abandon != NULL) gpu->ops->abandon(gpu);
    cot_backoff_t backoff = {0};
    for (cot_deadline_t deadline = cot_deadline_in_ms(DRAIN_TIMEOUT_MS); !cot_deadline_passed(deadline);) {
        if (cudaStreamQuery(stream) != cudaErrorNotReady) break;
        cot_backoff_wait(&backoff);
    }
    if (by_device)
        return cot_fail(COT_ERR_PEER_LOST,
                        "rank %u layer %u step %llu: %s timed out after %lld ms, waiting for rank %u", rank,
                        cell->failed_layer, (unsigned long long)step, phase_name(cell->failed_phase),
                        (long long)gpu->config.timeout_ms, gpu->config.first + cell->silent_rank);
    return cot_fail(COT_ERR_PEER_LOST,
                    "rank %u layer %u step %llu: no progress for %lld ms in or after a %s: a GPU or a rank is gone",
                    rank, cell->layer, (unsigned long long)step, (long long)gpu->config.timeout_ms,
                    phase_name(cell->phase));
}

cot_status_t comm_gpu_wait(comm_gpu_t *gpu, void *stream, uint64_t step)
{
    const volatile comm_gpu_cell_t *cell = gpu->cell;
    /* The device's own deadline comes first where there is one. */
    const int64_t patience_ms = gpu->config.timeout_ms + (gpu->ops->abandon == NULL ? 1000 : 0);
    uint32_t seen = cell->progress;
    cot_deadline_t deadline = cot_deadline_in_ms(patience_ms);
    cot_backoff_t backoff = {0};
    for (uint32_t look = 0;; look++) {
        cudaError_t code = cudaStreamQuery(stream);
        if (cell->failed != 0) return give_up(gpu, stream, step);
        if (code == cudaSuccess) return COT_OK;
        if (code != cudaErrorNotReady) {
            gpu->failed = true;
            return comm_gpu_cuda(code, "run a step");
        }
        if (cell->progress != seen) {
            seen = cell->progress;
            deadline = cot_deadline_in_ms(patience_ms);
        } else if (cot_deadline_passed(deadline)) {
            return give_up(gpu, stream, step);
        }
        if (look > 1000) cot_backoff_wait(&backoff); /* steps take milliseconds: look often first */
    }
}
