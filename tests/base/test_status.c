/* Statuses and their sentences. */
#include "tests/temporary.h"

#include <pthread.h>

/* The table of docs/operations.md. */
static void exit_codes_are_those_of_the_page(void **state)
{
    (void)state;
    assert_int_equal(cot_exit_code(COT_OK), 0);
    assert_int_equal(cot_exit_code(COT_ERR_INTERNAL), 1);
    assert_int_equal(cot_exit_code(COT_ERR_INVALID), 2);
    assert_int_equal(cot_exit_code(COT_ERR_PARTIAL), 3);
    assert_int_equal(cot_exit_code(COT_ERR_FORMAT), 4);
    assert_int_equal(cot_exit_code(COT_ERR_NO_MEMORY), 5);
    assert_int_equal(cot_exit_code(COT_ERR_PEER_LOST), 6);
    assert_int_equal(cot_exit_code(COT_ERR_BUSY), 7);
    assert_int_equal(cot_exit_code(COT_ERR_CANCELLED), 130);
    assert_int_equal(cot_exit_code((cot_status_t)-9999), 1);
}

static void every_status_has_a_text_and_a_code(void **state)
{
    (void)state;
    static const cot_status_t all[] = {
#define X(name, value, exit_code, text) COT_##name,
        COT_STATUS_MAP(X)
#undef X
    };
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        assert_string_not_equal(cot_status_text(all[i]), "unknown status");
        assert_true(all[i] == COT_OK || (all[i] < 0 && cot_exit_code(all[i]) > 0));
    }
    assert_string_equal(cot_status_text((cot_status_t)-9999), "unknown status");
}

static cot_status_t fail_below(void)
{
    return cot_fail(COT_ERR_FORMAT, "line %d: bad", 7);
}

static cot_status_t try_it(int *reached)
{
    COT_TRY(fail_below());
    *reached = 1;
    return COT_OK;
}

static void a_sentence_is_set_once_and_prefixed_on_the_way(void **state)
{
    (void)state;
    int reached = 0;
    assert_int_equal(try_it(&reached), COT_ERR_FORMAT);
    assert_int_equal(reached, 0);
    assert_int_equal(cot_fail_in(COT_ERR_FORMAT, "%s", "a.json"), COT_ERR_FORMAT);
    assert_string_equal(cot_error_text(), "a.json: line 7: bad");
}

static void a_sentence_may_hold_the_one_before(void **state)
{
    (void)state;
    cot_fail(COT_ERR_IO, "inner");
    cot_fail(COT_ERR_IO, "outer (%s)", cot_error_text());
    assert_string_equal(cot_error_text(), "outer (inner)");
}

static void a_long_sentence_is_cut(void **state)
{
    (void)state;
    char text[4000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    cot_fail(COT_ERR_IO, "%s", text);
    assert_int_equal(strlen(cot_error_text()), 1023);
    cot_fail_in(COT_ERR_IO, "file");
    assert_int_equal(strlen(cot_error_text()), 1023);
    assert_memory_equal(cot_error_text(), "file: xxx", 9);
    cot_fail_in(COT_ERR_IO, "%s", text);
    assert_int_equal(strlen(cot_error_text()), 1023);
}

static void *fail_elsewhere(void *argument)
{
    (void)argument;
    assert_string_equal(cot_error_text(), "");
    cot_fail(COT_ERR_IO, "of another thread");
    return NULL;
}

static void threads_do_not_see_each_others_sentences(void **state)
{
    (void)state;
    cot_fail(COT_ERR_IO, "mine");
    pthread_t other;
    assert_int_equal(pthread_create(&other, NULL, fail_elsewhere, NULL), 0);
    pthread_join(other, NULL);
    assert_string_equal(cot_error_text(), "mine");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exit_codes_are_those_of_the_page),
        cmocka_unit_test(every_status_has_a_text_and_a_code),
        cmocka_unit_test(a_sentence_is_set_once_and_prefixed_on_the_way),
        cmocka_unit_test(a_sentence_may_hold_the_one_before),
        cmocka_unit_test(a_long_sentence_is_cut),
        cmocka_unit_test(threads_do_not_see_each_others_sentences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
