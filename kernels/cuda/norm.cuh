/* rms_norm of a row, by 256 threads, with one order of summation for every stage: thread t holds columns 4 (t + 256 i)
 * to 4 (t + 256 i) + 3 and adds their squares in ascending order by fused multiply-adds; then a tree over lanes
 * (distances 16, 8, 4, 2, 1) and one over the warps (4, 2, 1). The bits depend on the row alone. */
#ifndef KERN_CUDA_NORM_CUH
#define KERN_CUDA_NORM_CUH

#include "kernels/cuda/arith.cuh"
#include "kernels/cuda/cuda_int.cuh"
#include "kernels/cuda/hopper.cuh"

#define NORM_THREADS 256
#define NORM_MAX_GROUPS 8 /* of 1,024 columns */

namespace kcu
{

/* A thread's columns of a row; zeros past its end. */
template <int groups> struct row_t {
    float4 at[groups];
};

template <int groups, typename Load> __device__ __forceinline__ row_t<groups> row_load(uint32_t hidden, Load load)
{
    row_t<groups> row;
#pragma unroll
    for (int i = 0; i < groups; i++) {
        const uint32_t column = 4 * (threadIdx.x + NORM_THREADS * i);
        row.at[i] = column < hidden ? load(column) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
    return row;
}

/* The tree over 256 threads; all get the sum. `shared` [8], free again after the next __syncthreads. */
__device__ __forceinline__ float block_sum(float sum, float *shared)
{
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) sum = __fadd_rn(sum, __shfl_xor_sync(~0U, sum, distance));
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = shared[threadIdx.x % 8];
#pragma unroll
    for (int distance = 4; distance > 0; distance /= 2) sum = __fadd_rn(sum, __shfl_xor_sync(~0U, sum, distance));
    return sum;
}

__device__ __forceinline__ float add_squares(float sum, float4 x)
{
    return __fmaf_rn(x.w, x.w, __fmaf_rn(x.z, x.z, __fmaf_rn(x.y, x.y, __fmaf_rn(x.x, x.x, sum))));
}

/* 1 / sqrt(mean of squares + eps) */
__device__ __forceinline__ float norm_factor(float squares, uint32_t count, float eps)
{
    return __frcp_rn(__fsqrt_rn(__fadd_rn(__fdiv_rn(squares, static_cast<float>(count)), eps)));
}

__device__ __forceinline__ float norm_scale(float x, float factor, float weight)
{
    return __fmul_rn(__fmul_rn(x, factor), weight);
}

/* out = bf16(x / rms(x) weight) */
template <int groups>
__device__ __forceinline__ void row_norm(const row_t<groups> &row, const float *weight, uint32_t hidden, float eps,
                                         uint16_t *out, float *shared)
{
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < groups; i++) squares = add_squares(squares, row.at[i]);
    const float factor = norm_factor(block_sum(squares, shared), hidden, eps);
#pragma unroll
    for (int i = 0; i < groups; i++) {
        const uint32_t column = 4 * (threadIdx.x + NORM_THREADS * i);
        if (column >= hidden) break;
        const float4 w = *reinterpret_cast<const float4 *>(weight + column), x = row.at[i];
        *reinterpret_cast<uint2 *>(out + column) = make_uint2(
            pack_bf16(norm_scale(x.x, factor, w.x), norm_scale(x.y, factor, w.y)),
            pack_bf16(norm_scale(x.z, factor, w.z), norm_scale(x.w, factor, w.w)));
    }
}

__device__ __forceinline__ float4 unpack_bf16(uint2 packed)
{
    return make_float4(bf16_low(packed.x), bf16_high(packed.x), bf16_low(packed.y), bf16_high(packed.y));
}

} // namespace kcu

/* Calls use<groups>(…) with the groups that `hidden` takes; hidden is checked at create. */
#define NORM_DISPATCH(hidden, use, ...)       \
    ((hidden) <= 1024   ? use<1>(__VA_ARGS__) \
     : (hidden) <= 2048 ? use<2>(__VA_ARGS__) \
     : (hidden) <= 4096 ? use<4>(__VA_ARGS__) \
                        : use<NORM_MAX_GROUPS>(__VA_ARGS__))

/* out[t] = rms_norm(x[row[t]]) weight, bf16; row NULL: t itself. */
cot_status_t kern_cuda_norm_rows(kern_t *kern, const float *x, const uint32_t *row, uint32_t rows, const float *weight,
                                 uint16_t *out);

#endif
