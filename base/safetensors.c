#include "base/safetensors.h"

#include "base/buffer.h"
#include "base/json.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

#define HEADER_MAX ((uint64_t)100 << 20)

static const struct {
    const char *name;
    size_t bytes;
} DTYPES[COT_DTYPE_COUNT] = {
#define X(name, bytes, text) {text, bytes},
    COT_DTYPE_MAP(X)
#undef X
};

const char *cot_dtype_name(cot_dtype_t dtype)
{
    return DTYPES[dtype].name;
}

size_t cot_dtype_bytes(cot_dtype_t dtype)
{
    return DTYPES[dtype].bytes;
}

/* ---- reading ---- */

struct cot_safetensors {
    cot_map_t map;
    json_t *header; /* owns the names and the metadata */
    cot_tensor_t *tensor;
    uint32_t count;
};

void cot_safetensors_close(cot_safetensors_t *file)
{
    if (file == NULL) return;
    cot_free(file->tensor);
    json_decref(file->header);
    cot_map_close(&file->map);
    cot_free(file);
}

static cot_status_t read_dtype(const char *name, const json_t *entry, cot_dtype_t *dtype_out)
{
    const char *text = json_string_value(json_object_get(entry, "dtype"));
    for (int d = 0; text != NULL && d < COT_DTYPE_COUNT; d++) {
        if (strcmp(text, DTYPES[d].name) != 0) continue;
        *dtype_out = (cot_dtype_t)d;
        return COT_OK;
    }
    return cot_fail(COT_ERR_UNSUPPORTED, "tensor \"%s\" has the dtype \"%.20s\", which is not supported", name,
                    text != NULL ? text : "?");
}

/* Reads the shape; *bytes_out is what it takes, checked for overflow. */
static cot_status_t read_shape(const json_t *entry, cot_tensor_t *tensor)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape) || json_array_size(shape) > COT_TENSOR_DIMS)
        return cot_fail(COT_ERR_FORMAT, "tensor \"%s\": \"shape\" must be a list of at most %d sizes", tensor->name,
                        COT_TENSOR_DIMS);
    tensor->dims = (uint32_t)json_array_size(shape);
    uint64_t bytes = cot_dtype_bytes(tensor->dtype);
    for (uint32_t d = 0; d < tensor->dims; d++) {
        const json_t *size = json_array_get(shape, d);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return cot_fail(COT_ERR_FORMAT, "tensor \"%s\": size %u is no whole number", tensor->name, d);
        tensor->shape[d] = (uint64_t)json_integer_value(size);
        if (__builtin_mul_overflow(bytes, tensor->shape[d], &bytes))
            return cot_fail(COT_ERR_FORMAT, "tensor \"%s\" is larger than any file", tensor->name);
    }
    tensor->bytes = bytes;
    return COT_OK;
}

static cot_status_t read_tensor(const cot_safetensors_t *file, uint64_t data_begin, const char *name,
                                const json_t *entry, cot_tensor_t *tensor_out)
{
    cot_tensor_t tensor = {.name = name};
    COT_TRY(read_dtype(name, entry, &tensor.dtype));
    COT_TRY(read_shape(entry, &tensor));
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end) ||
        json_integer_value(begin) < 0 || json_integer_value(end) < json_integer_value(begin))
        return cot_fail(COT_ERR_FORMAT, "tensor \"%s\": \"data_offsets\" must be a begin and an end", name);
    uint64_t from = (uint64_t)json_integer_value(begin), to = (uint64_t)json_integer_value(end);
    if (to - from != tensor.bytes)
        return cot_fail(COT_ERR_FORMAT, "tensor \"%s\": its shape takes %zu bytes, its offsets hold %llu", name,
                        tensor.bytes, (unsigned long long)(to - from));
    if (to > file->map.bytes - data_begin)
        return cot_fail(COT_ERR_FORMAT,
                        "tensor \"%s\" ends %llu bytes past the end of the file: it is cut short; copy it again", name,
                        (unsigned long long)(to - (file->map.bytes - data_begin)));
    tensor.data = file->map.data + data_begin + from;
    *tensor_out = tensor;
    return COT_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const cot_tensor_t *)a)->name, ((const cot_tensor_t *)b)->name);
}

static int compare_places(const void *a, const void *b)
{
    const cot_tensor_t *left = a, *right = b;
    if (left->data != right->data) return left->data < right->data ? -1 : 1;
    return (left->bytes > right->bytes) - (left->bytes < right->bytes);
}

/* No byte belongs to two tensors. */
static cot_status_t check_overlap(cot_safetensors_t *file)
{
    qsort(file->tensor, file->count, sizeof(*file->tensor), compare_places);
    for (uint32_t i = 1; i < file->count; i++) {
        const cot_tensor_t *before = &file->tensor[i - 1];
        if ((const char *)before->data + before->bytes > (const char *)file->tensor[i].data)
            return cot_fail(COT_ERR_FORMAT, "tensors \"%s\" and \"%s\" overlap", before->name, file->tensor[i].name);
    }
    qsort(file->tensor, file->count, sizeof(*file->tensor), compare_names);
    return COT_OK;
}

static cot_status_t read_metadata(const json_t *metadata)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata)) return cot_fail(COT_ERR_FORMAT, "\"__metadata__\" must be an object");
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value) if (!json_is_string(value)) return cot_fail(
        COT_ERR_FORMAT, "\"__metadata__\": \"%s\" must be a string", key);
    return COT_OK;
}

static cot_status_t read_header(cot_safetensors_t *file)
{
    uint64_t length;
    if (file->map.bytes < sizeof(length))
        return cot_fail(COT_ERR_FORMAT, "is %zu bytes long: no safetensors file", file->map.bytes);
    memcpy(&length, file->map.data, sizeof(length));
    if (length > HEADER_MAX || length > file->map.bytes - sizeof(length))
        return cot_fail(COT_ERR_FORMAT, "states a header of %llu bytes in a file of %zu: not safetensors, or cut short",
                        (unsigned long long)length, file->map.bytes);
    const char *text = (const char *)file->map.data + sizeof(length);
    COT_TRY(cot_json_load_bytes(text, length, "header", &file->header));
    if (!json_is_object(file->header)) return cot_fail(COT_ERR_FORMAT, "the header is no JSON object");

    file->tensor = cot_calloc(json_object_size(file->header), sizeof(*file->tensor));
    if (file->tensor == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for its tensors");
    const char *name;
    json_t *entry;
    json_object_foreach(file->header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0) {
            COT_TRY(read_metadata(entry));
            continue;
        }
        COT_TRY(read_tensor(file, sizeof(length) + length, name, entry, &file->tensor[file->count]));
        file->count++;
    }
    return check_overlap(file);
}

cot_status_t cot_safetensors_open(const char *path, cot_safetensors_t **file_out)
{
    cot_safetensors_t *file = cot_calloc(1, sizeof(*file));
    if (file == NULL) return cot_fail(COT_ERR_NO_MEMORY, "%s: no memory to open it", path);
    cot_status_t status = cot_map_open(path, &file->map);
    if (status == COT_OK) {
        status = read_header(file);
        if (status != COT_OK) cot_fail_in(status, "%s", path);
    }
    if (status != COT_OK) {
        cot_safetensors_close(file);
        return status;
    }
    *file_out = file;
    return COT_OK;
}

const cot_tensor_t *cot_safetensors_find(const cot_safetensors_t *file, const char *name)
{
    if (file->count == 0) return NULL;
    return bsearch(&(cot_tensor_t){.name = name}, file->tensor, file->count, sizeof(*file->tensor), compare_names);
}

uint32_t cot_safetensors_count(const cot_safetensors_t *file)
{
    return file->count;
}

const cot_tensor_t *cot_safetensors_at(const cot_safetensors_t *file, uint32_t index)
{
    return &file->tensor[index];
}

const char *cot_safetensors_metadata(const cot_safetensors_t *file, const char *key)
{
    return json_string_value(json_object_get(json_object_get(file->header, "__metadata__"), key));
}

/* ---- writing ---- */

struct cot_safetensors_writer {
    cot_output_t output;
    cot_buffer_t metadata, tensors; /* JSON in the making */
    uint64_t declared_bytes, written_bytes;
    bool begun;
};

cot_status_t cot_safetensors_writer_create(const char *path, cot_safetensors_writer_t **writer_out)
{
    cot_safetensors_writer_t *writer = cot_calloc(1, sizeof(*writer));
    if (writer == NULL) return cot_fail(COT_ERR_NO_MEMORY, "%s: no memory to write it", path);
    cot_status_t status = cot_output_open(path, &writer->output);
    if (status != COT_OK) {
        cot_free(writer);
        return status;
    }
    *writer_out = writer;
    return COT_OK;
}

void cot_safetensors_writer_destroy(cot_safetensors_writer_t *writer)
{
    if (writer == NULL) return;
    cot_output_discard(&writer->output);
    cot_buffer_free(&writer->metadata);
    cot_buffer_free(&writer->tensors);
    cot_free(writer);
}

static cot_status_t add_key(cot_buffer_t *json, const char *key)
{
    if (json->size > 0) COT_TRY(cot_buffer_append(json, ",", 1));
    COT_TRY(cot_buffer_json_string(json, key, strlen(key)));
    return cot_buffer_append(json, ":", 1);
}

cot_status_t cot_safetensors_writer_metadata(cot_safetensors_writer_t *writer, const char *key, const char *value)
{
    if (writer->begun) return cot_fail(COT_ERR_INTERNAL, "metadata after the first byte of data");
    COT_TRY(add_key(&writer->metadata, key));
    return cot_buffer_json_string(&writer->metadata, value, strlen(value));
}

cot_status_t cot_safetensors_writer_declare(cot_safetensors_writer_t *writer, const char *name, cot_dtype_t dtype,
                                            uint32_t dims, const uint64_t *shape)
{
    if (writer->begun || dims > COT_TENSOR_DIMS)
        return cot_fail(COT_ERR_INTERNAL, "tensor \"%s\" cannot be declared now", name);
    COT_TRY(add_key(&writer->tensors, name));
    COT_TRY(cot_buffer_printf(&writer->tensors, "{\"dtype\":\"%s\",\"shape\":[", cot_dtype_name(dtype)));
    uint64_t bytes = cot_dtype_bytes(dtype);
    for (uint32_t d = 0; d < dims; d++) {
        COT_TRY(cot_buffer_printf(&writer->tensors, d > 0 ? ",%llu" : "%llu", (unsigned long long)shape[d]));
        if (__builtin_mul_overflow(bytes, shape[d], &bytes))
            return cot_fail(COT_ERR_LIMIT, "tensor \"%s\" is larger than any file", name);
    }
    COT_TRY(cot_buffer_printf(&writer->tensors, "],\"data_offsets\":[%llu,%llu]}",
                              (unsigned long long)writer->declared_bytes,
                              (unsigned long long)(writer->declared_bytes + bytes)));
    writer->declared_bytes += bytes;
    return COT_OK;
}

/* The header, padded with spaces so that the data begins at a multiple of 8. */
static cot_status_t write_header(cot_safetensors_writer_t *writer)
{
    cot_buffer_t header = {0};
    bool both = writer->metadata.size > 0 && writer->tensors.size > 0;
    cot_status_t status = cot_buffer_append(&header, "{", 1);
    if (status == COT_OK && writer->metadata.size > 0)
        status = cot_buffer_printf(&header, "\"__metadata__\":{%.*s}%s", (int)writer->metadata.size,
                                   (const char *)writer->metadata.data, both ? "," : "");
    if (status == COT_OK) status = cot_buffer_append(&header, writer->tensors.data, writer->tensors.size);
    if (status == COT_OK) status = cot_buffer_append(&header, "}", 1);
    while (status == COT_OK && header.size % 8 != 0) status = cot_buffer_append(&header, " ", 1);
    uint64_t length = header.size;
    if (status == COT_OK) status = cot_output_write(&writer->output, &length, sizeof(length));
    if (status == COT_OK) status = cot_output_write(&writer->output, header.data, header.size);
    cot_buffer_free(&header);
    writer->begun = true;
    return status;
}

cot_status_t cot_safetensors_writer_write(cot_safetensors_writer_t *writer, const void *bytes, size_t count)
{
    if (!writer->begun) COT_TRY(write_header(writer));
    if (count > writer->declared_bytes - writer->written_bytes)
        return cot_fail(COT_ERR_INTERNAL, "more tensor bytes than were declared");
    writer->written_bytes += count;
    return cot_output_write(&writer->output, bytes, count);
}

cot_status_t cot_safetensors_writer_commit(cot_safetensors_writer_t *writer)
{
    if (!writer->begun) COT_TRY(write_header(writer));
    if (writer->written_bytes != writer->declared_bytes)
        return cot_fail(COT_ERR_INTERNAL, "%llu of %llu declared tensor bytes were written",
                        (unsigned long long)writer->written_bytes, (unsigned long long)writer->declared_bytes);
    return cot_output_commit(&writer->output);
}
