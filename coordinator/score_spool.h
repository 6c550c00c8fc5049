/* The logits of all lines: kept in an unnamed file until every shape is known, then written as safetensors. */
#ifndef COORD_SCORE_SPOOL_H
#define COORD_SCORE_SPOOL_H

#include "base/buffer.h"
#include "base/safetensors.h"

/* Owns the unnamed file and the writer. Zero-initialised with fd -1: none. */
typedef struct {
    int fd;
    uint32_t vocab;
    uint64_t rows; /* of all lines so far */
    cot_buffer_t lines;
    cot_safetensors_writer_t *writer;
} coord_spool_t;

/* A file that cannot be written is found out now. */
cot_status_t coord_spool_open(const char *path, uint32_t vocab, coord_spool_t *spool_out);
void coord_spool_close(coord_spool_t *spool); /* without commit: nothing appears */
/* Reserves the rows of a line, in order of the lines; returns the first through `row_out`. */
cot_status_t coord_spool_line(coord_spool_t *spool, uint64_t line, uint32_t rows, uint64_t *row_out);
/* logits [vocab] of one row, in any order. */
cot_status_t coord_spool_row(coord_spool_t *spool, uint64_t row, const float *logits);
/* One F32 [rows, vocab] tensor for each line, named with its number. */
cot_status_t coord_spool_commit(coord_spool_t *spool);

#endif
