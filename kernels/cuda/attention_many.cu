/* Attention of many rows (prefill), mma.sync: for machines without wgmma, and the check of the form that has it.
 *
 * A thread block takes a tile of 64 packed rows of one key/value head, 16 rows a warp, and walks its key blocks in
 * order; splits are folded in registers as they end. Keys and values come through a ring of cp.async stages. FLOPs: 4 D
 * rows a key. Bytes: keys and values once for each tile, from L2. */
#include "kernels/cuda/attention.cuh"

using namespace kcu;

enum { THREADS = 128, TILE = 64, KEYS = KERN_ATTN_KEYS };

template <int D> struct many_shape {
    static constexpr int STAGES = 2;
    static constexpr int Q_BYTES = TILE * D * 2, HALF_BYTES = KEYS * D * 2, STAGE_BYTES = 2 * HALF_BYTES;
    static constexpr int TILES = D / 8; /* of 8 columns */
    static constexpr int SHARED = Q_BYTES + STAGES * STAGE_BYTES;
};

template <int D> struct state_t {
    float m[2], l[2], o[many_shape<D>::TILES][4];
    float M[2], L[2], O[many_shape<D>::TILES][4];
};

template <int D>
static __device__ __forceinline__ void load_rows(const attention_params_t &params, const attention_tile_t &tile,
                                                 uint32_t to)
{
    const uint32_t unit = threadIdx.x % 8;
    for (uint32_t row = threadIdx.x / 8; row < TILE; row += THREADS / 8) {
        const bool live = row < tile.rows;
        const uint16_t *q = params.q + attention_head(params, tile, live ? row : 0) * D + unit * 8;
#pragma unroll
        for (int chunk = 0; chunk < D / 64; chunk++)
            cp_async_16(to + chunk * (TILE * 128) + swizzle_128(row, unit), q + chunk * 64, live);
    }
}

template <int D>
static __device__ __forceinline__ void load_block(const attention_params_t &params, const attention_tile_t &tile,
                                                  uint32_t block, uint32_t stage)
{
    const uint32_t unit = threadIdx.x % 8, row = threadIdx.x / 8;
    const size_t head_step = (size_t)params.kv_heads * KERN_KV_BLOCK * D;
#pragma unroll
    for (int page = 0; page < KEYS / KERN_KV_BLOCK; page++) {
        const uint32_t page_key = block * KEYS + page * KERN_KV_BLOCK, key = page_key + row;
        const bool live = key >= tile.first_key && key < tile.end_key;
        const bool page_live = page_key + KERN_KV_BLOCK > tile.first_key && page_key < tile.end_key;
        const size_t kv_block = page_live ? tile.blocks[page_key / KERN_KV_BLOCK] : 0;
        const uint16_t *from = params.kv + kv_block * 2 * head_step + (size_t)tile.kv_head * KERN_KV_BLOCK * D +
                               row * 64 + unit * 8;
        const uint32_t to = stage + swizzle_128(page * KERN_KV_BLOCK + row, unit);
#pragma unroll
        for (int chunk = 0; chunk < D / 64; chunk++) {
            cp_async_16(to + chunk * (KEYS * 128), from + chunk * 1024, live);
            cp_async_16(to + many_shape<D>::HALF_BYTES + chunk * (KEYS * 128), from + head_step + chunk * 1024,
                        live ? 16 : 0);
        }
    }
}

/* s[8][4]: this warp's 16 rows, 64 keys. */
template <int D> static __device__ __forceinline__ void score_keys(float s[8][4], uint32_t q, uint32_t keys)
{
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int t = 0; t < 8; t++)
        for (int i = 0; i < 4; i++) s[t][i] = 0.0f;
#pragma unroll
    for (int step = 0; step < D / 16; step++) {
        uint32_t a[4];
        ldmatrix_x4(a, q + step / 4 * (TILE * 128) + swizzle_128(warp * 16 + lane % 16, step % 4 * 2 + lane / 16));
#pragma unroll
        for (int pair = 0; pair < 4; pair++) {
            uint32_t b[4];
            ldmatrix_x4(b, keys + step / 4 * (KEYS * 128) +
                               swizzle_128(pair * 16 + lane / 16 * 8 + lane % 8, step % 4 * 2 + lane / 8 % 2));
            mma_pair(s[pair * 2], s[pair * 2 + 1], a, b);
        }
    }
}

static __device__ __forceinline__ void hide_keys(const attention_params_t &params, const attention_tile_t &tile,
                                                 float s[8][4], uint32_t key)
{
    const uint32_t lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        uint32_t first, end;
        attention_sight(params, tile, row + half * 8, first, end);
#pragma unroll
        for (int t = 0; t < 8; t++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                const uint32_t at = key + t * 8 + lane % 4 * 2 + e;
                if (at < first || at >= end) s[t][half * 2 + e] = -INFINITY;
            }
    }
}

/* Scores to probabilities p[4][4], the a operands of four steps of 16 keys; raises m, rescales, adds to l. */
template <int D>
static __device__ __forceinline__ void weigh_keys(state_t<D> &state, float s[8][4], uint32_t p[4][4], float scale)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float most = fmaxf(s[0][half * 2], s[0][half * 2 + 1]);
#pragma unroll
        for (int t = 1; t < 8; t++) most = fmaxf(most, fmaxf(s[t][half * 2], s[t][half * 2 + 1]));
        most = attention_quad_max(most);
        const float factor = attention_raise(state.m[half], most, scale), base = attention_base(state.m[half]);
        float l = __fmul_rn(state.l[half], factor);
#pragma unroll
        for (int t = 0; t < many_shape<D>::TILES; t++) {
            state.o[t][half * 2] = __fmul_rn(state.o[t][half * 2], factor);
            state.o[t][half * 2 + 1] = __fmul_rn(state.o[t][half * 2 + 1], factor);
        }
#pragma unroll
        for (int t = 0; t < 8; t++) {
            const uint32_t pair = pack_bf16(attention_weight(s[t][half * 2], scale, base),
                                            attention_weight(s[t][half * 2 + 1], scale, base));
            l = attention_add(l, pair);
            p[t / 2][t % 2 * 2 + half] = pair;
        }
        state.l[half] = l;
    }
}

template <int D>
static __device__ __forceinline__ void add_values(state_t<D> &state, const uint32_t p[4][4], uint32_t values)
{
    const uint32_t lane = threadIdx.x % 32;
#pragma unroll
    for (int step = 0; step < KEYS / 16; step++)
#pragma unroll
        for (int pair = 0; pair < many_shape<D>::TILES / 2; pair++) {
            const uint32_t unit = pair * 2 + lane / 16;
            uint32_t b[4];
            ldmatrix_x4_trans(b, values + unit / 8 * (KEYS * 128) + swizzle_128(step * 16 + lane % 16, unit % 8));
            mma_pair(state.o[pair * 2], state.o[pair * 2 + 1], p[step], b);
        }
}

/* The split is over: into the total; the next starts afresh. */
template <int D> static __device__ __forceinline__ void fold_split(state_t<D> &state)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float l = attention_gather(state.l[half]);
        const attention_factors_t factors = attention_merge_step(state.M[half], state.L[half], state.m[half], l);
#pragma unroll
        for (int t = 0; t < many_shape<D>::TILES; t++)
            for (int e = half * 2; e < half * 2 + 2; e++) {
                state.O[t][e] = attention_fold(state.O[t][e], state.o[t][e], factors);
                state.o[t][e] = 0.0f;
            }
        state.m[half] = -INFINITY;
        state.l[half] = 0.0f;
    }
}

template <int D>
static __device__ __forceinline__ void write_out(const attention_params_t &params, const attention_tile_t &tile,
                                                 const state_t<D> &state)
{
    const uint32_t lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const uint32_t row = threadIdx.x / 32 * 16 + lane / 4 + half * 8;
        if (row >= tile.rows) continue;
        const float inverse = __frcp_rn(state.L[half]);
        uint16_t *out = params.out + attention_head(params, tile, row) * D + lane % 4 * 2;
#pragma unroll
        for (int t = 0; t < many_shape<D>::TILES; t++)
            *(uint32_t *)(out + t * 8) = attention_out(state.O[t][half * 2], state.O[t][half * 2 + 1], inverse);
    }
}

template <int D> __global__ void __launch_bounds__(THREADS, 2) attention_many(const attention_params_t params)
{
    typedef many_shape<D> shape;
    extern __shared__ __align__(1024) char shared[];
    uint32_t *begin = (uint32_t *)(shared + shape::SHARED);
    attention_scan<THREADS>(begin, params.runs, [&](uint32_t run) { return attention_tiles(params, run, TILE); });
    const uint32_t total = begin[params.runs];
    grid_dependency_wait();
    if (blockIdx.x >= total) return;
    /* The last tiles of a run have the most keys: they start first. */
    const uint32_t number = total - 1 - blockIdx.x, run = attention_find(begin, params.runs, number);
    const attention_tile_t tile = attention_tile(params, run, number - begin[run], TILE, blockIdx.y);
    const uint32_t q = shared_address(shared), ring = q + shape::Q_BYTES;
    const uint32_t first = tile.first_key / KEYS, end = (tile.end_key - 1) / KEYS + 1;

    load_rows<D>(params, tile, q);
#pragma unroll 1
    for (int stage = 0; stage < shape::STAGES - 1; stage++) {
        if (first + stage < end) load_block<D>(params, tile, first + stage, ring + stage * shape::STAGE_BYTES);
        cp_async_commit();
    }
    state_t<D> state;
    for (int half = 0; half < 2; half++) {
        state.m[half] = state.M[half] = -INFINITY;
        state.l[half] = state.L[half] = 0.0f;
    }
#pragma unroll
    for (int t = 0; t < shape::TILES; t++)
        for (int i = 0; i < 4; i++) state.o[t][i] = state.O[t][i] = 0.0f;
#pragma unroll 1
    for (uint32_t block = first; block < end; block++) {
        cp_async_wait<shape::STAGES - 2>();
        __syncthreads();
        const uint32_t next = block + shape::STAGES - 1;
        if (next < end) load_block<D>(params, tile, next, ring + (next - first) % shape::STAGES * shape::STAGE_BYTES);
        cp_async_commit();
        const uint32_t stage = ring + (block - first) % shape::STAGES * shape::STAGE_BYTES, key = block * KEYS;
        float s[8][4];
        uint32_t p[4][4];
        score_keys<D>(s, q, stage);
        if (key < tile.all_first || key + KEYS > tile.all_end) hide_keys(params, tile, s, key);
        weigh_keys<D>(state, s, p, params.scale);
        add_values<D>(state, p, stage + shape::HALF_BYTES);
        if ((block + 1) % ATTENTION_SPLIT_BLOCKS == 0 || block + 1 == end) fold_split<D>(state);
    }
    grid_dependents_launch();
    write_out<D>(params, tile, state);
}

template <int D>
static cot_status_t launch(const kern_t *kern, const attention_params_t &params, const attention_bounds_t &bounds)
{
    kern_cuda_launch launch = {};
    launch.grid = dim3(bounds.rows * params.group / TILE + params.runs, params.kv_heads);
    launch.block = dim3(THREADS);
    launch.shared_bytes = many_shape<D>::SHARED + (params.runs + 1) * sizeof(uint32_t);
    launch.overlap = true;
    return kern_cuda_start(kern, launch, attention_many<D>, params);
}

cot_status_t kern_attention_many(const kern_t *kern, const attention_params_t &params, const attention_bounds_t &bounds)
{
    return bounds.head_dim == 64 ? launch<64>(kern, params, bounds) : launch<128>(kern, params, bounds);
}
