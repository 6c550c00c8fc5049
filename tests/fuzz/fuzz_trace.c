/* Any file as a routing trace: refused, or every expert it names exists. */
#include "base/json.h"
#include "base/memory.h"
#include "placement/locality.h"
#include "placement/stats.h"
#include "placement/strength.h"
#include "tests/fuzz/input.h"

static void read_all(const place_trace_t *trace)
{
    const place_trace_info_t *info = place_trace_info(trace);
    for (uint64_t token = 0; token < place_trace_tokens(trace); token++) {
        (void)place_trace_where(trace, token);
        for (uint32_t layer = 0; layer < info->layers; layer++)
            for (uint32_t k = 0; k < info->top_k; k++)
                if (place_trace_expert(trace, token, layer, k) >= info->experts) abort();
    }
    const int64_t *load = place_trace_load(trace);
    for (uint32_t layer = 0; load != NULL && layer < info->layers; layer++)
        if (place_imbalance(load + (size_t)layer * info->experts, info->experts) < 0) abort();
    uint64_t longest, rows;
    place_trace_repeats(trace, &longest, &rows);
}

static void count_all(const char *path)
{
    place_stats_t *stats = NULL;
    if (place_stats_load(&path, 1, &stats) != COT_OK) return;
    double *work = cot_calloc(2 * (size_t)stats->experts, sizeof(*work));
    if (work == NULL) abort();
    for (uint32_t layer = 0; layer < stats->layers; layer++) {
        size_t plane = (size_t)layer * stats->experts * stats->experts;
        place_strength_t found = {0};
        if (stats->coactivation != NULL)
            found = place_strength_coactivation(stats->coactivation + plane, stats->experts, work);
        else if (stats->transition != NULL && layer + 1 < stats->layers)
            found = place_strength_transition(stats->transition + plane, stats->experts, work);
        if (!(found.strength >= 0 && found.strength <= 1.001 && found.chance >= 0)) abort();
    }
    cot_free(work);
    place_stats_destroy(stats);
}

static void measure_locality(const place_trace_t *trace)
{
    place_locality_t *layers = cot_calloc((size_t)place_trace_info(trace)->layers * PLACE_WINDOWS, sizeof(*layers));
    place_locality_t model[PLACE_WINDOWS];
    place_locality_sample_t sample;
    if (layers == NULL) abort();
    if (place_trace_locality(trace, layers, model, &sample) == COT_OK)
        for (uint32_t w = 0; w < PLACE_WINDOWS; w++)
            if (!(model[w].srp >= 0 && model[w].srp <= 1 && model[w].sch >= 0 && model[w].sch <= 1)) abort();
    cot_free(layers);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cot_json_setup();
    size_t live = cot_memory_live_blocks();
    place_trace_t *trace = NULL;
    const char *path = input_file(data, size);
    if (place_trace_open(path, &trace) == COT_OK) {
        const place_trace_info_t *info = place_trace_info(trace);
        read_all(trace);
        if ((uint64_t)info->layers * info->experts * info->experts <= 1U << 16) { /* more takes too long */
            count_all(path);
            measure_locality(trace);
        }
    }
    place_trace_close(trace);
    if (cot_memory_live_blocks() != live) abort();
    return 0;
}
