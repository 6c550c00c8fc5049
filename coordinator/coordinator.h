/* Rank 0: reads the settings, has the workers load the model, then serves requests or scores a file; or has them
 * measure the machine. */
#ifndef COORD_H
#define COORD_H

#include "base/settings.h"
#include "base/status.h"
#include "comm/comm.h"

/* `command` is one of COT_CMD_RANKS. Returns when the work is done, or with the one sentence why not; the
 * workers have been told to end either way. */
cot_status_t coord_main(comm_link_t *link, const cot_settings_t *settings, uint32_t command);

/* Tells all workers to leave before anything was loaded: for a rank 0 whose command line is at fault. */
void coord_turn_away(comm_link_t *link);

#endif
