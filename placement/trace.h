/* Routing traces (*.trace.safetensors, format coterie.trace/1, DESIGN.md section 6). */
#ifndef PLACE_TRACE_H
#define PLACE_TRACE_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    const char *model;         /* name, for people */
    const char *config_sha256; /* "" if unknown */
    uint32_t experts, top_k, layers;
    const uint32_t *layer_index; /* [layers] model layer numbers of the MoE layers */
    uint32_t row_bytes;        /* of one dispatched row */
} place_trace_info_t;

/* ---- recording: rows arrive in any order, a repeated (request, position) overwrites (it is the same bits) ---- */

/* Owns its rows, bounded by `limit_bytes`. One thread at a time. */
typedef struct place_recorder place_recorder_t;

typedef struct {
    uint32_t request, position;
    int32_t token_id;
    uint8_t phase;             /* 0 prefill, 1 decode */
    const int16_t *experts;    /* [layers, top_k] in descending gate weight */
    const uint16_t *weights;   /* [layers, top_k] gate weights as applied, IEEE half */
} place_trace_row_t;

cot_status_t place_recorder_create(const place_trace_info_t *info, uint64_t limit_bytes, place_recorder_t **recorder_out);
/* Rows past the limit are dropped by whole requests: COT_ERR_LIMIT once, then the request's rows are ignored. */
cot_status_t place_recorder_add(place_recorder_t *recorder, const place_trace_row_t *row);
/* Forgets a request (cancelled before it gave a token, say). */
void place_recorder_drop(place_recorder_t *recorder, uint32_t request);
uint64_t place_recorder_rows(const place_recorder_t *recorder);
/* Rows sorted by request and position: byte-identical for any number of workers and any plan. */
cot_status_t place_recorder_save(place_recorder_t *recorder, const char *path);
void place_recorder_destroy(place_recorder_t *recorder);

/* IEEE half of a float, round to nearest even. */
uint16_t place_half_from_float(float value);
float place_half_to_float(uint16_t half);

/* ---- reading ---- */

/* Owns the mapping. Every size and id is checked when it opens. */
typedef struct place_trace place_trace_t;
cot_status_t place_trace_open(const char *path, place_trace_t **trace_out);
void place_trace_close(place_trace_t *trace);

#endif
