/* Rank 0 of `coterie calibrate`: has the workers measure the expert stage and the links between them, and writes a
 * cluster file of it. */
#ifndef COORD_CALIBRATE_H
#define COORD_CALIBRATE_H

#include "base/settings.h"
#include "coordinator/fleet.h"
#include "model/config.h"

#include <stdio.h>

typedef struct {
    const coord_fleet_t *fleet; /* all are ready to measure */
    const cot_settings_t *settings;
    const model_config_t *model;
    const char *model_name, *dtype;
    uint32_t row_bytes;
    FILE *report; /* tables for people */
} coord_calibrate_config_t;

/* Writes --out. COT_ERR_TIMEOUT if a worker does not answer within --step-timeout, or the first fault that one reports.
 */
cot_status_t coord_calibrate(const coord_calibrate_config_t *config);

#endif
