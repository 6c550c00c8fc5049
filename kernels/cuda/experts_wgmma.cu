/* experts on sm_90a: gate/up, SwiGLU and down of all experts of a rank in one launch, over rows sorted by expert,
 * counts known only on the device. Core, threads and shared memory: tiles.cuh. Two phases:
 *
 *   0  gate/up: weights [slot][2I][H] x rows of x by index -> SwiGLU in registers -> `middle` [sorted row][I] bf16
 *   1  down:    weights [slot][H][I] x rows of middle      -> y by assignment, bf16
 *
 * Between them all blocks meet, but only the gatherers wait: ring A is filled with weights of phase 1 before, so the
 * memory stays busy. The meeting needs all blocks on the device at once: one a multiprocessor, as launched.
 *
 * An expert with at most `light_rows` rows is one tile wide: its weights stream once, in units of 16 rows that are
 * dealt out evenly over the blocks (chunking). One with more is cut into n tiles of equal width up to 256 and m tiles
 * of 128; groups of eight n tiles share the weight tiles in L2. Blocks take chunks from a counter, the first by their
 * number. The choice changes no bit: each output is one accumulator over K in order, whatever its tile.
 *
 * Bytes: active experts' weights once (light), x rows once for every m tile out of L2; FLOPs: 6 H I a row. */
#include "kernels/cuda/experts_int.cuh"
#include "kernels/cuda/tiles.cuh"

namespace
{

using namespace kcu;

/* What every block works out from slot_begin: one phase differs from the other only in the units of an expert. */
struct plan_t {
    uint32_t begin[KERN_BANK_MAX_SLOTS + 1];
    uint32_t heavy[KERN_BANK_MAX_SLOTS + 1]; /* n tiles of heavy experts in the slots before */
    uint16_t light[KERN_BANK_MAX_SLOTS];     /* light experts that have rows */
    uint32_t light_count;
};

struct shared_t {
    tiles_shared tiles;
    plan_t plan;
};
static_assert(sizeof(shared_t) + 1024 <= 232448, "more shared memory than a multiprocessor has");

#if defined(KERN_SM90A)

/* One warp. */
__device__ void make_plan(plan_t &plan, const experts_params &params)
{
    const uint32_t lane = threadIdx.x % 32;
    uint32_t tiles = 0, light = 0;
    for (uint32_t first = 0; first < params.slots; first += 32) {
        const uint32_t slot = first + lane;
        const uint32_t rows = slot < params.slots ? plan.begin[slot + 1] - plan.begin[slot] : 0;
        const bool is_light = rows > 0 && rows <= params.light_rows;
        const uint32_t mine = is_light ? 0 : (rows + MAX_N - 1) / MAX_N;
        const uint32_t lights = __ballot_sync(0xffffffffU, is_light);
        uint32_t sum = mine;
        for (int d = 1; d < 32; d *= 2) {
            const uint32_t other = __shfl_up_sync(0xffffffffU, sum, d);
            if (lane >= d) sum += other;
        }
        if (slot < params.slots) plan.heavy[slot] = tiles + sum - mine;
        if (is_light) plan.light[light + __popc(lights & ((1U << lane) - 1))] = static_cast<uint16_t>(slot);
        tiles += __shfl_sync(0xffffffffU, sum, 31);
        light += __popc(lights);
    }
    if (lane == 0) {
        plan.heavy[params.slots] = tiles;
        plan.light_count = light;
    }
}

/* Units of an expert's weights in a phase, and where they lie. */
struct phase_t {
    uint32_t phase, units, m_tiles, stages, rows_of_slot;
    __device__ phase_t(uint32_t number, const experts_params &params) : phase(number)
    {
        const uint32_t k = number == 0 ? params.hidden : params.width;
        rows_of_slot = number == 0 ? 2 * params.width : params.hidden;
        units = rows_of_slot / UNIT;
        m_tiles = (units + TILE_UNITS - 1) / TILE_UNITS;
        stages = (k + 63) / 64;
    }
};

__device__ tile_t make_tile(const plan_t &plan, const phase_t &phase, uint32_t slot, uint2 unit, uint2 row)
{
    tile_t tile;
    tile.units = unit.y;
    tile.map = phase.phase;
    tile.a_row = slot * phase.rows_of_slot + unit.x * UNIT;
    tile.k = 0;
    tile.stages = phase.stages;
    tile.row = plan.begin[slot] + row.x;
    tile.rows = row.y;
    tile.n = tile_n(row.y);
    tile.unit = unit.x;
    tile.segment = 0;
    return tile;
}

/* Heavy tile t: groups of eight n tiles, then m, then n. */
__device__ tile_t heavy_tile(const plan_t &plan, const phase_t &phase, uint32_t slots, uint32_t t)
{
    uint32_t slot = 0, end = slots; /* the last slot whose tiles begin at or before t */
    while (end - slot > 1) {
        const uint32_t middle = (slot + end) / 2;
        if (plan.heavy[middle] * phase.m_tiles <= t)
            slot = middle;
        else
            end = middle;
    }
    const uint32_t n_tiles = plan.heavy[slot + 1] - plan.heavy[slot], rows = plan.begin[slot + 1] - plan.begin[slot];
    const uint32_t within = t - plan.heavy[slot] * phase.m_tiles, group = within / (8 * phase.m_tiles);
    const uint32_t rest = within - group * 8 * phase.m_tiles, group_tiles = min(8U, n_tiles - 8 * group);
    const uint32_t n = 8 * group + rest % group_tiles, m = rest / group_tiles, width = tile_width(rows);
    return make_tile(plan, phase, slot,
                     make_uint2(m * TILE_UNITS, min(static_cast<uint32_t>(TILE_UNITS), phase.units - m * TILE_UNITS)),
                     make_uint2(n * width, min(width, rows - n * width)));
}

__device__ void schedule_phase(shared_t &shared, scheduler_state &state, const CUtensorMap *map,
                               const experts_params &params, uint32_t number)
{
    const plan_t &plan = shared.plan;
    const phase_t phase(number, params);
    const uint32_t heavy = plan.heavy[params.slots] * phase.m_tiles, units = plan.light_count * phase.units;
    const chunking light(units, gridDim.x);
    const uint64_t once = policy_evict_first(), again = policy_evict_normal();
    uint32_t chunk = blockIdx.x;
    while (chunk < heavy + light.count()) {
        const uint32_t next = gridDim.x +
                              static_cast<uint32_t>(atomicAdd(&params.counters[COUNTER_CHUNK + number], 1ULL));
        if (chunk < heavy) {
            const tile_t tile = heavy_tile(plan, phase, params.slots, chunk);
            push_tile(shared.tiles, state, tile);
            stream_tile(shared.tiles, state, tile, map, again);
        } else {
            const uint32_t end = light.begin(chunk - heavy + 1);
            for (uint32_t unit = light.begin(chunk - heavy); unit < end;) {
                const uint32_t slot = plan.light[unit / phase.units], first = unit % phase.units;
                const uint32_t count = min(end - unit, phase.units - first);
                const tile_t tile = make_tile(plan, phase, slot, make_uint2(first, count),
                                              make_uint2(0, plan.begin[slot + 1] - plan.begin[slot]));
                push_tile(shared.tiles, state, tile);
                stream_tile(shared.tiles, state, tile, map, once);
                unit += count;
            }
        }
        chunk = next;
    }
    tile_t over = {};
    push_tile(shared.tiles, state, over);
}

/* Rows of the queue's tile: phase 0 the row of x of each, phase 1 the assignment, which is the row of y. */
__device__ void fill_table(uint32_t *table, const tile_t &tile, const experts_params &params, uint32_t phase)
{
    for (uint32_t n = threadIdx.x - 32; n < tile.rows; n += GATHERERS) {
        const uint32_t assignment = params.order[tile.row + n];
        table[n] = phase == 0 ? params.row[assignment] : assignment;
    }
    named_barrier(BARRIER_GATHERERS, GATHERERS);
}

__device__ void meet(const experts_params &params)
{
    if (threadIdx.x == 32) {
        const deadline limit;
        while (load_acquire(reinterpret_cast<const uint64_t *>(&params.counters[COUNTER_MET])) < gridDim.x)
            limit.check("meeting of blocks", 0, 0);
    }
    named_barrier(BARRIER_GATHERERS, GATHERERS);
}

/* The last block to leave sets the counters back for the next launch. The scheduler, whose last word ended the second
 * phase, and the meeting are done with them. */
__device__ void leave(const experts_params &params)
{
    if (threadIdx.x != 32) return;
    __threadfence();
    if (atomicAdd(&params.counters[COUNTER_LEFT], 1ULL) != gridDim.x - 1) return;
    for (int c = 0; c < COUNTER_COUNT; c++) params.counters[c] = 0;
}

__device__ void gather(shared_t &shared, const experts_params &params)
{
    gather_state state;
    for (uint32_t phase = 0; phase < 2; phase++) {
        const rows_source source = phase == 0 ? rows_source{params.x, params.hidden, params.hidden, true}
                                              : rows_source{params.middle, params.width, params.width, false};
        if (phase == 1) meet(params);
        for (;;) {
            mbarrier_wait(&shared.tiles.queue_full[state.queue.stage], state.queue.parity);
            const tile_t tile = shared.tiles.queue[state.queue.stage];
            if (tile.units > 0) {
                fill_table(shared.tiles.table[state.queue.stage], tile, params, phase);
                gather_tile(shared.tiles, state, tile, source);
            }
            __syncwarp();
            if (threadIdx.x % 32 == 0) mbarrier_arrive(&shared.tiles.queue_empty[state.queue.stage]);
            state.queue.next();
            if (tile.units == 0) break;
        }
    }
    leave(params);
}

__device__ void consume(shared_t &shared, const experts_params &params)
{
    consumer_state state;
    const tile_out middle = {params.middle, params.width, 0, nullptr, 0};
    const tile_out y = {params.y, params.hidden, 0, params.y_base, params.per_base};
    consume_phase<GATED>(shared.tiles, state, middle);
    __threadfence();
    named_barrier(BARRIER_ALL_CONSUMERS, 256);
    if (threadIdx.x == FIRST_CONSUMER) {
        __threadfence();
        atomicAdd(&params.counters[COUNTER_MET], 1ULL);
    }
    consume_phase<SCATTER>(shared.tiles, state, y);
}

#endif

__global__ void __launch_bounds__(TILE_THREADS, 1)
    experts_wgmma(const __grid_constant__ CUtensorMap gate_up, const __grid_constant__ CUtensorMap down,
                  const __grid_constant__ experts_params params)
{
#if defined(KERN_SM90A)
    extern __shared__ unsigned char raw[];
    shared_t &shared = *reinterpret_cast<shared_t *>((reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t(1023));
    const uint32_t warp = threadIdx.x / 32;
    if (threadIdx.x == 0) {
        tma_prefetch_map(&gate_up);
        tma_prefetch_map(&down);
        tiles_init(shared.tiles);
    }
    grid_dependency_wait();
    for (uint32_t s = threadIdx.x; s <= params.slots; s += TILE_THREADS) shared.plan.begin[s] = params.slot_begin[s];
    __syncthreads();
    if (warp == 0) make_plan(shared.plan, params);
    __syncthreads();
    grid_dependents_launch();
    if (warp < 4) {
        registers_lower<56>();
        if (warp > 0) {
            gather(shared, params);
        } else {
            if (threadIdx.x == 0) {
                scheduler_state state;
                schedule_phase(shared, state, &gate_up, params, 0);
                schedule_phase(shared, state, &down, params, 1);
            }
            __syncwarp();
        }
    } else {
        registers_raise<224>();
        consume(shared, params);
    }
#endif
}

} // namespace

cot_status_t kern_cuda_experts_wgmma(kern_t *kern, const kern_bank_t *bank, const experts_params *params)
{
    const kern_cuda_launch launch = {.grid = static_cast<unsigned>(kern->sms),
                                     .block = TILE_THREADS,
                                     .shared_bytes = sizeof(shared_t) + 1024,
                                     .overlap = true};
    return kern_cuda_start(kern, launch, experts_wgmma, bank->gate_up_map, bank->down_map, *params);
}
