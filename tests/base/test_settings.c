/* Flags, variables and help pages, all from one table. */
#include "base/settings.h"
#include "tests/temporary.h"

static cot_settings_t *settings;

static int clear(void **state)
{
    (void)state;
    cot_settings_destroy(settings);
    settings = NULL;
    static const char *const names[] = {"COTERIE_THREADS", "COTERIE_TEMPERATURE", "COTERIE_THREAD",
                                        "COTERIE_TOKEN",   "COTERIE_JSON",        "COTERIE_"};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) unsetenv(names[i]);
    return 0;
}

#define WORDS_MAX 8
/* Parses the words up to the first NULL. */
static cot_status_t parse(uint32_t command, const char *const words[WORDS_MAX])
{
    char *argv[WORDS_MAX];
    int argc = 0;
    while (argc < WORDS_MAX && words[argc] != NULL) {
        argv[argc] = (char *)(uintptr_t)words[argc];
        argc++;
    }
    cot_settings_destroy(settings);
    settings = NULL;
    return cot_settings_parse(command, argc, argv, &settings);
}
#define PARSE(command, ...) parse(command, (const char *const[WORDS_MAX]){__VA_ARGS__})
#define REFUSED(command, words, ...) assert_fails(PARSE(command, __VA_ARGS__), COT_ERR_INVALID, words)

static void defaults_are_the_tables(void **state)
{
    (void)state;
    assert_ok(PARSE(COT_CMD_SERVE, NULL));
    assert_string_equal(cot_settings_string(settings, COT_SET_LOG_LEVEL), "info");
    assert_int_equal(cot_settings_int(settings, COT_SET_STEP_TIMEOUT), 60000);
    assert_int_equal(cot_settings_bytes(settings, COT_SET_KV_MEMORY), 256 << 20);
    assert_false(cot_settings_switch(settings, COT_SET_JSON));
    assert_string_equal(cot_settings_string(settings, COT_SET_PLAN), "");
    assert_false(cot_settings_given(settings, COT_SET_LOG_LEVEL));
    assert_int_equal(cot_settings_arguments(settings), 0);
}

static void flags_take_both_forms(void **state)
{
    (void)state;
    assert_ok(PARSE(COT_CMD_GENERATE, "--top-k", "5", "--temperature=0.25", "hello", "--json", "-", "--stop="));
    assert_int_equal(cot_settings_int(settings, COT_SET_TOP_K), 5);
    assert_true(cot_settings_number(settings, COT_SET_TEMPERATURE) == 0.25);
    assert_true(cot_settings_switch(settings, COT_SET_JSON));
    assert_true(cot_settings_given(settings, COT_SET_STOP));
    assert_string_equal(cot_settings_string(settings, COT_SET_STOP), "");
    assert_int_equal(cot_settings_arguments(settings), 2);
    assert_string_equal(cot_settings_argument(settings, 0), "hello");
    assert_string_equal(cot_settings_argument(settings, 1), "-");
    assert_ok(PARSE(COT_CMD_GENERATE, "--json=false", "--top-k", "1", "--top-k", "2"));
    assert_false(cot_settings_switch(settings, COT_SET_JSON));
    assert_int_equal(cot_settings_int(settings, COT_SET_TOP_K), 2); /* the last one counts */
}

static void two_dashes_end_the_flags(void **state)
{
    (void)state;
    assert_ok(PARSE(COT_CMD_GENERATE, "--", "--json", "-x", "--"));
    assert_int_equal(cot_settings_arguments(settings), 3);
    assert_string_equal(cot_settings_argument(settings, 0), "--json");
    assert_false(cot_settings_switch(settings, COT_SET_JSON));
}

static void lists_take_words_up_to_the_next_flag(void **state)
{
    (void)state;
    assert_ok(PARSE(COT_CMD_PLAN_EVALUATE, "p.json", "--trace", "a", "b", "--fitted=c", "--trace", "d"));
    assert_int_equal(cot_settings_arguments(settings), 1);
    static const char *const WANTED[] = {"a", "b", "d"};
    for (uint32_t i = 0; i < 3; i++) assert_string_equal(cot_settings_list(settings, COT_SET_TRACE, i), WANTED[i]);
    assert_null(cot_settings_list(settings, COT_SET_TRACE, 3));
    assert_string_equal(cot_settings_list(settings, COT_SET_FITTED, 0), "c");
    assert_null(cot_settings_list(settings, COT_SET_FITTED, 1));
    REFUSED(COT_CMD_PLAN_EVALUATE, "--trace needs a value", "--trace", "--json");
    REFUSED(COT_CMD_PLAN_EVALUATE, "--trace needs a value", "--trace");
    REFUSED(COT_CMD_PLAN_EVALUATE, "an empty name", "--trace", "a", "");
    assert_ok(PARSE(COT_CMD_PLAN_EVALUATE, NULL));
    assert_null(cot_settings_list(settings, COT_SET_TRACE, 0));
    /* Elsewhere such a flag has one value, and the words after it are arguments. */
    assert_ok(PARSE(COT_CMD_SERVE, "--trace", "a", "model"));
    assert_string_equal(cot_settings_string(settings, COT_SET_TRACE), "a");
    assert_int_equal(cot_settings_arguments(settings), 1);
}

static void wrong_flags_are_refused_with_the_nearest(void **state)
{
    (void)state;
    REFUSED(COT_CMD_GENERATE, "there is no flag --temprature; did you mean --temperature?", "--temprature=1");
    REFUSED(COT_CMD_GENERATE, "--max-tokens?", "--max_tokens", "5");
    REFUSED(COT_CMD_GENERATE, "--threads is a flag of `coterie serve`, not of this command", "--threads", "5");
    REFUSED(COT_CMD_SERVE, "--connect is a flag of `coterie generate`", "--connect", "x");
    REFUSED(COT_CMD_SERVE, "--token is no flag; use its variable", "--token", "secret");
    REFUSED(COT_CMD_GENERATE, "there is no flag -n: flags begin with --", "-n");
    REFUSED(COT_CMD_GENERATE, "--top-k needs a value: sample among", "--top-k");
    char longer[5000];
    memset(longer, '-', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    REFUSED(COT_CMD_GENERATE, "there is no flag ----", longer);
    assert_null(settings);
}

static void values_are_checked_by_kind(void **state)
{
    (void)state;
    static const char *const integers[] = {"x", "", "-1", "1.5", "0x10", "1 ", "99999999999999999999", "nan"};
    for (size_t i = 0; i < sizeof(integers) / sizeof(*integers); i++)
        REFUSED(COT_CMD_GENERATE, "give a whole number, 0 or more", "--top-k", integers[i]);
    static const char *const numbers[] = {"x", "", "nan", "inf", "1e999", "1.5.2"};
    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
        REFUSED(COT_CMD_GENERATE, "give a number", "--temperature", numbers[i]);
    static const char *const sizes[] = {"x", "", "-1", "1Q", "1 MiB", "nan", "inf", "9999999T", "MiB"};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
        REFUSED(COT_CMD_SERVE, "give bytes, such as 512M or 4GiB", "--kv-memory", sizes[i]);
    REFUSED(COT_CMD_GENERATE, "give true or false", "--json=maybe");
    assert_ok(PARSE(COT_CMD_GENERATE, "--temperature", "-1e-3"));
    assert_true(cot_settings_number(settings, COT_SET_TEMPERATURE) == -1e-3);
    assert_ok(PARSE(COT_CMD_GENERATE, "--top-k", "9223372036854775807"));
    assert_true(cot_settings_int(settings, COT_SET_TOP_K) == INT64_MAX);
}

static void sizes_have_units(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } cases[] = {{"0", 0},           {"1000", 1000},         {"1K", 1024},
                 {"1.5KiB", 1536},   {"512M", 512ULL << 20}, {"4GiB", 4ULL << 30},
                 {"2T", 2ULL << 40}, {"0.5G", 512ULL << 20}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        assert_ok(PARSE(COT_CMD_SERVE, "--kv-memory", cases[i].text));
        assert_true(cot_settings_bytes(settings, COT_SET_KV_MEMORY) == cases[i].bytes);
    }
}

static void variables_stand_behind_flags(void **state)
{
    (void)state;
    setenv("COTERIE_THREADS", "3", 1);
    setenv("COTERIE_TOKEN", "secret", 1);
    assert_ok(PARSE(COT_CMD_SERVE, NULL));
    assert_int_equal(cot_settings_int(settings, COT_SET_THREADS), 3);
    assert_true(cot_settings_given(settings, COT_SET_THREADS));
    assert_string_equal(cot_settings_string(settings, COT_SET_TOKEN), "secret");
    assert_ok(PARSE(COT_CMD_SERVE, "--threads", "4"));
    assert_int_equal(cot_settings_int(settings, COT_SET_THREADS), 4);
    setenv("COTERIE_TEMPERATURE", "not looked at", 1); /* another command's */
    assert_ok(PARSE(COT_CMD_SERVE, NULL));
    REFUSED(COT_CMD_GENERATE, "COTERIE_TEMPERATURE \"not looked at\": give a number", NULL);
}

static void unknown_variables_are_refused(void **state)
{
    (void)state;
    setenv("COTERIE_THREAD", "3", 1);
    REFUSED(COT_CMD_SERVE, "no setting behind the variable COTERIE_THREAD; did you mean COTERIE_THREADS?", NULL);
    unsetenv("COTERIE_THREAD");
    setenv("COTERIE_", "3", 1);
    REFUSED(COT_CMD_SERVE, "no setting behind the variable COTERIE_;", NULL);
    unsetenv("COTERIE_");
    char name[300] = "COTERIE_";
    memset(name + 8, 'X', sizeof(name) - 9);
    name[sizeof(name) - 1] = '\0';
    setenv(name, "1", 1);
    REFUSED(COT_CMD_SERVE, "no setting behind the variable COTERIE_XXX", NULL);
    unsetenv(name);
    assert_ok(PARSE(COT_CMD_SERVE, NULL));
}

static void too_many_arguments_are_refused(void **state)
{
    (void)state;
    char *argv[COT_ARGUMENTS_MAX + 1];
    for (int i = 0; i <= COT_ARGUMENTS_MAX; i++) argv[i] = (char *)(uintptr_t) "x";
    assert_ok(cot_settings_parse(COT_CMD_GENERATE, COT_ARGUMENTS_MAX, argv, &settings));
    cot_settings_destroy(settings);
    settings = NULL;
    assert_fails(cot_settings_parse(COT_CMD_GENERATE, COT_ARGUMENTS_MAX + 1, argv, &settings), COT_ERR_INVALID,
                 "more than 256 arguments");
}

static void rank_0_sends_all_but_its_token(void **state)
{
    (void)state;
    setenv("COTERIE_TOKEN", "secret", 1);
    assert_ok(PARSE(COT_CMD_SERVE, "--threads", "2", "model", "--plan", "a=b", "=odd"));
    cot_buffer_t packed = {0};
    assert_ok(cot_settings_pack(settings, &packed));
    assert_null(memmem(packed.data, packed.size, "secret", 6));
    cot_settings_t *copy = NULL;
    assert_ok(cot_settings_unpack(packed.data, packed.size, &copy));
    assert_int_equal(cot_settings_int(copy, COT_SET_THREADS), 2);
    assert_string_equal(cot_settings_string(copy, COT_SET_PLAN), "a=b");
    assert_int_equal(cot_settings_arguments(copy), 2);
    assert_string_equal(cot_settings_argument(copy, 0), "model");
    assert_string_equal(cot_settings_argument(copy, 1), "=odd");
    assert_false(cot_settings_given(copy, COT_SET_SEED));
    cot_settings_destroy(copy);
    cot_buffer_free(&packed);
}

static void settings_of_a_stranger_are_refused(void **state)
{
    (void)state;
    cot_settings_t *copy = NULL;
    assert_fails(cot_settings_unpack("threads=1", 9, &copy), COT_ERR_PROTOCOL, "mid-word");
    assert_fails(cot_settings_unpack("threads", 8, &copy), COT_ERR_PROTOCOL, "without a value");
    assert_fails(cot_settings_unpack("new-flag=1", 11, &copy), COT_ERR_PROTOCOL, "must run one version");
    assert_fails(cot_settings_unpack("threads=x", 10, &copy), COT_ERR_INVALID, "whole number");
    assert_null(copy);
    assert_ok(cot_settings_unpack("", 0, &copy));
    cot_settings_destroy(copy);
}

static void help_lists_a_commands_flags(void **state)
{
    (void)state;
    cot_buffer_t page = {0};
    uint32_t hidden = 0;
    assert_ok(cot_settings_help(COT_CMD_GENERATE, false, &page, &hidden));
    assert_ok(cot_buffer_append(&page, "", 1));
    const char *text = (const char *)page.data;
    assert_non_null(strstr(text, "--temperature X"));
    assert_non_null(strstr(text, "--max-tokens N          most tokens to generate [256 tokens]\n"));
    assert_null(strstr(text, "--log-level"));
    assert_int_equal(hidden, 1);
    assert_non_null(strstr(text, "--json "));
    assert_null(strstr(text, "--threads"));
    assert_null(strstr(text, "--token "));
    cot_buffer_clear(&page);
    assert_ok(cot_settings_help(COT_CMD_GENERATE, true, &page, &hidden));
    assert_ok(cot_buffer_append(&page, "", 1));
    assert_non_null(strstr((const char *)page.data, "--log-level"));
    assert_int_equal(hidden, 0);
    cot_buffer_free(&page);
}

static void no_memory_leaves_nothing(void **state)
{
    (void)state;
    setenv("COTERIE_THREADS", "3", 1);
    size_t live = cot_memory_live_blocks();
    int n = 0;
    cot_status_t status;
    do {
        cot_memory_fail_after(n++);
        status = PARSE(COT_CMD_SERVE, "--seed", "1", "model");
        cot_memory_fail_after(-1);
        assert_true(status == COT_OK || status == COT_ERR_NO_MEMORY);
        assert_true(status == COT_OK || (settings == NULL && cot_memory_live_blocks() == live));
    } while (status != COT_OK && n < 100);
    assert_int_equal(n, 6); /* the settings, the list of arguments, three values: then it goes well */
    cot_settings_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(defaults_are_the_tables, clear),
        cmocka_unit_test_teardown(flags_take_both_forms, clear),
        cmocka_unit_test_teardown(two_dashes_end_the_flags, clear),
        cmocka_unit_test_teardown(lists_take_words_up_to_the_next_flag, clear),
        cmocka_unit_test_teardown(wrong_flags_are_refused_with_the_nearest, clear),
        cmocka_unit_test_teardown(values_are_checked_by_kind, clear),
        cmocka_unit_test_teardown(sizes_have_units, clear),
        cmocka_unit_test_teardown(variables_stand_behind_flags, clear),
        cmocka_unit_test_teardown(unknown_variables_are_refused, clear),
        cmocka_unit_test_teardown(too_many_arguments_are_refused, clear),
        cmocka_unit_test_teardown(rank_0_sends_all_but_its_token, clear),
        cmocka_unit_test_teardown(settings_of_a_stranger_are_refused, clear),
        cmocka_unit_test_teardown(help_lists_a_commands_flags, clear),
        cmocka_unit_test_teardown(no_memory_leaves_nothing, clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
