#include "kernels/kern_int.h"

#include "base/memory.h"

#include <assert.h>
#include <math.h>
#include <string.h>

cot_status_t kern_config_check(const kern_config_t *config)
{
    if (config->hidden == 0 || config->heads == 0 || config->kv_heads == 0 || config->vocab == 0 ||
        config->max_rows == 0 || config->max_context == 0 || config->max_width == 0)
        return cot_fail(COT_ERR_INVALID, "kernels: a size of the configuration is 0");
    if (config->heads % config->kv_heads != 0)
        return cot_fail(COT_ERR_INVALID, "kernels: %u heads cannot share %u key/value heads", config->heads,
                        config->kv_heads);
    if (config->head_dim == 0 || config->head_dim % 2 != 0 || config->head_dim > KERN_MAX_HEAD_DIM)
        return cot_fail(COT_ERR_INVALID, "kernels: head_dim %u: must be even and at most %d", config->head_dim,
                        KERN_MAX_HEAD_DIM);
    if (config->top_k > config->experts)
        return cot_fail(COT_ERR_INVALID, "kernels: top_k %u of %u experts", config->top_k, config->experts);
    return COT_OK;
}

void *kern_host_alloc(kern_t *kern, size_t bytes)
{
    (void)kern;
    void *memory = cot_alloc_aligned(bytes);
    if (memory != NULL) memset(memory, 0, bytes);
    return memory;
}

void kern_host_free(kern_t *kern, void *memory)
{
    (void)kern;
    cot_free(memory);
}

cot_status_t kern_host_matrix(kern_dtype_t act, const void *data, kern_dtype_t dtype, const uint32_t shape[2],
                              kern_matrix_t *matrix_out)
{
    kern_matrix_t matrix = {.data = data, .dtype = dtype, .rows = shape[0], .cols = shape[1]};
    if (act == KERN_BF16 && dtype == KERN_F32) {
        size_t count = (size_t)shape[0] * shape[1];
        uint16_t *rounded = cot_alloc_aligned(count * sizeof(*rounded));
        if (rounded == NULL)
            return cot_fail(COT_ERR_NO_MEMORY, "no memory for a weight of %u x %u in bf16", shape[0], shape[1]);
        for (size_t i = 0; i < count; i++) {
            float value;
            memcpy(&value, (const char *)data + i * sizeof(value), sizeof(value));
            rounded[i] = kern_float_to_bf16(value);
        }
        matrix.data = matrix.owned = rounded;
        matrix.dtype = KERN_BF16;
    }
    *matrix_out = matrix;
    return COT_OK;
}

void kern_host_matrix_destroy(kern_t *kern, kern_matrix_t *matrix)
{
    (void)kern;
    if (matrix == NULL) return;
    cot_free(matrix->owned);
    *matrix = (kern_matrix_t){0};
}

cot_status_t kern_sort(kern_t *kern, const kern_sort_args_t *args)
{
    (void)kern;
    uint32_t *begin = args->slot_begin;
    memset(begin, 0, ((size_t)args->slots + 1) * sizeof(*begin));
    for (uint32_t a = 0; a < args->assignments; a++) {
        if (args->slot[a] == KERN_NO_EXPERT) continue;
        assert(args->slot[a] >= 0 && (uint32_t)args->slot[a] < args->slots);
        begin[args->slot[a] + 1]++;
    }
    for (uint32_t slot = 0; slot < args->slots; slot++) begin[slot + 1] += begin[slot];
    /* Filling moves each begin to the slot's end, which is the next slot's begin: shift back afterwards. */
    for (uint32_t a = 0; a < args->assignments; a++)
        if (args->slot[a] != KERN_NO_EXPERT) args->order[begin[args->slot[a]]++] = a;
    for (uint32_t slot = args->slots; slot > 0; slot--) begin[slot] = begin[slot - 1];
    begin[0] = 0;
    return COT_OK;
}

static float nan_as_least(float logit)
{
    return isnan(logit) ? -INFINITY : logit;
}

void kern_top_k(const float *logits, uint32_t count, uint32_t top_k, int32_t *expert_out)
{
    /* Insertion into a short sorted list; ids come in ascending order, so an equal logit goes behind. */
    uint32_t kept = 0;
    for (uint32_t id = 0; id < count; id++) {
        float logit = nan_as_least(logits[id]);
        if (kept == top_k && logit <= nan_as_least(logits[expert_out[kept - 1]])) continue;
        uint32_t at = kept < top_k ? kept++ : kept - 1;
        for (; at > 0 && logit > nan_as_least(logits[expert_out[at - 1]]); at--) expert_out[at] = expert_out[at - 1];
        expert_out[at] = (int32_t)id;
    }
}
