/* Workers without a model, each a thread on a link of comm_local_start. What a row gives is a hash of the tokens up to
 * it, read back through the run's KV blocks: it is right only if every block still holds what its sequence wrote. */
#ifndef TESTS_FAKE_WORKER_H
#define TESTS_FAKE_WORKER_H

#include "comm/comm.h"
#include "proto/step.h"

#include <pthread.h>
#include <stdatomic.h>

enum { FAKE_WORKERS_MAX = 4, FAKE_EXPERTS = 8 };

/* What a worker does wrong in the step `fault_step`. */
typedef enum {
    FAKE_NO_FAULT,
    FAKE_SILENT,
    FAKE_FAILED, /* status COT_ERR_DEVICE, "the device burst" */
    FAKE_RANK,
    FAKE_STEP,
    FAKE_COUNT,
    FAKE_SEQUENCE,
    FAKE_POSITION,
    FAKE_TOKEN,
    FAKE_TOPS,
    FAKE_GARBAGE,
    FAKE_TWICE,
    FAKE_ROUTE_WIDTH,
    FAKE_ROUTE_TOKEN,
    FAKE_ROUTE_POSITION,
    FAKE_LOGITS_VOCAB,
} fake_fault_t;

typedef struct {
    uint32_t workers, vocab, slots, kv_blocks, max_context, max_step_tokens, max_logits_rows, route_width;
    uint32_t jitter_us; /* each step takes up to this long */
    fake_fault_t fault;
    uint32_t fault_worker; /* index */
    uint64_t fault_step;
} fake_config_t;

typedef struct fake_fleet fake_fleet_t;

fake_fleet_t *fake_fleet_start(const fake_config_t *config);
comm_link_t *fake_fleet_link(fake_fleet_t *fleet); /* rank 0's */
/* Steps after `step` are held back until this is called again; at start none is. */
void fake_fleet_allow(fake_fleet_t *fleet, uint64_t step);
/* Steps that all workers have answered. */
uint64_t fake_fleet_answered(fake_fleet_t *fleet);
bool fake_fleet_stopped(fake_fleet_t *fleet); /* every worker was told to end */
void fake_fleet_finish(fake_fleet_t *fleet);

/* ---- the model ---- */

#define FAKE_BEGIN 0x9e3779b97f4a7c15U
uint64_t fake_mix(uint64_t state, uint64_t value);
/* The state after one more token. */
uint64_t fake_next(uint64_t state, int32_t token);
int32_t fake_top(uint64_t state, uint32_t vocab, uint32_t rank); /* rank 0: the likeliest token */
float fake_logprob(uint64_t state, int32_t token);
float fake_logit(uint64_t state, int32_t token);
/* Temperature 0: the likeliest. Else by seed and position. */
int32_t fake_draw(uint64_t state, uint32_t vocab, float temperature, uint64_t seed, uint32_t position);
int16_t fake_expert(uint64_t state, uint32_t choice);
uint16_t fake_weight(uint64_t state, uint32_t choice);

#endif
