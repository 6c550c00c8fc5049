/* The workers while they start: who they are, what instruction set all have, how far they are, and whether all are
 * ready. */
#ifndef COORD_FLEET_H
#define COORD_FLEET_H

#include "base/settings.h"
#include "comm/comm.h"
#include "proto/step.h"

#define COORD_MAX_WORKERS 4096

/* Owns its table. One thread. */
typedef struct {
    comm_link_t *link; /* borrowed */
    uint32_t workers;
    rpc_start_t *worker; /* [workers] the last start message of each */
    uint32_t isa;        /* agreed */
} coord_fleet_t;

cot_status_t coord_fleet_create(comm_link_t *link, coord_fleet_t *fleet_out);
void coord_fleet_destroy(coord_fleet_t *fleet);

/* Takes what has arrived. */
cot_status_t coord_fleet_poll(coord_fleet_t *fleet);
/* Whether every worker has sent at least a message of `kind`. */
bool coord_fleet_all(const coord_fleet_t *fleet, rpc_start_kind_t kind);
/* "rank 3, 5": who has not. */
void coord_fleet_missing(const coord_fleet_t *fleet, rpc_start_kind_t kind, char *text, size_t bytes);
/* The slowest worker's progress, 0 … 1. */
float coord_fleet_progress(const coord_fleet_t *fleet);
/* COT_OK, or the first fault that is a worker's own: one that gave up because another failed says COT_ERR_CANCELLED. */
cot_status_t coord_fleet_fault(const coord_fleet_t *fleet);

/* Agrees on --isa, or on the best that all have. */
cot_status_t coord_fleet_agree(coord_fleet_t *fleet, const cot_settings_t *settings);
cot_status_t coord_fleet_send_setup(coord_fleet_t *fleet, const cot_settings_t *settings, const cot_buffer_t *plan,
                                    rpc_go_t go);

#endif
