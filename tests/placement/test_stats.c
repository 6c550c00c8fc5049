#include "tests/temporary.h"

#include "base/json.h"
#include "base/log.h"
#include "placement/stats.h"

/* The tiny world: 2 layers, 3 experts, top-2, 10 tokens: 4 take {0, 1}, 3 {0, 2}, 3 {1, 2}, in both layers. */
static const int64_t LOAD[] = {7, 7, 6, 7, 7, 6};
static const int64_t PAIRS[] = {7, 4, 3, 4, 7, 3, 3, 3, 6, 7, 4, 3, 4, 7, 3, 3, 3, 6};
/* A token's pairs are {a, b} x {a, b}: row e holds what e was with. */
static const int64_t MOVES[] = {7, 4, 3, 4, 7, 3, 3, 3, 6};

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

typedef struct {
    const char *tokens, *top_k;
    int64_t load[6], moves[9], pairs[18];
    bool with_moves, with_pairs;
} counts_t;

static counts_t sound(void)
{
    counts_t counts = {.tokens = NULL, .top_k = "2", .with_moves = true, .with_pairs = true};
    memcpy(counts.load, LOAD, sizeof(LOAD));
    memcpy(counts.moves, MOVES, sizeof(MOVES));
    memcpy(counts.pairs, PAIRS, sizeof(PAIRS));
    return counts;
}

static counts_t many(int64_t factor)
{
    counts_t counts = sound();
    for (int i = 0; i < 6; i++) counts.load[i] *= factor;
    for (int i = 0; i < 9; i++) counts.moves[i] *= factor;
    for (int i = 0; i < 18; i++) counts.pairs[i] *= factor;
    return counts;
}

/* With a tensor that nobody knows, as the shared instances have. */
static void write_counts(const char *file, const counts_t *counts)
{
    cot_safetensors_writer_t *writer = NULL;
    assert_ok(cot_safetensors_writer_create(file, &writer));
    assert_ok(cot_safetensors_writer_metadata(writer, "format", "coterie.trace/1"));
    assert_ok(cot_safetensors_writer_metadata(writer, "top_k", counts->top_k));
    if (counts->tokens != NULL) assert_ok(cot_safetensors_writer_metadata(writer, "tokens", counts->tokens));
    assert_ok(cot_safetensors_writer_declare(writer, "load", COT_DTYPE_I64, 2, (uint64_t[]){2, 3}));
    assert_ok(cot_safetensors_writer_declare(writer, "planted_rank", COT_DTYPE_U8, 1, (uint64_t[]){2}));
    if (counts->with_moves)
        assert_ok(cot_safetensors_writer_declare(writer, "transition", COT_DTYPE_I64, 3, (uint64_t[]){1, 3, 3}));
    if (counts->with_pairs)
        assert_ok(cot_safetensors_writer_declare(writer, "coactivation", COT_DTYPE_I64, 3, (uint64_t[]){2, 3, 3}));
    assert_ok(cot_safetensors_writer_write(writer, counts->load, sizeof(counts->load)));
    assert_ok(cot_safetensors_writer_write(writer, "??", 2));
    if (counts->with_moves) assert_ok(cot_safetensors_writer_write(writer, counts->moves, sizeof(counts->moves)));
    if (counts->with_pairs) assert_ok(cot_safetensors_writer_write(writer, counts->pairs, sizeof(counts->pairs)));
    assert_ok(cot_safetensors_writer_commit(writer));
    cot_safetensors_writer_destroy(writer);
}

static cot_status_t load_one(place_stats_t **stats_out)
{
    const char *paths[] = {path};
    return place_stats_load(paths, 1, stats_out);
}

static void refuses(const counts_t *counts, const char *words)
{
    place_stats_t *stats = NULL;
    write_counts(path, counts);
    assert_fails(load_one(&stats), COT_ERR_FORMAT, words);
    assert_null(stats);
}

static void accepts(const counts_t *counts)
{
    place_stats_t *stats = NULL;
    write_counts(path, counts);
    assert_ok(load_one(&stats));
    place_stats_destroy(stats);
}

static void sums_over_traces_and_survives_a_round_trip(void **state)
{
    (void)state;
    counts_t one = sound(), three = many(3);
    one.tokens = "10";
    three.tokens = "30";
    write_counts(path, &one);
    write_counts(other, &three);
    const char *paths[] = {path, other};
    place_stats_t *stats = NULL;
    assert_ok(place_stats_load(paths, 2, &stats));
    assert_int_equal(stats->tokens, 40);
    for (int i = 0; i < 6; i++) assert_int_equal(stats->load[i], 4 * LOAD[i]);
    for (int i = 0; i < 9; i++) assert_int_equal(stats->transition[i], 4 * MOVES[i]);
    for (int i = 0; i < 18; i++) assert_int_equal(stats->coactivation[i], 4 * PAIRS[i]);
    assert_ok(place_stats_save(stats, path));
    place_stats_t *again = NULL;
    assert_ok(load_one(&again));
    assert_int_equal(again->tokens, 40);
    assert_int_equal(again->top_k, 2);
    assert_memory_equal(again->load, stats->load, sizeof(LOAD));
    assert_memory_equal(again->transition, stats->transition, sizeof(MOVES));
    assert_memory_equal(again->coactivation, stats->coactivation, sizeof(PAIRS));
    place_stats_destroy(again);
    place_stats_destroy(stats);
}

static void tokens_are_known_only_if_all_traces_state_them(void **state)
{
    (void)state;
    counts_t one = sound(), three = many(3);
    three.tokens = "30";
    write_counts(path, &one);
    write_counts(other, &three);
    const char *paths[] = {other, path};
    place_stats_t *stats = NULL;
    assert_ok(place_stats_load(paths, 2, &stats));
    assert_int_equal(stats->tokens, 0);
    place_stats_destroy(stats);
}

/* 2 % is the limit: 1,000 times the tiny world, with one sum off by a little less and a little more. */
static void small_differences_are_a_warning(void **state)
{
    (void)state;
    counts_t counts = many(1000);
    counts.with_moves = counts.with_pairs = false;
    counts.load[3] -= 380; /* of 20,000 assignments in the layer */
    accepts(&counts);
    counts.load[3] -= 40;
    refuses(&counts, "the first layer's differ by 2.10 %");

    counts = many(1000);
    counts.moves[0] -= 270; /* of 14,000 transitions of expert 0: 1.93 % */
    accepts(&counts);
    counts.moves[0] -= 20; /* 2.07 % */
    refuses(&counts, "transitions out and top_k x its load differ by 2.07 %");

    counts = many(1000);
    counts.moves[0] -= 400; /* the row adds up, the columns do not: sampled counts may */
    counts.moves[2] += 400;
    accepts(&counts);
    counts.tokens = "10000";
    refuses(&counts, "transitions in");

    counts = many(1000);
    counts.pairs[0] -= 200;
    refuses(&counts, "the diagonal of the co-activations and the load");
    counts = many(1000);
    counts.pairs[1] -= 200;
    refuses(&counts, "the two halves");
}

static void stated_tokens_must_add_up_exactly(void **state)
{
    (void)state;
    counts_t counts = many(1000);
    counts.tokens = "10000";
    accepts(&counts);
    counts.tokens = "10001";
    refuses(&counts, "10001 tokens with 2 experts each");
    counts.tokens = "10000";
    counts.moves[0] -= 1;
    refuses(&counts, "transitions out");
}

static void impossible_counts_are_refused(void **state)
{
    (void)state;
    counts_t counts = sound();
    counts.load[1] = -1;
    refuses(&counts, "expert 1: a count of -1");
    counts = sound();
    counts.load[1] = INT64_MAX;
    refuses(&counts, "impossible");
    counts = sound();
    counts.moves[4] = -7;
    refuses(&counts, "tensor \"transition\": a count of -7");
    counts = sound();
    counts.pairs[4] = INT64_MAX;
    refuses(&counts, "tensor \"coactivation\"");
    counts = (counts_t){.top_k = "2"};
    refuses(&counts, "empty");

    counts = (counts_t){.top_k = "1"};
    for (int i = 0; i < 6; i++) counts.load[i] = PLACE_COUNT_MAX;
    write_counts(path, &counts);
    const char *twice[] = {path, path};
    place_stats_t *stats = NULL;
    assert_fails(place_stats_load(twice, 2, &stats), COT_ERR_LIMIT, "more than");
}

static void traces_of_other_models_are_refused(void **state)
{
    (void)state;
    counts_t one = sound(), two = sound();
    two.top_k = "3";
    write_counts(path, &one);
    write_counts(other, &two);
    const char *paths[] = {path, other};
    place_stats_t *stats = NULL;
    assert_fails(place_stats_load(paths, 2, &stats), COT_ERR_MISMATCH, "another model");
    assert_fails(place_stats_load(paths, 0, &stats), COT_ERR_INVALID, "at least one");
}

static cot_status_t load_and_save(void)
{
    place_stats_t *stats = NULL;
    cot_status_t status = load_one(&stats);
    if (status == COT_OK) status = place_stats_save(stats, other);
    place_stats_destroy(stats);
    return status;
}

static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    counts_t counts = sound();
    write_counts(path, &counts);
    assert_survives_allocations(load_and_save(), );
}

int main(void)
{
    cot_json_setup();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_over_traces_and_survives_a_round_trip),
        cmocka_unit_test(tokens_are_known_only_if_all_traces_state_them),
        cmocka_unit_test(small_differences_are_a_warning),
        cmocka_unit_test(stated_tokens_must_add_up_exactly),
        cmocka_unit_test(impossible_counts_are_refused),
        cmocka_unit_test(traces_of_other_models_are_refused),
        cmocka_unit_test(every_failed_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
