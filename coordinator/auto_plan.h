/* `--plan auto`: coterie-plan, as a child within limits, between the workers' hello and the loading of the weights. It
 * is a program of its own because it is GPL, and because no solver's memory, time or crash may touch serving. */
#ifndef COORD_AUTO_PLAN_H
#define COORD_AUTO_PLAN_H

#include "base/buffer.h"
#include "base/settings.h"
#include "coordinator/fleet.h"
#include "placement/plan.h"

/* Owns the child and a temporary folder; both are gone after destroy. One thread. */
typedef struct coord_auto_plan coord_auto_plan_t;

typedef struct {
    const cot_settings_t *settings; /* --trace, --cluster, --plan-timeout, --plan-memory */
    const coord_fleet_t *fleet;     /* all have said hello */
    const place_plan_need_t *need;  /* what the plan must be for */
} coord_auto_plan_config_t;         /* all borrowed until destroy */

/* Without --cluster it describes the running job (nodes, memory, slots as a contiguous placement has them) with default
 * figures for the links, and logs that description. */
cot_status_t coord_auto_plan_start(const coord_auto_plan_config_t *config, coord_auto_plan_t **planner_out);
/* Whether the planner has ended; never waits. */
bool coord_auto_plan_ended(coord_auto_plan_t *planner);
/* Once ended: the plan's text, checked; or the sentence why there is none. */
cot_status_t coord_auto_plan_take(coord_auto_plan_t *planner, cot_buffer_t *text_out);
void coord_auto_plan_destroy(coord_auto_plan_t *planner); /* NULL is allowed; kills a planner that still runs */

/* The job as a cluster file. */
cot_status_t coord_describe_cluster(const coord_fleet_t *fleet, uint32_t experts, uint64_t kv_bytes, cot_buffer_t *out);

#endif
