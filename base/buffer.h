/* A growing byte buffer, for messages and text that is put together. */
#ifndef COT_BUFFER_H
#define COT_BUFFER_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

/* Zero-initialised is empty. Owns `data`; free it with cot_buffer_free. */
typedef struct {
    uint8_t *data;
    size_t size, capacity;
} cot_buffer_t;

void cot_buffer_free(cot_buffer_t *buffer);
void cot_buffer_clear(cot_buffer_t *buffer); /* size 0, memory kept */
cot_status_t cot_buffer_reserve(cot_buffer_t *buffer, size_t capacity);
cot_status_t cot_buffer_append(cot_buffer_t *buffer, const void *bytes, size_t count);
/* Appends `count` zeroed bytes and returns them through `space_out` (valid until the buffer grows). */
cot_status_t cot_buffer_extend(cot_buffer_t *buffer, size_t count, void **space_out);
__attribute__((format(printf, 2, 3))) cot_status_t cot_buffer_printf(cot_buffer_t *buffer, const char *format, ...);
/* Appends `text` (UTF-8) as a JSON string with its quotes; control bytes and U+0000 escaped. */
cot_status_t cot_buffer_json_string(cot_buffer_t *buffer, const char *text, size_t bytes);
/* Drops the first `count` bytes. */
void cot_buffer_consume(cot_buffer_t *buffer, size_t count);

#endif
