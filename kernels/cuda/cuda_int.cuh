/* Inside of the cuda backend: its instance, memory, weights, launches, and the stages' functions. */
#ifndef KERN_CUDA_INT_CUH
#define KERN_CUDA_INT_CUH

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>
#include <string.h>

extern "C" {
#include "base/memory.h"
#include "kernels/kern_int.h"
}
#include "kernels/cuda/cuda.h"

/* Memory of the device that an instance took at create. */
struct kern_cuda_block {
    void *memory;
    kern_cuda_block *next;
};

struct kern {
    kern_config_t config;
    cudaStream_t stream;
    int device, sms, major, minor;
    size_t l2_bytes;
    kern_cuda_form_t form;   /* never KERN_FORM_AUTO */
    kern_cuda_block *blocks; /* all scratch */
    size_t scratch_bytes;
    CUresult (*encode)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *, const cuuint64_t *,
                       const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                       CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

    /* attn_in.cu, attn_out.cu, head.cu */
    float *rope;      /* [max_context][cos, sin][D / 2] */
    float *wide;      /* products before they are rounded: QKV, or the segments of O */
    uint16_t *normed; /* [max_rows][H] */

    /* route.cu, sort.cu */
    float *route_logits;      /* [max_rows][E] */
    uint32_t *sort_histogram; /* [segments][slots] */
    uint32_t sort_assignments;

    /* attention.cu */
    float *attention_partial; /* [attention_slots] a split's sums, see attention_few.cu */
    uint32_t attention_slots;

    /* experts */
    uint32_t light_rows; /* see experts_wgmma.cu */
    void *middle;        /* bf16 [max_assignments][max_width] SwiGLU outputs, in sorted order */
    uint64_t *counters;  /* [KERN_COUNTERS] see experts.cu */
};

#define KERN_COUNTERS 16

/* A weight of a dense product on the device: bf16 [rows rounded up to 16][pitch], zeros where padded. */
struct kern_cuda_matrix {
    uint16_t *data;
    uint32_t rows, cols, pitch; /* pitch: cols rounded up to 64 */
    CUtensorMap map;            /* boxes of 64 columns x 16 rows, 128 B swizzle; only on sm_90 */
};

static inline const kern_cuda_matrix *kern_cuda_matrix_of(const kern_matrix_t *matrix)
{
    return static_cast<const kern_cuda_matrix *>(matrix->owned);
}

struct kern_bank {
    kern_t *kern;
    uint32_t slots, hidden, width;
    uint16_t *gate_up;                 /* [slots][2 width][hidden]; rows in groups of 16: 8 of gate, 8 of up */
    uint16_t *down;                    /* [slots][hidden][width] */
    CUtensorMap gate_up_map, down_map; /* boxes of 64 columns x 16 rows, 128 B swizzle; only on sm_90 */
};

#define KERN_CUDA_TRY(call)                                                                               \
    do {                                                                                                  \
        cudaError_t error_ = (call);                                                                      \
        if (error_ != cudaSuccess)                                                                        \
            return cot_fail(COT_ERR_DEVICE, "%s:%d: %s", __FILE__, __LINE__, cudaGetErrorString(error_)); \
    } while (0)

/* Zeroed memory of the device, owned by the instance; counted in scratch_bytes. For create only. */
cot_status_t kern_cuda_take(kern_t *kern, size_t bytes, void **memory_out);

/* Fills `map` for bf16 [rows][cols], rows `pitch` elements apart: boxes of 64 columns x 16 rows, 128 B swizzle. Does
 * nothing on a device without TMA. */
cot_status_t kern_cuda_encode(const kern_t *kern, const void *data, uint64_t rows, uint64_t cols, uint64_t pitch,
                              CUtensorMap *map);

/* Copies host values of `dtype`, maybe unaligned, as bf16 to the device: `rows` rows of `cols`, `pitch` elements apart.
 */
struct kern_cuda_copy {
    const void *data;
    kern_dtype_t dtype;
    uint32_t rows, cols, pitch;
};
cot_status_t kern_cuda_copy_rows(const kern_cuda_copy *copy, uint16_t *device);

/* Launches on the instance's stream. `overlap`: the grid may start while the one before it ends (it must then begin
 * with kcu::grid_dependency_wait before it reads what that one wrote). */
struct kern_cuda_launch {
    dim3 grid, block;
    size_t shared_bytes;
    bool overlap;
};

template <typename... Parameters, typename... Arguments>
cot_status_t kern_cuda_start(const kern_t *kern, const kern_cuda_launch &launch, void (*kernel)(Parameters...),
                             Arguments &&...arguments)
{
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = launch.grid;
    config.blockDim = launch.block;
    config.dynamicSmemBytes = launch.shared_bytes;
    config.stream = kern->stream;
    config.attrs = &attribute;
    config.numAttrs = launch.overlap && kern->major >= 9 ? 1 : 0;
    if (launch.shared_bytes > 48 * 1024)
        KERN_CUDA_TRY(cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                                           cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           static_cast<int>(launch.shared_bytes)));
    KERN_CUDA_TRY(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
    return COT_OK;
}

/* ---- dense products ---- */

/* out[s][t][c] = sum over K segment s of x[t][k] w[c][k], fp32, for the matrices of `w` side by side (QKV: three). Each
 * accumulator takes its segment in K order from zero: the bits depend on nothing else. */
#define KERN_PRODUCT_PARTS 3
typedef struct {
    const kern_matrix_t *w[KERN_PRODUCT_PARTS]; /* equal cols; NULL from the first that is not there */
    uint32_t segments;                          /* 1, or KERN_O_SEGMENTS: equal parts of cols, multiples of 64 */
    uint32_t rows;
    const void *x;       /* bf16 [rows][x_stride] */
    uint32_t x_stride;   /* elements, a multiple of 8 */
    float *out;          /* [segments][rows][out_stride] */
    uint32_t out_stride; /* elements, at least the sum of the matrices' rows */
} kern_cuda_product_t;

cot_status_t kern_cuda_product(kern_t *kern, const kern_cuda_product_t *product);

/* ---- stages, one file each ---- */
size_t kern_cuda_kv_block_bytes(const kern_t *kern);
cot_status_t kern_cuda_embed(kern_t *kern, const kern_embed_args_t *args);
cot_status_t kern_cuda_attn_in(kern_t *kern, const kern_attn_in_args_t *args);
cot_status_t kern_cuda_attention(kern_t *kern, const kern_attention_args_t *args);
cot_status_t kern_cuda_attn_out(kern_t *kern, const kern_attn_out_args_t *args);
cot_status_t kern_cuda_route(kern_t *kern, const kern_route_args_t *args);
cot_status_t kern_cuda_sort(kern_t *kern, const kern_sort_args_t *args);
cot_status_t kern_cuda_experts(kern_t *kern, const kern_experts_args_t *args);
cot_status_t kern_cuda_mlp(kern_t *kern, const kern_mlp_args_t *args);
cot_status_t kern_cuda_combine(kern_t *kern, const kern_combine_args_t *args);
cot_status_t kern_cuda_head(kern_t *kern, const kern_head_args_t *args);
cot_status_t kern_cuda_sample(kern_t *kern, const kern_sample_args_t *args);

/* The passes after the products of attn_in and attn_out, over what stands in kern->wide. */
cot_status_t kern_cuda_finish_qkv(kern_t *kern, const kern_attn_in_args_t *args);
cot_status_t kern_cuda_residual(kern_t *kern, const kern_attn_out_args_t *args);

/* Scratch of the stages, taken at create; a stage that needs some has one. */
cot_status_t kern_cuda_attn_in_create(kern_t *kern);
cot_status_t kern_cuda_attention_create(kern_t *kern);
cot_status_t kern_cuda_route_create(kern_t *kern);
cot_status_t kern_cuda_sort_create(kern_t *kern);
cot_status_t kern_cuda_experts_create(kern_t *kern);

#endif
