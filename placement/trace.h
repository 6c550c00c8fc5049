/* Routing traces (*.trace.safetensors, format coterie.trace/1, DESIGN.md section 6). */
#ifndef PLACE_TRACE_H
#define PLACE_TRACE_H

#include "base/safetensors.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* The largest count: sums over the experts of a layer, and products with top_k, stay within int64. */
#define PLACE_COUNT_MAX (INT64_MAX / 65536)

typedef struct {
    const char *model;         /* name, for people */
    const char *config_sha256; /* "" if unknown */
    uint32_t experts, top_k, layers;
    const uint32_t *layer_index; /* [layers] model layer numbers of the MoE layers */
    uint32_t row_bytes;          /* of one dispatched row */
    double expert_ns_per_row;    /* one expert on one row; 0: unknown */
} place_trace_info_t;

/* ---- recording: rows arrive in any order, a repeated (request, position) overwrites (it is the same bits) ---- */

/* Owns its rows, bounded by `limit_bytes`. One thread at a time. */
typedef struct place_recorder place_recorder_t;

typedef struct {
    uint32_t request, position;
    int32_t token_id;
    uint8_t phase;           /* 0 prefill, 1 decode */
    const int16_t *experts;  /* [layers, top_k] in descending gate weight */
    const uint16_t *weights; /* [layers, top_k] gate weights as applied, IEEE half */
} place_trace_row_t;

cot_status_t place_recorder_create(const place_trace_info_t *info, uint64_t limit_bytes,
                                   place_recorder_t **recorder_out);
/* Rows past the limit are dropped by whole requests: COT_ERR_LIMIT once, then the request's rows are ignored. */
cot_status_t place_recorder_add(place_recorder_t *recorder, const place_trace_row_t *row);
/* Forgets a request (cancelled before it gave a token, say). */
void place_recorder_drop(place_recorder_t *recorder, uint32_t request);
uint64_t place_recorder_rows(const place_recorder_t *recorder);
uint32_t place_recorder_width(const place_recorder_t *recorder); /* layers x top_k: choices of a row */
/* Rows sorted by request and position: byte-identical for any number of workers and any plan. */
cot_status_t place_recorder_save(place_recorder_t *recorder, const char *path);
void place_recorder_destroy(place_recorder_t *recorder);

/* ---- reading ---- */

/* A trace, checked whole when it opens: every size, id and sum. Owns the mapping and the arrays. Immutable. */
typedef struct place_trace place_trace_t;

typedef enum { PLACE_TRACE_TOKENS, PLACE_TRACE_COUNTS } place_trace_kind_t;

cot_status_t place_trace_open(const char *path, place_trace_t **trace_out);
void place_trace_close(place_trace_t *trace);
place_trace_kind_t place_trace_kind(const place_trace_t *trace);
const place_trace_info_t *place_trace_info(const place_trace_t *trace); /* row_bytes 0 if unknown */

/* Rows of a token trace (0 for counts). */
uint64_t place_trace_tokens(const place_trace_t *trace);
/* Tokens the trace is of: its rows, or what a counts trace states; 0: not stated. */
uint64_t place_trace_tokens_stated(const place_trace_t *trace);
/* COT_ERR_MISMATCH if two traces are not of one model: layers, experts, top_k (0: unknown), config_sha256 ("":
 * unknown). */
cot_status_t place_trace_same_model(const place_trace_info_t *first, const place_trace_info_t *other);
/* Expert of (token, layer, k) in a token trace. */
uint32_t place_trace_expert(const place_trace_t *trace, uint64_t token, uint32_t layer, uint32_t k);
/* token_id, request, position and phase of a row; -1 where the file holds none. */
typedef struct {
    int32_t token_id, request, position, phase;
} place_trace_where_t;
place_trace_where_t place_trace_where(const place_trace_t *trace, uint64_t token);

/* A tensor of the file by name, NULL if absent; and element `index` of one of type I32, I64 or U8. */
const cot_tensor_t *place_trace_tensor(const place_trace_t *trace, const char *name);
int64_t place_trace_integer(const cot_tensor_t *tensor, uint64_t index);

/* Tokens routed to each expert, [layers, experts]; counted from the rows, or as the file states it. */
const int64_t *place_trace_load(const place_trace_t *trace);

/* Longest run of identical consecutive rows (all layers, all k), and how many rows lie in runs of at least
 * PLACE_REPEAT_ROWS: a recorder that caught an engine's warm-up shows here. 0 for counts. */
#define PLACE_REPEAT_ROWS 8
void place_trace_repeats(const place_trace_t *trace, uint64_t *longest_out, uint64_t *rows_out);

/* (max - mean) / mean over the values, 0 when all are 0; "imbalance" (TensorRT-LLM's). mean / max is "balancedness". */
double place_imbalance(const int64_t *load, uint32_t count);

#endif
