/* From a step message to this worker's rows: tokens, positions and KV blocks, each checked. Remembers, per slot, the
 * tokens of the sequence that holds it. */
#ifndef WORKER_BATCH_H
#define WORKER_BATCH_H

#include "proto/step.h"
#include "worker/model.h"

typedef struct worker_slots worker_slots_t;

/* max_sequences slots with room for max_context tokens each. */
cot_status_t worker_slots_create(const worker_model_t *model, worker_slots_t **slots_out);
void worker_slots_destroy(worker_slots_t *slots);

/* The tokens of the sequence in a slot so far. */
const int32_t *worker_slots_history(const worker_slots_t *slots, uint32_t slot, uint32_t *tokens_out);
/* The token that the slot's sequence has just drawn: RPC_TOKEN_SAMPLED in its next run. */
void worker_slots_drew(worker_slots_t *slots, uint32_t slot, int32_t token);

/* Fills the runs, tokens and origins of the step's runs whose home is this worker.
 * COT_ERR_PROTOCOL if a run does not fit this worker's limits or its slot's history. */
typedef struct {
    uint32_t rows, runs;
    kern_run_t *run;        /* [max_rows] */
    const rpc_run_t **from; /* [max_rows] the message's run behind each run */
    int32_t *token;         /* [max_rows] */
} worker_rows_t;
cot_status_t worker_slots_take(worker_slots_t *slots, const rpc_step_t *step, worker_rows_t *rows);

#endif
