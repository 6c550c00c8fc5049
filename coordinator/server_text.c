#include "coordinator/server_text.h"

#include "model/tokenizer_unicode.h"

#include <string.h>

/* A character is at most 4 bytes, and a token at least one. */
enum { FOLLOWED_TOKENS = 16 };

cot_status_t coord_text_add_stop(coord_text_t *text, const void *bytes, size_t count)
{
    if (text->tokenizer == NULL)
        return cot_fail(COT_ERR_UNSUPPORTED, "stop texts need a tokenizer, and this model has no tokenizer.json");
    if (text->stops == RPC_MAX_STOPS) return cot_fail(COT_ERR_INVALID, "more than %u stop texts", RPC_MAX_STOPS);
    if (count == 0) return cot_fail(COT_ERR_INVALID, "an empty stop text: leave it out");
    if (count > RPC_MAX_STOP_BYTES)
        return cot_fail(COT_ERR_INVALID, "a stop text of %zu bytes: at most %u", count, RPC_MAX_STOP_BYTES);
    if (model_utf8_valid(bytes, count) < count) return cot_fail(COT_ERR_INVALID, "a stop text that is not UTF-8");
    COT_TRY(cot_buffer_append(&text->stop_bytes, bytes, count));
    text->stop_begin[++text->stops] = text->stop_bytes.size;
    return COT_OK;
}

static const uint8_t *stop_of(const coord_text_t *text, uint32_t stop, size_t *bytes_out)
{
    *bytes_out = text->stop_begin[stop + 1] - text->stop_begin[stop];
    return text->stop_bytes.data + text->stop_begin[stop];
}

/* The stop text that is complete first, as it would be seen byte by byte; of those that end together the longest. */
static bool find_stop(const coord_text_t *text, size_t *begin_out)
{
    size_t first_end = SIZE_MAX;
    for (uint32_t s = 0; s < text->stops && text->held.size > 0; s++) {
        size_t bytes;
        const uint8_t *stop = stop_of(text, s, &bytes);
        const uint8_t *found = memmem(text->held.data, text->held.size, stop, bytes);
        if (found == NULL) continue;
        size_t begin = (size_t)(found - text->held.data);
        if (begin + bytes > first_end || (begin + bytes == first_end && begin > *begin_out)) continue;
        first_end = begin + bytes;
        *begin_out = begin;
    }
    return first_end != SIZE_MAX;
}

/* Bytes at the end of what is held that a stop text may begin with. */
static size_t possible_stop(const coord_text_t *text)
{
    size_t longest = 0;
    for (uint32_t s = 0; s < text->stops; s++) {
        size_t bytes;
        const uint8_t *stop = stop_of(text, s, &bytes);
        size_t count = bytes - 1 < text->held.size ? bytes - 1 : text->held.size;
        while (count > longest && memcmp(text->held.data + text->held.size - count, stop, count) != 0) count--;
        if (count > longest) longest = count;
    }
    return longest;
}

static cot_status_t hand_out(coord_text_t *text, size_t bytes, cot_buffer_t *out)
{
    COT_TRY(cot_buffer_append(out, text->held.data, bytes));
    cot_buffer_consume(&text->held, bytes);
    return COT_OK;
}

cot_status_t coord_text_follow(coord_text_t *text, const int32_t *prompt, uint32_t count)
{
    if (text->tokenizer == NULL) return COT_OK;
    cot_status_t status = COT_OK;
    for (uint32_t i = count > FOLLOWED_TOKENS ? count - FOLLOWED_TOKENS : 0; i < count && status == COT_OK; i++)
        status = model_stream_push(text->tokenizer, &text->stream, prompt[i], true, &text->held);
    cot_buffer_clear(&text->held);
    return status;
}

cot_status_t coord_text_push(coord_text_t *text, int32_t token, cot_buffer_t *out, bool *stopped_out)
{
    *stopped_out = false;
    if (text->tokenizer == NULL) return COT_OK;
    COT_TRY(model_stream_push(text->tokenizer, &text->stream, token, true, &text->held));
    size_t begin = 0;
    *stopped_out = find_stop(text, &begin);
    return hand_out(text, *stopped_out ? begin : text->held.size - possible_stop(text), out);
}

cot_status_t coord_text_finish(coord_text_t *text, cot_buffer_t *out)
{
    if (text->tokenizer == NULL) return COT_OK;
    COT_TRY(model_stream_finish(text->tokenizer, &text->stream, &text->held));
    size_t begin = 0;
    return hand_out(text, find_stop(text, &begin) ? begin : text->held.size, out);
}

void coord_text_free(coord_text_t *text)
{
    model_stream_free(&text->stream);
    cot_buffer_free(&text->held);
    cot_buffer_free(&text->stop_bytes);
}
