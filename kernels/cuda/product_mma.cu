/* Dense products for compute_80 and newer by the mma.sync core (mma_tiles.cuh): a block makes 64 outputs x 32 rows of
 * one K segment. Bytes: the weights once for every 32 rows; FLOPs: 2 K a row and output. */
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/mma_tiles.cuh"
#include "kernels/cuda/product_int.cuh"

namespace
{

using namespace kcu;

__global__ void __launch_bounds__(MMA_THREADS) product_mma(const product_params params)
{
    extern __shared__ unsigned char raw[];
    unsigned char *ring = reinterpret_cast<unsigned char *>((reinterpret_cast<uintptr_t>(raw) + 1023) &
                                                            ~uintptr_t(1023));
    uint32_t part = 0, m = blockIdx.x, units;
    for (;; part++) { /* m tiles never cross a part */
        units = params.unit_begin[part + 1] - params.unit_begin[part];
        const uint32_t tiles = (units + MMA_UNITS - 1) / MMA_UNITS;
        if (m < tiles) break;
        m -= tiles;
    }
    const uint32_t unit = m * MMA_UNITS, first = blockIdx.y * MMA_N, column = blockIdx.z * params.segment_k;
    const mma_tile job = {params.weights[part] + static_cast<size_t>(unit) * 16 * params.weights_pitch + column,
                          params.weights_pitch, 16 * min(static_cast<uint32_t>(MMA_UNITS), units - unit),
                          params.segment_k, min(static_cast<uint32_t>(MMA_N), params.rows - first)};
    const uint16_t *x_row[2];
    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t n = threadIdx.x / 8 + 16 * i;
        x_row[i] = params.x + static_cast<size_t>(first + (n < job.rows ? n : 0)) * params.x_stride + column;
    }
    grid_dependency_wait();
    float acc[MMA_N / 8][4];
    mma_multiply(ring, job, x_row, acc);
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t out_column = (params.unit_begin[part] + unit + warp) * 16 + lane / 4;
    float *out = params.out + (static_cast<uint64_t>(blockIdx.z) * params.rows + first) * params.out_stride;
    for (uint32_t i = 0; unit + warp < units && i < MMA_N / 2; i++) {
        const uint32_t n = i / 4 * 8 + 2 * (lane % 4) + i % 2, c = out_column + i / 2 % 2 * 8;
        if (n < job.rows && c < params.columns) out[static_cast<size_t>(n) * params.out_stride + c] = acc[i / 4][i % 4];
    }
}

} // namespace

cot_status_t kern_cuda_product_mma(kern_t *kern, const product_params *params)
{
    unsigned tiles = 0;
    for (uint32_t p = 0; p < params->parts; p++)
        tiles += (params->unit_begin[p + 1] - params->unit_begin[p] + MMA_UNITS - 1) / MMA_UNITS;
    const kern_cuda_launch launch = {.grid = dim3(tiles, (params->rows + MMA_N - 1) / MMA_N, params->segments),
                                     .block = MMA_THREADS,
                                     .shared_bytes = MMA_STAGES * MMA_STAGE_BYTES + 1024,
                                     .overlap = true};
    return kern_cuda_start(kern, launch, product_mma, *params);
}
