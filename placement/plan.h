/* Which rank holds which expert (*.plan.json, DESIGN.md section 6). Pure data: no GLPK, MPI or CUDA.
 * `rank` here counts workers from 0 (worker i is MPI rank i + 1). */
#ifndef PLACE_PLAN_H
#define PLACE_PLAN_H

#include "base/buffer.h"
#include "base/json.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* Owns its arrays. Immutable once made. Every expert stands somewhere in every layer, at most once on a rank. */
typedef struct {
    uint32_t layers, experts, ranks;             /* MoE layers */
    uint32_t *layer_index;                       /* [layers] the model's layer numbers, ascending */
    uint32_t *slot_begin;                        /* [layers * ranks + 1] range of slot_expert of (layer, rank) */
    uint32_t *slot_expert;                       /* experts in slot order */
    char *model_name, *config_sha256, *exchange; /* NULL where the file is silent */
    json_t *extra;                               /* objective, made_by, traces: kept as they were; NULL if none */
} place_plan_t;

/* Experts 0 … E-1 in equal runs (the first E % ranks ranks hold one more). layer_index is copied. */
cot_status_t place_plan_contiguous(uint32_t layers, const uint32_t *layer_index, uint32_t experts, uint32_t ranks,
                                   place_plan_t **plan_out);
cot_status_t place_plan_load(const char *path, place_plan_t **plan_out);
cot_status_t place_plan_parse(const char *text, size_t bytes, const char *what, place_plan_t **plan_out);
/* One line per layer; equal plans give equal bytes. */
cot_status_t place_plan_print(const place_plan_t *plan, cot_buffer_t *out);
cot_status_t place_plan_save(const place_plan_t *plan, const char *path);
void place_plan_destroy(place_plan_t *plan);

/* COT_ERR_MISMATCH, in one sentence, if the plan is not for this model or this number of workers. */
typedef struct {
    uint32_t layers, experts, ranks;
    const uint32_t *layer_index;
    const char *config_sha256;
} place_plan_need_t;
cot_status_t place_plan_check(const place_plan_t *plan, const place_plan_need_t *need);

/* Who computes (layer, expert) for tokens whose home is `home`: home itself if it has a copy, else the copy at position
 * (home + expert) mod copies in rank order. A fixed rule: no bit and no load depends on time. */
uint32_t place_plan_rank(const place_plan_t *plan, uint32_t layer, uint32_t expert, uint32_t home);
/* Slot of the expert on a rank, or -1. */
int32_t place_plan_slot(const place_plan_t *plan, uint32_t layer, uint32_t rank, uint32_t expert);

#endif
