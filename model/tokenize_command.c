#include "model/tokenize_command.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "model/tokenizer.h"

#include <errno.h>
#include <string.h>

/* A line holds one text; a reader that never ends a line must not fill the memory. */
#define MAX_LINE_BYTES ((size_t)1 << 30)
#define READ_BYTES ((size_t)1 << 16)

/* Lines of a stream. Owns the buffer, borrows the stream. */
typedef struct {
    FILE *stream;
    const char *path;
    cot_buffer_t buffer;
    size_t start, searched; /* the line begins at start; before `searched` there is no line feed */
    bool ended;
} line_reader_t;

static cot_status_t read_more(line_reader_t *reader)
{
    cot_buffer_consume(&reader->buffer, reader->start);
    reader->searched -= reader->start;
    reader->start = 0;
    if (reader->buffer.size > MAX_LINE_BYTES)
        return cot_fail(COT_ERR_LIMIT, "%s: a line is longer than %zu bytes", reader->path, MAX_LINE_BYTES);
    COT_TRY(cot_buffer_reserve(&reader->buffer, reader->buffer.size + READ_BYTES));
    size_t got = fread(reader->buffer.data + reader->buffer.size, 1, READ_BYTES, reader->stream);
    reader->buffer.size += got;
    if (got == 0 && ferror(reader->stream))
        return cot_fail(COT_ERR_IO, "%s: cannot read it: %s", reader->path, strerror(errno));
    reader->ended = got == 0;
    return COT_OK;
}

/* The next line without its line feed, valid until the next call; *line_out NULL at the end. */
static cot_status_t next_line(line_reader_t *reader, const char **line_out, size_t *bytes_out)
{
    for (;;) {
        const char *data = (const char *)reader->buffer.data;
        size_t left = reader->buffer.size - reader->searched;
        const char *end = left == 0 ? NULL : memchr(data + reader->searched, '\n', left);
        bool last = end == NULL && reader->ended;
        if (end == NULL && !last) {
            reader->searched = reader->buffer.size;
            COT_TRY(read_more(reader));
            continue;
        }
        size_t stop = last ? reader->buffer.size : (size_t)(end - data);
        *line_out = last && stop == reader->start ? NULL : data + reader->start;
        *bytes_out = stop - reader->start;
        reader->start = reader->searched = last ? stop : stop + 1;
        return COT_OK;
    }
}

/* Working memory of one line. */
typedef struct {
    const model_tokenizer_t *tokenizer;
    bool add_special;
    cot_buffer_t ids, text, out;
} line_work_t;

static cot_status_t encode_line(line_work_t *work, const char *line, size_t bytes)
{
    json_t *root = NULL;
    COT_TRY(cot_json_load_bytes(line, bytes, "the line", &root));
    const json_t *text = json_object_get(root, "text");
    cot_status_t status = COT_OK;
    if (json_is_string(text)) {
        status = model_tokenizer_encode(work->tokenizer, json_string_value(text), json_string_length(text),
                                        work->add_special, &work->ids);
    } else {
        status = cot_fail(COT_ERR_FORMAT, "the line is no object with a string \"text\"");
    }
    json_decref(root);
    return status;
}

static cot_status_t append_id(cot_buffer_t *out, int32_t id)
{
    char digits[16];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + id % 10);
        id /= 10;
    } while (id > 0);
    return cot_buffer_append(out, digits + at, sizeof digits - at);
}

static cot_status_t format_line(line_work_t *work)
{
    const int32_t *ids = (const int32_t *)(const void *)work->ids.data;
    size_t count = work->ids.size / sizeof *ids;
    COT_TRY(model_tokenizer_decode(work->tokenizer, ids, (uint32_t)count, false, &work->text));
    COT_TRY(cot_buffer_append(&work->out, "{\"ids\":[", 8));
    for (size_t i = 0; i < count; i++) {
        if (i > 0) COT_TRY(cot_buffer_append(&work->out, ",", 1));
        COT_TRY(append_id(&work->out, ids[i]));
    }
    COT_TRY(cot_buffer_append(&work->out, "],\"text\":", 9));
    COT_TRY(cot_buffer_json_string(&work->out, (const char *)work->text.data, work->text.size));
    return cot_buffer_append(&work->out, "}\n", 2);
}

static cot_status_t format_error(line_work_t *work)
{
    cot_buffer_clear(&work->out);
    COT_TRY(cot_buffer_append(&work->out, "{\"error\":", 9));
    COT_TRY(cot_buffer_json_string(&work->out, cot_error_text(), strlen(cot_error_text())));
    return cot_buffer_append(&work->out, "}\n", 2);
}

/* Leaves the answer to one line in work->out. Fails only when the next line would fail as well. */
static cot_status_t answer_line(line_work_t *work, const char *line, size_t bytes, model_tokenize_result_t *result)
{
    cot_buffer_clear(&work->ids);
    cot_buffer_clear(&work->text);
    cot_buffer_clear(&work->out);
    result->lines++;
    cot_status_t status = encode_line(work, line, bytes);
    if (status == COT_OK) return format_line(work);
    if (status == COT_ERR_NO_MEMORY) return status;
    result->refused++;
    return format_error(work);
}

static cot_status_t run_lines(line_reader_t *reader, line_work_t *work, cot_output_t *output,
                              model_tokenize_result_t *result)
{
    for (;;) {
        const char *line;
        size_t bytes;
        COT_TRY(next_line(reader, &line, &bytes));
        if (line == NULL) return COT_OK;
        COT_TRY(answer_line(work, line, bytes, result));
        COT_TRY(cot_output_write(output, work->out.data, work->out.size));
    }
}

static cot_status_t run_files(const model_tokenizer_t *tokenizer, line_reader_t *reader, const char *out_path,
                              bool add_special, model_tokenize_result_t *result)
{
    cot_output_t output;
    COT_TRY(cot_output_open(out_path, &output));
    line_work_t work = {.tokenizer = tokenizer, .add_special = add_special};
    cot_status_t status = run_lines(reader, &work, &output, result);
    if (status == COT_OK) status = cot_output_commit(&output);
    cot_output_discard(&output);
    cot_buffer_free(&work.ids);
    cot_buffer_free(&work.text);
    cot_buffer_free(&work.out);
    return status;
}

cot_status_t model_tokenize_file(const char *directory, const char *in_path, const char *out_path, bool add_special,
                                 model_tokenize_result_t *result_out)
{
    model_tokenizer_t *tokenizer = NULL;
    model_tokenize_result_t result = {0};
    COT_TRY(model_tokenizer_load(directory, &tokenizer));
    bool standard = strcmp(in_path, "-") == 0;
    line_reader_t reader = {.stream = standard ? stdin : fopen(in_path, "re"), .path = in_path};
    cot_status_t status = COT_OK;
    if (reader.stream == NULL) {
        status = cot_fail(errno == ENOENT ? COT_ERR_NOT_FOUND : COT_ERR_IO, "%s: cannot open it: %s", in_path,
                          strerror(errno));
        goto destroy_tokenizer;
    }
    status = run_files(tokenizer, &reader, out_path, add_special, &result);
    cot_buffer_free(&reader.buffer);
    if (!standard) fclose(reader.stream);
destroy_tokenizer:
    model_tokenizer_destroy(tokenizer);
    if (status != COT_OK) return status;
    *result_out = result;
    if (result.refused == 0) return COT_OK;
    return cot_fail(COT_ERR_PARTIAL, "%llu of %llu lines were refused: see the lines with \"error\" in %s",
                    (unsigned long long)result.refused, (unsigned long long)result.lines, out_path);
}

int model_tokenize_command(const cot_settings_t *settings)
{
    cot_status_t status = COT_OK;
    if (cot_settings_arguments(settings) != 1)
        status = cot_fail(COT_ERR_INVALID,
                          "tokenize takes one model directory: coterie tokenize MODEL --in FILE --out FILE");
    const char *in_path = cot_settings_string(settings, COT_SET_IN),
               *out_path = cot_settings_string(settings, COT_SET_OUT);
    if (status == COT_OK && (in_path[0] == '\0' || out_path[0] == '\0'))
        status = cot_fail(COT_ERR_INVALID, "tokenize needs --in and --out (files of lines; --in - is standard input)");
    model_tokenize_result_t result;
    if (status == COT_OK)
        status = model_tokenize_file(cot_settings_argument(settings, 0), in_path, out_path,
                                     cot_settings_switch(settings, COT_SET_SPECIAL), &result);
    if (status != COT_OK) cot_log_error("%s", cot_error_text());
    return cot_exit_code(status);
}
