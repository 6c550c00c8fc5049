#include "placement/trace_sets.h"

#include "base/log.h"
#include "base/memory.h"
#include "placement/stats.h"
#include "placement/trace_write.h"

#include <stdlib.h>
#include <string.h>

static int32_t request_of(const place_rows_t *rows, uint64_t row)
{
    int32_t request;
    memcpy(&request, (const char *)rows->column[PLACE_COLUMN_REQUEST] + row * sizeof(request), sizeof(request));
    return request;
}

/* ---- merge ---- */

typedef struct {
    uint32_t count;
    place_trace_t **trace; /* [count] */
    place_rows_t *part;    /* [count] */
} set_t;

static cot_status_t open_all(set_t *set, const char *const *paths, bool *rows_out)
{
    *rows_out = true;
    for (uint32_t i = 0; i < set->count; i++) {
        COT_TRY(place_trace_open(paths[i], &set->trace[i]));
        cot_status_t status = place_trace_same_model(place_trace_info(set->trace[0]), place_trace_info(set->trace[i]));
        if (status != COT_OK) return cot_fail_in(status, "%s", paths[i]);
        *rows_out &= place_trace_kind(set->trace[i]) == PLACE_TRACE_TOKENS;
    }
    return COT_OK;
}

/* The requests of a part are numbered on from the last of the parts before it. */
static cot_status_t number_on(set_t *set)
{
    int64_t next = 0;
    for (uint32_t i = 0; i < set->count; i++) {
        place_rows_t *part = &set->part[i];
        int64_t highest = -1;
        *part = place_trace_rows(set->trace[i]);
        if (part->column[PLACE_COLUMN_REQUEST] == NULL) continue;
        part->request_offset = (int32_t)next;
        for (uint64_t row = 0; row < part->rows; row++)
            if (request_of(part, row) > highest) highest = request_of(part, row);
        next += highest + 1;
        if (next > INT32_MAX) return cot_fail(COT_ERR_LIMIT, "the request numbers go past %d", INT32_MAX);
    }
    return COT_OK;
}

static void warn_of_partial_columns(const set_t *set)
{
    for (int column = 0; column < PLACE_COLUMNS; column++) {
        uint32_t holders = 0;
        for (uint32_t i = 0; i < set->count; i++) holders += set->part[i].column[column] != NULL;
        if (holders > 0 && holders < set->count)
            cot_log_warn("only %u of %u traces hold \"%s\": it is left out", holders, set->count,
                         place_trace_column_name((place_column_t)column));
    }
}

static cot_status_t merge_rows(set_t *set, const char *out_path)
{
    COT_TRY(number_on(set));
    warn_of_partial_columns(set);
    return place_rows_save(place_trace_info(set->trace[0]), set->part, set->count, out_path);
}

static cot_status_t merge_counts(const char *const *paths, uint32_t count, const char *out_path)
{
    place_stats_t *stats = NULL;
    COT_TRY(place_stats_load(paths, count, &stats));
    cot_status_t status = place_stats_save(stats, out_path);
    place_stats_destroy(stats);
    return status;
}

cot_status_t place_trace_merge(const char *const *paths, uint32_t count, const char *out_path)
{
    bool rows = false;
    if (count == 0) return cot_fail(COT_ERR_INVALID, "give at least one trace");
    set_t set = {count, cot_calloc(count, sizeof(*set.trace)), cot_calloc(count, sizeof(*set.part))};
    cot_status_t status = set.trace != NULL && set.part != NULL
                              ? open_all(&set, paths, &rows)
                              : cot_fail(COT_ERR_NO_MEMORY, "no memory for %u traces", count);
    if (status == COT_OK) status = rows ? merge_rows(&set, out_path) : merge_counts(paths, count, out_path);
    for (uint32_t i = 0; set.trace != NULL && i < count; i++) place_trace_close(set.trace[i]);
    cot_free(set.trace);
    cot_free(set.part);
    return status;
}

/* ---- split ---- */

typedef struct {
    uint64_t key; /* seeded hash of the request */
    int32_t request;
} lot_t;

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t mix(uint64_t value)
{
    value += 0x9e3779b97f4a7c15U;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9U;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebU;
    return value ^ (value >> 31);
}

static int by_request(const void *a, const void *b)
{
    const lot_t *left = a, *right = b;
    return (left->request > right->request) - (left->request < right->request);
}

static int by_key(const void *a, const void *b)
{
    const lot_t *left = a, *right = b;
    if (left->key != right->key) return left->key < right->key ? -1 : 1;
    return by_request(a, b);
}

/* One lot for each request, in the order in which they are held out. */
static cot_status_t draw(const place_rows_t *rows, uint64_t seed, lot_t **lots_out, size_t *count_out)
{
    lot_t *lot = cot_calloc(rows->rows, sizeof(*lot));
    if (lot == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory to split %llu rows", (unsigned long long)rows->rows);
    size_t lots = 0;
    for (uint64_t row = 0; row < rows->rows; row++)
        if (row == 0 || request_of(rows, row) != request_of(rows, row - 1)) lot[lots++].request = request_of(rows, row);
    qsort(lot, lots, sizeof(*lot), by_request);
    size_t unique = 0;
    for (size_t i = 0; i < lots; i++)
        if (i == 0 || lot[i].request != lot[unique - 1].request) lot[unique++].request = lot[i].request;
    for (size_t i = 0; i < unique; i++) lot[i].key = mix(mix(seed) ^ (uint32_t)lot[i].request);
    qsort(lot, unique, sizeof(*lot), by_key);
    *lots_out = lot;
    *count_out = unique;
    return COT_OK;
}

static cot_status_t write_halves(const place_trace_t *trace, const place_split_t *split, place_rows_t *rows,
                                 const lot_t *held, size_t count)
{
    uint8_t *keep = cot_calloc(rows->rows, sizeof(*keep));
    if (keep == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory to split the trace");
    rows->keep = keep;
    for (uint64_t row = 0; row < rows->rows; row++) {
        const lot_t key = {.request = request_of(rows, row)};
        keep[row] = bsearch(&key, held, count, sizeof(*held), by_request) == NULL;
    }
    cot_status_t status = place_rows_save(place_trace_info(trace), rows, 1, split->fitted_path);
    for (uint64_t row = 0; row < rows->rows; row++) keep[row] = !keep[row];
    if (status == COT_OK) status = place_rows_save(place_trace_info(trace), rows, 1, split->held_out_path);
    cot_free(keep);
    return status;
}

/* How many of so many requests are held out: at least one, and not all. */
static size_t count_held(double share, size_t lots)
{
    double wanted = share * (double)lots + 0.5;
    size_t held = wanted < 1 ? 1 : (size_t)wanted;
    return held < lots ? held : lots - 1;
}

static cot_status_t split_rows(const place_trace_t *trace, const place_split_t *split)
{
    if (place_trace_kind(trace) != PLACE_TRACE_TOKENS)
        return cot_fail(COT_ERR_UNSUPPORTED, "holds counts only: only rows can be split by request");
    place_rows_t rows = place_trace_rows(trace);
    if (rows.column[PLACE_COLUMN_REQUEST] == NULL)
        return cot_fail(COT_ERR_UNSUPPORTED,
                        "does not say which request a row belongs to: import it with --request-tokens");
    lot_t *lot = NULL;
    size_t lots = 0;
    COT_TRY(draw(&rows, split->seed, &lot, &lots));
    cot_status_t status = COT_OK;
    if (lots < 2) {
        status = cot_fail(COT_ERR_UNSUPPORTED, "holds %zu request: there is nothing to split", lots);
    } else {
        size_t held = count_held(split->held_out, lots);
        qsort(lot, held, sizeof(*lot), by_request);
        status = write_halves(trace, split, &rows, lot, held);
    }
    cot_free(lot);
    return status;
}

cot_status_t place_trace_split(const char *path, const place_split_t *split)
{
    place_trace_t *trace = NULL;
    if (!(split->held_out > 0 && split->held_out < 1))
        return cot_fail(COT_ERR_INVALID, "--held-out must be a share above 0 and below 1");
    COT_TRY(place_trace_open(path, &trace));
    cot_status_t status = split_rows(trace, split);
    place_trace_close(trace);
    return status == COT_OK ? COT_OK : cot_fail_in(status, "%s", path);
}
