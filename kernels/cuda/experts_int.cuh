/* What the forms of the experts stage share. */
#ifndef KERN_CUDA_EXPERTS_INT_CUH
#define KERN_CUDA_EXPERTS_INT_CUH

#include "kernels/cuda/cuda_int.cuh"

/* Cells of kern->counters, all 0 between launches. */
enum { COUNTER_MET, COUNTER_CHUNK, COUNTER_CHUNK_OF_DOWN, COUNTER_LEFT, COUNTER_COUNT };
static_assert(COUNTER_COUNT <= KERN_COUNTERS, "more counters than the instance has");

struct experts_params {
    uint32_t slots, hidden, width;
    uint32_t light_rows; /* an expert with at most so many rows streams its weights once; at most 256 */
    const uint16_t *x;   /* [*][hidden] */
    const uint32_t *row, *order, *slot_begin;
    uint16_t *middle;    /* [assignments][width] */
    uint16_t *y;         /* [assignments][hidden] */
    void *const *y_base; /* see kern_experts_args_t */
    uint32_t per_base;
    unsigned long long *counters;
};

/* One launch on sm_90a; two on any other device. */
cot_status_t kern_cuda_experts_wgmma(kern_t *kern, const kern_bank_t *bank, const experts_params *params);
cot_status_t kern_cuda_experts_mma(kern_t *kern, const kern_bank_t *bank, const experts_params *params);

#endif
