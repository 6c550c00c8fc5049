/* Made-up weights: each value is a function of (seed, tensor name, index), so that every rank makes the same. */
#ifndef MODEL_DUMMY_H
#define MODEL_DUMMY_H

#include "base/safetensors.h"

/* Owns the tensors made so far. Thread-safe. */
typedef struct model_dummy model_dummy_t;

cot_status_t model_dummy_create(uint64_t seed, model_dummy_t **dummy_out);
void model_dummy_destroy(model_dummy_t *dummy);
/* Made at the first call; bf16. Norm weights (names that hold "norm") are about 1, all others about 0. */
cot_status_t model_dummy_get(model_dummy_t *dummy, const char *name, const uint64_t shape[2],
                             const cot_tensor_t **tensor_out);

/* The same values into memory of the caller's. */
void model_dummy_fill(const model_dummy_t *dummy, const char *name, const uint64_t shape[2], uint16_t *out);

#endif
