/* What a tokenizer.json may not hold: each fault is one sentence that names it. */
#include "tests/model/tokenizer/fixtures.h"

/* A whole small file; the tests change one part of it. */
static const char *const base_parts[][2] = {
    {"version", "\"1.0\""},
    {"truncation", "null"},
    {"padding", "null"},
    {"added_tokens", "[{\"id\":0,\"content\":\"<s>\",\"special\":true,\"normalized\":false},"
                     "{\"id\":6,\"content\":\"<t>\",\"special\":false,\"normalized\":true}]"},
    {"normalizer", "{\"type\":\"NFC\"}"},
    {"pre_tokenizer", "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true}"},
    {"post_processor", "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},"
                       "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[],"
                       "\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[0],\"tokens\":[\"<s>\"]}}}"},
    {"decoder", "{\"type\":\"ByteLevel\"}"},
};
static const char *const base_model[][2] = {
    {"type", "\"BPE\""},
    {"dropout", "null"},
    {"unk_token", "null"},
    {"vocab", "{\"<s>\":0,\"a\":1,\"b\":2,\"ab\":3,\"\\u0120\":4,\"\\u0120ab\":5}"},
    {"merges", "[\"a b\",[\"\\u0120\",\"ab\"]]"},
};

static char directory[256], path[300];

/* Appends "key": value, or what takes its place; a changed value of NULL leaves the key out. */
static void add_part(cot_buffer_t *out, const char *const part[2], const char *key, const char *value)
{
    bool changed = strcmp(part[0], key) == 0;
    if (changed && value == NULL) return;
    assert_ok(cot_buffer_printf(out, "\"%s\":%s,", part[0], changed ? value : part[1]));
}

static bool is_base_key(const char *key)
{
    for (size_t i = 0; i < sizeof base_parts / sizeof *base_parts; i++)
        if (strcmp(base_parts[i][0], key) == 0) return true;
    for (size_t i = 0; i < sizeof base_model / sizeof *base_model; i++)
        if (strcmp(base_model[i][0], key) == 0) return true;
    return false;
}

/* Writes the file with `key` changed (or added: to the model, unless it begins with "/"); "" changes nothing. */
static void write_file(const char *key, const char *value)
{
    cot_buffer_t out = {0};
    assert_ok(cot_buffer_printf(&out, "{"));
    for (size_t i = 0; i < sizeof base_parts / sizeof *base_parts; i++) add_part(&out, base_parts[i], key, value);
    if (key[0] == '/') assert_ok(cot_buffer_printf(&out, "\"%s\":%s,", key + 1, value));
    assert_ok(cot_buffer_printf(&out, "\"model\":{"));
    for (size_t i = 0; i < sizeof base_model / sizeof *base_model; i++) add_part(&out, base_model[i], key, value);
    if (key[0] != '/' && key[0] != '\0' && !is_base_key(key))
        assert_ok(cot_buffer_printf(&out, "\"%s\":%s,", key, value));
    assert_ok(cot_buffer_printf(&out, "\"fuse_unk\":false}}"));
    temporary_write(path, out.data, out.size);
    cot_buffer_free(&out);
}

typedef struct {
    const char *key, *value;
    cot_status_t status;
    const char *words;
} fault_t;

#define SPLIT(pattern) \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" pattern "\"},\"behavior\":\"Isolated\",\"invert\":false}"
#define ADDED(fields) "[{\"id\":6,\"content\":\"<t>\"" fields "}]"

static const fault_t faults[] = {
    {"merges", NULL, COT_ERR_FORMAT, "no merges"},
    {"merges", "[]", COT_ERR_FORMAT, "no merges"},
    {"merges", "[\"a b\",\"a c\"]", COT_ERR_FORMAT, "merge 1 needs the token \"c\""},
    {"merges", "[\"b a\"]", COT_ERR_FORMAT, "merge 0 needs the token \"ba\""},
    {"merges", "[\"a\"]", COT_ERR_FORMAT, "merge 0 is not two tokens"},
    {"merges", "[\"a b c\"]", COT_ERR_FORMAT, "merge 0 is not two tokens"},
    {"merges", "[[\"a\",\"b\",\"c\"]]", COT_ERR_FORMAT, "merge 0 is not two tokens"},
    {"merges", "[7]", COT_ERR_FORMAT, "merge 0 is not two tokens"},
    {"vocab", NULL, COT_ERR_FORMAT, "no vocabulary"},
    {"vocab", "{}", COT_ERR_FORMAT, "no vocabulary"},
    {"vocab", "{\"<s>\":0,\"a\":1,\"b\":1,\"ab\":3}", COT_ERR_FORMAT, "gives id 1 to \"b\" and to another"},
    {"vocab", "{\"a\":-1}", COT_ERR_FORMAT, "token \"a\" has no id"},
    {"vocab", "{\"a\":\"1\"}", COT_ERR_FORMAT, "token \"a\" has no id"},
    {"vocab", "{\"a\":99999999999}", COT_ERR_FORMAT, "token \"a\" has no id"},
    {"vocab", "{\"a\":1,\"a\":2}", COT_ERR_FORMAT, "duplicate"},
    {"type", "\"Unigram\"", COT_ERR_UNSUPPORTED, "model type Unigram"},
    {"dropout", "0.1", COT_ERR_UNSUPPORTED, "dropout 0.1"},
    {"unk_token", "\"<unk>\"", COT_ERR_FORMAT, "unk_token \"<unk>\" is not in the vocabulary"},
    {"continuing_subword_prefix", "\"##\"", COT_ERR_UNSUPPORTED, "continuing_subword_prefix \"##\""},
    {"end_of_word_suffix", "\"</w>\"", COT_ERR_UNSUPPORTED, "end_of_word_suffix \"</w>\""},
    {"byte_fallback", "true", COT_ERR_UNSUPPORTED, "byte_fallback"},
    {"ignore_merges", "7", COT_ERR_FORMAT, "ignore_merges"},
    {"surprise", "1", COT_ERR_UNSUPPORTED, "\"surprise\""},
    {"/surprise", "1", COT_ERR_UNSUPPORTED, "\"surprise\""},
    {"version", "\"2.0\"", COT_ERR_UNSUPPORTED, "version \"2.0\""},
    {"truncation", "{\"max_length\":512}", COT_ERR_UNSUPPORTED, "\"truncation\""},
    {"padding", "{}", COT_ERR_UNSUPPORTED, "\"padding\""},
    {"added_tokens", "7", COT_ERR_FORMAT, "\"added_tokens\" must be a list"},
    {"added_tokens", "[{\"id\":6}]", COT_ERR_FORMAT, "no \"content\""},
    {"added_tokens", "[{\"content\":\"x\"}]", COT_ERR_FORMAT, "\"x\" has no \"id\""},
    {"added_tokens", "[{\"id\":6,\"content\":\"\"}]", COT_ERR_LIMIT, "0 bytes"},
    {"added_tokens", "[{\"id\":7,\"content\":\"<t>\"}]", COT_ERR_FORMAT, "has id 7 where 6 is due"},
    {"added_tokens", "[{\"id\":5,\"content\":\"<t>\"}]", COT_ERR_FORMAT, "has id 5 where 6 is due"},
    {"added_tokens", "[{\"id\":7,\"content\":\"<u>\"},{\"id\":6,\"content\":\"<t>\"}]", COT_ERR_FORMAT,
     "where 6 is due"},
    {"added_tokens", "[{\"id\":6,\"content\":\"<t>\"},{\"id\":6,\"content\":\"<t>\"}]", COT_ERR_FORMAT, "stands twice"},
    {"added_tokens", ADDED(",\"lstrip\":1"), COT_ERR_FORMAT, "\"<t>\": \"lstrip\""},
    {"normalizer", "{\"type\":\"NFKC\"}", COT_ERR_UNSUPPORTED, "normalizer NFKC"},
    {"normalizer", "{}", COT_ERR_FORMAT, "no \"type\""},
    {"normalizer", "7", COT_ERR_FORMAT, "no \"type\""},
    {"normalizer", "{\"type\":\"Sequence\"}", COT_ERR_FORMAT, "without \"normalizers\""},
    {"normalizer", "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Lowercase\"}]}", COT_ERR_UNSUPPORTED,
     "Lowercase"},
    {"normalizer", "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a\"},\"content\":\"\"}", COT_ERR_UNSUPPORTED,
     "Regex"},
    {"normalizer", "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"\"}", COT_ERR_FORMAT, "pattern"},
    {"normalizer", "{\"type\":\"NFC\",\"form\":1}", COT_ERR_UNSUPPORTED, "\"form\""},
    {"pre_tokenizer", "{\"type\":\"Whitespace\"}", COT_ERR_UNSUPPORTED, "pre-tokenizer Whitespace"},
    {"pre_tokenizer", SPLIT("("), COT_ERR_FORMAT, "missing closing parenthesis"},
    {"pre_tokenizer", SPLIT("a*"), COT_ERR_UNSUPPORTED, "may match nothing"},
    {"pre_tokenizer", SPLIT("\\\\w+"), COT_ERR_UNSUPPORTED, "\\w+"},
    {"pre_tokenizer", SPLIT("\\\\p{Han}"), COT_ERR_UNSUPPORTED, "\\p{Han}"},
    {"pre_tokenizer", SPLIT("[a[b]]"), COT_ERR_UNSUPPORTED, "[a[b]]"},
    {"pre_tokenizer", SPLIT("[a&&b]"), COT_ERR_UNSUPPORTED, "[a&&b]"},
    {"pre_tokenizer", SPLIT("a{1,2}+"), COT_ERR_UNSUPPORTED, "{1,2}+"},
    {"pre_tokenizer", SPLIT("a{,2}"), COT_ERR_UNSUPPORTED, "{,2}"},
    {"pre_tokenizer", SPLIT("(?x)a"), COT_ERR_UNSUPPORTED, "(?x)"},
    {"pre_tokenizer", SPLIT("(*UCP)a"), COT_ERR_UNSUPPORTED, "(*UCP)"},
    {"pre_tokenizer", SPLIT("a\\\\"), COT_ERR_UNSUPPORTED, "from"},
    {"pre_tokenizer", SPLIT("[a"), COT_ERR_UNSUPPORTED, "[a"},
    {"pre_tokenizer", "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Odd\"}", COT_ERR_UNSUPPORTED,
     "Odd"},
    {"pre_tokenizer", "{\"type\":\"Split\",\"behavior\":\"Isolated\"}", COT_ERR_FORMAT, "pattern"},
    {"pre_tokenizer", "{\"type\":\"ByteLevel\",\"odd\":1}", COT_ERR_UNSUPPORTED, "\"odd\""},
    {"pre_tokenizer", "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":\"Digits\"}]}",
     COT_ERR_UNSUPPORTED, "Digits behind ByteLevel"},
    {"pre_tokenizer", "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"odd\"}", COT_ERR_UNSUPPORTED,
     "\"odd\""},
    {"pre_tokenizer", "{\"type\":\"Metaspace\"}", COT_ERR_FORMAT, "replacement"},
    {"post_processor", "{\"type\":\"BertProcessing\"}", COT_ERR_UNSUPPORTED, "BertProcessing"},
    {"post_processor", "{\"type\":\"TemplateProcessing\",\"single\":[],\"pair\":[],\"special_tokens\":{}}",
     COT_ERR_FORMAT, "Sequence A once"},
    {"post_processor",
     "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<e>\",\"type_id\":0}}]}", COT_ERR_FORMAT,
     "does not define \"<e>\""},
    {"post_processor",
     "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<e>\",\"type_id\":0}}],"
     "\"special_tokens\":{\"<e>\":{\"ids\":[77]}}}",
     COT_ERR_FORMAT, "an id that no token has"},
    {"decoder", "null", COT_ERR_UNSUPPORTED, "without a \"decoder\""},
    {"decoder", "{\"type\":\"WordPiece\"}", COT_ERR_UNSUPPORTED, "decoder WordPiece"},
    {"decoder", "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}", COT_ERR_UNSUPPORTED, "Strip"},
    {"decoder", "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"ByteFallback\"}]}",
     COT_ERR_UNSUPPORTED, "ByteFallback behind Fuse"},
};

static void test_each_fault_has_its_sentence(void **state)
{
    (void)state;
    model_tokenizer_t *tokenizer = NULL;
    write_file("", "");
    assert_ok(model_tokenizer_load(directory, &tokenizer));
    model_tokenizer_destroy(tokenizer);
    tokenizer = NULL;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        write_file(faults[i].key, faults[i].value);
        assert_fails(model_tokenizer_load(directory, &tokenizer), faults[i].status, faults[i].words);
        assert_non_null(strstr(cot_error_text(), path));
        assert_null(tokenizer);
        assert_int_equal(cot_memory_live_blocks(), 0);
    }
}

static void test_files_that_are_none(void **state)
{
    (void)state;
    model_tokenizer_t *tokenizer = NULL;
    assert_fails(model_tokenizer_load("/nonexistent", &tokenizer), COT_ERR_NOT_FOUND, "/nonexistent/tokenizer.json");
    temporary_write(path, "", 0);
    assert_fails(model_tokenizer_load(directory, &tokenizer), COT_ERR_FORMAT, path);
    temporary_write(path, "[]", 2);
    assert_fails(model_tokenizer_load(directory, &tokenizer), COT_ERR_FORMAT, "the file must be an object");
    temporary_write(path, "{}", 2);
    assert_fails(model_tokenizer_load(directory, &tokenizer), COT_ERR_FORMAT, "no \"model\"");
}

/* Loads, encodes and decodes; false if an allocation failed on the way. */
static bool use_once(void)
{
    model_tokenizer_t *tokenizer = NULL;
    cot_buffer_t ids = {0}, text = {0};
    static const char input[] = "ab ab<t>e\xcc\x81 abababababababababababababababab";
    cot_status_t status = model_tokenizer_load(directory, &tokenizer);
    if (status == COT_OK) status = model_tokenizer_encode(tokenizer, input, sizeof input - 1, true, &ids);
    if (status == COT_OK)
        status = model_tokenizer_decode(tokenizer, (const int32_t *)(const void *)ids.data,
                                        (uint32_t)(ids.size / sizeof(int32_t)), false, &text);
    cot_buffer_free(&ids);
    cot_buffer_free(&text);
    model_tokenizer_destroy(tokenizer);
    return status == COT_OK;
}

static void test_every_failed_allocation_is_survived(void **state)
{
    (void)state;
    write_file("", "");
    bool done = false;
    for (int64_t allowed = 0; !done; allowed++) {
        cot_memory_fail_after(allowed);
        done = use_once();
        cot_memory_fail_after(-1);
        assert_int_equal(cot_memory_live_blocks(), 0);
        assert_true(allowed < 10000);
    }
}

static int make_directory(void **state)
{
    (void)state;
    temporary_make(directory);
    snprintf(path, sizeof path, "%s/tokenizer.json", directory);
    return 0;
}

static int remove_directory(void **state)
{
    (void)state;
    temporary_remove(directory);
    return 0;
}

int main(void)
{
    cot_json_setup();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_fault_has_its_sentence),
        cmocka_unit_test(test_files_that_are_none),
        cmocka_unit_test(test_every_failed_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
