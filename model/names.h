/* Names and shapes of an architecture's tensors, as on the hub. */
#ifndef MODEL_NAMES_H
#define MODEL_NAMES_H

#include "model/weights.h"

#define MODEL_NAME_BYTES 128

enum {
#define X(name) MODEL_COUNTED_##name,
    MODEL_ROLE_MAP(X)
#undef X
        MODEL_ROLE_COUNT
};

bool model_role_in_layer(model_role_t role);
bool model_role_of_expert(model_role_t role);
bool model_role_is_vector(model_role_t role); /* norms and biases: one dimension in the files */
void model_tensor_name(const model_config_t *config, model_role_t role, uint32_t layer, uint32_t expert,
                       char name[MODEL_NAME_BYTES]);
/* [rows, cols]; [n, 1] for a vector. */
void model_tensor_shape(const model_config_t *config, model_role_t role, uint64_t shape[2]);

#endif
