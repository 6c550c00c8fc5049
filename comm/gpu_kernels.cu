/* The kernels of the exchange between GPUs.
 *
 * Bytes: a dispatch stores tokens x row_bytes to each rank (GATHER) or the rows it needs (SIZED), a return row_bytes
 * for each (token, k) whose expert is elsewhere. Every store is 16 bytes a thread, neighbours beside each other, sent
 * to the peers in the order me + 1, me + 2, …, so that no rank is everybody's first.
 *
 * The end of an exchange: each block counts itself in (acquire and release at GPU scope, after a barrier of the block);
 * the last one, which has thereby observed all blocks' stores, raises our flag at every peer (release at system scope,
 * which covers what it has observed) and then waits, a lane for each peer, for theirs (acquire) until a deadline by
 * %globaltimer. A kernel that is done has therefore received everything. Epochs count exchanges on the device, so a
 * captured graph can be replayed. What the host may read is written at the start of a kernel, so that no kernel's end
 * waits for the PCIe bus. */
#include "comm/gpu_int.h"

#include <cstdint>

namespace
{

constexpr unsigned THREADS = 512;
constexpr unsigned PLAN_THREADS = 1024;
constexpr int UNROLL = 4;

__device__ inline comm_gpu_control_t *control_of(const comm_gpu_kernel_t &kernel, uint32_t rank)
{
    return reinterpret_cast<comm_gpu_control_t *>(kernel.base[rank]);
}

__device__ inline uint64_t now_ns()
{
    uint64_t ns;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns));
    return ns;
}

__device__ inline void store_release(uint32_t *address, uint32_t value)
{
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
}

__device__ inline uint32_t load_acquire(const uint32_t *address)
{
    uint32_t value;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
    return value;
}

/* Lets the stream's next kernel take its place on the multiprocessors (it waits here, too), and waits until all earlier
 * work of the stream is done and visible: nothing below may touch a peer before. */
__device__ inline void wait_for_stream()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ inline uint32_t add_acquire_release(uint32_t *address, uint32_t value)
{
    uint32_t before;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;" : "=r"(before) : "l"(address), "r"(value) : "memory");
    return before;
}

__device__ inline bool aborted(const comm_gpu_kernel_t &kernel)
{
    return *reinterpret_cast<const volatile uint32_t *>(&control_of(kernel, kernel.me)->aborted) != 0;
}

__device__ void report(const comm_gpu_kernel_t &kernel, comm_gpu_phase_t phase, uint32_t silent_rank)
{
    volatile comm_gpu_cell_t *cell = kernel.cell;
    control_of(kernel, kernel.me)->aborted = 1;
    cell->failed_phase = phase;
    cell->failed_layer = kernel.layer;
    cell->silent_rank = silent_rank;
    __threadfence_system();
    cell->failed = 1;
}

/* Tells the host where we are. By one thread, at a kernel's start. */
__device__ void mark(const comm_gpu_kernel_t &kernel, comm_gpu_phase_t phase, uint32_t begun)
{
    volatile comm_gpu_cell_t *cell = kernel.cell;
    cell->phase = phase;
    cell->layer = kernel.layer;
    cell->progress = begun;
}

__device__ inline void begin(const comm_gpu_kernel_t &kernel, comm_gpu_phase_t phase)
{
    const comm_gpu_control_t *own = control_of(kernel, kernel.me);
    if (blockIdx.x == 0 && threadIdx.x == 0)
        mark(kernel, phase, own->epoch[COMM_GPU_DISPATCH] + own->epoch[COMM_GPU_RETURN] + 1);
}

/* One warp: raises our flag at the peers, waits for theirs. */
__device__ void meet(const comm_gpu_kernel_t &kernel, comm_gpu_phase_t phase)
{
    constexpr uint32_t LOOKS = 64; /* between two looks at the clock */
    comm_gpu_control_t *own = control_of(kernel, kernel.me);
    const uint32_t lane = threadIdx.x % 32, epoch = own->epoch[phase] + 1;
    for (uint32_t rank = lane; rank < kernel.ranks; rank += 32)
        if (rank != kernel.me) store_release(&control_of(kernel, rank)->flag[phase][kernel.me].epoch, epoch);
    const uint64_t deadline = now_ns() + static_cast<uint64_t>(kernel.timeout_ns);
    for (uint32_t rank = lane; rank < kernel.ranks; rank += 32) {
        if (rank == kernel.me) continue;
        for (uint32_t look = 0; static_cast<int32_t>(load_acquire(&own->flag[phase][rank].epoch) - epoch) < 0; look++) {
            if (look % LOOKS != LOOKS - 1 || now_ns() < deadline) continue;
            report(kernel, phase, rank);
            break;
        }
    }
    __syncwarp();
    if (lane != 0) return;
    own->epoch[phase] = epoch;
    own->blocks_in[phase] = 0;
}

/* After this block's stores: the last block to come here meets the peers. */
__device__ void finish(const comm_gpu_kernel_t &kernel, comm_gpu_phase_t phase)
{
    __shared__ bool last;
    __syncthreads();
    if (threadIdx.x == 0)
        last = add_acquire_release(&control_of(kernel, kernel.me)->blocks_in[phase], 1) == gridDim.x - 1;
    __syncthreads();
    if (last && threadIdx.x < 32) meet(kernel, phase);
}

/* A warp copies one row: all its loads are in flight before the first store. */
__device__ inline void copy_row(uint4 *__restrict__ to, const uint4 *__restrict__ from, uint32_t vectors)
{
    constexpr uint32_t PIECES = 8;
    for (uint32_t first = threadIdx.x % 32; first < vectors; first += 32 * PIECES) {
        uint4 piece[PIECES];
#pragma unroll
        for (uint32_t p = 0; p < PIECES; p++)
            if (first + 32 * p < vectors) piece[p] = from[first + 32 * p];
#pragma unroll
        for (uint32_t p = 0; p < PIECES; p++)
            if (first + 32 * p < vectors) to[first + 32 * p] = piece[p];
    }
}

/* ---- dispatch, GATHER ---- */

struct push_t {
    comm_gpu_kernel_t kernel;
    const uint4 *rows;
    const int32_t *expert;
    const comm_gpu_place_t *place;
};

__device__ inline int32_t *slots_of(const comm_gpu_kernel_t &kernel, uint32_t rank)
{
    return reinterpret_cast<int32_t *>(kernel.base[rank] + kernel.layout.slots) +
           static_cast<size_t>(kernel.me) * kernel.tokens * kernel.top_k;
}

__device__ inline uint4 *rows_of(const comm_gpu_kernel_t &kernel, uint32_t rank)
{
    return reinterpret_cast<uint4 *>(kernel.base[rank] + kernel.layout.rows) +
           static_cast<size_t>(kernel.me) * kernel.tokens * kernel.row_vectors;
}

/* Loads come before the look at `aborted`, rows before slots: a small exchange is a chain of latencies. */
__global__ void __launch_bounds__(THREADS) push_rows(const __grid_constant__ push_t push)
{
    const comm_gpu_kernel_t &kernel = push.kernel;
    wait_for_stream();
    const bool dead = aborted(kernel);
    const size_t threads = static_cast<size_t>(gridDim.x) * THREADS, thread = blockIdx.x * THREADS + threadIdx.x;
    const size_t vectors = static_cast<size_t>(kernel.tokens) * kernel.row_vectors;
    const size_t pairs = static_cast<size_t>(kernel.tokens) * kernel.top_k;
    int32_t expert = thread < pairs ? push.expert[thread] : -1;
    const bool copy_own = push.rows != rows_of(kernel, kernel.me);
    begin(kernel, COMM_GPU_DISPATCH);
    for (size_t first = thread; first < vectors; first += UNROLL * threads) {
        uint4 piece[UNROLL];
#pragma unroll
        for (int u = 0; u < UNROLL; u++)
            if (first + u * threads < vectors) piece[u] = push.rows[first + u * threads];
        if (dead) return;
        for (uint32_t step = copy_own ? 0 : 1; step < kernel.ranks; step++) {
            uint4 *to = rows_of(kernel, (kernel.me + step) % kernel.ranks);
#pragma unroll
            for (int u = 0; u < UNROLL; u++)
                if (first + u * threads < vectors) to[first + u * threads] = piece[u];
        }
    }
    if (dead) return;
    for (size_t i = thread; i < pairs; i += threads, expert = i < pairs ? push.expert[i] : -1) {
        const comm_gpu_place_t place = expert < 0 ? comm_gpu_place_t{-1, -1} : push.place[expert];
        for (uint32_t rank = 0; rank < kernel.ranks; rank++)
            slots_of(kernel, rank)[i] = place.rank == static_cast<int>(rank) ? place.slot : -1;
    }
    finish(kernel, COMM_GPU_DISPATCH);
}

/* ---- dispatch, SIZED ---- */

/* One block, all tokens in chunks of its threads: for each rank the places of its tokens, in token order. A thread owns
 * a token; a warp's needs are counted by ballot, the warps' by a scan through shared memory. */
__global__ void __launch_bounds__(PLAN_THREADS) plan_places(const __grid_constant__ push_t push)
{
    constexpr uint32_t WARPS = PLAN_THREADS / 32;
    const comm_gpu_kernel_t &kernel = push.kernel;
    __shared__ uint32_t counted[WARPS], taken;
    wait_for_stream();
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (uint32_t rank = 0; rank < kernel.ranks; rank++) {
        if (threadIdx.x == 0) taken = 0;
        for (uint32_t first = 0; first < kernel.tokens; first += PLAN_THREADS) {
            const uint32_t token = first + threadIdx.x;
            bool needed = false;
            for (uint32_t k = 0; token < kernel.tokens && k < kernel.top_k; k++) {
                const int32_t expert = push.expert[static_cast<size_t>(token) * kernel.top_k + k];
                needed |= expert >= 0 && push.place[expert].rank == static_cast<int>(rank);
            }
            const uint32_t ballot = __ballot_sync(0xffffffffU, needed);
            if (lane == 0) counted[warp] = __popc(ballot);
            __syncthreads();
            uint32_t before = taken + __popc(ballot & ((1U << lane) - 1));
            for (uint32_t w = 0; w < warp; w++) before += counted[w];
            if (token < kernel.tokens)
                kernel.place_of[static_cast<size_t>(rank) * kernel.tokens + token] = needed
                                                                                         ? static_cast<int32_t>(before)
                                                                                         : -1;
            __syncthreads();
            if (threadIdx.x == PLAN_THREADS - 1) taken = before + (needed ? 1 : 0);
            __syncthreads();
        }
        if (threadIdx.x == 0)
            kernel.place_of[static_cast<size_t>(kernel.ranks) * kernel.tokens + rank] = static_cast<int32_t>(taken);
        __syncthreads();
    }
}

__device__ inline int32_t *token_of(const comm_gpu_kernel_t &kernel, uint32_t at, uint32_t source)
{
    return reinterpret_cast<int32_t *>(kernel.base[at] + kernel.layout.token) +
           static_cast<size_t>(source) * kernel.tokens;
}

/* A warp for each (token, rank): the row, its slots and its token to the place that plan_places chose; and places past
 * the last are marked empty. */
__global__ void __launch_bounds__(THREADS) push_needed(const __grid_constant__ push_t push)
{
    const comm_gpu_kernel_t &kernel = push.kernel;
    wait_for_stream();
    if (aborted(kernel)) return;
    begin(kernel, COMM_GPU_DISPATCH);
    const uint32_t lane = threadIdx.x % 32, warps = gridDim.x * (THREADS / 32);
    const int32_t *count = kernel.place_of + static_cast<size_t>(kernel.ranks) * kernel.tokens;
    for (uint32_t i = (blockIdx.x * THREADS + threadIdx.x) / 32; i < kernel.tokens * kernel.ranks; i += warps) {
        const uint32_t rank = (kernel.me + 1 + i % kernel.ranks) % kernel.ranks, token = i / kernel.ranks;
        if (token >= static_cast<uint32_t>(count[rank])) { /* as a place: past the last */
            if (lane == 0) token_of(kernel, rank, kernel.me)[token] = -1;
            for (uint32_t k = lane; k < kernel.top_k; k += 32)
                slots_of(kernel, rank)[static_cast<size_t>(token) * kernel.top_k + k] = -1;
        }
        const int32_t at = kernel.place_of[static_cast<size_t>(rank) * kernel.tokens + token];
        if (at < 0) continue;
        if (lane == 0) token_of(kernel, rank, kernel.me)[at] = static_cast<int32_t>(token);
        for (uint32_t k = lane; k < kernel.top_k; k += 32) {
            const int32_t expert = push.expert[static_cast<size_t>(token) * kernel.top_k + k];
            const comm_gpu_place_t place = expert < 0 ? comm_gpu_place_t{-1, -1} : push.place[expert];
            slots_of(kernel, rank)[static_cast<size_t>(at) * kernel.top_k + k] = place.rank == static_cast<int>(rank)
                                                                                     ? place.slot
                                                                                     : -1;
        }
        copy_row(rows_of(kernel, rank) + static_cast<size_t>(at) * kernel.row_vectors,
                 push.rows + static_cast<size_t>(token) * kernel.row_vectors, kernel.row_vectors);
    }
    finish(kernel, COMM_GPU_DISPATCH);
}

/* ---- return ---- */

struct give_t {
    comm_gpu_kernel_t kernel;
    const uint4 *outputs; /* [ranks, tokens, top_k] rows; NULL: they are at home already */
    bool sized;
};

/* A warp for each place (source, place, k) of our slab that has a slot. */
__global__ void __launch_bounds__(THREADS) push_outputs(const __grid_constant__ give_t give)
{
    const comm_gpu_kernel_t &kernel = give.kernel;
    wait_for_stream();
    const bool dead = aborted(kernel);
    begin(kernel, COMM_GPU_RETURN);
    const uint32_t warps = gridDim.x * (THREADS / 32);
    const uint32_t of_source = kernel.tokens * kernel.top_k, all = of_source * kernel.ranks;
    const int32_t *slots = reinterpret_cast<const int32_t *>(kernel.base[kernel.me] + kernel.layout.slots);
    for (uint32_t i = (blockIdx.x * THREADS + threadIdx.x) / 32; give.outputs != nullptr && i < all; i += warps) {
        const uint32_t source = (kernel.me + 1 + i / of_source) % kernel.ranks, place_k = i % of_source;
        const size_t from = static_cast<size_t>(source) * of_source + place_k;
        if (slots[from] < 0 || dead) continue;
        uint32_t home = place_k;
        if (give.sized)
            home = static_cast<uint32_t>(token_of(kernel, kernel.me, source)[place_k / kernel.top_k]) * kernel.top_k +
                   place_k % kernel.top_k;
        copy_row(reinterpret_cast<uint4 *>(kernel.base[source] + kernel.layout.home) +
                     static_cast<size_t>(home) * kernel.row_vectors,
                 give.outputs + from * kernel.row_vectors, kernel.row_vectors);
    }
    if (dead) return;
    finish(kernel, COMM_GPU_RETURN);
}

/* ---- around NCCL ---- */

__global__ void __launch_bounds__(THREADS) fill_slots(const __grid_constant__ push_t push, int32_t *slots_out)
{
    const comm_gpu_kernel_t &kernel = push.kernel;
    const size_t pairs = static_cast<size_t>(kernel.tokens) * kernel.top_k;
    for (size_t i = blockIdx.x * THREADS + threadIdx.x; i < pairs; i += static_cast<size_t>(gridDim.x) * THREADS) {
        const int32_t expert = push.expert[i];
        const comm_gpu_place_t place = expert < 0 ? comm_gpu_place_t{-1, -1} : push.place[expert];
        for (uint32_t rank = 0; rank < kernel.ranks; rank++)
            slots_out[rank * pairs + i] = place.rank == static_cast<int>(rank) ? place.slot : -1;
    }
    if (blockIdx.x == 0 && threadIdx.x == 0)
        mark(kernel, COMM_GPU_DISPATCH, ++control_of(kernel, kernel.me)->epoch[COMM_GPU_DISPATCH]);
}

__global__ void __launch_bounds__(THREADS)
    pick_home(const __grid_constant__ push_t push, const uint4 *outputs, const uint4 *staged)
{
    const comm_gpu_kernel_t &kernel = push.kernel;
    const size_t pairs = static_cast<size_t>(kernel.tokens) * kernel.top_k, warps = gridDim.x * (THREADS / 32);
    uint4 *home = reinterpret_cast<uint4 *>(kernel.base[kernel.me] + kernel.layout.home);
    for (size_t i = (blockIdx.x * THREADS + threadIdx.x) / 32; i < pairs; i += warps) {
        const int32_t expert = push.expert[i];
        if (expert < 0) continue;
        const uint32_t rank = static_cast<uint32_t>(push.place[expert].rank);
        copy_row(home + i * kernel.row_vectors,
                 (rank == kernel.me ? outputs : staged) + (rank * pairs + i) * kernel.row_vectors, kernel.row_vectors);
    }
}

__global__ void mark_progress(const __grid_constant__ comm_gpu_kernel_t kernel, comm_gpu_phase_t phase)
{
    mark(kernel, phase, ++control_of(kernel, kernel.me)->epoch[COMM_GPU_DISPATCH]);
}

/* ---- launching ---- */

/* Enough blocks for `pieces` units of a block, at most one a multiprocessor of the largest GPUs: all blocks are in at
 * once, whatever else runs, so the last one never waits for one that has not begun. */
unsigned blocks_for(size_t pieces, size_t of_block)
{
    const size_t blocks = (pieces + of_block - 1) / of_block;
    return static_cast<unsigned>(blocks < 1 ? 1 : blocks > 128 ? 128 : blocks);
}

struct launch_t {
    unsigned blocks, threads;
    void *stream;
    bool overlap;
};

/* With `overlap` as a programmatic dependent of the kernel before, which it waits for before it does anything. */
template <typename... Parameters>
cot_status_t launch(const launch_t &how, void (*kernel)(Parameters...), Parameters... parameters)
{
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(how.blocks);
    config.blockDim = dim3(how.threads);
    config.stream = static_cast<cudaStream_t>(how.stream);
    config.attrs = &attribute;
    config.numAttrs = how.overlap ? 1 : 0;
    return comm_gpu_cuda(cudaLaunchKernelEx(&config, kernel, parameters...), "launch an exchange");
}

push_t push_of(const comm_gpu_kernel_t *kernel, const comm_gpu_dispatch_args_t *args)
{
    return {*kernel, static_cast<const uint4 *>(args->rows), args->expert, args->place};
}

} // namespace

cot_status_t comm_gpu_can_overlap(bool *can_out)
{
    cudaFuncAttributes attributes;
    COT_TRY(comm_gpu_cuda(cudaFuncGetAttributes(&attributes, push_rows), "look at the exchange's kernels"));
    *can_out = attributes.ptxVersion >= 90;
    return COT_OK;
}

cot_status_t comm_gpu_push_rows(const comm_gpu_kernel_t *kernel, const comm_gpu_dispatch_args_t *args, bool sized)
{
    const push_t push = push_of(kernel, args);
    const size_t vectors = static_cast<size_t>(kernel->tokens) * kernel->row_vectors;
    if (!sized) return launch({blocks_for(vectors, THREADS), THREADS, args->stream, kernel->overlap}, push_rows, push);
    COT_TRY(launch({1, PLAN_THREADS, args->stream, kernel->overlap}, plan_places, push));
    const size_t pairs = static_cast<size_t>(kernel->tokens) * kernel->ranks;
    return launch({blocks_for(pairs, THREADS / 32), THREADS, args->stream, kernel->overlap}, push_needed, push);
}

cot_status_t comm_gpu_push_outputs(const comm_gpu_kernel_t *kernel, const comm_gpu_return_args_t *args, bool sized)
{
    const give_t give = {*kernel, static_cast<const uint4 *>(args->outputs), sized};
    const size_t places = static_cast<size_t>(kernel->ranks) * kernel->tokens * kernel->top_k;
    const unsigned blocks = args->outputs == nullptr ? 1 : blocks_for(places, THREADS / 32);
    return launch({blocks, args->outputs == nullptr ? 32 : THREADS, args->stream, kernel->overlap}, push_outputs, give);
}

cot_status_t comm_gpu_fill_slots(const comm_gpu_kernel_t *kernel, const comm_gpu_dispatch_args_t *args,
                                 int32_t *slots_out)
{
    const size_t pairs = static_cast<size_t>(kernel->tokens) * kernel->top_k;
    fill_slots<<<blocks_for(pairs, THREADS), THREADS, 0, static_cast<cudaStream_t>(args->stream)>>>(
        push_of(kernel, args), slots_out);
    return comm_gpu_cuda(cudaGetLastError(), "launch an exchange");
}

cot_status_t comm_gpu_pick_home(const comm_gpu_kernel_t *kernel, const comm_gpu_return_args_t *args,
                                const uint8_t *staged)
{
    const push_t push = {*kernel, nullptr, args->expert, args->place};
    const size_t pairs = static_cast<size_t>(kernel->tokens) * kernel->top_k;
    pick_home<<<blocks_for(pairs, THREADS / 32), THREADS, 0, static_cast<cudaStream_t>(args->stream)>>>(
        push, static_cast<const uint4 *>(args->outputs), reinterpret_cast<const uint4 *>(staged));
    return comm_gpu_cuda(cudaGetLastError(), "launch an exchange");
}

cot_status_t comm_gpu_mark(const comm_gpu_kernel_t *kernel, comm_gpu_phase_t phase, void *stream)
{
    mark_progress<<<1, 1, 0, static_cast<cudaStream_t>(stream)>>>(*kernel, phase);
    return comm_gpu_cuda(cudaGetLastError(), "launch an exchange");
}
