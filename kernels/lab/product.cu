/* Stage `product`: the dense products of a model: QKV in one launch, O in its two K segments, the LM head, at --rows
 * rows.
 *
 * Checks, on fresh data: both forms against the judge of bits (lab_in_order), every element. Times: a graph of rounds
 * over cold weights (more than four times L2), in a chain with programmatic dependent launch; beside it cuBLASLt's best
 * algorithm that keeps K in one piece, into fp32 too (O: two calls). */
#include "kernels/lab/lab.cuh"

#include <algorithm>
#include <math.h>

namespace
{

enum { MOST_ROTATIONS = 16 };

struct bench_t {
    lab_t *lab;
    kern_t *kern;
    const char *name;
    uint32_t parts, outputs[KERN_PRODUCT_PARTS], columns, k, segments, rows, rotations;
    kern_matrix_t w[MOST_ROTATIONS][KERN_PRODUCT_PARTS];
    uint16_t *x, *piece; /* [rows][k]; one segment of it, dense */
    float *out, *other;  /* [segments][rows][columns] */
    lab_blas_plan_t *plan;
};

cot_status_t launch(void *context, uint32_t round)
{
    bench_t *bench = static_cast<bench_t *>(context);
    kern_cuda_product_t product = {};
    for (uint32_t p = 0; p < bench->parts; p++) product.w[p] = &bench->w[round % bench->rotations][p];
    product.segments = bench->segments;
    product.rows = bench->rows;
    product.x = bench->x;
    product.x_stride = bench->k;
    product.out = bench->out;
    product.out_stride = bench->columns;
    return kern_cuda_product(bench->kern, &product);
}

/* The judged product of one part and segment: pieces of x and w made dense first. */
cot_status_t judge_part(bench_t *bench, uint32_t part, uint32_t segment, uint16_t *weights, float *judged)
{
    const size_t k = bench->k / bench->segments, from = segment * k;
    const uint32_t outputs = bench->outputs[part];
    cudaStream_t stream = bench->lab->stream;
    KERN_CUDA_TRY(cudaMemcpy2DAsync(bench->piece, 2 * k, bench->x + from, 2ULL * bench->k, 2 * k, bench->rows,
                                    cudaMemcpyDeviceToDevice, stream));
    KERN_CUDA_TRY(cudaMemcpy2DAsync(weights, 2 * k, static_cast<const uint16_t *>(bench->w[0][part].data) + from,
                                    2ULL * bench->k, 2 * k, outputs, cudaMemcpyDeviceToDevice, stream));
    const lab_blas_t product = {.m = bench->rows,
                                .n = outputs,
                                .k = static_cast<uint32_t>(k),
                                .batch = 1,
                                .x = bench->piece,
                                .w = weights,
                                .out = judged,
                                .out_f32 = true};
    COT_TRY(lab_in_order(bench->lab, &product));
    uint32_t column = 0;
    for (uint32_t p = 0; p < part; p++) column += bench->outputs[p];
    KERN_CUDA_TRY(cudaMemcpy2DAsync(
        bench->other + (static_cast<size_t>(segment) * bench->rows) * bench->columns + column, 4ULL * bench->columns,
        judged, 4ULL * outputs, 4ULL * outputs, bench->rows, cudaMemcpyDeviceToDevice, stream));
    return COT_OK;
}

cot_status_t check(bench_t *bench)
{
    lab_t *lab = bench->lab;
    const size_t bytes = static_cast<size_t>(bench->segments) * bench->rows * bench->columns * 4;
    uint16_t *weights = static_cast<uint16_t *>(lab_device(lab, 2ULL * bench->columns * bench->k));
    float *judged = static_cast<float *>(lab_device(lab, bytes));
    if (weights == NULL || judged == NULL) return COT_ERR_NO_MEMORY;
    COT_TRY(lab_poison(lab, bench->other, bytes));
    for (uint32_t s = 0; s < bench->segments; s++)
        for (uint32_t p = 0; p < bench->parts; p++) COT_TRY(judge_part(bench, p, s, weights, judged));
    uint64_t differing[2] = {};
    const kern_cuda_form_t forms[2] = {KERN_FORM_AUTO, KERN_FORM_MMA};
    for (int f = 0; f < 2; f++) {
        COT_TRY(kern_cuda_force(bench->kern, forms[f]));
        COT_TRY(lab_poison(lab, bench->out, bytes));
        COT_TRY(launch(bench, 0));
        COT_TRY(lab_differing(lab, bench->out, bench->other, bytes, &differing[f]));
        if (differing[f] > 0)
            lab_wrong(lab, "%llu of %zu elements are not the judge's, %s",
                      static_cast<unsigned long long>(differing[f]), bytes / 4, f == 0 ? "chosen" : "mma.sync");
    }
    COT_TRY(kern_cuda_force(bench->kern, KERN_FORM_AUTO));
    cudaFree(lab->buffer[--lab->buffers]);
    cudaFree(lab->buffer[--lab->buffers]);
    LAB_RECORD(lab, {"differ", double(differing[0])}, {"mma_differ", double(differing[1])});
    return COT_OK;
}

cot_status_t launch_blas(void *context, uint32_t round)
{
    bench_t *bench = static_cast<bench_t *>(context);
    /* The same bytes of weights: one matrix of all columns (parts lie apart: the first one's buffer is large enough).
     */
    const lab_blas_t product = {.m = bench->rows,
                                .n = bench->columns,
                                .k = bench->k / bench->segments,
                                .batch = 1,
                                .x = bench->x,
                                .w = bench->w[round % bench->rotations][0].data,
                                .out = bench->out,
                                .out_f32 = true};
    for (uint32_t s = 0; s < bench->segments; s++) {
        lab_blas_t one = product;
        one.w = static_cast<const uint16_t *>(product.w) + static_cast<size_t>(s) * product.n * product.k;
        COT_TRY(lab_blas_run(bench->plan, &one, bench->lab->stream));
    }
    return COT_OK;
}

cot_status_t time_blas(bench_t *bench, double *best)
{
    *best = NAN;
    for (uint32_t a = 0; a < 3; a++) {
        const lab_blas_t product = {.m = bench->rows,
                                    .n = bench->columns,
                                    .k = bench->k / bench->segments,
                                    .batch = 1,
                                    .x = NULL,
                                    .w = NULL,
                                    .out = NULL,
                                    .out_f32 = true};
        cot_status_t status = lab_blas_create(bench->lab, &product, true, a, &bench->plan);
        if (status == COT_ERR_NOT_FOUND) return COT_OK;
        COT_TRY(status);
        double microseconds = 0;
        const lab_timing_t timing = {
            .launch = launch_blas, .context = bench, .rounds = std::max(bench->rotations, 4U), .milliseconds = 5};
        status = lab_time(bench->lab, &timing, &microseconds);
        lab_blas_destroy(bench->plan);
        COT_TRY(status);
        if (!(microseconds >= *best)) *best = microseconds;
    }
    return COT_OK;
}

cot_status_t measure(bench_t *bench)
{
    double microseconds = 0, mma = NAN, blas = 0;
    const lab_timing_t timing = {
        .launch = launch, .context = bench, .rounds = std::max(bench->rotations, 4U), .milliseconds = 8};
    COT_TRY(lab_time(bench->lab, &timing, &microseconds));
    if (bench->rows <= 64) {
        COT_TRY(kern_cuda_force(bench->kern, KERN_FORM_MMA));
        COT_TRY(lab_time(bench->lab, &timing, &mma));
        COT_TRY(kern_cuda_force(bench->kern, KERN_FORM_AUTO));
    }
    COT_TRY(time_blas(bench, &blas));
    const double elements = static_cast<double>(bench->columns) * bench->k;
    const double bytes = 2 * elements + 2.0 * bench->rows * bench->k +
                         4.0 * bench->segments * bench->rows * bench->columns;
    LAB_RECORD(bench->lab, {"us", microseconds}, {"of_read", bytes / microseconds * 1e-3 / bench->lab->read_gbs},
               {"TFLOP/s", 2 * elements * bench->rows / microseconds * 1e-6}, {"mma_us", mma}, {"cublaslt_us", blas},
               {"of_cublaslt", blas / microseconds});
    return COT_OK;
}

/* Weights: the first part's buffer is taken large enough to serve cuBLASLt as one matrix of all columns. */
cot_status_t fill(bench_t *bench, uint32_t most)
{
    lab_t *lab = bench->lab;
    const size_t elements = static_cast<size_t>(bench->columns) * bench->k,
                 out = 1ULL * bench->segments * most * bench->columns;
    bench->rotations = lab_rotations(lab, elements * 2, MOST_ROTATIONS);
    for (uint32_t r = 0; r < bench->rotations; r++)
        for (uint32_t p = 0; p < bench->parts; p++) {
            const uint32_t rows = p == 0 ? bench->columns : bench->outputs[p];
            COT_TRY(kern_cuda.matrix_create(bench->kern, NULL, KERN_BF16, rows, bench->k, &bench->w[r][p]));
            COT_TRY(lab_random_bf16(lab, const_cast<void *>(bench->w[r][p].data), 1ULL * rows * bench->k, 1));
            static_cast<kern_cuda_matrix *>(bench->w[r][p].owned)->rows = bench->outputs[p];
        }
    bench->x = static_cast<uint16_t *>(lab_device(lab, 2ULL * most * bench->k));
    bench->piece = static_cast<uint16_t *>(lab_device(lab, 2ULL * most * bench->k));
    bench->out = static_cast<float *>(lab_device(lab, 4 * out));
    bench->other = static_cast<float *>(lab_device(lab, 4 * out));
    if (bench->x == NULL || bench->piece == NULL || bench->out == NULL || bench->other == NULL)
        return COT_ERR_NO_MEMORY;
    return lab_random_bf16(lab, bench->x, 1ULL * most * bench->k, 1);
}

cot_status_t run_rows(bench_t *bench)
{
    lab_t *lab = bench->lab;
    for (uint32_t r = 0; r < lab->rows_count; r++) {
        bench->rows = lab->rows[r];
        if (bench->rows == 0) continue;
        if (!lab->timing_only && lab_case(lab, "product/%s/%u check", bench->name, bench->rows)) COT_TRY(check(bench));
        if (!lab->check_only && lab_case(lab, "product/%s/%u", bench->name, bench->rows)) COT_TRY(measure(bench));
    }
    return COT_OK;
}

cot_status_t run_product(bench_t *bench, uint32_t most)
{
    for (uint32_t p = 0; p < bench->parts; p++) bench->columns += bench->outputs[p];
    cot_status_t status = fill(bench, most);
    if (status == COT_OK) status = run_rows(bench);
    cudaDeviceSynchronize();
    for (auto &rotation : bench->w)
        for (kern_matrix_t &matrix : rotation) kern_cuda.matrix_destroy(bench->kern, &matrix);
    lab_release(bench->lab);
    return status;
}

} // namespace

cot_status_t lab_stage_product(lab_t *lab)
{
    COT_TRY(lab_limits(lab));
    const model_config_t *model = &lab->config;
    const uint32_t most = lab->rows_count > 0 ? *std::max_element(lab->rows, lab->rows + lab->rows_count) : 1;
    const uint32_t heads = model->heads * model->head_dim, kv = model->kv_heads * model->head_dim;
    const kern_config_t config = lab_kern_config(lab, most, 16);
    kern_t *kern;
    COT_TRY(kern_cuda.create(&config, &kern));
    bench_t benches[3] = {};
    for (bench_t &bench : benches) {
        bench.lab = lab;
        bench.kern = kern;
        bench.parts = bench.segments = 1;
        bench.k = model->hidden;
    }
    benches[0].name = "qkv";
    benches[0].parts = 3;
    benches[0].outputs[0] = heads;
    benches[0].outputs[1] = benches[0].outputs[2] = kv;
    benches[1].name = "o";
    benches[1].segments = KERN_O_SEGMENTS;
    benches[1].outputs[0] = model->hidden;
    benches[1].k = heads;
    benches[2].name = "head";
    benches[2].outputs[0] = model->vocab;
    cot_status_t status = COT_OK;
    for (bench_t &bench : benches)
        if (status == COT_OK && (bench.parts > 1 || bench.segments > 1 || most <= 1024))
            status = run_product(&bench, most);
    kern_cuda.destroy(kern);
    return status;
}
