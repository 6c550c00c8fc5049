/* What both host backends share: memory, sorting, sampling. */
#ifndef KERN_INT_H
#define KERN_INT_H

#include "kernels/kern.h"

/* The checks of create that hold for any backend. */
cot_status_t kern_config_check(const kern_config_t *config);

/* kern_ops_t.alloc and .free on the host. */
void *kern_host_alloc(kern_t *kern, size_t bytes);
void kern_host_free(kern_t *kern, void *memory);

/* A weight in the type that products are taken in: bf16 when activations are (float32 weights are rounded into a copy),
 * as it lies when they are float32. */
cot_status_t kern_host_matrix(kern_dtype_t act, const void *data, kern_dtype_t dtype, const uint32_t shape[2],
                              kern_matrix_t *matrix_out);
void kern_host_matrix_destroy(kern_t *kern, kern_matrix_t *matrix);

cot_status_t kern_sort(kern_t *kern, const kern_sort_args_t *args);

/* The K largest logits (logit descending, id ascending; NaN as minus infinity), K distinct ids whatever the logits. */
void kern_top_k(const float *logits, uint32_t count, uint32_t top_k, int32_t *expert_out);

/* One draw. `scratch` holds kern_sample_scratch_bytes(vocab) bytes, aligned for float. */
size_t kern_sample_scratch_bytes(uint32_t vocab);
void kern_sample_one(const kern_draw_t *draw, uint32_t vocab, void *scratch, kern_drawn_t *drawn_out);

/* Philox-4x32-10 (Salmon et al., 2011). */
void kern_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

#endif
