/* What a model's config.json says about its experts: enough to plan and to check traces by. The engine's own reading is
 * model/config.h; this one also takes models that the engine does not run (DeepSeek, say). */
#ifndef PLACE_MODEL_H
#define PLACE_MODEL_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

/* Owns layer_index. Immutable once made. */
typedef struct {
    char name[128];   /* of the directory that holds config.json */
    char sha256[65];  /* of config.json's bytes */
    uint32_t experts; /* routed experts of an MoE layer */
    uint32_t top_k;
    uint32_t layers;       /* MoE layers */
    uint32_t *layer_index; /* [layers] the model's layer numbers, ascending */
    uint32_t row_bytes;    /* of one dispatched row at the checkpoint's dtype: hidden x 2 or 4 */
    uint64_t expert_bytes; /* weights of one expert: 3 x hidden x width x 2 or 4 */
} place_model_t;

/* `path` is config.json or the directory that holds it. COT_ERR_FORMAT names the key that is missing or wrong. */
cot_status_t place_model_load(const char *path, place_model_t **model_out);
cot_status_t place_model_parse(const char *text, size_t bytes, place_model_t **model_out);
void place_model_destroy(place_model_t *model);

/* COT_ERR_MISMATCH, in one sentence, if a trace or a plan of these experts and layers is not of this model. top_k 0 and
 * layer_index NULL: not known, not compared. */
cot_status_t place_model_check(const place_model_t *model, uint32_t experts, uint32_t top_k, uint32_t layers,
                               const uint32_t *layer_index);

#endif
