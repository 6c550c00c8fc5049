/* Ids to text. There is one way, token by token; decoding at once is a stream that is finished at once. */
#include "model/tokenizer_int.h"

#include <stdlib.h>
#include <string.h>

/* GPT-2's alphabet: printable Latin-1 stands for itself, the other bytes for U+0100 and on, in order. */
static bool is_printable(uint32_t byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
}

uint32_t model_byte_to_code(uint8_t byte)
{
    if (is_printable(byte)) return byte;
    uint32_t code = 0x100;
    for (uint32_t other = 0; other < byte; other++) code += !is_printable(other);
    return code;
}

int model_code_to_byte(uint32_t code)
{
    if (code < 0x100) return is_printable(code) ? (int)code : -1;
    if (code <= 0x120) return (int)(code - 0x100);        /* 0x00 to 0x20 */
    if (code <= 0x142) return (int)(code - 0x121 + 0x7f); /* 0x7f to 0xa0 */
    return code == 0x143 ? 0xad : -1;
}

uint32_t model_tokenizer_size(const model_tokenizer_t *tokenizer)
{
    return tokenizer->size;
}

/* Moves whole characters from `pending` to `text`, bytes that can never become one as U+FFFD. `last`: nothing follows.
 */
static cot_status_t hand_out(cot_buffer_t *pending, bool last, cot_buffer_t *text)
{
    const char *bytes = (const char *)pending->data;
    size_t at = 0;
    while (at < pending->size) {
        size_t valid = model_utf8_valid(bytes + at, pending->size - at), length;
        uint32_t code;
        COT_TRY(cot_buffer_append(text, bytes + at, valid));
        at += valid;
        if (at == pending->size) break;
        model_utf8_t found = model_utf8_next(bytes + at, pending->size - at, &length, &code);
        if (found == MODEL_UTF8_CUT_OFF && !last) break;
        COT_TRY(cot_buffer_append(text, MODEL_REPLACEMENT, strlen(MODEL_REPLACEMENT)));
        at += length;
    }
    cot_buffer_consume(pending, at);
    return COT_OK;
}

/* A token's bytes; a token with any character outside the alphabet (an added one) stands for its own text. */
static cot_status_t append_bytes_of(model_text_t token, cot_buffer_t *out)
{
    size_t before = out->size;
    for (size_t at = 0, length; at < token.bytes; at += length) {
        int byte = model_code_to_byte(model_utf8_at(token.data + at, &length));
        if (byte < 0) {
            out->size = before;
            return cot_buffer_append(out, token.data, token.bytes);
        }
        uint8_t one = (uint8_t)byte;
        COT_TRY(cot_buffer_append(out, &one, 1));
    }
    return COT_OK;
}

/* "<0x0A>" is the byte 10; -1: not such a token. */
static int fallback_byte(model_text_t token)
{
    if (token.bytes != 6 || memcmp(token.data, "<0x", 3) != 0 || token.data[5] != '>') return -1;
    char *end;
    char digits[3] = {token.data[3], token.data[4], '\0'};
    if (strspn(digits, "0123456789abcdefABCDEF") != 2) return -1;
    return (int)strtol(digits, &end, 16);
}

/* A run of byte tokens ends: if it is not UTF-8 as a whole, each of its bytes becomes U+FFFD, as in the library. */
static cot_status_t flush_run(cot_buffer_t *run, cot_buffer_t *text)
{
    const char *bytes = (const char *)run->data;
    if (run->size > 0 && model_utf8_valid(bytes, run->size) < run->size) {
        for (size_t i = 0; i < run->size; i++)
            COT_TRY(cot_buffer_append(text, MODEL_REPLACEMENT, strlen(MODEL_REPLACEMENT)));
    } else {
        COT_TRY(cot_buffer_append(text, bytes, run->size));
    }
    cot_buffer_clear(run);
    return COT_OK;
}

/* Drops the decoder's one leading character from what is the first text of the stream. */
static void strip_start(const model_decoder_t *decoder, model_stream_t *stream, size_t before, cot_buffer_t *text)
{
    if (stream->started || text->size == before) return;
    stream->started = true;
    size_t length = strlen(decoder->strip);
    if (length == 0 || text->size - before < length || memcmp(text->data + before, decoder->strip, length) != 0) return;
    memmove(text->data + before, text->data + before + length, text->size - before - length);
    text->size -= length;
}

/* All Replace steps on one token. */
static cot_status_t append_replaced(const model_decoder_t *decoder, model_text_t token, cot_buffer_t *text)
{
    if (decoder->replaces == 0) return cot_buffer_append(text, token.data, token.bytes);
    if (decoder->replaces == 1) return model_replace(token, decoder->from[0], decoder->to[0], text);
    cot_buffer_t buffers[2] = {0};
    cot_status_t status = COT_OK;
    for (uint32_t i = 0; i < decoder->replaces; i++) {
        cot_buffer_t *out = i + 1 == decoder->replaces ? text : &buffers[i % 2];
        if (out != text) cot_buffer_clear(out);
        COT_TRY_GOTO(model_replace(token, decoder->from[i], decoder->to[i], out), status, free_buffers);
        token = (model_text_t){(const char *)out->data, out->size};
    }
free_buffers:
    cot_buffer_free(&buffers[0]);
    cot_buffer_free(&buffers[1]);
    return status;
}

static cot_status_t push_sequence(const model_decoder_t *decoder, model_stream_t *stream, model_text_t token,
                                  cot_buffer_t *text)
{
    int byte = decoder->byte_fallback ? fallback_byte(token) : -1;
    if (byte >= 0) {
        uint8_t one = (uint8_t)byte;
        return cot_buffer_append(&stream->pending, &one, 1);
    }
    size_t before = text->size;
    COT_TRY(flush_run(&stream->pending, text));
    COT_TRY(append_replaced(decoder, token, text));
    strip_start(decoder, stream, before, text);
    return COT_OK;
}

static cot_status_t push_metaspace(const model_decoder_t *decoder, model_stream_t *stream, model_text_t token,
                                   cot_buffer_t *text)
{
    bool drop = !stream->started && decoder->drop_first;
    stream->started = true;
    return model_replace(token, decoder->mark, drop ? "" : " ", text);
}

cot_status_t model_stream_push(const model_tokenizer_t *tokenizer, model_stream_t *stream, int32_t id,
                               bool skip_special, cot_buffer_t *text)
{
    /* A model may have more ids than its tokenizer has tokens: these stand for no text, as in the library. */
    if (id < 0 || !model_strings_has(&tokenizer->content, (uint32_t)id)) return COT_OK;
    if (skip_special && (tokenizer->flags[id] & MODEL_TOKEN_SPECIAL) != 0) return COT_OK;
    model_text_t token;
    token.data = model_strings_get(&tokenizer->content, (uint32_t)id, &token.bytes);
    switch (tokenizer->decoder.kind) {
    case MODEL_DECODE_BYTE_LEVEL:
        COT_TRY(append_bytes_of(token, &stream->pending));
        return hand_out(&stream->pending, false, text);
    case MODEL_DECODE_METASPACE: return push_metaspace(&tokenizer->decoder, stream, token, text);
    case MODEL_DECODE_SEQUENCE: return push_sequence(&tokenizer->decoder, stream, token, text);
    }
    return COT_OK;
}

cot_status_t model_stream_finish(const model_tokenizer_t *tokenizer, model_stream_t *stream, cot_buffer_t *text)
{
    if (tokenizer->decoder.kind != MODEL_DECODE_SEQUENCE) return hand_out(&stream->pending, true, text);
    size_t before = text->size;
    COT_TRY(flush_run(&stream->pending, text));
    strip_start(&tokenizer->decoder, stream, before, text);
    return COT_OK;
}

void model_stream_free(model_stream_t *stream)
{
    cot_buffer_free(&stream->pending);
    stream->started = false;
}

cot_status_t model_tokenizer_decode(const model_tokenizer_t *tokenizer, const int32_t *ids, uint32_t count,
                                    bool skip_special, cot_buffer_t *text)
{
    model_stream_t stream = {0};
    size_t before = text->size;
    cot_status_t status = COT_OK;
    for (uint32_t i = 0; i < count; i++)
        COT_TRY_GOTO(model_stream_push(tokenizer, &stream, ids[i], skip_special, text), status, free_stream);
    status = model_stream_finish(tokenizer, &stream, text);
free_stream:
    if (status != COT_OK) text->size = before;
    model_stream_free(&stream);
    return status;
}
