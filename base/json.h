/* jansson with our allocator and our errors. A fault names the file and the key or line. */
#ifndef COT_JSON_H
#define COT_JSON_H

#include "base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Call once at start: jansson allocates through base/memory.h. */
void cot_json_setup(void);

/* Owned by the caller: json_decref. Duplicate keys are refused. `limit` bounds the file, in bytes. */
cot_status_t cot_json_load_file(const char *path, size_t limit, json_t **root_out);
cot_status_t cot_json_load_bytes(const char *bytes, size_t count, const char *what, json_t **root_out);

/* Typed getters. Absent: *out stays as it is and OK is returned (the caller's default). null counts as absent.
 * Wrong type or range: COT_ERR_FORMAT with the key's name. */
cot_status_t cot_json_get_uint(const json_t *object, const char *key, uint64_t max, uint64_t *out);
cot_status_t cot_json_get_u32(const json_t *object, const char *key, uint32_t *out);
cot_status_t cot_json_get_double(const json_t *object, const char *key, double *out);
cot_status_t cot_json_get_bool(const json_t *object, const char *key, bool *out);
cot_status_t cot_json_get_string(const json_t *object, const char *key, const char **out); /* borrowed */

#endif
