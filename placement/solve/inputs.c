#include "placement/solve/inputs.h"

#include "placement/model.h"

#include <string.h>

/* Where nothing was measured: a rank of the reference machine (DESIGN.md section 9) at half of its grouped-GEMM rate,
 * and its memory's reading rate. A weight is two bytes and two operations on a row, so bytes count operations. */
#define DEFAULT_OPERATIONS_PER_NS 338e3
#define DEFAULT_BYTES_PER_NS 4550.0

void solve_inputs_free(solve_inputs_t *inputs)
{
    place_stats_destroy(inputs->stats);
    place_cluster_destroy(inputs->cluster);
    *inputs = (solve_inputs_t){0};
}

static cot_status_t pick(const char *flag, const char *value, const char *const *names, uint32_t count, uint32_t *out)
{
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(value, names[i]) == 0) {
            *out = i;
            return COT_OK;
        }
    return cot_fail(COT_ERR_INVALID, "--%s \"%.40s\": there is no such %s; coterie plan --help lists them", flag, value,
                    flag);
}

static cot_status_t read_exchange(const cot_settings_t *settings, solve_problem_config_t *config)
{
    const char *names[] = {solve_exchange_name(SOLVE_HOME), solve_exchange_name(SOLVE_SHUFFLE),
                           solve_exchange_name(SOLVE_COHERENT)};
    uint32_t chosen = 0;
    COT_TRY(pick("exchange", cot_settings_string(settings, COT_SET_EXCHANGE), names, 3, &chosen));
    config->exchange = (solve_exchange_t)chosen;
    return COT_OK;
}

static cot_status_t read_objective(const cot_settings_t *settings, solve_problem_config_t *config)
{
    const char *names[] = {solve_objective_name(SOLVE_CROSSINGS), solve_objective_name(SOLVE_BALANCE),
                           solve_objective_name(SOLVE_WEIGHTED), solve_objective_name(SOLVE_STEP_TIME)};
    uint32_t chosen = SOLVE_STEP_TIME;
    if (cot_settings_given(settings, COT_SET_OBJECTIVE))
        COT_TRY(pick("objective", cot_settings_string(settings, COT_SET_OBJECTIVE), names, 4, &chosen));
    config->objective = (solve_objective_t)chosen;
    return COT_OK;
}

/* Times of an expert: as calibrated, else as the trace states, else what the model's sizes take on the reference
 * machine. */
static void fill_times(solve_inputs_t *inputs, const place_model_t *model)
{
    solve_problem_config_t *config = &inputs->config;
    config->row_bytes = inputs->stats->row_bytes;
    if (model != NULL) {
        config->expert_bytes = model->expert_bytes;
        if (config->row_bytes == 0) config->row_bytes = model->row_bytes;
        config->expert_ns_per_row = (double)model->expert_bytes / DEFAULT_OPERATIONS_PER_NS;
        config->expert_ns_per_touch = (double)config->expert_bytes / DEFAULT_BYTES_PER_NS;
        inputs->step_source = "the model's sizes on the reference machine";
    }
    if (inputs->stats->expert_ns_per_row > 0) {
        config->expert_ns_per_row = inputs->stats->expert_ns_per_row;
        inputs->step_source = "the trace";
    }
    if (inputs->cluster->expert_ns_per_row > 0) {
        config->expert_ns_per_row = inputs->cluster->expert_ns_per_row;
        inputs->step_source = "the cluster file";
    }
}

/* COT_ERR_MISMATCH if the traces cannot be of the model. */
static cot_status_t load_model(const char *path, solve_inputs_t *inputs)
{
    place_stats_t *stats = inputs->stats;
    place_model_t *model = NULL;
    if (path[0] != '\0') {
        COT_TRY(place_model_load(path, &model));
        cot_status_t status = place_model_check(model, stats->experts, stats->top_k, stats->layers, stats->layer_index);
        if (status == COT_OK && stats->config_sha256[0] != '\0' && strcmp(stats->config_sha256, model->sha256) != 0)
            status = cot_fail(COT_ERR_MISMATCH, "was recorded with another config.json than %s", path);
        if (status != COT_OK) {
            place_model_destroy(model);
            return cot_fail_in(status, "the trace");
        }
        if (stats->top_k == 0) stats->top_k = model->top_k;
    }
    fill_times(inputs, model);
    place_model_destroy(model);
    return COT_OK;
}

static cot_status_t load(const cot_settings_t *settings, const char *const *traces, uint32_t count,
                         solve_inputs_t *inputs)
{
    const char *cluster = cot_settings_string(settings, COT_SET_CLUSTER);
    if (cluster[0] == '\0') return cot_fail(COT_ERR_INVALID, "--cluster is missing: which machines is the plan for?");
    solve_problem_config_t *config = &inputs->config;
    COT_TRY(read_objective(settings, config));
    COT_TRY(read_exchange(settings, config));
    config->decode = cot_settings_switch(settings, COT_SET_DECODE);
    config->lambda = cot_settings_number(settings, COT_SET_LAMBDA);
    config->step_tokens = (uint64_t)cot_settings_int(settings, COT_SET_STEP_TOKENS);
    COT_TRY(place_cluster_load(cluster, &inputs->cluster));
    COT_TRY(place_stats_load(traces, count, &inputs->stats));
    config->stats = inputs->stats;
    config->cluster = inputs->cluster;
    return load_model(cot_settings_string(settings, COT_SET_MODEL), inputs);
}

cot_status_t solve_inputs_load(const cot_settings_t *settings, const char *const *traces, uint32_t count,
                               solve_inputs_t *inputs_out)
{
    solve_inputs_t inputs = {0};
    cot_status_t status = load(settings, traces, count, &inputs);
    if (status != COT_OK) {
        solve_inputs_free(&inputs);
        return status;
    }
    *inputs_out = inputs;
    return COT_OK;
}
