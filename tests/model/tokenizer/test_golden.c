/* Every family of tokenizer.json against the `tokenizers` library: ids and text of each string, and the text of lists
 * of ids that no string gives. Only checksums of the library's answers are kept; see make_fixtures.py. */
#include "tests/model/tokenizer/fixtures.h"

#include "model/tokenizer_unicode.h"

#include <stdlib.h>

#define ID_LISTS 400

static uint32_t add_to_sum(uint32_t sum, const void *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) sum = (sum ^ ((const uint8_t *)data)[i]) * 0x01000193U;
    return sum;
}

/* Decodes token by token: what comes out at each step is whole characters, and in all the same as at once. */
static void check_stream(const model_tokenizer_t *tokenizer, const cot_buffer_t *ids, bool skip,
                         const cot_buffer_t *want)
{
    model_stream_t stream = {0};
    cot_buffer_t text = {0};
    const int32_t *id = (const int32_t *)(const void *)ids->data;
    for (size_t i = 0; i < ids->size / sizeof *id; i++) {
        size_t before = text.size;
        assert_ok(model_stream_push(tokenizer, &stream, id[i], skip, &text));
        const char *piece = (const char *)text.data + before;
        if (text.size > before) assert_int_equal(model_utf8_valid(piece, text.size - before), text.size - before);
    }
    assert_ok(model_stream_finish(tokenizer, &stream, &text));
    assert_int_equal(text.size, want->size);
    if (want->size > 0) assert_memory_equal(text.data, want->data, want->size);
    model_stream_free(&stream);
    cot_buffer_free(&text);
}

/* Both texts of the ids, special tokens kept and then skipped, into the sum. */
static uint32_t add_texts(uint32_t sum, const model_tokenizer_t *tokenizer, const cot_buffer_t *ids)
{
    for (int skip = 0; skip < 2; skip++) {
        cot_buffer_t text = {0};
        assert_ok(model_tokenizer_decode(tokenizer, (const int32_t *)(const void *)ids->data,
                                         (uint32_t)(ids->size / sizeof(int32_t)), skip != 0, &text));
        check_stream(tokenizer, ids, skip != 0, &text);
        if (skip != 0) sum = add_to_sum(sum, "\xff", 1);
        sum = add_to_sum(sum, text.data, text.size);
        cot_buffer_free(&text);
    }
    return sum;
}

static uint32_t string_sum(const model_tokenizer_t *tokenizer, const json_t *string)
{
    cot_buffer_t ids = {0}, special = {0};
    const char *text = json_string_value(string);
    size_t bytes = json_string_length(string);
    assert_ok(model_tokenizer_encode(tokenizer, text, bytes, false, &ids));
    assert_ok(model_tokenizer_encode(tokenizer, text, bytes, true, &special));
    uint32_t sum = add_to_sum(0x811c9dc5U, ids.data, ids.size);
    sum = add_to_sum(sum, "\xff\xff\xff\xff", 4);
    sum = add_to_sum(sum, special.data, special.size);
    sum = add_to_sum(sum, "\xff\xff\xff\xff", 4);
    sum = add_texts(sum, tokenizer, &ids);
    cot_buffer_free(&ids);
    cot_buffer_free(&special);
    return sum;
}

/* The lists of `id_lists` in make_fixtures.py. */
static void make_ids(uint32_t size, uint32_t index, uint64_t *state, cot_buffer_t *ids)
{
    cot_buffer_clear(ids);
    for (uint32_t i = 0; i < index % 23; i++) {
        *state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
        uint64_t limit = *state >> 63 ? 300 : size + 3ULL;
        int32_t id = (int32_t)((*state >> 33) % limit);
        assert_ok(cot_buffer_append(ids, &id, sizeof id));
    }
}

static void check_family(const char *family, const json_t *strings)
{
    char path[512], *golden, *line;
    size_t bytes;
    snprintf(path, sizeof path, "%s/%s/golden.txt", FIXTURES, family);
    assert_ok(cot_file_read(path, 1U << 24, &golden, &bytes));
    assert_int_equal(bytes, 9 * (json_array_size(strings) + ID_LISTS));
    line = golden;
    model_tokenizer_t *tokenizer = load_family(family);
    size_t index;
    json_t *string;
    json_array_foreach(strings, index, string)
    {
        if (strtoul(line, &line, 16) != string_sum(tokenizer, string))
            fail_msg("%s: line %zu of strings.jsonl has other ids or another text", family, index + 1);
    }
    uint64_t state = 1;
    cot_buffer_t ids = {0};
    for (uint32_t i = 0; i < ID_LISTS; i++) {
        make_ids(model_tokenizer_size(tokenizer), i, &state, &ids);
        if (strtoul(line, &line, 16) != add_texts(0x811c9dc5U, tokenizer, &ids))
            fail_msg("%s: list %u of ids decodes to another text", family, i);
    }
    cot_buffer_free(&ids);
    model_tokenizer_destroy(tokenizer);
    cot_free(golden);
}

static void test_families_agree_with_the_library(void **state)
{
    (void)state;
    json_t *strings = load_strings();
    assert_true(json_array_size(strings) >= 2000);
    for (size_t i = 0; i < FAMILY_COUNT; i++) check_family(families[i], strings);
    json_decref(strings);
    assert_int_equal(cot_memory_live_blocks(), 0);
}

static void check_ids(const model_tokenizer_t *tokenizer, const char *text, bool special, const int32_t *want,
                      size_t count)
{
    cot_buffer_t ids = {0};
    assert_ok(model_tokenizer_encode(tokenizer, text, strlen(text), special, &ids));
    assert_int_equal(ids.size, count * sizeof *want);
    assert_memory_equal(ids.data, want, ids.size);
    cot_buffer_free(&ids);
}

/* By hand: the trained vocabularies begin with <unk> 0, <s> 1, </s> 2 and the byte alphabet from "!" = 3 on. */
static void test_known_ids(void **state)
{
    (void)state;
    model_tokenizer_t *tokenizer = load_family("gpt4o");
    check_ids(tokenizer, "!", false, (const int32_t[]){3}, 1);
    check_ids(tokenizer, "!", true, (const int32_t[]){1, 3, 2}, 3);
    check_ids(tokenizer, "", true, (const int32_t[]){1, 2}, 2);
    check_ids(tokenizer, "<s>!</s>#", false, (const int32_t[]){1, 3, 2, 5}, 4);
    model_tokenizer_destroy(tokenizer);
}

static void test_invalid_utf8_is_refused_with_its_offset(void **state)
{
    (void)state;
    static const char *const texts[] = {"ab\x80",     "ab\xc0\xaf", "ab\xed\xa0\x80", "ab\xf4\x90\x80\x80",
                                        "ab\xe2\x82", "ab\xff",     "ab\xc3",         "ab\xf0\x80\x80\x80"};
    model_tokenizer_t *tokenizer = load_family("gpt2");
    cot_buffer_t ids = {0};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_int_equal(model_tokenizer_encode(tokenizer, texts[i], strlen(texts[i]), false, &ids), COT_ERR_INVALID);
        assert_non_null(strstr(cot_error_text(), "offset 2"));
        assert_int_equal(ids.size, 0);
    }
    cot_buffer_free(&ids);
    model_tokenizer_destroy(tokenizer);
}

int main(void)
{
    cot_json_setup();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families_agree_with_the_library),
        cmocka_unit_test(test_known_ids),
        cmocka_unit_test(test_invalid_utf8_is_refused_with_its_offset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
