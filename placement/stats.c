#include "placement/stats.h"

#include "base/log.h"
#include "base/memory.h"
#include "placement/trace_counts.h"

#include <stdlib.h>
#include <string.h>

#define TOLERANCE 0.02

void place_stats_destroy(place_stats_t *stats)
{
    if (stats == NULL) return;
    cot_free(stats->layer_index);
    cot_free(stats->load);
    cot_free(stats->transition);
    cot_free(stats->coactivation);
    cot_free(stats);
}

static size_t pair_count(const place_stats_t *stats, uint32_t layers)
{
    return (size_t)layers * stats->experts * stats->experts;
}

/* The first trace gives the shape; the others must have it. */
static cot_status_t take_shape(place_stats_t *stats, const place_trace_t *trace)
{
    const place_trace_info_t *info = place_trace_info(trace);
    stats->layers = info->layers;
    stats->experts = info->experts;
    stats->top_k = info->top_k;
    stats->row_bytes = info->row_bytes;
    snprintf(stats->model, sizeof(stats->model), "%s", info->model);
    snprintf(stats->config_sha256, sizeof(stats->config_sha256), "%s", info->config_sha256);
    stats->layer_index = cot_calloc(stats->layers, sizeof(*stats->layer_index));
    stats->load = cot_calloc((size_t)stats->layers * stats->experts, sizeof(*stats->load));
    if (stats->layer_index == NULL || stats->load == NULL)
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for the counts of %u experts", stats->experts);
    memcpy(stats->layer_index, info->layer_index, stats->layers * sizeof(*stats->layer_index));
    if (stats->layers > 1 && place_trace_has_transition(trace)) {
        stats->transition = cot_calloc(pair_count(stats, stats->layers - 1), sizeof(*stats->transition));
        if (stats->transition == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the transitions");
    }
    if (place_trace_has_coactivation(trace)) {
        stats->coactivation = cot_calloc(pair_count(stats, stats->layers), sizeof(*stats->coactivation));
        if (stats->coactivation == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the co-activations");
    }
    return COT_OK;
}

static cot_status_t check_shape(const place_stats_t *stats, const place_trace_t *trace)
{
    const place_trace_info_t *info = place_trace_info(trace);
    if (info->layers != stats->layers || info->experts != stats->experts ||
        (info->top_k != 0 && stats->top_k != 0 && info->top_k != stats->top_k) ||
        memcmp(info->layer_index, stats->layer_index, stats->layers * sizeof(*stats->layer_index)) != 0)
        return cot_fail(COT_ERR_MISMATCH, "is of another model than the traces before it (%u layers of %u experts)",
                        info->layers, info->experts);
    if (info->config_sha256[0] != '\0' && stats->config_sha256[0] != '\0' &&
        strcmp(info->config_sha256, stats->config_sha256) != 0)
        return cot_fail(COT_ERR_MISMATCH, "is of another model than the traces before it: config_sha256 differs");
    return COT_OK;
}

/* What only some of the traces hold cannot be summed. */
static void drop_missing(place_stats_t *stats, const place_trace_t *trace)
{
    if (stats->transition != NULL && !place_trace_has_transition(trace)) {
        cot_log_warn("not every trace holds transitions: none are used");
        cot_free(stats->transition);
        stats->transition = NULL;
    }
    if (stats->coactivation != NULL && !place_trace_has_coactivation(trace)) {
        cot_log_warn("not every trace holds co-activations: none are used");
        cot_free(stats->coactivation);
        stats->coactivation = NULL;
    }
}

static cot_status_t add_trace(place_stats_t *stats, const char *path, bool first)
{
    place_trace_t *trace = NULL;
    COT_TRY(place_trace_open(path, &trace));
    cot_status_t status = first ? take_shape(stats, trace) : check_shape(stats, trace);
    if (status == COT_OK) {
        drop_missing(stats, trace);
        status = place_trace_count(trace, stats->load, stats->transition, stats->coactivation);
    }
    place_trace_close(trace);
    return status == COT_OK ? COT_OK : cot_fail_in(status, "%s", path);
}

/* ---- sums that must agree ---- */

typedef struct {
    double worst; /* relative difference */
    uint32_t layer;
    const char *what;
} disagreement_t;

static void compare(disagreement_t *found, const char *what, uint32_t layer, int64_t a, int64_t b)
{
    int64_t larger = llabs(a) > llabs(b) ? llabs(a) : llabs(b);
    double relative = larger > 0 ? (double)llabs(a - b) / (double)larger : 0;
    if (relative > found->worst) *found = (disagreement_t){relative, layer, what};
}

static int64_t sum(const int64_t *values, size_t count)
{
    int64_t total = 0;
    for (size_t i = 0; i < count; i++) total += values[i];
    return total;
}

/* Every token passes every layer with top_k experts, so layer sums agree; row e of a transition sums to top_k x
 * load[e]. */
static disagreement_t find_disagreement(const place_stats_t *stats)
{
    disagreement_t found = {0};
    uint32_t experts = stats->experts;
    int64_t first = sum(stats->load, experts);
    for (uint32_t l = 1; l < stats->layers; l++)
        compare(&found, "the layer's load and the first layer's", l, first,
                sum(stats->load + (size_t)l * experts, experts));
    for (uint32_t l = 0; stats->transition != NULL && stats->top_k > 0 && l + 1 < stats->layers; l++) {
        const int64_t *pairs = stats->transition + (size_t)l * experts * experts;
        for (uint32_t e = 0; e < experts; e++)
            compare(&found, "an expert's transitions and top_k x its load", l,
                    stats->load[(size_t)l * experts + e] * stats->top_k, sum(pairs + (size_t)e * experts, experts));
    }
    return found;
}

static cot_status_t check_sums(const place_stats_t *stats)
{
    if (sum(stats->load, stats->experts) == 0)
        return cot_fail(COT_ERR_FORMAT, "the trace is empty: there is nothing to plan by");
    disagreement_t found = find_disagreement(stats);
    if (found.worst == 0) return COT_OK;
    if (found.worst > TOLERANCE)
        return cot_fail(COT_ERR_FORMAT, "layer %u: %s differ by %.1f %%: the counts are not of one set of tokens",
                        stats->layer_index[found.layer], found.what, found.worst * 100);
    cot_log_warn("layer %u: %s differ by %.2f %%, the largest such difference", stats->layer_index[found.layer],
                 found.what, found.worst * 100);
    return COT_OK;
}

cot_status_t place_stats_load(const char *const *paths, uint32_t count, place_stats_t **stats_out)
{
    if (count == 0) return cot_fail(COT_ERR_INVALID, "give at least one trace");
    place_stats_t *stats = cot_calloc(1, sizeof(*stats));
    if (stats == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the counts");
    cot_status_t status = COT_OK;
    for (uint32_t i = 0; i < count && status == COT_OK; i++) status = add_trace(stats, paths[i], i == 0);
    if (status == COT_OK) status = check_sums(stats);
    if (status != COT_OK) {
        place_stats_destroy(stats);
        return status;
    }
    *stats_out = stats;
    return COT_OK;
}
