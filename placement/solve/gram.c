#include "placement/solve/gram.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

enum { DIMENSIONS = 16, SWEEPS = 300, MEDIAN_STEPS = 4, TRIALS = 12 };

typedef float vector_t[DIMENSIONS];

typedef struct {
    const solve_problem_t *problem;
    const solve_bound_config_t *config;
    vector_t *vector; /* [layers, experts] of length 1 */
    vector_t *median; /* [layers] of the pulls */
    vector_t *pull;   /* [experts] of the neighbours on the experts of one layer */
    double *length;   /* [layers, experts] of pull - median: the diagonal, once nothing moves */
} gram_t;

static bool over(const gram_t *gram)
{
    return cot_deadline_passed(gram->config->deadline) ||
           (gram->config->stop != NULL && atomic_load_explicit(gram->config->stop, memory_order_relaxed));
}

bool solve_gram_applies(const solve_problem_t *problem)
{
    return problem->free_slots == 0 && problem->transition != NULL && problem->experts > 1;
}

/* ---- the vectors ---- */

static void add_pulls(gram_t *gram, const int32_t *rows, const vector_t *neighbours)
{
    uint32_t experts = gram->problem->experts;
    for (uint32_t e = 0; e < experts; e++) {
        const int32_t *row = rows + (size_t)e * experts;
        vector_t sum = {0}; /* stays in registers */
        for (uint32_t f = 0; f < experts; f++) {
            float count = (float)row[f];
            for (int d = 0; d < DIMENSIONS; d++) sum[d] += count * neighbours[f][d];
        }
        for (int d = 0; d < DIMENSIONS; d++) gram->pull[e][d] += sum[d];
    }
}

static double distance(const vector_t a, const vector_t b)
{
    float sum = 0;
    for (int d = 0; d < DIMENSIONS; d++) sum += (a[d] - b[d]) * (a[d] - b[d]);
    return sqrt((double)sum) + 1e-9;
}

/* Weiszfeld's iteration, from where the last sweep left it. */
static void find_median(gram_t *gram, vector_t median)
{
    uint32_t experts = gram->problem->experts;
    for (int step = 0; step < MEDIAN_STEPS; step++) {
        vector_t sum = {0};
        double weights = 0;
        for (uint32_t e = 0; e < experts; e++) {
            double weight = 1 / distance(gram->pull[e], median);
            for (int d = 0; d < DIMENSIONS; d++) sum[d] += (float)weight * gram->pull[e][d];
            weights += weight;
        }
        for (int d = 0; d < DIMENSIONS; d++) median[d] = sum[d] / (float)weights;
    }
}

/* The best vectors of a layer given its neighbours'; the sum of their lengths before they are cut to 1. */
static double place_layer(gram_t *gram, uint32_t layer)
{
    const solve_problem_t *p = gram->problem;
    size_t experts = p->experts, pairs = experts * experts;
    memset(gram->pull, 0, experts * sizeof(*gram->pull));
    vector_t *here = gram->vector + layer * experts;
    if (layer > 0) add_pulls(gram, p->transposed + (layer - 1) * pairs, (const vector_t *)(here - experts));
    if (layer + 1 < p->layers) add_pulls(gram, p->transition + layer * pairs, (const vector_t *)(here + experts));
    find_median(gram, gram->median[layer]);
    double sum = 0;
    for (size_t e = 0; e < experts; e++) {
        double length = distance(gram->pull[e], gram->median[layer]);
        for (int d = 0; d < DIMENSIONS; d++) here[e][d] = (gram->pull[e][d] - gram->median[layer][d]) / (float)length;
        gram->length[layer * experts + e] = length;
        sum += length;
    }
    return sum;
}

/* Any start but one where all vectors are alike: seeded, so that equal problems give equal bounds. */
static void scatter(gram_t *gram)
{
    uint64_t state = 1;
    for (size_t cell = 0; cell < solve_cells(gram->problem); cell++)
        for (int d = 0; d < DIMENSIONS; d++) {
            state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            gram->vector[cell][d] = (float)(int32_t)(state >> 32) / 8e9F;
        }
}

/* Until a sweep gains less than `gain` of the sum. */
static void ascend(gram_t *gram, double gain)
{
    const solve_problem_t *p = gram->problem;
    double last = 0;
    for (int sweep = 0; sweep < SWEEPS && !over(gram); sweep++) {
        double sum = 0;
        for (uint32_t i = 0; i < p->layers; i++) sum += place_layer(gram, sweep % 2 == 0 ? i : p->layers - 1 - i);
        if (sweep > 8 && fabs(sum - last) < gain * sum) return;
        last = sum;
    }
}

/* ---- the proof ---- */

/* Block Cholesky of a block-tridiagonal matrix, two blocks at a time. */
typedef struct {
    const solve_problem_t *problem;
    double *block;     /* [experts, experts] of this layer, upper triangle */
    double *next;      /* of the next one */
    double *side;      /* between them: R^-T x (-T) */
    int64_t *diagonal; /* [layers, experts] on trial */
} cholesky_t;

static bool factor(double *block, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        double pivot = block[k * n + k];
        if (!(pivot > 0)) return false;
        double root = sqrt(pivot);
        for (size_t j = k; j < n; j++) block[k * n + j] /= root;
        for (size_t i = k + 1; i < n; i++) {
            double factor = block[k * n + i];
            for (size_t j = i; j < n; j++) block[i * n + j] -= factor * block[k * n + j];
        }
    }
    return true;
}

static void fill_block(double *block, size_t n, const int64_t *diagonal, double centre, double shift)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t j = i; j < n; j++) block[i * n + j] = centre;
        block[i * n + i] += (double)diagonal[i] - shift;
    }
}

/* side = R^-T (-scale T); next -= side^T side. */
static void couple(cholesky_t *c, uint32_t layer)
{
    size_t n = c->problem->experts;
    for (size_t i = 0; i < n; i++) {
        const int32_t *row = solve_row(c->problem, layer, (uint32_t)i);
        double *side = c->side + i * n, pivot = c->block[i * n + i];
        for (size_t j = 0; j < n; j++) side[j] = -(double)SOLVE_GRAM_SCALE * row[j];
        for (size_t k = 0; k < i; k++) {
            double factor = c->block[k * n + i];
            const double *above = c->side + k * n;
            for (size_t j = 0; j < n; j++) side[j] -= factor * above[j];
        }
        for (size_t j = 0; j < n; j++) side[j] /= pivot;
        for (size_t a = 0; a < n; a++)
            for (size_t b = a; b < n; b++) c->next[a * n + b] -= side[a] * side[b];
    }
}

/* Positive semidefinite for certain: the factorisation of the matrix less `shift` runs through, where the shift is more
 * than all rounding can come to (Rump, "Verification of positive definiteness", BIT 46, 2006: gamma x trace). */
static bool is_definite(const gram_t *gram, cholesky_t *c, const int64_t *diagonal, int64_t centre)
{
    const solve_problem_t *p = c->problem;
    size_t n = p->experts;
    double trace = 0;
    for (size_t i = 0; i < solve_cells(p); i++) trace += (double)diagonal[i] + (double)centre;
    double shift = ceil(trace * 2 * (double)(2 * n + 3) * 0x1p-53) + 1;
    fill_block(c->block, n, diagonal, (double)centre, shift);
    for (uint32_t l = 0; l < p->layers; l++) {
        if (over(gram) || !factor(c->block, n)) return false;
        if (l + 1 == p->layers) break;
        fill_block(c->next, n, diagonal + (l + 1) * n, (double)centre, shift);
        couple(c, l);
        double *swap = c->block;
        c->block = c->next;
        c->next = swap;
    }
    return true;
}

static void lengthen(const gram_t *gram, double mean, double by, int64_t *diagonal)
{
    for (size_t i = 0; i < solve_cells(gram->problem); i++)
        diagonal[i] = (int64_t)ceil((gram->length[i] * (1 + by) + mean * by) * SOLVE_GRAM_SCALE);
}

/* The lengths fall a little short of a proof: the least excess, to a fifth, with which they are one. *by_out: the
 * excess; 0 if there was none before the deadline. */
static void prove(const gram_t *gram, cholesky_t *c, int64_t centre, double mean, double *by_out)
{
    double low = 0, high = 0;
    for (int trial = 0; trial < TRIALS && !over(gram); trial++) {
        double by = high == 0 ? 2e-4 * pow(2.5, trial) : sqrt(low * high);
        lengthen(gram, mean, by, c->diagonal);
        if (is_definite(gram, c, c->diagonal, centre))
            high = by;
        else
            low = by;
        if (high > 0 && (low == 0 || high < 1.2 * low)) break;
    }
    *by_out = high;
}

/* First to a rough proof, then, time allowing, to a finer one. */
static bool ascend_and_prove(gram_t *gram, cholesky_t *c, int64_t *diagonal, int64_t *centre_out)
{
    static const double GAINS[] = {2e-5, 2e-6};
    size_t cells = solve_cells(gram->problem);
    double best = HUGE_VAL;
    scatter(gram);
    for (size_t pass = 0; pass < sizeof(GAINS) / sizeof(*GAINS) && !over(gram); pass++) {
        ascend(gram, GAINS[pass]);
        double sum = 0, by = 0;
        for (size_t i = 0; i < cells; i++) sum += gram->length[i];
        double mean = sum / (double)cells;
        if (!(mean * SOLVE_GRAM_SCALE < 0x1p40)) return false; /* integers beyond would not be exact in a double */
        int64_t centre = (int64_t)ceil(mean * SOLVE_GRAM_SCALE * 1000 / gram->problem->experts);
        prove(gram, c, centre, mean, &by);
        if (by == 0 || sum * (1 + 2 * by) >= best) continue;
        best = sum * (1 + 2 * by);
        lengthen(gram, mean, by, diagonal);
        *centre_out = centre;
    }
    return best < HUGE_VAL;
}

int64_t solve_gram_within(const solve_problem_t *p, uint32_t groups, const int64_t *diagonal)
{
    __int128 all = 0, lengths = 0;
    size_t pairs = (size_t)p->experts * p->experts;
    for (size_t i = 0; i < (p->layers - 1) * pairs; i++) all += p->transition[i];
    for (size_t i = 0; i < solve_cells(p); i++) lengths += diagonal[i];
    __int128 most = (2 * SOLVE_GRAM_SCALE * all + (groups - 1) * lengths) / (2 * SOLVE_GRAM_SCALE * (__int128)groups);
    return (int64_t)(most < all ? most : all);
}

cot_status_t solve_gram_bound(const solve_problem_t *p, const solve_bound_config_t *config, int64_t *diagonal,
                              int64_t *centre_out, bool *found_out)
{
    size_t cells = solve_cells(p), pairs = (size_t)p->experts * p->experts;
    gram_t gram = {p,
                   config,
                   cot_calloc(cells, sizeof(vector_t)),
                   cot_calloc(p->layers, sizeof(vector_t)),
                   cot_calloc(p->experts, sizeof(vector_t)),
                   cot_calloc(cells, sizeof(double))};
    double *blocks = cot_calloc(3 * pairs, sizeof(*blocks));
    int64_t *trial = cot_calloc(cells, sizeof(*trial));
    cot_status_t status = COT_OK;
    *found_out = false;
    if (gram.vector == NULL || gram.median == NULL || gram.pull == NULL || gram.length == NULL || blocks == NULL ||
        trial == NULL) {
        status = cot_fail(COT_ERR_NO_MEMORY, "no memory to prove a bound for %zu experts", cells);
    } else {
        cholesky_t cholesky = {p, blocks, blocks + pairs, blocks + 2 * pairs, trial};
        *found_out = ascend_and_prove(&gram, &cholesky, diagonal, centre_out);
    }
    cot_free(gram.vector);
    cot_free(gram.median);
    cot_free(gram.pull);
    cot_free(gram.length);
    cot_free(blocks);
    cot_free(trial);
    return status;
}
