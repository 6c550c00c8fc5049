/* The safetensors container: an 8-byte little-endian header length, a JSON header, then the tensors' bytes.
 * Readers map the file; every offset is checked against the file before a pointer is handed out. */
#ifndef COT_SAFETENSORS_H
#define COT_SAFETENSORS_H

#include "base/file.h"
#include "base/status.h"

#include <stdint.h>

#define COT_TENSOR_DIMS 4

/* X(name, bytes per element, name in the file) */
/* clang-format off */
#define COT_DTYPE_MAP(X) \
    X(BF16, 2, "BF16") X(F16, 2, "F16") X(F32, 4, "F32") X(F64, 8, "F64") X(U8, 1, "U8") X(I8, 1, "I8") \
    X(I16, 2, "I16") X(I32, 4, "I32") X(I64, 8, "I64") X(U16, 2, "U16") X(U32, 4, "U32") X(U64, 8, "U64") \
    X(BOOL, 1, "BOOL")
/* clang-format on */
typedef enum {
#define X(name, bytes, text) COT_DTYPE_##name,
    COT_DTYPE_MAP(X)
#undef X
        COT_DTYPE_COUNT
} cot_dtype_t;

const char *cot_dtype_name(cot_dtype_t dtype);
size_t cot_dtype_bytes(cot_dtype_t dtype);

/* A view into the mapped file: row-major, not necessarily aligned. Lives as long as its file stays open. */
typedef struct {
    const char *name;
    cot_dtype_t dtype;
    uint32_t dims; /* 0 … COT_TENSOR_DIMS */
    uint64_t shape[COT_TENSOR_DIMS];
    const void *data;
    size_t bytes;
} cot_tensor_t;

/* Owns the mapping and the index. Reading is thread-safe. */
typedef struct cot_safetensors cot_safetensors_t;

cot_status_t cot_safetensors_open(const char *path, cot_safetensors_t **file_out);
void cot_safetensors_close(cot_safetensors_t *file);
const cot_tensor_t *cot_safetensors_find(const cot_safetensors_t *file, const char *name); /* NULL if absent */
uint32_t cot_safetensors_count(const cot_safetensors_t *file);
const cot_tensor_t *cot_safetensors_at(const cot_safetensors_t *file, uint32_t index); /* in order of their names */
const char *cot_safetensors_metadata(const cot_safetensors_t *file, const char *key);  /* NULL if absent */

/* Writing: declare all tensors and metadata, then write their bytes in the declared order, then commit.
 * The bytes of equal inputs are equal: no time, no host name. */
typedef struct cot_safetensors_writer cot_safetensors_writer_t;

cot_status_t cot_safetensors_writer_create(const char *path, cot_safetensors_writer_t **writer_out);
cot_status_t cot_safetensors_writer_metadata(cot_safetensors_writer_t *writer, const char *key, const char *value);
cot_status_t cot_safetensors_writer_declare(cot_safetensors_writer_t *writer, const char *name, cot_dtype_t dtype,
                                            uint32_t dims, const uint64_t *shape);
/* The next `count` bytes of the tensors' data; the first call writes the header. */
cot_status_t cot_safetensors_writer_write(cot_safetensors_writer_t *writer, const void *bytes, size_t count);
/* Fails if fewer or more bytes were written than declared. */
cot_status_t cot_safetensors_writer_commit(cot_safetensors_writer_t *writer);
void cot_safetensors_writer_destroy(cot_safetensors_writer_t *writer); /* discards what was not committed */

#endif
