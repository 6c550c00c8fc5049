#include "placement/trace_write.h"

#include "base/buffer.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    cot_dtype_t dtype;
    uint32_t dims;
} COLUMNS[PLACE_COLUMNS] = {
    [PLACE_COLUMN_EXPERTS] = {"experts", COT_DTYPE_I16, 3},
    [PLACE_COLUMN_GATE_WEIGHTS] = {"gate_weights", COT_DTYPE_F16, 3},
    [PLACE_COLUMN_TOKEN_ID] = {"token_id", COT_DTYPE_I32, 1},
    [PLACE_COLUMN_REQUEST] = {"request", COT_DTYPE_I32, 1},
    [PLACE_COLUMN_POSITION] = {"position", COT_DTYPE_I32, 1},
    [PLACE_COLUMN_PHASE] = {"phase", COT_DTYPE_U8, 1},
};

const char *place_trace_column_name(place_column_t column)
{
    return COLUMNS[column].name;
}

static cot_status_t write_layers(cot_safetensors_writer_t *writer, const place_trace_info_t *info)
{
    cot_buffer_t text = {0};
    cot_status_t status = cot_buffer_printf(&text, "[");
    for (uint32_t layer = 0; layer < info->layers && status == COT_OK; layer++)
        status = cot_buffer_printf(&text, layer > 0 ? ", %u" : "%u", info->layer_index[layer]);
    if (status == COT_OK) status = cot_buffer_append(&text, "]", 2);
    if (status == COT_OK) status = cot_safetensors_writer_metadata(writer, "layers", (const char *)text.data);
    cot_buffer_free(&text);
    return status;
}

static cot_status_t write_number(cot_safetensors_writer_t *writer, const char *key, uint64_t value)
{
    char text[32];
    snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    return cot_safetensors_writer_metadata(writer, key, text);
}

cot_status_t place_trace_write_metadata(cot_safetensors_writer_t *writer, const place_trace_info_t *info,
                                        place_trace_kind_t kind, uint64_t tokens)
{
    COT_TRY(write_layers(writer, info));
    COT_TRY(cot_safetensors_writer_metadata(writer, "format", "coterie.trace/1"));
    COT_TRY(cot_safetensors_writer_metadata(writer, "kind", kind == PLACE_TRACE_TOKENS ? "tokens" : "counts"));
    COT_TRY(cot_safetensors_writer_metadata(writer, "model", info->model));
    COT_TRY(cot_safetensors_writer_metadata(writer, "config_sha256", info->config_sha256));
    COT_TRY(write_number(writer, "experts", info->experts));
    COT_TRY(write_number(writer, "top_k", info->top_k));
    COT_TRY(write_number(writer, "row_bytes", info->row_bytes));
    if (info->expert_ns_per_row > 0) {
        char text[32];
        snprintf(text, sizeof(text), "%.17g", info->expert_ns_per_row);
        COT_TRY(cot_safetensors_writer_metadata(writer, "expert_ns_per_row", text));
    }
    return tokens != 0 ? write_number(writer, "tokens", tokens) : COT_OK;
}

cot_status_t place_trace_declare_column(cot_safetensors_writer_t *writer, const place_trace_info_t *info,
                                        place_column_t column, uint64_t rows)
{
    const uint64_t shape[3] = {rows, info->layers, info->top_k};
    return cot_safetensors_writer_declare(writer, COLUMNS[column].name, COLUMNS[column].dtype, COLUMNS[column].dims,
                                          shape);
}

place_rows_t place_trace_rows(const place_trace_t *trace)
{
    place_rows_t rows = {.rows = place_trace_tokens(trace)};
    for (int column = 0; column < PLACE_COLUMNS; column++) {
        const cot_tensor_t *tensor = place_trace_tensor(trace, COLUMNS[column].name);
        rows.column[column] = tensor != NULL ? tensor->data : NULL;
    }
    return rows;
}

/* ---- rows ---- */

static bool kept(const place_rows_t *part, uint64_t row)
{
    return part->keep == NULL || part->keep[row] != 0;
}

static cot_status_t write_requests(cot_safetensors_writer_t *writer, const place_rows_t *part)
{
    for (uint64_t row = 0; row < part->rows; row++) {
        if (!kept(part, row)) continue;
        int32_t request;
        memcpy(&request, (const char *)part->column[PLACE_COLUMN_REQUEST] + row * sizeof(request), sizeof(request));
        if (__builtin_add_overflow(request, part->request_offset, &request))
            return cot_fail(COT_ERR_LIMIT, "the request numbers go past %d", INT32_MAX);
        COT_TRY(cot_safetensors_writer_write(writer, &request, sizeof(request)));
    }
    return COT_OK;
}

/* Runs of kept rows go out in one piece. */
static cot_status_t write_column(cot_safetensors_writer_t *writer, const place_trace_info_t *info,
                                 const place_rows_t *part, place_column_t column)
{
    if (column == PLACE_COLUMN_REQUEST) return write_requests(writer, part);
    size_t width = COLUMNS[column].dims == 3 ? (size_t)info->layers * info->top_k : 1;
    size_t bytes = width * cot_dtype_bytes(COLUMNS[column].dtype);
    for (uint64_t begin = 0, end = 0; begin < part->rows; begin = end + 1) {
        for (end = begin; end < part->rows && kept(part, end);) end++;
        COT_TRY(cot_safetensors_writer_write(writer, (const char *)part->column[column] + begin * bytes,
                                             (size_t)(end - begin) * bytes));
    }
    return COT_OK;
}

static bool in_all_parts(const place_rows_t *parts, uint32_t count, place_column_t column)
{
    for (uint32_t i = 0; i < count; i++)
        if (parts[i].column[column] == NULL) return false;
    return true;
}

static cot_status_t write_rows(cot_safetensors_writer_t *writer, const place_trace_info_t *info,
                               const place_rows_t *parts, uint32_t count)
{
    uint64_t rows = 0;
    for (uint32_t i = 0; i < count; i++)
        for (uint64_t row = 0; row < parts[i].rows; row++) rows += kept(&parts[i], row);
    COT_TRY(place_trace_write_metadata(writer, info, PLACE_TRACE_TOKENS, 0));
    for (int column = 0; column < PLACE_COLUMNS; column++)
        if (in_all_parts(parts, count, (place_column_t)column))
            COT_TRY(place_trace_declare_column(writer, info, (place_column_t)column, rows));
    for (int column = 0; column < PLACE_COLUMNS; column++)
        for (uint32_t i = 0; i < count && in_all_parts(parts, count, (place_column_t)column); i++)
            COT_TRY(write_column(writer, info, &parts[i], (place_column_t)column));
    return COT_OK;
}

cot_status_t place_rows_save(const place_trace_info_t *info, const place_rows_t *parts, uint32_t count,
                             const char *path)
{
    cot_safetensors_writer_t *writer = NULL;
    COT_TRY(cot_safetensors_writer_create(path, &writer));
    cot_status_t status = write_rows(writer, info, parts, count);
    if (status == COT_OK) status = cot_safetensors_writer_commit(writer);
    cot_safetensors_writer_destroy(writer);
    return status;
}
