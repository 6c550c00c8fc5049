/* The core of the products for compute_80 and newer: weights on M, rows on N, mma.sync m16n8k16 out of a ring of
 * cp.async stages. A block of four warps makes 64 weight rows (a warp one unit of 16) times up to 32 rows of x; a stage
 * holds 64 columns of K of both under the 128 B swizzle, 12 KB. One accumulator an output, K ascending: the bits of
 * tiles.cuh. */
#ifndef KERN_CUDA_MMA_TILES_CUH
#define KERN_CUDA_MMA_TILES_CUH

#include "kernels/cuda/arith.cuh"
#include "kernels/cuda/mma.cuh"

namespace kcu
{

constexpr int MMA_THREADS = 128, MMA_UNITS = 4, MMA_M = 64, MMA_N = 32, MMA_STAGES = 4;
constexpr int MMA_A_BYTES = MMA_M * 128, MMA_STAGE_BYTES = MMA_A_BYTES + MMA_N * 128;

struct mma_tile {
    const uint16_t *weights;              /* first of the tile's rows, at its first column of K */
    uint32_t weights_pitch, weights_rows; /* elements; rows that are there, up to 64 */
    uint32_t k;                           /* columns, a multiple of 8: the rest up to 64 is taken as zeros */
    uint32_t rows;                        /* of x, up to 32 */
};

/* x_row[i], i = 0, 1: row thread / 8 + 16 i of x at the tile's first column of K; any pointer where there is none. */
__device__ __forceinline__ void mma_load(unsigned char *stage, const mma_tile &tile, const uint16_t *const (&x_row)[2],
                                         uint32_t k)
{
    const uint32_t row = threadIdx.x / 8, chunk = threadIdx.x % 8, column = k + 8 * chunk;
    const bool inside = column < tile.k;
    const uint32_t a = shared_address(stage), b = a + MMA_A_BYTES;
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t r = row + 16 * i;
        const bool valid = inside && r < tile.weights_rows;
        cp_async_16(a + swizzle_128(r, chunk),
                    valid ? tile.weights + static_cast<size_t>(r) * tile.weights_pitch + column : tile.weights, valid);
    }
#pragma unroll
    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t r = row + 16 * i;
        const bool valid = inside && r < tile.rows;
        cp_async_16(b + swizzle_128(r, chunk), valid ? x_row[i] + column : x_row[0], valid);
    }
}

__device__ __forceinline__ void mma_stage(const unsigned char *stage, uint32_t rows, float (&acc)[MMA_N / 8][4])
{
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t a = shared_address(stage), b = a + MMA_A_BYTES;
#pragma unroll
    for (uint32_t k = 0; k < 4; k++) {
        uint32_t weights[4];
        ldmatrix_x4(weights, a + swizzle_128(16 * warp + lane % 16, 2 * k + lane / 16));
#pragma unroll
        for (uint32_t j = 0; j < MMA_N / 8; j++) {
            if (8 * j >= rows) break;
            uint32_t x[2];
            ldmatrix_x2(x, b + swizzle_128(8 * j + lane % 8, 2 * k + lane / 8 % 2));
            mma_bf16(acc[j], weights, x);
        }
    }
}

/* The whole tile; all threads of the block. `ring` [MMA_STAGES][MMA_STAGE_BYTES], 1,024-byte aligned. */
__device__ __forceinline__ void mma_multiply(unsigned char *ring, const mma_tile &tile,
                                             const uint16_t *const (&x_row)[2], float (&acc)[MMA_N / 8][4])
{
    const uint32_t stages = (tile.k + 63) / 64;
    for (auto &column : acc)
        for (float &c : column) c = 0;
    for (uint32_t s = 0; s < MMA_STAGES - 1; s++) {
        if (s < stages) mma_load(ring + s * MMA_STAGE_BYTES, tile, x_row, 64 * s);
        cp_async_commit();
    }
    for (uint32_t s = 0; s < stages; s++) {
        cp_async_wait<MMA_STAGES - 2>();
        __syncthreads(); /* stage s has landed, and everyone is done with stage s - 1 */
        const uint32_t ahead = s + MMA_STAGES - 1;
        if (ahead < stages) mma_load(ring + ahead % MMA_STAGES * MMA_STAGE_BYTES, tile, x_row, 64 * ahead);
        cp_async_commit();
        mma_stage(ring + s % MMA_STAGES * MMA_STAGE_BYTES, tile.rows, acc);
    }
    cp_async_wait<0>();
    __syncthreads(); /* before the next tile's loads */
}

} // namespace kcu

#endif
