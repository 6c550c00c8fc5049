/* Instructions of sm_90: mbarrier, TMA, setmaxnreg, stmatrix, programmatic dependent launch, and the descriptors of
 * wgmma (its wrappers: wgmma.cuh). What sm_90a alone has stands behind KERN_SM90A, which device code of that target
 * defines.
 *
 * An mbarrier's phases complete in turn with parity 0, 1, 0, …; a wait names the parity of the phase that it waits for.
 * A ring of S stages keeps, for the i-th use of the ring (stage i % S), the parity (i / S) & 1: consumer: waits
 * full[stage] for that parity; producer: waits empty[stage] for the opposite one, which a fresh barrier lets pass: the
 * phase before its first is taken as completed with parity 1. */
#ifndef KERN_CUDA_HOPPER_CUH
#define KERN_CUDA_HOPPER_CUH

#include "kernels/cuda/mma.cuh"

#include <cuda.h>
#include <stdio.h>

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define KERN_SM90A 1
#endif

namespace kcu
{

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

/* Builds with KERN_CUDA_DEADLINE (nanoseconds) end a wait that takes longer with a trap and a word on stdout. */
#if defined(KERN_CUDA_DEADLINE)
struct deadline {
    uint64_t begin;
    __device__ deadline() : begin(nanoseconds())
    {
    }
    __device__ __noinline__ void check(const char *what, uint32_t which, uint32_t parity) const
    {
        if (nanoseconds() - begin < KERN_CUDA_DEADLINE) return;
        printf("block %u thread %u: %s %u (parity %u) passed its deadline\n", blockIdx.x, threadIdx.x, what, which,
               parity);
        __trap();
    }
};
#else
struct deadline {
    __device__ __forceinline__ void check(const char *, uint32_t, uint32_t) const
    {
    }
};
#endif

__device__ __forceinline__ void mbarrier_init(uint64_t *barrier, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

/* After the inits, before the barriers are used by other threads or by TMA (a __syncthreads follows). */
__device__ __forceinline__ void mbarrier_init_fence()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void mbarrier_arrive(uint64_t *barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

/* Arrives, and makes the phase wait for `bytes` more from TMA. */
__device__ __forceinline__ void mbarrier_arrive_expect(uint64_t *barrier, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ bool mbarrier_try_wait(uint64_t *barrier, uint32_t parity)
{
    uint32_t done;
    asm volatile("{\n.reg .pred p;\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, p;\n}"
                 : "=r"(done)
                 : "r"(shared_address(barrier)), "r"(parity)
                 : "memory");
    return done != 0;
}

__device__ __forceinline__ void mbarrier_wait(uint64_t *barrier, uint32_t parity)
{
    if (mbarrier_try_wait(barrier, parity)) return;
    const deadline limit;
    while (!mbarrier_try_wait(barrier, parity)) limit.check("mbarrier at", shared_address(barrier), parity);
}

/* Arrives when all cp.async of this thread so far have landed; counted among the barrier's arrivals. */
__device__ __forceinline__ void cp_async_arrive(uint64_t *barrier)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(barrier)) : "memory");
}

/* Writes of this thread to shared memory by ordinary stores (cp.async too) become visible to wgmma and TMA. */
__device__ __forceinline__ void fence_async_shared()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* ---- TMA ---- */

__device__ __forceinline__ void tma_prefetch_map(const CUtensorMap *map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/* L2 eviction policies: weights are read once, rows many times. */
__device__ __forceinline__ uint64_t policy_evict_first()
{
    uint64_t policy;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

__device__ __forceinline__ uint64_t policy_evict_normal()
{
    uint64_t policy;
    asm volatile("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

__device__ __forceinline__ uint64_t policy_evict_last()
{
    uint64_t policy;
    asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

/* The box of `map` at (x, y), x innermost, in elements, to `shared` (aligned to 128 bytes; to 1,024 under the 128 B
 * swizzle). Elements outside the tensor are zeros, and count as bytes. */
__device__ __forceinline__ void tma_load_2d(void *shared, const CUtensorMap *map, int2 at, uint64_t *barrier)
{
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
        "[%4];" ::"r"(shared_address(shared)),
        "l"(map), "r"(at.x), "r"(at.y), "r"(shared_address(barrier))
        : "memory");
}

__device__ __forceinline__ void tma_load_2d(void *shared, const CUtensorMap *map, int2 at, uint64_t *barrier,
                                            uint64_t policy)
{
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
        "[%1, {%2, %3}], [%4], %5;" ::"r"(shared_address(shared)),
        "l"(map), "r"(at.x), "r"(at.y), "r"(shared_address(barrier)), "l"(policy)
        : "memory");
}

__device__ __forceinline__ void tma_load_3d(void *shared, const CUtensorMap *map, int3 at, uint64_t *barrier)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, "
                 "%4}], [%5];" ::"r"(shared_address(shared)),
                 "l"(map), "r"(at.x), "r"(at.y), "r"(at.z), "r"(shared_address(barrier))
                 : "memory");
}

/* `bytes` (a multiple of 16) as they lie. */
__device__ __forceinline__ void tma_load_1d(void *shared, const void *global, uint32_t bytes, uint64_t *barrier)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(shared)),
                 "l"(global), "r"(bytes), "r"(shared_address(barrier))
                 : "memory");
}

/* ---- launch ---- */

/* Waits for the grids before this one in the stream to end and their writes to be visible; without the attribute
 * programmaticStreamSerialization it does nothing. */
__device__ __forceinline__ void grid_dependency_wait()
{
    asm volatile("griddepcontrol.wait;" ::: "memory");
}

/* The next grid may start as soon as all blocks have said so or ended. */
__device__ __forceinline__ void grid_dependents_launch()
{
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

/* ---- shared memory from fragments ---- */

/* An 8 x 8 matrix of b16 held as an accumulator pair (lane l: row l / 4, columns 2 (l % 4) and the next), stored
 * transposed: lane i (0-7) gives the address of what was column i. */
__device__ __forceinline__ void stmatrix_x1_trans(uint32_t address, uint32_t a)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};" ::"r"(address), "r"(a) : "memory");
}

/* Two of them; lanes 0-7 and 8-15 give the addresses. */
__device__ __forceinline__ void stmatrix_x2_trans(uint32_t address, uint32_t a, uint32_t b)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(address), "r"(a), "r"(b)
                 : "memory");
}

#else

__device__ __forceinline__ void grid_dependency_wait()
{
}
__device__ __forceinline__ void grid_dependents_launch()
{
}

#endif

#if defined(KERN_SM90A)

/* All warps of a warpgroup. REGISTERS: a multiple of 8, 24 … 256. */
template <int REGISTERS> __device__ __forceinline__ void registers_raise()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

template <int REGISTERS> __device__ __forceinline__ void registers_lower()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

/* ---- wgmma ---- */

/* A K-major operand tile under the 128 B swizzle: rows of 64 bf16 (128 bytes), 8-row groups 1,024 bytes apart, the tile
 * at a multiple of 1,024 bytes. Fields: address / 16 in bits 0-13; the leading offset (bits 16-29) is not used with a
 * swizzle; the stride between 8-row groups / 16 in bits 32-45; swizzle 128 B = 1 in bits 62-63. The next 16 columns of
 * K begin 32 bytes on: add 2. The hardware applies the XOR to the address it computes, so a start inside the row is
 * right. */
__device__ __forceinline__ uint64_t wgmma_descriptor(uint32_t shared)
{
    return (uint64_t)((shared & 0x3ffffU) >> 4) | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

/* Registers of the accumulators and of A are ready: before the first wgmma of a chain. */
__device__ __forceinline__ void wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Waits until at most PENDING groups are under way; the accumulators of those may not be read. */
template <int PENDING> __device__ __forceinline__ void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

#endif

} // namespace kcu

#endif
