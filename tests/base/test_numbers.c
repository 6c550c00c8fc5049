/* Half precision over all its 65,536 values, and the clock. */
#include "base/clock.h"
#include "base/half.h"
#include "tests/temporary.h"

static void every_half_comes_back(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 65536; half++) {
        float wide = cot_half_to_float((uint16_t)half);
        uint16_t back = cot_half_from_float(wide);
        if (isnan(wide))
            assert_true((back & 0x7c00U) == 0x7c00U && (back & 1023U) != 0 && (back & 0x8000U) == (half & 0x8000U));
        else
            assert_int_equal(back, half);
    }
}

static void known_halves(void **state)
{
    (void)state;
    assert_float_equal(cot_half_to_float(0x3c00), 1.0f, 0);
    assert_float_equal(cot_half_to_float(0xc000), -2.0f, 0);
    assert_float_equal(cot_half_to_float(0x7bff), 65504.0f, 0);
    assert_float_equal(cot_half_to_float(0x0001), 0x1p-24f, 0);
    assert_true(isinf(cot_half_to_float(0x7c00)) && isnan(cot_half_to_float(0x7c01)));
    assert_int_equal(cot_half_from_float(65519.99f), 0x7bff);
    assert_int_equal(cot_half_from_float(65520.0f), 0x7c00);
    assert_int_equal(cot_half_from_float(-INFINITY), 0xfc00);
    assert_int_equal(cot_half_from_float(0x1p-25f), 0);         /* half way between 0 and the least: to even */
    assert_int_equal(cot_half_from_float(0x1.8p-24f), 2);       /* half way between 1 and 2: to even */
    assert_int_equal(cot_half_from_float(0x1.000002p-25f), 1);  /* just above half way */
    assert_int_equal(cot_half_from_float(0x1.ffep-15f), 0x400); /* the widest subnormal rounds up to a normal */
}

/* Between two neighbours the nearer is taken; half way, the one whose last bit is 0. */
static void rounding_is_to_the_nearest_even(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 0x7bff; half++) {
        float low = cot_half_to_float((uint16_t)half), high = cot_half_to_float((uint16_t)(half + 1));
        float middle = (low + high) / 2; /* exact: one bit more than a half has, of 24 */
        assert_int_equal(cot_half_from_float(nextafterf(middle, low)), half);
        assert_int_equal(cot_half_from_float(nextafterf(middle, high)), half + 1);
        assert_int_equal(cot_half_from_float(middle), half + (half & 1));
        assert_int_equal(cot_half_from_float(-middle), 0x8000U | (half + (half & 1)));
    }
}

static void deadlines(void **state)
{
    (void)state;
    assert_true(cot_deadline_passed(cot_deadline_in_ms(0)));
    assert_int_equal(cot_deadline_left_ms(cot_now_ns() - 1), 0);
    cot_deadline_t soon = cot_deadline_in_ms(60000);
    assert_false(cot_deadline_passed(soon));
    assert_in_range(cot_deadline_left_ms(soon), 50000, 60000);
    assert_false(cot_deadline_passed(COT_NEVER));
    assert_true(cot_deadline_left_ms(COT_NEVER) == INT64_MAX);
    assert_true(cot_deadline_in_ms(INT64_MAX) == COT_NEVER);
    assert_true(cot_deadline_in_ms(INT64_MAX / 1000000) == COT_NEVER);
}

static void waiting_backs_off_and_starts_again(void **state)
{
    (void)state;
    cot_backoff_t backoff = {0};
    assert_int_equal(cot_backoff_sleep_ms(&backoff), 0);
    backoff.idle_since_ns = cot_now_ns() - 100 * INT64_C(1000000);
    assert_int_equal(cot_backoff_sleep_ms(&backoff), 2);
    backoff.idle_since_ns = cot_now_ns() - 2000 * INT64_C(1000000);
    assert_int_equal(cot_backoff_sleep_ms(&backoff), 5);
    int64_t before = cot_now_ns();
    cot_backoff_wait(&backoff);
    assert_true(cot_now_ns() - before >= 5 * INT64_C(1000000));
    cot_backoff_reset(&backoff);
    assert_int_equal(cot_backoff_sleep_ms(&backoff), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_comes_back),
        cmocka_unit_test(known_halves),
        cmocka_unit_test(rounding_is_to_the_nearest_even),
        cmocka_unit_test(deadlines),
        cmocka_unit_test(waiting_backs_off_and_starts_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
