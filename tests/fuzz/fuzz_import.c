/* Any file as routing of another program; the first byte chooses the format and what is stated. Refused, or counts and
 * rows within the shape that it says it has. */
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "placement/import_readers.h"
#include "tests/fuzz/input.h"

static void check_counts(const place_stats_t *stats)
{
    for (size_t i = 0; i < (size_t)stats->layers * stats->experts; i++)
        if (stats->load[i] < 0 || stats->load[i] > PLACE_COUNT_MAX) abort();
    for (uint32_t layer = 1; layer < stats->layers; layer++)
        if (stats->layer_index[layer] <= stats->layer_index[layer - 1]) abort();
}

static void check_rows(const place_draft_t *draft)
{
    size_t width = (size_t)draft->layers * draft->top_k;
    const cot_buffer_t *experts = &draft->column[PLACE_COLUMN_EXPERTS];
    if (draft->rows == 0 || experts->size != draft->rows * width * sizeof(int16_t)) abort();
    for (size_t i = 0; i < draft->rows * width; i++) {
        int16_t expert = ((const int16_t *)(const void *)experts->data)[i];
        if (expert < 0 || (uint32_t)expert >= draft->experts) abort();
    }
    for (int column = PLACE_COLUMN_TOKEN_ID; column < PLACE_COLUMNS; column++) {
        size_t bytes = draft->column[column].size, each = column == PLACE_COLUMN_PHASE ? 1 : sizeof(int32_t);
        if (bytes != 0 && bytes != draft->rows * each) abort();
    }
}

static void read_file(place_import_format_t format, const char *path, const place_import_t *options)
{
    place_stats_t *stats = NULL;
    place_draft_t *draft = NULL;
    cot_status_t status = COT_OK;
    switch (format) {
    case PLACE_IMPORT_CSV: status = place_import_csv(path, options, &stats); break;
    case PLACE_IMPORT_JSONL: status = place_import_jsonl(path, options, &draft); break;
    case PLACE_IMPORT_EXFLOW: status = place_import_exflow(path, options, &draft); break;
    default: status = place_import_counts(path, options, &stats); break;
    }
    if ((status == COT_OK) != (stats != NULL || draft != NULL)) abort();
    if (stats != NULL) check_counts(stats);
    if (draft != NULL) check_rows(draft);
    place_stats_destroy(stats);
    place_draft_destroy(draft);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cot_json_setup();
    cot_log_set_level(COT_LOG_ERROR);
    size_t live = cot_memory_live_blocks();
    uint8_t choice = size > 0 ? data[0] : 0;
    place_import_format_t format = (place_import_format_t)(choice & 3);
    const place_import_t options = {.experts = (choice & 4) != 0 ? 4 : 0,
                                    .top_k = (choice & 8) != 0 ? 2 : 0,
                                    .tokens = (choice & 16) != 0 ? 3 : 0,
                                    .request_tokens = (choice & 32) != 0 ? 2 : 0,
                                    .where = (choice & 64) != 0 ? "domain=c4" : NULL};
    const char *path = input_file(data + (size > 0), size > 0 ? size - 1 : 0);
    read_file(format, path, &options);
    (void)place_import(format, path, &options, "/dev/null");
    if (cot_memory_live_blocks() != live) abort();
    return 0;
}
