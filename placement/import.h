/* Routing that other programs wrote down, as traces: `coterie trace import`. docs/formats.md describes the formats. */
#ifndef PLACE_IMPORT_H
#define PLACE_IMPORT_H

#include "placement/model.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum {
    PLACE_IMPORT_CSV,    /* layer,expert,count, with a header or without; more columns: see `where` */
    PLACE_IMPORT_JSONL,  /* rows: one token, one request or one (token, layer) a line */
    PLACE_IMPORT_EXFLOW, /* rows: .npy [tokens, layers], one expert each, ids offset by layer x experts */
    PLACE_IMPORT_COUNTS, /* .npy [layers, experts] or [steps, layers, experts] */
} place_import_format_t;

/* What the file does not say, or must agree with. Borrows everything. */
typedef struct {
    uint32_t experts;            /* 0: as the file says, else the highest expert + 1 */
    uint32_t top_k;              /* 0: as the file says */
    uint64_t tokens;             /* must add up exactly: 0: not stated */
    uint32_t layers;             /* with layer_index; 0: as the file says, else from 0 */
    const uint32_t *layer_index; /* [layers] ascending */
    uint32_t request_tokens;     /* ExFlow: rows of one request; 0: requests are not known */
    const char *where;           /* CSV: "column=value,…", the rows to take; NULL: all */
    const place_model_t *model;  /* must agree; gives experts, top_k and layers; NULL: not known */
} place_import_t;

/* By name: csv, jsonl, exflow or counts; by default from the file's ending. COT_ERR_INVALID if that does not tell. */
cot_status_t place_import_format(const char *name, const char *path, place_import_format_t *format_out);

/* Reads `path` and writes the trace `out_path`. Faults name the line, or the byte offset in an array. */
cot_status_t place_import(place_import_format_t format, const char *path, const place_import_t *options,
                          const char *out_path);

#endif
