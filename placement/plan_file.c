/* *.plan.json: reading with every rule of DESIGN.md section 6 checked, and writing one line per layer. */
#include "placement/plan.h"

#include "base/file.h"
#include "base/memory.h"

#include <string.h>

#define PLAN_FORMAT "coterie.plan/1"
#define PLAN_FILE_MAX ((size_t)256 << 20)
#define PLAN_MAX_LAYERS 4096U
#define PLAN_MAX_EXPERTS 65536U
#define PLAN_MAX_RANKS 65536U

/* Reads a JSON integer in [0, max]. */
static cot_status_t read_id(const json_t *value, uint32_t max, const char *what, uint32_t layer, uint32_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > (json_int_t)max)
        return cot_fail(COT_ERR_FORMAT, "layer %u: %s must be an integer from 0 to %u", layer, what, max);
    *out = (uint32_t)json_integer_value(value);
    return COT_OK;
}

/* Counts slots and finds the highest expert, so that the arrays can be taken in one piece. */
static cot_status_t measure(const json_t *layers, uint32_t ranks, size_t *slots_out, uint32_t *experts_out)
{
    size_t slots = 0;
    uint32_t highest = 0;
    size_t index;
    json_t *entry;
    json_array_foreach(layers, index, entry)
    {
        const json_t *lists = json_object_get(entry, "ranks");
        if (!json_is_array(lists) || json_array_size(lists) != ranks)
            return cot_fail(COT_ERR_FORMAT, "entry %zu of \"layers\" must hold \"ranks\", a list of %u lists", index,
                            ranks);
        size_t rank, place;
        json_t *list, *value;
        json_array_foreach(lists, rank, list)
        {
            if (!json_is_array(list))
                return cot_fail(COT_ERR_FORMAT, "entry %zu of \"layers\": rank %zu must be a list of experts", index,
                                rank);
            json_array_foreach(list, place, value)
            {
                uint32_t expert = 0;
                COT_TRY(read_id(value, PLAN_MAX_EXPERTS - 1, "an expert", (uint32_t)index, &expert));
                if (expert > highest) highest = expert;
            }
            slots += json_array_size(list);
        }
    }
    *slots_out = slots;
    *experts_out = highest + 1;
    return COT_OK;
}

/* Reads the lists of one layer and sees that each expert stands somewhere and nowhere twice. */
static cot_status_t read_layer(place_plan_t *plan, uint32_t layer, const json_t *entry, uint32_t *last_seen)
{
    uint32_t index = 0;
    COT_TRY(read_id(json_object_get(entry, "layer"), PLAN_MAX_LAYERS, "\"layer\"", layer, &index));
    if (layer > 0 && index <= plan->layer_index[layer - 1])
        return cot_fail(COT_ERR_FORMAT, "layer %u does not come after layer %u: layers stand once, in ascending order",
                        index, plan->layer_index[layer - 1]);
    plan->layer_index[layer] = index;

    /* last_seen[expert] is 1 + the last (layer, rank) pair that held it. */
    uint32_t base = layer * plan->ranks;
    const json_t *lists = json_object_get(entry, "ranks");
    for (uint32_t rank = 0; rank < plan->ranks; rank++) {
        uint32_t slot = plan->slot_begin[base + rank];
        size_t place;
        json_t *value;
        json_array_foreach(json_array_get(lists, rank), place, value)
        {
            uint32_t expert = (uint32_t)json_integer_value(value);
            if (last_seen[expert] == base + rank + 1)
                return cot_fail(COT_ERR_FORMAT, "layer %u: expert %u stands twice on rank %u; remove one", index,
                                expert, rank);
            last_seen[expert] = base + rank + 1;
            plan->slot_expert[slot++] = expert;
        }
        plan->slot_begin[base + rank + 1] = slot;
    }
    for (uint32_t expert = 0; expert < plan->experts; expert++)
        if (last_seen[expert] <= base)
            return cot_fail(COT_ERR_FORMAT, "layer %u: expert %u stands on no rank; every expert must stand somewhere",
                            index, expert);
    return COT_OK;
}

static cot_status_t copy_string(const json_t *object, const char *key, char **out)
{
    const char *text = NULL;
    COT_TRY(cot_json_get_string(object, key, &text));
    if (text == NULL) return COT_OK;
    *out = cot_strdup(text);
    return *out != NULL ? COT_OK : cot_fail(COT_ERR_NO_MEMORY, "no memory for \"%s\"", key);
}

/* Names, and whatever else people wrote, survive a round trip. */
static cot_status_t read_notes(place_plan_t *plan, const json_t *root, uint64_t *experts)
{
    const json_t *model = json_object_get(root, "model");
    if (model != NULL && !json_is_object(model)) return cot_fail(COT_ERR_FORMAT, "\"model\" must be an object");
    if (model != NULL) {
        COT_TRY(copy_string(model, "name", &plan->model_name));
        COT_TRY(copy_string(model, "config_sha256", &plan->config_sha256));
        COT_TRY(cot_json_get_uint(model, "experts", PLAN_MAX_EXPERTS, experts));
    }
    COT_TRY(copy_string(root, "exchange", &plan->exchange));

    plan->extra = json_object();
    if (plan->extra == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a plan's notes");
    static const char *const NOTES[] = {"objective", "made_by", "traces"};
    for (size_t note = 0; note < sizeof(NOTES) / sizeof(*NOTES); note++) {
        json_t *value = json_object_get(root, NOTES[note]);
        if (value != NULL && json_object_set(plan->extra, NOTES[note], value) != 0)
            return cot_fail(COT_ERR_NO_MEMORY, "no memory for a plan's notes");
    }
    return COT_OK;
}

static cot_status_t read_layers(place_plan_t *plan, const json_t *layers, uint64_t stated_experts)
{
    size_t slots = 0;
    COT_TRY(measure(layers, plan->ranks, &slots, &plan->experts));
    if (stated_experts != 0 && plan->experts > stated_experts)
        return cot_fail(COT_ERR_FORMAT, "expert %u is placed, but \"model\" states %u experts", plan->experts - 1,
                        (unsigned)stated_experts);
    if (stated_experts != 0) plan->experts = (uint32_t)stated_experts;

    plan->layer_index = cot_calloc(plan->layers, sizeof(*plan->layer_index));
    plan->slot_begin = cot_calloc((size_t)plan->layers * plan->ranks + 1, sizeof(*plan->slot_begin));
    plan->slot_expert = cot_calloc(slots, sizeof(*plan->slot_expert));
    uint32_t *last_seen = cot_calloc(plan->experts, sizeof(*last_seen));
    cot_status_t status = COT_OK;
    if (plan->layer_index == NULL || plan->slot_begin == NULL || plan->slot_expert == NULL || last_seen == NULL)
        status = cot_fail(COT_ERR_NO_MEMORY, "no memory for a plan of %zu slots", slots);
    for (uint32_t layer = 0; layer < plan->layers && status == COT_OK; layer++)
        status = read_layer(plan, layer, json_array_get(layers, layer), last_seen);
    cot_free(last_seen);
    return status;
}

static cot_status_t read_plan(place_plan_t *plan, const json_t *root)
{
    const char *format = "";
    COT_TRY(cot_json_get_string(root, "format", &format));
    if (strcmp(format, PLAN_FORMAT) != 0)
        return cot_fail(COT_ERR_FORMAT, "\"format\" must be \"" PLAN_FORMAT "\": this is no placement plan");
    uint64_t ranks = 0;
    COT_TRY(cot_json_get_uint(root, "ranks", PLAN_MAX_RANKS, &ranks));
    const json_t *layers = json_object_get(root, "layers");
    if (ranks == 0) return cot_fail(COT_ERR_FORMAT, "\"ranks\" must be the number of workers, at least 1");
    if (!json_is_array(layers) || json_array_size(layers) == 0 || json_array_size(layers) > PLAN_MAX_LAYERS)
        return cot_fail(COT_ERR_FORMAT, "\"layers\" must be a list of 1 to %u layers", PLAN_MAX_LAYERS);
    plan->ranks = (uint32_t)ranks;
    plan->layers = (uint32_t)json_array_size(layers);

    uint64_t stated_experts = 0;
    COT_TRY(read_notes(plan, root, &stated_experts));
    return read_layers(plan, layers, stated_experts);
}

cot_status_t place_plan_parse(const char *text, size_t bytes, const char *what, place_plan_t **plan_out)
{
    json_t *root = NULL;
    COT_TRY(cot_json_load_bytes(text, bytes, what, &root));
    place_plan_t *plan = cot_calloc(1, sizeof(*plan));
    cot_status_t status = plan != NULL ? read_plan(plan, root)
                                       : cot_fail(COT_ERR_NO_MEMORY, "no memory for a placement plan");
    json_decref(root);
    if (status != COT_OK) {
        place_plan_destroy(plan);
        return cot_fail_in(status, "%s", what);
    }
    *plan_out = plan;
    return COT_OK;
}

cot_status_t place_plan_load(const char *path, place_plan_t **plan_out)
{
    char *text = NULL;
    size_t bytes = 0;
    COT_TRY(cot_file_read(path, PLAN_FILE_MAX, &text, &bytes));
    cot_status_t status = place_plan_parse(text, bytes, path, plan_out);
    cot_free(text);
    return status;
}

static cot_status_t print_string(cot_buffer_t *out, const char *text)
{
    return cot_buffer_json_string(out, text, strlen(text));
}

static cot_status_t print_head(const place_plan_t *plan, cot_buffer_t *out)
{
    COT_TRY(cot_buffer_printf(out, "{\"format\": \"" PLAN_FORMAT "\",\n \"model\": {"));
    if (plan->model_name != NULL) {
        COT_TRY(cot_buffer_printf(out, "\"name\": "));
        COT_TRY(print_string(out, plan->model_name));
        COT_TRY(cot_buffer_printf(out, ", "));
    }
    if (plan->config_sha256 != NULL) {
        COT_TRY(cot_buffer_printf(out, "\"config_sha256\": "));
        COT_TRY(print_string(out, plan->config_sha256));
        COT_TRY(cot_buffer_printf(out, ", "));
    }
    COT_TRY(cot_buffer_printf(out, "\"experts\": %u},\n", plan->experts));
    if (plan->exchange != NULL) {
        COT_TRY(cot_buffer_printf(out, " \"exchange\": "));
        COT_TRY(print_string(out, plan->exchange));
        COT_TRY(cot_buffer_printf(out, ",\n"));
    }
    return cot_buffer_printf(out, " \"ranks\": %u,\n \"layers\": [\n", plan->ranks);
}

static cot_status_t print_layer(const place_plan_t *plan, uint32_t layer, cot_buffer_t *out)
{
    COT_TRY(cot_buffer_printf(out, "  {\"layer\": %u, \"ranks\": [", plan->layer_index[layer]));
    for (uint32_t rank = 0; rank < plan->ranks; rank++) {
        const uint32_t *begin = plan->slot_begin + (size_t)layer * plan->ranks + rank;
        COT_TRY(cot_buffer_printf(out, rank > 0 ? ", [" : "["));
        for (uint32_t slot = begin[0]; slot < begin[1]; slot++)
            COT_TRY(cot_buffer_printf(out, slot > begin[0] ? ", %u" : "%u", plan->slot_expert[slot]));
        COT_TRY(cot_buffer_printf(out, "]"));
    }
    return cot_buffer_printf(out, layer + 1 < plan->layers ? "]},\n" : "]}\n");
}

cot_status_t place_plan_print(const place_plan_t *plan, cot_buffer_t *out)
{
    COT_TRY(print_head(plan, out));
    for (uint32_t layer = 0; layer < plan->layers; layer++) COT_TRY(print_layer(plan, layer, out));
    COT_TRY(cot_buffer_printf(out, " ]"));
    const char *key;
    json_t *value;
    json_object_foreach(plan->extra, key, value)
    {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
        if (text == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory to print a plan's \"%s\"", key);
        cot_status_t status = cot_buffer_printf(out, ",\n \"%s\": %s", key, text);
        cot_free(text);
        COT_TRY(status);
    }
    return cot_buffer_printf(out, "}\n");
}

cot_status_t place_plan_save(const place_plan_t *plan, const char *path)
{
    cot_buffer_t text = {0};
    cot_status_t status = place_plan_print(plan, &text);
    if (status == COT_OK) status = cot_file_write(path, text.data, text.size);
    cot_buffer_free(&text);
    return status;
}
