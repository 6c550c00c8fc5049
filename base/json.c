#include "base/json.h"

#include "base/file.h"
#include "base/memory.h"

void cot_json_setup(void)
{
    /* Spared: jansson 2.14 writes through the NULL of a failed allocation while it reads a string. */
    json_set_alloc_funcs(cot_alloc_spared, cot_free);
}

cot_status_t cot_json_load_bytes(const char *bytes, size_t count, const char *what, json_t **root_out)
{
    json_error_t error;
    json_t *root = json_loadb(bytes, count, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (root == NULL)
        return cot_fail(COT_ERR_FORMAT, "%s: line %d column %d: %s", what, error.line, error.column, error.text);
    *root_out = root;
    return COT_OK;
}

cot_status_t cot_json_load_file(const char *path, size_t limit, json_t **root_out)
{
    char *text = NULL;
    size_t bytes = 0;
    COT_TRY(cot_file_read(path, limit, &text, &bytes));
    cot_status_t status = cot_json_load_bytes(text, bytes, path, root_out);
    cot_free(text);
    return status;
}

/* The value of a key, or NULL where it is absent or null. */
static const json_t *value_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return value == NULL || json_is_null(value) ? NULL : value;
}

cot_status_t cot_json_get_uint(const json_t *object, const char *key, uint64_t max, uint64_t *out)
{
    const json_t *value = value_of(object, key);
    if (value == NULL) return COT_OK;
    if (!json_is_integer(value) || json_integer_value(value) < 0 || (uint64_t)json_integer_value(value) > max)
        return cot_fail(COT_ERR_FORMAT, "\"%s\" must be an integer from 0 to %llu", key, (unsigned long long)max);
    *out = (uint64_t)json_integer_value(value);
    return COT_OK;
}

cot_status_t cot_json_get_u32(const json_t *object, const char *key, uint32_t *out)
{
    uint64_t wide = *out;
    COT_TRY(cot_json_get_uint(object, key, UINT32_MAX, &wide));
    *out = (uint32_t)wide;
    return COT_OK;
}

cot_status_t cot_json_get_double(const json_t *object, const char *key, double *out)
{
    const json_t *value = value_of(object, key);
    if (value == NULL) return COT_OK;
    if (!json_is_number(value)) return cot_fail(COT_ERR_FORMAT, "\"%s\" must be a number", key);
    *out = json_number_value(value);
    return COT_OK;
}

cot_status_t cot_json_get_bool(const json_t *object, const char *key, bool *out)
{
    const json_t *value = value_of(object, key);
    if (value == NULL) return COT_OK;
    if (!json_is_boolean(value)) return cot_fail(COT_ERR_FORMAT, "\"%s\" must be true or false", key);
    *out = json_is_true(value);
    return COT_OK;
}

cot_status_t cot_json_get_string(const json_t *object, const char *key, const char **out)
{
    const json_t *value = value_of(object, key);
    if (value == NULL) return COT_OK;
    if (!json_is_string(value)) return cot_fail(COT_ERR_FORMAT, "\"%s\" must be a string", key);
    *out = json_string_value(value);
    return COT_OK;
}
