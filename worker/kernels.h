/* The backend of a worker, as settings and model want it. */
#ifndef WORKER_KERNELS_H
#define WORKER_KERNELS_H

#include "base/settings.h"
#include "comm/comm.h"
#include "worker/model.h"

uint32_t worker_node_workers(const comm_link_t *link); /* workers on this rank's node */

/* The type that activations are rounded to: --dtype, or the checkpoint's own (float16 computes in float32). */
kern_dtype_t worker_activation_type(const cot_settings_t *settings, const model_config_t *config);

/* --backend with --threads threads (a pool that outlives it; the caller destroys both). Fills model->ops and ->kern
 * from its configuration and limits. */
cot_status_t worker_kernels_start(const comm_link_t *link, const cot_settings_t *settings, uint32_t isa,
                                  worker_model_t *model, cot_pool_t **pool_out);

#endif
