/* One step: the message's rows through the model, the draws and scores back. All memory is taken at create. */
#ifndef WORKER_STEP_H
#define WORKER_STEP_H

#include "base/buffer.h"
#include "proto/step.h"
#include "worker/ep.h"

typedef struct worker_stepper worker_stepper_t;

typedef struct {
    const worker_model_t *model; /* borrowed, as `ep` */
    const worker_ep_ops_t *ep_ops;
    worker_ep_t *ep;
} worker_stepper_config_t;

cot_status_t worker_stepper_create(const worker_stepper_config_t *config, worker_stepper_t **stepper_out);
void worker_stepper_destroy(worker_stepper_t *stepper);

/* Runs the step and leaves the encoded result in `result` (cleared first). */
cot_status_t worker_stepper_run(worker_stepper_t *stepper, const rpc_step_t *step, cot_buffer_t *result);

#endif
