/* Inside the engine: requests, steps in flight, and the tables of each worker.
 *
 * Why blocks and slots may be given away at once. A worker executes steps in the order in which they are sent, and
 * within a step a sequence writes the KV of its rows before it reads any, and reads no position past its own rows. So
 * when a request ends or is preempted while steps with its rows are still in flight, its blocks and its slot may go to
 * another sequence in the next step that is composed: that step runs after the last one that carries the old owner's
 * rows. The only thing to rule out is both in one step; it is, because a request is preempted only before its own rows
 * enter the step (compose.c goes from the oldest to the youngest and preempts from the young end). What the old rows
 * give is told from what the new ones give by the sequence number, which every admission draws afresh. */
#ifndef COORD_ENGINE_INT_H
#define COORD_ENGINE_INT_H

#include "base/buffer.h"
#include "base/clock.h"
#include "coordinator/engine.h"
#include "coordinator/kv_table.h"
#include "proto/step.h"

#define COORD_FLIGHTS 2       /* steps in flight at most: one runs, one waits behind it */
#define COORD_RATE_SECONDS 10 /* over which tokens per second are measured */
#define COORD_STEP_TIMES 64   /* over which the step time is averaged */

typedef enum { COORD_WAITING, COORD_RUNNING, COORD_DONE } coord_state_t;

/* DONE requests live on until no step in flight carries rows of theirs. */
struct coord_request {
    coord_request_t *before, *after; /* in the queue, or among those that run on its worker: oldest first */
    coord_state_t state;
    coord_submit_t submit; /* `tokens` is not kept here */
    uint64_t age;          /* number of the submit: lower is older */
    uint64_t sequence;     /* number of the last admission */
    uint64_t step;         /* the last step with rows of it */
    uint32_t worker, slot; /* while it runs */
    uint32_t count, limit; /* tokens known; tokens at its end */
    uint32_t rows;         /* rows sent since its admission: positions 0 … rows-1 */
    uint32_t drawing;      /* tokens that the steps in flight draw, since its admission */
    uint32_t prefill_end;  /* tokens known at its admission */
    uint32_t scored;       /* rows handed to `scored`: not handed over again after a preemption */
    uint32_t blocks;       /* held */
    uint32_t flights;      /* runs of it that steps in flight carry */
    int32_t *token;        /* [limit] */
    uint32_t *block;       /* [blocks of limit] */
};

typedef struct {
    coord_request_t *first, *last;
    uint32_t count;
} coord_list_t;

/* A run that was sent: what must come back. Runs of one worker are chained in the order of the message. */
typedef struct {
    coord_request_t *request;
    uint64_t sequence;
    uint32_t position, rows, flags, top_logprobs;
    uint32_t next; /* index of the worker's next run, or COORD_NO_RUN */
} coord_flight_run_t;

#define COORD_NO_RUN UINT32_MAX

typedef struct {
    uint64_t step;
    int64_t sent_ns;
    cot_deadline_t deadline; /* counts from when it is the oldest in flight */
    uint32_t answered;       /* workers */
    cot_buffer_t runs;       /* coord_flight_run_t */
    uint32_t *first, *last;  /* [workers] index of its first and last run, or COORD_NO_RUN */
} coord_flight_t;

typedef struct {
    coord_numbers_t blocks, slots;
    coord_list_t running;
    uint32_t row_budget, logits_budget; /* of the step that is composed */
    uint64_t answered_step;             /* the last one it answered */
    int64_t answered_ns;
    coord_worker_stats_t stats;
} coord_worker_t;

struct coord_engine {
    coord_engine_config_t config;
    int32_t *eos;
    uint32_t context; /* tokens of the longest request */
    cot_status_t fault;
    char *fault_text;
    bool polling, stopped, trace_full;

    coord_list_t waiting;
    coord_worker_t *worker; /* [workers] */
    uint64_t ages, sequences, steps;

    coord_flight_t flight[COORD_FLIGHTS]; /* step s is flight[s % COORD_FLIGHTS] */
    uint32_t in_flight;                   /* steps `steps - in_flight + 1` … `steps` */
    cot_buffer_t runs, tokens, blocks;    /* of the step that is composed */
    cot_buffer_t message;

    uint64_t tokens_drawn, tokens_prefilled, preemptions, requests_finished;
    int64_t created_ns;
    uint64_t rate_tokens[COORD_RATE_SECONDS];
    int64_t rate_second[COORD_RATE_SECONDS];
    int64_t step_ns[COORD_STEP_TIMES]; /* of the last steps */
};

/* ---- request.c ---- */

/* Keeps the list in order of age. */
void coord_list_insert(coord_list_t *list, coord_request_t *request);
void coord_list_remove(coord_list_t *list, coord_request_t *request);

cot_status_t coord_request_create(const coord_engine_t *engine, const coord_submit_t *submit,
                                  coord_request_t **request_out);
void coord_request_free(coord_request_t *request);
/* Puts a waiting request on a worker that has room for it. */
void coord_request_admit(coord_engine_t *engine, coord_request_t *request, uint32_t worker);
/* Takes a running request off its worker, back to the queue: it will be computed again. */
void coord_request_preempt(coord_engine_t *engine, coord_request_t *request);
/* Ends a request: its room is free, `finished` is called. The request may be gone afterwards, unless steps in flight
 * still carry rows of it. */
void coord_request_finish(coord_engine_t *engine, coord_request_t *request, coord_finish_t finish, const char *error);
/* A step in flight no longer carries rows of it. */
void coord_request_land(coord_request_t *request);

/* ---- compose.c ---- */

/* No step carries these runs any more: it has landed, or was never sent. */
void coord_flight_clear(coord_flight_t *flight);
/* Composes the next step and sends it to all workers; *sent_out: whether there was anything to run. */
cot_status_t coord_compose(coord_engine_t *engine, bool *sent_out);

/* ---- results.c ---- */

/* Takes all results that have arrived. */
cot_status_t coord_results_take(coord_engine_t *engine, bool *worked_out);
/* COT_ERR_TIMEOUT if the oldest step in flight is past its deadline, naming who is silent. */
cot_status_t coord_results_check_deadline(coord_engine_t *engine);

static inline coord_flight_t *coord_oldest_flight(coord_engine_t *engine)
{
    return &engine->flight[(engine->steps - engine->in_flight + 1) % COORD_FLIGHTS];
}

#endif
