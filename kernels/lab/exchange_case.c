/* World: expert e stands on rank e mod R, slot e / R. Token t of rank r has row words hash(r, t) + w; the output of
 * (source, token, k) has words hash(source, token) + 1000 k + w. Experts of a token are drawn without repetition from
 * (seed, rank, token), the same on every rank, so that each rank knows what must come. */
#include "kernels/lab/exchange_case.h"

#include "base/clock.h"
#include "base/memory.h"

#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>

#define TRY_CUDA(call)                                                                                         \
    do {                                                                                                       \
        cudaError_t code_ = (call);                                                                            \
        if (code_ != cudaSuccess) return cot_fail(COT_ERR_DEVICE, "%s: %s", #call, cudaGetErrorString(code_)); \
    } while (0)

enum { CHAIN = 32, REPLAYS = 15 };

static uint32_t hash(uint32_t a, uint32_t b, uint32_t c)
{
    uint64_t z = ((uint64_t)a << 40) ^ ((uint64_t)b << 20) ^ c;
    z = (z + UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 29)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)(z >> 32);
}

/* The k-th expert of a token; -1: none (a padded token). */
static int32_t expert_of(const lab_exchange_t *x, uint32_t rank, uint32_t token, uint32_t k)
{
    if (x->pattern == LAB_NOBODY || (x->pattern == LAB_LAST_RANK_IDLE && rank + 1 == x->ranks)) return -1;
    if (token % 13 == 12) return -1;
    uint32_t first = hash(x->seed, rank, token), step = 1;
    if (x->pattern == LAB_ALL_TO_ONE) {
        step = x->ranks; /* all on the first expert's rank */
        first -= first % x->ranks;
    }
    return (int32_t)((first + k * step) % x->experts);
}

static uint32_t word(uint32_t rank, uint32_t token, uint32_t k1, uint32_t w)
{
    return hash(rank, token, 7) + 1000 * k1 + w;
}

/* Everything on the device that a case needs. Owned. */
typedef struct {
    cudaStream_t stream;
    uint32_t *rows;    /* [tokens, words] */
    void *own_rows;    /* instead of `rows`; the exchange's */
    int32_t *expert;   /* [tokens, top_k] */
    uint32_t *outputs; /* [ranks, tokens, top_k, words] */
    comm_gpu_place_t *place;
} device_t;

static void device_clear(device_t *device)
{
    (void)cudaFree(device->rows);
    (void)cudaFree(device->expert);
    (void)cudaFree(device->outputs);
    (void)cudaFree(device->place);
    if (device->stream != NULL) (void)cudaStreamDestroy(device->stream);
}

static cot_status_t upload_inputs(const lab_exchange_t *x, device_t *device)
{
    const size_t words = x->row_bytes / 4, pairs = (size_t)x->tokens * x->top_k;
    uint32_t *rows = cot_alloc(x->tokens * words * 4);
    int32_t *expert = cot_alloc(pairs * sizeof(*expert));
    comm_gpu_place_t *place = cot_alloc(x->experts * sizeof(*place));
    if (rows == NULL || expert == NULL || place == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a case");
    for (uint32_t t = 0; t < x->tokens; t++) {
        for (uint32_t w = 0; w < words; w++) rows[t * words + w] = word(x->me, t, 0, w);
        for (uint32_t k = 0; k < x->top_k; k++) expert[t * x->top_k + k] = expert_of(x, x->me, t, k);
    }
    for (uint32_t e = 0; e < x->experts; e++)
        place[e] = (comm_gpu_place_t){.rank = (int16_t)(e % x->ranks), .slot = (int16_t)(e / x->ranks)};
    TRY_CUDA(cudaMemcpy(device->rows, rows, x->tokens * words * 4, cudaMemcpyHostToDevice));
    TRY_CUDA(cudaMemcpy(device->expert, expert, pairs * sizeof(*expert), cudaMemcpyHostToDevice));
    TRY_CUDA(cudaMemcpy(device->place, place, x->experts * sizeof(*place), cudaMemcpyHostToDevice));
    cot_free(rows);
    cot_free(expert);
    cot_free(place);
    return COT_OK;
}

static cot_status_t set_up(const lab_exchange_t *x, device_t *device)
{
    const size_t pairs = (size_t)x->tokens * x->top_k;
    TRY_CUDA(cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking));
    TRY_CUDA(cudaMalloc((void **)&device->rows, (size_t)x->tokens * x->row_bytes));
    TRY_CUDA(cudaMalloc((void **)&device->expert, pairs * sizeof(int32_t)));
    TRY_CUDA(cudaMalloc((void **)&device->outputs, x->ranks * pairs * x->row_bytes));
    TRY_CUDA(cudaMalloc((void **)&device->place, x->experts * sizeof(comm_gpu_place_t)));
    TRY_CUDA(cudaMemset(device->outputs, 0x5a, x->ranks * pairs * x->row_bytes));
    return upload_inputs(x, device);
}

static cot_status_t dispatch(const lab_exchange_t *x, const device_t *device)
{
    return comm_gpu_dispatch(
        x->gpu, &(comm_gpu_dispatch_args_t){.stream = device->stream,
                                            .tokens = x->tokens,
                                            .layer = 5,
                                            .rows = device->own_rows != NULL ? device->own_rows : device->rows,
                                            .expert = device->expert,
                                            .place = device->place});
}

static cot_status_t give_back(const lab_exchange_t *x, const device_t *device, bool move)
{
    return comm_gpu_return(x->gpu, &(comm_gpu_return_args_t){.stream = device->stream,
                                                             .tokens = x->tokens,
                                                             .layer = 5,
                                                             .outputs = move ? device->outputs : NULL,
                                                             .expert = device->expert,
                                                             .place = device->place});
}

/* ---- checks ---- */

/* The place of a token in the slab of `at`: the token itself, or the number of tokens before it that go there too. */
static int64_t place_of(const lab_exchange_t *x, uint32_t source, uint32_t token, bool sized)
{
    if (!sized) return token;
    int64_t place = 0;
    for (uint32_t t = 0; t <= token; t++) {
        bool needed = false;
        for (uint32_t k = 0; k < x->top_k; k++) {
            int32_t expert = expert_of(x, source, t, k);
            needed |= expert >= 0 && (uint32_t)expert % x->ranks == x->me;
        }
        if (t == token) return needed ? place : -1;
        place += needed;
    }
    return -1;
}

typedef struct {
    uint32_t *rows;
    int32_t *slots, *token;
    uint32_t *outputs, *home;
} host_t;

static uint64_t check_slab(const lab_exchange_t *x, const host_t *host, bool sized)
{
    const size_t words = x->row_bytes / 4;
    uint64_t wrong = 0;
    for (uint32_t source = 0; source < x->ranks; source++) {
        uint32_t places = 0;
        for (uint32_t t = 0; t < x->tokens; t++) {
            const int64_t place = place_of(x, source, t, sized);
            if (place < 0) continue;
            places++;
            const size_t at = (size_t)source * x->tokens + (size_t)place;
            if (sized) wrong += host->token[at] != (int32_t)t;
            for (uint32_t w = 0; w < words; w++) wrong += host->rows[at * words + w] != word(source, t, 0, w);
            for (uint32_t k = 0; k < x->top_k; k++) {
                const int32_t expert = expert_of(x, source, t, k);
                const bool here = expert >= 0 && (uint32_t)expert % x->ranks == x->me;
                wrong += host->slots[at * x->top_k + k] != (here ? expert / (int32_t)x->ranks : -1);
            }
        }
        for (size_t at = (size_t)source * x->tokens + places; sized && at < ((size_t)source + 1) * x->tokens; at++) {
            wrong += host->token[at] != -1;
            for (uint32_t k = 0; k < x->top_k; k++) wrong += host->slots[at * x->top_k + k] != -1;
        }
    }
    return wrong;
}

static void make_outputs(const lab_exchange_t *x, host_t *host, bool sized)
{
    const size_t words = x->row_bytes / 4;
    for (uint32_t source = 0; source < x->ranks; source++)
        for (uint32_t t = 0; t < x->tokens; t++) {
            const int64_t place = place_of(x, source, t, sized);
            for (uint32_t k = 0; place >= 0 && k < x->top_k; k++)
                for (uint32_t w = 0; w < words; w++)
                    host->outputs[(((size_t)source * x->tokens + (size_t)place) * x->top_k + k) * words + w] = word(
                        source, t, k + 1, w);
        }
}

static uint64_t check_home(const lab_exchange_t *x, const host_t *host)
{
    const size_t words = x->row_bytes / 4;
    uint64_t wrong = 0;
    for (uint32_t t = 0; t < x->tokens; t++)
        for (uint32_t k = 0; k < x->top_k; k++)
            for (uint32_t w = 0; w < words && expert_of(x, x->me, t, k) >= 0; w++)
                wrong += host->home[((size_t)t * x->top_k + k) * words + w] != word(x->me, t, k + 1, w);
    return wrong;
}

static cot_status_t fetch_and_check(const lab_exchange_t *x, host_t *host, bool sized, uint64_t *wrong_out)
{
    const size_t places = (size_t)x->ranks * x->tokens;
    comm_gpu_buffers_t buffers;
    comm_gpu_buffers(x->gpu, x->tokens, &buffers);
    TRY_CUDA(cudaMemcpy(host->rows, buffers.rows, places * x->row_bytes, cudaMemcpyDeviceToHost));
    TRY_CUDA(cudaMemcpy(host->slots, buffers.slots, places * x->top_k * 4, cudaMemcpyDeviceToHost));
    if (sized) TRY_CUDA(cudaMemcpy(host->token, buffers.token, places * 4, cudaMemcpyDeviceToHost));
    TRY_CUDA(cudaMemcpy(host->home, buffers.home, (size_t)x->tokens * x->top_k * x->row_bytes, cudaMemcpyDeviceToHost));
    *wrong_out += check_slab(x, host, sized) + check_home(x, host);
    /* What the next round must write again. */
    TRY_CUDA(cudaMemset(buffers.home, 0xee, (size_t)x->tokens * x->top_k * x->row_bytes));
    TRY_CUDA(cudaDeviceSynchronize());
    return COT_OK;
}

static cot_status_t capture(const lab_exchange_t *x, const device_t *device, int exchanges[2], cudaGraphExec_t *out)
{
    cudaGraph_t graph;
    TRY_CUDA(cudaStreamBeginCapture(device->stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < exchanges[0] || i < exchanges[1]; i++) {
        if (i < exchanges[0]) COT_TRY(dispatch(x, device));
        if (i < exchanges[1]) COT_TRY(give_back(x, device, true));
    }
    TRY_CUDA(cudaStreamEndCapture(device->stream, &graph));
    TRY_CUDA(cudaGraphInstantiate(out, graph, 0));
    TRY_CUDA(cudaGraphDestroy(graph));
    return COT_OK;
}

static cot_status_t check_rounds(const lab_exchange_t *x, const device_t *device, host_t *host, uint64_t *wrong_out)
{
    comm_gpu_buffers_t buffers;
    comm_gpu_buffers(x->gpu, x->tokens, &buffers);
    const bool sized = buffers.token != NULL;
    make_outputs(x, host, sized);
    TRY_CUDA(cudaMemcpy(device->outputs, host->outputs, (size_t)x->ranks * x->tokens * x->top_k * x->row_bytes,
                        cudaMemcpyHostToDevice));
    for (int round = 0; round < 2; round++) {
        COT_TRY(dispatch(x, device));
        COT_TRY(give_back(x, device, true));
        COT_TRY(comm_gpu_wait(x->gpu, device->stream, (uint64_t)round));
        COT_TRY(fetch_and_check(x, host, sized, wrong_out));
    }
    cudaGraphExec_t graph;
    COT_TRY(capture(x, device, (int[2]){3, 3}, &graph));
    for (int round = 0; round < 2; round++) {
        TRY_CUDA(cudaGraphLaunch(graph, device->stream));
        COT_TRY(comm_gpu_wait(x->gpu, device->stream, (uint64_t)round + 2));
        COT_TRY(fetch_and_check(x, host, sized, wrong_out));
    }
    TRY_CUDA(cudaGraphExecDestroy(graph));
    return COT_OK;
}

cot_status_t lab_exchange_check(const lab_exchange_t *x, uint64_t *wrong_out)
{
    const size_t places = (size_t)x->ranks * x->tokens, pairs = places * x->top_k;
    device_t device = {0};
    host_t host = {.rows = cot_alloc(places * x->row_bytes),
                   .slots = cot_alloc(pairs * 4),
                   .token = cot_alloc(places * 4),
                   .outputs = cot_calloc(pairs, x->row_bytes),
                   .home = cot_alloc((size_t)x->tokens * x->top_k * x->row_bytes)};
    cot_status_t status = COT_OK;
    if (host.rows == NULL || host.slots == NULL || host.token == NULL || host.outputs == NULL || host.home == NULL)
        status = cot_fail(COT_ERR_NO_MEMORY, "no memory for a case");
    if (status == COT_OK) status = set_up(x, &device);
    if (status == COT_OK) status = check_rounds(x, &device, &host, wrong_out);
    device_clear(&device);
    void *memory[] = {host.rows, host.slots, host.token, host.outputs, host.home};
    for (size_t i = 0; i < sizeof(memory) / sizeof(*memory); i++) cot_free(memory[i]);
    return status;
}

/* ---- times ---- */

static int ascending(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Median over REPLAYS of the time of one of CHAIN exchanges. */
static cot_status_t time_chain(const lab_exchange_t *x, const device_t *device, int exchanges[2], double *us_out)
{
    cudaGraphExec_t graph;
    cudaEvent_t begin, end;
    float ms[REPLAYS];
    COT_TRY(capture(x, device, exchanges, &graph));
    TRY_CUDA(cudaEventCreate(&begin));
    TRY_CUDA(cudaEventCreate(&end));
    for (int i = -3; i < REPLAYS; i++) {
        TRY_CUDA(cudaEventRecord(begin, device->stream));
        TRY_CUDA(cudaGraphLaunch(graph, device->stream));
        TRY_CUDA(cudaEventRecord(end, device->stream));
        COT_TRY(comm_gpu_wait(x->gpu, device->stream, (uint64_t)(i + 3)));
        if (i >= 0) TRY_CUDA(cudaEventElapsedTime(&ms[i], begin, end));
    }
    TRY_CUDA(cudaEventDestroy(begin));
    TRY_CUDA(cudaEventDestroy(end));
    TRY_CUDA(cudaGraphExecDestroy(graph));
    qsort(ms, REPLAYS, sizeof(*ms), ascending);
    *us_out = ms[REPLAYS / 2] * 1000.0 / CHAIN;
    return COT_OK;
}

/* Rows lie where a layer's kernels write them: in our part of the slab. */
static cot_status_t time_all(const lab_exchange_t *x, device_t *device, lab_exchange_time_t *time_out)
{
    comm_gpu_buffers_t buffers;
    comm_gpu_buffers(x->gpu, x->tokens, &buffers);
    if (buffers.token == NULL) {
        (void)cudaFree(device->rows);
        device->rows = NULL;
        device->own_rows = buffers.own_rows;
    }
    COT_TRY(dispatch(x, device)); /* slots and rows in place, as the returns need them */
    COT_TRY(comm_gpu_wait(x->gpu, device->stream, 0));
    COT_TRY(time_chain(x, device, (int[2]){CHAIN, 0}, &time_out->dispatch_us));
    return time_chain(x, device, (int[2]){0, CHAIN}, &time_out->return_us);
}

cot_status_t lab_exchange_time(const lab_exchange_t *x, lab_exchange_time_t *time_out)
{
    device_t device = {0};
    cot_status_t status = set_up(x, &device);
    if (status == COT_OK) status = time_all(x, &device, time_out);
    device_clear(&device);
    return status;
}

static cot_status_t loop(const lab_exchange_t *x, const device_t *device, int seconds, uint64_t *steps_out)
{
    cudaGraphExec_t graph;
    COT_TRY(capture(x, device, (int[2]){16, 16}, &graph));
    const cot_deadline_t deadline = cot_deadline_in_ms(seconds * INT64_C(1000));
    for (*steps_out = 0; !cot_deadline_passed(deadline); ++*steps_out) {
        TRY_CUDA(cudaGraphLaunch(graph, device->stream));
        COT_TRY(comm_gpu_wait(x->gpu, device->stream, *steps_out));
    }
    return COT_OK;
}

cot_status_t lab_exchange_loop(const lab_exchange_t *x, int seconds, uint64_t *steps_out)
{
    device_t device = {0};
    cot_status_t status = set_up(x, &device);
    if (status == COT_OK) status = loop(x, &device, seconds, steps_out);
    if (status == COT_OK) device_clear(&device); /* else kernels may still run on it */
    return status;
}
