/* UTF-8, white space and word characters, and normalisation form C. */
#include "tests/temporary.h"

#include "model/tokenizer_unicode.h"

static void test_valid_prefix(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t bytes, valid;
    } cases[] = {
        {"", 0, 0},
        {"a\0b", 3, 3},
        {"0123456789abcdef\x80", 17, 16},
        {"\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", 21, 21},
        {"\xc1\xbf", 2, 0},         /* overlong */
        {"\xe0\x9f\xbf", 3, 0},     /* overlong */
        {"\xf0\x8f\xbf\xbf", 4, 0}, /* overlong */
        {"\xed\xa0\x80", 3, 0},     /* surrogate */
        {"\xf4\x90\x80\x80", 4, 0}, /* beyond U+10FFFF */
        {"\xf5\x80\x80\x80", 4, 0},
        {"a\xe2\x82", 3, 1}, /* cut off */
        {"a\x80", 2, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(model_utf8_valid(cases[i].text, cases[i].bytes), cases[i].valid);
}

/* One U+FFFD stands for the longest beginning of a character, and never for more than that. */
static void test_what_one_replacement_stands_for(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t bytes;
        model_utf8_t found;
        size_t length;
    } cases[] = {
        {"\xe2\x82\xac", 3, MODEL_UTF8_CHARACTER, 3}, {"\xe2\x82", 2, MODEL_UTF8_CUT_OFF, 2},
        {"\xe2\x82z", 3, MODEL_UTF8_INVALID, 2},      {"\xe2z", 2, MODEL_UTF8_INVALID, 1},
        {"\xf0\x9f\x98", 3, MODEL_UTF8_CUT_OFF, 3},   {"\xf0\x80\x80\x80", 4, MODEL_UTF8_INVALID, 1},
        {"\xed\xa0\x80", 3, MODEL_UTF8_INVALID, 1},   {"\xff", 1, MODEL_UTF8_INVALID, 1},
        {"\x80", 1, MODEL_UTF8_INVALID, 1},           {"\xc3", 1, MODEL_UTF8_CUT_OFF, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t length;
        uint32_t code;
        assert_int_equal(model_utf8_next(cases[i].text, cases[i].bytes, &length, &code), cases[i].found);
        assert_int_equal(length, cases[i].length);
    }
}

static void test_classes(void **state)
{
    (void)state;
    uint32_t spaces = 0;
    for (uint32_t code = 0; code < 0x110000; code++) spaces += model_is_space(code);
    assert_int_equal(spaces, 25);
    assert_false(model_is_space(0x180e));
    static const uint32_t words[] = {'a', 'Z', '0', '_', 0xe9, 0x301, 0x4e2d, 0x200d, 0x24d0, 0x660, 0x2160};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) assert_true(model_is_word(words[i]));
    static const uint32_t others[] = {' ', '-', 0xb2, 0x2028, 0x1f600, 0xd7};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) assert_false(model_is_word(others[i]));
}

/* U+180E is white space to PCRE2 alone: its stand-in is another format character of three bytes. */
static void test_stand_in(void **state)
{
    (void)state;
    cot_buffer_t buffer = {0};
    const char *copy;
    static const char plain[] = "caf\xc3\xa9 \xe4\xb8\xad", odd[] = "a\xe1\xa0\x8e";
    assert_ok(model_stand_in(plain, sizeof plain - 1, &buffer, &copy));
    assert_ptr_equal(copy, plain);
    assert_ok(model_stand_in(odd, sizeof odd - 1, &buffer, &copy));
    assert_memory_equal(copy, "a\xe0\xa3\xa2", 4);
    cot_buffer_free(&buffer);
}

static void check_nfc(const char *text, const char *want)
{
    cot_buffer_t out = {0};
    assert_ok(model_nfc(text, strlen(text), &out));
    assert_int_equal(out.size, strlen(want));
    if (out.size > 0) assert_memory_equal(out.data, want, out.size);
    cot_buffer_free(&out);
}

static void test_nfc(void **state)
{
    (void)state;
    check_nfc("", "");
    check_nfc("abc", "abc");
    check_nfc("e\xcc\x81", "\xc3\xa9");                                /* é */
    check_nfc("q\xcc\x87\xcc\xa3", "q\xcc\xa3\xcc\x87");               /* marks change places */
    check_nfc("\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", "\xea\xb0\x81"); /* Hangul */
    check_nfc("\xe2\x84\xab", "\xc3\x85");                             /* Ångström sign */
    check_nfc("\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc");             /* excluded from composition */
    check_nfc("e\xe0\xa2\x98\xcc\x81", "e\xe0\xa2\x98\xcc\x81");       /* U+0898 is inert to the library */
    check_nfc("\xcc\x81"
              "a",
              "\xcc\x81"
              "a"); /* a mark at the start */
}

/* The quick look must never call a text normalised that is not. */
static void test_quick_look(void **state)
{
    (void)state;
    assert_true(model_is_nfc_quick("caf\xc3\xa9", 5));
    assert_false(model_is_nfc_quick("e\xcc\x81", 3));
    char text[8] = "";
    for (uint32_t code = 1; code < 0x300; code++) {
        size_t length = model_utf8_put(code, text);
        cot_buffer_t out = {0};
        assert_ok(model_nfc(text, length, &out));
        assert_int_equal(out.size, length);
        assert_memory_equal(out.data, text, length);
        cot_buffer_free(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_valid_prefix), cmocka_unit_test(test_what_one_replacement_stands_for),
        cmocka_unit_test(test_classes),      cmocka_unit_test(test_stand_in),
        cmocka_unit_test(test_nfc),          cmocka_unit_test(test_quick_look),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
