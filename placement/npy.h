/* NumPy's .npy files, format versions 1 to 3: one array of numbers. */
#ifndef PLACE_NPY_H
#define PLACE_NPY_H

#include "base/file.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define PLACE_NPY_DIMS 4

/* Owns the mapping. Immutable once open. */
typedef struct {
    cot_map_t map;
    char kind;           /* 'i', 'u' or 'f' */
    uint32_t item_bytes; /* 1, 2, 4 or 8 */
    bool fortran_order;  /* the first index runs fastest in the file */
    uint32_t dims;
    uint64_t shape[PLACE_NPY_DIMS];
    uint64_t count;      /* product of the shape */
    uint64_t data_begin; /* byte offset of the numbers */
} place_npy_t;

/* Little-endian integers of 1 to 8 bytes, and floats of 4 or 8: other types are refused by name. The file must be as
 * long as its header says. */
cot_status_t place_npy_open(const char *path, place_npy_t *npy_out);
void place_npy_close(place_npy_t *npy);

/* The element at `index` in row-major order, whatever the file's order. COT_ERR_FORMAT, with the byte offset, if it is
 * not a whole number within int64. */
cot_status_t place_npy_integer(const place_npy_t *npy, uint64_t index, int64_t *value_out);

/* Version 1, '<i8', row-major: what numpy.save writes. */
cot_status_t place_npy_save(const char *path, const int64_t *values, uint32_t dims, const uint64_t *shape);

#endif
