/* Instructions of compute_80 and newer: mma.sync, ldmatrix, cp.async, movmatrix. Fragments of m16n8k16 (lane l, g = l /
 * 4, t = l % 4): A [16 x 16] a0: row g,   columns 2t, 2t+1    a1: row g+8, columns 2t, 2t+1 a2: row g,   columns 2t+8,
 * 2t+9  a3: row g+8, columns 2t+8, 2t+9 B [16 x 8]  b0: column g, k 2t, 2t+1         b1: column g, k 2t+8, 2t+9      (B
 * stored [n][k]: a plain ldmatrix) C [16 x 8]  c0, c1: row g, columns 2t, 2t+1  c2, c3: row g+8, the same columns
 */
#ifndef KERN_CUDA_MMA_CUH
#define KERN_CUDA_MMA_CUH

#include <stdint.h>

namespace kcu
{

__device__ __forceinline__ uint32_t shared_address(const void *shared)
{
    return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

/* Byte offset of 16-byte chunk `chunk` (0-7) of row `row` in a tile whose rows are 128 bytes, under TMA's 128 B
 * swizzle: address bits 4-6 are XORed with bits 7-9. The tile begins at a multiple of 1,024 bytes. */
__device__ __forceinline__ uint32_t swizzle_128(uint32_t row, uint32_t chunk)
{
    return row * 128 + ((chunk ^ (row & 7)) << 4);
}

/* c += a b, fp32 accumulation. */
__device__ __forceinline__ void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Four 8 x 8 matrices; lane l gives the address of row l % 8 of matrix l / 8. */
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&d)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(address)
                 : "memory");
}

__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&d)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(address)
                 : "memory");
}

/* Two matrices; lanes 0-15 give the addresses. */
__device__ __forceinline__ void ldmatrix_x2(uint32_t (&d)[2], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(d[0]), "=r"(d[1])
                 : "r"(address)
                 : "memory");
}

/* An 8 x 8 matrix of b16 (lane l: row l / 4, columns 2 (l % 4) and the next) transposed between the lanes. */
__device__ __forceinline__ uint32_t movmatrix_trans(uint32_t a)
{
    uint32_t d;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(d) : "r"(a));
    return d;
}

/* 16 bytes from global to shared memory past L1; with `valid` false, 16 zero bytes and no read. */
__device__ __forceinline__ void cp_async_16(uint32_t shared, const void *global, bool valid)
{
    const uint32_t bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(bytes) : "memory");
}

__device__ __forceinline__ void cp_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Waits until at most PENDING groups of this thread are still under way. */
template <int PENDING> __device__ __forceinline__ void cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

/* A barrier of `threads` threads (whole warps) among the block's 16; 0 is __syncthreads. */
__device__ __forceinline__ void named_barrier(uint32_t id, uint32_t threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

__device__ __forceinline__ uint64_t nanoseconds()
{
    uint64_t now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return now;
}

/* Read and write of a cell that other blocks read and write. */
__device__ __forceinline__ uint64_t load_acquire(const uint64_t *cell)
{
    uint64_t value;
    asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(cell) : "memory");
    return value;
}

} // namespace kcu

#endif
