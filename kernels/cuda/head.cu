/* The two ends of the model: embedding rows, and norm and LM head. */
#include "kernels/cuda/norm.cuh"

using namespace kcu;

struct embed_params_t {
    const uint16_t *table;
    const int32_t *token;
    float *x;
    uint32_t hidden, pitch, vocab;
};

/* One block of 256 threads a row. A token out of range (padding) gives zeros. Bytes a row: 2 H in, 4 H out. */
__global__ void __launch_bounds__(NORM_THREADS) embed_rows(const embed_params_t params)
{
    grid_dependency_wait();
    grid_dependents_launch();
    const int32_t token = params.token[blockIdx.x];
    const bool live = token >= 0 && static_cast<uint32_t>(token) < params.vocab;
    const uint16_t *from = params.table + static_cast<size_t>(live ? token : 0) * params.pitch;
    float *x = params.x + static_cast<size_t>(blockIdx.x) * params.hidden;
    for (uint32_t column = 4 * threadIdx.x; column < params.hidden; column += 4 * NORM_THREADS)
        *reinterpret_cast<float4 *>(x + column) = live ? unpack_bf16(*reinterpret_cast<const uint2 *>(from + column))
                                                       : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}

cot_status_t kern_cuda_embed(kern_t *kern, const kern_embed_args_t *args)
{
    if (args->rows == 0) return COT_OK;
    const kern_cuda_matrix *table = kern_cuda_matrix_of(args->table);
    const kern_cuda_launch launch = {dim3(args->rows), dim3(NORM_THREADS), 0, true};
    const embed_params_t params = {table->data, args->tokens, args->x, kern->config.hidden, table->pitch, table->rows};
    return kern_cuda_start(kern, launch, embed_rows, params);
}

cot_status_t kern_cuda_head(kern_t *kern, const kern_head_args_t *args)
{
    const uint32_t most = kern->config.max_rows, vocab = args->lm_head->rows;
    for (uint32_t first = 0; first < args->rows; first += most) {
        const uint32_t rows = args->rows - first < most ? args->rows - first : most;
        COT_TRY(kern_cuda_norm_rows(kern, args->x, args->row + first, rows, args->norm, kern->normed));
        kern_cuda_product_t product = {};
        product.w[0] = args->lm_head;
        product.segments = 1;
        product.rows = rows;
        product.x = kern->normed;
        product.x_stride = kern->config.hidden;
        product.out = args->logits + static_cast<size_t>(first) * vocab;
        product.out_stride = vocab;
        COT_TRY(kern_cuda_product(kern, &product));
    }
    return COT_OK;
}
