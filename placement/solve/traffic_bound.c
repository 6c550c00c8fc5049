#include "placement/solve/traffic_bound.h"

#include "base/memory.h"
#include "placement/solve/load_bound.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    const solve_problem_t *problem;
    const int64_t *load; /* [experts] rows, also under `decode` */
    int64_t rows;        /* sum of load */
    uint32_t layer;
    int64_t *time; /* [ranks] scratch: picoseconds of one row to (or from) every other rank */
} layer_t;

static int64_t wire(const layer_t *l, uint32_t from, uint32_t to)
{
    return l->problem->wire[(size_t)from * l->problem->ranks + to];
}

/* Fills l->time with a row's time over all links of a rank, sent or received. */
static void add_links(layer_t *l, bool receive)
{
    uint32_t ranks = l->problem->ranks;
    memset(l->time, 0, ranks * sizeof(*l->time));
    for (uint32_t a = 0; a < ranks; a++)
        for (uint32_t b = 0; b < ranks; b++)
            if (a != b) l->time[a] += receive ? wire(l, b, a) : wire(l, a, b);
}

/* The least of the ranks' dearest latencies: whoever takes longest uses all its links. */
static int64_t least_latency(const layer_t *l, bool receive)
{
    const solve_problem_t *p = l->problem;
    int64_t least = INT64_MAX;
    for (uint32_t a = 0; a < p->ranks; a++) {
        int64_t dearest = 0;
        for (uint32_t b = 0; b < p->ranks; b++) {
            int64_t latency = receive ? p->latency[(size_t)b * p->ranks + a] : p->latency[(size_t)a * p->ranks + b];
            if (a != b && latency > dearest) dearest = latency;
        }
        if (dearest < least) least = dearest;
    }
    return least;
}

static cot_status_t by_load(const layer_t *l, int64_t *bound_out)
{
    const solve_problem_t *p = l->problem;
    const solve_layer_load_t layer = {l->load, p->experts, p->slots, l->time, p->ranks, p->free_slots};
    return solve_load_bound(&layer, bound_out);
}

/* Rows come one copy for each destination: of a rank's load at least a k-th, if co-activations count; else all of it,
 * up to the number of tokens. */
static cot_status_t bound_dispatch(layer_t *l, int64_t *bound_out)
{
    const solve_problem_t *p = l->problem;
    add_links(l, true);
    COT_TRY(by_load(l, bound_out));
    if (p->pairs) {
        *bound_out /= p->top_k;
    } else {
        int64_t fastest = INT64_MAX;
        for (uint32_t r = 0; r < p->ranks; r++)
            if (l->time[r] < fastest) fastest = l->time[r];
        __int128 all = (__int128)fastest * ((l->rows + p->top_k - 1) / p->top_k);
        if (all < *bound_out) *bound_out = (int64_t)all;
    }
    *bound_out /= p->ranks;
    if (*bound_out > 0) *bound_out += least_latency(l, true);
    return COT_OK;
}

static cot_status_t bound_return(layer_t *l, int64_t *bound_out)
{
    add_links(l, false);
    COT_TRY(by_load(l, bound_out));
    *bound_out /= l->problem->ranks;
    if (*bound_out > 0) *bound_out += least_latency(l, false);
    return COT_OK;
}

/* Kwerel's bound on a rank's distinct tokens is at least a k-th of its load only if the co-activations could come from
 * tokens of top_k experts, which a trace of counts need not obey. */
static bool consistent(const layer_t *l)
{
    const solve_problem_t *p = l->problem;
    if (!p->pairs) return true;
    size_t experts = p->experts;
    const int64_t *together = p->stats->coactivation + l->layer * experts * experts;
    for (size_t e = 0; e < experts; e++) {
        int64_t others = 0;
        for (size_t f = 0; f < experts; f++) {
            if (f == e) continue;
            others += together[e * experts + f];
            if (together[e * experts + f] > l->load[e]) return false;
        }
        if (others > l->load[e] * (p->top_k - 1)) return false;
    }
    return true;
}

static int descending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

/* Rows that must come home whatever the replicas: a copy spares the rows of one home, and the free slots save most as
 * copies of the hottest experts. Over the fastest link of each rank at best. */
static cot_status_t bound_with_replicas(layer_t *l, int64_t *bound_out)
{
    const solve_problem_t *p = l->problem;
    int64_t *load = cot_calloc(p->experts, sizeof(*load)), rows = 0; /* in 1/ranks */
    if (load == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a bound");
    memcpy(load, l->load, p->experts * sizeof(*load));
    qsort(load, p->experts, sizeof(*load), descending);
    uint32_t extra = p->free_slots;
    for (uint32_t e = 0; e < p->experts; e++) {
        uint32_t copies = extra < p->ranks - 1 ? extra : p->ranks - 1;
        extra -= copies;
        rows += load[e] * (p->ranks - 1 - copies);
    }
    cot_free(load);
    for (uint32_t a = 0; a < p->ranks; a++) {
        l->time[a] = INT64_MAX;
        for (uint32_t b = 0; b < p->ranks; b++)
            if (a != b && wire(l, a, b) < l->time[a]) l->time[a] = wire(l, a, b);
    }
    *bound_out = solve_spread_bound(rows, l->time, p->ranks, 1) / p->ranks;
    return COT_OK;
}

/* shuffle: a reduce-scatter and an all-gather of a rank's share of the tokens to every other, wherever experts are. */
static int64_t bound_shuffle(layer_t *l)
{
    const solve_problem_t *p = l->problem;
    __int128 most = 0;
    add_links(l, false);
    for (uint32_t a = 0; a < p->ranks; a++) {
        int64_t dearest = 0;
        for (uint32_t b = 0; b < p->ranks; b++)
            if (a != b && p->latency[(size_t)a * p->ranks + b] > dearest)
                dearest = p->latency[(size_t)a * p->ranks + b];
        __int128 here = (__int128)l->time[a] * (l->rows / p->top_k) / p->ranks + dearest;
        if (here > most) most = here;
    }
    return (int64_t)(2 * most);
}

cot_status_t solve_traffic_bound(const solve_problem_t *p, uint32_t layer, int64_t *bound_out)
{
    *bound_out = 0;
    if (p->exchange == SOLVE_COHERENT || p->ranks < 2) return COT_OK;
    layer_t l = {p, p->stats->load + (size_t)layer * p->experts, 0, layer, cot_calloc(p->ranks, sizeof(int64_t))};
    if (l.time == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a bound");
    for (uint32_t e = 0; e < p->experts; e++) l.rows += l.load[e];
    int64_t dispatched = 0, returned = 0;
    cot_status_t status = COT_OK;
    if (p->exchange == SOLVE_SHUFFLE) {
        returned = bound_shuffle(&l);
    } else if (p->free_slots > 0) {
        status = bound_with_replicas(&l, &returned);
    } else {
        status = bound_return(&l, &returned);
        if (status == COT_OK && consistent(&l)) status = bound_dispatch(&l, &dispatched);
    }
    cot_free(l.time);
    COT_TRY(status);
    *bound_out = dispatched + returned;
    return COT_OK;
}
