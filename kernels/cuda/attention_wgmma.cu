/* Attention of many rows (prefill) with wgmma and TMA; the same bits as the other forms.
 *
 * A thread block takes a tile of 128 packed rows of one key/value head: two warpgroups of 64 rows each, and a warp that
 * brings key blocks through a ring of TMA boxes (2 KB: 16 tokens by 64 columns). Within a warpgroup q k of the next
 * block and p v of this one are under way while the next block's softmax is taken; splits are folded in registers.
 * Registers of a consumer thread: 32 scores, 16 probabilities, twice D / 2 sums (of the split, of all splits).
 * FLOPs: 4 D rows a key. Bytes: keys and values once for each tile, from L2. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention_wgmma.cuh"

using namespace kcu;

enum { THREADS = 384, TILE = 128, HALF = 64, KEYS = KERN_ATTN_KEYS, PAGES = KEYS / KERN_KV_BLOCK };

template <int D> struct wide_shape {
    static constexpr int STAGES = D == 64 ? 6 : 4;
    static constexpr int CHUNKS = D / 64, TILES = D / 8;
    static constexpr int Q_BYTES = TILE * D * 2, KEY_BYTES = KEYS * D * 2;
    static constexpr int BARRIERS = Q_BYTES + 2 * STAGES * KEY_BYTES; /* offset */
    static constexpr int BEGIN = BARRIERS + 4 * STAGES * 8;           /* offset of the runs' tiles */
};

/* Addresses in shared memory. */
struct ring_t {
    uint32_t q, keys, values, barriers;
};

template <int D> static __device__ __forceinline__ uint32_t full(const ring_t &ring, uint32_t stage, uint32_t value)
{
    return ring.barriers + (value * wide_shape<D>::STAGES + stage) * 8;
}

template <int D> static __device__ __forceinline__ uint32_t empty(const ring_t &ring, uint32_t stage, uint32_t value)
{
    return ring.barriers + ((2 + value) * wide_shape<D>::STAGES + stage) * 8;
}

#if defined(KERN_SM90A)

/* ---- producer: one warp ---- */

template <int D>
static __device__ __forceinline__ void bring(const attention_params_t &params, const CUtensorMap *map,
                                             const attention_tile_t &tile, const ring_t &ring)
{
    typedef wide_shape<D> shape;
    const uint32_t lane = threadIdx.x % 32, first = tile.first_key / KEYS, end = (tile.end_key - 1) / KEYS + 1;
    const uint32_t page_first = tile.first_key / KERN_KV_BLOCK, page_end = (tile.end_key - 1) / KERN_KV_BLOCK + 1;
    uint32_t stage = 0, parity = 1, ids = 0;
    for (uint32_t block = first; block < end; block++) {
        const uint32_t at = (block - first) % (32 / PAGES) * PAGES;
        if (at == 0) { /* the next 32 pages' ids, one a lane */
            const uint32_t page = block * PAGES + lane;
            ids = page >= page_first && page < page_end ? tile.blocks[page] : 0;
        }
        const uint32_t low = max(block * PAGES, page_first), high = min(block * PAGES + PAGES, page_end);
        for (uint32_t value = 0; value < 2; value++) {
            const uint32_t barrier = full<D>(ring, stage, value);
            if (lane == 0) {
                ring_wait(empty<D>(ring, stage, value), parity);
                ring_expect(barrier, (high - low) * shape::CHUNKS * 2048);
            }
            for (uint32_t page = low; page < high; page++) {
                const uint32_t id = __shfl_sync(~0U, ids, at + page - block * PAGES);
                const uint32_t row = ((id * 2 + value) * params.kv_heads + tile.kv_head) * shape::CHUNKS * 16;
                const uint32_t to = (value ? ring.values : ring.keys) + stage * shape::KEY_BYTES +
                                    (page - block * PAGES) * 2048;
                if (lane == 0)
#pragma unroll
                    for (int chunk = 0; chunk < shape::CHUNKS; chunk++)
                        ring_load(to + chunk * (KEYS * 128), map, 0, row + chunk * 16, barrier);
            }
        }
        if (++stage == shape::STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
}

/* ---- consumers: a warpgroup each ---- */

static __device__ __forceinline__ void group_sync(uint32_t group)
{
    asm volatile("bar.sync %0, 128;" ::"r"(group + 1) : "memory");
}

template <int D>
static __device__ __forceinline__ void load_rows(const attention_params_t &params, const attention_tile_t &tile,
                                                 const ring_t &ring, uint32_t group)
{
    const uint32_t unit = threadIdx.x % 8;
    for (uint32_t row = group * HALF + threadIdx.x % 128 / 8; row < group * HALF + HALF; row += 16)
#pragma unroll
        for (int chunk = 0; chunk < D / 64; chunk++) {
            uint4 q = make_uint4(0, 0, 0, 0);
            if (row < tile.rows)
                q = *(const uint4 *)(params.q + attention_head(params, tile, row) * D + chunk * 64 + unit * 8);
            const uint32_t to = ring.q + chunk * (TILE * 128) + swizzle_128(row, unit);
            asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(to), "r"(q.x), "r"(q.y), "r"(q.z), "r"(q.w)
                         : "memory");
        }
    fence_async_shared();
    group_sync(group);
}

template <int D>
static __device__ __forceinline__ void start_scores(float (&s)[32], const ring_t &ring, uint32_t group, uint32_t stage)
{
    wgmma_keep(s);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < D / 16; step++) {
        const uint32_t q = ring.q + step / 4 * (TILE * 128) + group * (HALF * 128) + step % 4 * 32;
        const uint32_t keys = ring.keys + stage * wide_shape<D>::KEY_BYTES + step / 4 * (KEYS * 128) + step % 4 * 32;
        wgmma_scores(s, wgmma_tile(q, 16), wgmma_tile(keys, 16), step > 0);
    }
    wgmma_commit();
}

template <int D>
static __device__ __forceinline__ void start_values(float (&o)[D / 2], const uint32_t (&p)[4][4], const ring_t &ring,
                                                    uint32_t stage)
{
    wgmma_keep(o);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < KEYS / 16; step++)
        wgmma_values(o, p[step], wgmma_tile(ring.values + stage * wide_shape<D>::KEY_BYTES + step * 2048, KEYS * 128));
    wgmma_commit();
}

/* Values of keys that no row of the tile sees: what lies there may be anything. */
template <int D>
static __device__ __forceinline__ void clear_values(const attention_tile_t &tile, const ring_t &ring, uint32_t group,
                                                    uint32_t stage, uint32_t key)
{
    const uint32_t values = ring.values + stage * wide_shape<D>::KEY_BYTES;
    for (uint32_t i = threadIdx.x % 128; i < KEYS * 8; i += 128) {
        const uint32_t at = key + i / 8;
        if (at >= tile.first_key && at < tile.end_key) continue;
#pragma unroll
        for (int chunk = 0; chunk < D / 64; chunk++)
            asm volatile("st.shared.v4.b32 [%0], {%1,%1,%1,%1};" ::"r"(values + chunk * (KEYS * 128) + i * 16), "r"(0)
                         : "memory");
    }
    fence_async_shared();
    group_sync(group);
}

static __device__ __forceinline__ void hide_keys(const attention_params_t &params, const attention_tile_t &tile,
                                                 float (&s)[32], uint32_t row, uint32_t key)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        uint32_t first, end;
        attention_sight(params, tile, row + half * 8, first, end);
#pragma unroll
        for (int t = 0; t < 8; t++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                const uint32_t at = key + t * 8 + e;
                if (at < first || at >= end) s[t * 4 + half * 2 + e] = -INFINITY;
            }
    }
}

/* Scores to unrounded probabilities; raises m, rescales l, returns what o is to be multiplied with. */
static __device__ __forceinline__ void weigh_keys(float (&s)[32], float (&m)[2], float (&l)[2], float (&factor)[2],
                                                  float scale)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float most = fmaxf(s[half * 2], s[half * 2 + 1]);
#pragma unroll
        for (int t = 1; t < 8; t++) most = fmaxf(most, fmaxf(s[t * 4 + half * 2], s[t * 4 + half * 2 + 1]));
        factor[half] = attention_raise(m[half], attention_quad_max(most), scale);
        l[half] = __fmul_rn(l[half], factor[half]);
        const float base = attention_base(m[half]);
#pragma unroll
        for (int t = 0; t < 8; t++)
#pragma unroll
            for (int e = half * 2; e < half * 2 + 2; e++) s[t * 4 + e] = attention_weight(s[t * 4 + e], scale, base);
    }
}

/* Rounds them into a operands of four steps of 16 keys; adds to l. */
static __device__ __forceinline__ void round_weights(const float (&s)[32], uint32_t (&p)[4][4], float (&l)[2])
{
#pragma unroll
    for (int t = 0; t < 8; t++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint32_t pair = pack_bf16(s[t * 4 + half * 2], s[t * 4 + half * 2 + 1]);
            l[half] = attention_add(l[half], pair);
            p[t / 2][t % 2 * 2 + half] = pair;
        }
}

/* A consumer thread's rows: g and g + 8 of its warp. */
template <int D> struct sums_t {
    float m[2], l[2], M[2], L[2], o[D / 2], O[D / 2];
};

/* The split is over: into the total; the next starts afresh. */
template <int D>
static __device__ __forceinline__ void fold_split(sums_t<D> &sums, const float (&m)[2], const float (&l)[2])
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const attention_factors_t factors = attention_merge_step(sums.M[half], sums.L[half], m[half],
                                                                 attention_gather(l[half]));
#pragma unroll
        for (int t = 0; t < D / 8; t++)
#pragma unroll
            for (int e = t * 4 + half * 2; e < t * 4 + half * 2 + 2; e++) {
                sums.O[e] = attention_fold(sums.O[e], sums.o[e], factors);
                sums.o[e] = 0.0f;
            }
    }
}

template <int D>
static __device__ __forceinline__ void write_out(const attention_params_t &params, const attention_tile_t &tile,
                                                 const sums_t<D> &sums, uint32_t row, uint32_t column)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        if (row + half * 8 >= tile.rows) continue;
        const float inverse = __frcp_rn(sums.L[half]);
        uint16_t *out = params.out + attention_head(params, tile, row + half * 8) * D + column;
#pragma unroll
        for (int t = 0; t < D / 8; t++)
            *(uint32_t *)(out + t * 8) = attention_out(sums.O[t * 4 + half * 2], sums.O[t * 4 + half * 2 + 1], inverse);
    }
}

template <int D>
static __device__ __forceinline__ void consume(const attention_params_t &params, const attention_tile_t &tile,
                                               const ring_t &ring, uint32_t group)
{
    typedef wide_shape<D> shape;
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t row = group * HALF + threadIdx.x % 128 / 32 * 16 + lane / 4, column = lane % 4 * 2;
    const uint32_t first = tile.first_key / KEYS, end = (tile.end_key - 1) / KEYS + 1;
    sums_t<D> sums;
    float s[32], factor[2];
    uint32_t p[4][4], stage = 0, parity = 0;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        sums.m[i] = sums.M[i] = -INFINITY;
        sums.l[i] = sums.L[i] = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < D / 2; i++) sums.o[i] = sums.O[i] = 0.0f;
#pragma unroll
    for (int i = 0; i < 32; i++) s[i] = 0.0f;
    load_rows<D>(params, tile, ring, group);

    ring_wait(full<D>(ring, 0, 0), 0);
    start_scores<D>(s, ring, group, 0);
    wgmma_wait<0>();
    wgmma_keep(s);
    if (lane == 0) ring_arrive(empty<D>(ring, 0, 0));
    if (first * KEYS < tile.all_first || first * KEYS + KEYS > tile.all_end)
        hide_keys(params, tile, s, row, first * KEYS + column);
    weigh_keys(s, sums.m, sums.l, factor, params.scale);
    round_weights(s, p, sums.l);
    if (first + 1 < end) ring_wait(full<D>(ring, 1, 0), 0);
#pragma unroll 1
    for (uint32_t block = first; block + 1 < end; block++) {
        const uint32_t next = stage + 1 == shape::STAGES ? 0 : stage + 1, key = block * KEYS;
        const uint32_t next_parity = next == 0 ? parity ^ 1 : parity;
        start_scores<D>(s, ring, group, next);
        ring_wait(full<D>(ring, stage, 1), parity);
        if (key < tile.first_key) clear_values<D>(tile, ring, group, stage, key);
        start_values<D>(sums.o, p, ring, stage);
        wgmma_wait<1>();
        wgmma_keep(s);
        if (lane == 0) ring_arrive(empty<D>(ring, next, 0));

        const bool over = (block + 1) % ATTENTION_SPLIT_BLOCKS == 0;
        const float m[2] = {sums.m[0], sums.m[1]}, l[2] = {sums.l[0], sums.l[1]};
        if (over) {
            sums.m[0] = sums.m[1] = -INFINITY;
            sums.l[0] = sums.l[1] = 0.0f;
        }
        if (key + KEYS < tile.all_first || key + 2 * KEYS > tile.all_end)
            hide_keys(params, tile, s, row, key + KEYS + column);
        weigh_keys(s, sums.m, sums.l, factor, params.scale);
        /* The keys after the next. Waited for here because a branch keeps the exponentials above the next wait: ptxas
         * moves them below it otherwise, and they overlap with nothing. */
        wgmma_keep(s);
        if (block + 2 < end)
            ring_wait(full<D>(ring, next + 1 == shape::STAGES ? 0 : next + 1, 0),
                      next + 1 == shape::STAGES ? next_parity ^ 1 : next_parity);
        wgmma_wait<0>();
        wgmma_keep(sums.o);
        if (lane == 0) ring_arrive(empty<D>(ring, stage, 1));
        if (over) {
            fold_split<D>(sums, m, l);
        } else if (__any_sync(~0U, factor[0] != 1.0f || factor[1] != 1.0f)) { /* m is an integer: it seldom moves */
#pragma unroll
            for (int i = 0; i < D / 2; i++) sums.o[i] = __fmul_rn(sums.o[i], factor[i / 2 % 2]);
        }
        round_weights(s, p, sums.l);
        stage = next;
        parity = next_parity;
    }
    const uint32_t key = (end - 1) * KEYS;
    ring_wait(full<D>(ring, stage, 1), parity);
    if (key < tile.first_key || key + KEYS > tile.end_key) clear_values<D>(tile, ring, group, stage, key);
    start_values<D>(sums.o, p, ring, stage);
    wgmma_wait<0>();
    wgmma_keep(sums.o);
    fold_split<D>(sums, sums.m, sums.l);
    grid_dependents_launch();
    write_out<D>(params, tile, sums, row, column);
}

#endif

template <int D>
__global__ void __launch_bounds__(THREADS, 1)
    attention_wgmma(const attention_params_t params, const __grid_constant__ CUtensorMap map)
{
#if defined(KERN_SM90A)
    typedef wide_shape<D> shape;
    extern __shared__ __align__(1024) char shared[];
    const uint32_t base = shared_address(shared);
    const ring_t ring = {base, base + shape::Q_BYTES, base + shape::Q_BYTES + shape::STAGES * shape::KEY_BYTES,
                         base + shape::BARRIERS};
    uint32_t *begin = (uint32_t *)(shared + shape::BEGIN);
    if (threadIdx.x == 0) {
        for (uint32_t stage = 0; stage < shape::STAGES; stage++)
            for (uint32_t value = 0; value < 2; value++) {
                ring_init(full<D>(ring, stage, value), 1);
                ring_init(empty<D>(ring, stage, value), 8);
            }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        fence_async_shared();
    }
    attention_scan<THREADS>(begin, params.runs, [&](uint32_t run) { return attention_tiles(params, run, TILE); });
    const uint32_t total = begin[params.runs];
    grid_dependency_wait();
    if (blockIdx.y >= total) return;
    /* The last tiles of a run have the most keys: they start first. */
    const uint32_t number = total - 1 - blockIdx.y, run = attention_find(begin, params.runs, number);
    const attention_tile_t tile = attention_tile(params, run, number - begin[run], TILE, blockIdx.x);
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x < 32) bring<D>(params, &map, tile, ring);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        consume<D>(params, tile, ring, threadIdx.x / 128 - 1);
    }
#endif
}

template <int D>
static cot_status_t launch(const kern_t *kern, const attention_params_t &params, const attention_bounds_t &bounds,
                           const CUtensorMap &map)
{
    kern_cuda_launch launch = {};
    launch.grid = dim3(params.kv_heads, bounds.rows * params.group / TILE + params.runs);
    launch.block = dim3(THREADS);
    launch.shared_bytes = wide_shape<D>::BEGIN + (params.runs + 1) * sizeof(uint32_t);
    launch.overlap = true;
    return kern_cuda_start(kern, launch, attention_wgmma<D>, params, map);
}

cot_status_t kern_attention_wgmma(const kern_t *kern, const attention_params_t &params,
                                  const attention_bounds_t &bounds, const CUtensorMap &map)
{
    return bounds.head_dim == 64 ? launch<64>(kern, params, bounds, map) : launch<128>(kern, params, bounds, map);
}
