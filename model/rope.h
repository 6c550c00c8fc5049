/* Rotary position embedding: the inverse frequencies after scaling. */
#ifndef MODEL_ROPE_H
#define MODEL_ROPE_H

#include "base/json.h"
#include "model/config.h"

/* Reads rope_theta, rope_scaling or rope_parameters and fills inv_freq, rope_factor. `theta` is the family's default.
 * default, linear and yarn are supported, as in transformers' modeling_rope_utils; others are refused by name. */
cot_status_t model_rope_read(const json_t *root, double theta, model_config_t *config);

#endif
