/* One truth for every way to compute a row: the stack of layer_case.h is fed the same sequences alone and together,
 * whole and in pieces, padded and not, on one GPU and on all of the group, under every placement, form and transport.
 */
#ifndef LAB_BITS_CASE_H
#define LAB_BITS_CASE_H

#include "kernels/lab/layer_case.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Told after each way: how many rows it compared and how many differed (the first one is named). */
typedef void (*lab_bits_told_t)(void *user, const char *way, uint64_t rows, uint64_t wrong, const char *first_wrong);

/* `config` as for lab_stack_create, with first, ranks and link of all GPUs; sequences, context and max_tokens are set
 * here. Collective. Adds the rows that differ to *wrong_out. */
cot_status_t lab_bits_run(const lab_stack_config_t *config, lab_bits_told_t told, void *user, uint64_t *wrong_out);

#ifdef __cplusplus
}
#endif

#endif
