/* Norm of rows on their own: before the QKV product where no stage before made it, and before the LM head.
 * One block of 256 threads a row. Bytes a row: 4 H in, 2 H out. */
#include "kernels/cuda/norm.cuh"

using namespace kcu;

struct norm_params_t {
    const float *x, *weight;
    const uint32_t *row;
    uint16_t *out;
    uint32_t hidden;
    float eps;
};

template <int groups> __global__ void __launch_bounds__(NORM_THREADS) norm_rows(const norm_params_t params)
{
    __shared__ float shared[8];
    grid_dependency_wait();
    grid_dependents_launch();
    const float *x = params.x +
                     static_cast<size_t>(params.row != NULL ? params.row[blockIdx.x] : blockIdx.x) * params.hidden;
    const row_t<groups> row = row_load<groups>(
        params.hidden, [&](uint32_t column) { return *reinterpret_cast<const float4 *>(x + column); });
    row_norm<groups>(row, params.weight, params.hidden, params.eps,
                     params.out + static_cast<size_t>(blockIdx.x) * params.hidden, shared);
}

template <int groups> static cot_status_t start(const kern_t *kern, const norm_params_t &params, uint32_t rows)
{
    const kern_cuda_launch launch = {dim3(rows), dim3(NORM_THREADS), 0, true};
    return kern_cuda_start(kern, launch, norm_rows<groups>, params);
}

cot_status_t kern_cuda_norm_rows(kern_t *kern, const float *x, const uint32_t *row, uint32_t rows, const float *weight,
                                 uint16_t *out)
{
    if (rows == 0) return COT_OK;
    const norm_params_t params = {x, weight, row, out, kern->config.hidden, kern->config.norm_eps};
    return NORM_DISPATCH(params.hidden, start, kern, params, rows);
}
