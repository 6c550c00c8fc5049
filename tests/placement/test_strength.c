#include "tests/temporary.h"

#include "placement/strength.h"

#include <math.h>

static void near(double got, double wanted)
{
    if (!(fabs(got - wanted) < 1e-9)) fail_msg("%.12f, wanted %.12f", got, wanted);
}

static void transitions_have_known_strengths(void **state)
{
    (void)state;
    double work[6];
    /* Independent: rows (1, 3) x columns (2, 2) / 4 of 8. */
    near(place_strength_transition((const int64_t[]){1, 1, 3, 3}, 2, work).strength, 0);
    /* Each expert has one successor: 1 - 1/E of the pairs lie above independence. */
    near(place_strength_transition((const int64_t[]){5, 0, 0, 0, 5, 0, 0, 0, 5}, 3, work).strength, 2.0 / 3);
    /* Expected 2 everywhere, observed 3 1 1 3: 2 of 8 above. */
    near(place_strength_transition((const int64_t[]){3, 1, 1, 3}, 2, work).strength, 0.25);
    near(place_strength_transition((const int64_t[]){0, 0, 0, 0}, 2, work).strength, 0);
}

/* E max(0, X - mean) summed over the Poisson distribution itself. */
static double excess(double mean)
{
    double sum = 0, p = exp(-mean);
    for (int x = 0; x < 200; p *= mean / ++x) sum += x > mean ? (x - mean) * p : 0;
    return sum;
}

static void chance_is_the_poisson_excess(void **state)
{
    (void)state;
    double work[4];
    /* Row sums 2 and 6, column sums 4 and 4: means 1, 1, 3, 3 of 8 pairs. */
    near(place_strength_transition((const int64_t[]){2, 0, 2, 4}, 2, work).chance, (2 * excess(1) + 2 * excess(3)) / 8);
    near(place_strength_transition((const int64_t[]){1, 0, 0, 1}, 2, work).chance, 4 * excess(0.5) / 2);
}

static void coactivations_have_known_strengths(void **state)
{
    (void)state;
    double work[16];
    /* All pairs of 4 experts alike: nothing above quasi-independence, whatever the diagonal. */
    const int64_t even[] = {9, 2, 2, 2, 2, 9, 2, 2, 2, 2, 9, 2, 2, 2, 2, 9};
    near(place_strength_coactivation(even, 4, work).strength, 0);
    /* a = (1, 2, 3, 4): pairs a[e] a[f] are independent though the loads are not equal. */
    const int64_t skewed[] = {0, 2, 3, 4, 2, 0, 6, 8, 3, 6, 0, 12, 4, 8, 12, 0};
    near(place_strength_coactivation(skewed, 4, work).strength, 0);
    /* Two couples that always come together: 6 pairs expected at 10/3 each, 2 observed at 10. */
    const int64_t couples[] = {10, 10, 0, 0, 10, 10, 0, 0, 0, 0, 10, 10, 0, 0, 10, 10};
    near(place_strength_coactivation(couples, 4, work).strength, 2.0 / 3);
    near(place_strength_coactivation(couples, 4, work).chance, 6 * excess(10.0 / 3) / 20);
    /* top-1: there are no pairs. */
    const int64_t single[] = {10, 0, 0, 7};
    near(place_strength_coactivation(single, 2, work).strength, 0);
}

/* The fitted expectation has the margins of the pairs, also where one expert is in almost all of them. */
static void the_fit_keeps_the_margins(void **state)
{
    (void)state;
    double work[6];
    const int64_t pairs[] = {0, 50, 30, 50, 0, 3, 30, 3, 0};
    place_strength_coactivation(pairs, 3, work);
    const double *a = work + 3;
    near(a[0] * (a[1] + a[2]) / 80, 1);
    near(a[1] * (a[0] + a[2]) / 53, 1);
    near(a[2] * (a[0] + a[1]) / 33, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transitions_have_known_strengths),
        cmocka_unit_test(chance_is_the_poisson_excess),
        cmocka_unit_test(coactivations_have_known_strengths),
        cmocka_unit_test(the_fit_keeps_the_margins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
