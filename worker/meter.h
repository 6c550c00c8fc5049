/* A worker's part in `coterie calibrate`: it measures what rank 0 orders (proto/measure.h). */
#ifndef WORKER_METER_H
#define WORKER_METER_H

#include "comm/comm.h"
#include "proto/step.h"

/* Owns the backend, the experts that this worker would hold in the first MoE layer, and buffers. */
typedef struct worker_meter worker_meter_t;

cot_status_t worker_meter_create(comm_link_t *link, const rpc_setup_t *setup, worker_meter_t **meter_out);
void worker_meter_destroy(worker_meter_t *meter); /* NULL is allowed */

/* Answers orders until rank 0 says stop. With NULL (create failed) it only waits for that. */
cot_status_t worker_meter_run(comm_link_t *link, worker_meter_t *meter);

#endif
