#include "placement/solve/matching.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 12 };

typedef struct {
    const solve_problem_t *problem;
    const solve_level_t *level;
    const uint32_t *caps;             /* [experts + free_slots] descending */
    uint32_t *cap_before, *cap_after; /* [experts] what the descent takes an expert's cap to be */
    int64_t *values;                  /* [experts] scratch */
} matching_t;

static int descending_sizes(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x < y) - (x > y);
}

static int descending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

void solve_group_caps(const solve_problem_t *p, const solve_level_t *level, uint32_t *caps)
{
    uint32_t size[PLACE_MAX_RANKS] = {0};
    for (uint32_t r = 0; r < p->ranks; r++) size[level->group[r]] += p->slots[r];
    qsort(size, level->groups, sizeof(*size), descending_sizes);
    size_t at = 0, count = (size_t)p->experts + p->free_slots;
    for (uint32_t g = 0; g < level->groups; g++)
        for (uint32_t i = 0; i < size[g] && at < count; i++) caps[at++] = size[g] < p->experts ? size[g] : p->experts;
}

/* The value in the middle between the n-th largest and the one after it (quickselect; n < count). */
static int64_t middle_after(int64_t *values, uint32_t count, uint32_t n)
{
    int64_t low = 0, high = (int64_t)count - 1, wanted = (int64_t)n - 1;
    while (low < high) {
        int64_t pivot = values[low + (high - low) / 2], i = low, j = high;
        while (i <= j) {
            while (values[i] > pivot) i++;
            while (values[j] < pivot) j--;
            if (i > j) break;
            int64_t swap = values[i];
            values[i++] = values[j];
            values[j--] = swap;
        }
        if (wanted <= j)
            high = j;
        else if (wanted >= i)
            low = i;
        else
            break;
    }
    int64_t next = INT64_MIN;
    for (uint32_t k = n; k < count; k++)
        if (values[k] > next) next = values[k];
    return next + (values[n - 1] - next) / 2;
}

/* The best dual of each row, given the columns': rows [experts, experts], a row's cap, the columns' duals. */
static void descend(const matching_t *m, const int32_t *rows, const uint32_t *cap, const int64_t *other, int64_t *dual)
{
    uint32_t experts = m->problem->experts;
    for (uint32_t e = 0; e < experts; e++) {
        dual[e] = 0;
        if (cap[e] >= experts) continue;
        const int32_t *row = rows + (size_t)e * experts;
        for (uint32_t f = 0; f < experts; f++) m->values[f] = row[f] - other[f];
        int64_t best = middle_after(m->values, experts, cap[e]);
        dual[e] = best > 0 ? best : 0;
    }
}

/* Duals times the caps they may meet at most; `copies`: an expert may stand in that many groups. */
static int64_t weigh(const matching_t *m, const int64_t *dual, uint32_t copies)
{
    const solve_problem_t *p = m->problem;
    memcpy(m->values, dual, p->experts * sizeof(*dual));
    qsort(m->values, p->experts, sizeof(*m->values), descending);
    int64_t sum = 0;
    size_t at = 0;
    uint32_t extra = p->free_slots;
    for (uint32_t e = 0; e < p->experts; e++) {
        uint32_t more = extra < copies - 1 ? extra : copies - 1;
        extra -= more;
        for (uint32_t i = 0; i <= more; i++) sum += m->values[e] * m->caps[at++];
    }
    return sum;
}

static int64_t evaluate(const matching_t *m, uint32_t boundary, const int64_t *before, const int64_t *after)
{
    const solve_problem_t *p = m->problem;
    int64_t sum = weigh(m, before, 1) + weigh(m, after, p->free_slots > 0 ? m->level->groups : 1), all = 0;
    for (uint32_t e = 0; e < p->experts; e++) {
        const int32_t *row = solve_row(p, boundary, e);
        for (uint32_t f = 0; f < p->experts; f++) {
            int64_t rest = row[f] - before[e] - after[f];
            if (rest > 0) sum += rest;
            all += row[f];
        }
    }
    return sum < all ? sum : all;
}

/* Where groups differ the stronger experts meet the larger caps: a guess, which only the descent leans on. */
static void guess_caps(const matching_t *m, const int32_t *rows, uint32_t *cap)
{
    const solve_problem_t *p = m->problem;
    uint32_t experts = p->experts;
    for (uint32_t e = 0; e < experts; e++) cap[e] = m->caps[0];
    if (m->caps[experts - 1] == m->caps[0]) return;
    int64_t *strength = m->values, sum = 0; /* sum x experts + expert */
    for (uint32_t e = 0; e < experts; e++, sum = 0) {
        for (uint32_t f = 0; f < experts; f++) sum += rows[(size_t)e * experts + f];
        strength[e] = sum * experts + e;
    }
    qsort(strength, experts, sizeof(*strength), descending);
    for (uint32_t i = 0; i < experts; i++) cap[strength[i] % experts] = m->caps[i];
}

static int64_t solve_boundary(const matching_t *m, uint32_t boundary, int rounds, int64_t *before, int64_t *after)
{
    const solve_problem_t *p = m->problem;
    size_t experts = p->experts, pairs = experts * experts;
    const int32_t *rows = p->transition + boundary * pairs, *columns = p->transposed + boundary * pairs;
    guess_caps(m, rows, m->cap_before);
    guess_caps(m, columns, m->cap_after);
    memset(after, 0, experts * sizeof(*after));
    for (int round = 0; round < rounds; round++) {
        descend(m, rows, m->cap_before, after, before);
        descend(m, columns, m->cap_after, before, after);
    }
    int64_t best = evaluate(m, boundary, before, after);
    if (p->free_slots == 0 || rounds == 0) return best;
    /* With replicas the columns' duals count more than the descent took them for: rows alone may be better. */
    int64_t *kept = cot_calloc(2 * experts, sizeof(*kept));
    if (kept == NULL) return best;
    descend(m, rows, m->cap_before, kept, kept + experts);
    int64_t alone = evaluate(m, boundary, kept + experts, kept);
    if (alone < best) {
        best = alone;
        memcpy(before, kept + experts, experts * sizeof(*before));
        memset(after, 0, experts * sizeof(*after));
    }
    cot_free(kept);
    return best;
}

cot_status_t solve_matching_bound(const solve_problem_t *p, const solve_bound_config_t *config, solve_level_t *level)
{
    size_t duals = (size_t)(p->layers - 1) * p->experts;
    uint32_t *caps = cot_calloc((size_t)p->experts * 3 + p->free_slots, sizeof(*caps));
    int64_t *values = cot_calloc(p->experts, sizeof(*values));
    level->before = cot_calloc(duals, sizeof(*level->before));
    level->after = cot_calloc(duals, sizeof(*level->after));
    cot_status_t status = COT_OK;
    if (caps == NULL || values == NULL || level->before == NULL || level->after == NULL)
        status = cot_fail(COT_ERR_NO_MEMORY, "no memory for the duals of %zu experts", duals);
    if (status == COT_OK) {
        size_t slots = (size_t)p->experts + p->free_slots;
        matching_t m = {p, level, caps, caps + slots, caps + slots + p->experts, values};
        solve_group_caps(p, level, caps);
        level->within = 0;
        for (uint32_t l = 0; l + 1 < p->layers; l++) {
            /* Duals of 0 prove something too. */
            bool late = cot_deadline_passed(config->deadline) ||
                        (config->stop != NULL && atomic_load_explicit(config->stop, memory_order_relaxed));
            size_t at = (size_t)l * p->experts;
            level->within += solve_boundary(&m, l, late ? 0 : ROUNDS, level->before + at, level->after + at);
        }
    }
    cot_free(caps);
    cot_free(values);
    return status;
}
