#include "placement/solve/active.h"

#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A row of one of the traces, and where it stands among those that run beside it. */
typedef struct {
    uint64_t order;
    uint32_t trace, home;
    uint64_t row;
} spot_t;

static int by_order(const void *a, const void *b)
{
    const spot_t *x = a, *y = b;
    if (x->order != y->order) return x->order < y->order ? -1 : 1;
    if (x->trace != y->trace) return x->trace < y->trace ? -1 : 1;
    return x->row < y->row ? -1 : x->row > y->row;
}

/* All rows of all traces in the order in which they share steps. */
static void line_up(const solve_case_t *judged, spot_t *spots)
{
    size_t at = 0;
    for (uint32_t i = 0; i < judged->traces; i++)
        for (uint64_t row = 0; row < place_trace_tokens(judged->trace[i]); row++) {
            place_trace_where_t where = place_trace_where(judged->trace[i], row);
            bool known = where.request >= 0 && where.position >= 0;
            spots[at++] = (spot_t){
                .order = known ? (uint64_t)where.position << 32 | (uint32_t)where.request : row,
                .trace = i,
                .home = (uint32_t)((where.request >= 0 ? (uint64_t)where.request : row) % judged->cluster->ranks),
                .row = row};
        }
    qsort(spots, at, sizeof(*spots), by_order);
}

typedef struct {
    const solve_case_t *judged;
    const place_plan_t *plan;
    uint32_t layers, experts, ranks, top_k;
    uint16_t *serve; /* [layers, experts, ranks] */
    uint64_t *seen;  /* [experts, ranks] the last window that touched it */
    uint64_t stamp;
    double mean, largest;
} count_t;

/* Activated experts of each rank in one window and layer. */
static void count_window(count_t *at, const spot_t *spots, uint64_t size, uint32_t layer)
{
    uint32_t active[PLACE_MAX_RANKS] = {0}, most = 0, all = 0;
    const uint16_t *serve = at->serve + (size_t)layer * at->experts * at->ranks;
    at->stamp++;
    for (uint64_t i = 0; i < size; i++)
        for (uint32_t k = 0; k < at->top_k; k++) {
            uint32_t e = place_trace_expert(at->judged->trace[spots[i].trace], spots[i].row, layer, k);
            uint32_t r = serve[(size_t)e * at->ranks + spots[i].home];
            uint64_t *seen = &at->seen[(size_t)e * at->ranks + r];
            if (*seen == at->stamp) continue;
            *seen = at->stamp;
            all++;
            if (++active[r] > most) most = active[r];
        }
    at->mean += (double)all / at->ranks;
    at->largest += most;
}

static void fill_serve(count_t *at)
{
    for (uint32_t l = 0; l < at->layers; l++)
        for (uint32_t e = 0; e < at->experts; e++)
            for (uint32_t h = 0; h < at->ranks; h++)
                at->serve[((size_t)l * at->experts + e) * at->ranks + h] = (uint16_t)place_plan_rank(at->plan, l, e, h);
}

static cot_status_t count_tokens(count_t *at, uint64_t rows, solve_active_t *out)
{
    uint64_t size = at->judged->step_tokens < rows ? at->judged->step_tokens : rows;
    size_t pairs = (size_t)at->experts * at->ranks;
    spot_t *spots = cot_calloc(rows, sizeof(*spots));
    at->serve = cot_calloc(at->layers * pairs, sizeof(*at->serve));
    at->seen = cot_calloc(pairs, sizeof(*at->seen));
    cot_status_t status = COT_OK;
    if (spots == NULL || at->serve == NULL || at->seen == NULL) {
        status = cot_fail(COT_ERR_NO_MEMORY, "no memory to count activated experts");
    } else {
        line_up(at->judged, spots);
        fill_serve(at);
        for (uint64_t first = 0; first + size <= rows; first += size)
            for (uint32_t l = 0; l < at->layers; l++) count_window(at, spots + first, size, l);
        double counted = (double)(rows / size) * at->layers;
        *out = (solve_active_t){at->mean / counted, at->largest / counted, rows / size};
    }
    cot_free(spots);
    cot_free(at->serve);
    cot_free(at->seen);
    return status;
}

/* Expected: an expert's share of a rank's homes is touched with probability 1 - (1 - p)^step_tokens. */
static void expect(count_t *at, solve_active_t *out)
{
    for (uint32_t l = 0; l < at->layers; l++) {
        double active[PLACE_MAX_RANKS] = {0}, most = 0, tokens = 0;
        const int64_t *load = at->judged->stats->load + (size_t)l * at->experts;
        for (uint32_t e = 0; e < at->experts; e++) tokens += (double)load[e] / at->top_k;
        for (uint32_t e = 0; e < at->experts; e++) {
            uint32_t homes[PLACE_MAX_RANKS] = {0};
            for (uint32_t h = 0; h < at->ranks; h++) homes[place_plan_rank(at->plan, l, e, h)]++;
            for (uint32_t r = 0; r < at->ranks && tokens > 0; r++) {
                double p = fmin((double)load[e] / tokens * homes[r] / at->ranks, 1);
                active[r] += -expm1((double)at->judged->step_tokens * log1p(-p));
            }
        }
        for (uint32_t r = 0; r < at->ranks; r++) {
            at->mean += active[r] / at->ranks;
            most = fmax(most, active[r]);
        }
        at->largest += most;
    }
    *out = (solve_active_t){at->mean / at->layers, at->largest / at->layers, 0};
}

cot_status_t solve_active_count(const solve_case_t *judged, const place_plan_t *plan, solve_active_t *active_out)
{
    const place_stats_t *stats = judged->stats;
    count_t at = {.judged = judged,
                  .plan = plan,
                  .layers = stats->layers,
                  .experts = stats->experts,
                  .ranks = judged->cluster->ranks,
                  .top_k = stats->top_k};
    uint64_t rows = 0;
    if (stats->top_k == 0)
        return cot_fail(COT_ERR_UNSUPPORTED, "the trace does not state top_k: give --model to count activated experts");
    for (uint32_t i = 0; i < judged->traces; i++) rows += place_trace_tokens(judged->trace[i]);
    if (rows > 0) return count_tokens(&at, rows, active_out);
    expect(&at, active_out);
    return COT_OK;
}
