/* Any file as a routing trace: refused, or every expert it names exists. */
#include "base/json.h"
#include "base/memory.h"
#include "placement/trace.h"
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cot_json_setup();
    size_t live = cot_memory_live_blocks();
    place_trace_t *trace = NULL;
    if (place_trace_open(input_file(data, size), &trace) == COT_OK) read_all(trace);
    place_trace_close(trace);
    if (cot_memory_live_blocks() != live) abort();
    return 0;
}
