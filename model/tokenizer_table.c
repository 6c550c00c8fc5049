#include "model/tokenizer_table.h"

#include "base/memory.h"

#include <assert.h>
#include <string.h>

static uint64_t mix(uint64_t value)
{
    value ^= value >> 32;
    value *= 0x9fb21c651e98df25ULL;
    value ^= value >> 29;
    value *= 0xd6e8feb86659fd93ULL;
    return value ^ (value >> 32);
}

static uint64_t hash_bytes(const char *bytes, size_t count)
{
    uint64_t hash = count * 0x9e3779b97f4a7c15ULL, word = 0;
    while (count > 8) {
        memcpy(&word, bytes, 8);
        hash = (hash ^ word) * 0xd6e8feb86659fd93ULL;
        hash ^= hash >> 32;
        bytes += 8;
        count -= 8;
    }
    word = 0;
    memcpy(&word, bytes, count);
    return mix(hash ^ word);
}

/* A power of two at least twice as large as `entries`: searches stay short. */
static uint64_t slots_for(uint32_t entries)
{
    uint64_t slots = 16;
    while (slots < 2ULL * entries) slots *= 2;
    return slots;
}

cot_status_t model_strings_create(uint32_t entries, uint32_t ids, model_strings_t *strings_out)
{
    uint64_t slots = slots_for(entries);
    model_strings_t strings = {.mask = slots - 1, .ids = ids};
    strings.slots = cot_alloc(slots * sizeof *strings.slots);
    strings.spans = cot_alloc((size_t)ids * sizeof *strings.spans);
    if (strings.slots == NULL || strings.spans == NULL) {
        model_strings_destroy(&strings);
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for a vocabulary of %u tokens", entries);
    }
    memset(strings.slots, 0xff, slots * sizeof *strings.slots);
    memset(strings.spans, 0xff, (size_t)ids * sizeof *strings.spans);
    *strings_out = strings;
    return COT_OK;
}

void model_strings_destroy(model_strings_t *strings)
{
    cot_free(strings->slots);
    cot_free(strings->spans);
    cot_buffer_free(&strings->bytes);
    *strings = (model_strings_t){0};
}

/* Puts the bytes behind those of the others. */
static cot_status_t keep_bytes(model_strings_t *strings, uint32_t id, const char *bytes, size_t count)
{
    if (count >= MODEL_NO_TOKEN || strings->bytes.size + count >= MODEL_NO_TOKEN)
        return cot_fail(COT_ERR_LIMIT, "the tokens' text takes 4 GiB or more");
    model_span_t span = {(uint32_t)strings->bytes.size, (uint32_t)count};
    COT_TRY(cot_buffer_append(&strings->bytes, bytes, count));
    strings->spans[id] = span;
    return COT_OK;
}

cot_status_t model_strings_add(model_strings_t *strings, const char *bytes, size_t count, uint32_t id)
{
    assert(id < strings->ids && !model_strings_has(strings, id));
    COT_TRY(keep_bytes(strings, id, bytes, count));
    if (count > strings->longest) strings->longest = (uint32_t)count;
    uint64_t hash = hash_bytes(bytes, count), at = hash & strings->mask;
    while (strings->slots[at].id != MODEL_NO_TOKEN) at = (at + 1) & strings->mask;
    strings->slots[at] = (model_string_slot_t){.tag = (uint32_t)(hash >> 32), .id = id};
    return COT_OK;
}

cot_status_t model_strings_rename(model_strings_t *strings, uint32_t id, const char *bytes, size_t count)
{
    assert(model_strings_has(strings, id));
    return keep_bytes(strings, id, bytes, count);
}

uint32_t model_strings_find(const model_strings_t *strings, const char *bytes, size_t count)
{
    if (count > strings->longest) return MODEL_NO_TOKEN;
    uint64_t hash = hash_bytes(bytes, count);
    for (uint64_t at = hash & strings->mask;; at = (at + 1) & strings->mask) {
        model_string_slot_t slot = strings->slots[at];
        if (slot.id == MODEL_NO_TOKEN) return MODEL_NO_TOKEN;
        if (slot.tag != (uint32_t)(hash >> 32)) continue;
        model_span_t span = strings->spans[slot.id];
        if (span.length == count && memcmp(strings->bytes.data + span.start, bytes, count) == 0) return slot.id;
    }
}

bool model_strings_has(const model_strings_t *strings, uint32_t id)
{
    return id < strings->ids && strings->spans[id].length != MODEL_NO_TOKEN;
}

const char *model_strings_get(const model_strings_t *strings, uint32_t id, size_t *count_out)
{
    model_span_t span = strings->spans[id];
    *count_out = span.length;
    return span.length == 0 ? "" : (const char *)strings->bytes.data + span.start;
}

cot_status_t model_merges_create(uint32_t entries, model_merges_t *merges_out)
{
    uint64_t slots = slots_for(entries);
    model_merges_t merges = {.mask = slots - 1};
    merges.slots = cot_alloc(slots * sizeof *merges.slots);
    if (merges.slots == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for %u merges", entries);
    memset(merges.slots, 0xff, slots * sizeof *merges.slots);
    *merges_out = merges;
    return COT_OK;
}

void model_merges_destroy(model_merges_t *merges)
{
    cot_free(merges->slots);
    *merges = (model_merges_t){0};
}

/* The slot of a pair, or the free one where it belongs. */
static model_merge_t *merge_slot(const model_merges_t *merges, uint64_t pair)
{
    uint64_t at = mix(pair) & merges->mask;
    while (merges->slots[at].rank != MODEL_NO_RANK && merges->slots[at].pair != pair) at = (at + 1) & merges->mask;
    return &merges->slots[at];
}

void model_merges_put(model_merges_t *merges, uint32_t left, uint32_t right, uint32_t rank, uint32_t id)
{
    uint64_t pair = (uint64_t)left << 32 | right;
    *merge_slot(merges, pair) = (model_merge_t){.pair = pair, .rank = rank, .id = id};
}

const model_merge_t *model_merges_find(const model_merges_t *merges, uint32_t left, uint32_t right)
{
    const model_merge_t *slot = merge_slot(merges, (uint64_t)left << 32 | right);
    return slot->rank == MODEL_NO_RANK ? NULL : slot;
}
