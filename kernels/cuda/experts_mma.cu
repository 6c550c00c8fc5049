/* experts for compute_80 and newer: two launches, gate/up with SwiGLU and down, of the mma.sync core (mma_tiles.cuh). A
 * block takes tiles of 64 weight rows x 32 rows of one expert, numbered over the experts that have rows, in turns.
 * Bytes: active weights once for every 32 rows; FLOPs: 6 H I a row. */
#include "kernels/cuda/experts_int.cuh"
#include "kernels/cuda/mma_tiles.cuh"

namespace
{

using namespace kcu;

struct shared_t {
    alignas(1024) unsigned char ring[MMA_STAGES][MMA_STAGE_BYTES];
    uint32_t begin[KERN_BANK_MAX_SLOTS + 1];
    uint32_t tiles[KERN_BANK_MAX_SLOTS + 1]; /* n tiles of the slots before */
};

__device__ void count_tiles(shared_t &shared, const experts_params &params)
{
    for (uint32_t s = threadIdx.x; s <= params.slots; s += MMA_THREADS) shared.begin[s] = params.slot_begin[s];
    __syncthreads();
    if (threadIdx.x == 0) {
        uint32_t tiles = 0;
        for (uint32_t s = 0; s < params.slots; s++) {
            shared.tiles[s] = tiles;
            tiles += (shared.begin[s + 1] - shared.begin[s] + MMA_N - 1) / MMA_N;
        }
        shared.tiles[params.slots] = tiles;
    }
    __syncthreads();
}

/* acc of a warp's unit, columns 8j …: to rows first + 8j + lane / 4 by a transpose between the lanes. */
template <bool GATED>
__device__ void store_unit(const float (&acc)[MMA_N / 8][4], const experts_params &params, uint3 at)
{
    const uint32_t lane = threadIdx.x % 32, first = at.x, rows = at.y, unit = at.z;
    for (uint32_t j = 0; j < MMA_N / 8; j++) {
        const uint32_t n = 8 * j + lane / 4;
        const float *c = acc[j];
        if (GATED) {
            const uint32_t h = movmatrix_trans(pack_bf16(swiglu(c[0], c[2]), swiglu(c[1], c[3])));
            uint16_t *to = params.middle + static_cast<size_t>(first + n) * params.width + 8 * unit + 2 * (lane % 4);
            if (n < rows) *reinterpret_cast<uint32_t *>(to) = h;
        } else {
            const uint32_t low = movmatrix_trans(pack_bf16(c[0], c[1])), high = movmatrix_trans(pack_bf16(c[2], c[3]));
            if (n >= rows) continue;
            uint32_t row = params.order[first + n];
            uint16_t *to = params.y;
            if (params.y_base != nullptr) {
                to = static_cast<uint16_t *>(params.y_base[row / params.per_base]);
                row %= params.per_base;
            }
            to += static_cast<size_t>(row) * params.hidden + 16 * unit + 2 * (lane % 4);
            *reinterpret_cast<uint32_t *>(to) = low;
            *reinterpret_cast<uint32_t *>(to + 8) = high;
        }
    }
}

template <bool GATED>
__global__ void __launch_bounds__(MMA_THREADS) experts_mma(const uint16_t *weights, const experts_params params)
{
    extern __shared__ unsigned char raw[];
    shared_t &shared = *reinterpret_cast<shared_t *>((reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t(1023));
    const uint32_t k = GATED ? params.hidden : params.width, units = GATED ? params.width / 8 : params.hidden / 16;
    const uint32_t m_tiles = (units + MMA_UNITS - 1) / MMA_UNITS, warp = threadIdx.x / 32;
    count_tiles(shared, params);
    uint32_t slot = 0;
    for (uint32_t tile = blockIdx.x; tile < shared.tiles[params.slots] * m_tiles; tile += gridDim.x) {
        while (tile >= shared.tiles[slot + 1] * m_tiles) slot++;
        const uint32_t within = tile - shared.tiles[slot] * m_tiles,
                       n_tiles = shared.tiles[slot + 1] - shared.tiles[slot];
        const uint32_t unit = within / n_tiles * MMA_UNITS, first = shared.begin[slot] + within % n_tiles * MMA_N;
        const mma_tile job = {weights + (static_cast<size_t>(slot) * units + unit) * 16 * k, k,
                              16 * min(static_cast<uint32_t>(MMA_UNITS), units - unit), k,
                              min(static_cast<uint32_t>(MMA_N), shared.begin[slot + 1] - first)};
        const uint16_t *x_row[2];
        for (uint32_t i = 0; i < 2; i++) {
            const uint32_t n = threadIdx.x / 8 + 16 * i, at = first + (n < job.rows ? n : 0);
            x_row[i] = GATED ? params.x + static_cast<size_t>(params.row[params.order[at]]) * k
                             : params.middle + static_cast<size_t>(at) * k;
        }
        float acc[MMA_N / 8][4];
        mma_multiply(shared.ring[0], job, x_row, acc);
        if (unit + warp < units) store_unit<GATED>(acc, params, make_uint3(first, job.rows, unit + warp));
    }
}

} // namespace

cot_status_t kern_cuda_experts_mma(kern_t *kern, const kern_bank_t *bank, const experts_params *params)
{
    const kern_cuda_launch launch = {.grid = static_cast<unsigned>(kern->sms * 3),
                                     .block = MMA_THREADS,
                                     .shared_bytes = sizeof(shared_t) + 1024,
                                     .overlap = false};
    COT_TRY(kern_cuda_start(kern, launch, experts_mma<true>, bank->gate_up, *params));
    return kern_cuda_start(kern, launch, experts_mma<false>, bank->down, *params);
}
