#include "placement/stats.h"

#include "base/log.h"
#include "base/memory.h"
#include "placement/trace_counts.h"
#include "placement/trace_write.h"

#include <stdlib.h>
#include <string.h>

#define TOLERANCE 0.02
#define PAIRS_MAX ((uint64_t)1 << 27) /* layers x experts x experts: 1 GiB of counts */

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
    stats->expert_ns_per_row = info->expert_ns_per_row;
    snprintf(stats->model, sizeof(stats->model), "%s", info->model);
    snprintf(stats->config_sha256, sizeof(stats->config_sha256), "%s", info->config_sha256);
    stats->layer_index = cot_calloc(stats->layers, sizeof(*stats->layer_index));
    stats->load = cot_calloc((size_t)stats->layers * stats->experts, sizeof(*stats->load));
    if (stats->layer_index == NULL || stats->load == NULL)
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for the counts of %u experts", stats->experts);
    memcpy(stats->layer_index, info->layer_index, stats->layers * sizeof(*stats->layer_index));
    if ((uint64_t)stats->layers * stats->experts * stats->experts > PAIRS_MAX &&
        (place_trace_has_transition(trace) || place_trace_has_coactivation(trace)))
        return cot_fail(COT_ERR_LIMIT, "%u layers of %u experts have more pairs than are counted", stats->layers,
                        stats->experts);
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

place_trace_info_t place_stats_info(const place_stats_t *stats)
{
    return (place_trace_info_t){stats->model,  stats->config_sha256, stats->experts,   stats->top_k,
                                stats->layers, stats->layer_index,   stats->row_bytes, stats->expert_ns_per_row};
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
    const place_trace_info_t before = place_stats_info(stats);
    uint64_t tokens = place_trace_tokens_stated(trace);
    cot_status_t status = first ? take_shape(stats, trace) : place_trace_same_model(&before, place_trace_info(trace));
    if (status == COT_OK) {
        if (first || (stats->tokens != 0 && tokens != 0))
            stats->tokens += tokens;
        else
            stats->tokens = 0;
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

static void compare_transition(disagreement_t *found, const place_stats_t *stats, uint32_t layer)
{
    size_t experts = stats->experts;
    const int64_t *pairs = stats->transition + (size_t)layer * experts * experts;
    const int64_t *from = stats->load + (size_t)layer * experts, *to = from + experts;
    for (size_t e = 0; e < experts; e++) {
        compare(found, "an expert's transitions out and top_k x its load", layer, from[e] * stats->top_k,
                sum(pairs + e * experts, experts));
        if (stats->tokens == 0) continue; /* sampled counts: a rare expert's may well differ */
        int64_t column = 0;
        for (size_t row = 0; row < experts; row++) column += pairs[row * experts + e];
        compare(found, "an expert's transitions in and top_k x its load", layer + 1, to[e] * stats->top_k, column);
    }
}

static void compare_coactivation(disagreement_t *found, const place_stats_t *stats, uint32_t layer)
{
    size_t experts = stats->experts;
    const int64_t *pairs = stats->coactivation + (size_t)layer * experts * experts;
    const int64_t *load = stats->load + (size_t)layer * experts;
    for (size_t e = 0; e < experts; e++) {
        compare(found, "the diagonal of the co-activations and the load", layer, load[e], pairs[e * experts + e]);
        for (size_t f = 0; f < e; f++)
            compare(found, "the two halves of the co-activations", layer, pairs[e * experts + f],
                    pairs[f * experts + e]);
        if (stats->top_k > 0)
            compare(found, "an expert's co-activations and top_k x its load", layer, load[e] * stats->top_k,
                    sum(pairs + e * experts, experts));
    }
}

/* Every token passes every layer with top_k experts, so layer sums agree; row e of a transition and of a co-activation
 * sum to top_k x load[e], and where the tokens are stated so does column e of the transition before it. */
static disagreement_t find_disagreement(const place_stats_t *stats)
{
    disagreement_t found = {0};
    int64_t first = sum(stats->load, stats->experts);
    if (stats->tokens > 0 && stats->top_k > 0)
        compare(&found, "the layer's load and top_k x the stated tokens", 0, first,
                (int64_t)(stats->tokens * stats->top_k));
    for (uint32_t l = 0; l < stats->layers; l++) {
        compare(&found, "the layer's load and the first layer's", l, first,
                sum(stats->load + (size_t)l * stats->experts, stats->experts));
        if (stats->transition != NULL && stats->top_k > 0 && l + 1 < stats->layers)
            compare_transition(&found, stats, l);
        if (stats->coactivation != NULL) compare_coactivation(&found, stats, l);
    }
    return found;
}

cot_status_t place_stats_check(const place_stats_t *stats)
{
    if (sum(stats->load, stats->experts) == 0)
        return cot_fail(COT_ERR_FORMAT, "the trace is empty: it counts no token");
    disagreement_t found = find_disagreement(stats);
    if (found.worst == 0) return COT_OK;
    if (found.worst > (stats->tokens > 0 ? 0 : TOLERANCE))
        return cot_fail(COT_ERR_FORMAT, "layer %u: %s differ by %.2f %%: the counts are not of one set of tokens",
                        stats->layer_index[found.layer], found.what, found.worst * 100);
    cot_log_warn("layer %u: %s differ by %.2f %%, the largest such difference", stats->layer_index[found.layer],
                 found.what, found.worst * 100);
    return COT_OK;
}

/* ---- loading and saving ---- */

cot_status_t place_stats_load(const char *const *paths, uint32_t count, place_stats_t **stats_out)
{
    if (count == 0) return cot_fail(COT_ERR_INVALID, "give at least one trace");
    place_stats_t *stats = cot_calloc(1, sizeof(*stats));
    if (stats == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the counts");
    cot_status_t status = COT_OK;
    for (uint32_t i = 0; i < count && status == COT_OK; i++) status = add_trace(stats, paths[i], i == 0);
    if (status == COT_OK) status = place_stats_check(stats);
    if (status != COT_OK) {
        place_stats_destroy(stats);
        return status;
    }
    *stats_out = stats;
    return COT_OK;
}

static cot_status_t write_counts(cot_safetensors_writer_t *writer, const place_stats_t *stats)
{
    const place_trace_info_t info = place_stats_info(stats);
    const struct {
        const char *name;
        const int64_t *counts;
        uint32_t dims, layers;
    } tensors[] = {{"load", stats->load, 2, stats->layers},
                   {"transition", stats->transition, 3, stats->layers - 1},
                   {"coactivation", stats->coactivation, 3, stats->layers}};
    COT_TRY(place_trace_write_metadata(writer, &info, PLACE_TRACE_COUNTS, stats->tokens));
    for (size_t i = 0; i < sizeof(tensors) / sizeof(*tensors); i++) {
        const uint64_t shape[3] = {tensors[i].layers, stats->experts, stats->experts};
        if (tensors[i].counts == NULL) continue;
        COT_TRY(cot_safetensors_writer_declare(writer, tensors[i].name, COT_DTYPE_I64, tensors[i].dims, shape));
    }
    for (size_t i = 0; i < sizeof(tensors) / sizeof(*tensors); i++) {
        size_t cells = (size_t)tensors[i].layers * stats->experts * (tensors[i].dims == 3 ? stats->experts : 1);
        if (tensors[i].counts == NULL) continue;
        COT_TRY(cot_safetensors_writer_write(writer, tensors[i].counts, cells * sizeof(*tensors[i].counts)));
    }
    return COT_OK;
}

cot_status_t place_stats_save(const place_stats_t *stats, const char *path)
{
    cot_safetensors_writer_t *writer = NULL;
    COT_TRY(cot_safetensors_writer_create(path, &writer));
    cot_status_t status = write_counts(writer, stats);
    if (status == COT_OK) status = cot_safetensors_writer_commit(writer);
    cot_safetensors_writer_destroy(writer);
    return status;
}
