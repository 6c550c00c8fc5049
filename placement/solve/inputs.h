/* What the commands read before they begin: traces, cluster, model; and the problem that the flags describe. */
#ifndef SOLVE_INPUTS_H
#define SOLVE_INPUTS_H

#include "base/settings.h"
#include "placement/solve/problem.h"

/* Owns what it points to. */
typedef struct {
    place_stats_t *stats;
    place_cluster_t *cluster;
    solve_problem_config_t config; /* borrows both */
    const char *step_source;       /* where expert_ns_per_row came from, for people; NULL if unknown */
} solve_inputs_t;

/* Reads the traces and --cluster, --model, --objective, --lambda, --exchange, --decode, --step-tokens. Where no
 * --objective is given: step_time if its figures are known, else COT_ERR_UNSUPPORTED. */
cot_status_t solve_inputs_load(const cot_settings_t *settings, const char *const *traces, uint32_t count,
                               solve_inputs_t *inputs_out);
void solve_inputs_free(solve_inputs_t *inputs);

#endif
