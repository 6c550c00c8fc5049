/* No input makes tokenizing quadratic: half a megabyte of what each part finds hardest takes about eight times as long
 * as an eighth of it. */
#include <time.h>

#include "tests/model/tokenizer/fixtures.h"

static size_t text_bytes;

typedef struct {
    const char *name, *unit, *end;
} hard_text_t;

/* `end` breaks the run off, so that what looks for the run's end has looked in vain. */
static const hard_text_t hard_texts[] = {
    {"letters", "a", ""},
    {"spaces", " ", ""},
    {"spaces before a letter", " ", "x"},
    {"line ends and spaces", " \n", "x"},
    {"tabs before a letter", "\t", "x"},
    {"digits", "7", ""},
    {"signs", "=", "\n"},
    {"quotes", "'", "s"},
    {"emoji", "\xf0\x9f\x98\x80", ""},
    {"descending marks", "\xcc\x95\xcc\x80\xcc\xa7\xcc\xb4", "a"}, /* classes 232, 230, 202, 1 */
    {"marks that compose", "e\xcc\x81\xcc\xa7", ""},
    {"han", "\xe4\xb8\xad", "x"},
    {"thai letters and marks", "\xe0\xb8\x81\xe0\xb8\xb8", ""},
    {"beginnings of a special token", "<|im_sta", ""},
    {"special tokens", "<s> ", ""},
    {"U+0000", "\x01", ""}, /* replaced below */
    {"capitals", "A", "'"},
    {"marks of sentencepiece", "\xe2\x96\x81", "a"},
    {"unassigned", "\xf3\xa0\x80\x80", "a"},
};

/* Processor time of this thread: another program on the machine does not count. */
static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Seconds to encode and decode `bytes` of a text. */
static double time_of(const model_tokenizer_t *tokenizer, const hard_text_t *hard, size_t bytes)
{
    cot_buffer_t text = {0}, ids = {0}, back = {0};
    while (text.size < bytes) assert_ok(cot_buffer_append(&text, hard->unit, strlen(hard->unit)));
    assert_ok(cot_buffer_append(&text, hard->end, strlen(hard->end)));
    if (hard->unit[0] == '\x01') memset(text.data, 0, text.size);
    double start = cpu_seconds();
    assert_ok(model_tokenizer_encode(tokenizer, (const char *)text.data, text.size, false, &ids));
    assert_ok(model_tokenizer_decode(tokenizer, (const int32_t *)(const void *)ids.data,
                                     (uint32_t)(ids.size / sizeof(int32_t)), false, &back));
    double seconds = cpu_seconds() - start;
    cot_buffer_free(&text);
    cot_buffer_free(&ids);
    cot_buffer_free(&back);
    return seconds;
}

/* Eight times the text takes 8 to 10 times as long if the time is linear or n log n, and 64 times if it is quadratic.
 * 24 is between; what takes under 100 ms is noise, far below what squares would take. A busy machine (its caches are
 * shared) gets three tries.
 */
static void check_growth(const model_tokenizer_t *tokenizer, const char *family, const hard_text_t *hard)
{
    double small = 0, large = 0;
    for (int attempt = 0; attempt < 3; attempt++) {
        small = time_of(tokenizer, hard, text_bytes / 8);
        large = time_of(tokenizer, hard, text_bytes);
        if (large < 0.1 || large < 24 * small) return;
    }
    fail_msg("%s: %s: %zu bytes take %.3f s, an eighth of them %.3f s", family, hard->name, text_bytes, large, small);
}

static void test_time_grows_with_the_text(void **state)
{
    (void)state;
    for (size_t i = 0; i < FAMILY_COUNT; i++) {
        model_tokenizer_t *tokenizer = load_family(families[i]);
        for (size_t j = 0; j < sizeof hard_texts / sizeof *hard_texts; j++)
            check_growth(tokenizer, families[i], &hard_texts[j]);
        model_tokenizer_destroy(tokenizer);
    }
}

int main(void)
{
    cot_json_setup();
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    text_bytes = (size_t)1 << 17; /* sanitizers slow each byte down, growth shows all the same */
#else
    text_bytes = (size_t)1 << 19;
#endif
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_time_grows_with_the_text)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
