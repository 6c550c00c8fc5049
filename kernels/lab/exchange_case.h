/* The exchange between GPUs with rows whose content is known: checks, times, and a loop that a dead peer interrupts. */
#ifndef LAB_EXCHANGE_CASE_H
#define LAB_EXCHANGE_CASE_H

#include "comm/gpu.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { LAB_SPREAD, LAB_ALL_TO_ONE, LAB_NOBODY, LAB_LAST_RANK_IDLE, LAB_PATTERNS } lab_pattern_t;

typedef struct {
    comm_gpu_t *gpu;
    uint32_t me, ranks, tokens, top_k, experts, row_bytes;
    lab_pattern_t pattern;
    uint32_t seed;
} lab_exchange_t;

/* Dispatch and return, twice plain and twice from one captured graph; every slot, row and token in the slab and every
 * output at home is compared with what it must be. Adds the wrong ones to *wrong_out. */
cot_status_t lab_exchange_check(const lab_exchange_t *x, uint64_t *wrong_out);

/* Median time of one dispatch, and of one return that moves outputs, in a graph of many. */
typedef struct {
    double dispatch_us, return_us;
} lab_exchange_time_t;
cot_status_t lab_exchange_time(const lab_exchange_t *x, lab_exchange_time_t *time_out);

/* Replays a graph of exchanges until a peer is missing or `seconds` are over; the status says which. */
cot_status_t lab_exchange_loop(const lab_exchange_t *x, int seconds, uint64_t *steps_out);

#ifdef __cplusplus
}
#endif

#endif
