/* attn_out: the O product in its two K segments (kern.h, KERN_O_SEGMENTS), then x = (x + P0) + P1 (+ bias) and the norm
 * of the row that is routed and dispatched. One block of 256 threads a row after the product. Bytes a row, of the
 * second pass: 8 H from the segments (L2), 8 H of x, 2 H out. */
#include "kernels/cuda/norm.cuh"

using namespace kcu;

struct residual_params_t {
    const float *segments, *bias, *norm; /* segments [KERN_O_SEGMENTS][rows][H] */
    float *x;
    uint16_t *normed;
    uint32_t rows, hidden;
    float eps;
};

__device__ __forceinline__ float4 add_four(float4 a, float4 b)
{
    return make_float4(__fadd_rn(a.x, b.x), __fadd_rn(a.y, b.y), __fadd_rn(a.z, b.z), __fadd_rn(a.w, b.w));
}

template <int groups> __global__ void __launch_bounds__(NORM_THREADS) add_residual(const residual_params_t params)
{
    __shared__ float shared[8];
    const uint32_t hidden = params.hidden;
    const size_t at = static_cast<size_t>(blockIdx.x) * hidden;
    grid_dependency_wait();
    grid_dependents_launch();
    const row_t<groups> row = row_load<groups>(hidden, [&](uint32_t column) {
        float4 x = *reinterpret_cast<const float4 *>(params.x + at + column);
#pragma unroll
        for (uint32_t s = 0; s < KERN_O_SEGMENTS; s++)
            x = add_four(x, *reinterpret_cast<const float4 *>(
                                params.segments + static_cast<size_t>(s) * params.rows * hidden + at + column));
        return params.bias != NULL ? add_four(x, *reinterpret_cast<const float4 *>(params.bias + column)) : x;
    });
#pragma unroll
    for (int i = 0; i < groups; i++) {
        const uint32_t column = 4 * (threadIdx.x + NORM_THREADS * i);
        if (column < hidden) *reinterpret_cast<float4 *>(params.x + at + column) = row.at[i];
    }
    row_norm<groups>(row, params.norm, hidden, params.eps, params.normed + at, shared);
}

template <int groups> static cot_status_t start(const kern_t *kern, const residual_params_t &params)
{
    const kern_cuda_launch launch = {dim3(params.rows), dim3(NORM_THREADS), 0, true};
    return kern_cuda_start(kern, launch, add_residual<groups>, params);
}

cot_status_t kern_cuda_attn_out(kern_t *kern, const kern_attn_out_args_t *args)
{
    if (args->rows == 0) return COT_OK;
    kern_cuda_product_t product = {};
    product.w[0] = &args->weights->o;
    product.segments = KERN_O_SEGMENTS;
    product.rows = args->rows;
    product.x = args->attn;
    product.x_stride = args->weights->o.cols;
    product.out = kern->wide;
    product.out_stride = kern->config.hidden;
    COT_TRY(kern_cuda_product(kern, &product));
    return kern_cuda_residual(kern, args);
}

cot_status_t kern_cuda_residual(kern_t *kern, const kern_attn_out_args_t *args)
{
    residual_params_t params = {};
    params.segments = kern->wide;
    params.bias = args->weights->o_bias;
    params.norm = args->weights->post_norm;
    params.x = args->x;
    params.normed = static_cast<uint16_t *>(args->normed);
    params.rows = args->rows;
    params.hidden = kern->config.hidden;
    params.eps = kern->config.norm_eps;
    return NORM_DISPATCH(params.hidden, start, kern, params);
}
