#include "placement/trace_command.h"

#include "base/log.h"
#include "placement/trace.h"

#include <stdio.h>
#include <string.h>

static void print_text(const place_trace_t *trace, uint64_t longest, uint64_t repeated)
{
    const place_trace_info_t *info = place_trace_info(trace);
    bool tokens = place_trace_kind(trace) == PLACE_TRACE_TOKENS;
    printf("model    %s\nkind     %s\n", info->model[0] != '\0' ? info->model : "-", tokens ? "tokens" : "counts");
    if (tokens) printf("tokens   %llu\n", (unsigned long long)place_trace_tokens(trace));
    printf("layers   %u\nexperts  %u\n", info->layers, info->experts);
    if (info->top_k > 0) printf("top_k    %u\n", info->top_k);
    printf("\nlayer  assignments  imbalance  balancedness  hottest expert\n");
    for (uint32_t layer = 0; layer < info->layers; layer++) {
        const int64_t *load = place_trace_load(trace) + (size_t)layer * info->experts;
        uint32_t hottest = 0;
        int64_t sum = 0;
        for (uint32_t expert = 0; expert < info->experts; expert++) {
            sum += load[expert];
            if (load[expert] > load[hottest]) hottest = expert;
        }
        double imbalance = place_imbalance(load, info->experts);
        printf("%5u  %11lld  %9.3f  %12.3f  %u (%lld)\n", info->layer_index[layer], (long long)sum, imbalance,
               1 / (1 + imbalance), hottest, (long long)load[hottest]);
    }
    if (longest >= PLACE_REPEAT_ROWS)
        printf("\nwarning: %llu of %llu rows lie in runs of %d or more identical rows (the longest: %llu): "
               "did an engine's warm-up get in?\n",
               (unsigned long long)repeated, (unsigned long long)place_trace_tokens(trace), PLACE_REPEAT_ROWS,
               (unsigned long long)longest);
}

static void print_json(const place_trace_t *trace, uint64_t longest, uint64_t repeated)
{
    const place_trace_info_t *info = place_trace_info(trace);
    bool tokens = place_trace_kind(trace) == PLACE_TRACE_TOKENS;
    printf("{\"kind\": \"%s\", \"tokens\": ", tokens ? "tokens" : "counts");
    if (tokens)
        printf("%llu", (unsigned long long)place_trace_tokens(trace));
    else
        printf("null");
    printf(", \"experts\": %u, \"top_k\": %u, \"longest_repeat\": %llu, \"repeated_rows\": %llu, \"layers\": [",
           info->experts, info->top_k, (unsigned long long)longest, (unsigned long long)repeated);
    for (uint32_t layer = 0; layer < info->layers; layer++) {
        double imbalance = place_imbalance(place_trace_load(trace) + (size_t)layer * info->experts, info->experts);
        printf("%s{\"layer\": %u, \"imbalance\": %.6f, \"balancedness\": %.6f}", layer > 0 ? ", " : "",
               info->layer_index[layer], imbalance, 1 / (1 + imbalance));
    }
    printf("]}\n");
}

int place_trace_command(const cot_settings_t *settings)
{
    if (cot_settings_arguments(settings) != 2 || strcmp(cot_settings_argument(settings, 0), "info") != 0) {
        cot_log_error("usage: coterie trace info FILE.trace.safetensors [--json]");
        return cot_exit_code(COT_ERR_INVALID);
    }
    place_trace_t *trace = NULL;
    cot_status_t status = place_trace_open(cot_settings_argument(settings, 1), &trace);
    if (status != COT_OK) {
        cot_log_error("%s", cot_error_text());
        return cot_exit_code(status);
    }
    uint64_t longest = 0, repeated = 0;
    place_trace_repeats(trace, &longest, &repeated);
    if (cot_settings_switch(settings, COT_SET_JSON))
        print_json(trace, longest, repeated);
    else
        print_text(trace, longest, repeated);
    place_trace_close(trace);
    return 0;
}
