/* Attention of few rows: a decode step, or short chunks.
 *
 * An item is a tile of 16 packed rows (the heads that share a key/value head; more tokens where there are fewer heads)
 * and one split of 256 keys. Persistent thread blocks of 4 warps walk the items; the ring of key blocks runs on across
 * them. In a block of 64 keys each warp takes 16 keys of q k, probabilities pass through shared memory, then each warp
 * takes a quarter of head_dim in p v, over all 64 keys in order. A split's (m, l, o) goes to scratch; a second launch
 * merges a tile's splits in order. (The block that ends a tile's last split could do it; that was measured, on an H100:
 * its delay adds up from split to split, 8 x 16k tokens took 507 us.) Bytes: keys and values once, plus 2 x 4 (D + 2)
 * bytes of scratch (L2) for each row and split: 6 % at 8 rows. FLOPs: 4 D 16 rows a key. sm_90: two thread blocks a
 * multiprocessor, three blocks of 64 keys in flight in each. */
#include "kernels/cuda/attention.cuh"

using namespace kcu;

enum { THREADS = 128, WARPS = 4, TILE = ATTENTION_FEW_TILE, KEYS = KERN_ATTN_KEYS };

template <int D> struct few_shape {
    static constexpr int STAGES = D == 64 ? 6 : 3;
    static constexpr int Q_BYTES = TILE * D * 2, HALF_BYTES = KEYS * D * 2; /* a stage: q, keys, values */
    static constexpr int STAGE_BYTES = Q_BYTES + 2 * HALF_BYTES;
    static constexpr int P_BYTES = TILE * KEYS * 2;
    static constexpr int TILES = D / 32;             /* of 8 columns, of a warp's quarter */
    static constexpr int SLOT = 2 * TILE + TILE * D; /* floats of scratch */
};

/* A thread block's place in the list of items. */
struct cursor_t {
    uint32_t item, block, block_end; /* key blocks [block, block_end) are left of the item */
    uint32_t slot, splits, split;    /* the tile's first slot, its splits, this one's number */
    attention_tile_t tile;
};

struct list_t {
    const uint32_t *begin;
    uint32_t total;
    bool whole; /* an item is all of a tile's splits */
};

/* Splits that the runs' rows see, first and number. */
static __device__ __forceinline__ uint32_t run_splits(const attention_params_t &params, uint32_t run, uint32_t &first)
{
    const kern_run_t *at = &params.run[run];
    first = attention_window_first(at->position, params.window) / ATTENTION_SPLIT;
    return at->rows == 0 ? 0 : (at->position + at->rows - 1) / ATTENTION_SPLIT + 1 - first;
}

/* Fills the cursor for cursor.item or the first item after it of this thread block that has keys. */
static __device__ void open_item(const attention_params_t &params, const list_t &list, cursor_t &cursor)
{
    for (; cursor.item < list.total; cursor.item += gridDim.x) {
        const uint32_t run = attention_find(list.begin, params.runs, cursor.item);
        uint32_t first, splits = run_splits(params, run, first), number = cursor.item - list.begin[run];
        if (list.whole) splits = 1;
        const uint32_t split = number % splits, unit = number / splits;
        cursor.tile = attention_tile(params, run, unit / params.kv_heads, TILE, unit % params.kv_heads);
        uint32_t low = cursor.tile.first_key, high = cursor.tile.end_key;
        const uint32_t tile_first = low / ATTENTION_SPLIT;
        cursor.splits = list.whole ? 1 : (high - 1) / ATTENTION_SPLIT + 1 - tile_first;
        if (!list.whole) {
            low = max(low, (first + split) * ATTENTION_SPLIT);
            high = min(high, (first + split + 1) * ATTENTION_SPLIT);
        }
        if (low >= high) continue; /* the run's split, but out of this tile's sight */
        cursor.split = list.whole ? 0 : first + split - tile_first;
        cursor.slot = cursor.item - cursor.split;
        cursor.block = low / KEYS;
        cursor.block_end = (high - 1) / KEYS + 1;
        return;
    }
}

/* Starts the copy of the cursor's next key block (and of q with the item's first) and moves the cursor. */
template <int D>
static __device__ __forceinline__ void load_block(const attention_params_t &params, const list_t &list,
                                                  cursor_t &cursor, bool &opened, uint32_t stage)
{
    if (cursor.item >= list.total) return;
    const attention_tile_t &tile = cursor.tile;
    const uint32_t unit = threadIdx.x % 8, row = threadIdx.x / 8; /* 16 rows of 128 bytes */
    if (opened) {
        const bool live = row < tile.rows;
        const uint16_t *q = params.q + attention_head(params, tile, live ? row : 0) * D + unit * 8;
#pragma unroll
        for (int chunk = 0; chunk < D / 64; chunk++)
            cp_async_16(stage + chunk * (TILE * 128) + swizzle_128(row, unit), q + chunk * 64, live);
    }
    const size_t head_step = (size_t)params.kv_heads * KERN_KV_BLOCK * D;
    const uint32_t keys = stage + few_shape<D>::Q_BYTES, values = keys + few_shape<D>::HALF_BYTES;
#pragma unroll
    for (int page = 0; page < KEYS / KERN_KV_BLOCK; page++) {
        const uint32_t page_key = cursor.block * KEYS + page * KERN_KV_BLOCK, key = page_key + row;
        const bool live = key >= tile.first_key && key < tile.end_key;
        const bool page_live = page_key + KERN_KV_BLOCK > tile.first_key && page_key < tile.end_key;
        const size_t block = page_live ? tile.blocks[page_key / KERN_KV_BLOCK] : 0;
        const uint16_t *from = params.kv + block * 2 * head_step + (size_t)tile.kv_head * KERN_KV_BLOCK * D + row * 64 +
                               unit * 8;
        const uint32_t to = swizzle_128(page * KERN_KV_BLOCK + row, unit);
#pragma unroll
        for (int chunk = 0; chunk < D / 64; chunk++) {
            cp_async_16(keys + chunk * (KEYS * 128) + to, from + chunk * 1024, live);
            cp_async_16(values + chunk * (KEYS * 128) + to, from + head_step + chunk * 1024, live);
        }
    }
    opened = ++cursor.block == cursor.block_end;
    if (opened) {
        cursor.item += gridDim.x;
        open_item(params, list, cursor);
    }
}

/* A thread's part of a split: rows g and g + 8. */
template <int D> struct state_t {
    float m[2], l[2], o[few_shape<D>::TILES][4];
};

template <int D> static __device__ __forceinline__ void reset(state_t<D> &state)
{
    for (int half = 0; half < 2; half++) {
        state.m[half] = -INFINITY;
        state.l[half] = 0.0f;
    }
#pragma unroll
    for (int t = 0; t < few_shape<D>::TILES; t++)
        for (int i = 0; i < 4; i++) state.o[t][i] = 0.0f;
}

/* s[2][4]: this warp's 16 keys. */
template <int D>
static __device__ __forceinline__ void score_keys(float s[2][4], const uint32_t q[D / 16][4], uint32_t keys)
{
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t key = warp * 16 + lane / 16 * 8 + lane % 8, unit = lane / 8 % 2;
#pragma unroll
    for (int i = 0; i < 4; i++) s[0][i] = s[1][i] = 0.0f;
#pragma unroll
    for (int step = 0; step < D / 16; step++) {
        uint32_t b[4];
        ldmatrix_x4(b, keys + step / 4 * (KEYS * 128) + swizzle_128(key, step % 4 * 2 + unit));
        mma_pair(s[0], s[1], q[step], b);
    }
}

/* Keys out of a row's sight score -inf. `key`: position of s[0][0]. */
static __device__ __forceinline__ void hide_keys(const attention_params_t &params, const attention_tile_t &tile,
                                                 float s[2][4], uint32_t key)
{
    const uint32_t g = threadIdx.x % 32 / 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        uint32_t first, end;
        attention_sight(params, tile, g + half * 8, first, end);
#pragma unroll
        for (int t = 0; t < 2; t++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                const uint32_t at = key + t * 8 + e;
                if (at < first || at >= end) s[t][half * 2 + e] = -INFINITY;
            }
    }
}

/* Scores to probabilities in shared memory; raises m. `largest` [WARPS][TILE]. */
template <int D>
static __device__ __forceinline__ void weigh_keys(state_t<D> &state, float s[2][4], float *largest, uint32_t p,
                                                  float scale)
{
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, q = lane % 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float most = fmaxf(fmaxf(s[0][half * 2], s[0][half * 2 + 1]), fmaxf(s[1][half * 2], s[1][half * 2 + 1]));
        most = attention_quad_max(most);
        if (q == 0) largest[warp * TILE + g + half * 8] = most;
    }
    __syncthreads();
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const uint32_t row = g + half * 8;
        float most = largest[row];
#pragma unroll
        for (int w = 1; w < WARPS; w++) most = fmaxf(most, largest[w * TILE + row]);
        const float factor = attention_raise(state.m[half], most, scale), base = attention_base(state.m[half]);
        state.l[half] = __fmul_rn(state.l[half], factor);
#pragma unroll
        for (int t = 0; t < few_shape<D>::TILES; t++) {
            state.o[t][half * 2] = __fmul_rn(state.o[t][half * 2], factor);
            state.o[t][half * 2 + 1] = __fmul_rn(state.o[t][half * 2 + 1], factor);
        }
#pragma unroll
        for (int t = 0; t < 2; t++) {
            const uint32_t pair = pack_bf16(attention_weight(s[t][half * 2], scale, base),
                                            attention_weight(s[t][half * 2 + 1], scale, base));
            const uint32_t to = p + swizzle_128(row, warp * 2 + t) + q * 4;
            asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(pair) : "memory");
        }
    }
    __syncthreads();
}

/* o += p v over 64 keys, this warp's quarter of head_dim; l += p. */
template <int D> static __device__ __forceinline__ void add_values(state_t<D> &state, uint32_t p, uint32_t values)
{
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t row = lane % 16, upper = lane / 16;
#pragma unroll
    for (int step = 0; step < KEYS / 16; step++) {
        uint32_t a[4];
        ldmatrix_x4(a, p + swizzle_128(row, step * 2 + upper));
        state.l[0] = attention_add(attention_add(state.l[0], a[0]), a[2]);
        state.l[1] = attention_add(attention_add(state.l[1], a[1]), a[3]);
#pragma unroll
        for (int pair = 0; pair < few_shape<D>::TILES / 2; pair++) {
            const uint32_t unit = warp * few_shape<D>::TILES + pair * 2 + upper;
            uint32_t b[4];
            ldmatrix_x4_trans(b, values + unit / 8 * (KEYS * 128) + swizzle_128(step * 16 + row, unit % 8));
            mma_pair(state.o[pair * 2], state.o[pair * 2 + 1], a, b);
        }
    }
}

template <int D>
static __device__ __forceinline__ void write_out(const attention_params_t &params, const attention_tile_t &tile,
                                                 const float L[2], const float O[][4])
{
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, q = lane % 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const uint32_t row = g + half * 8;
        if (row >= tile.rows) continue;
        const float inverse = __frcp_rn(L[half]);
        uint16_t *out = params.out + attention_head(params, tile, row) * D + warp * (D / 4) + q * 2;
#pragma unroll
        for (int t = 0; t < few_shape<D>::TILES; t++)
            *(uint32_t *)(out + t * 8) = attention_out(O[t][half * 2], O[t][half * 2 + 1], inverse);
    }
}

/* A split of several: to scratch. `l` is gathered. */
template <int D>
static __device__ __forceinline__ void hand_in(const attention_params_t &params, const cursor_t &cursor,
                                               const state_t<D> &state, const float l[2])
{
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, q = lane % 4;
    float *slot = params.partial + (size_t)(cursor.slot + cursor.split) * few_shape<D>::SLOT;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const uint32_t row = g + half * 8;
        if (row >= cursor.tile.rows) continue;
        if (warp == 0 && q == 0) *(float2 *)(slot + row * 2) = make_float2(state.m[half], l[half]);
        float *o = slot + 2 * TILE + row * D + warp * (D / 4) + q * 2;
#pragma unroll
        for (int t = 0; t < few_shape<D>::TILES; t++)
            *(float2 *)(o + t * 8) = make_float2(state.o[t][half * 2], state.o[t][half * 2 + 1]);
    }
}

/* The items of a run when splits are items of their own. */
static __device__ __forceinline__ uint32_t run_items(const attention_params_t &params, uint32_t run)
{
    uint32_t first;
    return attention_tiles(params, run, TILE) * params.kv_heads * run_splits(params, run, first);
}

static __device__ __forceinline__ uint32_t run_units(const attention_params_t &params, uint32_t run)
{
    return attention_tiles(params, run, TILE) * params.kv_heads;
}

template <int D> __global__ void __launch_bounds__(THREADS, 2) attention_few(const attention_params_t params)
{
    typedef few_shape<D> shape;
    extern __shared__ __align__(1024) char shared[];
    __shared__ float largest[WARPS * TILE];
    const uint32_t ring = shared_address(shared), p = ring + shape::STAGES * shape::STAGE_BYTES;
    uint32_t *begin = (uint32_t *)(shared + shape::STAGES * shape::STAGE_BYTES + shape::P_BYTES);

    list_t list = {begin, 0, false};
    attention_scan<THREADS>(begin, params.runs, [&](uint32_t run) { return run_items(params, run); });
    list.total = begin[params.runs];
    if (list.total > params.slots) {
        __syncthreads();
        list.whole = true;
        attention_scan<THREADS>(begin, params.runs, [&](uint32_t run) { return run_units(params, run); });
        list.total = begin[params.runs];
    }
    grid_dependency_wait();
    grid_dependents_launch();

    cursor_t ahead, now;
    ahead.item = now.item = blockIdx.x;
    open_item(params, list, ahead);
    open_item(params, list, now);
    bool opened = true;
#pragma unroll 1
    for (int stage = 0; stage < shape::STAGES - 1; stage++) {
        load_block<D>(params, list, ahead, opened, ring + stage * shape::STAGE_BYTES);
        cp_async_commit();
    }
    state_t<D> state;
    float M[2] = {-INFINITY, -INFINITY}, L[2] = {0.0f, 0.0f}, O[shape::TILES][4];
    uint32_t q[D / 16][4];
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    bool fresh = true;
    uint32_t slot = 0;
    reset<D>(state);
#pragma unroll 1
    while (now.item < list.total) {
        const uint32_t stage = ring + slot * shape::STAGE_BYTES;
        const uint32_t keys = stage + shape::Q_BYTES, values = keys + shape::HALF_BYTES;
        cp_async_wait<shape::STAGES - 2>();
        __syncthreads();
        /* Into the stage that was read in the round before: all warps are past it. */
        load_block<D>(params, list, ahead, opened,
                      ring + (slot == 0 ? shape::STAGES - 1 : slot - 1) * shape::STAGE_BYTES);
        cp_async_commit();
        if (fresh) {
#pragma unroll
            for (int step = 0; step < D / 16; step++)
                ldmatrix_x4(q[step],
                            stage + step / 4 * (TILE * 128) + swizzle_128(lane % 16, step % 4 * 2 + lane / 16));
            if (list.whole) {
                for (int half = 0; half < 2; half++) {
                    M[half] = -INFINITY;
                    L[half] = 0.0f;
                }
#pragma unroll
                for (int t = 0; t < shape::TILES; t++)
                    for (int i = 0; i < 4; i++) O[t][i] = 0.0f;
            }
        }
        float s[2][4];
        score_keys<D>(s, q, keys);
        const uint32_t key = now.block * KEYS;
        if (key < now.tile.all_first || key + KEYS > now.tile.all_end)
            hide_keys(params, now.tile, s, key + warp * 16 + lane % 4 * 2);
        weigh_keys<D>(state, s, largest, p, params.scale);
        add_values<D>(state, p, values);

        now.block++;
        fresh = now.block == now.block_end;
        if (fresh || now.block % ATTENTION_SPLIT_BLOCKS == 0) {
            const float l[2] = {attention_gather(state.l[0]), attention_gather(state.l[1])};
            if (list.whole) {
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const attention_factors_t factors = attention_merge_step(M[half], L[half], state.m[half], l[half]);
#pragma unroll
                    for (int t = 0; t < shape::TILES; t++)
                        for (int e = 0; e < 2; e++)
                            O[t][half * 2 + e] = attention_fold(O[t][half * 2 + e], state.o[t][half * 2 + e], factors);
                }
                if (fresh) write_out<D>(params, now.tile, L, O);
            } else if (now.splits == 1) {
                write_out<D>(params, now.tile, l, state.o);
            } else {
                hand_in<D>(params, now, state, l);
            }
            reset<D>(state);
        }
        if (fresh) {
            now.item += gridDim.x;
            open_item(params, list, now);
        }
        slot = slot == shape::STAGES - 1 ? 0 : slot + 1;
    }
}

/* Loads that stay where they stand: many are under way at once. (The launch bounds of the merge leave it the
 * registers.) */
static __device__ __forceinline__ float2 load_now(const float2 *from)
{
    float2 value;
    asm volatile("ld.global.v2.f32 {%0, %1}, [%2];" : "=f"(value.x), "=f"(value.y) : "l"(from) : "memory");
    return value;
}

static __device__ __forceinline__ float4 load_now(const float4 *from)
{
    float4 value;
    asm volatile("ld.global.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(value.x), "=f"(value.y), "=f"(value.z), "=f"(value.w)
                 : "l"(from)
                 : "memory");
    return value;
}

/* Merges a tile's splits in order: a block takes 128 groups of 4 columns of a tile's 16 rows. */
template <int D> __global__ void __launch_bounds__(THREADS, 4) attention_merge(const attention_params_t params)
{
    enum { AHEAD = 16 };
    extern __shared__ __align__(16) uint32_t begin[];
    uint32_t *unit_begin = begin + params.runs + 1;
    attention_scan<THREADS>(begin, params.runs, [&](uint32_t run) { return run_items(params, run); });
    attention_scan<THREADS>(unit_begin, params.runs, [&](uint32_t run) { return run_units(params, run); });
    const uint32_t i = blockIdx.y * THREADS + threadIdx.x, row = i / (D / 4), column = i % (D / 4) * 4;
    bool live = begin[params.runs] <= params.slots && blockIdx.x < unit_begin[params.runs];
    attention_tile_t tile = {};
    const float *slot = params.partial;
    uint32_t splits = 0;
    if (live) {
        const uint32_t run = attention_find(unit_begin, params.runs, blockIdx.x), unit = blockIdx.x - unit_begin[run];
        uint32_t first;
        const uint32_t all = run_splits(params, run, first);
        tile = attention_tile(params, run, unit / params.kv_heads, TILE, unit % params.kv_heads);
        const uint32_t own = tile.first_key / ATTENTION_SPLIT;
        splits = (tile.end_key - 1) / ATTENTION_SPLIT + 1 - own;
        slot += static_cast<size_t>(begin[run] + unit * all + own - first) * few_shape<D>::SLOT;
        live = splits > 1 && row < tile.rows;
    }
    grid_dependency_wait();
    grid_dependents_launch();
    if (!live) return;
    const float *ml = slot + row * 2, *o = slot + 2 * TILE + row * D + column;
    float M = -INFINITY, L = 0.0f;
    float4 O = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 1
    for (uint32_t s = 0; s < splits; s += AHEAD) {
        float2 state[AHEAD];
        float4 sum[AHEAD];
#pragma unroll
        for (uint32_t a = 0; a < AHEAD; a++) {
            const bool there = s + a < splits;
            const size_t at = static_cast<size_t>(there ? s + a : s) * few_shape<D>::SLOT;
            state[a] = load_now(reinterpret_cast<const float2 *>(ml + at));
            sum[a] = load_now(reinterpret_cast<const float4 *>(o + at));
            if (!there) state[a].x = -INFINITY; /* a split without a key */
        }
#pragma unroll
        for (uint32_t a = 0; a < AHEAD; a++) {
            const attention_factors_t factors = attention_merge_step(M, L, state[a].x, state[a].y);
            O.x = attention_fold(O.x, sum[a].x, factors);
            O.y = attention_fold(O.y, sum[a].y, factors);
            O.z = attention_fold(O.z, sum[a].z, factors);
            O.w = attention_fold(O.w, sum[a].w, factors);
        }
    }
    const float inverse = __frcp_rn(L);
    *reinterpret_cast<uint2 *>(params.out + attention_head(params, tile, row) * D +
                               column) = make_uint2(attention_out(O.x, O.y, inverse), attention_out(O.z, O.w, inverse));
}

template <int D>
static cot_status_t launch(const kern_t *kern, const attention_params_t &params, const attention_bounds_t &bounds)
{
    typedef few_shape<D> shape;
    const uint64_t splits = bounds.max_position / ATTENTION_SPLIT + 1;
    const uint64_t units = (static_cast<uint64_t>(bounds.rows) * params.group / TILE + params.runs) * params.kv_heads;
    const uint64_t items = units * splits, most = 2ULL * kern->sms;
    const size_t table_bytes = (params.runs + 1) * sizeof(uint32_t);
    kern_cuda_launch launch = {};
    launch.grid = dim3(static_cast<unsigned>(items < most ? items : most));
    launch.block = dim3(THREADS);
    launch.shared_bytes = shape::STAGES * shape::STAGE_BYTES + shape::P_BYTES + table_bytes;
    launch.overlap = true;
    COT_TRY(kern_cuda_start(kern, launch, attention_few<D>, params));
    if (splits == 1) return COT_OK;
    launch.grid = dim3(static_cast<unsigned>(units), TILE * (D / 4) / THREADS);
    launch.shared_bytes = 2 * table_bytes;
    return kern_cuda_start(kern, launch, attention_merge<D>, params);
}

cot_status_t kern_attention_few(const kern_t *kern, const attention_params_t &params, const attention_bounds_t &bounds)
{
    return bounds.head_dim == 64 ? launch<64>(kern, params, bounds) : launch<128>(kern, params, bounds);
}

size_t kern_attention_slot_floats(uint32_t head_dim)
{
    return head_dim == 64 ? few_shape<64>::SLOT : few_shape<128>::SLOT;
}
