/* How fast the cpu backend multiplies: products of the shape of an expert's gate projection (1536 x 2048, bf16) at few
 * and many rows, for every instruction set that this CPU has. Weights rotate over 16 matrices (96 MiB), so that they
 * come from memory. Prints GFLOP/s and GB/s of weights, the best of several runs. Usage: coterie-lab-cpu [threads] */
#include "base/clock.h"
#include "base/memory.h"
#include "kernels/cpu/cpu_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OUTPUTS = 1536, COLS = 2048, MATRICES = 16, MOST_ROWS = 256, RUNS = 3 };

static double seconds(kern_t *kern, const kern_matrix_t *matrix, uint32_t rows, float *out)
{
    double best = 1e9;
    for (int run = 0; run < RUNS; run++) {
        int64_t started_ns = cot_now_ns();
        for (int m = 0; m < MATRICES; m++) {
            const kern_job_t job = {.w = &matrix[m],
                                    .x = kern->packed,
                                    .x_stride = kern->packed_stride,
                                    .rows = rows,
                                    .out = out,
                                    .out_stride = OUTPUTS};
            kern_products(kern, &job, 1);
        }
        double taken = (double)(cot_now_ns() - started_ns) * 1e-9 / MATRICES;
        if (taken < best) best = taken;
    }
    return best;
}

static cot_status_t bench(kern_isa_t isa, cot_pool_t *pool, const uint16_t *weights, float *out)
{
    const double inv_freq[1] = {1};
    const kern_config_t config = {.act = KERN_BF16,
                                  .isa = isa,
                                  .pool = pool,
                                  .hidden = COLS,
                                  .heads = 1,
                                  .kv_heads = 1,
                                  .head_dim = 2,
                                  .vocab = 2,
                                  .experts = 1,
                                  .top_k = 1,
                                  .max_width = OUTPUTS,
                                  .max_rows = MOST_ROWS,
                                  .max_context = 1,
                                  .inv_freq = inv_freq};
    static const uint32_t ROWS[] = {1, 4, 16, 64, 256};
    kern_t *kern;
    COT_TRY(kern_cpu.create(&config, &kern));
    memset(kern->packed, 0, MOST_ROWS * kern->packed_stride);
    kern_matrix_t matrix[MATRICES];
    for (int m = 0; m < MATRICES; m++)
        matrix[m] = (kern_matrix_t){
            .data = weights + (size_t)m * OUTPUTS * COLS, .dtype = KERN_BF16, .rows = OUTPUTS, .cols = COLS};
    for (size_t i = 0; i < sizeof(ROWS) / sizeof(*ROWS); i++) {
        double taken = seconds(kern, matrix, ROWS[i], out);
        printf("%-12s rows %4u: %7.1f GFLOP/s %6.1f GB/s of weights\n", kern_isa_name(isa), ROWS[i],
               2.0 * ROWS[i] * OUTPUTS * COLS / taken * 1e-9, 2.0 * OUTPUTS * COLS / taken * 1e-9);
    }
    kern_cpu.destroy(kern);
    return COT_OK;
}

int main(int argc, char **argv)
{
    const size_t count = (size_t)MATRICES * OUTPUTS * COLS;
    uint16_t *weights = cot_alloc_aligned(count * sizeof(*weights));
    float *out = cot_alloc_aligned((size_t)MOST_ROWS * OUTPUTS * sizeof(*out));
    cot_pool_t *pool = NULL;
    cot_status_t status = COT_ERR_NO_MEMORY;
    if (weights != NULL && out != NULL) status = cot_pool_create(argc > 1 ? (unsigned)atoi(argv[1]) : 1, &pool);
    for (size_t i = 0; status == COT_OK && i < count; i++) weights[i] = (uint16_t)(0x3c00 + i * 2654435761U % 256);
    for (int isa = 0; status == COT_OK && isa < KERN_ISA_COUNT; isa++)
        if (kern_isa_present((kern_isa_t)isa)) status = bench((kern_isa_t)isa, pool, weights, out);
    if (status != COT_OK) fprintf(stderr, "%s\n", cot_error_text());
    cot_pool_destroy(pool);
    cot_free(weights);
    cot_free(out);
    return cot_exit_code(status);
}
