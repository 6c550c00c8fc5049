/* Stage `blocks`: the building blocks alone, so that a failure names itself. One warpgroup multiplies A [64 x 512] by
 * B [N x 512]^T out of a ring of two stages that a fifth warp fills by TMA (boxes of 16 rows x 64 columns, 128 B
 * swizzle), once with wgmma, A from shared memory and from registers, once with mma.sync; the swizzle is read back by
 * hand. */
#include "kernels/cuda/arith.cuh"
#include "kernels/cuda/wgmma.cuh"
#include "kernels/lab/lab.cuh"

#include <math.h>
#include <vector>

enum { DEPTH = 512, STAGES = 2, A_BYTES = 64 * 128 };

struct block_out {
    float *ss, *rs, *mma; /* [64][N] */
    uint32_t *swizzle;    /* number of chunks of A's first tile that are not where swizzle_128 says */
    uint16_t *transposed; /* [8][64]: the first 8 columns of ss, rounded, by stmatrix */
};

#if defined(KERN_SM90A)

template <int N> struct block_ring {
    alignas(1024) unsigned char a[STAGES][A_BYTES];
    alignas(1024) unsigned char b[STAGES][(N + 15) / 16 * 16 * 128];
    alignas(16) uint16_t staged[8][64 + 8];
    uint64_t full[STAGES], empty[STAGES];
};

template <int N> __device__ void produce(block_ring<N> &ring, const CUtensorMap *a, const CUtensorMap *b)
{
    constexpr int ROWS = (N + 15) / 16 * 16;
    for (uint32_t i = 0; i < DEPTH / 64; i++) {
        const uint32_t stage = i % STAGES, parity = i / STAGES & 1;
        kcu::mbarrier_wait(&ring.empty[stage], parity ^ 1);
        kcu::mbarrier_arrive_expect(&ring.full[stage], A_BYTES + ROWS * 128);
        for (int r = 0; r < 64; r += 16)
            kcu::tma_load_2d(ring.a[stage] + r * 128, a, make_int2(static_cast<int>(i * 64), r), &ring.full[stage]);
        for (int r = 0; r < ROWS; r += 16)
            kcu::tma_load_2d(ring.b[stage] + r * 128, b, make_int2(static_cast<int>(i * 64), r), &ring.full[stage]);
    }
}

/* One k16 step of mma.sync: warp w takes rows 16w … of A, all N columns. */
template <int N>
__device__ void step_mma(const unsigned char *a, const unsigned char *b, uint32_t k16, float (&acc)[N / 8][4])
{
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint32_t fragment[4];
    kcu::ldmatrix_x4(fragment, kcu::shared_address(a) + kcu::swizzle_128(16 * warp + lane % 16, 2 * k16 + lane / 16));
    for (int j = 0; j < N / 8; j++) {
        uint32_t columns[2];
        kcu::ldmatrix_x2(columns, kcu::shared_address(b) + kcu::swizzle_128(8 * j + lane % 8, 2 * k16 + lane / 8 % 2));
        kcu::mma_bf16(acc[j], fragment, columns);
    }
}

template <int N> __device__ void store(float *out, const float (&acc)[N / 2])
{
    const uint32_t lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
    for (int j = 0; j < N / 8; j++)
        for (int i = 0; i < 4; i++) out[(row + i / 2 * 8) * N + 8 * j + 2 * (lane % 4) + i % 2] = acc[4 * j + i];
}

template <int N> __device__ void consume(block_ring<N> &ring, const block_out &out, const uint16_t *a)
{
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float ss[N / 2] = {}, rs[N / 2] = {}, mma[N / 8][4] = {};
    uint32_t astray = 0;
    for (uint32_t i = 0; i < DEPTH / 64; i++) {
        const uint32_t stage = i % STAGES;
        kcu::mbarrier_wait(&ring.full[stage], i / STAGES & 1);
        for (uint32_t c = threadIdx.x; i == 0 && c < 64 * 8; c += 128)
            for (int e = 0; e < 8; e++)
                astray += reinterpret_cast<uint16_t *>(ring.a[0] + kcu::swizzle_128(c / 8, c % 8))[e] !=
                          a[c / 8 * DEPTH + c % 8 * 8 + e];
        const uint64_t da = kcu::wgmma_descriptor(kcu::shared_address(ring.a[stage]));
        const uint64_t db = kcu::wgmma_descriptor(kcu::shared_address(ring.b[stage]));
        uint32_t fragment[4][4];
        for (uint32_t k = 0; k < 4; k++)
            kcu::ldmatrix_x4(fragment[k], kcu::shared_address(ring.a[stage]) +
                                              kcu::swizzle_128(16 * warp + lane % 16, 2 * k + lane / 16));
        kcu::wgmma_fence();
        for (uint32_t k = 0; k < 4; k++) kcu::wgmma_ss<N>(ss, da + 2 * k, db + 2 * k);
        for (uint32_t k = 0; k < 4; k++) kcu::wgmma_rs<N>(rs, fragment[k], db + 2 * k);
        kcu::wgmma_commit();
        kcu::wgmma_wait<0>();
        for (uint32_t k = 0; k < 4; k++) step_mma<N>(ring.a[stage], ring.b[stage], k, mma);
        kcu::mbarrier_arrive(&ring.empty[stage]);
    }
    if (astray != 0) atomicAdd(out.swizzle, astray);
    store<N>(out.ss, ss);
    store<N>(out.rs, rs);
    float flat[N / 2];
    for (int i = 0; i < N / 2; i++) flat[i] = mma[i / 4][i % 4];
    store<N>(out.mma, flat);
    /* Rows 16 warp … + 15 of column n go to staged[n][…]: two 8 x 8 matrices, lane i gives column i % 8 of matrix i
     * / 8. */
    kcu::stmatrix_x2_trans(kcu::shared_address(&ring.staged[lane % 8][16 * warp + lane / 8 % 2 * 8]),
                           kcu::pack_bf16(ss[0], ss[1]), kcu::pack_bf16(ss[2], ss[3]));
    kcu::named_barrier(1, 128);
    for (uint32_t i = threadIdx.x; i < 8 * 64; i += 128) out.transposed[i] = ring.staged[i / 64][i % 64];
}

#endif

template <int N>
__global__ void __launch_bounds__(160, 1)
    block_kernel(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b, const uint16_t *raw_a,
                 block_out out)
{
#if defined(KERN_SM90A)
    extern __shared__ unsigned char raw[];
    block_ring<N> &ring = *reinterpret_cast<block_ring<N> *>((reinterpret_cast<uintptr_t>(raw) + 1023) &
                                                             ~uintptr_t(1023));
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            kcu::mbarrier_init(&ring.full[s], 1);
            kcu::mbarrier_init(&ring.empty[s], 128);
        }
        kcu::mbarrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x < 128)
        consume<N>(ring, out, raw_a);
    else if (threadIdx.x == 128)
        produce<N>(ring, &a, &b);
#endif
}

static double bf16_value(uint16_t bits)
{
    return kern_bf16_to_float(bits);
}

/* fp32 sums of 512 products of values in [-1, 1]: off by at most 512 2^-24 of the sum of magnitudes, under 0.01. */
template <int N> static cot_status_t judge(lab_t *lab, const block_out &out, const uint16_t *a, const uint16_t *b)
{
    std::vector<float> got[3];
    const float *from[3] = {out.ss, out.rs, out.mma};
    uint32_t astray;
    std::vector<uint16_t> host_a(64 * DEPTH), host_b(static_cast<size_t>(N) * DEPTH), transposed(8 * 64);
    KERN_CUDA_TRY(cudaMemcpy(host_a.data(), a, host_a.size() * 2, cudaMemcpyDeviceToHost));
    KERN_CUDA_TRY(cudaMemcpy(host_b.data(), b, host_b.size() * 2, cudaMemcpyDeviceToHost));
    KERN_CUDA_TRY(cudaMemcpy(transposed.data(), out.transposed, transposed.size() * 2, cudaMemcpyDeviceToHost));
    KERN_CUDA_TRY(cudaMemcpy(&astray, out.swizzle, 4, cudaMemcpyDeviceToHost));
    double worst[3] = {0, 0, 0};
    uint32_t unequal[2] = {0, 0}, misplaced = 0;
    for (int f = 0; f < 3; f++) {
        got[f].resize(64 * N);
        KERN_CUDA_TRY(cudaMemcpy(got[f].data(), from[f], 64 * N * 4, cudaMemcpyDeviceToHost));
        for (int i = 0; i < 64 * N; i++) {
            double want = 0;
            for (int k = 0; k < DEPTH; k++)
                want += bf16_value(host_a[i / N * DEPTH + k]) * bf16_value(host_b[i % N * DEPTH + k]);
            const double off = fabs(got[f][i] - want);
            worst[f] = off <= worst[f] ? worst[f] : off;
            if (f > 0) unequal[f - 1] += memcmp(&got[f][i], &got[0][i], 4) != 0;
        }
    }
    for (int i = 0; i < 8 * 64; i++) misplaced += transposed[i] != kern_float_to_bf16(got[0][i % 64 * N + i / 64]);
    if (!(worst[0] < 0.01 && worst[1] < 0.01 && worst[2] < 0.01) || unequal[0] + unequal[1] + astray + misplaced > 0)
        lab_wrong(lab,
                  "off by %.3g %.3g %.3g; rs %u and mma %u unequal to ss; swizzle %u astray; stmatrix %u misplaced",
                  worst[0], worst[1], worst[2], unequal[0], unequal[1], astray, misplaced);
    LAB_RECORD(lab, {"ss_off", worst[0]}, {"rs_off", worst[1]}, {"mma_off", worst[2]},
               {"rs_unequal", double(unequal[0])}, {"mma_unequal", double(unequal[1])}, {"astray", double(astray)},
               {"misplaced", double(misplaced)});
    return COT_OK;
}

template <int N> static cot_status_t run_block(lab_t *lab, const kern_t *kern)
{
    if (!lab_case(lab, "blocks/n%d", N)) return COT_OK;
    const int b_rows = (N + 15) / 16 * 16;
    uint16_t *a = static_cast<uint16_t *>(lab_device(lab, 64 * DEPTH * 2));
    uint16_t *b = static_cast<uint16_t *>(lab_device(lab, static_cast<size_t>(b_rows) * DEPTH * 2));
    float *floats = static_cast<float *>(lab_device(lab, 3 * 64 * N * 4));
    uint32_t *rest = static_cast<uint32_t *>(lab_device(lab, 4 + 8 * 64 * 2));
    if (a == NULL || b == NULL || floats == NULL || rest == NULL) return COT_ERR_NO_MEMORY;
    COT_TRY(lab_random_bf16(lab, a, 64 * DEPTH, 1));
    COT_TRY(lab_random_bf16(lab, b, static_cast<size_t>(b_rows) * DEPTH, 1));
    COT_TRY(lab_poison(lab, floats, 3 * 64 * N * 4));
    KERN_CUDA_TRY(cudaMemsetAsync(rest, 0, 4 + 8 * 64 * 2, lab->stream));
    const block_out out = {floats, floats + 64 * N, floats + 2 * 64 * N, rest, reinterpret_cast<uint16_t *>(rest + 1)};
    CUtensorMap map_a, map_b;
    COT_TRY(kern_cuda_encode(kern, a, 64, DEPTH, DEPTH, &map_a));
    COT_TRY(kern_cuda_encode(kern, b, static_cast<uint64_t>(b_rows), DEPTH, DEPTH, &map_b));
    const kern_cuda_launch launch = {.grid = 1, .block = 160, .shared_bytes = 128 * 1024, .overlap = false};
    COT_TRY(kern_cuda_start(kern, launch, block_kernel<N>, map_a, map_b, a, out));
    KERN_CUDA_TRY(cudaStreamSynchronize(lab->stream));
    return judge<N>(lab, out, a, b);
}

cot_status_t lab_stage_blocks(lab_t *lab)
{
    kern_t *kern;
    const kern_config_t config = lab_kern_config(lab, 16, 16);
    COT_TRY(kern_cuda.create(&config, &kern));
    cot_status_t status = COT_OK;
    if (kern->major != 9)
        printf("blocks: this device has no wgmma\n");
    else {
        cot_status_t (*const runs[])(lab_t *, const kern_t *) = {
            run_block<8>, run_block<16>, run_block<24>, run_block<32>, run_block<64>, run_block<96>, run_block<128>};
        for (size_t i = 0; status == COT_OK && i < sizeof(runs) / sizeof(*runs); i++) status = runs[i](lab, kern);
    }
    kern_cuda.destroy(kern);
    return status;
}
