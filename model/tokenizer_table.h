/* The two look-ups of byte pair encoding: bytes -> id, and pair of ids -> rank and merged id. Filled once, then only
 * read. */
#ifndef MODEL_TOKENIZER_TABLE_H
#define MODEL_TOKENIZER_TABLE_H

#include "base/buffer.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MODEL_NO_TOKEN UINT32_MAX
#define MODEL_NO_RANK UINT32_MAX

typedef struct {
    uint32_t tag; /* upper half of the hash; with id MODEL_NO_TOKEN the slot is free */
    uint32_t id;
} model_string_slot_t;

typedef struct {
    uint32_t start, length;
} model_span_t;

/* Bytes -> id. Owns its slots and its copy of the bytes. */
typedef struct {
    model_string_slot_t *slots;
    uint64_t mask;
    cot_buffer_t bytes;
    model_span_t *spans; /* by id; length MODEL_NO_TOKEN: no entry */
    uint32_t ids;        /* room of `spans` */
    uint32_t longest;    /* bytes of the longest entry */
} model_strings_t;

/* Room for `entries` strings with ids below `ids`. */
cot_status_t model_strings_create(uint32_t entries, uint32_t ids, model_strings_t *strings_out);
void model_strings_destroy(model_strings_t *strings);
/* The bytes must be new and the id unused: the caller has looked. */
cot_status_t model_strings_add(model_strings_t *strings, const char *bytes, size_t count, uint32_t id);
/* Another text for an id, once nothing is looked up by text any more: only get returns it. */
cot_status_t model_strings_rename(model_strings_t *strings, uint32_t id, const char *bytes, size_t count);
/* MODEL_NO_TOKEN when absent. */
uint32_t model_strings_find(const model_strings_t *strings, const char *bytes, size_t count);
bool model_strings_has(const model_strings_t *strings, uint32_t id);
const char *model_strings_get(const model_strings_t *strings, uint32_t id, size_t *count_out);

typedef struct {
    uint64_t pair; /* left id in the upper half */
    uint32_t rank, id;
} model_merge_t;

/* Pair of ids -> merge. Owns its slots. */
typedef struct {
    model_merge_t *slots; /* rank MODEL_NO_RANK: free */
    uint64_t mask;
} model_merges_t;

cot_status_t model_merges_create(uint32_t entries, model_merges_t *merges_out);
void model_merges_destroy(model_merges_t *merges);
/* A pair that is there already takes the new rank, as in the library. */
void model_merges_put(model_merges_t *merges, uint32_t left, uint32_t right, uint32_t rank, uint32_t id);
/* NULL when the pair does not merge. */
const model_merge_t *model_merges_find(const model_merges_t *merges, uint32_t left, uint32_t right);

#endif
