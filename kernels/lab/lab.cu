/* The lab's harness. */
#include "kernels/lab/lab.cuh"

#include <algorithm>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <vector>

double lab_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/* ---- cases ---- */

#define CASE_SECONDS 60

static void *watch(void *argument)
{
    lab_t *lab = static_cast<lab_t *>(argument);
    for (;;) {
        usleep(200000);
        const double deadline = lab->deadline.load();
        if (deadline == 0 || lab_seconds() < deadline) continue;
        printf("\n%s: passed its %d s\n", lab->name, CASE_SECONDS);
        fflush(stdout);
        _exit(6);
    }
    return NULL;
}

cot_status_t lab_watch(lab_t *lab)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, watch, lab) != 0)
        return cot_fail(COT_ERR_NO_MEMORY, "no thread for the watchdog");
    pthread_detach(thread);
    return COT_OK;
}

bool lab_case(lab_t *lab, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(lab->name, sizeof(lab->name), format, arguments);
    va_end(arguments);
    if (lab->only != NULL && strstr(lab->name, lab->only) == NULL) return false;
    if (lab->budget_seconds > 0 && lab_seconds() - lab->began > lab->budget_seconds) {
        if (lab->rank == 0) printf("%-44s skipped: the budget of %.0f s is spent\n", lab->name, lab->budget_seconds);
        return false;
    }
    lab->deadline = lab_seconds() + CASE_SECONDS;
    return true;
}

void lab_record(lab_t *lab, const lab_field_t *field, uint32_t count)
{
    lab->deadline = 0;
    if (lab->rank != 0) return;
    printf("%-44s", lab->name);
    for (uint32_t i = 0; i < count; i++) printf("  %s %.6g", field[i].name, field[i].value);
    printf("\n");
    fflush(stdout);
    if (lab->json == NULL) return;
    fprintf(lab->json, "{\"case\": \"%s\", \"device\": \"%s\"", lab->name, lab->device.name);
    for (uint32_t i = 0; i < count; i++)
        if (isfinite(field[i].value)) fprintf(lab->json, ", \"%s\": %.9g", field[i].name, field[i].value);
    fprintf(lab->json, "}\n");
    fflush(lab->json);
}

void lab_wrong(lab_t *lab, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    lab->failures++;
    printf("%-44s  rank %u WRONG: %s\n", lab->name, lab->rank, text);
    fflush(stdout);
    if (lab->json == NULL) return;
    fprintf(lab->json, "{\"case\": \"%s\", \"wrong\": \"%s\"}\n", lab->name, text);
    fflush(lab->json);
}

/* ---- ranks ---- */

cot_status_t lab_largest(lab_t *lab, double *value)
{
    const cot_deadline_t deadline = cot_deadline_in_ms(20000);
    for (uint32_t r = 0; r < lab->ranks; r++)
        if (r != lab->rank) COT_TRY(comm_send(lab->link, r, COMM_TAG_RESULT, value, sizeof(*value)));
    double largest = *value;
    for (uint32_t r = 0; r < lab->ranks; r++) {
        comm_message_t message;
        if (r == lab->rank) continue;
        COT_TRY(comm_receive(lab->link, r, COMM_TAG_RESULT, deadline, "a time", &message));
        double other;
        if (message.count != sizeof(other)) return cot_fail(COT_ERR_PROTOCOL, "rank %u sent no time", r);
        memcpy(&other, message.bytes, sizeof(other));
        largest = std::max(largest, other);
    }
    *value = largest;
    return COT_OK;
}

/* ---- memory and data ---- */

void *lab_device(lab_t *lab, size_t bytes)
{
    void *memory = NULL;
    if (lab->buffers == LAB_MAX_BUFFERS || cudaMalloc(&memory, std::max<size_t>(bytes, 256)) != cudaSuccess) {
        cudaGetLastError();
        cot_fail(COT_ERR_NO_MEMORY, "no device memory for %zu bytes", bytes);
        return NULL;
    }
    lab->buffer[lab->buffers++] = memory;
    return memory;
}

void lab_release(lab_t *lab)
{
    while (lab->buffers > 0) cudaFree(lab->buffer[--lab->buffers]);
}

uint64_t lab_next(lab_t *lab)
{
    uint64_t z = lab->random += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

/* Element i is a hash of (seed, i): uniform, and 0 becomes `scale`. */
template <typename T> __global__ void fill_random(T *out, size_t count, float scale, uint64_t seed)
{
    const size_t step = static_cast<size_t>(gridDim.x) * blockDim.x;
    for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
        uint64_t z = seed + i * 0x9e3779b97f4a7c15ULL;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
        const float unit = static_cast<float>(static_cast<int32_t>(z >> 32)) * 0x1p-31f;
        const float value = unit * scale;
        out[i] = static_cast<T>(value != 0 ? value : scale);
    }
}

cot_status_t lab_random_bf16(lab_t *lab, void *memory, size_t count, float scale)
{
    fill_random<<<2048, 256, 0, lab->stream>>>(static_cast<__nv_bfloat16 *>(memory), count, scale, lab_next(lab));
    KERN_CUDA_TRY(cudaGetLastError());
    return COT_OK;
}

cot_status_t lab_random_f32(lab_t *lab, float *memory, size_t count, float scale)
{
    fill_random<<<2048, 256, 0, lab->stream>>>(memory, count, scale, lab_next(lab));
    KERN_CUDA_TRY(cudaGetLastError());
    return COT_OK;
}

cot_status_t lab_poison(lab_t *lab, void *memory, size_t bytes)
{
    KERN_CUDA_TRY(cudaMemsetAsync(memory, 0xff, bytes, lab->stream));
    return COT_OK;
}

uint32_t lab_rotations(const lab_t *lab, size_t bytes, uint32_t most)
{
    const size_t wanted = 4 * static_cast<size_t>(lab->device.l2CacheSize) / std::max<size_t>(bytes, 1) + 1;
    return static_cast<uint32_t>(std::min<size_t>(std::max<size_t>(wanted, 1), most));
}

__global__ void count_differing(const uint32_t *a, const uint32_t *b, size_t words, unsigned long long *differing)
{
    unsigned long long mine = 0;
    const size_t step = static_cast<size_t>(gridDim.x) * blockDim.x;
    for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < words; i += step)
        mine += a[i] != b[i];
    if (mine != 0) atomicAdd(differing, mine);
}

cot_status_t lab_differing(lab_t *lab, const void *a, const void *b, size_t bytes, uint64_t *differing_out)
{
    unsigned long long *counter, result = 0;
    KERN_CUDA_TRY(cudaMallocAsync(&counter, sizeof(*counter), lab->stream));
    KERN_CUDA_TRY(cudaMemsetAsync(counter, 0, sizeof(*counter), lab->stream));
    count_differing<<<1024, 256, 0, lab->stream>>>(static_cast<const uint32_t *>(a), static_cast<const uint32_t *>(b),
                                                   bytes / 4, counter);
    KERN_CUDA_TRY(cudaMemcpyAsync(&result, counter, sizeof(result), cudaMemcpyDeviceToHost, lab->stream));
    KERN_CUDA_TRY(cudaFreeAsync(counter, lab->stream));
    KERN_CUDA_TRY(cudaStreamSynchronize(lab->stream));
    *differing_out = result;
    return COT_OK;
}

/* ---- time ---- */

static cot_status_t replay(lab_t *lab, cudaGraphExec_t graph, const lab_timing_t *timing, double *microseconds_out)
{
    const uint32_t MOST = 400;
    std::vector<float> times(MOST);
    cudaEvent_t begin, end;
    KERN_CUDA_TRY(cudaEventCreate(&begin));
    KERN_CUDA_TRY(cudaEventCreate(&end));
    for (int i = 0; i < 2; i++) KERN_CUDA_TRY(cudaGraphLaunch(graph, lab->stream));
    double total = 0;
    uint32_t count = 0;
    while (count < 5 || (total < timing->milliseconds && count < MOST)) {
        KERN_CUDA_TRY(cudaEventRecord(begin, lab->stream));
        KERN_CUDA_TRY(cudaGraphLaunch(graph, lab->stream));
        KERN_CUDA_TRY(cudaEventRecord(end, lab->stream));
        KERN_CUDA_TRY(cudaEventSynchronize(end));
        KERN_CUDA_TRY(cudaEventElapsedTime(&times[count], begin, end));
        total += times[count++];
    }
    std::sort(times.begin(), times.begin() + count);
    *microseconds_out = 1000.0 * times[count / 2] / timing->rounds;
    KERN_CUDA_TRY(cudaEventDestroy(begin));
    KERN_CUDA_TRY(cudaEventDestroy(end));
    return COT_OK;
}

cot_status_t lab_time(lab_t *lab, const lab_timing_t *timing, double *microseconds_out)
{
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    cot_status_t status = timing->launch(timing->context, 0); /* loads the module, raises limits */
    if (status != COT_OK) return status;
    KERN_CUDA_TRY(cudaStreamSynchronize(lab->stream));
    KERN_CUDA_TRY(cudaStreamBeginCapture(lab->stream, cudaStreamCaptureModeThreadLocal));
    for (uint32_t round = 0; status == COT_OK && round < timing->rounds; round++)
        status = timing->launch(timing->context, round);
    KERN_CUDA_TRY(cudaStreamEndCapture(lab->stream, &graph));
    if (status != COT_OK) return status;
    KERN_CUDA_TRY(cudaGraphInstantiate(&executable, graph, 0));
    status = replay(lab, executable, timing, microseconds_out);
    KERN_CUDA_TRY(cudaGraphExecDestroy(executable));
    KERN_CUDA_TRY(cudaGraphDestroy(graph));
    return status;
}

kern_config_t lab_kern_config(const lab_t *lab, uint32_t max_rows, uint32_t max_assignments)
{
    const model_config_t *model = &lab->config;
    kern_config_t config = {};
    config.act = KERN_BF16;
    config.isa = KERN_ISA_SCALAR;
    config.stream = lab->stream;
    config.device = lab->gpu;
    config.hidden = model->hidden;
    config.heads = model->heads;
    config.kv_heads = model->kv_heads;
    config.head_dim = model->head_dim;
    config.vocab = model->vocab;
    config.experts = model->experts;
    config.top_k = model->top_k;
    config.max_width = std::max(model->expert_width, std::max(model->dense_width, model->shared_width));
    config.max_rows = max_rows;
    config.max_assignments = max_assignments;
    config.max_context = std::min<uint32_t>(model->max_context, 32768);
    config.norm_eps = model->norm_eps;
    config.clip_qkv = model->clip_qkv;
    config.norm_topk = model->norm_topk;
    config.qk_norm = static_cast<kern_qk_norm_t>(model->qk_norm);
    config.inv_freq = model->inv_freq;
    config.rope_factor = model->rope_factor;
    return config;
}
