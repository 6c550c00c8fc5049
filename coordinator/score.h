/* `coterie score`: a file of lines through the engine, without RPC. */
#ifndef COORD_SCORE_H
#define COORD_SCORE_H

#include "base/status.h"
#include "coordinator/engine.h"
#include "model/tokenizer.h"

#include <stdatomic.h>
#include <stdio.h>

#define COORD_SCORE_LINE_BYTES ((size_t)64 << 20) /* longest input line */

typedef struct {
    coord_engine_t *engine;             /* borrowed; no other requests meanwhile */
    const model_tokenizer_t *tokenizer; /* borrowed; NULL: lines of text are refused */
    uint32_t vocab;
    const char *in;          /* JSONL; "-" is standard input */
    const char *out;         /* JSONL */
    const char *logits;      /* safetensors; NULL or "": none */
    FILE *report;            /* gets the line `perplexity X over N tokens` at the end; NULL: nowhere */
    const atomic_bool *stop; /* set from elsewhere to give up; NULL: signals (base/signals.h) alone do */
} coord_score_config_t;

/* Scores every line and writes the output files when all is done. Lines are read as room frees; line n is request n of
 * the trace. COT_ERR_PARTIAL: outputs are whole, but some lines hold {"error": …}. COT_ERR_CANCELLED (a signal, `stop`)
 * and every other error: no output appears. */
cot_status_t coord_score(const coord_score_config_t *config);

#endif
