/* `coterie tokenize`: lines in, lines out, a bad line answered in its place. */
#include "tests/model/tokenizer/fixtures.h"

#include "model/tokenize_command.h"

static char directory[256];

static const char input[] = "{\"text\":\"!#\"}\n"
                            "{\"text\":\"<s>!\\u0000\"}\n"
                            "not json\n"
                            "{\"txet\":\"!\"}\n"
                            "{\"text\":7}\n"
                            "{\"text\":\"\xff\"}\n"
                            "{\"text\":\"\\ud800\"}\n"
                            "\n"
                            "[1,2]\n"
                            "{\"text\":\"\",\"other\":[1]}";

/* The lines of the answer; each is checked to be JSON. */
static json_t *run(const char *family, bool special, cot_status_t want)
{
    char model[300], in[300], out[300], *text;
    snprintf(model, sizeof model, "%s/%s", FIXTURES, family);
    snprintf(in, sizeof in, "%s/in.jsonl", directory);
    snprintf(out, sizeof out, "%s/out.jsonl", directory);
    temporary_write(in, input, sizeof input - 1);
    model_tokenize_result_t result;
    assert_int_equal(model_tokenize_file(model, in, out, special, &result), want);
    size_t bytes;
    assert_ok(cot_file_read(out, 1U << 20, &text, &bytes));
    json_t *lines = json_array();
    for (char *line = text, *end; line < text + bytes; line = end + 1) {
        end = strchr(line, '\n');
        assert_non_null(end);
        json_t *answer;
        assert_ok(cot_json_load_bytes(line, (size_t)(end - line), "the answer", &answer));
        json_array_append_new(lines, answer);
    }
    cot_free(text);
    return lines;
}

static const char *text_of(const json_t *lines, size_t index, const char *key)
{
    const char *text = json_string_value(json_object_get(json_array_get(lines, index), key));
    assert_non_null(text);
    return text;
}

static json_int_t id_of(const json_t *lines, size_t line, size_t index)
{
    return json_integer_value(json_array_get(json_object_get(json_array_get(lines, line), "ids"), index));
}

/* In the family gpt4o, <s> is 1, </s> 2, "!" 3 and "#" 5; its post-processor puts <s> and </s> around a text. */
static void test_lines(void **state)
{
    (void)state;
    json_t *lines = run("gpt4o", false, COT_ERR_PARTIAL);
    assert_non_null(strstr(cot_error_text(), "7 of 10 lines"));
    assert_int_equal(json_array_size(lines), 10);
    assert_string_equal(text_of(lines, 0, "text"), "!#");
    assert_int_equal(id_of(lines, 0, 0), 3);
    assert_int_equal(id_of(lines, 0, 1), 5);
    assert_int_equal(id_of(lines, 1, 0), 1);
    const json_t *nul = json_object_get(json_array_get(lines, 1), "text");
    assert_int_equal(json_string_length(nul), 5);
    assert_memory_equal(json_string_value(nul), "<s>!\0", 5);
    for (size_t i = 2; i < 9; i++) assert_true(text_of(lines, i, "error")[0] != '\0');
    assert_non_null(strstr(text_of(lines, 3, "error"), "\"text\""));
    assert_string_equal(text_of(lines, 9, "text"), "");
    json_decref(lines);
}

static void test_special_tokens_are_added_when_asked(void **state)
{
    (void)state;
    json_t *lines = run("gpt4o", true, COT_ERR_PARTIAL);
    assert_int_equal(id_of(lines, 0, 0), 1);
    assert_int_equal(id_of(lines, 0, 3), 2);
    assert_string_equal(text_of(lines, 0, "text"), "<s>!#</s>");
    assert_string_equal(text_of(lines, 9, "text"), "<s></s>");
    json_decref(lines);
}

static int run_command(int count, char **arguments)
{
    cot_settings_t *settings;
    assert_ok(cot_settings_parse(COT_CMD_TOKENIZE, count, arguments, &settings));
    int code = model_tokenize_command(settings);
    cot_settings_destroy(settings);
    return code;
}

static void test_exit_codes(void **state)
{
    (void)state;
    char in[300], out[300], missing[300];
    snprintf(in, sizeof in, "--in=%s/in.jsonl", directory);
    snprintf(out, sizeof out, "--out=%s/out.jsonl", directory);
    snprintf(missing, sizeof missing, "--in=%s/missing.jsonl", directory);
    static char model[] = FIXTURES "/gpt2", nowhere[] = "/nonexistent";
    assert_int_equal(run_command(3, (char *[]){model, in, out}), 3);
    assert_int_equal(run_command(2, (char *[]){in, out}), 2);
    assert_int_equal(run_command(2, (char *[]){model, in}), 2);
    assert_int_equal(run_command(3, (char *[]){nowhere, in, out}), 4);
    assert_int_equal(run_command(3, (char *[]){model, missing, out}), 4);
    snprintf(in, sizeof in, "%s/in.jsonl", directory);
    temporary_write(in, "{\"text\":\"a\"}\n", 13);
    snprintf(in, sizeof in, "--in=%s/in.jsonl", directory);
    assert_int_equal(run_command(3, (char *[]){model, in, out}), 0);
}

/* Lines longer than what is read at once, and one that ends where a read ends. */
static void test_long_lines(void **state)
{
    (void)state;
    char in[300], out[300], *text;
    snprintf(in, sizeof in, "%s/in.jsonl", directory);
    snprintf(out, sizeof out, "%s/out.jsonl", directory);
    cot_buffer_t lines = {0};
    for (size_t bytes = 65500; bytes < 65560; bytes++) {
        assert_ok(cot_buffer_printf(&lines, "{\"text\":\""));
        for (size_t i = 0; i < bytes - 12; i++) assert_ok(cot_buffer_append(&lines, "!", 1));
        assert_ok(cot_buffer_printf(&lines, "\"}\n"));
    }
    temporary_write(in, lines.data, lines.size);
    cot_buffer_free(&lines);
    model_tokenize_result_t result;
    assert_ok(model_tokenize_file(FIXTURES "/gpt2", in, out, false, &result));
    assert_int_equal(result.lines, 60);
    assert_int_equal(result.refused, 0);
    size_t bytes;
    assert_ok(cot_file_read(out, 1U << 26, &text, &bytes));
    cot_free(text);
}

static int make_directory(void **state)
{
    (void)state;
    temporary_make(directory);
    return 0;
}

static int remove_directory(void **state)
{
    (void)state;
    temporary_remove(directory);
    assert_int_equal(cot_memory_live_blocks(), 0);
    return 0;
}

int main(void)
{
    cot_json_setup();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_special_tokens_are_added_when_asked),
        cmocka_unit_test(test_exit_codes),
        cmocka_unit_test(test_long_lines),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
