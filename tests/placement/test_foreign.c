/* The worked example of DeepSeek's EPLB in three formats (tools/fixtures/make_imports.py): 2 layers, 12 experts, 16
 * slots on 8 ranks, two each. */
#include "tests/temporary.h"

#include "base/json.h"
#include "placement/convert_command.h"
#include "placement/foreign.h"

#define FIXTURES COTERIE_SOURCE_DIR "/tests/fixtures/imports/"

static const uint32_t SLOTS[] = {5, 6,  5, 7, 8, 4,  3, 4, 10, 9, 10, 2, 0, 1, 11, 1,
                                 7, 10, 6, 8, 6, 11, 8, 9, 2,  4, 5,  1, 5, 0, 3,  1};
static const uint32_t LAYERS[] = {3, 4};
static const place_foreign_shape_t EIGHT = {.ranks = 8, .experts = 12, .layers = 2, .layer_index = LAYERS};

static char folder[256], in[300], out[300], plan_file[300];

static int make_folder(void **state)
{
    (void)state;
    temporary_make(folder);
    snprintf(in, sizeof(in), "%s/in", folder);
    snprintf(out, sizeof(out), "%s/out", folder);
    snprintf(plan_file, sizeof(plan_file), "%s/a.plan.json", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    temporary_remove(folder);
    return 0;
}

static void assert_same_plan(const place_plan_t *a, const place_plan_t *b)
{
    cot_buffer_t left = {0}, right = {0};
    assert_ok(place_plan_print(a, &left));
    assert_ok(place_plan_print(b, &right));
    assert_int_equal(left.size, right.size);
    assert_memory_equal(left.data, right.data, left.size);
    cot_buffer_free(&left);
    cot_buffer_free(&right);
}

static void the_example_reads_from_every_format(void **state)
{
    (void)state;
    static const struct {
        place_foreign_t format;
        const char *path;
    } FILES[] = {{PLACE_FOREIGN_TRTLLM, FIXTURES "eplb.yaml"},
                 {PLACE_FOREIGN_TRTLLM, FIXTURES "eplb-wrapped.yaml"},
                 {PLACE_FOREIGN_ASCEND, FIXTURES "expert_map.json"},
                 {PLACE_FOREIGN_PHY2LOG, FIXTURES "phy2log.npy"}};
    for (size_t f = 0; f < 4; f++) {
        place_plan_t *plan = NULL;
        assert_ok(place_foreign_load(FILES[f].format, FILES[f].path, &EIGHT, &plan));
        assert_int_equal(plan->ranks, 8);
        assert_int_equal(plan->experts, 12);
        assert_memory_equal(plan->layer_index, LAYERS, sizeof(LAYERS));
        assert_memory_equal(plan->slot_expert, SLOTS, sizeof(SLOTS));
        for (uint32_t list = 0; list <= 16; list++) assert_int_equal(plan->slot_begin[list], 2 * list);
        place_plan_destroy(plan);
    }
}

/* Byte for byte what the other programs' libraries write (the JSON has other white space). */
static void the_example_is_written_as_the_others_write_it(void **state)
{
    (void)state;
    place_plan_t *plan = NULL, *again = NULL;
    assert_ok(place_foreign_load(PLACE_FOREIGN_TRTLLM, FIXTURES "eplb.yaml", &EIGHT, &plan));
    assert_ok(place_foreign_save(PLACE_FOREIGN_TRTLLM, out, plan));
    assert_same_bytes(out, FIXTURES "eplb.yaml");
    assert_ok(place_foreign_save(PLACE_FOREIGN_PHY2LOG, out, plan));
    assert_same_bytes(out, FIXTURES "phy2log.npy");
    assert_ok(place_foreign_save(PLACE_FOREIGN_ASCEND, out, plan));
    json_t *ours = NULL, *theirs = NULL;
    assert_ok(cot_json_load_file(out, 1 << 20, &ours));
    assert_ok(cot_json_load_file(FIXTURES "expert_map.json", 1 << 20, &theirs));
    assert_true(json_equal(ours, theirs));
    json_decref(ours);
    json_decref(theirs);
    assert_ok(place_foreign_load(PLACE_FOREIGN_ASCEND, out, &EIGHT, &again));
    assert_same_plan(plan, again);
    place_plan_destroy(plan);
    place_plan_destroy(again);
}

/* Ranks with 3, 1 and 2 experts become ranks of three slots, and come back as they were. */
static void unequal_ranks_survive_a_round_trip(void **state)
{
    (void)state;
    const char *text = "{\"format\": \"coterie.plan/1\", \"ranks\": 3, \"layers\": [{\"layer\": 3, \"ranks\": [[0, 2, "
                       "1], [3], [1, 0]]}, {\"layer\": 4, \"ranks\": [[3, 2], [0], [1]]}]}";
    const place_foreign_shape_t shape = {.ranks = 3, .layers = 2, .layer_index = LAYERS, .experts = 4};
    place_plan_t *plan = NULL;
    assert_ok(place_plan_parse(text, strlen(text), "text", &plan));
    for (int format = PLACE_FOREIGN_TRTLLM; format <= PLACE_FOREIGN_PHY2LOG; format++) {
        place_plan_t *again = NULL;
        assert_ok(place_foreign_save((place_foreign_t)format, out, plan));
        assert_ok(place_foreign_load((place_foreign_t)format, out, &shape, &again));
        assert_same_plan(plan, again);
        place_plan_destroy(again);
    }
    place_plan_destroy(plan);

    text = "{\"format\": \"coterie.plan/1\", \"ranks\": 2, \"layers\": [{\"layer\": 3, \"ranks\": [[0], []]}]}";
    assert_ok(place_plan_parse(text, strlen(text), "text", &plan));
    assert_fails(place_foreign_save(PLACE_FOREIGN_TRTLLM, out, plan), COT_ERR_UNSUPPORTED, "rank 1 holds no expert");
    place_plan_destroy(plan);
}

/* ---- refusals ---- */

static void refuses(place_foreign_t format, const char *text, cot_status_t status, const char *words)
{
    const place_foreign_shape_t two = {.ranks = 2};
    place_plan_t *plan = NULL;
    temporary_write(in, text, strlen(text));
    assert_fails(place_foreign_load(format, in, &two, &plan), status, words);
    assert_null(plan);
    assert_non_null(strstr(cot_error_text(), in));
}

static void refuses_yaml(const char *text, const char *words)
{
    refuses(PLACE_FOREIGN_TRTLLM, text, COT_ERR_FORMAT, words);
}

static void bad_yaml_is_refused_with_its_line(void **state)
{
    (void)state;
#define HEAD "initial_global_assignments:\n"
    refuses_yaml("", "holds no layer");
    refuses_yaml("num_slots: 4\n", "holds no layer");
    refuses_yaml(HEAD "  0: [0, 1, 2]\n", "line 2: 3 slots of a layer cannot be shared equally by 2 ranks");
    refuses_yaml(HEAD "  0: [0, 1]\n  1: [0, 1, 1, 0]\n", "line 3: 4 slots, the first layer has 2");
    refuses_yaml(HEAD "  0: [0, 2]\n", "layer 0: expert 1 stands on no rank");
    refuses_yaml(HEAD "  0: [0, 1]\nnum_slots: 4\n", "\"num_slots\" is 4, the layers have 2");
    refuses_yaml(HEAD "  1: [0, 1]\n  0: [0, 1]\n", "line 3: layer 0 does not come after layer 1");
    refuses_yaml(HEAD "  1: [0, 1]\n  1: [0, 1]\n", "line 3: layer 1 does not come after");
    refuses_yaml(HEAD "  0: [0, 1]\n   1: [0, 1]\n", "line 3: should go on with the indentation");
    refuses_yaml(HEAD "  0: [0, 1\n\n", "line 4: should go on with a comma");
    refuses_yaml(HEAD "  0: [0 1]\n", "line 2: should go on with a comma");
    refuses_yaml(HEAD "  0: [0, -1]\n", "line 2: should go on with a whole number");
    refuses_yaml(HEAD "  0: [0, 99999999999999999999]\n", "line 2: a number is above 65535");
    refuses_yaml(HEAD "  0:\n  - 0\n  - 1\n", "line 2: should go on with a list in brackets");
    refuses_yaml(HEAD "  0: {a: 1}\n", "line 2: should go on with a list in brackets");
    refuses_yaml(HEAD "  zero: [0, 1]\n", "line 2: should go on with a whole number");
    refuses_yaml(HEAD "  0: [0, 1] x\n", "line 2: should go on with the end of the line");
    refuses_yaml("initial_global_assignments: {0: [0, 1]}\n", "line 1: should go on with the end of the line");
    refuses_yaml("# a comment\n\nother: 3\n", "line 3: the key \"other\"");
    refuses_yaml("  num_slots: 3\n", "line 1: should go on with a key that is not indented");
    refuses_yaml("\tnum_slots: 3\n", "line 1: should go on with a key");
    refuses_yaml("num_slots: many\n", "line 1: should go on with a whole number");
    refuses_yaml("&anchor\n", "line 1: should go on with a key");
#undef HEAD
    place_plan_t *plan = NULL;
    assert_fails(place_foreign_load(PLACE_FOREIGN_TRTLLM, FIXTURES "eplb.yaml", &(place_foreign_shape_t){0}, &plan),
                 COT_ERR_INVALID, "--ranks");
    assert_fails(place_foreign_load(PLACE_FOREIGN_TRTLLM, "/nonexistent", &EIGHT, &plan), COT_ERR_NOT_FOUND,
                 "/nonexistent");
}

static void bad_expert_maps_are_refused(void **state)
{
    (void)state;
#define MAP(devices)                                                                                                   \
    "{\"moe_layer_count\": 1, \"layer_list\": [{\"layer_id\": 0, \"device_count\": 2, \"device_list\": [" devices "]}" \
    "]}"
#define DEVICE(id, experts) "{\"device_id\": " id ", \"device_expert\": " experts "}"
    refuses(PLACE_FOREIGN_ASCEND, "{", COT_ERR_FORMAT, "line 1");
    refuses(PLACE_FOREIGN_ASCEND, "{}", COT_ERR_FORMAT, "\"layer_list\"");
    refuses(PLACE_FOREIGN_ASCEND, "{\"moe_layer_count\": 2, \"layer_list\": [1]}", COT_ERR_FORMAT, "moe_layer_count");
    refuses(PLACE_FOREIGN_ASCEND, MAP(DEVICE("0", "[0]")), COT_ERR_FORMAT, "\"device_count\" devices");
    refuses(PLACE_FOREIGN_ASCEND, MAP(DEVICE("1", "[0]") "," DEVICE("0", "[1]")), COT_ERR_FORMAT, "in order from 0");
    refuses(PLACE_FOREIGN_ASCEND, MAP(DEVICE("0", "[0]") "," DEVICE("1", "3")), COT_ERR_FORMAT, "must be a list");
    refuses(PLACE_FOREIGN_ASCEND, MAP(DEVICE("0", "[0]") "," DEVICE("1", "[1.5]")), COT_ERR_FORMAT, "a whole number");
    refuses(PLACE_FOREIGN_ASCEND, MAP(DEVICE("0", "[0]") "," DEVICE("1", "[-1]")), COT_ERR_FORMAT, "expert -1");
    refuses(PLACE_FOREIGN_ASCEND, MAP(DEVICE("0", "[0]") "," DEVICE("1", "[2]")), COT_ERR_FORMAT,
            "expert 1 stands on no rank");
    place_plan_t *plan = NULL;
    assert_fails(place_foreign_load(PLACE_FOREIGN_ASCEND, FIXTURES "expert_map.json",
                                    &(place_foreign_shape_t){.ranks = 4}, &plan),
                 COT_ERR_MISMATCH, "8 devices, where there are 4");
#undef MAP
#undef DEVICE
}

static void refuses_phy2log(const char *name, const place_foreign_shape_t *shape, cot_status_t status,
                            const char *words)
{
    char file[300];
    place_plan_t *plan = NULL;
    snprintf(file, sizeof(file), FIXTURES "%s", name);
    assert_fails(place_foreign_load(PLACE_FOREIGN_PHY2LOG, file, shape, &plan), status, words);
}

static void bad_phy2log_is_refused(void **state)
{
    (void)state;
    place_foreign_shape_t shape = EIGHT;
    refuses_phy2log("steps.npy", &shape, COT_ERR_FORMAT, "3 dimensions");
    refuses_phy2log("empty.npy", &shape, COT_ERR_FORMAT, "0 numbers");
    refuses_phy2log("big-endian.npy", &shape, COT_ERR_UNSUPPORTED, "'>i4'");
    refuses_phy2log("negative.npy", &shape, COT_ERR_FORMAT, "row 0 slot 0: expert -1");
    shape.ranks = 3;
    refuses_phy2log("phy2log.npy", &shape, COT_ERR_FORMAT, "16 slots of a layer cannot be shared equally by 3");
    shape = EIGHT;
    shape.experts = 11;
    refuses_phy2log("phy2log.npy", &shape, COT_ERR_MISMATCH, "holds expert 11, where 11 experts");
    shape.experts = 13;
    refuses_phy2log("phy2log.npy", &shape, COT_ERR_FORMAT, "expert 12 stands on no rank");
    shape = (place_foreign_shape_t){.ranks = 8, .layers = 1, .layer_index = LAYERS};
    refuses_phy2log("phy2log.npy", &shape, COT_ERR_MISMATCH, "2 layers, where 1");
}

static void a_model_must_agree(void **state)
{
    (void)state;
    const char *config = "{\"num_experts\": 12, \"num_experts_per_tok\": 2, \"hidden_size\": 8, "
                         "\"intermediate_size\": 8, \"num_hidden_layers\": 5, \"first_k_dense_replace\": 3}";
    place_model_t *model = NULL;
    place_plan_t *plan = NULL;
    assert_ok(place_model_parse(config, strlen(config), &model));
    place_foreign_shape_t shape = {.ranks = 8, .model = model};
    assert_ok(place_foreign_load(PLACE_FOREIGN_ASCEND, FIXTURES "expert_map.json", &shape, &plan));
    assert_memory_equal(plan->layer_index, LAYERS, sizeof(LAYERS));
    assert_string_equal(plan->config_sha256, model->sha256);
    place_plan_destroy(plan);
    plan = NULL;
    model->layer_index[0] = 2;
    assert_fails(place_foreign_load(PLACE_FOREIGN_TRTLLM, FIXTURES "eplb.yaml", &shape, &plan), COT_ERR_MISMATCH,
                 "holds layer 3, where layer 2");
    model->experts = 16;
    assert_fails(place_foreign_load(PLACE_FOREIGN_ASCEND, FIXTURES "expert_map.json", &shape, &plan), COT_ERR_FORMAT,
                 "expert 12 stands on no rank");
    place_model_destroy(model);
}

static cot_status_t load_and_save(place_foreign_t format, const char *path)
{
    place_plan_t *plan = NULL;
    COT_TRY(place_foreign_load(format, path, &EIGHT, &plan));
    cot_status_t status = place_foreign_save(format, out, plan);
    place_plan_destroy(plan);
    return status;
}

static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    static const char *const FILES[] = {FIXTURES "eplb.yaml", FIXTURES "expert_map.json", FIXTURES "phy2log.npy"};
    for (int f = 0; f < 3; f++) assert_survives_allocations(load_and_save((place_foreign_t)f, FILES[f]), );
}

/* ---- the command ---- */

static int run(char *const *words)
{
    int argc = 0;
    while (words[argc] != NULL) argc++;
    cot_settings_t *settings = NULL;
    assert_ok(cot_settings_parse(COT_CMD_CONVERT, argc, (char **)(uintptr_t)words, &settings));
    int code = place_convert_command(settings);
    cot_settings_destroy(settings);
    return code;
}

#define RUN(...) run((char *const[]){__VA_ARGS__, NULL})

static void the_command_goes_both_ways(void **state)
{
    (void)state;
    char yaml[320];
    snprintf(yaml, sizeof(yaml), "%s/out.yaml", folder);
    assert_int_equal(RUN(FIXTURES "phy2log.npy", plan_file, "--ranks", "8", "--layers", "3-4", "--experts", "12"), 0);
    assert_int_equal(RUN(plan_file, yaml), 0);
    assert_same_bytes(yaml, FIXTURES "eplb.yaml");
    assert_int_equal(RUN(plan_file, out, "--format", "phy2log"), 0);
    assert_same_bytes(out, FIXTURES "phy2log.npy");

    assert_int_equal(RUN(plan_file), 2);
    assert_int_equal(RUN(plan_file, plan_file), 2);
    assert_int_equal(RUN(yaml, out), 2);
    assert_int_equal(RUN(plan_file, out), 2); /* no format */
    assert_int_equal(RUN(plan_file, yaml, "--format", "xml"), 2);
    assert_int_equal(RUN(plan_file, yaml, "--ranks", "4"), 4);
    assert_int_equal(RUN(yaml, plan_file), 2); /* no --ranks */
    assert_int_equal(RUN(plan_file, yaml, "--model", COTERIE_SOURCE_DIR "/tests/fixtures/models/olmoe"), 4);
}

int main(void)
{
    cot_json_setup();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_reads_from_every_format),
        cmocka_unit_test(the_example_is_written_as_the_others_write_it),
        cmocka_unit_test(unequal_ranks_survive_a_round_trip),
        cmocka_unit_test(bad_yaml_is_refused_with_its_line),
        cmocka_unit_test(bad_expert_maps_are_refused),
        cmocka_unit_test(bad_phy2log_is_refused),
        cmocka_unit_test(a_model_must_agree),
        cmocka_unit_test(every_failed_allocation_is_survived),
        cmocka_unit_test(the_command_goes_both_ways),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
