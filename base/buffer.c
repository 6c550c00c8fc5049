#include "base/buffer.h"

#include "base/memory.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void cot_buffer_free(cot_buffer_t *buffer)
{
    cot_free(buffer->data);
    *buffer = (cot_buffer_t){0};
}

void cot_buffer_clear(cot_buffer_t *buffer)
{
    buffer->size = 0;
}

cot_status_t cot_buffer_reserve(cot_buffer_t *buffer, size_t capacity)
{
    if (capacity <= buffer->capacity) return COT_OK;
    size_t grown = buffer->capacity < 64 ? 64 : buffer->capacity;
    while (grown < capacity) grown = grown > SIZE_MAX / 2 ? capacity : grown * 2;
    uint8_t *data = cot_realloc(buffer->data, grown);
    if (data == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a buffer of %zu bytes", capacity);
    buffer->data = data;
    buffer->capacity = grown;
    return COT_OK;
}

cot_status_t cot_buffer_extend(cot_buffer_t *buffer, size_t count, void **space_out)
{
    if (count > SIZE_MAX - buffer->size) return cot_fail(COT_ERR_NO_MEMORY, "a buffer of more bytes than there are");
    COT_TRY(cot_buffer_reserve(buffer, buffer->size + count));
    if (count > 0) memset(buffer->data + buffer->size, 0, count);
    if (space_out != NULL) *space_out = buffer->size > 0 ? buffer->data + buffer->size : buffer->data;
    buffer->size += count;
    return COT_OK;
}

cot_status_t cot_buffer_append(cot_buffer_t *buffer, const void *bytes, size_t count)
{
    if (count > SIZE_MAX - buffer->size) return cot_fail(COT_ERR_NO_MEMORY, "a buffer of more bytes than there are");
    COT_TRY(cot_buffer_reserve(buffer, buffer->size + count));
    if (count > 0) memcpy(buffer->data + buffer->size, bytes, count);
    buffer->size += count;
    return COT_OK;
}

cot_status_t cot_buffer_printf(cot_buffer_t *buffer, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    cot_status_t status = length >= 0 ? cot_buffer_reserve(buffer, buffer->size + (size_t)length + 1)
                                      : cot_fail(COT_ERR_INTERNAL, "a format that cannot be printed: %s", format);
    if (status == COT_OK) {
        vsnprintf((char *)buffer->data + buffer->size, (size_t)length + 1, format, again);
        buffer->size += (size_t)length;
    }
    va_end(again);
    return status;
}

/* The bytes of `text` that need no escape, from `at` on. */
static size_t plain_run(const char *text, size_t at, size_t bytes)
{
    size_t end = at;
    while (end < bytes && (unsigned char)text[end] >= 0x20 && text[end] != '"' && text[end] != '\\' &&
           text[end] != 0x7f)
        end++;
    return end - at;
}

cot_status_t cot_buffer_json_string(cot_buffer_t *buffer, const char *text, size_t bytes)
{
    COT_TRY(cot_buffer_append(buffer, "\"", 1));
    for (size_t at = 0; at < bytes; at++) {
        size_t run = plain_run(text, at, bytes);
        COT_TRY(cot_buffer_append(buffer, text + at, run));
        at += run;
        if (at >= bytes) break;
        switch (text[at]) {
        case '"': COT_TRY(cot_buffer_append(buffer, "\\\"", 2)); break;
        case '\\': COT_TRY(cot_buffer_append(buffer, "\\\\", 2)); break;
        case '\n': COT_TRY(cot_buffer_append(buffer, "\\n", 2)); break;
        case '\r': COT_TRY(cot_buffer_append(buffer, "\\r", 2)); break;
        case '\t': COT_TRY(cot_buffer_append(buffer, "\\t", 2)); break;
        default: COT_TRY(cot_buffer_printf(buffer, "\\u%04x", (unsigned)(unsigned char)text[at]));
        }
    }
    return cot_buffer_append(buffer, "\"", 1);
}

void cot_buffer_consume(cot_buffer_t *buffer, size_t count)
{
    if (count > buffer->size) count = buffer->size;
    if (count > 0) memmove(buffer->data, buffer->data + count, buffer->size - count);
    buffer->size -= count;
}
