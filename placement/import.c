#include "placement/import.h"

#include "base/log.h"
#include "base/memory.h"
#include "placement/import_readers.h"

#include <stdio.h>
#include <string.h>

cot_status_t place_import_format(const char *name, const char *path, place_import_format_t *format_out)
{
    static const struct {
        const char *name, *ending;
    } FORMATS[] = {{"csv", ".csv"}, {"jsonl", ".jsonl"}, {"exflow", NULL}, {"counts", NULL}};
    size_t length = strlen(path);
    for (size_t f = 0; f < sizeof(FORMATS) / sizeof(*FORMATS); f++) {
        const char *ending = FORMATS[f].ending;
        size_t bytes = ending != NULL ? strlen(ending) : 0;
        bool fits = name[0] != '\0' ? strcmp(name, FORMATS[f].name) == 0
                                    : bytes > 0 && length >= bytes && strcmp(path + length - bytes, ending) == 0;
        if (!fits) continue;
        *format_out = (place_import_format_t)f;
        return COT_OK;
    }
    if (name[0] != '\0')
        return cot_fail(COT_ERR_INVALID, "--format must be csv, jsonl, exflow or counts, not \"%.40s\"", name);
    return cot_fail(COT_ERR_INVALID,
                    "%s: its name does not tell the format: give --format csv, jsonl, exflow or counts", path);
}

/* ---- what the readers share ---- */

uint32_t place_import_experts(const place_import_t *options)
{
    return options->experts != 0 || options->model == NULL ? options->experts : options->model->experts;
}

uint32_t place_import_top_k(const place_import_t *options)
{
    return options->top_k != 0 || options->model == NULL ? options->top_k : options->model->top_k;
}

uint32_t place_import_count_experts(uint32_t stated, uint32_t highest)
{
    if (stated != 0) return stated;
    cot_log_warn("the number of experts is not stated: %u, the highest id + 1, is taken (--experts)", highest + 1);
    return highest + 1;
}

/* The layers that the options state, and how many; 0: none. */
static const uint32_t *stated_layers(const place_import_t *options, uint32_t *layers_out)
{
    bool own = options->layers != 0 || options->model == NULL;
    *layers_out = own ? options->layers : options->model->layers;
    return own ? options->layer_index : options->model->layer_index;
}

cot_status_t place_import_layers(const place_import_t *options, uint32_t layers, uint32_t *layer_index)
{
    uint32_t stated = 0;
    const uint32_t *index = stated_layers(options, &stated);
    if (stated != 0 && stated != layers)
        return cot_fail(COT_ERR_MISMATCH, "holds %u layers, where %u are stated", layers, stated);
    for (uint32_t layer = 0; layer < layers; layer++) layer_index[layer] = stated != 0 ? index[layer] : layer;
    return COT_OK;
}

cot_status_t place_import_same_layers(const place_import_t *options, uint32_t layers, const uint32_t *layer_index)
{
    uint32_t stated = 0;
    const uint32_t *index = stated_layers(options, &stated);
    if (stated == 0) return COT_OK;
    if (stated != layers) return cot_fail(COT_ERR_MISMATCH, "holds %u layers, where %u are stated", layers, stated);
    for (uint32_t layer = 0; layer < layers; layer++)
        if (index[layer] != layer_index[layer])
            return cot_fail(COT_ERR_MISMATCH, "holds layer %u, where layer %u is stated", layer_index[layer],
                            index[layer]);
    return COT_OK;
}

cot_status_t place_import_new_stats(uint32_t layers, uint32_t experts, place_stats_t **stats_out)
{
    if ((uint64_t)layers * experts > PLACE_IMPORT_MAX_CELLS)
        return cot_fail(COT_ERR_LIMIT, "%u layers of %u experts are more than an import takes", layers, experts);
    place_stats_t *stats = cot_calloc(1, sizeof(*stats));
    if (stats != NULL) {
        stats->layers = layers;
        stats->experts = experts;
        stats->layer_index = cot_calloc(layers, sizeof(*stats->layer_index));
        stats->load = cot_calloc((size_t)layers * experts, sizeof(*stats->load));
    }
    if (stats == NULL || stats->layer_index == NULL || stats->load == NULL) {
        place_stats_destroy(stats);
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for %u layers of %u experts", layers, experts);
    }
    *stats_out = stats;
    return COT_OK;
}

void place_draft_destroy(place_draft_t *draft)
{
    if (draft == NULL) return;
    for (int column = 0; column < PLACE_COLUMNS; column++) cot_buffer_free(&draft->column[column]);
    cot_free(draft->layer_index);
    cot_free(draft);
}

cot_status_t place_draft_save(const place_draft_t *draft, const char *path)
{
    const place_trace_info_t info = {.model = draft->model,
                                     .config_sha256 = draft->config_sha256,
                                     .experts = draft->experts,
                                     .top_k = draft->top_k,
                                     .layers = draft->layers,
                                     .layer_index = draft->layer_index,
                                     .row_bytes = draft->row_bytes};
    place_rows_t rows = {.rows = draft->rows};
    for (int column = 0; column < PLACE_COLUMNS; column++)
        rows.column[column] = draft->column[column].size > 0 ? draft->column[column].data : NULL;
    return place_rows_save(&info, &rows, 1, path);
}

/* ---- one import ---- */

static cot_status_t check_counts(place_stats_t *stats, const place_import_t *options)
{
    const place_model_t *model = options->model;
    stats->tokens = options->tokens;
    if (stats->top_k == 0) stats->top_k = place_import_top_k(options);
    if (options->tokens != 0 && stats->top_k == 0)
        return cot_fail(COT_ERR_INVALID, "the tokens can be checked only with --top-k: how many experts a token has");
    if (model != NULL) {
        COT_TRY(place_model_check(model, stats->experts, stats->top_k, stats->layers, stats->layer_index));
        snprintf(stats->model, sizeof(stats->model), "%s", model->name);
        snprintf(stats->config_sha256, sizeof(stats->config_sha256), "%s", model->sha256);
        stats->row_bytes = model->row_bytes;
    }
    return place_stats_check(stats);
}

static cot_status_t import_counts(place_import_format_t format, const char *path, const place_import_t *options,
                                  const char *out_path)
{
    place_stats_t *stats = NULL;
    COT_TRY(format == PLACE_IMPORT_CSV ? place_import_csv(path, options, &stats)
                                       : place_import_counts(path, options, &stats));
    cot_status_t status = check_counts(stats, options);
    status = status == COT_OK ? place_stats_save(stats, out_path) : cot_fail_in(status, "%s", path);
    place_stats_destroy(stats);
    return status;
}

static cot_status_t check_rows(place_draft_t *draft, const place_import_t *options)
{
    const place_model_t *model = options->model;
    if (options->tokens != 0 && options->tokens != draft->rows)
        return cot_fail(COT_ERR_FORMAT, "holds %llu tokens, where %llu are stated", (unsigned long long)draft->rows,
                        (unsigned long long)options->tokens);
    if (options->top_k != 0 && options->top_k != draft->top_k)
        return cot_fail(COT_ERR_MISMATCH, "holds %u experts a token, where %u are stated", draft->top_k,
                        options->top_k);
    if (model == NULL) return COT_OK;
    snprintf(draft->model, sizeof(draft->model), "%s", model->name);
    snprintf(draft->config_sha256, sizeof(draft->config_sha256), "%s", model->sha256);
    draft->row_bytes = model->row_bytes;
    return place_model_check(model, draft->experts, draft->top_k, draft->layers, draft->layer_index);
}

static cot_status_t import_rows(place_import_format_t format, const char *path, const place_import_t *options,
                                const char *out_path)
{
    place_draft_t *draft = NULL;
    COT_TRY(format == PLACE_IMPORT_JSONL ? place_import_jsonl(path, options, &draft)
                                         : place_import_exflow(path, options, &draft));
    cot_status_t status = check_rows(draft, options);
    status = status == COT_OK ? place_draft_save(draft, out_path) : cot_fail_in(status, "%s", path);
    place_draft_destroy(draft);
    return status;
}

cot_status_t place_import(place_import_format_t format, const char *path, const place_import_t *options,
                          const char *out_path)
{
    bool counts = format == PLACE_IMPORT_CSV || format == PLACE_IMPORT_COUNTS;
    return counts ? import_counts(format, path, options, out_path) : import_rows(format, path, options, out_path);
}
