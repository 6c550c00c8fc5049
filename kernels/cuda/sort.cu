/* Stable counting sort of assignments by slot.
 *
 * Assignments are taken in segments of 2,048, one block of 8 warps each; a warp takes 256 of them, 32 at a time: equal
 * slots within the 32 find each other by match_any, the first of them moves the warp's counter of that slot. One
 * segment: one launch. More: a launch counts each segment, a second adds up what stands before it and writes. Slots
 * below 0 are left out. Bytes: 4 in, 4 out an assignment (8 in with several segments), 4 slots for each pair of
 * segments. */
#include "kernels/cuda/cuda_int.cuh"
#include "kernels/cuda/hopper.cuh"

using namespace kcu;

enum { THREADS = 256, WARPS = 8, EACH = 8, SEGMENT = THREADS * EACH, MOST_SLOTS = KERN_BANK_MAX_SLOTS };

struct sort_params_t {
    const int32_t *slot;
    uint32_t *order, *slot_begin, *histogram; /* histogram [segments][slots] */
    uint32_t assignments, slots, segments;
};

struct sort_shared_t {
    uint32_t count[WARPS][MOST_SLOTS];
    uint32_t begin[MOST_SLOTS], warp_sum[WARPS];
};

/* Where an assignment stands among those of its slot in its warp; slot -1: nowhere. */
struct place_t {
    int32_t slot;
    uint32_t rank;
};

/* Counts the segment's assignments by warp and slot, and ranks this thread's. */
static __device__ __forceinline__ void count_segment(const sort_params_t &params, sort_shared_t &shared,
                                                     place_t (&place)[EACH])
{
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t first = blockIdx.x * SEGMENT + warp * (32 * EACH) + lane;
    for (uint32_t i = threadIdx.x; i < WARPS * params.slots; i += THREADS)
        shared.count[i / params.slots][i % params.slots] = 0;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const uint32_t at = first + i * 32;
        place[i].slot = at < params.assignments ? params.slot[at] : KERN_NO_EXPERT;
        if (place[i].slot >= static_cast<int32_t>(params.slots)) place[i].slot = KERN_NO_EXPERT;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int32_t slot = place[i].slot;
        const uint32_t equal = __match_any_sync(~0U, slot), before = __popc(equal & ((1U << lane) - 1));
        uint32_t base = 0;
        if (slot >= 0) base = shared.count[warp][slot];
        __syncwarp();
        if (slot >= 0 && before == 0) shared.count[warp][slot] = base + __popc(equal);
        __syncwarp();
        place[i].rank = base + before;
    }
    __syncthreads();
}

__global__ void __launch_bounds__(THREADS) sort_count(const sort_params_t params)
{
    __shared__ sort_shared_t shared;
    place_t place[EACH];
    grid_dependency_wait();
    count_segment(params, shared, place);
    grid_dependents_launch();
    for (uint32_t slot = threadIdx.x; slot < params.slots; slot += THREADS) {
        uint32_t sum = 0;
#pragma unroll
        for (int warp = 0; warp < WARPS; warp++) sum += shared.count[warp][slot];
        params.histogram[static_cast<size_t>(blockIdx.x) * params.slots + slot] = sum;
    }
}

/* Each thread holds 2 slots: total[i] of slot 2 t + i over all segments, before[i] of it in segments before this one.
 */
static __device__ __forceinline__ void sum_segments(const sort_params_t &params, const sort_shared_t &shared,
                                                    uint32_t (&total)[2], uint32_t (&before)[2])
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint32_t slot = threadIdx.x * 2 + i;
        total[i] = before[i] = 0;
        if (slot >= params.slots) continue;
        if (params.segments == 1) {
#pragma unroll
            for (int warp = 0; warp < WARPS; warp++) total[i] += shared.count[warp][slot];
            continue;
        }
#pragma unroll 8
        for (uint32_t s = 0; s < params.segments; s++) {
            const uint32_t count = params.histogram[static_cast<size_t>(s) * params.slots + slot];
            if (s < blockIdx.x) before[i] += count;
            total[i] += count;
        }
    }
}

/* The sum of `own` over the threads before this one. */
static __device__ __forceinline__ uint32_t scan(uint32_t own, uint32_t *warp_sum)
{
    uint32_t upto = own;
#pragma unroll
    for (uint32_t step = 1; step < 32; step *= 2) {
        const uint32_t other = __shfl_up_sync(~0U, upto, step);
        if (threadIdx.x % 32 >= step) upto += other;
    }
    if (threadIdx.x % 32 == 31) warp_sum[threadIdx.x / 32] = upto;
    __syncthreads();
    uint32_t before = upto - own;
    for (uint32_t w = 0; w < threadIdx.x / 32; w++) before += warp_sum[w];
    return before;
}

__global__ void __launch_bounds__(THREADS) sort_write(const sort_params_t params)
{
    __shared__ sort_shared_t shared;
    place_t place[EACH];
    grid_dependency_wait();
    count_segment(params, shared, place);
    grid_dependents_launch();
    uint32_t total[2], before[2];
    sum_segments(params, shared, total, before);
    uint32_t begin = scan(total[0] + total[1], shared.warp_sum);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint32_t slot = threadIdx.x * 2 + i;
        if (slot < params.slots) {
            if (blockIdx.x == 0) params.slot_begin[slot] = begin;
            uint32_t at = begin + before[i]; /* counts of warps become their places in `order` */
#pragma unroll
            for (int warp = 0; warp < WARPS; warp++) {
                const uint32_t count = shared.count[warp][slot];
                shared.count[warp][slot] = at;
                at += count;
            }
        }
        begin += total[i];
    }
    if (blockIdx.x == 0 && threadIdx.x == THREADS - 1) params.slot_begin[params.slots] = begin;
    __syncthreads();
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int i = 0; i < EACH; i++)
        if (place[i].slot >= 0)
            params.order[shared.count[warp][place[i].slot] + place[i].rank] = blockIdx.x * SEGMENT +
                                                                              warp * (32 * EACH) + i * 32 + lane;
}

static uint32_t segments_of(uint32_t assignments)
{
    return assignments == 0 ? 1 : (assignments + SEGMENT - 1) / SEGMENT;
}

cot_status_t kern_cuda_sort(kern_t *kern, const kern_sort_args_t *args)
{
    if (args->slots > MOST_SLOTS || args->assignments > kern->sort_assignments)
        return cot_fail(COT_ERR_INVALID, "the cuda backend sorts at most %u assignments by %d slots, not %u by %u",
                        kern->sort_assignments, MOST_SLOTS, args->assignments, args->slots);
    const sort_params_t params = {args->slot,
                                  args->order,
                                  args->slot_begin,
                                  kern->sort_histogram,
                                  args->assignments,
                                  args->slots,
                                  segments_of(args->assignments)};
    const kern_cuda_launch launch = {dim3(params.segments), dim3(THREADS), 0, true};
    if (params.segments > 1) COT_TRY(kern_cuda_start(kern, launch, sort_count, params));
    return kern_cuda_start(kern, launch, sort_write, params);
}

cot_status_t kern_cuda_sort_create(kern_t *kern)
{
    const uint64_t own = static_cast<uint64_t>(kern->config.max_rows) * kern->config.top_k;
    const uint64_t most = own > kern->config.max_assignments ? own : kern->config.max_assignments;
    void *histogram;
    kern->sort_assignments = static_cast<uint32_t>(most);
    COT_TRY(kern_cuda_take(
        kern, static_cast<size_t>(segments_of(kern->sort_assignments)) * MOST_SLOTS * sizeof(uint32_t), &histogram));
    kern->sort_histogram = static_cast<uint32_t *>(histogram);
    return COT_OK;
}
