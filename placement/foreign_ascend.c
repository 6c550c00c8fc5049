/* vllm-ascend's expert_map.json: layers and devices by their ordinal numbers. */
#include "placement/foreign_readers.h"

#include "base/json.h"

#define FILE_MAX ((size_t)256 << 20)

static cot_status_t read_ordinal(const json_t *object, const char *key, size_t wanted)
{
    uint64_t value = UINT64_MAX;
    COT_TRY(cot_json_get_uint(object, key, UINT32_MAX, &value));
    if (value != wanted)
        return cot_fail(COT_ERR_FORMAT, "entry %zu must have the \"%s\" %zu: they stand in order from 0", wanted, key,
                        wanted);
    return COT_OK;
}

static cot_status_t read_device(place_slots_t *slots, const json_t *device, size_t index)
{
    const json_t *experts = json_object_get(device, "device_expert");
    if (!json_is_array(experts)) return cot_fail(COT_ERR_FORMAT, "device %zu: \"device_expert\" must be a list", index);
    COT_TRY(read_ordinal(device, "device_id", index));
    for (size_t i = 0; i < json_array_size(experts); i++) {
        const json_t *expert = json_array_get(experts, i);
        if (!json_is_integer(expert))
            return cot_fail(COT_ERR_FORMAT, "device %zu: an expert must be a whole number", index);
        COT_TRY(place_slots_add(slots, json_integer_value(expert)));
    }
    const uint32_t count = (uint32_t)json_array_size(experts);
    return cot_buffer_append(&slots->count, &count, sizeof(count));
}

static cot_status_t read_layer(place_slots_t *slots, const json_t *layer, size_t index)
{
    const json_t *devices = json_object_get(layer, "device_list");
    size_t count = json_array_size(devices);
    uint64_t stated = count;
    COT_TRY(read_ordinal(layer, "layer_id", index));
    COT_TRY(cot_json_get_uint(layer, "device_count", UINT32_MAX, &stated));
    if (count == 0 || count > PLACE_FOREIGN_MAX_RANKS || stated != count)
        return cot_fail(COT_ERR_FORMAT, "\"device_list\" must hold \"device_count\" devices, from 1 to %u",
                        PLACE_FOREIGN_MAX_RANKS);
    if (slots->ranks == 0) slots->ranks = (uint32_t)count;
    if (slots->ranks != count)
        return cot_fail(COT_ERR_MISMATCH, "%zu devices, where there are %u", count, slots->ranks);
    for (size_t d = 0; d < count; d++) COT_TRY(read_device(slots, json_array_get(devices, d), d));
    slots->layers++;
    return COT_OK;
}

static cot_status_t read_layers(place_slots_t *slots, const json_t *root)
{
    const json_t *list = json_object_get(root, "layer_list");
    size_t layers = json_array_size(list);
    uint64_t stated = layers;
    COT_TRY(cot_json_get_uint(root, "moe_layer_count", UINT32_MAX, &stated));
    if (layers == 0 || layers > PLACE_FOREIGN_MAX_LAYERS || stated != layers)
        return cot_fail(COT_ERR_FORMAT, "\"layer_list\" must hold \"moe_layer_count\" layers, from 1 to %u",
                        PLACE_FOREIGN_MAX_LAYERS);
    for (size_t l = 0; l < layers; l++) {
        cot_status_t status = read_layer(slots, json_array_get(list, l), l);
        if (status != COT_OK) return cot_fail_in(status, "entry %zu of \"layer_list\"", l);
    }
    return COT_OK;
}

cot_status_t place_foreign_read_ascend(const char *path, place_slots_t *slots)
{
    json_t *root = NULL;
    COT_TRY(cot_json_load_file(path, FILE_MAX, &root));
    cot_status_t status = read_layers(slots, root);
    json_decref(root);
    return status == COT_OK ? COT_OK : cot_fail_in(status, "%s", path);
}
