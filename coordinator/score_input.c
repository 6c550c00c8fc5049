#include "coordinator/score_input.h"

#include "base/json.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK_BYTES = 1 << 18 };

cot_status_t coord_input_open(const char *path, size_t line_bytes, coord_input_t *input_out)
{
    int fd = STDIN_FILENO;
    if (strcmp(path, "-") != 0) fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return cot_fail(errno == ENOENT ? COT_ERR_NOT_FOUND : COT_ERR_IO, "%s: %s", path, strerror(errno));
    *input_out = (coord_input_t){.path = path, .fd = fd, .line_bytes = line_bytes};
    return COT_OK;
}

void coord_input_close(coord_input_t *input)
{
    if (input->path != NULL && input->fd != STDIN_FILENO) close(input->fd);
    cot_buffer_free(&input->bytes);
    *input = (coord_input_t){.fd = -1};
}

/* Reads what is there; *more_out false: nothing came, now or (then `ended` is set) ever. */
static cot_status_t read_chunk(coord_input_t *input, bool *more_out)
{
    struct pollfd ready = {.fd = input->fd, .events = POLLIN};
    *more_out = false;
    int polled = poll(&ready, 1, 0);
    if (polled == 0 || (polled < 0 && errno == EINTR)) return COT_OK;
    if (input->taken > 0) {
        cot_buffer_consume(&input->bytes, input->taken);
        input->scanned -= input->taken;
        input->taken = 0;
    }
    COT_TRY(cot_buffer_reserve(&input->bytes, input->bytes.size + CHUNK_BYTES));
    ssize_t count = read(input->fd, input->bytes.data + input->bytes.size, CHUNK_BYTES);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) return COT_OK;
    if (count < 0) return cot_fail(COT_ERR_IO, "%s: %s", input->path, strerror(errno));
    input->bytes.size += (size_t)count;
    input->ended = count == 0;
    *more_out = count > 0;
    return COT_OK;
}

/* Where the next line ends, if it is here whole or the file has ended. */
static bool find_end(coord_input_t *input, size_t *end_out)
{
    const uint8_t *newline = NULL;
    if (input->bytes.size > input->scanned)
        newline = memchr(input->bytes.data + input->scanned, '\n', input->bytes.size - input->scanned);
    *end_out = newline != NULL ? (size_t)(newline - input->bytes.data) : input->bytes.size;
    input->scanned = *end_out;
    return newline != NULL || (input->ended && (input->bytes.size > input->taken || input->skipping));
}

cot_status_t coord_input_next(coord_input_t *input, coord_input_found_t *found_out, const char **line_out,
                              size_t *bytes_out)
{
    size_t end = 0;
    while (!find_end(input, &end)) {
        bool more = false;
        if (end - input->taken > input->line_bytes) input->skipping = true;
        if (input->skipping) input->taken = end;
        if (!input->ended) COT_TRY(read_chunk(input, &more));
        if (!more && (!input->ended || (!input->skipping && input->taken == input->bytes.size))) {
            *found_out = input->ended ? COORD_INPUT_END : COORD_INPUT_LATER;
            return COT_OK;
        }
    }
    bool whole = !input->skipping && end - input->taken <= input->line_bytes;
    *found_out = whole ? COORD_INPUT_LINE : COORD_INPUT_TOO_LONG;
    *line_out = (const char *)input->bytes.data + input->taken;
    *bytes_out = end - input->taken;
    input->skipping = false;
    input->taken = input->scanned = end < input->bytes.size ? end + 1 : end;
    return COT_OK;
}

/* ---- what a line asks for ---- */

static cot_status_t take_ids(const json_t *ids, uint32_t vocab, cot_buffer_t *tokens)
{
    void *space = NULL;
    size_t count = json_array_size(ids);
    if (count == 0) return cot_fail(COT_ERR_FORMAT, "\"tokens\" is empty: give at least one id");
    size_t begin = tokens->size;
    COT_TRY(cot_buffer_extend(tokens, count * sizeof(int32_t), &space));
    for (size_t i = 0; i < count; i++) {
        const json_t *id = json_array_get(ids, i);
        json_int_t value = json_integer_value(id);
        if (json_is_integer(id) && value >= 0 && value < (json_int_t)vocab && value <= INT32_MAX) {
            ((int32_t *)space)[i] = (int32_t)value;
            continue;
        }
        tokens->size = begin;
        if (!json_is_integer(id)) return cot_fail(COT_ERR_FORMAT, "\"tokens\"[%zu] is no integer", i);
        return cot_fail(COT_ERR_INVALID, "\"tokens\"[%zu] is %lld: ids go from 0 to %u", i, (long long)value,
                        vocab - 1);
    }
    return COT_OK;
}

static cot_status_t take_text(const json_t *text, const model_tokenizer_t *tokenizer, uint32_t vocab,
                              cot_buffer_t *tokens)
{
    if (tokenizer == NULL)
        return cot_fail(COT_ERR_UNSUPPORTED, "the model has no tokenizer.json: give \"tokens\" instead of \"text\"");
    size_t begin = tokens->size;
    COT_TRY(model_tokenizer_encode(tokenizer, json_string_value(text), json_string_length(text), true, tokens));
    const int32_t *id = (const int32_t *)(const void *)(tokens->data + begin);
    size_t count = (tokens->size - begin) / sizeof(*id);
    if (count == 0) return cot_fail(COT_ERR_INVALID, "\"text\" gives no tokens");
    for (size_t i = 0; i < count; i++)
        if (id[i] < 0 || (uint32_t)id[i] >= vocab)
            return cot_fail(COT_ERR_MISMATCH, "the tokenizer gives id %d, the model has %u tokens", id[i], vocab);
    return COT_OK;
}

static cot_status_t parse_object(const json_t *root, const model_tokenizer_t *tokenizer, uint32_t vocab,
                                 cot_buffer_t *tokens)
{
    if (!json_is_object(root)) return cot_fail(COT_ERR_FORMAT, "the line is no JSON object");
    const json_t *ids = json_object_get(root, "tokens"), *text = json_object_get(root, "text");
    if ((ids == NULL) == (text == NULL))
        return cot_fail(COT_ERR_FORMAT, "the line must hold either \"tokens\" or \"text\"%s",
                        ids != NULL ? ", not both" : "");
    if (ids != NULL && !json_is_array(ids)) return cot_fail(COT_ERR_FORMAT, "\"tokens\" is no array of ids");
    if (text != NULL && !json_is_string(text)) return cot_fail(COT_ERR_FORMAT, "\"text\" is no string");
    return ids != NULL ? take_ids(ids, vocab, tokens) : take_text(text, tokenizer, vocab, tokens);
}

cot_status_t coord_input_parse(const char *line, size_t bytes, const model_tokenizer_t *tokenizer, uint32_t vocab,
                               cot_buffer_t *tokens)
{
    json_t *root = NULL;
    COT_TRY(cot_json_load_bytes(line, bytes, "the line", &root));
    cot_status_t status = parse_object(root, tokenizer, vocab, tokens);
    json_decref(root);
    return status;
}
