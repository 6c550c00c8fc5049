/* Log lines as they come out on standard error: each test reads what was written to a pipe in its place. */
#include "base/log.h"
#include "tests/temporary.h"

static int saved_stderr, reading_end;

static void capture(void)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    saved_stderr = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    reading_end = ends[0];
}

static const char *captured(void)
{
    static char text[8192];
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    ssize_t bytes = read(reading_end, text, sizeof(text) - 1);
    close(reading_end);
    text[bytes > 0 ? bytes : 0] = '\0';
    return text;
}

static void lines_carry_rank_and_kind(void **state)
{
    (void)state;
    capture();
    cot_log_info("hello %d", 1);
    cot_log_set_rank(3);
    cot_log_warn("slow");
    cot_log_error("gone");
    cot_log_set_rank(-1);
    assert_string_equal(captured(), "coterie: hello 1\ncoterie: rank 3: warning: slow\ncoterie: rank 3: gone\n");
}

static void the_level_hides_but_warnings_count(void **state)
{
    (void)state;
    unsigned before = cot_log_warning_count();
    capture();
    cot_log_debug("details");
    cot_log_set_level(COT_LOG_ERROR);
    cot_log_info("news");
    cot_log_warn("slow");
    cot_log_set_level(COT_LOG_DEBUG);
    cot_log_debug("seen");
    cot_log_set_level(COT_LOG_INFO);
    assert_string_equal(captured(), "coterie: seen\n");
    assert_int_equal(cot_log_warning_count(), before + 1);
}

static void one_entry_is_one_line(void **state)
{
    (void)state;
    char text[3000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    capture();
    cot_log_info("%s", text);
    const char *line = captured();
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
    assert_in_range(strlen(line), 1000, 1280);
    capture();
    cot_log_info("file \"a\ncoterie: rank 0: forged\x1b[2J\x7f\"");
    assert_string_equal(captured(), "coterie: file \"a?coterie: rank 0: forged?[2J?\"\n");
}

static void levels_have_names(void **state)
{
    (void)state;
    cot_log_level_t level = COT_LOG_INFO;
    assert_true(cot_log_level_parse("error", &level));
    assert_int_equal(level, COT_LOG_ERROR);
    assert_true(cot_log_level_parse("debug", &level));
    assert_int_equal(level, COT_LOG_DEBUG);
    assert_false(cot_log_level_parse("loud", &level));
    assert_false(cot_log_level_parse("", &level));
    assert_int_equal(level, COT_LOG_DEBUG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_carry_rank_and_kind),
        cmocka_unit_test(the_level_hides_but_warnings_count),
        cmocka_unit_test(one_entry_is_one_line),
        cmocka_unit_test(levels_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
