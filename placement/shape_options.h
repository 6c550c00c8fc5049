/* --model, --experts, --top-k and --layers: what a file of another program does not say. */
#ifndef PLACE_SHAPE_OPTIONS_H
#define PLACE_SHAPE_OPTIONS_H

#include "base/settings.h"
#include "placement/model.h"

/* Owns its arrays; free with place_shape_free. */
typedef struct {
    uint32_t experts, top_k; /* 0: not given */
    uint32_t layers;
    uint32_t *layer_index; /* [layers] ascending; NULL: not given */
    place_model_t *model;  /* NULL: not given */
} place_shape_t;

cot_status_t place_shape_load(const cot_settings_t *settings, place_shape_t *shape_out);
void place_shape_free(place_shape_t *shape);

/* "3-60" or "1,3,5-7": at most 4096 ascending layer numbers. */
cot_status_t place_layers_parse(const char *text, uint32_t **layer_index_out, uint32_t *layers_out);

#endif
