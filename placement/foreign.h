/* Placements of other programs: `coterie convert`. docs/formats.md describes the formats. */
#ifndef PLACE_FOREIGN_H
#define PLACE_FOREIGN_H

#include "placement/model.h"
#include "placement/plan.h"

typedef enum {
    PLACE_FOREIGN_TRTLLM,  /* TensorRT-LLM's EPLB configuration (YAML) */
    PLACE_FOREIGN_ASCEND,  /* vllm-ascend's expert_map.json */
    PLACE_FOREIGN_PHY2LOG, /* DeepSeek EPLB's phy2log, .npy [layers, slots] */
} place_foreign_t;

/* What the file does not say, or must agree with; 0 or NULL: not known. Borrows everything. */
typedef struct {
    uint32_t ranks, experts;
    uint32_t layers;
    const uint32_t *layer_index; /* [layers] */
    const place_model_t *model;
} place_foreign_shape_t;

/* By name: trtllm, ascend or phy2log; by default from the ending (.yaml or .yml, .json, .npy). */
cot_status_t place_foreign_format(const char *name, const char *path, place_foreign_t *format_out);

/* An expert twice on one rank of a layer is merged into one slot, with a warning that counts them. COT_ERR_FORMAT names
 * the line, byte or layer of a fault, or the expert that stands on no rank. */
cot_status_t place_foreign_load(place_foreign_t format, const char *path, const place_foreign_shape_t *shape,
                                place_plan_t **plan_out);

/* These formats give every rank equally many slots in every layer: ranks with fewer experts hold some of them twice,
 * with a warning (reading merges them again). COT_ERR_UNSUPPORTED if a rank has no expert to hold twice. */
cot_status_t place_foreign_save(place_foreign_t format, const char *path, const place_plan_t *plan);

#endif
