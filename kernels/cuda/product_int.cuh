/* What the forms of the dense product share. */
#ifndef KERN_CUDA_PRODUCT_INT_CUH
#define KERN_CUDA_PRODUCT_INT_CUH

#include "kernels/cuda/cuda_int.cuh"

/* The matrices stand side by side: units (16 outputs) unit_begin[p] … unit_begin[p + 1] - 1 are matrix p's. */
struct product_params {
    uint32_t parts, unit_begin[KERN_PRODUCT_PARTS + 1];
    uint32_t segments, segment_k; /* columns of K of a segment */
    uint32_t k, rows;
    const uint16_t *x;
    uint32_t x_stride;
    float *out; /* [segments][rows][out_stride] */
    uint32_t out_stride, columns;
    const uint16_t *weights[KERN_PRODUCT_PARTS];
    uint32_t weights_pitch;
};

struct product_maps {
    CUtensorMap part[KERN_PRODUCT_PARTS];
};

cot_status_t kern_cuda_product_wgmma(kern_t *kern, const product_maps *maps, const product_params *params);
cot_status_t kern_cuda_product_mma(kern_t *kern, const product_params *params);

#endif
