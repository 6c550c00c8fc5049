/* Counted allocation and its test hook. */
#include "tests/temporary.h"

static void what_is_live_is_counted(void **state)
{
    (void)state;
    size_t blocks = cot_memory_live_blocks(), bytes = cot_memory_live_bytes();
    char *a = cot_alloc(100), *b = cot_calloc(10, 10), *c = cot_strdup("text");
    float *d = cot_alloc_aligned(100);
    assert_int_equal(cot_memory_live_blocks(), blocks + 4);
    assert_true(cot_memory_live_bytes() >= bytes + 305);
    assert_true(cot_memory_peak_bytes() >= cot_memory_live_bytes());
    for (int i = 0; i < 100; i++) assert_int_equal(b[i], 0);
    assert_string_equal(c, "text");
    assert_int_equal((uintptr_t)d % 64, 0);
    a = cot_realloc(a, 100000);
    assert_int_equal(cot_memory_live_blocks(), blocks + 4);
    assert_true(cot_memory_live_bytes() >= bytes + 100000);
    cot_free(a);
    cot_free(b);
    cot_free(c);
    cot_free(d);
    cot_free(NULL);
    assert_int_equal(cot_memory_live_blocks(), blocks);
    assert_int_equal(cot_memory_live_bytes(), bytes);
}

static void nothing_is_still_something(void **state)
{
    (void)state;
    void *blocks[] = {cot_alloc(0), cot_calloc(0, 8), cot_calloc(8, 0), cot_realloc(NULL, 0), cot_alloc_aligned(0)};
    for (size_t i = 0; i < sizeof(blocks) / sizeof(*blocks); i++) {
        assert_non_null(blocks[i]);
        cot_free(blocks[i]);
    }
}

/* Sanitizers, too, are to give NULL for what cannot be had. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "allocator_may_return_null=1";
}

static void impossible_sizes_give_null(void **state)
{
    (void)state;
    size_t blocks = cot_memory_live_blocks();
    volatile size_t half = SIZE_MAX / 2 + 2; /* volatile: the compiler would warn of what is asked here on purpose */
    assert_null(cot_calloc(half, 2));
    assert_null(cot_alloc_aligned(SIZE_MAX - 10));
    assert_int_equal(cot_memory_live_blocks(), blocks);
}

static void a_copy_ends_where_it_is_told(void **state)
{
    (void)state;
    char *part = cot_strndup("abcdef", 3), *whole = cot_strndup("ab", 10);
    assert_string_equal(part, "abc");
    assert_string_equal(whole, "ab");
    cot_free(part);
    cot_free(whole);
}

static void the_hook_fails_one_allocation(void **state)
{
    (void)state;
    cot_memory_fail_after(1);
    void *first = cot_alloc(8), *second = cot_alloc(8), *third = cot_alloc(8);
    assert_non_null(first);
    assert_null(second);
    assert_non_null(third);
    cot_memory_fail_after(0);
    assert_null(cot_realloc(first, 4096)); /* which stays */
    cot_memory_fail_after(0);
    assert_null(cot_strdup("x"));
    cot_memory_fail_after(0);
    void *spared = cot_alloc_spared(8);
    assert_non_null(spared);
    cot_memory_fail_after(-1);
    cot_free(first);
    cot_free(third);
    cot_free(spared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_live_is_counted),       cmocka_unit_test(nothing_is_still_something),
        cmocka_unit_test(impossible_sizes_give_null),    cmocka_unit_test(a_copy_ends_where_it_is_told),
        cmocka_unit_test(the_hook_fails_one_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
