/* 2 layers, 8 experts, top-1. Request r has r + 1 rows; row p of request r takes expert (r + p) % 8 and (r + 2p) % 8.
 */
#include "tests/temporary.h"

#include "base/json.h"
#include "placement/stats.h"
#include "placement/trace_sets.h"
#include "placement/trace_write.h"

enum { REQUESTS = 10, ROWS = 55 };

static char folder[256], path[300], other[300], fitted[300], held[300], merged[300];

static int make_folder(void **state)
{
    (void)state;
    temporary_make(folder);
    snprintf(path, sizeof(path), "%s/a.trace.safetensors", folder);
    snprintf(other, sizeof(other), "%s/b.trace.safetensors", folder);
    snprintf(fitted, sizeof(fitted), "%s/f.trace.safetensors", folder);
    snprintf(held, sizeof(held), "%s/h.trace.safetensors", folder);
    snprintf(merged, sizeof(merged), "%s/m.trace.safetensors", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    temporary_remove(folder);
    return 0;
}

/* All columns, or only those of an array without requests. */
static void write_rows(const char *file, uint32_t requests, bool whole)
{
    static const uint32_t LAYERS[] = {0, 1};
    int16_t experts[ROWS][2];
    int32_t token_id[ROWS], request[ROWS], position[ROWS];
    uint8_t phase[ROWS];
    uint16_t weights[ROWS][2];
    uint64_t rows = 0;
    for (uint32_t r = 0; r < requests; r++)
        for (uint32_t p = 0; p <= r; p++, rows++) {
            experts[rows][0] = (int16_t)((r + p) % 8);
            experts[rows][1] = (int16_t)((r + 2 * p) % 8);
            weights[rows][0] = weights[rows][1] = (uint16_t)rows;
            token_id[rows] = (int32_t)(1000 + rows);
            request[rows] = (int32_t)r;
            position[rows] = (int32_t)p;
            phase[rows] = p == r;
        }
    const place_trace_info_t info = {
        .model = "tiny", .config_sha256 = "", .experts = 8, .top_k = 1, .layers = 2, .layer_index = LAYERS};
    const place_rows_t part = {
        rows,
        {experts, whole ? weights : NULL, token_id, whole ? request : NULL, whole ? position : NULL, phase},
        NULL,
        0};
    assert_ok(place_rows_save(&info, &part, 1, file));
}

static place_trace_t *open_trace(const char *file)
{
    place_trace_t *trace = NULL;
    assert_ok(place_trace_open(file, &trace));
    return trace;
}

static cot_status_t split(double share, uint64_t seed)
{
    const place_split_t split = {share, seed, fitted, held};
    return place_trace_split(path, &split);
}

/* Adds the requests of a file to `seen`; all rows of a request stand in the file, as they were. */
static uint32_t note_requests(const char *file, uint8_t seen[REQUESTS])
{
    uint32_t requests = 0;
    place_trace_t *trace = open_trace(file);
    for (uint64_t row = 0; row < place_trace_tokens(trace);) {
        place_trace_where_t where = place_trace_where(trace, row);
        uint32_t r = (uint32_t)where.request;
        assert_true(r < REQUESTS);
        for (uint32_t p = 0; p <= r; p++, row++) {
            where = place_trace_where(trace, row);
            assert_int_equal(where.request, r);
            assert_int_equal(where.position, p);
            assert_int_equal(where.token_id, 1000 + r * (r + 1) / 2 + p);
            assert_int_equal(where.phase, p == r);
            assert_int_equal(place_trace_expert(trace, row, 1, 0), (r + 2 * p) % 8);
        }
        seen[r]++;
        requests++;
    }
    place_trace_close(trace);
    return requests;
}

static void every_request_goes_to_one_side(void **state)
{
    (void)state;
    write_rows(path, REQUESTS, true);
    static const struct {
        double share;
        uint32_t held;
    } CASES[] = {{0.3, 3}, {0.25, 3}, {0.01, 1}, {0.99, 9}};
    for (size_t c = 0; c < 4; c++) {
        uint8_t seen[REQUESTS] = {0};
        assert_ok(split(CASES[c].share, 5));
        assert_int_equal(note_requests(held, seen), CASES[c].held);
        assert_int_equal(note_requests(fitted, seen), REQUESTS - CASES[c].held);
        for (uint32_t r = 0; r < REQUESTS; r++) assert_int_equal(seen[r], 1);
    }
}

static uint32_t held_set(uint64_t seed)
{
    uint8_t seen[REQUESTS] = {0};
    uint32_t set = 0;
    assert_ok(split(0.3, seed));
    note_requests(held, seen);
    for (uint32_t r = 0; r < REQUESTS; r++) set |= (uint32_t)seen[r] << r;
    return set;
}

static void the_seed_decides(void **state)
{
    (void)state;
    uint32_t differ = 0, ever = 0;
    write_rows(path, REQUESTS, true);
    for (uint64_t seed = 0; seed < 20; seed++) {
        uint32_t set = held_set(seed);
        assert_int_equal(set, held_set(seed));
        differ += set != held_set(seed + 1);
        ever |= set;
    }
    assert_true(differ >= 15);
    assert_int_equal(ever, (1U << REQUESTS) - 1);
}

static void what_cannot_be_split_is_refused(void **state)
{
    (void)state;
    write_rows(path, REQUESTS, true);
    assert_fails(split(0, 1), COT_ERR_INVALID, "--held-out");
    assert_fails(split(1, 1), COT_ERR_INVALID, "--held-out");
    write_rows(path, 1, true);
    assert_fails(split(0.5, 1), COT_ERR_UNSUPPORTED, "holds 1 request");
    write_rows(path, 3, false);
    assert_fails(split(0.5, 1), COT_ERR_UNSUPPORTED, "--request-tokens");
    const char *paths[] = {path};
    place_stats_t *stats = NULL;
    assert_ok(place_stats_load(paths, 1, &stats));
    assert_ok(place_stats_save(stats, path));
    place_stats_destroy(stats);
    assert_fails(split(0.5, 1), COT_ERR_UNSUPPORTED, "counts only");
}

static void rows_are_put_together(void **state)
{
    (void)state;
    write_rows(path, 3, true);  /* 6 rows */
    write_rows(other, 4, true); /* 10 rows */
    const char *paths[] = {path, other, path};
    assert_ok(place_trace_merge(paths, 3, merged));
    place_trace_t *trace = open_trace(merged);
    assert_int_equal(place_trace_tokens(trace), 22);
    static const int32_t REQUEST[] = {0, 1, 1, 2, 2, 2, 3, 4, 4, 5, 5, 5, 6, 6, 6, 6, 7, 8, 8, 9, 9, 9};
    for (uint32_t row = 0; row < 22; row++) assert_int_equal(place_trace_where(trace, row).request, REQUEST[row]);
    assert_int_equal(place_trace_where(trace, 6).token_id, 1000);
    assert_non_null(place_trace_tensor(trace, "gate_weights"));
    place_trace_close(trace);
}

/* Split and merged again: the counts are those of the whole. */
static void merging_undoes_splitting(void **state)
{
    (void)state;
    write_rows(path, REQUESTS, true);
    assert_ok(split(0.4, 2));
    const char *halves[] = {fitted, held}, *whole[] = {path}, *again[] = {merged};
    assert_ok(place_trace_merge(halves, 2, merged));
    place_stats_t *before = NULL, *after = NULL;
    assert_ok(place_stats_load(whole, 1, &before));
    assert_ok(place_stats_load(again, 1, &after));
    assert_int_equal(after->tokens, ROWS);
    assert_memory_equal(before->load, after->load, 16 * sizeof(*before->load));
    assert_memory_equal(before->transition, after->transition, 64 * sizeof(*before->transition));
    place_stats_destroy(before);
    place_stats_destroy(after);
}

static void what_only_some_hold_is_left_out(void **state)
{
    (void)state;
    write_rows(path, 3, true);
    write_rows(other, 3, false);
    const char *paths[] = {path, other};
    assert_ok(place_trace_merge(paths, 2, merged));
    place_trace_t *trace = open_trace(merged);
    assert_int_equal(place_trace_tokens(trace), 12);
    assert_null(place_trace_tensor(trace, "request"));
    assert_non_null(place_trace_tensor(trace, "token_id"));
    place_trace_close(trace);
}

static void counts_are_added(void **state)
{
    (void)state;
    const char *one[] = {path}, *both[] = {path, other}, *sum[] = {merged};
    place_stats_t *stats = NULL, *added = NULL;
    write_rows(path, REQUESTS, true);
    assert_ok(place_stats_load(one, 1, &stats));
    assert_ok(place_stats_save(stats, other));
    assert_ok(place_trace_merge(both, 2, merged)); /* rows and counts */
    assert_ok(place_stats_load(sum, 1, &added));
    assert_int_equal(added->tokens, 2 * ROWS);
    for (int i = 0; i < 16; i++) assert_int_equal(added->load[i], 2 * stats->load[i]);
    for (int i = 0; i < 64; i++) assert_int_equal(added->transition[i], 2 * stats->transition[i]);
    place_stats_destroy(stats);
    place_stats_destroy(added);
    assert_fails(place_trace_merge(NULL, 0, merged), COT_ERR_INVALID, "at least one");
    one[0] = "/nonexistent";
    assert_fails(place_trace_merge(one, 1, merged), COT_ERR_NOT_FOUND, "/nonexistent");
}

static cot_status_t split_and_merge(void)
{
    const char *halves[] = {fitted, held};
    COT_TRY(split(0.4, 2));
    return place_trace_merge(halves, 2, merged);
}

static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    write_rows(path, REQUESTS, true);
    assert_survives_allocations(split_and_merge(), );
}

int main(void)
{
    cot_json_setup();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_request_goes_to_one_side),
        cmocka_unit_test(the_seed_decides),
        cmocka_unit_test(what_cannot_be_split_is_refused),
        cmocka_unit_test(rows_are_put_together),
        cmocka_unit_test(merging_undoes_splitting),
        cmocka_unit_test(what_only_some_hold_is_left_out),
        cmocka_unit_test(counts_are_added),
        cmocka_unit_test(every_failed_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
