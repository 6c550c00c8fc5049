/* Which keys of config.json are understood, harmless, or to be refused by name. */
#ifndef MODEL_CONFIG_KEYS_H
#define MODEL_CONFIG_KEYS_H

#include "base/json.h"
#include "model/config.h"

/* null, false, 0, "", [] and {} ask for nothing; neither does an absent key (NULL). */
bool model_asks_nothing(const json_t *value);

/* COT_ERR_UNSUPPORTED for a key that may change the mathematics and that this family does not have. */
cot_status_t model_config_check_keys(const json_t *root, model_family_t family);

#endif
