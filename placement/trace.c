#include "placement/trace.h"

#include "base/json.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRACE_MAX_LAYERS 4096U
#define TRACE_MAX_EXPERTS 65536U

struct place_trace {
    cot_safetensors_t *file;
    place_trace_kind_t kind;
    place_trace_info_t info;
    uint32_t *layer_index;
    uint64_t tokens, stated_tokens;
    const cot_tensor_t *experts, *token_id, *request, *position, *phase;
    int64_t *load;
};

void place_trace_close(place_trace_t *trace)
{
    if (trace == NULL) return;
    cot_safetensors_close(trace->file);
    cot_free(trace->layer_index);
    cot_free(trace->load);
    cot_free(trace);
}

place_trace_kind_t place_trace_kind(const place_trace_t *trace)
{
    return trace->kind;
}

const place_trace_info_t *place_trace_info(const place_trace_t *trace)
{
    return &trace->info;
}

uint64_t place_trace_tokens(const place_trace_t *trace)
{
    return trace->tokens;
}

uint64_t place_trace_tokens_stated(const place_trace_t *trace)
{
    return trace->kind == PLACE_TRACE_TOKENS ? trace->tokens : trace->stated_tokens;
}

const int64_t *place_trace_load(const place_trace_t *trace)
{
    return trace->load;
}

static size_t row_width(const place_trace_t *trace)
{
    return (size_t)trace->info.layers * trace->info.top_k;
}

/* Tensors may lie unaligned in the file. */
static int16_t read_i16(const cot_tensor_t *tensor, uint64_t index)
{
    int16_t value;
    memcpy(&value, (const char *)tensor->data + index * sizeof(value), sizeof(value));
    return value;
}

int64_t place_trace_integer(const cot_tensor_t *tensor, uint64_t index)
{
    int32_t narrow;
    int64_t wide;
    switch (tensor->dtype) {
    case COT_DTYPE_I64: memcpy(&wide, (const char *)tensor->data + index * sizeof(wide), sizeof(wide)); return wide;
    case COT_DTYPE_U8: return ((const uint8_t *)tensor->data)[index];
    default: memcpy(&narrow, (const char *)tensor->data + index * sizeof(narrow), sizeof(narrow)); return narrow;
    }
}

const cot_tensor_t *place_trace_tensor(const place_trace_t *trace, const char *name)
{
    return cot_safetensors_find(trace->file, name);
}

uint32_t place_trace_expert(const place_trace_t *trace, uint64_t token, uint32_t layer, uint32_t k)
{
    return (uint32_t)read_i16(trace->experts, token * row_width(trace) + (uint64_t)layer * trace->info.top_k + k);
}

place_trace_where_t place_trace_where(const place_trace_t *trace, uint64_t token)
{
    return (place_trace_where_t){
        .token_id = trace->token_id != NULL ? (int32_t)place_trace_integer(trace->token_id, token) : -1,
        .request = trace->request != NULL ? (int32_t)place_trace_integer(trace->request, token) : -1,
        .position = trace->position != NULL ? (int32_t)place_trace_integer(trace->position, token) : -1,
        .phase = trace->phase != NULL ? (int32_t)place_trace_integer(trace->phase, token) : -1,
    };
}

/* ---- opening ---- */

static cot_status_t metadata_number(const place_trace_t *trace, const char *key, uint64_t max, uint64_t *out)
{
    const char *text = cot_safetensors_metadata(trace->file, key);
    if (text == NULL) return COT_OK;
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || value > max)
        return cot_fail(COT_ERR_FORMAT, "metadata \"%s\" is \"%.40s\", not a number up to %llu", key, text,
                        (unsigned long long)max);
    *out = value;
    return COT_OK;
}

static cot_status_t metadata_u32(const place_trace_t *trace, const char *key, uint64_t max, uint32_t *out)
{
    uint64_t wide = *out;
    COT_TRY(metadata_number(trace, key, max, &wide));
    *out = (uint32_t)wide;
    return COT_OK;
}

static cot_status_t metadata_time(const place_trace_t *trace, const char *key, double *out)
{
    const char *text = cot_safetensors_metadata(trace->file, key);
    if (text == NULL) return COT_OK;
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value > 0 && value <= 1e12))
        return cot_fail(COT_ERR_FORMAT, "metadata \"%s\" is \"%.40s\", not a number above 0", key, text);
    *out = value;
    return COT_OK;
}

/* The model's layer numbers: a JSON list in the metadata, or 0, 1, … where there is none. */
static cot_status_t read_layer_index(place_trace_t *trace)
{
    trace->layer_index = cot_calloc(trace->info.layers, sizeof(*trace->layer_index));
    if (trace->layer_index == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for %u layers", trace->info.layers);
    for (uint32_t layer = 0; layer < trace->info.layers; layer++) trace->layer_index[layer] = layer;
    trace->info.layer_index = trace->layer_index;

    const char *text = cot_safetensors_metadata(trace->file, "layers");
    if (text == NULL) return COT_OK;
    json_t *list = NULL;
    COT_TRY(cot_json_load_bytes(text, strlen(text), "metadata \"layers\"", &list));
    cot_status_t status = COT_OK;
    if (!json_is_array(list) || json_array_size(list) != trace->info.layers)
        status = cot_fail(COT_ERR_FORMAT, "metadata \"layers\" must be a list of %u layer numbers", trace->info.layers);
    for (uint32_t layer = 0; layer < trace->info.layers && status == COT_OK; layer++) {
        const json_t *value = json_array_get(list, layer);
        if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > TRACE_MAX_LAYERS)
            status = cot_fail(COT_ERR_FORMAT, "metadata \"layers\": entry %u is no layer number", layer);
        else if (layer > 0 && json_integer_value(value) <= (json_int_t)trace->layer_index[layer - 1])
            status = cot_fail(COT_ERR_FORMAT, "metadata \"layers\": entry %u does not come after the one before it",
                              layer);
        else
            trace->layer_index[layer] = (uint32_t)json_integer_value(value);
    }
    json_decref(list);
    return status;
}

static cot_status_t allocate_load(place_trace_t *trace)
{
    trace->load = cot_calloc((size_t)trace->info.layers * trace->info.experts, sizeof(*trace->load));
    return trace->load != NULL
               ? COT_OK
               : cot_fail(COT_ERR_NO_MEMORY, "no memory for the load of %u experts", trace->info.experts);
}

/* A column of a token trace: absent, or one integer a row. */
static cot_status_t find_column(place_trace_t *trace, const char *name, cot_dtype_t dtype, const cot_tensor_t **out)
{
    const cot_tensor_t *tensor = cot_safetensors_find(trace->file, name);
    if (tensor == NULL) return COT_OK;
    if (tensor->dtype != dtype || tensor->dims != 1 || tensor->shape[0] != trace->tokens)
        return cot_fail(COT_ERR_FORMAT, "tensor \"%s\" must be %s with one value for each of the %llu rows", name,
                        cot_dtype_name(dtype), (unsigned long long)trace->tokens);
    *out = tensor;
    return COT_OK;
}

static cot_status_t count_row(place_trace_t *trace, uint64_t token)
{
    for (uint32_t layer = 0; layer < trace->info.layers; layer++) {
        uint64_t at = token * row_width(trace) + (uint64_t)layer * trace->info.top_k;
        for (uint32_t k = 0; k < trace->info.top_k; k++) {
            int32_t expert = read_i16(trace->experts, at + k);
            if (expert < 0 || (uint32_t)expert >= trace->info.experts)
                return cot_fail(COT_ERR_FORMAT, "row %llu layer %u: expert %d is not one of %u",
                                (unsigned long long)token, trace->layer_index[layer], expert, trace->info.experts);
            for (uint32_t earlier = 0; earlier < k; earlier++)
                if (read_i16(trace->experts, at + earlier) == expert)
                    return cot_fail(COT_ERR_FORMAT, "row %llu layer %u: expert %d stands twice",
                                    (unsigned long long)token, trace->layer_index[layer], expert);
            trace->load[(size_t)layer * trace->info.experts + (uint32_t)expert]++;
        }
    }
    return COT_OK;
}

static cot_status_t open_tokens(place_trace_t *trace)
{
    const cot_tensor_t *experts = trace->experts;
    if (experts->dtype != COT_DTYPE_I16 || experts->dims != 3 || experts->shape[1] == 0 || experts->shape[2] == 0 ||
        experts->shape[1] > TRACE_MAX_LAYERS || experts->shape[2] > TRACE_MAX_EXPERTS)
        return cot_fail(COT_ERR_FORMAT, "tensor \"experts\" must be I16 [tokens, layers, top_k]");
    if (trace->info.experts == 0)
        return cot_fail(COT_ERR_FORMAT, "metadata \"experts\", the number of experts, is missing");
    trace->tokens = experts->shape[0];
    if (trace->stated_tokens != 0 && trace->stated_tokens != trace->tokens)
        return cot_fail(COT_ERR_FORMAT, "metadata \"tokens\" is %llu, tensor \"experts\" has %llu rows",
                        (unsigned long long)trace->stated_tokens, (unsigned long long)trace->tokens);
    trace->info.layers = (uint32_t)experts->shape[1];
    if (trace->info.top_k != 0 && trace->info.top_k != experts->shape[2])
        return cot_fail(COT_ERR_FORMAT, "metadata \"top_k\" is %u, tensor \"experts\" has %llu", trace->info.top_k,
                        (unsigned long long)experts->shape[2]);
    trace->info.top_k = (uint32_t)experts->shape[2];
    COT_TRY(read_layer_index(trace));
    COT_TRY(allocate_load(trace));
    const cot_tensor_t *weights = cot_safetensors_find(trace->file, "gate_weights");
    if (weights != NULL && (weights->dtype != COT_DTYPE_F16 || weights->dims != 3 ||
                            memcmp(weights->shape, experts->shape, 3 * sizeof(*experts->shape)) != 0))
        return cot_fail(COT_ERR_FORMAT, "tensor \"gate_weights\" must be F16 with the shape of \"experts\"");
    COT_TRY(find_column(trace, "token_id", COT_DTYPE_I32, &trace->token_id));
    COT_TRY(find_column(trace, "request", COT_DTYPE_I32, &trace->request));
    COT_TRY(find_column(trace, "position", COT_DTYPE_I32, &trace->position));
    COT_TRY(find_column(trace, "phase", COT_DTYPE_U8, &trace->phase));
    for (uint64_t token = 0; token < trace->tokens; token++) COT_TRY(count_row(trace, token));
    return COT_OK;
}

/* Counts that state how many tokens they are of must add up to them: top_k experts a token and layer. */
static cot_status_t check_stated(const place_trace_t *trace)
{
    if (trace->stated_tokens == 0 || trace->info.top_k == 0) return COT_OK;
    for (uint32_t layer = 0; layer < trace->info.layers; layer++) {
        int64_t sum = 0;
        for (uint32_t expert = 0; expert < trace->info.experts; expert++)
            sum += trace->load[(size_t)layer * trace->info.experts + expert];
        if ((uint64_t)sum != trace->stated_tokens * trace->info.top_k)
            return cot_fail(COT_ERR_FORMAT, "layer %u: %lld assignments, but %llu tokens with %u experts each are %llu",
                            trace->layer_index[layer], (long long)sum, (unsigned long long)trace->stated_tokens,
                            trace->info.top_k, (unsigned long long)(trace->stated_tokens * trace->info.top_k));
    }
    return COT_OK;
}

/* `load` [L, E], or the diagonal of `coactivation` [L, E, E]. */
static cot_status_t open_counts(place_trace_t *trace)
{
    const cot_tensor_t *load = cot_safetensors_find(trace->file, "load");
    const cot_tensor_t *pairs = cot_safetensors_find(trace->file, "coactivation");
    const cot_tensor_t *tensor = load != NULL ? load : pairs;
    uint32_t dims = load != NULL ? 2 : 3;
    if (tensor == NULL)
        return cot_fail(COT_ERR_FORMAT,
                        "holds neither \"experts\" (rows) nor \"load\" or \"coactivation\" (counts): no trace");
    if ((tensor->dtype != COT_DTYPE_I64 && tensor->dtype != COT_DTYPE_I32) || tensor->dims != dims ||
        tensor->shape[0] == 0 || tensor->shape[0] > TRACE_MAX_LAYERS || tensor->shape[1] == 0 ||
        tensor->shape[1] > TRACE_MAX_EXPERTS || (dims == 3 && tensor->shape[2] != tensor->shape[1]))
        return cot_fail(COT_ERR_FORMAT, "tensor \"%s\" must be I64 or I32 %s", tensor->name,
                        dims == 2 ? "[layers, experts]" : "[layers, experts, experts]");
    if (trace->info.experts != 0 && trace->info.experts != tensor->shape[1])
        return cot_fail(COT_ERR_FORMAT, "metadata \"experts\" is %u, tensor \"%s\" has %llu", trace->info.experts,
                        tensor->name, (unsigned long long)tensor->shape[1]);
    trace->info.layers = (uint32_t)tensor->shape[0];
    trace->info.experts = (uint32_t)tensor->shape[1];
    COT_TRY(read_layer_index(trace));
    COT_TRY(allocate_load(trace));
    uint64_t stride = dims == 2 ? 1 : tensor->shape[1] + 1,
             plane = dims == 2 ? tensor->shape[1] : tensor->shape[1] * tensor->shape[1];
    for (uint32_t layer = 0; layer < trace->info.layers; layer++)
        for (uint32_t expert = 0; expert < trace->info.experts; expert++) {
            int64_t count = place_trace_integer(tensor, layer * plane + expert * stride);
            if (count < 0 || count > PLACE_COUNT_MAX)
                return cot_fail(COT_ERR_FORMAT, "layer %u expert %u: a count of %lld is impossible",
                                trace->layer_index[layer], expert, (long long)count);
            trace->load[(size_t)layer * trace->info.experts + expert] = count;
        }
    return check_stated(trace);
}

static cot_status_t open_whole(place_trace_t *trace)
{
    const char *format = cot_safetensors_metadata(trace->file, "format");
    if (format == NULL || strcmp(format, "coterie.trace/1") != 0)
        return cot_fail(COT_ERR_FORMAT, "metadata \"format\" is not \"coterie.trace/1\": no routing trace");
    const char *model = cot_safetensors_metadata(trace->file, "model");
    const char *sha256 = cot_safetensors_metadata(trace->file, "config_sha256");
    trace->info.model = model != NULL ? model : "";
    trace->info.config_sha256 = sha256 != NULL ? sha256 : "";
    COT_TRY(metadata_u32(trace, "experts", TRACE_MAX_EXPERTS, &trace->info.experts));
    COT_TRY(metadata_u32(trace, "top_k", TRACE_MAX_EXPERTS, &trace->info.top_k));
    COT_TRY(metadata_u32(trace, "row_bytes", UINT32_MAX, &trace->info.row_bytes));
    COT_TRY(metadata_number(trace, "tokens", PLACE_COUNT_MAX, &trace->stated_tokens));
    COT_TRY(metadata_time(trace, "expert_ns_per_row", &trace->info.expert_ns_per_row));
    trace->experts = cot_safetensors_find(trace->file, "experts");
    trace->kind = trace->experts != NULL ? PLACE_TRACE_TOKENS : PLACE_TRACE_COUNTS;
    return trace->kind == PLACE_TRACE_TOKENS ? open_tokens(trace) : open_counts(trace);
}

cot_status_t place_trace_open(const char *path, place_trace_t **trace_out)
{
    place_trace_t *trace = cot_calloc(1, sizeof(*trace));
    if (trace == NULL) return cot_fail(COT_ERR_NO_MEMORY, "%s: no memory to open it", path);
    cot_status_t status = cot_safetensors_open(path, &trace->file);
    if (status == COT_OK) {
        status = open_whole(trace);
        if (status != COT_OK) cot_fail_in(status, "%s", path);
    }
    if (status != COT_OK) {
        place_trace_close(trace);
        return status;
    }
    *trace_out = trace;
    return COT_OK;
}

cot_status_t place_trace_same_model(const place_trace_info_t *first, const place_trace_info_t *other)
{
    if (other->layers != first->layers || other->experts != first->experts ||
        (other->top_k != 0 && first->top_k != 0 && other->top_k != first->top_k))
        return cot_fail(COT_ERR_MISMATCH,
                        "is of another model than the traces before it: %u layers of %u experts, top %u; not %u layers "
                        "of %u experts, top %u",
                        other->layers, other->experts, other->top_k, first->layers, first->experts, first->top_k);
    for (uint32_t l = 0; l < first->layers; l++)
        if (other->layer_index[l] != first->layer_index[l])
            return cot_fail(COT_ERR_MISMATCH, "is of other layers than the traces before it: %u where they have %u",
                            other->layer_index[l], first->layer_index[l]);
    if (other->config_sha256[0] != '\0' && first->config_sha256[0] != '\0' &&
        strcmp(other->config_sha256, first->config_sha256) != 0)
        return cot_fail(COT_ERR_MISMATCH, "is of another model than the traces before it: config_sha256 differs");
    return COT_OK;
}

/* ---- figures ---- */

void place_trace_repeats(const place_trace_t *trace, uint64_t *longest_out, uint64_t *rows_out)
{
    uint64_t longest = 0, rows = 0, run = 0;
    size_t bytes = row_width(trace) * sizeof(int16_t);
    const char *data = trace->kind == PLACE_TRACE_TOKENS ? trace->experts->data : NULL;
    for (uint64_t token = 0; token < trace->tokens; token++) {
        bool same = token > 0 && memcmp(data + token * bytes, data + (token - 1) * bytes, bytes) == 0;
        run = same ? run + 1 : 1;
        if (run > longest) longest = run;
        if (run == PLACE_REPEAT_ROWS) rows += PLACE_REPEAT_ROWS;
        if (run > PLACE_REPEAT_ROWS) rows++;
    }
    *longest_out = longest;
    *rows_out = rows;
}

double place_imbalance(const int64_t *load, uint32_t count)
{
    int64_t largest = 0;
    double sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (load[i] > largest) largest = load[i];
        sum += (double)load[i];
    }
    return sum > 0 ? (double)largest * count / sum - 1 : 0;
}
