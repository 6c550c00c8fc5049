/* An engine over fake workers, requests that write down what they are told, and what each would say if it were alone.
 */
#ifndef TESTS_WORLD_H
#define TESTS_WORLD_H

#include "coordinator/engine.h"
#include "tests/coordinator/fake_worker.h"
#include "tests/temporary.h"

enum { WORLD_TOKENS = 1024 }; /* most tokens of a request here */

typedef struct {
    fake_config_t fake;
    coord_engine_config_t config;
    uint64_t record_bytes; /* limit of a trace of two layers and two choices; 0: none */
    fake_fleet_t *fleet;
    coord_engine_t *engine;
    size_t live_blocks;
    unsigned warnings;
} world_t;

/* Two workers, room for everything, vocabulary 1000, token 7 ends a text. */
void world_init(world_t *world);
void world_start(world_t *world);
/* Ends everything, the recorder too; fails on a leak or an unexpected warning. */
void world_finish(world_t *world);
/* Polls until the engine is idle. */
void world_run(world_t *world);
void world_poll(world_t *world, int times);

typedef struct talk {
    world_t *world;
    coord_request_t *request; /* NULL once finished */
    coord_submit_t submit;
    int32_t prompt[WORLD_TOKENS];
    uint32_t stop_after, cancel_after; /* drawn tokens; 0: never */
    struct talk *cancels;              /* cancelled too, at the same time */

    uint32_t count; /* drawn, or rows scored */
    int32_t token[WORLD_TOKENS];
    float logprob[WORLD_TOKENS];
    uint64_t logits_sum;
    coord_finish_t finish;
    char error[256];
    int finished; /* times */
} talk_t;

/* A request of `prompt` tokens, made of `number`, that draws `max_tokens` (0: is scored). */
void talk_init(talk_t *talk, world_t *world, uint32_t number, uint32_t prompt, uint32_t max_tokens);
cot_status_t talk_submit(talk_t *talk);
/* Fails unless it said what it would have said alone (cancelled: the beginning of that). */
void talk_check(const talk_t *talk);

#endif
