/* Routing: logits = normed gate^T on the tensor cores in K order, fp32; the top-k by (logit descending, id ascending);
 * weights.
 *
 * route_logits: a block of 4 warps takes ROWS rows by EXPERTS experts, K through a ring of cp.async. Few rows: 16 x 16,
 * so that a small step's 256 KB of gate are read by many blocks; a warp an 8-expert tile, each K step one link of a
 * chain that bounds the time (128 links at H = 2048). Many rows: 64 x 64, a warp 16 rows. The gate is fetched before
 * the wait for the kernel before. route_select: a warp a row. A lane holds E / 32 neighbouring logits as ordered
 * integers; k times the largest is found by redux and ballot. Bytes: 2 H a row and a block of experts, 2 H E / 64 a
 * block of rows (L2); 8 E + 8 K a row.
 *
 * p = 2^((logit - max) log2 e); the weight is p over the sum of the chosen p in k order, or over the sum of all, which
 * adds a lane's in ascending order, then lanes (16, 8, 4, 2, 1). */
#include "kernels/cuda/arith.cuh"
#include "kernels/cuda/cuda_int.cuh"
#include "kernels/cuda/hopper.cuh"

using namespace kcu;

enum { THREADS = 128, CHUNK = 64 };

struct logits_params_t {
    const uint16_t *x, *gate;
    float *logits;
    uint32_t rows, hidden, experts, pitch;
};

/* ROWS x EXPERTS of a block. */
template <int ROWS, int EXPERTS> struct route_shape {
    static constexpr int STAGES = ROWS == 16 ? 6 : 8;
    static constexpr int CHUNKS = ROWS == 16 ? 4 : 1; /* of 64 columns, of a stage */
    static constexpr int ROW_BYTES = ROWS * CHUNK * 2, CHUNK_BYTES = (ROWS + EXPERTS) * CHUNK * 2;
    static constexpr int STAGE_BYTES = CHUNKS * CHUNK_BYTES;
    static constexpr int SHARED = STAGES * STAGE_BYTES;
    static constexpr int TILES = ROWS == 16 ? 1 : EXPERTS / 8; /* of 8 experts, of a warp */
};

/* A part of a matrix: rows [x, x + count), of which those before y exist. */
struct source_t {
    const uint16_t *from;
    uint32_t pitch, first, end, cols;
};

/* Columns [k, k + 64) of its `count` rows to a tile of 128-byte rows; zeros past the end. */
template <int count> static __device__ __forceinline__ void load_tile(uint32_t to, const source_t &source, uint32_t k)
{
    const uint32_t unit = threadIdx.x % 8;
#pragma unroll
    for (uint32_t row = threadIdx.x / 8; row < count; row += THREADS / 8) {
        const bool live = source.first + row < source.end && k < source.cols;
        const size_t at = live ? static_cast<size_t>(source.first + row) * source.pitch + k + unit * 8 : 0;
        cp_async_16(to + swizzle_128(row, unit), source.from + at, live);
    }
}

template <int ROWS, int EXPERTS>
static __device__ __forceinline__ void load_stage(uint32_t to, const source_t *rows, const source_t *experts,
                                                  uint32_t number)
{
    typedef route_shape<ROWS, EXPERTS> shape;
#pragma unroll
    for (int i = 0; i < shape::CHUNKS; i++) {
        const uint32_t k = (number * shape::CHUNKS + i) * CHUNK;
        if (rows != NULL) load_tile<ROWS>(to + i * shape::CHUNK_BYTES, *rows, k);
        if (experts != NULL) load_tile<EXPERTS>(to + i * shape::CHUNK_BYTES + shape::ROW_BYTES, *experts, k);
    }
}

template <int ROWS, int EXPERTS> __global__ void __launch_bounds__(THREADS) route_logits(const logits_params_t params)
{
    typedef route_shape<ROWS, EXPERTS> shape;
    extern __shared__ __align__(1024) char memory[];
    const uint32_t ring = shared_address(memory), lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const source_t rows = {params.x, params.hidden, blockIdx.x * ROWS, params.rows, params.hidden};
    const source_t experts = {params.gate, params.pitch, blockIdx.y * EXPERTS, params.experts, params.hidden};
    const uint32_t stages = (params.hidden + shape::CHUNKS * CHUNK - 1) / (shape::CHUNKS * CHUNK);
#pragma unroll 1
    for (uint32_t s = 0; s < shape::STAGES - 1 && s < stages; s++)
        load_stage<ROWS, EXPERTS>(ring + s * shape::STAGE_BYTES, NULL, &experts, s);
    grid_dependency_wait();
    grid_dependents_launch();
#pragma unroll 1
    for (uint32_t s = 0; s < shape::STAGES - 1; s++) {
        if (s < stages) load_stage<ROWS, EXPERTS>(ring + s * shape::STAGE_BYTES, &rows, NULL, s);
        cp_async_commit();
    }
    float c[shape::TILES][4];
#pragma unroll
    for (int t = 0; t < shape::TILES; t++)
        for (int i = 0; i < 4; i++) c[t][i] = 0.0f;
    const uint32_t own_rows = ROWS == 16 ? 0 : warp * 16, own_experts = ROWS == 16 ? warp * 8 : 0;
    const bool computes = ROWS != 16 || warp < EXPERTS / 8;
#pragma unroll 1
    for (uint32_t s = 0; s < stages; s++) {
        cp_async_wait<shape::STAGES - 2>();
        __syncthreads();
        const uint32_t next = s + shape::STAGES - 1, stage = ring + s % shape::STAGES * shape::STAGE_BYTES;
        if (next < stages)
            load_stage<ROWS, EXPERTS>(ring + next % shape::STAGES * shape::STAGE_BYTES, &rows, &experts, next);
        cp_async_commit();
        if (!computes) continue;
#pragma unroll
        for (uint32_t step = 0; step < shape::CHUNKS * CHUNK / 16; step++) {
            const uint32_t at = stage + step / 4 * shape::CHUNK_BYTES, unit = step % 4 * 2;
            uint32_t a[4];
            ldmatrix_x4(a, at + swizzle_128(own_rows + lane % 16, unit + lane / 16));
            if constexpr (shape::TILES == 1) {
                uint32_t b[2];
                ldmatrix_x2(b, at + shape::ROW_BYTES + swizzle_128(own_experts + lane % 8, unit + lane / 8 % 2));
                mma_bf16(c[0], a, b);
            } else {
#pragma unroll
                for (int pair = 0; pair < shape::TILES / 2; pair++) {
                    uint32_t b[4];
                    ldmatrix_x4(b, at + shape::ROW_BYTES +
                                       swizzle_128(pair * 16 + lane / 16 * 8 + lane % 8, unit + lane / 8 % 2));
                    const uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
                    mma_bf16(c[pair * 2], a, left);
                    mma_bf16(c[pair * 2 + 1], a, right);
                }
            }
        }
    }
    if (!computes) return;
#pragma unroll
    for (int t = 0; t < shape::TILES; t++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint32_t row = rows.first + own_rows + lane / 4 + i / 2 * 8;
            const uint32_t expert = experts.first + own_experts + t * 8 + lane % 4 * 2 + i % 2;
            if (row < params.rows && expert < params.experts)
                params.logits[static_cast<size_t>(row) * params.experts + expert] = c[t][i];
        }
}

/* ---- selection ---- */

struct select_params_t {
    const float *logits;
    const uint32_t *row_run;
    int32_t *expert;
    float *weight;
    uint32_t rows, experts, top_k;
    bool norm;
};

/* Ordered as the logits are; NaN as minus infinity, both zeros as one. Above 0. */
static __device__ __forceinline__ uint32_t key_of(float logit)
{
    const uint32_t bits = __float_as_uint(isnan(logit) ? -INFINITY : __fadd_rn(logit, 0.0f));
    return bits & 0x80000000U ? ~bits : bits | 0x80000000U;
}

static __device__ __forceinline__ float logit_of(uint32_t key)
{
    return __uint_as_float(key & 0x80000000U ? key & 0x7fffffffU : ~key);
}

static __device__ __forceinline__ float likelihood(float logit, float max)
{
    return exp2_approx(__fmul_rn(__fsub_rn(logit, max), LOG2_E));
}

/* EACH logits a lane. */
template <int EACH> __global__ void __launch_bounds__(THREADS) route_select(const select_params_t params)
{
    const uint32_t row = blockIdx.x * (THREADS / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    const bool live = row < params.rows && (params.row_run == NULL || params.row_run[row] != KERN_NO_RUN);
    grid_dependency_wait();
    grid_dependents_launch();
    if (row >= params.rows) return;
    int32_t *expert = params.expert + static_cast<size_t>(row) * params.top_k;
    float *weight = params.weight + static_cast<size_t>(row) * params.top_k;
    if (!live) {
        for (uint32_t k = lane; k < params.top_k; k += 32) {
            expert[k] = KERN_NO_EXPERT;
            weight[k] = 0.0f;
        }
        return;
    }
    uint32_t key[EACH]; /* 0: none, or taken */
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const uint32_t id = lane * EACH + i;
        key[i] = id < params.experts ? key_of(params.logits[static_cast<size_t>(row) * params.experts + id]) : 0;
    }
    float max = 0.0f, total = 0.0f, chosen = 0.0f, own = 0.0f;
    int32_t own_expert = 0;
    for (uint32_t k = 0; k < params.top_k; k++) {
        uint32_t most = key[0];
        int at = 0;
#pragma unroll
        for (int i = 1; i < EACH; i++)
            if (key[i] > most) {
                most = key[i];
                at = i;
            }
        const uint32_t largest = __reduce_max_sync(~0U, most);
        const uint32_t winner = __ffs(__ballot_sync(~0U, most == largest)) - 1;
        if (k == 0) {
            max = logit_of(largest);
            if (!params.norm)
#pragma unroll
                for (int i = 0; i < EACH; i++)
                    if (lane * EACH + i < params.experts) total = __fadd_rn(total, likelihood(logit_of(key[i]), max));
        }
        const float p = likelihood(logit_of(largest), max);
        chosen = __fadd_rn(chosen, p);
        const int32_t id = __shfl_sync(~0U, static_cast<int32_t>(lane * EACH) + at, winner);
        if (lane == k) {
            own = p;
            own_expert = id;
        }
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (lane == winner && i == at) key[i] = 0;
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
        total = __fadd_rn(total, __shfl_xor_sync(~0U, total, distance));
    if (lane >= params.top_k) return;
    expert[lane] = own_expert;
    weight[lane] = __fdiv_rn(own, params.norm ? chosen : total);
}

/* ---- launches ---- */

template <int ROWS, int EXPERTS> static cot_status_t start_logits(const kern_t *kern, const logits_params_t &params)
{
    const kern_cuda_launch launch = {dim3((params.rows + ROWS - 1) / ROWS, (params.experts + EXPERTS - 1) / EXPERTS),
                                     dim3(THREADS), route_shape<ROWS, EXPERTS>::SHARED, true};
    return kern_cuda_start(kern, launch, route_logits<ROWS, EXPERTS>, params);
}

static cot_status_t start_select(const kern_t *kern, const select_params_t &params)
{
    const kern_cuda_launch launch = {dim3((params.rows + THREADS / 32 - 1) / (THREADS / 32)), dim3(THREADS), 0, true};
    if (params.experts <= 32) return kern_cuda_start(kern, launch, route_select<1>, params);
    if (params.experts <= 64) return kern_cuda_start(kern, launch, route_select<2>, params);
    if (params.experts <= 128) return kern_cuda_start(kern, launch, route_select<4>, params);
    if (params.experts <= 256) return kern_cuda_start(kern, launch, route_select<8>, params);
    return kern_cuda_start(kern, launch, route_select<16>, params);
}

cot_status_t kern_cuda_route(kern_t *kern, const kern_route_args_t *args)
{
    const kern_config_t *config = &kern->config;
    if (args->rows == 0 || config->top_k == 0) return COT_OK;
    const kern_cuda_matrix *gate = kern_cuda_matrix_of(args->gate);
    const logits_params_t logits = {static_cast<const uint16_t *>(args->normed),
                                    gate->data,
                                    kern->route_logits,
                                    args->rows,
                                    config->hidden,
                                    config->experts,
                                    gate->pitch};
    const select_params_t select = {kern->route_logits, args->row_run,   args->expert,  args->weight,
                                    args->rows,         config->experts, config->top_k, config->norm_topk};
    const cot_status_t status = args->rows <= 256 ? start_logits<16, 16>(kern, logits)
                                                  : start_logits<64, 64>(kern, logits);
    if (status != COT_OK) return status;
    return start_select(kern, select);
}

cot_status_t kern_cuda_route_create(kern_t *kern)
{
    const kern_config_t *config = &kern->config;
    if (config->experts > 512 || config->top_k > 32)
        return cot_fail(COT_ERR_UNSUPPORTED, "the cuda backend routes to at most 32 of 512 experts, not %u of %u",
                        config->top_k, config->experts);
    void *logits;
    COT_TRY(kern_cuda_take(kern, static_cast<size_t>(config->max_rows) * config->experts * sizeof(float), &logits));
    kern->route_logits = static_cast<float *>(logits);
    return COT_OK;
}
