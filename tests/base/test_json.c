/* JSON from strangers: what is read, and what is said of what is not. */
#include "base/json.h"
#include "tests/temporary.h"

static json_t *parse(const char *text)
{
    json_t *root = NULL;
    assert_ok(cot_json_load_bytes(text, strlen(text), "t", &root));
    return root;
}

static void expect_refused(const char *text, size_t bytes, const char *words)
{
    json_t *root = NULL;
    assert_fails(cot_json_load_bytes(text, bytes, "given.json", &root), COT_ERR_FORMAT, words);
    assert_non_null(strstr(cot_error_text(), "given.json: line "));
    assert_null(root);
}

static void malformed_text_is_refused_with_its_place(void **state)
{
    (void)state;
    expect_refused("{\"a\": 1,\n \"b\": }", 17, "line 2");
    expect_refused("{\"a\": 1, \"a\": 2}", 16, "duplicate");
    expect_refused("", 0, "line 1");
    expect_refused("{} {}", 5, "end of file expected");
    expect_refused("{\"a\": 1", 7, "near end of file");
    expect_refused("\"\xff\"", 3, "unable to decode byte 0xff");
    expect_refused("[99999999999999999999]", 22, "too big integer");
    expect_refused("[1e999]", 7, "real number overflow");
    expect_refused("{\"a\\u0000b\": 1}", 15, "NUL");
    expect_refused("nul", 3, "invalid token");
}

static void nesting_is_bounded(void **state)
{
    (void)state;
    static char deep[200000];
    memset(deep, '[', sizeof(deep));
    expect_refused(deep, sizeof(deep), "depth");
}

static void values_of_any_kind_are_read(void **state)
{
    (void)state;
    json_t *root = parse("7");
    assert_true(json_is_integer(root));
    json_decref(root);
    root = parse("\"a\\u0000b\"");
    assert_int_equal(json_string_length(root), 3);
    json_decref(root);
}

static void getters_read_what_fits(void **state)
{
    (void)state;
    json_t *root = parse(
        "{\"n\": 12, \"x\": 2.5, \"yes\": true, \"s\": \"text\", \"none\": null, \"big\": 4294967295}");
    uint64_t n = 0;
    uint32_t small = 0;
    double x = 0;
    bool yes = false;
    const char *s = NULL;
    assert_ok(cot_json_get_uint(root, "n", 12, &n));
    assert_ok(cot_json_get_u32(root, "big", &small));
    assert_ok(cot_json_get_double(root, "x", &x));
    assert_ok(cot_json_get_bool(root, "yes", &yes));
    assert_ok(cot_json_get_string(root, "s", &s));
    assert_true(n == 12 && small == UINT32_MAX && x == 2.5 && yes);
    assert_string_equal(s, "text");
    assert_ok(cot_json_get_double(root, "n", &x)); /* an integer is a number */
    assert_true(x == 12);
    json_decref(root);
}

static void absent_and_null_leave_the_default(void **state)
{
    (void)state;
    json_t *root = parse("{\"none\": null}");
    static const char *const keys[] = {"none", "absent"};
    for (int k = 0; k < 2; k++) {
        uint64_t n = 5;
        uint32_t small = 6;
        double x = 7;
        bool yes = true;
        const char *s = "default";
        assert_ok(cot_json_get_uint(root, keys[k], 1, &n));
        assert_ok(cot_json_get_u32(root, keys[k], &small));
        assert_ok(cot_json_get_double(root, keys[k], &x));
        assert_ok(cot_json_get_bool(root, keys[k], &yes));
        assert_ok(cot_json_get_string(root, keys[k], &s));
        assert_true(n == 5 && small == 6 && x == 7 && yes);
        assert_string_equal(s, "default");
    }
    json_decref(root);
}

static void wrong_kinds_and_ranges_are_refused_by_key(void **state)
{
    (void)state;
    json_t *root = parse("{\"s\": \"1\", \"neg\": -1, \"x\": 1.5, \"one\": 1, \"big\": 4294967296}");
    uint64_t n = 5;
    uint32_t small = 6;
    double x = 7;
    bool yes = true;
    const char *s = "default";
    assert_fails(cot_json_get_uint(root, "s", 9, &n), COT_ERR_FORMAT, "\"s\" must be an integer from 0 to 9");
    assert_fails(cot_json_get_uint(root, "neg", 9, &n), COT_ERR_FORMAT, "\"neg\"");
    assert_fails(cot_json_get_uint(root, "x", 9, &n), COT_ERR_FORMAT, "\"x\"");
    assert_fails(cot_json_get_uint(root, "big", 9, &n), COT_ERR_FORMAT, "\"big\"");
    assert_fails(cot_json_get_u32(root, "big", &small), COT_ERR_FORMAT, "4294967295");
    assert_fails(cot_json_get_double(root, "s", &x), COT_ERR_FORMAT, "\"s\" must be a number");
    assert_fails(cot_json_get_bool(root, "one", &yes), COT_ERR_FORMAT, "\"one\" must be true or false");
    assert_fails(cot_json_get_string(root, "one", &s), COT_ERR_FORMAT, "\"one\" must be a string");
    assert_true(n == 5 && small == 6 && x == 7 && yes);
    assert_string_equal(s, "default");
    json_decref(root);
}

static void files_are_read_up_to_a_limit(void **state)
{
    (void)state;
    char folder[256], path[300];
    temporary_make(folder);
    snprintf(path, sizeof(path), "%s/a.json", folder);
    temporary_write(path, "{\"a\": 1}", 8);
    json_t *root = NULL;
    assert_ok(cot_json_load_file(path, 8, &root));
    json_decref(root);
    root = NULL;
    assert_fails(cot_json_load_file(path, 7, &root), COT_ERR_LIMIT, "a.json: is 8 bytes, at most 7");
    temporary_write(path, "{\"a\": x}", 8);
    assert_fails(cot_json_load_file(path, 8, &root), COT_ERR_FORMAT, "a.json: line 1");
    assert_null(root);
    temporary_remove(folder);
}

static void nothing_leaks(void **state)
{
    (void)state;
    size_t live = cot_memory_live_blocks();
    json_t *root = parse("{\"a\": [1, {\"b\": \"text\"}]}");
    assert_true(cot_memory_live_blocks() > live); /* jansson allocates through base */
    json_decref(root);
    expect_refused("{\"a\": [1, {\"b\": \"text\"}", 24, "line 1");
    assert_int_equal(cot_memory_live_blocks(), live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_text_is_refused_with_its_place),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(values_of_any_kind_are_read),
        cmocka_unit_test(getters_read_what_fits),
        cmocka_unit_test(absent_and_null_leave_the_default),
        cmocka_unit_test(wrong_kinds_and_ranges_are_refused_by_key),
        cmocka_unit_test(files_are_read_up_to_a_limit),
        cmocka_unit_test(nothing_leaks),
    };
    cot_json_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
