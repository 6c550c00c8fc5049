/* cuBLASLt as yardstick and as judge of bits: one pinned algorithm a plan. */
#include "kernels/lab/lab.cuh"

#include <cublasLt.h>

#define BLAS_TRY(call)                                                                                                 \
    do {                                                                                                               \
        cublasStatus_t blas_ = (call);                                                                                 \
        if (blas_ != CUBLAS_STATUS_SUCCESS)                                                                            \
            return cot_fail(COT_ERR_DEVICE, "%s:%d: cuBLASLt status %d", __FILE__, __LINE__, static_cast<int>(blas_)); \
    } while (0)

#define WORKSPACE_BYTES (64ULL << 20)
#define MOST_ALGORITHMS 32

struct lab_blas_plan {
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t w, x, out;
    cublasLtMatmulAlgo_t algorithm;
    void *workspace;
};

/* Column-major for cuBLAS: out^T [n x m] = w^T(transposed) [n x k] x^T [k x m]. */
static cot_status_t layout(cublasLtMatrixLayout_t *layout, cudaDataType_t type, uint32_t rows, uint32_t cols,
                           const lab_blas_t *product)
{
    BLAS_TRY(cublasLtMatrixLayoutCreate(layout, type, rows, cols, rows));
    const int32_t batch = static_cast<int32_t>(product->batch);
    const int64_t stride = static_cast<int64_t>(rows) * cols;
    BLAS_TRY(cublasLtMatrixLayoutSetAttribute(*layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof(batch)));
    BLAS_TRY(cublasLtMatrixLayoutSetAttribute(*layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                              sizeof(stride)));
    return COT_OK;
}

static cot_status_t choose(lab_blas_plan_t *plan, bool in_order, uint32_t algorithm)
{
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t result[MOST_ALGORITHMS];
    int found = 0;
    const size_t workspace = WORKSPACE_BYTES;
    BLAS_TRY(cublasLtMatmulPreferenceCreate(&preference));
    BLAS_TRY(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                                  sizeof(workspace)));
    if (in_order) {
        const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_NONE;
        BLAS_TRY(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes,
                                                      sizeof(schemes)));
    }
    cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(plan->handle, plan->product, plan->w, plan->x, plan->out,
                                                           plan->out, preference, MOST_ALGORITHMS, result, &found);
    cublasLtMatmulPreferenceDestroy(preference);
    uint32_t kept = 0;
    for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < found; i++) {
        int32_t split = 1;
        size_t written;
        cublasLtMatmulAlgoConfigGetAttribute(&result[i].algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &split, sizeof(split),
                                             &written);
        if (in_order && split > 1) continue;
        if (kept++ != algorithm) continue;
        plan->algorithm = result[i].algo;
        return COT_OK;
    }
    return cot_fail(COT_ERR_NOT_FOUND, "cuBLASLt has no algorithm %u of that kind", algorithm);
}

static cot_status_t build(lab_blas_plan_t *plan, const lab_blas_t *product, bool in_order, uint32_t algorithm)
{
    const cublasOperation_t transposed = CUBLAS_OP_T;
    BLAS_TRY(cublasLtCreate(&plan->handle));
    BLAS_TRY(cublasLtMatmulDescCreate(&plan->product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    BLAS_TRY(
        cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)));
    COT_TRY(layout(&plan->w, CUDA_R_16BF, product->k, product->n, product));
    COT_TRY(layout(&plan->x, CUDA_R_16BF, product->k, product->m, product));
    COT_TRY(layout(&plan->out, product->out_f32 ? CUDA_R_32F : CUDA_R_16BF, product->n, product->m, product));
    KERN_CUDA_TRY(cudaMalloc(&plan->workspace, WORKSPACE_BYTES));
    return choose(plan, in_order, algorithm);
}

cot_status_t lab_blas_create(lab_t *lab, const lab_blas_t *product, bool in_order, uint32_t algorithm,
                             lab_blas_plan_t **plan_out)
{
    (void)lab;
    lab_blas_plan_t *plan = static_cast<lab_blas_plan_t *>(cot_calloc(1, sizeof(*plan)));
    if (plan == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a plan of cuBLASLt");
    cot_status_t status = build(plan, product, in_order, algorithm);
    if (status != COT_OK) {
        lab_blas_destroy(plan);
        return status;
    }
    *plan_out = plan;
    return COT_OK;
}

void lab_blas_destroy(lab_blas_plan_t *plan)
{
    if (plan == NULL) return;
    cudaFree(plan->workspace);
    if (plan->w != NULL) cublasLtMatrixLayoutDestroy(plan->w);
    if (plan->x != NULL) cublasLtMatrixLayoutDestroy(plan->x);
    if (plan->out != NULL) cublasLtMatrixLayoutDestroy(plan->out);
    if (plan->product != NULL) cublasLtMatmulDescDestroy(plan->product);
    if (plan->handle != NULL) cublasLtDestroy(plan->handle);
    cot_free(plan);
}

cot_status_t lab_blas_run(const lab_blas_plan_t *plan, const lab_blas_t *product, cudaStream_t stream)
{
    const float one = 1, zero = 0;
    BLAS_TRY(cublasLtMatmul(plan->handle, plan->product, &one, product->w, plan->w, product->x, plan->x, &zero,
                            product->out, plan->out, product->out, plan->out, &plan->algorithm, plan->workspace,
                            WORKSPACE_BYTES, stream));
    return COT_OK;
}
