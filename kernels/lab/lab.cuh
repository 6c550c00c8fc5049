/* What every stage of the lab stands on: device memory with random data, timing of captured graphs over rotating
 * buffers, the limits of the machine measured in the same run, comparison of bits, and the record of a case (a line of
 * the table and a line of JSON, flushed). A stage is one function in one file; main.cu has the table of them.
 *
 * A case begins with lab_case; a watchdog ends the process (status 6) when one takes over 60 seconds, so that a hang
 * costs only itself. All work is on lab->stream. */
#ifndef KERN_LAB_CUH
#define KERN_LAB_CUH

#include "kernels/cuda/cuda_int.cuh"

#include <atomic>
#include <stdio.h>

extern "C" {
#include "comm/comm.h"
#include "model/config.h"
}

#define LAB_MAX_COUNTS 32
#define LAB_MAX_BUFFERS 256

struct lab {
    model_config_t config;
    comm_link_t *link; /* to the other ranks under mpirun; alone a fabric of one */
    uint32_t rank, ranks;
    int gpu;                                   /* CUDA's number of it */
    uint32_t rows[LAB_MAX_COUNTS], rows_count; /* --rows */
    uint64_t seed, random;
    double budget_seconds, began; /* seconds of the monotonic clock */
    bool check_only, timing_only;
    const char *only; /* --only TEXT: cases whose name holds TEXT; NULL: all */
    FILE *json;       /* NULL: none */
    cudaStream_t stream;
    cudaDeviceProp device;
    void *buffer[LAB_MAX_BUFFERS];
    uint32_t buffers;
    double read_gbs, dense_tflops; /* 0 until lab_limits */
    uint32_t failures;             /* wrong results so far: the exit status */
    char name[160];                /* of the case */
    std::atomic<double> deadline;  /* of the case, read by the watchdog; 0: none runs */
};

typedef struct lab lab_t;

/* ---- cases and records ---- */

/* Starts the watchdog. */
cot_status_t lab_watch(lab_t *lab);

/* Begins a case. False: skip it (over the budget, or --only names others). */
__attribute__((format(printf, 2, 3))) bool lab_case(lab_t *lab, const char *format, ...);

typedef struct {
    const char *name;
    double value;
} lab_field_t;

/* A line "case  name value  name value …" and one of JSON. */
void lab_record(lab_t *lab, const lab_field_t *field, uint32_t count);
#define LAB_RECORD(lab, ...)                                          \
    do {                                                              \
        const lab_field_t fields_[] = {__VA_ARGS__};                  \
        lab_record(lab, fields_, sizeof(fields_) / sizeof(*fields_)); \
    } while (0)

/* A wrong result: printed by whichever rank saw it, counted, and recorded. */
__attribute__((format(printf, 2, 3))) void lab_wrong(lab_t *lab, const char *format, ...);

/* ---- memory and data ---- */

/* Device memory that lab_release frees; NULL when there is none. */
void *lab_device(lab_t *lab, size_t bytes);
void lab_release(lab_t *lab);

/* Uniform in [-scale, scale], never 0, different in every call. */
cot_status_t lab_random_bf16(lab_t *lab, void *memory, size_t count, float scale);
cot_status_t lab_random_f32(lab_t *lab, float *memory, size_t count, float scale);
/* NaN in bf16 and fp32, -1 in integers. */
cot_status_t lab_poison(lab_t *lab, void *memory, size_t bytes);
uint64_t lab_next(lab_t *lab); /* splitmix64 on the host */

/* How many sets of `bytes` it takes to go over four times the L2 cache: 1 … most. */
uint32_t lab_rotations(const lab_t *lab, size_t bytes, uint32_t most);

/* Number of 4-byte words that differ. */
cot_status_t lab_differing(lab_t *lab, const void *a, const void *b, size_t bytes, uint64_t *differing_out);

/* ---- time ---- */

/* launch(context, round) puts the work of one round on lab->stream. A graph of `rounds` rounds is captured and replayed
 * for about `milliseconds`; the result is the median replay over its rounds, in microseconds. */
typedef struct {
    cot_status_t (*launch)(void *context, uint32_t round);
    void *context;
    uint32_t rounds;
    double milliseconds;
} lab_timing_t;
cot_status_t lab_time(lab_t *lab, const lab_timing_t *timing, double *microseconds_out);

double lab_seconds(void);

/* The largest of all ranks' values; collective. */
cot_status_t lab_largest(lab_t *lab, double *value);

/* Read bandwidth of a read-only kernel and the rate of an 8192^3 bf16 product of cuBLASLt, measured once a run. */
cot_status_t lab_limits(lab_t *lab);

/* The kernels' configuration of the model for this many rows and assignments. inv_freq is borrowed from `lab`. */
kern_config_t lab_kern_config(const lab_t *lab, uint32_t max_rows, uint32_t max_assignments);

/* ---- cuBLASLt, the yardstick ---- */

/* out[b] [m][n] fp32 or bf16 = x[b] [m][k] w[b] [n][k]^T, bf16, row-major, `batch` of them at fixed strides. */
typedef struct {
    uint32_t m, n, k, batch;
    const void *x, *w;
    void *out;
    bool out_f32;
} lab_blas_t;

typedef struct lab_blas_plan lab_blas_plan_t;
/* `algorithm`: 0 is the heuristic's first; split-K and stream-K forms are left out when `in_order`. COT_ERR_NOT_FOUND:
 * no such one. */
cot_status_t lab_blas_create(lab_t *lab, const lab_blas_t *product, bool in_order, uint32_t algorithm,
                             lab_blas_plan_t **plan_out);
void lab_blas_destroy(lab_blas_plan_t *plan);
cot_status_t lab_blas_run(const lab_blas_plan_t *plan, const lab_blas_t *product, cudaStream_t stream);

/* out [m][n] fp32 by mma.sync with K in order: the judge of bits. n and k multiples of 16; batch 1. */
cot_status_t lab_in_order(lab_t *lab, const lab_blas_t *product);

/* ---- stages ---- */
cot_status_t lab_stage_limits(lab_t *lab);
cot_status_t lab_stage_blocks(lab_t *lab);
cot_status_t lab_stage_exchange(lab_t *lab);
cot_status_t lab_stage_exchange_loop(lab_t *lab);
cot_status_t lab_stage_layer(lab_t *lab);
cot_status_t lab_stage_bits(lab_t *lab);
cot_status_t lab_stage_experts(lab_t *lab);
cot_status_t lab_stage_attention(lab_t *lab);
cot_status_t lab_stage_route(lab_t *lab);
cot_status_t lab_stage_sort(lab_t *lab);
cot_status_t lab_stage_rows(lab_t *lab);
cot_status_t lab_stage_sample(lab_t *lab);
cot_status_t lab_stage_product(lab_t *lab);

#endif
