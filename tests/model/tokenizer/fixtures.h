/* The fixtures of tests/fixtures/tokenizer (made by tools/tokenizer/make_fixtures.py) for the tests of the tokenizer.
 */
#ifndef TESTS_TOKENIZER_FIXTURES_H
#define TESTS_TOKENIZER_FIXTURES_H

#include "tests/temporary.h"

#include "base/buffer.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "model/tokenizer.h"

#define FIXTURES COTERIE_SOURCE_DIR "/tests/fixtures/tokenizer"

static const char *const families[] = {"gpt2",   "gpt2-space", "neox",           "llama3",       "qwen2",
                                       "qwen35", "deepseek3",  "deepseek-coder", "deepseek-llm", "starcoder",
                                       "gpt4o",  "llama2",     "mixtral",        "metaspace"};
#define FAMILY_COUNT (sizeof families / sizeof *families)

static inline model_tokenizer_t *load_family(const char *family)
{
    char directory[512];
    snprintf(directory, sizeof directory, "%s/%s", FIXTURES, family);
    model_tokenizer_t *tokenizer = NULL;
    assert_ok(model_tokenizer_load(directory, &tokenizer));
    return tokenizer;
}

/* The strings of strings.jsonl, as a JSON list. */
static inline json_t *load_strings(void)
{
    char *text;
    size_t bytes;
    assert_ok(cot_file_read(FIXTURES "/strings.jsonl", 1U << 24, &text, &bytes));
    json_t *list = json_array();
    for (char *line = text, *end; line < text + bytes; line = end + 1) {
        end = memchr(line, '\n', (size_t)(text + bytes - line));
        assert_non_null(end);
        json_t *string;
        assert_ok(cot_json_load_bytes(line, (size_t)(end - line), "strings.jsonl", &string));
        json_array_append_new(list, string);
    }
    cot_free(text);
    return list;
}

#endif
