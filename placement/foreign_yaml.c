/* The part of YAML that TensorRT-LLM's EPLB configurations are written in: a mapping of words to numbers, and one of
 * layer numbers to lists in brackets. Anything else is refused with its line. */
#include "placement/foreign_readers.h"

#include "base/file.h"

#include <ctype.h>
#include <string.h>

typedef struct {
    const char *at, *end;
    uint32_t line;
    place_slots_t *slots;
    uint64_t num_slots; /* 0: not stated */
    int64_t last_layer;
    uint32_t slots_of_layer; /* of the first layer */
} yaml_t;

static cot_status_t fail_yaml(const yaml_t *yaml, const char *wanted)
{
    return cot_fail(COT_ERR_FORMAT, "line %u: should go on with %s", yaml->line, wanted);
}

static bool is_at(const yaml_t *yaml, char c)
{
    return yaml->at < yaml->end && *yaml->at == c;
}

static void skip_blanks(yaml_t *yaml)
{
    while (yaml->at < yaml->end && (*yaml->at == ' ' || *yaml->at == '\r')) yaml->at++;
    if (is_at(yaml, '#'))
        while (yaml->at < yaml->end && *yaml->at != '\n') yaml->at++;
}

/* To the first mark of the next line that holds anything; false at the end. `indent_out` is its indentation. */
static bool next_line(yaml_t *yaml, size_t *indent_out)
{
    for (;;) {
        const char *begin = yaml->at;
        skip_blanks(yaml);
        if (yaml->at == yaml->end) return false;
        if (*yaml->at != '\n') {
            *indent_out = (size_t)(yaml->at - begin);
            return true;
        }
        yaml->at++;
        yaml->line++;
    }
}

static cot_status_t end_line(yaml_t *yaml)
{
    skip_blanks(yaml);
    if (yaml->at == yaml->end) return COT_OK;
    if (*yaml->at != '\n') return fail_yaml(yaml, "the end of the line");
    yaml->at++;
    yaml->line++;
    return COT_OK;
}

static cot_status_t read_number(yaml_t *yaml, uint64_t max, uint64_t *out)
{
    uint64_t value = 0;
    skip_blanks(yaml);
    if (yaml->at == yaml->end || !isdigit((unsigned char)*yaml->at)) return fail_yaml(yaml, "a whole number");
    for (; yaml->at < yaml->end && isdigit((unsigned char)*yaml->at); yaml->at++) {
        value = value * 10 + (uint64_t)(*yaml->at - '0');
        if (value > max)
            return cot_fail(COT_ERR_FORMAT, "line %u: a number is above %llu", yaml->line, (unsigned long long)max);
    }
    *out = value;
    return COT_OK;
}

/* Inside brackets a list may go on over several lines. */
static void skip_lines(yaml_t *yaml)
{
    for (skip_blanks(yaml); is_at(yaml, '\n'); skip_blanks(yaml)) {
        yaml->at++;
        yaml->line++;
    }
}

static cot_status_t read_list(yaml_t *yaml)
{
    uint32_t count = 0;
    skip_blanks(yaml);
    if (!is_at(yaml, '[')) return fail_yaml(yaml, "a list in brackets");
    yaml->at++;
    for (skip_lines(yaml); !is_at(yaml, ']'); skip_lines(yaml)) {
        uint64_t expert = 0;
        COT_TRY(read_number(yaml, PLACE_FOREIGN_MAX_EXPERTS - 1, &expert));
        COT_TRY(place_slots_add(yaml->slots, (int64_t)expert));
        count++;
        skip_lines(yaml);
        if (is_at(yaml, ','))
            yaml->at++;
        else if (!is_at(yaml, ']'))
            return fail_yaml(yaml, "a comma or a closing bracket");
    }
    yaml->at++;
    if (yaml->slots->layers == 0) yaml->slots_of_layer = count;
    if (count != yaml->slots_of_layer)
        return cot_fail(COT_ERR_FORMAT, "line %u: %u slots, the first layer has %u", yaml->line, count,
                        yaml->slots_of_layer);
    cot_status_t status = place_slots_deal(yaml->slots, count);
    return status == COT_OK ? end_line(yaml) : cot_fail_in(status, "line %u", yaml->line);
}

/* "  LAYER: [experts]", all with the indentation of the first. */
static cot_status_t read_assignments(yaml_t *yaml)
{
    size_t indent = 0, first = 0;
    COT_TRY(end_line(yaml));
    while (next_line(yaml, &indent) && indent > 0) {
        uint64_t layer = 0;
        if (first == 0) first = indent;
        if (indent != first) return fail_yaml(yaml, "the indentation of the lines before");
        COT_TRY(read_number(yaml, PLACE_FOREIGN_MAX_LAYERS - 1, &layer));
        if ((int64_t)layer <= yaml->last_layer)
            return cot_fail(COT_ERR_FORMAT, "line %u: layer %u does not come after layer %u", yaml->line,
                            (uint32_t)layer, (uint32_t)yaml->last_layer);
        yaml->last_layer = (int64_t)layer;
        const uint32_t number = (uint32_t)layer;
        COT_TRY(cot_buffer_append(&yaml->slots->layer, &number, sizeof(number)));
        skip_blanks(yaml);
        if (!is_at(yaml, ':')) return fail_yaml(yaml, "a colon");
        yaml->at++;
        COT_TRY(read_list(yaml));
    }
    return COT_OK;
}

static cot_status_t read_key(yaml_t *yaml)
{
    static const char *const NUMBERS[] = {"num_slots", "layer_updates_per_iter", "ep_size"};
    const char *begin = yaml->at;
    uint64_t value = 0;
    while (yaml->at < yaml->end && (isalnum((unsigned char)*yaml->at) || *yaml->at == '_')) yaml->at++;
    size_t length = (size_t)(yaml->at - begin);
    if (!is_at(yaml, ':')) return fail_yaml(yaml, "a key and a colon");
    yaml->at++;
    if (length == strlen("initial_global_assignments") && memcmp(begin, "initial_global_assignments", length) == 0)
        return read_assignments(yaml);
    for (size_t k = 0; k < 3; k++) {
        if (length != strlen(NUMBERS[k]) || memcmp(begin, NUMBERS[k], length) != 0) continue;
        COT_TRY(read_number(yaml, UINT32_MAX, &value));
        if (k == 0) yaml->num_slots = value;
        return end_line(yaml);
    }
    return cot_fail(COT_ERR_FORMAT, "line %u: the key \"%.*s\" is none of an EPLB configuration", yaml->line,
                    length < 40 ? (int)length : 40, begin);
}

static cot_status_t read_file(yaml_t *yaml)
{
    size_t indent = 0;
    while (next_line(yaml, &indent)) {
        if (indent > 0) return fail_yaml(yaml, "a key that is not indented");
        if (yaml->slots->layers == 0 && yaml->end - yaml->at >= 3 && memcmp(yaml->at, "---", 3) == 0) {
            yaml->at += 3;
            COT_TRY(end_line(yaml));
        } else {
            COT_TRY(read_key(yaml));
        }
    }
    if (yaml->num_slots != 0 && yaml->slots->layers > 0 && yaml->num_slots != yaml->slots_of_layer)
        return cot_fail(COT_ERR_FORMAT, "\"num_slots\" is %llu, the layers have %u",
                        (unsigned long long)yaml->num_slots, yaml->slots_of_layer);
    return COT_OK;
}

cot_status_t place_foreign_read_trtllm(const char *path, place_slots_t *slots)
{
    cot_map_t map;
    COT_TRY(cot_map_open(path, &map));
    slots->numbered = true;
    yaml_t yaml = {.line = 1, .slots = slots, .last_layer = -1};
    yaml.at = map.data != NULL ? (const char *)map.data : "";
    yaml.end = yaml.at + map.bytes;
    cot_status_t status = read_file(&yaml);
    cot_map_close(&map);
    return status == COT_OK ? COT_OK : cot_fail_in(status, "%s", path);
}
