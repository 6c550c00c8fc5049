/* The core of the products on sm_90a: weights on M, rows on N, one persistent block a multiprocessor of 384 threads
 * (wgmma with N = 256 leaves no room for more).
 *
 *   warp 0, lane 0     schedules: puts tiles into a queue and streams their weights, boxes of 16 rows x 64 columns,
 *                      by TMA into ring A (7 stages of 128 x 64, 112 KB), across tiles, experts and phases
 *   warps 1-3          bring the rows of x, by index, by cp.async under the same swizzle into ring B (3 stages of
 *                      32 KB: 64 columns of K of 256 rows, up to 512 columns of few rows, fetched far ahead)
 *   warps 4-7, 8-11    two consumer warpgroups: 64 rows of weights each times all N rows of the tile, wgmma m64nNk16
 *                      with fp32 accumulators in registers, K ascending, one accumulator an output
 *
 * A tile is up to 8 units of 16 weight rows (a unit of gate/up: 8 gates, 8 ups) times up to 256 rows. Weight rows of
 * a tile that are not there leave what the ring held before, and rows of x that are not there are copies of the last:
 * they reach only their own outputs, which are not stored.
 *
 * Barriers: full[s] of A counts the scheduler and TMA's bytes, of B the three gathering warps; empty[s] counts the
 * eight consumer warps, which keep one wgmma group under way and so give a stage back when they have issued the next.
 * cp.async writes through the generic proxy and wgmma reads through the async one: each gatherer waits for its copies,
 * fences, and only then arrives. It publishes a stage when it has issued the next one, for which it needs stage
 * i + 1 - B_STAGES back: with three stages neither side waits for the other. */
#ifndef KERN_CUDA_TILES_CUH
#define KERN_CUDA_TILES_CUH

#include "kernels/cuda/arith.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace kcu
{

constexpr int TILE_THREADS = 384, UNIT = 16, TILE_UNITS = 8, MAX_N = 256;
constexpr int A_STAGES = 7, A_BYTES = TILE_UNITS * UNIT * 128;
constexpr int B_STAGES = 3, B_BYTES = MAX_N * 128;
constexpr int QUEUE = 3, STAGED_ROWS = 32, STAGED_PITCH = 72; /* elements: 144 bytes, free of bank conflicts */
constexpr int FIRST_CONSUMER = 128, GATHERERS = 96, GATHER_ROWS = GATHERERS / 8;
constexpr int BARRIER_ALL_CONSUMERS = 3, BARRIER_GATHERERS = 4;

/* What becomes of a tile's accumulators. */
enum epilogue_t {
    GATED,   /* silu(gate) up, bf16, to row `row + n` of `out` */
    SCATTER, /* bf16, to the row that the table names */
    FLOATS   /* fp32, to row `row + n` of `out` */
};

struct tile_t {
    uint32_t units;     /* 1 … 8; 0: the phase ends */
    uint32_t map;       /* which of the weights */
    uint32_t a_row;     /* first row in the weights */
    uint32_t k, stages; /* first column, and how many times 64 */
    uint32_t row, rows; /* of x: first, and how many (1 … 256) */
    uint32_t n;         /* the N of wgmma: at least `rows` */
    uint32_t unit;      /* of the output: its column / 16, or / 8 when gated */
    uint32_t segment;
};

struct tiles_shared {
    alignas(1024) unsigned char a[A_STAGES][A_BYTES];
    alignas(1024) unsigned char b[B_STAGES][B_BYTES];
    alignas(16) uint16_t staged[2][STAGED_ROWS][STAGED_PITCH];
    uint32_t table[QUEUE][MAX_N];
    tile_t queue[QUEUE];
    uint64_t a_full[A_STAGES], a_empty[A_STAGES], b_full[B_STAGES], b_empty[B_STAGES];
    uint64_t queue_full[QUEUE], queue_empty[QUEUE];
};

/* Place in a ring of SIZE. */
template <int SIZE> struct place {
    uint32_t stage = 0, parity = 0;
    __device__ __forceinline__ void next()
    {
        if (++stage == SIZE) {
            stage = 0;
            parity ^= 1;
        }
    }
};

/* The N of wgmma for `rows` rows. */
__host__ __device__ inline uint32_t tile_n(uint32_t rows)
{
    if (rows <= 16) return rows <= 8 ? 8 : 16;
    return (rows + 31) / 32 * 32;
}

/* Rows of each of the n tiles that `rows` rows are cut into: all alike but the last. */
__host__ __device__ inline uint32_t tile_width(uint32_t rows)
{
    const uint32_t tiles = (rows + MAX_N - 1) / MAX_N;
    return tiles == 0 ? 0 : ((rows + tiles - 1) / tiles + 31) / 32 * 32;
}

/* Cuts `units` units into chunks of at most 8 for `blocks` blocks that take them in order: whole waves of 8, then the
 * rest (half a wave to one and a half) evenly, so that all end together. */
struct chunking {
    uint32_t whole, rest_units, rest;
    __host__ __device__ chunking(uint32_t units, uint32_t blocks)
    {
        const uint32_t wave = blocks * TILE_UNITS;
        uint32_t waves = units / wave;
        if (waves > 0 && units - waves * wave < wave / 2) waves--;
        whole = waves * blocks;
        rest_units = units - waves * wave;
        rest = rest_units > wave ? 2 * blocks : rest_units < blocks ? rest_units : blocks;
    }
    __host__ __device__ uint32_t count() const
    {
        return whole + rest;
    }
    /* First unit of chunk c (c = count: the end). */
    __host__ __device__ uint32_t begin(uint32_t c) const
    {
        if (c <= whole) return c * TILE_UNITS;
        return whole * TILE_UNITS + static_cast<uint32_t>(static_cast<uint64_t>(c - whole) * rest_units / rest);
    }
};

#if defined(KERN_SM90A)

/* By one thread, before a __syncthreads. */
__device__ inline void tiles_init(tiles_shared &shared)
{
    for (int s = 0; s < A_STAGES; s++) {
        mbarrier_init(&shared.a_full[s], 1);
        mbarrier_init(&shared.a_empty[s], 8);
    }
    for (int s = 0; s < B_STAGES; s++) {
        mbarrier_init(&shared.b_full[s], GATHERERS / 32);
        mbarrier_init(&shared.b_empty[s], 8);
    }
    for (int s = 0; s < QUEUE; s++) {
        mbarrier_init(&shared.queue_full[s], 1);
        mbarrier_init(&shared.queue_empty[s], 8 + GATHERERS / 32);
    }
    mbarrier_init_fence();
}

/* ---- the scheduler ---- */

struct scheduler_state {
    place<A_STAGES> a;
    place<QUEUE> queue;
};

__device__ __forceinline__ void push_tile(tiles_shared &shared, scheduler_state &state, const tile_t &tile)
{
    mbarrier_wait(&shared.queue_empty[state.queue.stage], state.queue.parity ^ 1);
    shared.queue[state.queue.stage] = tile;
    mbarrier_arrive(&shared.queue_full[state.queue.stage]);
    state.queue.next();
}

__device__ __forceinline__ void stream_tile(tiles_shared &shared, scheduler_state &state, const tile_t &tile,
                                            const CUtensorMap *map, uint64_t policy)
{
    for (uint32_t k = 0; k < tile.stages; k++) {
        uint64_t *full = &shared.a_full[state.a.stage];
        unsigned char *to = shared.a[state.a.stage];
        mbarrier_wait(&shared.a_empty[state.a.stage], state.a.parity ^ 1);
        mbarrier_arrive_expect(full, tile.units * (UNIT * 128));
        for (uint32_t u = 0; u < tile.units; u++)
            tma_load_2d(to + u * UNIT * 128, map,
                        make_int2(static_cast<int>(tile.k + 64 * k), static_cast<int>(tile.a_row + UNIT * u)), full,
                        policy);
        state.a.next();
    }
}

/* ---- the gatherers ---- */

struct gather_state {
    place<B_STAGES> b, publish;
    place<QUEUE> queue;
    bool pending = false; /* a stage is issued and not published */
};

/* The oldest stage that is issued: its copies have landed. */
__device__ __forceinline__ void publish_rows(tiles_shared &shared, gather_state &state)
{
    fence_async_shared();
    __syncwarp();
    if (threadIdx.x % 32 == 0) mbarrier_arrive(&shared.b_full[state.publish.stage]);
    state.publish.next();
}

/* At the end of a tile: the scheduler cannot end it, and so bring the next, before the consumers have its last stage.
 */
__device__ __forceinline__ void gather_drain(tiles_shared &shared, gather_state &state)
{
    cp_async_wait<0>();
    if (state.pending) publish_rows(shared, state);
    state.pending = false;
}

/* How many times 64 columns of K a stage of ring B holds for N rows. */
__device__ __forceinline__ uint32_t b_depth(uint32_t n)
{
    return n <= 32 ? 8 : n <= 64 ? 4 : n <= 128 ? 2 : 1;
}

/* Rows of x: row n of a tile is row table[n], or row + n without a table; `k_end` columns. */
struct rows_source {
    const uint16_t *x;
    uint32_t pitch, k_end; /* elements */
    bool indexed;
};

/* This thread's 16 bytes (chunk thread % 8) of 64 columns of rows thread / 8 + 12 i of a tile. Twelve rows on, the
 * row's place in its group of eight changes by four: the swizzled chunk alternates between two, the rest is immediate.
 */
__device__ __forceinline__ void gather_columns(uint32_t to, const tile_t &tile, const rows_source &source,
                                               const uint32_t *table, uint32_t column)
{
    constexpr uint32_t BATCH = 12; /* 144 rows: two of them make 256 */
    const uint32_t thread = threadIdx.x - 32, chunk = thread % 8, last = tile.rows - 1;
    const bool inside = column + 8 * chunk < source.k_end;
    const uint16_t *from = source.x + (inside ? column + 8 * chunk : 0);
    for (uint32_t first = thread / 8; first < tile.n; first += BATCH * GATHER_ROWS) {
        const uint32_t even = to + swizzle_128(first, chunk), odd = even ^ 64;
        uint32_t row[BATCH];
#pragma unroll
        for (uint32_t i = 0; i < BATCH; i++) {
            const uint32_t n = min(first + GATHER_ROWS * i, last);
            row[i] = source.indexed ? table[n] : tile.row + n;
        }
#pragma unroll
        for (uint32_t i = 0; i < BATCH; i++) {
            if (first + GATHER_ROWS * i >= tile.n) break;
            cp_async_16((i % 2 == 0 ? even : odd) + i * GATHER_ROWS * 128,
                        from + static_cast<uint64_t>(row[i]) * source.pitch, inside);
        }
    }
}

__device__ __forceinline__ void gather_tile(tiles_shared &shared, gather_state &state, const tile_t &tile,
                                            const rows_source &source)
{
    const uint32_t depth = b_depth(tile.n);
    const uint32_t *table = shared.table[state.queue.stage];
    for (uint32_t first = 0; first < tile.stages; first += depth) {
        const uint32_t to = shared_address(shared.b[state.b.stage]), blocks = min(depth, tile.stages - first);
        mbarrier_wait(&shared.b_empty[state.b.stage], state.b.parity ^ 1);
        for (uint32_t k = 0; k < blocks; k++)
            gather_columns(to + k * tile.n * 128, tile, source, table, tile.k + 64 * (first + k));
        cp_async_commit();
        state.b.next();
        if (state.pending) {
            cp_async_wait<1>();
            publish_rows(shared, state);
        }
        state.pending = true;
    }
    gather_drain(shared, state);
}

/* ---- the consumers ---- */

struct consumer_state {
    place<A_STAGES> a;
    place<B_STAGES> b;
    place<QUEUE> queue;
};

struct tile_out {
    void *out;
    uint32_t pitch;          /* elements */
    uint64_t segment_stride; /* elements, FLOATS */
    /* SCATTER: where given, row a goes to row a % per_base of base[a / per_base]. FLOATS: per_base columns there are.
     */
    void *const *base;
    uint32_t per_base;
};

/* A step of the consumers along K: where its operands lie, and whether it is the last of its stage of ring B. */
struct step_t {
    uint32_t a, b;
    bool b_last;
};

__device__ __forceinline__ void release_step(tiles_shared &shared, const step_t &step)
{
    if (threadIdx.x % 32 != 0) return;
    mbarrier_arrive(&shared.a_empty[step.a]);
    if (step.b_last) mbarrier_arrive(&shared.b_empty[step.b]);
}

/* Waits for the operands of step k of `stages`. */
__device__ __forceinline__ step_t await_step(tiles_shared &shared, const consumer_state &state, uint2 k, uint32_t depth)
{
    mbarrier_wait(&shared.a_full[state.a.stage], state.a.parity);
    if (k.x % depth == 0) mbarrier_wait(&shared.b_full[state.b.stage], state.b.parity);
    return {state.a.stage, state.b.stage, k.x % depth == depth - 1 || k.x + 1 == k.y};
}

/* A warpgroup without weights in this tile keeps step with the rings. */
__device__ __forceinline__ void idle_tile(tiles_shared &shared, consumer_state &state, uint32_t stages, uint32_t depth)
{
    for (uint32_t k = 0; k < stages; k++) {
        const step_t step = await_step(shared, state, make_uint2(k, stages), depth);
        __syncwarp();
        release_step(shared, step);
        state.a.next();
        if (step.b_last) state.b.next();
    }
}

template <int N>
__device__ __forceinline__ void multiply_tile(tiles_shared &shared, consumer_state &state, uint32_t stages,
                                              uint32_t group, float (&acc)[N / 2])
{
    const uint32_t depth = b_depth(N);
    step_t last = {};
#pragma unroll
    for (int i = 0; i < N / 2; i++) acc[i] = 0;
    for (uint32_t k = 0; k < stages; k++) {
        const step_t step = await_step(shared, state, make_uint2(k, stages), depth);
        const uint64_t a = wgmma_descriptor(shared_address(shared.a[step.a]) + group * (A_BYTES / 2));
        const uint64_t b = wgmma_descriptor(shared_address(shared.b[step.b]) + k % depth * (N * 128));
        wgmma_fence();
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) wgmma_ss<N>(acc, a + 2 * i, b + 2 * i);
        wgmma_commit();
        wgmma_wait<1>();
        if (k > 0) release_step(shared, last);
        last = step;
        state.a.next();
        if (step.b_last) state.b.next();
    }
    wgmma_wait<0>();
    release_step(shared, last);
}

/* Accumulators of up to 32 rows of x, from column block j on, to `staged` [n][64 or, gated, 32 outputs of the group].
 */
template <int N, epilogue_t EPILOGUE>
__device__ __forceinline__ void stage_outputs(uint16_t (*staged)[STAGED_PITCH], const float (&acc)[N / 2], int first)
{
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
    for (int j = 0; j < (N < STAGED_ROWS ? N : STAGED_ROWS) / 8; j++) {
        const float *c = &acc[4 * (first + j)];
        if (EPILOGUE == GATED) {
            const uint32_t pair = pack_bf16(swiglu(c[0], c[2]), swiglu(c[1], c[3]));
            stmatrix_x1_trans(shared_address(&staged[8 * j + lane % 8][8 * warp]), pair);
        } else {
            stmatrix_x2_trans(shared_address(&staged[8 * j + lane % 8][16 * warp + lane / 8 % 2 * 8]),
                              pack_bf16(c[0], c[1]), pack_bf16(c[2], c[3]));
        }
    }
}

__device__ __forceinline__ uint16_t *scatter_row(const tile_out &out, uint32_t row)
{
    uint16_t *base = static_cast<uint16_t *>(out.out);
    if (out.base != nullptr) {
        base = static_cast<uint16_t *>(out.base[row / out.per_base]);
        row %= out.per_base;
    }
    return base + static_cast<size_t>(row) * out.pitch;
}

/* Rows first_n … of the tile from `staged` to global memory, 16 bytes a thread at a time. */
template <epilogue_t EPILOGUE>
__device__ __forceinline__ void copy_outputs(const uint16_t (*staged)[STAGED_PITCH], const tile_t &tile,
                                             const tile_out &out, const uint32_t *table, uint32_t first_n)
{
    constexpr uint32_t CHUNKS = EPILOGUE == GATED ? 4 : 8, UNIT_CHUNKS = CHUNKS / 4;
    const uint32_t thread = threadIdx.x % 128, group = (threadIdx.x - FIRST_CONSUMER) / 128, chunk = thread % CHUNKS;
    const uint32_t unit = 4 * group + chunk / UNIT_CHUNKS;
    if (unit >= tile.units) return;
    const uint32_t column = (tile.unit + 4 * group) * (UNIT_CHUNKS * 8) + 8 * chunk;
    for (uint32_t r = thread / CHUNKS; r < STAGED_ROWS && first_n + r < tile.rows; r += 128 / CHUNKS) {
        const uint32_t n = first_n + r;
        uint16_t *to = EPILOGUE == SCATTER
                           ? scatter_row(out, table[n])
                           : static_cast<uint16_t *>(out.out) + static_cast<size_t>(tile.row + n) * out.pitch;
        *reinterpret_cast<uint4 *>(to + column) = *reinterpret_cast<const uint4 *>(&staged[r][8 * chunk]);
    }
}

/* 8 rows of 8 columns of 4 bytes a store: whole sectors. `per_base` is the number of columns that there are. */
template <int N>
__device__ __forceinline__ void store_floats(const tile_t &tile, const tile_out &out, const float (&acc)[N / 2],
                                             uint32_t group)
{
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const uint32_t column = (tile.unit + 4 * group + warp) * UNIT + lane / 4;
    if (4 * group + warp >= tile.units) return;
    float *to = static_cast<float *>(out.out) + tile.segment * out.segment_stride + column;
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
        const uint32_t n = i / 4 * 8 + 2 * (lane % 4) + i % 2, further = i / 2 % 2 * 8;
        if (n < tile.rows && column + further < out.per_base)
            to[static_cast<size_t>(tile.row + n) * out.pitch + further] = acc[i];
    }
}

template <int N, epilogue_t EPILOGUE>
__device__ __forceinline__ void consume_n(tiles_shared &shared, consumer_state &state, const tile_t &tile,
                                          const tile_out &out)
{
    const uint32_t group = (threadIdx.x - FIRST_CONSUMER) / 128;
    float acc[N / 2];
    multiply_tile<N>(shared, state, tile.stages, group, acc);
    if (EPILOGUE == FLOATS) {
        store_floats<N>(tile, out, acc, group);
        return;
    }
    uint16_t(*staged)[STAGED_PITCH] = shared.staged[group];
    constexpr int ROWS = N < STAGED_ROWS ? N : STAGED_ROWS;
#pragma unroll
    for (int first = 0; first < N; first += ROWS) {
        if (first > 0) named_barrier(1 + group, 128);
        stage_outputs<N, EPILOGUE>(staged, acc, first / 8);
        named_barrier(1 + group, 128);
        copy_outputs<EPILOGUE>(staged, tile, out, shared.table[state.queue.stage], static_cast<uint32_t>(first));
    }
    named_barrier(1 + group, 128); /* before the next tile's outputs */
}

/* The tile at the head of the queue. */
template <epilogue_t EPILOGUE>
__device__ __forceinline__ void consume_tile(tiles_shared &shared, consumer_state &state, const tile_t &tile,
                                             const tile_out &out)
{
    if (4 * ((threadIdx.x - FIRST_CONSUMER) / 128) >= tile.units) {
        idle_tile(shared, state, tile.stages, b_depth(tile.n));
        return;
    }
    switch (tile.n) {
    case 8: consume_n<8, EPILOGUE>(shared, state, tile, out); break;
    case 16: consume_n<16, EPILOGUE>(shared, state, tile, out); break;
    case 32: consume_n<32, EPILOGUE>(shared, state, tile, out); break;
    case 64: consume_n<64, EPILOGUE>(shared, state, tile, out); break;
    case 96: consume_n<96, EPILOGUE>(shared, state, tile, out); break;
    case 128: consume_n<128, EPILOGUE>(shared, state, tile, out); break;
    case 160: consume_n<160, EPILOGUE>(shared, state, tile, out); break;
    case 192: consume_n<192, EPILOGUE>(shared, state, tile, out); break;
    case 224: consume_n<224, EPILOGUE>(shared, state, tile, out); break;
    default: consume_n<256, EPILOGUE>(shared, state, tile, out); break;
    }
}

/* All tiles of a phase. */
template <epilogue_t EPILOGUE>
__device__ __forceinline__ void consume_phase(tiles_shared &shared, consumer_state &state, const tile_out &out)
{
    for (;;) {
        mbarrier_wait(&shared.queue_full[state.queue.stage], state.queue.parity);
        const tile_t tile = shared.queue[state.queue.stage];
        if (tile.units > 0) consume_tile<EPILOGUE>(shared, state, tile, out);
        __syncwarp();
        if (threadIdx.x % 32 == 0) mbarrier_arrive(&shared.queue_empty[state.queue.stage]);
        state.queue.next();
        if (tile.units == 0) return;
    }
}

#endif

} // namespace kcu

#endif
