/* Dense products on sm_90a: QKV, the O projection in two K segments, the LM head. Core, threads and shared memory:
 * tiles.cuh; one phase, tiles dealt out by number.
 *
 * Up to 128 rows the weights stream once, in units of 16 outputs dealt out evenly (chunking), each K segment as a unit
 * of its own; with more, m tiles of 128 outputs x n tiles of up to 256 rows, eight n tiles side by side for L2. The
 * scheduler needs nothing of the grid before this one: it fills ring A (112 KB a multiprocessor) with weights while
 * that one ends; gatherers and consumers wait for it. Bytes: the weights once (few rows) + rows + fp32 outputs; FLOPs:
 * 2 K a row and output. */
#include "kernels/cuda/product_int.cuh"
#include "kernels/cuda/tiles.cuh"

namespace
{

using namespace kcu;

constexpr uint32_t FEW_ROWS = 128;
static_assert(sizeof(tiles_shared) + 1024 <= 232448, "more shared memory than a multiprocessor has");

#if defined(KERN_SM90A)

__device__ uint32_t part_of(const product_params &params, uint32_t unit)
{
    uint32_t part = 0;
    while (unit >= params.unit_begin[part + 1]) part++;
    return part;
}

/* Units unit.x … unit.x + unit.y - 1, all of one part. */
__device__ tile_t make_tile(const product_params &params, uint32_t segment, uint2 unit, uint2 row)
{
    tile_t tile;
    tile.units = unit.y;
    tile.map = part_of(params, unit.x);
    tile.a_row = (unit.x - params.unit_begin[tile.map]) * UNIT;
    tile.k = segment * params.segment_k;
    tile.stages = (params.segment_k + 63) / 64;
    tile.row = row.x;
    tile.rows = row.y;
    tile.n = tile_n(row.y);
    tile.unit = unit.x;
    tile.segment = segment;
    return tile;
}

__device__ void run_tile(tiles_shared &shared, scheduler_state &state, const tile_t &tile, const product_maps &maps,
                         uint64_t policy)
{
    push_tile(shared, state, tile);
    stream_tile(shared, state, tile, &maps.part[tile.map], policy);
}

__device__ void schedule_few(tiles_shared &shared, scheduler_state &state, const product_maps &maps,
                             const product_params &params)
{
    const uint32_t units = params.unit_begin[params.parts];
    const chunking chunks(units * params.segments, gridDim.x);
    const uint64_t policy = policy_evict_first();
    for (uint32_t chunk = blockIdx.x; chunk < chunks.count(); chunk += gridDim.x) {
        const uint32_t end = chunks.begin(chunk + 1);
        for (uint32_t item = chunks.begin(chunk); item < end;) {
            const uint32_t segment = item / units, unit = item % units;
            const uint32_t count = min(end - item, params.unit_begin[part_of(params, unit) + 1] - unit);
            run_tile(shared, state, make_tile(params, segment, make_uint2(unit, count), make_uint2(0, params.rows)),
                     maps, policy);
            item += count;
        }
    }
}

/* m tiles of 128 outputs never cross a part. */
__device__ uint32_t m_tiles_before(const product_params &params, uint32_t part)
{
    uint32_t tiles = 0;
    for (uint32_t p = 0; p < part; p++)
        tiles += (params.unit_begin[p + 1] - params.unit_begin[p] + TILE_UNITS - 1) / TILE_UNITS;
    return tiles;
}

__device__ void schedule_many(tiles_shared &shared, scheduler_state &state, const product_maps &maps,
                              const product_params &params)
{
    const uint32_t n_tiles = (params.rows + MAX_N - 1) / MAX_N, width = tile_width(params.rows);
    const uint32_t m_tiles = m_tiles_before(params, params.parts), each = m_tiles * n_tiles;
    const uint64_t policy = policy_evict_normal();
    for (uint32_t t = blockIdx.x; t < each * params.segments; t += gridDim.x) {
        const uint32_t segment = t / each, within = t % each, group = within / (8 * m_tiles);
        const uint32_t rest = within - group * 8 * m_tiles, group_tiles = min(8U, n_tiles - 8 * group);
        const uint32_t n = 8 * group + rest % group_tiles, m = rest / group_tiles;
        uint32_t part = 0;
        while (m >= m_tiles_before(params, part + 1)) part++;
        const uint32_t unit = params.unit_begin[part] + (m - m_tiles_before(params, part)) * TILE_UNITS;
        const uint32_t count = min(static_cast<uint32_t>(TILE_UNITS), params.unit_begin[part + 1] - unit);
        run_tile(shared, state,
                 make_tile(params, segment, make_uint2(unit, count),
                           make_uint2(n * width, min(width, params.rows - n * width))),
                 maps, policy);
    }
}

__device__ void gather(tiles_shared &shared, const product_params &params)
{
    gather_state state;
    const rows_source source = {params.x, params.x_stride, params.k, false};
    for (;;) {
        mbarrier_wait(&shared.queue_full[state.queue.stage], state.queue.parity);
        const tile_t tile = shared.queue[state.queue.stage];
        if (tile.units > 0) gather_tile(shared, state, tile, source);
        __syncwarp();
        if (threadIdx.x % 32 == 0) mbarrier_arrive(&shared.queue_empty[state.queue.stage]);
        state.queue.next();
        if (tile.units == 0) break;
    }
}

#endif

__global__ void __launch_bounds__(TILE_THREADS, 1)
    product_wgmma(const __grid_constant__ product_maps maps, const __grid_constant__ product_params params)
{
#if defined(KERN_SM90A)
    extern __shared__ unsigned char raw[];
    tiles_shared &shared = *reinterpret_cast<tiles_shared *>((reinterpret_cast<uintptr_t>(raw) + 1023) &
                                                             ~uintptr_t(1023));
    const uint32_t warp = threadIdx.x / 32;
    if (threadIdx.x == 0) tiles_init(shared);
    __syncthreads();
    grid_dependents_launch();
    if (warp < 4) {
        registers_lower<56>();
        if (warp > 0) {
            grid_dependency_wait();
            gather(shared, params);
        } else {
            if (threadIdx.x == 0) {
                scheduler_state state;
                if (params.rows <= FEW_ROWS)
                    schedule_few(shared, state, maps, params);
                else
                    schedule_many(shared, state, maps, params);
                tile_t over = {};
                push_tile(shared, state, over);
            }
            __syncwarp();
        }
    } else {
        registers_raise<224>();
        grid_dependency_wait();
        consumer_state state;
        const tile_out out = {params.out, params.out_stride, static_cast<uint64_t>(params.rows) * params.out_stride,
                              nullptr, params.columns};
        consume_phase<FLOATS>(shared, state, out);
    }
#endif
}

} // namespace

cot_status_t kern_cuda_product_wgmma(kern_t *kern, const product_maps *maps, const product_params *params)
{
    const kern_cuda_launch launch = {.grid = static_cast<unsigned>(kern->sms),
                                     .block = TILE_THREADS,
                                     .shared_bytes = sizeof(tiles_shared) + 1024,
                                     .overlap = true};
    return kern_cuda_start(kern, launch, product_wgmma, *maps, *params);
}
