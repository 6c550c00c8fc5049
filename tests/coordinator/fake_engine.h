/* An engine without workers: every answer is a script. Row i of a request's answer is script[i], whatever came before,
 * so that a resumed request goes on with the right token. It stands in for coordinator/engine.c when linked. */
#ifndef TESTS_FAKE_ENGINE_H
#define TESTS_FAKE_ENGINE_H

#include "coordinator/engine.h"

enum { FAKE_ENGINE_REQUESTS = 64 };

struct coord_request {
    coord_submit_t submit;
    uint32_t drawn; /* those resumed included */
    bool taken;
};

struct coord_engine {
    const int32_t *script;
    uint32_t script_count; /* starts over at its end */
    int32_t eos;
    uint32_t vocab, max_context, max_requests;
    bool hold; /* no token comes */
    bool fail; /* the next poll fails */
    uint32_t submitted, cancelled, finished, live;
    coord_sampling_t last_sampling;
    struct coord_request request[FAKE_ENGINE_REQUESTS];
};

/* What the fake says the logprob of its i-th token is: exact in float. */
static inline float fake_engine_logprob(uint32_t i)
{
    return -(float)(i % 64) / 64.0f;
}

#endif
