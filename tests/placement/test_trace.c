#include "tests/temporary.h"

#include "base/half.h"
#include "base/json.h"
#include "base/safetensors.h"
#include "placement/trace.h"

/* The tiny world: 2 layers, 4 experts, top-2. Row r of request q routes to experts (q + r) % 4 and (q + r + 1) % 4. */
static const uint32_t LAYERS[] = {0, 2};
static const place_trace_info_t INFO = {"tiny", "abc", 4, 2, 2, LAYERS, 64, 0};

static char folder[256], path[300], other[300];

static int make_folder(void **state)
{
    (void)state;
    temporary_make(folder);
    snprintf(path, sizeof(path), "%s/a.trace.safetensors", folder);
    snprintf(other, sizeof(other), "%s/b.trace.safetensors", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    temporary_remove(folder);
    return 0;
}

static cot_status_t add(place_recorder_t *recorder, uint32_t request, uint32_t position)
{
    int16_t experts[4];
    uint16_t weights[4];
    for (uint32_t i = 0; i < 4; i++) {
        experts[i] = (int16_t)((request + position + i % 2) % 4);
        weights[i] = cot_half_from_float(i % 2 == 0 ? 0.75f : 0.25f);
    }
    return place_recorder_add(recorder, &(place_trace_row_t){request, position, (int32_t)(100 * request + position),
                                                             position >= 2, experts, weights});
}

static void order_of_arrival_does_not_matter(void **state)
{
    (void)state;
    place_recorder_t *forward = NULL, *backward = NULL;
    assert_ok(place_recorder_create(&INFO, 1 << 20, &forward));
    assert_ok(place_recorder_create(&INFO, 1 << 20, &backward));
    for (uint32_t request = 0; request < 3; request++)
        for (uint32_t position = 0; position < 5; position++) {
            assert_ok(add(forward, request, position));
            assert_ok(add(backward, 2 - request, 4 - position));
            assert_ok(add(backward, 2 - request, 4 - position)); /* recomputed: counts once */
        }
    assert_int_equal(place_recorder_rows(backward), 15);
    assert_ok(place_recorder_save(forward, path));
    assert_ok(place_recorder_save(backward, other));
    assert_same_bytes(path, other);
    place_recorder_destroy(forward);
    place_recorder_destroy(backward);

    place_trace_t *trace = NULL;
    assert_ok(place_trace_open(path, &trace));
    assert_int_equal(place_trace_kind(trace), PLACE_TRACE_TOKENS);
    assert_int_equal(place_trace_tokens(trace), 15);
    assert_int_equal(place_trace_info(trace)->experts, 4);
    assert_int_equal(place_trace_info(trace)->row_bytes, 64);
    assert_int_equal(place_trace_info(trace)->layer_index[1], 2);
    for (uint32_t row = 0; row < 15; row++) {
        place_trace_where_t where = place_trace_where(trace, row);
        assert_int_equal(where.request, row / 5);
        assert_int_equal(where.position, row % 5);
        assert_int_equal(where.token_id, 100 * (row / 5) + row % 5);
        assert_int_equal(where.phase, row % 5 >= 2);
        assert_int_equal(place_trace_expert(trace, row, 1, 1), (row / 5 + row % 5 + 1) % 4);
    }
    int64_t sum = 0;
    for (uint32_t expert = 0; expert < 4; expert++) sum += place_trace_load(trace)[4 + expert];
    assert_int_equal(sum, 30);
    place_trace_close(trace);
}

static void a_full_recorder_leaves_out_whole_requests(void **state)
{
    (void)state;
    place_recorder_t *recorder = NULL;
    assert_ok(place_recorder_create(&INFO, 2000, &recorder)); /* a row takes 4 + 1 + 2*4*2 = 21 bytes, 32 at a time */
    for (uint32_t position = 0; position < 32; position++) assert_ok(add(recorder, 0, position));
    for (uint32_t position = 0; position < 32; position++) assert_ok(add(recorder, 1, position));
    for (uint32_t position = 0; position < 32; position++)
        assert_ok(add(recorder, 2, position) == COT_ERR_LIMIT ? COT_OK : COT_OK);
    assert_fails(add(recorder, 3, 0), COT_ERR_LIMIT, "--record-limit");
    assert_ok(add(recorder, 3, 1)); /* said once */
    place_recorder_drop(recorder, 1);
    uint64_t rows = place_recorder_rows(recorder);
    assert_true(rows == 32 || rows == 64);
    place_recorder_destroy(recorder);
}

static void an_unwritable_place_is_refused(void **state)
{
    (void)state;
    place_recorder_t *recorder = NULL;
    assert_ok(place_recorder_create(&INFO, 1 << 20, &recorder));
    assert_ok(add(recorder, 0, 0));
    assert_fails(place_recorder_save(recorder, "/nonexistent/x.trace.safetensors"), COT_ERR_NOT_FOUND, "/nonexistent");
    if (access("/dev/full", W_OK) == 0) /* a device stays what it is */
        assert_fails(place_recorder_save(recorder, "/dev/full"), COT_ERR_IO, "/dev/full");
    place_recorder_destroy(recorder);
}

/* ---- reading what others wrote ---- */

static void write_trace(const char *experts_key, const int16_t *experts, uint64_t tokens)
{
    cot_safetensors_writer_t *writer = NULL;
    assert_ok(cot_safetensors_writer_create(path, &writer));
    assert_ok(cot_safetensors_writer_metadata(writer, "format", "coterie.trace/1"));
    if (experts_key != NULL) assert_ok(cot_safetensors_writer_metadata(writer, "experts", experts_key));
    assert_ok(cot_safetensors_writer_declare(writer, "experts", COT_DTYPE_I16, 3, (uint64_t[]){tokens, 1, 2}));
    assert_ok(cot_safetensors_writer_write(writer, experts, tokens * 2 * sizeof(*experts)));
    assert_ok(cot_safetensors_writer_commit(writer));
    cot_safetensors_writer_destroy(writer);
}

static void bad_traces_are_refused(void **state)
{
    (void)state;
    place_trace_t *trace = NULL;
    write_trace("4", (const int16_t[]){0, 4}, 1);
    assert_fails(place_trace_open(path, &trace), COT_ERR_FORMAT, "expert 4 is not one of 4");
    write_trace("4", (const int16_t[]){0, -1}, 1);
    assert_fails(place_trace_open(path, &trace), COT_ERR_FORMAT, "expert -1");
    write_trace("4", (const int16_t[]){3, 3}, 1);
    assert_fails(place_trace_open(path, &trace), COT_ERR_FORMAT, "twice");
    write_trace(NULL, (const int16_t[]){0, 1}, 1);
    assert_fails(place_trace_open(path, &trace), COT_ERR_FORMAT, "\"experts\"");
    write_trace("4x", (const int16_t[]){0, 1}, 1);
    assert_fails(place_trace_open(path, &trace), COT_ERR_FORMAT, "not a number");
    temporary_write(path, "garbage", 7);
    assert_fails(place_trace_open(path, &trace), COT_ERR_FORMAT, "safetensors");
    assert_fails(place_trace_open("/nonexistent", &trace), COT_ERR_NOT_FOUND, "/nonexistent");
}

static void repeats_are_counted(void **state)
{
    (void)state;
    int16_t experts[2 * 20];
    for (int row = 0; row < 20; row++) {
        experts[2 * row] = (int16_t)(row < 10 ? 0 : row % 2);
        experts[2 * row + 1] = 3;
    }
    write_trace("4", experts, 20);
    place_trace_t *trace = NULL;
    assert_ok(place_trace_open(path, &trace));
    uint64_t longest, rows;
    place_trace_repeats(trace, &longest, &rows);
    assert_int_equal(longest, 11); /* row 10 is even: expert 0 again */
    assert_int_equal(rows, 11);
    place_trace_close(trace);
}

static void counts_are_read_from_the_diagonal(void **state)
{
    (void)state;
    const int32_t pairs[] = {5, 1, 1, 7, /* layer 0 */ 2, 0, 0, 4};
    cot_safetensors_writer_t *writer = NULL;
    assert_ok(cot_safetensors_writer_create(path, &writer));
    assert_ok(cot_safetensors_writer_metadata(writer, "format", "coterie.trace/1"));
    assert_ok(cot_safetensors_writer_declare(writer, "coactivation", COT_DTYPE_I32, 3, (uint64_t[]){2, 2, 2}));
    assert_ok(cot_safetensors_writer_write(writer, pairs, sizeof(pairs)));
    assert_ok(cot_safetensors_writer_commit(writer));
    cot_safetensors_writer_destroy(writer);
    place_trace_t *trace = NULL;
    assert_ok(place_trace_open(path, &trace));
    const int64_t load[] = {5, 7, 2, 4};
    assert_int_equal(place_trace_kind(trace), PLACE_TRACE_COUNTS);
    assert_memory_equal(place_trace_load(trace), load, sizeof(load));
    place_trace_close(trace);
}

static void imbalance_has_known_values(void **state)
{
    (void)state;
    assert_true(place_imbalance((const int64_t[]){2, 2, 2, 2}, 4) == 0);
    assert_true(place_imbalance((const int64_t[]){8, 0, 0, 0}, 4) == 3);
    assert_true(place_imbalance((const int64_t[]){0, 0}, 2) == 0);
}

/* Halves: exact values, ties to even, the smallest, overflow. */
static void halves_round_to_even(void **state)
{
    (void)state;
    assert_int_equal(cot_half_from_float(1.0f), 0x3c00);
    assert_int_equal(cot_half_from_float(-2.5f), 0xc100);
    assert_int_equal(cot_half_from_float(1.0f + 0x1p-11f), 0x3c00);            /* a tie: down to even */
    assert_int_equal(cot_half_from_float(1.0f + 0x1p-10f + 0x1p-11f), 0x3c02); /* a tie: up to even */
    assert_int_equal(cot_half_from_float(0x1p-24f), 1);
    assert_int_equal(cot_half_from_float(0x1p-25f), 0);
    assert_int_equal(cot_half_from_float(65519.0f), 0x7bff);
    assert_int_equal(cot_half_from_float(65520.0f), 0x7c00);
    for (uint32_t half = 0; half < 0x7c00; half++)
        assert_int_equal(cot_half_from_float(cot_half_to_float((uint16_t)half)), half);
}

int main(void)
{
    cot_json_setup();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_of_arrival_does_not_matter),
        cmocka_unit_test(a_full_recorder_leaves_out_whole_requests),
        cmocka_unit_test(an_unwritable_place_is_refused),
        cmocka_unit_test(bad_traces_are_refused),
        cmocka_unit_test(repeats_are_counted),
        cmocka_unit_test(counts_are_read_from_the_diagonal),
        cmocka_unit_test(imbalance_has_known_values),
        cmocka_unit_test(halves_round_to_even),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
