/* The growing buffer and the JSON strings put into it. */
#include "base/buffer.h"
#include "tests/temporary.h"

static void bytes_are_appended_and_consumed(void **state)
{
    (void)state;
    cot_buffer_t buffer = {0};
    uint8_t wanted[1000];
    for (size_t i = 0; i < sizeof(wanted); i++) {
        wanted[i] = (uint8_t)(i * 7);
        assert_ok(cot_buffer_append(&buffer, &wanted[i], 1));
    }
    assert_int_equal(buffer.size, sizeof(wanted));
    assert_memory_equal(buffer.data, wanted, sizeof(wanted));
    cot_buffer_consume(&buffer, 300);
    assert_int_equal(buffer.size, 700);
    assert_memory_equal(buffer.data, wanted + 300, 700);
    cot_buffer_consume(&buffer, 5000);
    assert_int_equal(buffer.size, 0);
    assert_ok(cot_buffer_append(&buffer, NULL, 0));
    cot_buffer_free(&buffer);
    assert_null(buffer.data);
    cot_buffer_free(&buffer);
}

static void extended_bytes_are_zero(void **state)
{
    (void)state;
    cot_buffer_t buffer = {0};
    assert_ok(cot_buffer_append(&buffer, "ABCDEFGH", 8));
    cot_buffer_clear(&buffer);
    void *space = NULL;
    assert_ok(cot_buffer_extend(&buffer, 8, &space));
    assert_ptr_equal(space, buffer.data);
    assert_memory_equal(buffer.data, "\0\0\0\0\0\0\0\0", 8);
    cot_buffer_free(&buffer);
}

static void printing_appends(void **state)
{
    (void)state;
    cot_buffer_t buffer = {0};
    assert_ok(cot_buffer_printf(&buffer, "%d,", 12));
    for (int i = 0; i < 100; i++) assert_ok(cot_buffer_printf(&buffer, "%s", "0123456789"));
    assert_int_equal(buffer.size, 1003);
    assert_memory_equal(buffer.data, "12,0123", 7);
    assert_memory_equal(buffer.data + 993, "0123456789", 10);
    cot_buffer_free(&buffer);
}

static void expect_json(const char *text, size_t bytes, const char *wanted)
{
    cot_buffer_t buffer = {0};
    assert_ok(cot_buffer_json_string(&buffer, text, bytes));
    assert_int_equal(buffer.size, strlen(wanted));
    assert_memory_equal(buffer.data, wanted, buffer.size);
    cot_buffer_free(&buffer);
}

static void json_strings_are_escaped(void **state)
{
    (void)state;
    expect_json("", 0, "\"\"");
    expect_json("plain", 5, "\"plain\"");
    expect_json("a\"b\\c", 5, "\"a\\\"b\\\\c\"");
    expect_json("\n\r\t", 3, "\"\\n\\r\\t\"");
    expect_json("\0\x01\x1f\x7f", 4, "\"\\u0000\\u0001\\u001f\\u007f\"");
    expect_json("\xc3\xa9/", 3, "\"\xc3\xa9/\"");
    expect_json("end\n", 4, "\"end\\n\"");
}

static void no_memory_leaves_the_buffer_as_it_was(void **state)
{
    (void)state;
    cot_buffer_t buffer = {0};
    assert_ok(cot_buffer_append(&buffer, "abc", 3));
    char many[200] = {0};
    cot_memory_fail_after(0);
    assert_fails(cot_buffer_append(&buffer, many, sizeof(many)), COT_ERR_NO_MEMORY, "203 bytes");
    cot_memory_fail_after(0);
    assert_fails(cot_buffer_extend(&buffer, 200, NULL), COT_ERR_NO_MEMORY, "203 bytes");
    cot_memory_fail_after(0);
    assert_fails(cot_buffer_printf(&buffer, "%200d", 1), COT_ERR_NO_MEMORY, "memory");
    cot_memory_fail_after(-1);
    assert_fails(cot_buffer_append(&buffer, many, SIZE_MAX - 1), COT_ERR_NO_MEMORY, "more bytes than there are");
    assert_fails(cot_buffer_extend(&buffer, SIZE_MAX - 1, NULL), COT_ERR_NO_MEMORY, "more bytes than there are");
    assert_int_equal(buffer.size, 3);
    assert_memory_equal(buffer.data, "abc", 3);
    cot_buffer_free(&buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_appended_and_consumed),
        cmocka_unit_test(extended_bytes_are_zero),
        cmocka_unit_test(printing_appends),
        cmocka_unit_test(json_strings_are_escaped),
        cmocka_unit_test(no_memory_leaves_the_buffer_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
