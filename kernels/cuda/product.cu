/* Dense products: the shape made plain, and which form runs. */
#include "kernels/cuda/product_int.cuh"

#include <assert.h>

cot_status_t kern_cuda_product(kern_t *kern, const kern_cuda_product_t *product)
{
    product_params params = {};
    product_maps maps = {};
    for (; params.parts < KERN_PRODUCT_PARTS && product->w[params.parts] != NULL; params.parts++) {
        const kern_cuda_matrix *matrix = kern_cuda_matrix_of(product->w[params.parts]);
        if (params.parts > 0 && matrix->pitch != params.weights_pitch)
            return cot_fail(COT_ERR_INVALID, "matrices of %u and %u columns cannot be multiplied in one product",
                            matrix->cols, params.k);
        if (product->w[params.parts + 1 < KERN_PRODUCT_PARTS ? params.parts + 1 : 0] != NULL &&
            matrix->rows % 16 != 0 && params.parts + 1 < KERN_PRODUCT_PARTS)
            return cot_fail(COT_ERR_UNSUPPORTED, "a matrix of %u outputs beside another: a multiple of 16 it must be",
                            matrix->rows);
        maps.part[params.parts] = matrix->map;
        params.weights[params.parts] = matrix->data;
        params.weights_pitch = matrix->pitch;
        params.k = matrix->cols;
        params.columns += matrix->rows;
        params.unit_begin[params.parts + 1] = params.unit_begin[params.parts] + (matrix->rows + 15) / 16;
    }
    assert(params.parts > 0 && product->x_stride % 8 == 0 && product->out_stride >= params.columns);
    params.segments = product->segments;
    params.segment_k = params.k / product->segments;
    if (product->segments > 1 && params.k % (64 * product->segments) != 0)
        return cot_fail(COT_ERR_UNSUPPORTED, "%u columns cannot be cut into %u segments of whole 64", params.k,
                        product->segments);
    if (product->rows == 0) return COT_OK;
    params.rows = product->rows;
    params.x = static_cast<const uint16_t *>(product->x);
    params.x_stride = product->x_stride;
    params.out = product->out;
    params.out_stride = product->out_stride;
    return kern->form != KERN_FORM_MMA ? kern_cuda_product_wgmma(kern, &maps, &params)
                                       : kern_cuda_product_mma(kern, &params);
}
