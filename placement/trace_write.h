/* Writing routing traces (*.trace.safetensors): what the recorder, the importers, merge and split have in common. */
#ifndef PLACE_TRACE_WRITE_H
#define PLACE_TRACE_WRITE_H

#include "placement/trace.h"

/* The columns of a token trace, in the file's order. */
typedef enum {
    PLACE_COLUMN_EXPERTS, /* I16 [rows, layers, top_k] */
    PLACE_COLUMN_GATE_WEIGHTS,
    PLACE_COLUMN_TOKEN_ID,
    PLACE_COLUMN_REQUEST,
    PLACE_COLUMN_POSITION,
    PLACE_COLUMN_PHASE,
    PLACE_COLUMNS
} place_column_t;

/* Rows as they lie in a file or in memory. Borrows everything. */
typedef struct {
    uint64_t rows;
    const void *column[PLACE_COLUMNS]; /* of any alignment; NULL: absent. EXPERTS is always there */
    const uint8_t *keep;               /* [rows] 0: left out; NULL: all are kept */
    int32_t request_offset;            /* added to every request number */
} place_rows_t;

const char *place_trace_column_name(place_column_t column);

/* The metadata that every trace states; `tokens` is stated where it is not 0. */
cot_status_t place_trace_write_metadata(cot_safetensors_writer_t *writer, const place_trace_info_t *info,
                                        place_trace_kind_t kind, uint64_t tokens);
/* Declares a column of `rows` rows. */
cot_status_t place_trace_declare_column(cot_safetensors_writer_t *writer, const place_trace_info_t *info,
                                        place_column_t column, uint64_t rows);

/* The rows of an open token trace. */
place_rows_t place_trace_rows(const place_trace_t *trace);

/* Writes the kept rows of the parts, in their order, with the columns that all parts hold. */
cot_status_t place_rows_save(const place_trace_info_t *info, const place_rows_t *parts, uint32_t count,
                             const char *path);

#endif
