/* attn_in: norm (unless made already), the QKV product into fp32, then bias, q/k norm, RoPE, rounding, and K and V into
 * their blocks: [block][K|V][kv_head][D / 64][16][64] bf16.
 *
 * The last pass: one block of 8 warps a row, a warp a head at a time; lane l of a head of D holds columns
 * [l D/64, (l + 1) D/64) and the same of the upper half, so that an element turns with its partner in one thread. A
 * head's norm adds a lane's squares in ascending order, then over lanes (16, 8, 4, 2, 1); the norm over the full width
 * adds, in each warp, its heads' lane sums in order of heads, then lanes, then warps (4, 2, 1). Bytes a row: 4 (heads +
 * 2 kv_heads) D in (L2), 2 out. */
#include "kernels/cuda/norm.cuh"

using namespace kcu;

enum { WARPS = NORM_THREADS / 32 };

struct finish_params_t {
    const float *qkv, *q_bias, *k_bias, *v_bias, *q_norm, *k_norm, *rope;
    const kern_run_t *run;
    const uint32_t *row_run;
    uint16_t *q, *kv;
    uint32_t heads, kv_heads;
    float eps;
};

/* A lane's elements of a head: `half` in its lower half, as many in its upper. */
template <int D> struct head_t {
    static constexpr int half = D / 64;
    float low[half], high[half];
};

template <int D> __device__ __forceinline__ head_t<D> load_head(const float *from, const float *bias, uint32_t head)
{
    head_t<D> made;
    const uint32_t lane = threadIdx.x % 32, at = head * D + lane * head_t<D>::half;
#pragma unroll
    for (int i = 0; i < head_t<D>::half; i++) {
        made.low[i] = from[at + i];
        made.high[i] = from[at + D / 2 + i];
        if (bias == NULL) continue;
        made.low[i] = __fadd_rn(made.low[i], bias[at + i]);
        made.high[i] = __fadd_rn(made.high[i], bias[at + D / 2 + i]);
    }
    return made;
}

template <int D> __device__ __forceinline__ float head_squares(float sum, const head_t<D> &head)
{
#pragma unroll
    for (int i = 0; i < head_t<D>::half; i++) sum = __fmaf_rn(head.low[i], head.low[i], sum);
#pragma unroll
    for (int i = 0; i < head_t<D>::half; i++) sum = __fmaf_rn(head.high[i], head.high[i], sum);
    return sum;
}

template <int D> __device__ __forceinline__ void scale_head(head_t<D> &head, float factor, const float *weight)
{
    const uint32_t at = threadIdx.x % 32 * head_t<D>::half;
#pragma unroll
    for (int i = 0; i < head_t<D>::half; i++) {
        head.low[i] = norm_scale(head.low[i], factor, weight[at + i]);
        head.high[i] = norm_scale(head.high[i], factor, weight[at + D / 2 + i]);
    }
}

template <int D> __device__ __forceinline__ void turn_head(head_t<D> &head, const float *rope)
{
    const uint32_t at = threadIdx.x % 32 * head_t<D>::half;
#pragma unroll
    for (int i = 0; i < head_t<D>::half; i++) {
        const float low = head.low[i], high = head.high[i], cosine = rope[at + i], sine = rope[D / 2 + at + i];
        head.low[i] = __fsub_rn(__fmul_rn(low, cosine), __fmul_rn(high, sine));
        head.high[i] = __fadd_rn(__fmul_rn(high, cosine), __fmul_rn(low, sine));
    }
}

/* `low` and `high`: where columns 0 and D / 2 of the head go. */
template <int D> __device__ __forceinline__ void store_head(const head_t<D> &head, uint16_t *low, uint16_t *high)
{
    const uint32_t lane = threadIdx.x % 32;
    if constexpr (D == 128) {
        *reinterpret_cast<uint32_t *>(low + lane * 2) = pack_bf16(head.low[0], head.low[1]);
        *reinterpret_cast<uint32_t *>(high + lane * 2) = pack_bf16(head.high[0], head.high[1]);
    } else {
        low[lane] = static_cast<uint16_t>(pack_bf16(head.low[0], 0.0f));
        high[lane] = static_cast<uint16_t>(pack_bf16(head.high[0], 0.0f));
    }
}

/* 1 / rms over `heads` heads; all threads of the block call it. */
template <int D>
__device__ __forceinline__ float full_factor(const float *from, const float *bias, uint32_t heads, float eps,
                                             float *shared)
{
    float sum = 0.0f;
    for (uint32_t head = threadIdx.x / 32; head < heads; head += WARPS)
        sum = head_squares(sum, load_head<D>(from, bias, head));
    sum = block_sum(sum, shared);
    __syncthreads();
    return norm_factor(sum, heads * D, eps);
}

template <int D> __device__ __forceinline__ float head_factor(const head_t<D> &head, float eps)
{
    float sum = head_squares(0.0f, head);
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) sum = __fadd_rn(sum, __shfl_xor_sync(~0U, sum, distance));
    return norm_factor(sum, D, eps);
}

template <int D, kern_qk_norm_t norm>
__global__ void __launch_bounds__(NORM_THREADS) finish_qkv(const finish_params_t params)
{
    __shared__ float shared[8];
    const uint32_t row = blockIdx.x, run_of_row = params.row_run[row], warp = threadIdx.x / 32;
    const uint32_t heads = params.heads, kv_heads = params.kv_heads;
    grid_dependency_wait();
    grid_dependents_launch();
    if (run_of_row == KERN_NO_RUN) return;
    const kern_run_t *run = &params.run[run_of_row];
    const uint32_t position = run->position + row - run->row, slot = position % KERN_KV_BLOCK;
    const size_t block = run->blocks[position / KERN_KV_BLOCK];
    const float *q = params.qkv + static_cast<size_t>(row) * (heads + 2 * kv_heads) * D, *k = q + heads * D;
    const float *v = k + kv_heads * D, *rope = params.rope + static_cast<size_t>(position) * D;
    float q_factor = 0.0f, k_factor = 0.0f;
    if constexpr (norm == KERN_QK_NORM_FULL) {
        q_factor = full_factor<D>(q, params.q_bias, heads, params.eps, shared);
        k_factor = full_factor<D>(k, params.k_bias, kv_heads, params.eps, shared);
    }
    for (uint32_t head = warp; head < heads + 2 * kv_heads; head += WARPS) {
        const bool is_q = head < heads, is_v = head >= heads + kv_heads;
        const uint32_t number = is_q ? head : is_v ? head - heads - kv_heads : head - heads;
        head_t<D> made = load_head<D>(is_q   ? q
                                      : is_v ? v
                                             : k,
                                      is_q   ? params.q_bias
                                      : is_v ? params.v_bias
                                             : params.k_bias,
                                      number);
        if (!is_v) {
            const float *weight = is_q ? params.q_norm : params.k_norm;
            if constexpr (norm == KERN_QK_NORM_HEAD) scale_head(made, head_factor(made, params.eps), weight);
            if constexpr (norm == KERN_QK_NORM_FULL) scale_head(made, is_q ? q_factor : k_factor, weight + number * D);
            turn_head(made, rope);
        }
        if (is_q) {
            uint16_t *out = params.q + (static_cast<size_t>(row) * heads + number) * D;
            store_head(made, out, out + D / 2);
        } else {
            const size_t piece = ((block * 2 + is_v) * kv_heads + number) * (D / 64);
            uint16_t *out = params.kv + (piece * KERN_KV_BLOCK + slot) * 64;
            store_head(made, out, D == 128 ? out + KERN_KV_BLOCK * 64 : out + 32);
        }
    }
}

template <int D> static cot_status_t start(const kern_t *kern, const finish_params_t &params, uint32_t rows)
{
    const kern_cuda_launch launch = {dim3(rows), dim3(NORM_THREADS), 0, true};
    kern_qk_norm_t norm = params.q_norm != NULL ? kern->config.qk_norm : KERN_QK_NORM_NONE;
    if (norm == KERN_QK_NORM_HEAD) return kern_cuda_start(kern, launch, finish_qkv<D, KERN_QK_NORM_HEAD>, params);
    if (norm == KERN_QK_NORM_FULL) return kern_cuda_start(kern, launch, finish_qkv<D, KERN_QK_NORM_FULL>, params);
    return kern_cuda_start(kern, launch, finish_qkv<D, KERN_QK_NORM_NONE>, params);
}

cot_status_t kern_cuda_finish_qkv(kern_t *kern, const kern_attn_in_args_t *args)
{
    const kern_attn_weights_t *weights = args->weights;
    finish_params_t params = {};
    params.qkv = kern->wide;
    params.q_bias = weights->q_bias;
    params.k_bias = weights->k_bias;
    params.v_bias = weights->v_bias;
    params.q_norm = weights->q_norm;
    params.k_norm = weights->k_norm;
    params.rope = kern->rope;
    params.run = args->run;
    params.row_run = args->row_run;
    params.q = static_cast<uint16_t *>(args->q);
    params.kv = static_cast<uint16_t *>(args->kv->data);
    params.heads = kern->config.heads;
    params.kv_heads = kern->config.kv_heads;
    params.eps = kern->config.norm_eps;
    return kern->config.head_dim == 64 ? start<64>(kern, params, args->rows) : start<128>(kern, params, args->rows);
}

cot_status_t kern_cuda_attn_in(kern_t *kern, const kern_attn_in_args_t *args)
{
    const kern_attn_weights_t *weights = args->weights;
    const void *normed = args->normed;
    if (args->rows == 0) return COT_OK;
    if (normed == NULL) {
        COT_TRY(kern_cuda_norm_rows(kern, args->x, NULL, args->rows, weights->input_norm, kern->normed));
        normed = kern->normed;
    }
    kern_cuda_product_t product = {};
    product.w[0] = &weights->q;
    product.w[1] = &weights->k;
    product.w[2] = &weights->v;
    product.segments = 1;
    product.rows = args->rows;
    product.x = normed;
    product.x_stride = kern->config.hidden;
    product.out = kern->wide;
    product.out_stride = weights->q.rows + weights->k.rows + weights->v.rows;
    COT_TRY(kern_cuda_product(kern, &product));
    return kern_cuda_finish_qkv(kern, args);
}

/* ---- the table of RoPE ---- */

static void fill_rope(const kern_config_t *config, float *out)
{
    const uint32_t half = config->head_dim / 2;
    for (uint32_t position = 0; position < config->max_context; position++, out += 2 * half)
        for (uint32_t i = 0; i < half; i++) {
            const double angle = position * config->inv_freq[i];
            out[i] = static_cast<float>(cos(angle) * config->rope_factor);
            out[half + i] = static_cast<float>(sin(angle) * config->rope_factor);
        }
}

static size_t wide_floats(const kern_config_t *config)
{
    const size_t qkv = (static_cast<size_t>(config->heads) + 2 * config->kv_heads) * config->head_dim;
    const size_t o = static_cast<size_t>(KERN_O_SEGMENTS) * config->hidden;
    return config->max_rows * (qkv > o ? qkv : o);
}

cot_status_t kern_cuda_attn_in_create(kern_t *kern)
{
    const kern_config_t *config = &kern->config;
    if (config->hidden > NORM_MAX_GROUPS * 1024)
        return cot_fail(COT_ERR_UNSUPPORTED, "the cuda backend takes hidden sizes up to %d, not %u",
                        NORM_MAX_GROUPS * 1024, config->hidden);
    const size_t bytes = static_cast<size_t>(config->max_context) * config->head_dim * sizeof(float);
    void *rope, *wide, *normed;
    COT_TRY(kern_cuda_take(kern, bytes, &rope));
    COT_TRY(kern_cuda_take(kern, wide_floats(config) * sizeof(float), &wide));
    COT_TRY(kern_cuda_take(kern, static_cast<size_t>(config->max_rows) * config->hidden * sizeof(uint16_t), &normed));
    float *table = static_cast<float *>(cot_alloc(bytes));
    if (table == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the table of RoPE (%zu bytes)", bytes);
    fill_rope(config, table);
    const cudaError_t error = cudaMemcpy(rope, table, bytes, cudaMemcpyHostToDevice);
    cot_free(table);
    KERN_CUDA_TRY(error);
    kern->rope = static_cast<float *>(rope);
    kern->wide = static_cast<float *>(wide);
    kern->normed = static_cast<uint16_t *>(normed);
    return COT_OK;
}
