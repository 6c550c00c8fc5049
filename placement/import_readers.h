/* One reader for each format of placement/import.h, and what they share. */
#ifndef PLACE_IMPORT_READERS_H
#define PLACE_IMPORT_READERS_H

#include "base/buffer.h"
#include "placement/import.h"
#include "placement/stats.h"
#include "placement/trace_write.h"

#define PLACE_IMPORT_MAX_EXPERTS 65536U
#define PLACE_IMPORT_MAX_LAYERS 4096U
#define PLACE_IMPORT_MAX_CELLS (1U << 24) /* layers x experts */

/* Token rows as they come together. Owns everything. A column without bytes is absent. */
typedef struct {
    char model[128], config_sha256[65];
    uint32_t experts, top_k, layers, row_bytes;
    uint32_t *layer_index;
    uint64_t rows;
    cot_buffer_t column[PLACE_COLUMNS];
} place_draft_t;

void place_draft_destroy(place_draft_t *draft);
cot_status_t place_draft_save(const place_draft_t *draft, const char *path);

/* The faults that these find name the file. */
cot_status_t place_import_csv(const char *path, const place_import_t *options, place_stats_t **stats_out);
cot_status_t place_import_counts(const char *path, const place_import_t *options, place_stats_t **stats_out);
cot_status_t place_import_jsonl(const char *path, const place_import_t *options, place_draft_t **draft_out);
cot_status_t place_import_exflow(const char *path, const place_import_t *options, place_draft_t **draft_out);

/* Experts and top_k as the options or their model say; 0: they do not. */
uint32_t place_import_experts(const place_import_t *options);
uint32_t place_import_top_k(const place_import_t *options);

/* As stated, or else `highest` + 1 with a warning. */
uint32_t place_import_count_experts(uint32_t stated, uint32_t highest);

/* Fills layer_index [layers]: from the options or their model (COT_ERR_MISMATCH if they have another number of layers),
 * else 0, 1, …. */
cot_status_t place_import_layers(const place_import_t *options, uint32_t layers, uint32_t *layer_index);
/* Layer numbers that the file states must be those of the options, if they have any. */
cot_status_t place_import_same_layers(const place_import_t *options, uint32_t layers, const uint32_t *layer_index);

/* Zeroed counts for so many layers and experts. */
cot_status_t place_import_new_stats(uint32_t layers, uint32_t experts, place_stats_t **stats_out);

#endif
