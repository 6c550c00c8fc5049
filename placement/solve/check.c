#include "placement/solve/check.h"

#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef __int128
    wide_t; /* sums below cannot leave it: counts and duals have 63 bits, there are fewer than 2^50 of them */

static int descending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

/* ---- crossings ---- */

typedef struct {
    const solve_certificate_t *proof;
    const solve_certificate_level_t *level;
    const int64_t *transition; /* [layers-1, experts, experts] */
    size_t layers, experts, free_slots;
    int64_t size[PLACE_MAX_RANKS]; /* slots of each group, most first */
    size_t groups;
} check_t;

/* Duals, largest first, times the slots beside each: a group of s slots gives its s slots s each, largest first. An
 * expert may stand in `copies` groups, as far as there are free slots. (Rearrangement: no placement has a larger sum.)
 */
static wide_t weigh(const check_t *c, const int64_t *dual, size_t copies, int64_t *sorted)
{
    memcpy(sorted, dual, c->experts * sizeof(*dual));
    qsort(sorted, c->experts, sizeof(*sorted), descending);
    wide_t sum = 0;
    size_t group = 0, extra = c->free_slots;
    int64_t left = c->size[0];
    for (size_t e = 0; e < c->experts; e++)
        for (size_t copy = 0; copy < copies && (copy == 0 || extra > 0); copy++) {
            extra -= copy > 0;
            for (; left == 0 && group + 1 < c->groups; left = c->size[group]) group++;
            sum += (wide_t)sorted[e] * (c->size[group] < (int64_t)c->experts ? c->size[group] : (int64_t)c->experts);
            left--;
        }
    return sum;
}

/* Transitions that stay inside a group, by weak duality: T <= u + v + max(0, T - u - v), and an expert stays with no
 * more than its group has slots. -1: a dual below 0. */
static wide_t by_duals(const check_t *c, int64_t *sorted)
{
    wide_t within = 0;
    for (size_t l = 0; l + 1 < c->layers; l++) {
        const int64_t *u = c->level->before + l * c->experts, *v = c->level->after + l * c->experts;
        for (size_t e = 0; e < c->experts; e++)
            if (u[e] < 0 || v[e] < 0) return -1;
        wide_t stay = weigh(c, u, 1, sorted) + weigh(c, v, c->free_slots > 0 ? c->groups : 1, sorted), all = 0;
        for (size_t e = 0; e < c->experts; e++)
            for (size_t f = 0; f < c->experts; f++) {
                int64_t count = c->transition[(l * c->experts + e) * c->experts + f];
                wide_t rest = (wide_t)count - u[e] - v[f];
                all += count;
                stay += rest > 0 ? rest : 0;
            }
        within += stay < all ? stay : all;
    }
    return within;
}

/* x^T (diag(d) + centre J - scale B) x >= 0 for all x: Cholesky of the matrix less a shift that outweighs all rounding
 * (Rump 2006: gamma_(n+1) x trace with n terms in a sum), layer after layer: only neighbours couple. */
static bool is_definite(const check_t *c, double *here, double *next, double *side)
{
    const int64_t *d = c->proof->diagonal;
    size_t n = c->experts;
    double centre = (double)c->proof->centre, trace = 0;
    for (size_t i = 0; i < c->layers * n; i++) trace += fabs((double)d[i]) + centre;
    double shift = ceil(trace * 2 * (double)(2 * n + 3) * 0x1p-53) + 1;
    for (size_t i = 0; i < n * n; i++) here[i] = centre + (i % (n + 1) == 0 ? (double)d[i / n] - shift : 0);
    for (size_t l = 0; l < c->layers; l++) {
        for (size_t k = 0; k < n; k++) { /* here = R^T R, R above the diagonal */
            if (!(here[k * n + k] > 0)) return false;
            double root = sqrt(here[k * n + k]);
            for (size_t j = k; j < n; j++) here[k * n + j] /= root;
            for (size_t i = k + 1; i < n; i++)
                for (size_t j = i; j < n; j++) here[i * n + j] -= here[k * n + i] * here[k * n + j];
        }
        if (l + 1 == c->layers) return true;
        for (size_t i = 0; i < n * n; i++)
            next[i] = centre + (i % (n + 1) == 0 ? (double)d[(l + 1) * n + i / n] - shift : 0);
        for (size_t i = 0; i < n; i++) { /* side = R^-T x (-B), next -= side^T side */
            for (size_t j = 0; j < n; j++)
                side[i * n + j] = -(double)SOLVE_GRAM_SCALE * (double)c->transition[(l * n + i) * n + j];
            for (size_t k = 0; k < i; k++)
                for (size_t j = 0; j < n; j++) side[i * n + j] -= here[k * n + i] * side[k * n + j];
            for (size_t j = 0; j < n; j++) side[i * n + j] /= here[i * n + i];
            for (size_t a = 0; a < n; a++)
                for (size_t b = a; b < n; b++) next[a * n + b] -= side[i * n + a] * side[i * n + b];
        }
        memcpy(here, next, n * n * sizeof(*here));
    }
    return true;
}

/* Transitions inside `groups` equal groups, experts as corners of a simplex: within = T / g + (1 - 1 / g) x sum T <x,
 * y>, and 2 x sum T <x, y> <= sum d. -1: not proved. */
static wide_t by_gram(const check_t *c, wide_t all)
{
    bool exact = c->proof->diagonal != NULL && c->free_slots == 0 && c->proof->centre >= 0 &&
                 c->proof->centre < INT64_C(1) << 50;
    for (size_t g = 1; g < c->groups; g++) exact &= c->size[g] == c->size[0];
    wide_t lengths = 0;
    for (size_t i = 0; exact && i < c->layers * c->experts; i++) {
        exact = c->proof->diagonal[i] >= 0 && c->proof->diagonal[i] < INT64_C(1) << 50; /* exact in a double */
        lengths += c->proof->diagonal[i];
    }
    size_t square = c->experts * c->experts;
    double *blocks = exact ? cot_calloc(3 * square, sizeof(*blocks)) : NULL;
    exact = blocks != NULL && is_definite(c, blocks, blocks + square, blocks + 2 * square);
    cot_free(blocks);
    wide_t scale = 2 * SOLVE_GRAM_SCALE * (wide_t)c->groups;
    return exact ? (2 * SOLVE_GRAM_SCALE * all + (wide_t)(c->groups - 1) * lengths) / scale : -1;
}

/* cost(a, b) >= sum of the weights of the levels that part a and b, for every pair. */
static bool is_below_costs(const solve_certificate_t *proof, const place_cluster_t *cluster)
{
    for (uint32_t a = 0; a < cluster->ranks; a++)
        for (uint32_t b = 0; b < cluster->ranks; b++) {
            wide_t sum = 0;
            for (uint32_t i = 0; i < proof->levels; i++) {
                if (proof->level[i].weight < 0) return false;
                if (proof->level[i].group[a] != proof->level[i].group[b]) sum += proof->level[i].weight;
            }
            if (a != b && sum > place_cluster_link(cluster, a, b)->crossing_cost) return false;
        }
    return true;
}

static wide_t check_level(check_t *c, const place_cluster_t *cluster, const uint32_t *slots, wide_t all)
{
    int64_t size[PLACE_MAX_RANKS] = {0}, *sorted = cot_calloc(c->experts, sizeof(*sorted));
    if (sorted == NULL) return -1;
    c->groups = 0;
    for (uint32_t r = 0; r < cluster->ranks; r++) size[c->level->group[r]] += slots[r];
    for (uint32_t r = 0; r < cluster->ranks; r++)
        if (size[r] > 0) c->size[c->groups++] = size[r];
    qsort(c->size, c->groups, sizeof(*c->size), descending);
    wide_t within = c->level->gram ? by_gram(c, all) : by_duals(c, sorted);
    cot_free(sorted);
    return within < all ? within : all;
}

cot_status_t solve_check_crossings(const solve_certificate_t *proof, const place_stats_t *stats,
                                   const place_cluster_t *cluster, const uint32_t *slots, int64_t *crossings_out)
{
    if (proof->layers != stats->layers || proof->experts != stats->experts || proof->ranks != cluster->ranks)
        return cot_fail(COT_ERR_MISMATCH,
                        "the certificate is for %u layers of %u experts on %u ranks, not %u of %u on %u", proof->layers,
                        proof->experts, proof->ranks, stats->layers, stats->experts, cluster->ranks);
    if (proof->levels > 0 && stats->transition == NULL)
        return cot_fail(COT_ERR_MISMATCH, "the certificate is about transitions, of which the trace holds none");
    if (!is_below_costs(proof, cluster))
        return cot_fail(COT_ERR_MISMATCH, "the certificate's levels are not below the cluster's crossing costs");
    check_t c = {.proof = proof, .transition = stats->transition, .layers = stats->layers, .experts = stats->experts};
    wide_t all = 0, crossings = 0;
    size_t total = 0;
    for (uint32_t r = 0; r < cluster->ranks; r++) total += slots[r];
    c.free_slots = total - c.experts;
    for (size_t i = 0; proof->levels > 0 && i < (c.layers - 1) * c.experts * c.experts; i++) all += c.transition[i];
    for (uint32_t i = 0; i < proof->levels; i++) {
        c.level = &proof->level[i];
        wide_t within = check_level(&c, cluster, slots, all);
        if (within < 0)
            return cot_fail(COT_ERR_MISMATCH, "level %u of the certificate proves nothing about this trace", i);
        crossings += c.level->weight * (all - within);
    }
    *crossings_out = crossings < INT64_MAX ? (int64_t)crossings : INT64_MAX;
    return COT_OK;
}

/* ---- loads ---- */

/* The least largest value, rounded down, if `work` in whole 1/parts is spread over the ranks: grown bit by bit. */
static int64_t spread(int64_t work, const int64_t *slowness, size_t ranks, int64_t parts)
{
    int64_t too_little = -1;
    for (int64_t bit = INT64_C(1) << 61; bit > 0; bit >>= 1) {
        wide_t room = 0;
        for (size_t r = 0; r < ranks; r++) {
            if (slowness[r] == 0) return 0;
            room += ((wide_t)(too_little + bit + 1) * parts - 1) / slowness[r];
        }
        if (room < (wide_t)work * parts) too_little += bit;
    }
    return too_little + 1;
}

/* One layer: loads heaviest first, slowness fastest first (`order`). The mean; the hottest on the fastest ranks; and,
 * since of the experts 0 … last all but free_slots stand once, some rank holds each + 1 of those, and where no slot is
 * free its other slots' worth of the lightest. */
static int64_t least_load(const solve_problem_t *p, const int64_t *load, const int64_t *order)
{
    int64_t total = 0, parts = p->free_slots > 0 ? p->ranks : 1;
    for (uint32_t e = 0; e < p->experts; e++) total += load[e];
    uint32_t copies = p->free_slots + 1 < p->ranks ? p->free_slots + 1 : p->ranks;
    int64_t most = spread(total, order, p->ranks, parts), hottest = spread(load[0], order, copies, parts);
    if (hottest > most) most = hottest;
    for (uint32_t each = 0;; each++) {
        uint64_t last = p->free_slots;
        for (uint32_t r = 0; r < p->ranks; r++) last += p->slots[r] < each ? p->slots[r] : each;
        if (last >= p->experts) return most;
        wide_t least = INT64_MAX / 2;
        for (uint32_t r = 0; r < p->ranks; r++) {
            if (p->slots[r] <= each) continue;
            wide_t sum = 0;
            for (uint32_t i = 0; i <= each; i++) sum += load[last - i];
            for (uint32_t i = each + 1; p->free_slots == 0 && i < p->slots[r]; i++)
                sum += load[p->experts - (i - each)];
            if (sum * p->slowness[r] < least) least = sum * p->slowness[r];
        }
        if (least > most) most = (int64_t)least;
    }
}

cot_status_t solve_check_loads(const solve_problem_t *p, int64_t *balance_out)
{
    int64_t *load = cot_calloc((size_t)p->experts + p->ranks, sizeof(*load)), *order = load + p->experts;
    if (load == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory to check the loads");
    *balance_out = 0;
    for (uint32_t r = 0; r < p->ranks; r++) order[r] = -p->slowness[r];
    qsort(order, p->ranks, sizeof(*order), descending); /* fastest first */
    for (uint32_t r = 0; r < p->ranks; r++) order[r] = -order[r];
    for (uint32_t l = 0; l < p->layers; l++) {
        memcpy(load, p->load + (size_t)l * p->experts, p->experts * sizeof(*load));
        qsort(load, p->experts, sizeof(*load), descending);
        *balance_out += least_load(p, load, order);
    }
    cot_free(load);
    return COT_OK;
}
