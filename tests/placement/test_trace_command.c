/* `coterie trace` as a user calls it: words and flags in, a file or text out. */
#include "tests/temporary.h"

#include "base/file.h"
#include "base/json.h"
#include "placement/shape_options.h"
#include "placement/trace.h"
#include "placement/trace_command.h"

#define FIXTURES COTERIE_SOURCE_DIR "/tests/fixtures/imports/"

static char folder[256], printed[300], made[300], table[300];

static int make_folder(void **state)
{
    (void)state;
    temporary_make(folder);
    snprintf(printed, sizeof(printed), "%s/printed", folder);
    snprintf(made, sizeof(made), "%s/made.trace.safetensors", folder);
    snprintf(table, sizeof(table), "%s/table.jsonl", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    temporary_remove(folder);
    return 0;
}

/* Runs the words (up to a NULL) and returns the exit code; what is printed goes to `printed`. */
static int run(char *const *words)
{
    int argc = 0;
    while (words[argc] != NULL) argc++;
    cot_settings_t *settings = NULL;
    assert_ok(cot_settings_parse(COT_CMD_TRACE, argc, (char **)(uintptr_t)words, &settings));
    fflush(stdout);
    int kept = dup(STDOUT_FILENO);
    FILE *file = fopen(printed, "w");
    assert_non_null(file);
    assert_true(dup2(fileno(file), STDOUT_FILENO) >= 0);
    int code = place_trace_command(settings);
    fflush(stdout);
    dup2(kept, STDOUT_FILENO);
    close(kept);
    fclose(file);
    cot_settings_destroy(settings);
    return code;
}

#define RUN(...) run((char *const[]){__VA_ARGS__, NULL})

static char *read_printed(void)
{
    char *text = NULL;
    size_t bytes = 0;
    assert_ok(cot_file_read(printed, 1 << 20, &text, &bytes));
    return text;
}

static json_t *info_json(const char *path)
{
    json_t *root = NULL;
    assert_int_equal(RUN("info", (char *)(uintptr_t)path, "--json"), 0);
    char *text = read_printed();
    assert_ok(cot_json_load_bytes(text, strlen(text), "info", &root));
    cot_free(text);
    return root;
}

static void near(const json_t *object, const char *key, double wanted)
{
    double got = json_number_value(json_object_get(object, key));
    if (!(got - wanted < 1e-6 && wanted - got < 1e-6)) fail_msg("%s: %.6f, wanted %.6f", key, got, wanted);
}

/* 20 tokens of one request, 2 layers, 4 experts: {0, 1} and {2, 3} in turns; the second layer does as the first. */
static void write_table(void)
{
    FILE *file = fopen(table, "w");
    assert_non_null(file);
    fprintf(file, "{\"type\": \"meta\", \"experts\": 4, \"layers\": [1, 3], \"model\": \"tiny\"}\n");
    for (int t = 0; t < 20; t++)
        fprintf(file, "{\"request\": %d, \"experts\": %s}\n", t / 10,
                t % 2 == 0 ? "[[0, 1], [1, 0]]" : "[[2, 3], [2, 3]]");
    fclose(file);
}

static void info_of_rows(void **state)
{
    (void)state;
    write_table();
    assert_int_equal(RUN("import", table, "--out", made, "--tokens", "20"), 0);
    json_t *root = info_json(made);
    assert_string_equal(json_string_value(json_object_get(root, "kind")), "tokens");
    assert_string_equal(json_string_value(json_object_get(root, "model")), "tiny");
    near(root, "tokens", 20);
    near(root, "top_k", 2);
    near(root, "runs", 2);
    const json_t *layer = json_array_get(json_object_get(root, "layers"), 0);
    near(layer, "layer", 1);
    near(layer, "assignments", 40);
    near(layer, "imbalance", 0);
    near(layer, "balancedness", 1);
    near(layer, "hottest_load", 10);
    near(layer, "transition_strength", 0.5); /* half of the cells, each at twice its expectation */
    near(layer, "coactivation_strength", 2.0 / 3);
    assert_true(
        json_is_null(json_object_get(json_array_get(json_object_get(root, "layers"), 1), "transition_strength")));
    /* m = 4: every window has f = 2 for all four experts: F1 = 2 (4 x 2) / (4 x 4 + 4 x 2). */
    const json_t *window = json_array_get(json_object_get(root, "locality"), 0);
    near(window, "window", 4);
    near(window, "windows", 2 * 2 * 7);
    near(window, "srp", 2.0 / 3);
    near(window, "segment_size", 2);
    near(window, "sch", 1); /* a cache of 4 holds all */
    near(window, "sch_static", 1);
    assert_true(json_is_null(json_object_get(json_array_get(json_object_get(root, "locality"), 1), "srp")));
    json_decref(root);

    assert_int_equal(RUN("info", made), 0);
    char *text = read_printed();
    assert_non_null(strstr(text, "tokens   20"));
    assert_non_null(strstr(text, "    1           40      0.000         1.000  0.500"));
    assert_non_null(strstr(text, "locality of 2 of 2 runs"));
    cot_free(text);
}

static void info_of_counts_says_null_where_nothing_is_known(void **state)
{
    (void)state;
    assert_int_equal(RUN("import", FIXTURES "load-i8.npy", "--format", "counts", "--out", made), 0);
    json_t *root = info_json(made);
    assert_string_equal(json_string_value(json_object_get(root, "kind")), "counts");
    assert_true(json_is_null(json_object_get(root, "tokens")));
    assert_true(json_is_null(json_object_get(root, "locality")));
    const json_t *layer = json_array_get(json_object_get(root, "layers"), 0);
    near(layer, "imbalance", 94.0 / 25 - 1);
    near(layer, "hottest", 3);
    assert_true(json_is_null(json_object_get(layer, "coactivation_chance")));
    json_decref(root);
    assert_int_equal(RUN("info", made), 0);
}

static void split_and_merge(void **state)
{
    (void)state;
    char left[320], right[320];
    write_table();
    assert_int_equal(RUN("import", table, "--out", made), 0);
    assert_int_equal(RUN("split", made, "--out", made, "--held-out", "0.5", "--seed", "3"), 0);
    snprintf(left, sizeof(left), "%s/made.fitted.trace.safetensors", folder);
    snprintf(right, sizeof(right), "%s/made.held-out.trace.safetensors", folder);
    assert_int_equal(RUN("merge", left, right, "--out", made), 0);
    json_t *root = info_json(made);
    near(root, "tokens", 20);
    json_decref(root);
    root = info_json(right);
    near(root, "tokens", 10);
    json_decref(root);
}

static void flags_reach_the_import(void **state)
{
    (void)state;
    assert_int_equal(RUN("import", FIXTURES "exflow.npy", "--format", "exflow", "--experts", "4", "--layers", "2,5-6",
                         "--request-tokens", "3", "--tokens", "5", "--top-k", "1", "--out", made),
                     0);
    place_trace_t *trace = NULL;
    assert_ok(place_trace_open(made, &trace));
    assert_int_equal(place_trace_info(trace)->layer_index[2], 6);
    assert_int_equal(place_trace_where(trace, 4).request, 1);
    place_trace_close(trace);
    const char *csv = "model,layer,expert,count\na,0,0,1\nb,0,0,2\n";
    temporary_write(table, csv, strlen(csv));
    assert_int_equal(RUN("import", table, "--format", "csv", "--where", "model=b", "--out", made), 0);
    assert_ok(place_trace_open(made, &trace));
    assert_int_equal(place_trace_load(trace)[0], 2);
    place_trace_close(trace);
    assert_int_equal(RUN("import", table, "--format", "csv", "--where", "model=b", "--out", made, "--model",
                         COTERIE_SOURCE_DIR "/tests/fixtures/models/olmoe"),
                     4);
}

static void wrong_calls_are_refused(void **state)
{
    (void)state;
    assert_int_equal(RUN("look", made), 2);
    assert_int_equal(RUN("info"), 2);
    assert_int_equal(RUN("info", made, made), 2);
    assert_int_equal(RUN("merge", made), 2);
    assert_int_equal(RUN("import", FIXTURES "load-i8.npy", "--out", made), 2);
    assert_int_equal(RUN("import", FIXTURES "load-i8.npy", "--format", "counts"), 2);
    assert_int_equal(RUN("import", FIXTURES "load-i8.npy", "--format", "counts", "--layers", "3-", "--out", made), 2);
    assert_int_equal(RUN("split", made, "--out", made, "--held-out", "2"), 2);
    assert_int_equal(RUN("info", "/nonexistent"), 4);
}

static void refuses_layers(const char *text)
{
    uint32_t *index = NULL, layers = 0;
    assert_fails(place_layers_parse(text, &index, &layers), COT_ERR_INVALID, "--layers");
}

static void lists_of_layers(void **state)
{
    (void)state;
    uint32_t *index = NULL, layers = 0;
    assert_ok(place_layers_parse("1,3-5,4095", &index, &layers));
    const uint32_t wanted[] = {1, 3, 4, 5, 4095};
    assert_int_equal(layers, 5);
    assert_memory_equal(index, wanted, sizeof(wanted));
    cot_free(index);
    static const char *const BAD[] = {
        "", ",", "1,", "1,1", "3-2", "2,1", "4096", "0-4096", "a", "1 2", "-1", "1-2-3", "99999999999999999999"};
    for (size_t i = 0; i < sizeof(BAD) / sizeof(*BAD); i++) refuses_layers(BAD[i]);
}

int main(void)
{
    cot_json_setup();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(info_of_rows),
        cmocka_unit_test(info_of_counts_says_null_where_nothing_is_known),
        cmocka_unit_test(split_and_merge),
        cmocka_unit_test(flags_reach_the_import),
        cmocka_unit_test(wrong_calls_are_refused),
        cmocka_unit_test(lists_of_layers),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
