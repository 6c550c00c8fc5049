/* Stage `limits`: what the machine gives and what the contract left open: read rate of plain loads and of TMA rings by
 * size, latency of one k16 step in a chain of mma.sync and of wgmma, the time of cuBLASLt's algorithms that keep K in
 * one piece at the dense shapes, and whether their bits are those of K in order. */
#include "kernels/cuda/wgmma.cuh"
#include "kernels/lab/lab.cuh"

#include <algorithm>
#include <math.h>

/* ---- read rate ---- */

__global__ void __launch_bounds__(512) read_plain(const uint4 *data, size_t count, uint32_t *sink)
{
    uint32_t sum = 0;
    const size_t step = static_cast<size_t>(gridDim.x) * blockDim.x;
    size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    for (; i + 7 * step < count; i += 8 * step) {
        uint4 v[8];
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = __ldcs(data + i + j * step);
#pragma unroll
        for (int j = 0; j < 8; j++) sum += v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
    }
    if (sum == 0x12345678U) *sink = sum;
}

/* Tiles of 128 rows x 64 columns (8 boxes, 16 KB) of a [rows][2048] matrix, one tile row of 32 after the other, through
 * a ring of `stages`; one thread fills, one empties. What the expert kernel does without its arithmetic. */
__global__ void __launch_bounds__(64, 1)
    read_ring(const __grid_constant__ CUtensorMap map, uint32_t tiles, uint32_t stages)
{
#if defined(KERN_SM90A)
    extern __shared__ unsigned char raw[];
    __shared__ uint64_t full[16], empty[16];
    unsigned char *ring = reinterpret_cast<unsigned char *>((reinterpret_cast<uintptr_t>(raw) + 1023) &
                                                            ~uintptr_t(1023));
    if (threadIdx.x == 0) {
        for (uint32_t s = 0; s < stages; s++) {
            kcu::mbarrier_init(&full[s], 1);
            kcu::mbarrier_init(&empty[s], 1);
        }
        kcu::mbarrier_init_fence();
    }
    __syncthreads();
    uint32_t stage = 0, parity = 0;
    const uint64_t policy = kcu::policy_evict_first();
    for (uint32_t tile = blockIdx.x; tile < tiles; tile += gridDim.x)
        for (int k = 0; k < 32; k++) {
            if (threadIdx.x == 32) {
                kcu::mbarrier_wait(&full[stage], parity);
                kcu::mbarrier_arrive(&empty[stage]);
            } else if (threadIdx.x == 0) {
                kcu::mbarrier_wait(&empty[stage], parity ^ 1);
                kcu::mbarrier_arrive_expect(&full[stage], 16384);
                for (int r = 0; r < 8; r++)
                    kcu::tma_load_2d(ring + stage * 16384 + r * 2048, &map,
                                     make_int2(k * 64, static_cast<int>(tile * 128 + r * 16)), &full[stage], policy);
            }
            stage = stage + 1 == stages ? 0 : stage + 1;
            parity ^= stage == 0;
        }
#endif
}

struct reading {
    const kern_t *kern;
    const void *data;
    size_t bytes;
    CUtensorMap map;
    uint32_t stages;
    uint32_t *sink;
};

static cot_status_t launch_plain(void *context, uint32_t round)
{
    const reading *read = static_cast<const reading *>(context);
    const kern_t *kern = read->kern;
    const kern_cuda_launch launch = {
        .grid = static_cast<unsigned>(kern->sms * 4), .block = 512, .shared_bytes = 0, .overlap = false};
    (void)round;
    return kern_cuda_start(kern, launch, read_plain, static_cast<const uint4 *>(read->data), read->bytes / 16,
                           read->sink);
}

static cot_status_t launch_ring(void *context, uint32_t round)
{
    const reading *read = static_cast<const reading *>(context);
    const kern_cuda_launch launch = {.grid = static_cast<unsigned>(read->kern->sms),
                                     .block = 64,
                                     .shared_bytes = read->stages * 16384 + 1024,
                                     .overlap = false};
    (void)round;
    return kern_cuda_start(read->kern, launch, read_ring, read->map, static_cast<uint32_t>(read->bytes / (128 * 4096)),
                           read->stages);
}

static cot_status_t make_kern(lab_t *lab, kern_t **kern)
{
    const kern_config_t config = lab_kern_config(lab, 16, 16);
    return kern_cuda.create(&config, kern);
}

static cot_status_t prepare_reading(lab_t *lab, const kern_t *kern, reading *read)
{
    read->kern = kern;
    read->bytes = 2ULL << 30;
    void *data = lab_device(lab, read->bytes + 4);
    if (data == NULL) return COT_ERR_NO_MEMORY;
    read->data = data;
    read->sink = reinterpret_cast<uint32_t *>(static_cast<char *>(data) + read->bytes);
    COT_TRY(lab_random_bf16(lab, data, read->bytes / 2, 1));
    return kern_cuda_encode(kern, data, read->bytes / 4096, 2048, 2048, &read->map);
}

static cot_status_t measure_dense(lab_t *lab)
{
    const uint32_t SIDE = 8192;
    lab_blas_t product = {
        .m = SIDE, .n = SIDE, .k = SIDE, .batch = 1, .x = NULL, .w = NULL, .out = NULL, .out_f32 = false};
    const size_t bytes = static_cast<size_t>(SIDE) * SIDE * 2;
    void *x = lab_device(lab, bytes), *w = lab_device(lab, bytes);
    product.out = lab_device(lab, bytes);
    if (x == NULL || w == NULL || product.out == NULL) return COT_ERR_NO_MEMORY;
    COT_TRY(lab_random_bf16(lab, x, bytes / 2, 1));
    COT_TRY(lab_random_bf16(lab, w, bytes / 2, 1));
    product.x = x;
    product.w = w;
    struct context {
        lab_blas_plan_t *plan;
        lab_blas_t *product;
        cudaStream_t stream;
    } context = {NULL, &product, lab->stream};
    COT_TRY(lab_blas_create(lab, &product, true, 0, &context.plan));
    const lab_timing_t timing = {.launch =
                                     [](void *c, uint32_t) {
                                         const struct context *on = static_cast<const struct context *>(c);
                                         return lab_blas_run(on->plan, on->product, on->stream);
                                     },
                                 .context = &context,
                                 .rounds = 4,
                                 .milliseconds = 60};
    double microseconds = 0;
    cot_status_t status = lab_time(lab, &timing, &microseconds);
    lab_blas_destroy(context.plan);
    lab->dense_tflops = 2.0 * pow(SIDE, 3) / microseconds * 1e-6;
    return status;
}

static cot_status_t measure_limits(lab_t *lab, const kern_t *kern)
{
    reading read;
    double microseconds;
    COT_TRY(prepare_reading(lab, kern, &read));
    const lab_timing_t timing = {.launch = launch_plain, .context = &read, .rounds = 1, .milliseconds = 15};
    COT_TRY(lab_time(lab, &timing, &microseconds));
    lab->read_gbs = static_cast<double>(read.bytes) / microseconds * 1e-3;
    return measure_dense(lab);
}

cot_status_t lab_limits(lab_t *lab)
{
    if (lab->read_gbs > 0) return COT_OK;
    const char *only = lab->only;
    kern_t *kern;
    COT_TRY(make_kern(lab, &kern));
    lab->only = NULL;
    cot_status_t status = COT_OK;
    if (lab_case(lab, "limits/machine")) {
        status = measure_limits(lab, kern);
        if (status == COT_OK) LAB_RECORD(lab, {"read_GB/s", lab->read_gbs}, {"dense_TFLOP/s", lab->dense_tflops});
    }
    lab->only = only;
    kern_cuda.destroy(kern);
    lab_release(lab);
    return status;
}

static cot_status_t rings(lab_t *lab, const kern_t *kern)
{
    if (kern->major != 9) return COT_OK;
    reading read;
    COT_TRY(prepare_reading(lab, kern, &read));
    for (uint32_t stages = 2; stages <= 13; stages += stages < 4 ? 2 : stages < 10 ? 2 : 3) {
        if (!lab_case(lab, "limits/ring of %u KB", stages * 16)) continue;
        double microseconds;
        read.stages = stages;
        const lab_timing_t timing = {.launch = launch_ring, .context = &read, .rounds = 1, .milliseconds = 8};
        COT_TRY(lab_time(lab, &timing, &microseconds));
        const double rate = static_cast<double>(read.bytes) / microseconds * 1e-3;
        LAB_RECORD(lab, {"GB/s", rate}, {"of_read", rate / lab->read_gbs});
    }
    return COT_OK;
}

/* ---- chains ---- */

constexpr int CHAIN = 256;

__global__ void chain_mma(uint32_t *cycles, float *sink)
{
    float c[4] = {};
    const uint32_t a[4] = {threadIdx.x, 1, 2, 3}, b[2] = {threadIdx.x + 5, 7};
    for (int round = 0; round < 2; round++) {
        __syncthreads();
        const long long begin = clock64();
#pragma unroll 16
        for (int i = 0; i < CHAIN; i++) kcu::mma_bf16(c, a, b);
        if (c[0] == 3.0f) sink[1] = c[1];
        *cycles = static_cast<uint32_t>(clock64() - begin);
    }
    sink[threadIdx.x] = c[0] + c[3];
}

template <int N> __global__ void __launch_bounds__(128, 1) chain_wgmma(uint32_t *cycles, float *sink)
{
#if defined(KERN_SM90A)
    extern __shared__ unsigned char raw[];
    for (int i = threadIdx.x; i < 100 * 1024 / 4; i += 128) reinterpret_cast<uint32_t *>(raw)[i] = 0x3c003c00U;
    kcu::fence_async_shared();
    __syncthreads();
    float acc[N / 2] = {};
    const uint64_t a = kcu::wgmma_descriptor((kcu::shared_address(raw) + 1023) & ~1023U), b = a + (16384 >> 4);
    for (int round = 0; round < 2; round++) {
        const long long begin = clock64();
        kcu::wgmma_fence();
        for (int i = 0; i < CHAIN / 16; i++) {
#pragma unroll
            for (int j = 0; j < 16; j++) kcu::wgmma_ss<N>(acc, a + 2 * (j % 4), b + 2 * (j % 4));
            kcu::wgmma_commit();
        }
        kcu::wgmma_wait<0>();
        *cycles = static_cast<uint32_t>(clock64() - begin);
    }
    float sum = 0;
    for (int i = 0; i < N / 2; i++) sum += acc[i];
    sink[threadIdx.x] = sum;
#endif
}

static cot_status_t chain(lab_t *lab, const kern_t *kern, const char *name, void (*kernel)(uint32_t *, float *),
                          int threads)
{
    if (!lab_case(lab, "limits/chain %s", name)) return COT_OK;
    uint32_t cycles = 0, *device = static_cast<uint32_t *>(lab_device(lab, 4096));
    if (device == NULL) return COT_ERR_NO_MEMORY;
    const kern_cuda_launch launch = {.grid = 1,
                                     .block = static_cast<unsigned>(threads),
                                     .shared_bytes = threads == 128 ? 102 * 1024U : 0U,
                                     .overlap = false};
    COT_TRY(kern_cuda_start(kern, launch, kernel, device, reinterpret_cast<float *>(device + 16)));
    KERN_CUDA_TRY(cudaMemcpyAsync(&cycles, device, 4, cudaMemcpyDeviceToHost, lab->stream));
    KERN_CUDA_TRY(cudaStreamSynchronize(lab->stream));
    LAB_RECORD(lab, {"cycles/k16", static_cast<double>(cycles) / CHAIN});
    return COT_OK;
}

static cot_status_t chains(lab_t *lab, const kern_t *kern)
{
    COT_TRY(chain(lab, kern, "mma.sync m16n8k16", chain_mma, 32));
    if (kern->major != 9) return COT_OK;
    COT_TRY(chain(lab, kern, "wgmma m64n8k16", chain_wgmma<8>, 128));
    COT_TRY(chain(lab, kern, "wgmma m64n16k16", chain_wgmma<16>, 128));
    COT_TRY(chain(lab, kern, "wgmma m64n64k16", chain_wgmma<64>, 128));
    COT_TRY(chain(lab, kern, "wgmma m64n128k16", chain_wgmma<128>, 128));
    return chain(lab, kern, "wgmma m64n256k16", chain_wgmma<256>, 128);
}

/* ---- cuBLASLt ---- */

/* The judge of bits: out [m][n] fp32 = x w^T by mma.sync, one accumulator, K ascending; a warp makes 16 rows of w x 8
 * rows of x straight from global memory. Slow and plain. k a multiple of 16, n of 16. */
__global__ void in_order(const uint16_t *x, const uint16_t *w, float *out, int3 shape)
{
    const int m = shape.x, n = shape.y, k = shape.z;
    const int lane = threadIdx.x % 32, warp = static_cast<int>((blockIdx.x * blockDim.x + threadIdx.x) / 32);
    const int tiles = n / 16, w_row = warp % tiles * 16 + lane / 4, x_row = warp / tiles * 8 + lane / 4;
    if (warp / tiles * 8 >= m) return;
    float c[4] = {};
    const uint16_t *from_w = w + static_cast<size_t>(w_row) * k + 2 * (lane % 4);
    const uint16_t *from_x = x + static_cast<size_t>(x_row < m ? x_row : m - 1) * k + 2 * (lane % 4);
    for (int i = 0; i < k; i += 16) {
        const uint32_t a[4] = {*reinterpret_cast<const uint32_t *>(from_w + i),
                               *reinterpret_cast<const uint32_t *>(from_w + 8 * static_cast<size_t>(k) + i),
                               *reinterpret_cast<const uint32_t *>(from_w + i + 8),
                               *reinterpret_cast<const uint32_t *>(from_w + 8 * static_cast<size_t>(k) + i + 8)};
        const uint32_t b[2] = {*reinterpret_cast<const uint32_t *>(from_x + i),
                               *reinterpret_cast<const uint32_t *>(from_x + i + 8)};
        kcu::mma_bf16(c, a, b);
    }
    for (int i = 0; i < 4; i++) {
        const int row = warp / tiles * 8 + 2 * (lane % 4) + i % 2, column = w_row + i / 2 * 8;
        if (row < m) out[static_cast<size_t>(row) * n + column] = c[i];
    }
}

cot_status_t lab_in_order(lab_t *lab, const lab_blas_t *product)
{
    const size_t warps = static_cast<size_t>(product->n / 16) * ((product->m + 7) / 8);
    in_order<<<static_cast<unsigned>((warps + 7) / 8), 256, 0, lab->stream>>>(
        static_cast<const uint16_t *>(product->x), static_cast<const uint16_t *>(product->w),
        static_cast<float *>(product->out),
        make_int3(static_cast<int>(product->m), static_cast<int>(product->n), static_cast<int>(product->k)));
    KERN_CUDA_TRY(cudaGetLastError());
    return COT_OK;
}

struct blas_case {
    cudaStream_t stream;
    lab_blas_plan_t *plan;
    lab_blas_t product;
    const uint16_t *w;
    size_t w_elements;
    uint32_t rotations;
};

static cot_status_t launch_blas(void *context, uint32_t round)
{
    blas_case *on = static_cast<blas_case *>(context);
    on->product.w = on->w + round % on->rotations * on->w_elements;
    return lab_blas_run(on->plan, &on->product, on->stream);
}

static cot_status_t judge_blas(lab_t *lab, blas_case *on, float *judged, uint32_t algorithm)
{
    cot_status_t status = lab_blas_create(lab, &on->product, true, algorithm, &on->plan);
    if (status == COT_ERR_NOT_FOUND) return COT_OK;
    COT_TRY(status);
    double microseconds = 0;
    uint64_t differing = 0;
    const size_t bytes = static_cast<size_t>(on->product.m) * on->product.n * 4;
    COT_TRY(lab_poison(lab, on->product.out, bytes));
    COT_TRY(launch_blas(on, 0));
    COT_TRY(lab_differing(lab, on->product.out, judged, bytes, &differing));
    const lab_timing_t timing = {
        .launch = launch_blas, .context = on, .rounds = std::max(on->rotations, 4U), .milliseconds = 4};
    status = lab_time(lab, &timing, &microseconds);
    lab_blas_destroy(on->plan);
    COT_TRY(status);
    const double weights = static_cast<double>(on->w_elements) * 2;
    LAB_RECORD(lab, {"algorithm", double(algorithm)}, {"us", microseconds},
               {"of_read", weights / microseconds * 1e-3 / lab->read_gbs},
               {"TFLOP/s", weights * on->product.m / microseconds * 1e-6},
               {"unequal_share", static_cast<double>(differing) / (static_cast<double>(bytes) / 4)});
    return COT_OK;
}

static cot_status_t blas_shape(lab_t *lab, const char *name, uint32_t n, uint32_t k)
{
    const uint32_t most = lab->rows_count > 0 ? *std::max_element(lab->rows, lab->rows + lab->rows_count) : 1;
    blas_case on = {};
    on.stream = lab->stream;
    on.w_elements = static_cast<size_t>(n) * k;
    on.rotations = lab_rotations(lab, on.w_elements * 2, 16);
    uint16_t *w = static_cast<uint16_t *>(lab_device(lab, on.w_elements * on.rotations * 2));
    uint16_t *x = static_cast<uint16_t *>(lab_device(lab, static_cast<size_t>(most) * k * 2));
    float *out = static_cast<float *>(lab_device(lab, static_cast<size_t>(most) * n * 4 * 2));
    if (w == NULL || x == NULL || out == NULL) return COT_ERR_NO_MEMORY;
    COT_TRY(lab_random_bf16(lab, w, on.w_elements * on.rotations, 1));
    COT_TRY(lab_random_bf16(lab, x, static_cast<size_t>(most) * k, 1));
    on.w = w;
    for (uint32_t r = 0; r < lab->rows_count; r++) {
        float *judged = out + static_cast<size_t>(most) * n;
        on.product = {.m = lab->rows[r], .n = n, .k = k, .batch = 1, .x = x, .w = w, .out = judged, .out_f32 = true};
        COT_TRY(lab_in_order(lab, &on.product));
        on.product.out = out;
        for (uint32_t algorithm = 0; algorithm < 3; algorithm++)
            if (lab_case(lab, "limits/cublaslt %s %ux%u rows %u", name, n, k, lab->rows[r]))
                COT_TRY(judge_blas(lab, &on, judged, algorithm));
    }
    lab_release(lab);
    return COT_OK;
}

cot_status_t lab_stage_limits(lab_t *lab)
{
    const model_config_t *model = &lab->config;
    const uint32_t heads = model->heads * model->head_dim, qkv = heads + 2 * model->kv_heads * model->head_dim;
    kern_t *kern;
    COT_TRY(lab_limits(lab));
    COT_TRY(make_kern(lab, &kern));
    cot_status_t status = chains(lab, kern);
    if (status == COT_OK) status = rings(lab, kern);
    kern_cuda.destroy(kern);
    lab_release(lab);
    COT_TRY(status);
    COT_TRY(blas_shape(lab, "qkv", qkv, model->hidden));
    COT_TRY(blas_shape(lab, "half of o", model->hidden, heads / 2));
    return blas_shape(lab, "head", model->vocab / 16 * 16, model->hidden);
}
