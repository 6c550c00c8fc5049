/* The expert-parallel plan: where tokens live between exchanges (DESIGN.md section 4). A plan takes the step's embedded
 * rows through all layers and leaves each row's residual on its home worker. */
#ifndef WORKER_EP_H
#define WORKER_EP_H

#include "comm/comm.h"
#include "worker/model.h"

/* The rows of one step whose home is this worker; there may be none. */
typedef struct {
    uint64_t step;
    uint32_t rows, runs;
    const kern_run_t *run;
    float *x;               /* in, out [rows, hidden] */
    int16_t *experts;       /* out [rows, MoE layers, top_k] routing, in descending gate weight */
    uint16_t *gate_weights; /* out, likewise, IEEE half */
} worker_batch_t;

typedef struct {
    const worker_model_t *model; /* borrowed; its weights and kv may come after create, before forward */
    comm_link_t *link;           /* borrowed */
    int64_t timeout_ms;          /* of one exchange */
} worker_ep_config_t;

typedef struct worker_ep worker_ep_t;

/* Collective: every worker calls forward once a step, with rows or without. */
typedef struct {
    const char *name;
    cot_status_t (*create)(const worker_ep_config_t *config, worker_ep_t **ep_out);
    void (*destroy)(worker_ep_t *ep);
    cot_status_t (*forward)(worker_ep_t *ep, worker_batch_t *batch);
    /* Sums since create; `assignments` counts the (row, expert) pairs computed here. */
    void (*traffic)(const worker_ep_t *ep, comm_traffic_t *traffic_out, uint64_t *assignments_out);
} worker_ep_ops_t;

/* Attention data-parallel at the request's home; dispatch to the experts and combine back home in every layer. */
extern const worker_ep_ops_t worker_ep_home;

#endif
