/* Stop texts in text that comes token by token: cut at the same byte wherever the borders of tokens lie. */
#include "coordinator/server_text.h"
#include "tests/temporary.h"

static model_tokenizer_t *tokenizer;

static int setup(void **state)
{
    (void)state;
    return model_tokenizer_load(COTERIE_SOURCE_DIR "/tests/fixtures/tokenizer/gpt2", &tokenizer) == COT_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    model_tokenizer_destroy(tokenizer);
    return 0;
}

/* What a reader of `text`, byte by byte, has seen when a stop text is first complete, without the stop text. */
static size_t cut(const char *text, const char *const *stops, uint32_t count, bool *stopped_out)
{
    size_t length = strlen(text);
    *stopped_out = false;
    for (size_t end = 1; end <= length; end++) {
        size_t longest = 0;
        for (uint32_t s = 0; s < count; s++) {
            size_t bytes = strlen(stops[s]);
            if (bytes <= end && bytes > longest && memcmp(text + end - bytes, stops[s], bytes) == 0) longest = bytes;
        }
        *stopped_out = longest > 0;
        if (longest > 0) return end - longest;
    }
    return length;
}

/* Feeds the ids; never may more be out than what stands before the stop text. */
static void feed(const int32_t *ids, uint32_t count, const char *text, const char *const *stops, uint32_t stop_count)
{
    coord_text_t reader = {.tokenizer = tokenizer};
    cot_buffer_t out = {0};
    bool stopped = false, wanted_stop = false;
    size_t wanted = cut(text, stops, stop_count, &wanted_stop);
    for (uint32_t s = 0; s < stop_count; s++) assert_ok(coord_text_add_stop(&reader, stops[s], strlen(stops[s])));
    for (uint32_t i = 0; i < count && !stopped; i++) {
        assert_ok(coord_text_push(&reader, ids[i], &out, &stopped));
        assert_true(out.size <= wanted);
    }
    assert_int_equal(stopped, wanted_stop);
    if (!stopped) assert_ok(coord_text_finish(&reader, &out));
    assert_int_equal(out.size, wanted);
    assert_memory_equal(out.data, text, wanted);
    cot_buffer_free(&out);
    coord_text_free(&reader);
}

static void as_few_tokens_as_can_be(void **state)
{
    (void)state;
    static const char *const STOPS[] = {"END", " the end", "\n\n"};
    static const char *const TEXTS[] = {"all is well that ENDs well",
                                        "this is the EN",
                                        "in the end the end",
                                        "a\n\nb",
                                        "\n",
                                        "ENENEND",
                                        "caf\xc3\xa9 END",
                                        "no stop here"};
    for (size_t i = 0; i < sizeof(TEXTS) / sizeof(*TEXTS); i++) {
        cot_buffer_t ids = {0};
        assert_ok(model_tokenizer_encode(tokenizer, TEXTS[i], strlen(TEXTS[i]), false, &ids));
        feed((const int32_t *)(const void *)ids.data, (uint32_t)(ids.size / sizeof(int32_t)), TEXTS[i], STOPS, 3);
        cot_buffer_free(&ids);
    }
}

/* Texts and stop texts over {a, b}: every overlap that there can be. Ids 67 and 68 are "a" and "b". */
static void every_overlap(void **state)
{
    (void)state;
    uint32_t random = 12345;
    for (int round = 0; round < 3000; round++) {
        char text[33] = {0}, stop[3][8] = {{0}};
        int32_t ids[32];
        random = random * 1664525 + 1013904223;
        for (uint32_t i = 0; i < 32; i++) {
            uint32_t bit = (random >> i) & 1U;
            text[i] = (char)('a' + bit);
            ids[i] = 67 + (int32_t)bit;
        }
        const char *stops[3];
        for (uint32_t s = 0; s < 3; s++) {
            random = random * 1664525 + 1013904223;
            for (uint32_t i = 0; i < 3 + (random >> 28) % 5; i++) stop[s][i] = (char)('a' + ((random >> (8 + i)) & 1U));
            stops[s] = stop[s];
        }
        feed(ids, 32, text, stops, 1 + (uint32_t)round % 3);
    }
}

static void characters_stay_whole(void **state)
{
    (void)state;
    coord_text_t reader = {.tokenizer = tokenizer};
    cot_buffer_t out = {0};
    bool stopped;
    /* The two bytes of e acute: C3 is printable number 94 + 12 + (C3 - AE), A9 number 94 + 8. */
    static const int32_t C3 = 3 + 94 + 12 + 0xc3 - 0xae, A9 = 3 + 94 + 0xa9 - 0xa1;
    assert_ok(coord_text_follow(&reader, &C3, 1)); /* the prompt ends in half a character */
    assert_ok(coord_text_push(&reader, A9, &out, &stopped));
    assert_int_equal(out.size, 2);
    assert_memory_equal(out.data, "\xc3\xa9", 2);
    assert_ok(coord_text_push(&reader, C3, &out, &stopped));
    assert_int_equal(out.size, 2);
    assert_ok(coord_text_finish(&reader, &out));
    assert_memory_equal(out.data, "\xc3\xa9\xef\xbf\xbd", 5);
    cot_buffer_free(&out);
    coord_text_free(&reader);
}

static void unfit_stops_are_refused(void **state)
{
    (void)state;
    static char longest[RPC_MAX_STOP_BYTES + 1];
    memset(longest, 'x', sizeof(longest));
    coord_text_t reader = {.tokenizer = tokenizer}, blind = {0};
    assert_fails(coord_text_add_stop(&reader, "", 0), COT_ERR_INVALID, "empty");
    assert_fails(coord_text_add_stop(&reader, "\xff", 1), COT_ERR_INVALID, "UTF-8");
    assert_fails(coord_text_add_stop(&reader, longest, sizeof(longest)), COT_ERR_INVALID, "1024");
    assert_ok(coord_text_add_stop(&reader, longest, sizeof(longest) - 1));
    for (uint32_t i = 1; i < RPC_MAX_STOPS; i++) assert_ok(coord_text_add_stop(&reader, "x", 1));
    assert_fails(coord_text_add_stop(&reader, "x", 1), COT_ERR_INVALID, "more than 16");
    assert_fails(coord_text_add_stop(&blind, "x", 1), COT_ERR_UNSUPPORTED, "tokenizer.json");
    coord_text_free(&reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_few_tokens_as_can_be),
        cmocka_unit_test(every_overlap),
        cmocka_unit_test(characters_stay_whole),
        cmocka_unit_test(unfit_stops_are_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
