/* Attention over paged keys and values: what all forms share, so that they give the same bits.
 *
 * Rows are packed: row r of a run is head r % group of key/value head h, token r / group, so that a tile of rows reads
 * the keys of its head once. Keys are taken in blocks of 64, aligned to position 0, and blocks in splits of 256. A
 * split starts from (m, l, o) = (-inf, 0, 0): s = q . k  (tensor cores, head_dim in steps of 16)       m' = max(m,
 * ceil(max(s) scale))     scale = log2(e)/sqrt(D) p = bf16(2^(s scale - m'))  (one fused multiply-add)     l = l 2^(m -
 * m') + sum p            o = o 2^(m - m') + p v m is an integer, so every rescale is by a power of two and exact. p v
 * adds keys in steps of 16, ascending. l is four running sums, of the keys with the same (key % 8) / 2 in ascending
 * order, which are added as (l0 + l1) + (l2 + l3) when the split ends. Splits merge in order: M' = max(M, m), L = L
 * 2^(M - M') + l 2^(m - M'), O likewise; a split without a visible key is left out. out = bf16(O (1/L)).
 *
 * Keys and values: [block of 16 tokens][K|V][kv_head][D / 64][16][64] bf16. */
#ifndef KERN_CUDA_ATTENTION_CUH
#define KERN_CUDA_ATTENTION_CUH

#include "kernels/cuda/arith.cuh"
#include "kernels/cuda/cuda_int.cuh"
#include "kernels/cuda/hopper.cuh"

#define ATTENTION_SPLIT 256 /* keys */
#define ATTENTION_SPLIT_BLOCKS (ATTENTION_SPLIT / KERN_ATTN_KEYS)
#define ATTENTION_FEW_TILE 16 /* packed rows of a tile of the few-row form */

namespace kcu
{

typedef struct {
    const kern_run_t *run; /* [runs] in device memory; rows 0: a padded run */
    const uint16_t *q, *kv;
    uint16_t *out;
    float *partial; /* [slots][16 (m, l), 16 x D o] */
    uint32_t slots; /* if a launch has more splits than this, each tile is one thread block's */
    uint32_t runs, heads, kv_heads, group, window;
    uint32_t least, most; /* packed rows of the runs that this launch serves, inclusive; others are left out */
    float scale;
} attention_params_t;

/* What the host knows of a launch: it bounds the grid. */
typedef struct {
    uint32_t head_dim, rows, max_position;
} attention_bounds_t;

/* ---- arithmetic ---- */

/* 2^x of an integer x <= 0, exact; 0 below the normal numbers; 1 for NaN. */
__device__ __forceinline__ float pow2i(float x)
{
    const int exponent = max(__float2int_rz(x), -127);
    return __int_as_float((exponent + 127) << 23);
}

/* Two tiles of 8 columns: b from one ldmatrix_x4. */
__device__ __forceinline__ void mma_pair(float (&left)[4], float (&right)[4], const uint32_t (&a)[4],
                                         const uint32_t (&b)[4])
{
    const uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
    mma_bf16(left, a, first);
    mma_bf16(right, a, second);
}

/* Moves m to cover a block's largest score; returns what l and o are to be multiplied with. */
__device__ __forceinline__ float attention_raise(float &m, float largest, float scale)
{
    float next = fmaxf(m, ceilf(__fmul_rn(largest, scale)));
    float factor = pow2i(__fsub_rn(m, next));
    m = next;
    return factor;
}

/* What is subtracted from scores: m, but no infinity, so that a row without a key yet gets 2^-inf = 0. */
__device__ __forceinline__ float attention_base(float m)
{
    return m == -INFINITY ? 0.0f : m;
}

__device__ __forceinline__ float attention_weight(float score, float scale, float base)
{
    return exp2_approx(__fmaf_rn(score, scale, -base));
}

__device__ __forceinline__ float attention_add(float l, uint32_t pair)
{
    return __fadd_rn(__fadd_rn(l, bf16_low(pair)), bf16_high(pair));
}

/* (l0 + l1) + (l2 + l3) over the four lanes of a row. */
__device__ __forceinline__ float attention_gather(float l)
{
    l = __fadd_rn(l, __shfl_xor_sync(~0U, l, 1));
    return __fadd_rn(l, __shfl_xor_sync(~0U, l, 2));
}

__device__ __forceinline__ float attention_quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(~0U, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0U, x, 2));
}

/* Factors of the total and of the split. A split without a key changes nothing but, maybe, a zero's sign. */
typedef struct {
    float total, split;
} attention_factors_t;

__device__ __forceinline__ attention_factors_t attention_merge_step(float &M, float &L, float m, float l)
{
    const float next = fmaxf(M, m);
    const attention_factors_t factors = {pow2i(__fsub_rn(M, next)), pow2i(__fsub_rn(m, next))};
    L = __fmaf_rn(l, factors.split, __fmul_rn(L, factors.total));
    M = next;
    return factors;
}

__device__ __forceinline__ float attention_fold(float O, float o, attention_factors_t factors)
{
    return __fmaf_rn(o, factors.split, __fmul_rn(O, factors.total));
}

/* Zero has one sign, whichever way it came. */
__device__ __forceinline__ uint32_t attention_out(float first, float second, float inverse)
{
    return pack_bf16(__fmaf_rn(first, inverse, 0.0f), __fmaf_rn(second, inverse, 0.0f));
}

/* ---- tiles ---- */

/* `height` packed rows of a run, at most. */
typedef struct {
    const uint32_t *blocks;
    uint32_t row, position;      /* of the run */
    uint32_t first, rows;        /* packed rows [first, first + rows) */
    uint32_t first_key, end_key; /* keys that some row sees */
    uint32_t all_first, all_end; /* keys that every row sees */
    uint32_t kv_head;
} attention_tile_t;

__device__ __forceinline__ uint32_t attention_window_first(uint32_t position, uint32_t window)
{
    return window > 0 && position >= window ? position + 1 - window : 0;
}

__device__ __forceinline__ attention_tile_t attention_tile(const attention_params_t &params, uint32_t run,
                                                           uint32_t tile, uint32_t height, uint32_t kv_head)
{
    const kern_run_t *at = &params.run[run];
    attention_tile_t made;
    made.blocks = at->blocks;
    made.row = at->row;
    made.position = at->position;
    made.first = tile * height;
    made.rows = min(height, at->rows * params.group - made.first);
    const uint32_t low = made.position + made.first / params.group;
    const uint32_t high = made.position + (made.first + made.rows - 1) / params.group;
    made.first_key = attention_window_first(low, params.window);
    made.end_key = high + 1;
    made.all_first = attention_window_first(high, params.window);
    made.all_end = low + 1;
    made.kv_head = kv_head;
    return made;
}

/* A packed row's index into [T, heads, D], in heads. */
__device__ __forceinline__ size_t attention_head(const attention_params_t &params, const attention_tile_t &tile,
                                                 uint32_t row)
{
    const uint32_t packed = tile.first + row, token = packed / params.group;
    return (size_t)(tile.row + token) * params.heads + tile.kv_head * params.group + (packed - token * params.group);
}

/* The keys [first, end) that a packed row sees. */
__device__ __forceinline__ void attention_sight(const attention_params_t &params, const attention_tile_t &tile,
                                                uint32_t row, uint32_t &first, uint32_t &end)
{
    const uint32_t position = tile.position + (tile.first + row) / params.group;
    first = attention_window_first(position, params.window);
    end = position + 1;
}

__device__ __forceinline__ uint32_t attention_tiles(const attention_params_t &params, uint32_t run, uint32_t height)
{
    const uint32_t packed = params.run[run].rows * params.group;
    return packed < params.least || packed > params.most ? 0 : (packed + height - 1) / height;
}

/* begin[r] = sum of count(run) over the runs before r, for r in [0, runs]; by all `threads` threads. */
template <int threads, typename Count>
__device__ __forceinline__ void attention_scan(uint32_t *begin, uint32_t runs, Count count)
{
    __shared__ uint32_t warp_sum[threads / 32];
    const uint32_t each = (runs + threads - 1) / threads, first = min(threadIdx.x * each, runs);
    const uint32_t end = min(first + each, runs), lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint32_t own = 0;
    for (uint32_t r = first; r < end; r++) {
        begin[r] = own;
        own += count(r);
    }
    uint32_t upto = own;
    for (uint32_t step = 1; step < 32; step *= 2) {
        uint32_t other = __shfl_up_sync(~0U, upto, step);
        if (lane >= step) upto += other;
    }
    if (lane == 31) warp_sum[warp] = upto;
    __syncthreads();
    uint32_t before = upto - own;
    for (uint32_t w = 0; w < warp; w++) before += warp_sum[w];
    for (uint32_t r = first; r < end; r++) begin[r] += before;
    if (threadIdx.x == threads - 1) begin[runs] = before + own;
    __syncthreads();
}

/* The last run that begins at or before `item`. */
__device__ __forceinline__ uint32_t attention_find(const uint32_t *begin, uint32_t runs, uint32_t item)
{
    uint32_t low = 0, high = runs;
    while (high - low > 1) {
        const uint32_t middle = (low + high) / 2;
        if (begin[middle] <= item)
            low = middle;
        else
            high = middle;
    }
    return low;
}

} // namespace kcu

/* All runs, whatever their rows. */
kcu::attention_params_t kern_attention_params(const kern_t *kern, const kern_attention_args_t *args);

/* Few rows: keys of a tile are split over thread blocks. Serves any shape. */
cot_status_t kern_attention_few(const kern_t *kern, const kcu::attention_params_t &params,
                                const kcu::attention_bounds_t &bounds);
/* Floats of scratch that a split takes there. */
size_t kern_attention_slot_floats(uint32_t head_dim);
/* Many rows, mma.sync. */
cot_status_t kern_attention_many(const kern_t *kern, const kcu::attention_params_t &params,
                                 const kcu::attention_bounds_t &bounds);
/* Many rows, wgmma; `map`: boxes of 16 tokens by 64 columns over the layer's blocks. */
cot_status_t kern_attention_wgmma(const kern_t *kern, const kcu::attention_params_t &params,
                                  const kcu::attention_bounds_t &bounds, const CUtensorMap &map);

#endif
