/* The engine: requests in, tokens out. Continuous batching with chunked prefill over the workers' paged KV blocks; the
 * next step is composed and sent while the current one runs. Two front ends use it: the RPC server and `score`.
 * One thread. Nothing here blocks: call coord_engine_poll in a loop. */
#ifndef COORD_ENGINE_H
#define COORD_ENGINE_H

#include "base/status.h"
#include "comm/comm.h"
#include "placement/trace.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct coord_engine coord_engine_t;

typedef struct {
    comm_link_t *link; /* borrowed; workers are ranks 1 … workers */
    uint32_t workers;
    uint32_t kv_blocks;                                   /* of each worker (the smallest of them) */
    uint32_t max_context, max_step_tokens, max_sequences; /* per worker */
    uint32_t max_waiting;                                 /* queue bound; beyond: COT_ERR_BUSY */
    uint32_t vocab;
    uint32_t max_logits_rows; /* rows with logits in one step of a worker */
    uint32_t eos_count;
    const int32_t *eos; /* copied */
    int64_t step_timeout_ms;
    place_recorder_t *recorder; /* borrowed; NULL: no trace */
} coord_engine_config_t;

typedef struct {
    float temperature, top_p, min_p, repetition_penalty;
    uint32_t top_k, top_logprobs;
    uint64_t seed;
} coord_sampling_t;

typedef enum {
    COORD_FINISH_NONE,
    COORD_FINISH_STOP,
    COORD_FINISH_EOS,
    COORD_FINISH_LENGTH,
    COORD_FINISH_CANCELLED,
    COORD_FINISH_ERROR
} coord_finish_t;

typedef struct {
    int32_t token;
    uint32_t position;
    float logprob;
    uint32_t tops;
    const int32_t *top_token; /* [tops] */
    const float *top_logprob;
    const float *logits; /* scored rows of a request with want_logits: [vocab]; else NULL */
} coord_token_t;

typedef struct coord_request coord_request_t;

/* Called from coord_engine_poll or coord_engine_cancel; they may call submit and cancel, never poll. What they are
 * handed is valid until they return. */
typedef struct {
    /* A drawn token, in order; return false to end the request here (a stop string): COORD_FINISH_STOP follows. The
     * token that ends a text (EOS) is handed over too; COORD_FINISH_EOS follows whatever is returned. */
    bool (*token)(void *user, const coord_token_t *token);
    /* score: row `position` with the likeliest next token and the logprob of the given one. */
    void (*scored)(void *user, const coord_token_t *token);
    /* Exactly once; `error` is a sentence or NULL. The request is gone afterwards. COORD_FINISH_LENGTH: max_tokens or
     * the context is reached, or the last row is scored. COORD_FINISH_ERROR: the engine failed. Only
     * coord_engine_destroy ends requests without a word. */
    void (*finished)(void *user, coord_finish_t finish, const char *error);
} coord_events_t;

typedef struct {
    const int32_t *tokens; /* prompt, then what was already received (resume): at least one; copied */
    uint32_t count;
    uint32_t max_tokens; /* to draw from here on, at least 1; it ends earlier where the context or the KV cache
                          * of a worker is full. With score: 0 */
    bool score, want_logits, ignore_eos;
    uint32_t trace_request; /* request number in the trace */
    uint32_t prompt_count;  /* tokens [0, prompt_count) are the prompt: phase 0 in the trace */
    coord_sampling_t sampling;
    const coord_events_t *events;
    void *user;
} coord_submit_t;

cot_status_t coord_engine_create(const coord_engine_config_t *config, coord_engine_t **engine_out);
void coord_engine_destroy(coord_engine_t *engine);

/* Refuses what can never run (over the context or the KV cache: COT_ERR_LIMIT; a token out of range or sampling that
 * makes no sense: COT_ERR_INVALID) and what cannot wait (COT_ERR_BUSY), with a sentence. */
cot_status_t coord_engine_submit(coord_engine_t *engine, const coord_submit_t *submit, coord_request_t **request_out);
/* `finished` (COORD_FINISH_CANCELLED) is called before this returns. */
void coord_engine_cancel(coord_engine_t *engine, coord_request_t *request);
/* Receives results, composes and sends the next step. *worked_out: whether anything moved. An error is fatal for the
 * engine: a worker failed or passed its deadline; the sentence names it. All requests have been finished with it then,
 * and every later submit and poll gives it again. */
cot_status_t coord_engine_poll(coord_engine_t *engine, bool *worked_out);
/* Tokens of the longest request: max_context, or what the KV cache of a worker holds if that is less. */
uint32_t coord_engine_context(const coord_engine_t *engine);
bool coord_engine_idle(const coord_engine_t *engine); /* no request waits or runs, no step is in flight */
/* Tells all workers to end, once what was sent is done; comm_flush sees it off. */
cot_status_t coord_engine_stop(coord_engine_t *engine);

typedef struct {
    uint64_t steps, tokens_drawn, tokens_prefilled, preemptions, requests_finished;
    uint32_t waiting, running, kv_blocks_used, kv_blocks; /* summed over workers */
    double tokens_per_second;                             /* drawn, over the last 10 s */
    double step_ms;                                       /* mean of the last 64 steps */
} coord_engine_stats_t;
void coord_engine_stats(const coord_engine_t *engine, coord_engine_stats_t *stats_out);

/* Per worker, of the last step it reported. */
typedef struct {
    uint64_t step, assignments, dispatch_bytes, combine_bytes;
    int64_t compute_ns, wait_ns;
    double seconds_since_result;
} coord_worker_stats_t;
void coord_engine_worker_stats(const coord_engine_t *engine, uint32_t worker, coord_worker_stats_t *stats_out);

#endif
