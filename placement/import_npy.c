/* Arrays: ExFlow's [tokens, layers] and counts [layers, experts] or [steps, layers, experts]. */
#include "placement/import_readers.h"

#include "base/memory.h"
#include "placement/npy.h"

static cot_status_t fail_shape(const place_npy_t *npy, const char *wanted)
{
    return cot_fail(COT_ERR_FORMAT, "is an array of %u dimensions; %s", npy->dims, wanted);
}

/* ---- counts ---- */

static cot_status_t add_counts(const place_npy_t *npy, place_stats_t *stats)
{
    uint64_t cells = (uint64_t)stats->layers * stats->experts;
    for (uint64_t i = 0; i < npy->count; i++) {
        int64_t count = 0, *load = &stats->load[i % cells];
        COT_TRY(place_npy_integer(npy, i, &count));
        if (count < 0 || count > PLACE_COUNT_MAX - *load)
            return cot_fail(COT_ERR_FORMAT, "layer %u expert %u: a count of %lld is impossible (element %llu)",
                            stats->layer_index[i % cells / stats->experts], (uint32_t)(i % stats->experts),
                            (long long)count, (unsigned long long)i);
        *load += count;
    }
    return COT_OK;
}

static cot_status_t read_counts(const place_npy_t *npy, const place_import_t *options, place_stats_t **stats_out)
{
    if (npy->dims != 2 && npy->dims != 3)
        return fail_shape(npy, "counts are [layers, experts] or [steps, layers, experts]");
    uint64_t layers = npy->shape[npy->dims - 2], experts = npy->shape[npy->dims - 1];
    uint32_t stated = place_import_experts(options);
    if (npy->count == 0 || layers > PLACE_IMPORT_MAX_LAYERS || experts > PLACE_IMPORT_MAX_EXPERTS)
        return cot_fail(COT_ERR_FORMAT, "%llu layers of %llu experts: from 1 to %u layers and %u experts are read",
                        (unsigned long long)layers, (unsigned long long)experts, PLACE_IMPORT_MAX_LAYERS,
                        PLACE_IMPORT_MAX_EXPERTS);
    if (stated != 0 && stated != experts)
        return cot_fail(COT_ERR_MISMATCH, "holds %u experts a layer, where %u are stated", (uint32_t)experts, stated);
    place_stats_t *stats = NULL;
    COT_TRY(place_import_new_stats((uint32_t)layers, (uint32_t)experts, &stats));
    cot_status_t status = place_import_layers(options, stats->layers, stats->layer_index);
    if (status == COT_OK) status = add_counts(npy, stats);
    if (status != COT_OK) {
        place_stats_destroy(stats);
        return status;
    }
    *stats_out = stats;
    return COT_OK;
}

cot_status_t place_import_counts(const char *path, const place_import_t *options, place_stats_t **stats_out)
{
    place_npy_t npy;
    COT_TRY(place_npy_open(path, &npy));
    cot_status_t status = read_counts(&npy, options, stats_out);
    place_npy_close(&npy);
    return status == COT_OK ? COT_OK : cot_fail_in(status, "%s", path);
}

/* ---- ExFlow ---- */

/* The id of row t and layer l, less the layer's offset. */
static cot_status_t read_expert(const place_npy_t *npy, const place_draft_t *draft, uint64_t index, int16_t *out)
{
    int64_t id = 0, layer = (int64_t)(index % draft->layers), experts = draft->experts;
    COT_TRY(place_npy_integer(npy, index, &id));
    if (id < layer * experts || id >= (layer + 1) * experts)
        return cot_fail(COT_ERR_FORMAT,
                        "row %llu: id %lld is none of the %u experts of layer %lld, whose ids go from %lld to %lld "
                        "(ExFlow's are offset by layer x experts)",
                        (unsigned long long)(index / draft->layers), (long long)id, draft->experts, (long long)layer,
                        (long long)(layer * experts), (long long)((layer + 1) * experts - 1));
    *out = (int16_t)(id - layer * experts);
    return COT_OK;
}

static cot_status_t add_requests(place_draft_t *draft, uint32_t request_tokens)
{
    for (uint64_t row = 0; row < draft->rows; row++) {
        int32_t request = (int32_t)(row / request_tokens), position = (int32_t)(row % request_tokens);
        COT_TRY(cot_buffer_append(&draft->column[PLACE_COLUMN_REQUEST], &request, sizeof(request)));
        COT_TRY(cot_buffer_append(&draft->column[PLACE_COLUMN_POSITION], &position, sizeof(position)));
    }
    return COT_OK;
}

static cot_status_t fill_draft(const place_npy_t *npy, const place_import_t *options, place_draft_t *draft)
{
    draft->layer_index = cot_calloc(draft->layers, sizeof(*draft->layer_index));
    if (draft->layer_index == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for %u layers", draft->layers);
    COT_TRY(place_import_layers(options, draft->layers, draft->layer_index));
    void *space = NULL;
    COT_TRY(cot_buffer_extend(&draft->column[PLACE_COLUMN_EXPERTS], npy->count * sizeof(int16_t), &space));
    for (uint64_t i = 0; i < npy->count; i++) COT_TRY(read_expert(npy, draft, i, (int16_t *)space + i));
    return options->request_tokens != 0 ? add_requests(draft, options->request_tokens) : COT_OK;
}

static cot_status_t read_exflow(const place_npy_t *npy, const place_import_t *options, place_draft_t **draft_out)
{
    uint32_t experts = place_import_experts(options);
    if (npy->dims != 2) return fail_shape(npy, "ExFlow's are [tokens, layers]");
    if (experts == 0)
        return cot_fail(COT_ERR_INVALID, "an ExFlow array does not say how many experts a layer has: give --experts");
    if (experts > INT16_MAX + 1U)
        return cot_fail(COT_ERR_LIMIT, "a trace of tokens takes at most %u experts", INT16_MAX + 1U);
    if (npy->count == 0) return cot_fail(COT_ERR_FORMAT, "the trace is empty: it holds no token");
    if (npy->shape[1] > PLACE_IMPORT_MAX_LAYERS || npy->shape[0] > INT32_MAX)
        return cot_fail(COT_ERR_LIMIT, "%llu layers are more than the %u that are read",
                        (unsigned long long)npy->shape[1], PLACE_IMPORT_MAX_LAYERS);
    place_draft_t *draft = cot_calloc(1, sizeof(*draft));
    if (draft == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a trace");
    *draft = (place_draft_t){.rows = npy->shape[0], .layers = (uint32_t)npy->shape[1], .experts = experts, .top_k = 1};
    cot_status_t status = fill_draft(npy, options, draft);
    if (status != COT_OK) {
        place_draft_destroy(draft);
        return status;
    }
    *draft_out = draft;
    return COT_OK;
}

cot_status_t place_import_exflow(const char *path, const place_import_t *options, place_draft_t **draft_out)
{
    place_npy_t npy;
    COT_TRY(place_npy_open(path, &npy));
    cot_status_t status = read_exflow(&npy, options, draft_out);
    place_npy_close(&npy);
    return status == COT_OK ? COT_OK : cot_fail_in(status, "%s", path);
}
