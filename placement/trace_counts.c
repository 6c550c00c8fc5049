#include "placement/trace_counts.h"

static bool has(const place_trace_t *trace, const char *name)
{
    return place_trace_kind(trace) == PLACE_TRACE_TOKENS || place_trace_tensor(trace, name) != NULL;
}

bool place_trace_has_transition(const place_trace_t *trace)
{
    return has(trace, "transition");
}

bool place_trace_has_coactivation(const place_trace_t *trace)
{
    return has(trace, "coactivation");
}

/* Adds a [layers, E, E] tensor of I32 or I64. */
static cot_status_t add_tensor(const place_trace_t *trace, const char *name, uint32_t layers, int64_t *out)
{
    const place_trace_info_t *info = place_trace_info(trace);
    const cot_tensor_t *tensor = place_trace_tensor(trace, name);
    uint64_t experts = info->experts;
    if ((tensor->dtype != COT_DTYPE_I32 && tensor->dtype != COT_DTYPE_I64) || tensor->dims != 3 ||
        tensor->shape[0] != layers || tensor->shape[1] != experts || tensor->shape[2] != experts)
        return cot_fail(COT_ERR_FORMAT, "tensor \"%s\" must be I32 or I64 [%u, %u, %u]", name, layers, info->experts,
                        info->experts);
    for (uint64_t i = 0; i < layers * experts * experts; i++) {
        int64_t count = place_trace_integer(tensor, i);
        if (count < 0 || count > PLACE_COUNT_MAX - out[i])
            return cot_fail(COT_ERR_FORMAT, "tensor \"%s\": a count of %lld at layer %llu is impossible", name,
                            (long long)count, (unsigned long long)(i / (experts * experts)));
        out[i] += count;
    }
    return COT_OK;
}

static void count_token(const place_trace_t *trace, uint64_t token, int64_t *transition, int64_t *coactivation)
{
    const place_trace_info_t *info = place_trace_info(trace);
    size_t plane = (size_t)info->experts * info->experts;
    for (uint32_t l = 0; l < info->layers; l++)
        for (uint32_t k = 0; k < info->top_k; k++) {
            size_t row = (size_t)place_trace_expert(trace, token, l, k) * info->experts;
            for (uint32_t j = 0; coactivation != NULL && j < info->top_k; j++)
                coactivation[l * plane + row + place_trace_expert(trace, token, l, j)]++;
            for (uint32_t j = 0; transition != NULL && l + 1 < info->layers && j < info->top_k; j++)
                transition[l * plane + row + place_trace_expert(trace, token, l + 1, j)]++;
        }
}

cot_status_t place_trace_count(const place_trace_t *trace, int64_t *load, int64_t *transition, int64_t *coactivation)
{
    const place_trace_info_t *info = place_trace_info(trace);
    for (size_t i = 0; i < (size_t)info->layers * info->experts; i++) {
        if (place_trace_load(trace)[i] > PLACE_COUNT_MAX - load[i])
            return cot_fail(COT_ERR_LIMIT, "the traces together count more than an expert's load can hold");
        load[i] += place_trace_load(trace)[i];
    }
    if (place_trace_kind(trace) == PLACE_TRACE_COUNTS) {
        if (transition != NULL) COT_TRY(add_tensor(trace, "transition", info->layers - 1, transition));
        return coactivation != NULL ? add_tensor(trace, "coactivation", info->layers, coactivation) : COT_OK;
    }
    for (uint64_t token = 0; token < place_trace_tokens(trace); token++)
        count_token(trace, token, transition, coactivation);
    return COT_OK;
}
