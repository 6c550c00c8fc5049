#include "placement/strength.h"

#include <math.h>

enum { STEPS_MAX = 500 };
#define FIT 1e-10 /* relative error of a fitted margin */

/* E max(0, X - mean) of a Poisson X = mean^(n+1) e^-mean / n!, n = floor(mean) (de Moivre). */
static double poisson_excess(double mean)
{
    if (mean <= 0) return 0;
    double whole = floor(mean);
    return exp((whole + 1) * log(mean) - mean - lgamma(whole + 1));
}

static void add_cell(place_strength_t *sum, int64_t observed, double expected)
{
    sum->strength += (double)observed > expected ? (double)observed - expected : 0;
    sum->chance += poisson_excess(expected);
}

static place_strength_t share(place_strength_t sum, double all)
{
    return (place_strength_t){sum.strength / all, sum.chance / all};
}

static double row_sum(const int64_t *pairs, uint32_t experts, uint32_t row)
{
    double sum = 0;
    for (uint32_t f = 0; f < experts; f++) sum += (double)pairs[(uint64_t)row * experts + f];
    return sum;
}

place_strength_t place_strength_transition(const int64_t *pairs, uint32_t experts, double *work)
{
    place_strength_t sum = {0};
    double *row = work, *column = work + experts, all = 0;
    for (uint32_t e = 0; e < experts; e++) all += row[e] = row_sum(pairs, experts, e);
    if (all <= 0) return sum;
    for (uint32_t f = 0; f < experts; f++) column[f] = 0;
    for (uint32_t e = 0; e < experts; e++)
        for (uint32_t f = 0; f < experts; f++) column[f] += (double)pairs[(uint64_t)e * experts + f];
    for (uint32_t e = 0; e < experts; e++)
        for (uint32_t f = 0; f < experts; f++)
            add_cell(&sum, pairs[(uint64_t)e * experts + f], row[e] * column[f] / all);
    return share(sum, all);
}

/* Finds a with a[e] (A - a[e]) = margin[e], A the sum of a. */
static void fit(const double *margin, uint32_t experts, double all, double *a)
{
    for (uint32_t e = 0; e < experts; e++) a[e] = margin[e] / sqrt(all);
    for (int step = 0; step < STEPS_MAX; step++) {
        double total = 0, worst = 0;
        for (uint32_t e = 0; e < experts; e++) total += a[e];
        for (uint32_t e = 0; e < experts; e++) {
            double fitted = a[e] * (total - a[e]);
            if (fitted <= 0) continue;
            double ratio = margin[e] / fitted;
            if (fabs(ratio - 1) > worst) worst = fabs(ratio - 1);
            a[e] *= sqrt(ratio);
        }
        if (worst < FIT) break;
    }
}

place_strength_t place_strength_coactivation(const int64_t *pairs, uint32_t experts, double *work)
{
    place_strength_t sum = {0};
    double *margin = work, *a = work + experts, all = 0;
    for (uint32_t e = 0; e < experts; e++) {
        margin[e] = row_sum(pairs, experts, e) - (double)pairs[(uint64_t)e * experts + e];
        all += margin[e];
    }
    if (all <= 0) return sum;
    fit(margin, experts, all, a);
    for (uint32_t e = 0; e < experts; e++)
        for (uint32_t f = e + 1; f < experts; f++) add_cell(&sum, pairs[(uint64_t)e * experts + f], a[e] * a[f]);
    return share(sum, all / 2);
}
