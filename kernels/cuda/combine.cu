/* Combine: x[t] += sum over k in order of weight[t, k] y[t, k] (+ scale[t] shared[t]), and the next norm where wanted.
 * One block of 256 threads a row; a thread holds 4 columns in every 1,024 (norm.cuh). The sum starts at 0 and is one
 * chain of fused multiply-adds in k order; x is added last. Bytes a row: (2 K + 8) H, 2 H more for the norm. */
#include "kernels/cuda/norm.cuh"

using namespace kcu;

struct combine_params_t {
    kern_combine_args_t args;
    uint32_t hidden;
    float eps;
};

__device__ __forceinline__ float4 add_scaled(float4 sum, float weight, float4 y)
{
    return make_float4(__fmaf_rn(weight, y.x, sum.x), __fmaf_rn(weight, y.y, sum.y), __fmaf_rn(weight, y.z, sum.z),
                       __fmaf_rn(weight, y.w, sum.w));
}

__device__ __forceinline__ float4 load_act(const void *act, size_t row, uint32_t hidden, uint32_t column)
{
    return unpack_bf16(*reinterpret_cast<const uint2 *>(static_cast<const uint16_t *>(act) + row * hidden + column));
}

template <int groups> __global__ void __launch_bounds__(NORM_THREADS) combine_rows(const combine_params_t params)
{
    __shared__ float shared[8];
    const kern_combine_args_t &args = params.args;
    const uint32_t hidden = params.hidden;
    const size_t t = blockIdx.x;
    grid_dependency_wait();
    grid_dependents_launch();
    float *x = args.x + t * hidden;
    const row_t<groups> row = row_load<groups>(hidden, [&](uint32_t column) {
        float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 8
        for (uint32_t k = 0; k < args.top_k; k++)
            sum = add_scaled(sum, args.weight[t * args.top_k + k],
                             load_act(args.y, t * args.top_k + k, hidden, column));
        if (args.shared != NULL) sum = add_scaled(sum, args.scale[t], load_act(args.shared, t, hidden, column));
        const float4 old = *reinterpret_cast<const float4 *>(x + column);
        return make_float4(__fadd_rn(old.x, sum.x), __fadd_rn(old.y, sum.y), __fadd_rn(old.z, sum.z),
                           __fadd_rn(old.w, sum.w));
    });
#pragma unroll
    for (int i = 0; i < groups; i++) {
        const uint32_t column = 4 * (threadIdx.x + NORM_THREADS * i);
        if (column < hidden) *reinterpret_cast<float4 *>(x + column) = row.at[i];
    }
    if (args.next_norm == NULL) return;
    row_norm<groups>(row, args.next_norm, hidden, params.eps, static_cast<uint16_t *>(args.next_normed) + t * hidden,
                     shared);
}

template <int groups> static cot_status_t start(const kern_t *kern, const combine_params_t &params)
{
    const kern_cuda_launch launch = {dim3(params.args.rows), dim3(NORM_THREADS), 0, true};
    return kern_cuda_start(kern, launch, combine_rows<groups>, params);
}

cot_status_t kern_cuda_combine(kern_t *kern, const kern_combine_args_t *args)
{
    if (args->rows == 0) return COT_OK;
    const combine_params_t params = {*args, kern->config.hidden, kern->config.norm_eps};
    return NORM_DISPATCH(params.hidden, start, kern, params);
}
