#include "placement/shape_options.h"

#include "base/memory.h"

#include <ctype.h>
#include <stdlib.h>

enum { LAYERS_MAX = 4096 };

void place_shape_free(place_shape_t *shape)
{
    cot_free(shape->layer_index);
    place_model_destroy(shape->model);
    *shape = (place_shape_t){0};
}

static bool read_layer(const char **text, uint32_t *out)
{
    char *end;
    if (!isdigit((unsigned char)**text)) return false;
    unsigned long value = strtoul(*text, &end, 10);
    *text = end;
    *out = (uint32_t)value;
    return value < LAYERS_MAX;
}

cot_status_t place_layers_parse(const char *text, uint32_t **layer_index_out, uint32_t *layers_out)
{
    uint32_t layers = 0, *index = cot_calloc(LAYERS_MAX, sizeof(*index));
    if (index == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the layers");
    for (const char *at = text;; at++) {
        uint32_t from = 0, to = 0;
        bool sound = read_layer(&at, &from);
        to = from;
        if (sound && *at == '-') at++, sound = read_layer(&at, &to);
        sound &= from <= to && (layers == 0 || from > index[layers - 1]);
        if (!sound || (*at != ',' && *at != '\0')) {
            cot_free(index);
            return cot_fail(COT_ERR_INVALID,
                            "--layers must be ascending layer numbers below %d, like 3-60 or 1,3,5, not \"%.40s\"",
                            LAYERS_MAX, text);
        }
        for (; from <= to; from++) index[layers++] = from;
        if (*at == '\0') break;
    }
    *layer_index_out = index;
    *layers_out = layers;
    return COT_OK;
}

static cot_status_t load(const cot_settings_t *settings, place_shape_t *shape)
{
    const char *model = cot_settings_string(settings, COT_SET_MODEL);
    const char *layers = cot_settings_string(settings, COT_SET_LAYERS);
    int64_t experts = cot_settings_int(settings, COT_SET_EXPERTS), top_k = cot_settings_int(settings, COT_SET_TOP_K);
    if (experts > 65536 || top_k > 65536)
        return cot_fail(COT_ERR_INVALID, "--experts and --top-k must be at most 65536");
    shape->experts = (uint32_t)experts;
    shape->top_k = (uint32_t)top_k;
    if (model[0] != '\0') COT_TRY(place_model_load(model, &shape->model));
    return layers[0] != '\0' ? place_layers_parse(layers, &shape->layer_index, &shape->layers) : COT_OK;
}

cot_status_t place_shape_load(const cot_settings_t *settings, place_shape_t *shape_out)
{
    place_shape_t shape = {0};
    cot_status_t status = load(settings, &shape);
    if (status != COT_OK) {
        place_shape_free(&shape);
        return status;
    }
    *shape_out = shape;
    return COT_OK;
}
