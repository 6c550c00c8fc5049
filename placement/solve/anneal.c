#include "placement/solve/anneal_int.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

void solve_annealer_destroy(solve_annealer_t *annealer)
{
    if (annealer == NULL) return;
    cot_free(annealer->rank_of);
    cot_free(annealer->flow);
    cot_free(annealer->inside);
    cot_free(annealer->price);
    cot_free(annealer->before);
    cot_free(annealer->load);
    cot_free(annealer->weight);
    cot_free(annealer->held);
    cot_free(annealer->stages);
    cot_free(annealer);
}

cot_status_t solve_annealer_create(const solve_problem_t *problem, solve_annealer_t **annealer_out)
{
    solve_annealer_t *a = cot_calloc(1, sizeof(*a));
    if (a == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory to anneal");
    size_t cells = solve_cells(problem), rows = (size_t)problem->layers * problem->ranks;
    a->problem = problem;
    a->rank_of = cot_calloc(cells, sizeof(*a->rank_of));
    a->flow = cot_calloc(problem->transition != NULL ? cells * problem->ranks : 1, sizeof(*a->flow));
    a->inside = cot_calloc((size_t)problem->nodes * problem->experts, sizeof(*a->inside));
    a->price = cot_calloc((size_t)problem->experts * problem->ranks, sizeof(*a->price));
    a->before = cot_calloc(problem->experts, sizeof(*a->before));
    a->load = cot_calloc(rows, sizeof(*a->load));
    a->weight = cot_calloc(cells, sizeof(*a->weight));
    a->held = cot_calloc(rows, sizeof(*a->held));
    a->stages = cot_calloc(1, solve_annealer_pair_bytes(problem));
    if (a->rank_of == NULL || a->flow == NULL || a->inside == NULL || a->price == NULL || a->before == NULL ||
        a->load == NULL || a->weight == NULL || a->held == NULL) {
        solve_annealer_destroy(a);
        return cot_fail(COT_ERR_NO_MEMORY, "no memory to anneal %zu cells", cells);
    }
    for (uint32_t i = 0; i < LOGS; i++) {
        a->logs[i] = -logf(((float)i + 0.5F) / LOGS);
        a->gumbel[i] = logf(a->logs[i]);
    }
    for (size_t cell = 0; cell < cells; cell++)
        a->weight[cell] = (double)problem->load[cell] * (double)problem->load_weight / SOLVE_UNIT;
    *annealer_out = a;
    return COT_OK;
}

/* ---- tables ---- */

ROWS static void add_row(int32_t *restrict to, const int32_t *restrict row, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) to[i] += row[i];
}

ROWS static void subtract_row(int32_t *restrict from, const int32_t *restrict row, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) from[i] -= row[i];
}

void solve_annealer_tell(solve_annealer_t *a, uint32_t layer, uint32_t e, uint32_t from, uint32_t to)
{
    const solve_problem_t *p = a->problem;
    if (layer > 0) {
        const int32_t *column = solve_column(p, layer - 1, e);
        if (from != UINT32_MAX) subtract_row(solve_annealer_flow(a, layer - 1, from), column, p->experts);
        add_row(solve_annealer_flow(a, layer - 1, to), column, p->experts);
    }
    if (layer + 1 < p->layers) {
        const int32_t *row = solve_row(p, layer, e);
        if (from != UINT32_MAX) subtract_row(solve_annealer_flow(a, layer + 1, from), row, p->experts);
        add_row(solve_annealer_flow(a, layer + 1, to), row, p->experts);
    }
}

void solve_annealer_set(solve_annealer_t *a, const solve_rank_t *rank_of)
{
    const solve_problem_t *p = a->problem;
    size_t cells = solve_cells(p), rows = (size_t)p->layers * p->ranks;
    memcpy(a->rank_of, rank_of, cells * sizeof(*rank_of));
    memset(a->load, 0, rows * sizeof(*a->load));
    memset(a->held, 0, rows * sizeof(*a->held));
    for (size_t cell = 0; cell < cells; cell++) {
        size_t row = cell / p->experts * p->ranks + rank_of[cell];
        a->load[row] += a->weight[cell] * (double)p->slowness[rank_of[cell]];
        a->held[row]++;
    }
    if (p->transition == NULL) return;
    memset(a->flow, 0, cells * p->ranks * sizeof(*a->flow));
    for (uint32_t l = 0; l < p->layers; l++)
        for (uint32_t e = 0; e < p->experts; e++)
            solve_annealer_tell(a, l, e, UINT32_MAX, rank_of[(size_t)l * p->experts + e]);
}

const solve_rank_t *solve_annealer_get(const solve_annealer_t *a)
{
    return a->rank_of;
}

/* Ranks alike: what crosses is all that does not stay, cheaper inside the node. */
static void price_uniform(solve_annealer_t *a, uint32_t layer)
{
    const solve_problem_t *p = a->problem;
    bool tiers = p->nodes > 1 && p->far_cost != p->near_cost;
    float near = (float)p->near_cost, step = tiers ? (float)(p->far_cost - p->near_cost) : 0;
    if (tiers) memset(a->inside, 0, (size_t)p->nodes * p->experts * sizeof(*a->inside));
    for (uint32_t g = 0; tiers && g < p->ranks; g++)
        add_row(a->inside + (size_t)p->cluster->rank[g].node * p->experts, solve_annealer_flow(a, layer, g),
                p->experts);
    for (uint32_t g = 0; g < p->ranks; g++) {
        const int32_t *flow = solve_annealer_flow(a, layer, g);
        const int32_t *inside = a->inside + (tiers ? (size_t)p->cluster->rank[g].node * p->experts : 0);
        for (uint32_t e = 0; e < p->experts; e++)
            a->price[(size_t)e * p->ranks + g] = -near * (float)flow[e] - step * (float)inside[e];
    }
}

/* Any costs: those from the layer before and to the layer after may differ, so the flows are told apart by the way. */
static void price_any(solve_annealer_t *a, uint32_t layer)
{
    const solve_problem_t *p = a->problem;
    size_t ranks = p->ranks;
    memset(a->price, 0, p->experts * ranks * sizeof(*a->price));
    for (uint32_t side = 0; side < 2; side++) {
        if (side == 0 ? layer == 0 : layer + 1 == p->layers) continue;
        const solve_rank_t *there = a->rank_of + (size_t)(side == 0 ? layer - 1 : layer + 1) * p->experts;
        for (uint32_t e = 0; e < p->experts; e++) {
            const int32_t *counts = side == 0 ? solve_column(p, layer - 1, e) : solve_row(p, layer, e);
            float *price = a->price + e * ranks, flow[PLACE_MAX_RANKS];
            memset(flow, 0, ranks * sizeof(*flow));
            for (uint32_t f = 0; f < p->experts; f++) flow[there[f]] += (float)counts[f];
            for (size_t r = 0; r < ranks; r++)
                for (size_t g = 0; flow[r] != 0 && g < ranks; g++)
                    price[g] += flow[r] * (float)(side == 0 ? p->cost[r * ranks + g] : p->cost[g * ranks + r]);
        }
    }
}

/* ---- trials ---- */

/* One layer at work. */
typedef struct {
    solve_annealer_t *annealer;
    solve_rank_t *rank_of;
    const double *weight;
    double *load;
    uint32_t *held;
    double peak; /* largest load */
} layer_t;

static double peak_without(const layer_t *at, uint32_t a, uint32_t b)
{
    double peak = 0;
    for (uint32_t r = 0; r < at->annealer->problem->ranks; r++)
        if (r != a && r != b && at->load[r] > peak) peak = at->load[r];
    return peak;
}

/* Change of the load term if the weight on `from` falls by `shift` and that on `to` grows by it. */
static double load_change(const layer_t *at, uint32_t from, uint32_t to, double shift, double *peak_out)
{
    const solve_problem_t *p = at->annealer->problem;
    double a = at->load[from] - shift * (double)p->slowness[from], b = at->load[to] + shift * (double)p->slowness[to];
    double peak = a > b ? a : b;
    if (at->load[from] < at->peak && at->load[to] < at->peak)
        peak = peak > at->peak ? peak : at->peak; /* the peak is elsewhere and stays */
    else if (peak < at->peak) {
        double others = peak_without(at, from, to);
        peak = peak > others ? peak : others;
    }
    *peak_out = peak;
    return peak - at->peak;
}

typedef struct {
    uint32_t e, f, from, to; /* f == experts: a free slot of `to` */
    double change, peak;
} swap_t;

static bool draw(const layer_t *at, uint64_t random, swap_t *swap)
{
    const solve_problem_t *p = at->annealer->problem;
    swap->e = (uint32_t)(((random & 0xffffff) * p->experts) >> 24);
    uint32_t choices = p->experts + (p->free_slots < p->experts ? p->free_slots : p->experts);
    swap->f = (uint32_t)((((random >> 24) & 0xffffff) * choices) >> 24);
    swap->from = at->rank_of[swap->e];
    if (swap->f < p->experts) {
        swap->to = at->rank_of[swap->f];
    } else {
        swap->to = swap->f % p->ranks;
        swap->f = p->experts;
        if (at->held[swap->to] >= p->slots[swap->to]) return false;
    }
    return swap->from != swap->to;
}

static void judge(const layer_t *at, swap_t *swap)
{
    const solve_problem_t *p = at->annealer->problem;
    const float *e = at->annealer->price + (size_t)swap->e * p->ranks;
    swap->change = 0;
    if (p->transition != NULL) {
        swap->change = e[swap->to] - e[swap->from];
        if (swap->f < p->experts) {
            const float *f = at->annealer->price + (size_t)swap->f * p->ranks;
            swap->change += f[swap->from] - f[swap->to];
        }
    }
    if (p->load_weight == 0) return;
    double shift = at->weight[swap->e] - (swap->f < p->experts ? at->weight[swap->f] : 0);
    swap->change += load_change(at, swap->from, swap->to, shift, &swap->peak);
}

static void accept(layer_t *at, const swap_t *swap)
{
    const solve_problem_t *p = at->annealer->problem;
    double shift = at->weight[swap->e];
    at->rank_of[swap->e] = (solve_rank_t)swap->to;
    if (swap->f < p->experts) {
        at->rank_of[swap->f] = (solve_rank_t)swap->from;
        shift -= at->weight[swap->f];
    } else {
        at->held[swap->from]--;
        at->held[swap->to]++;
    }
    if (p->load_weight == 0) return;
    at->load[swap->from] -= shift * (double)p->slowness[swap->from];
    at->load[swap->to] += shift * (double)p->slowness[swap->to];
    at->peak = swap->peak;
}

static layer_t enter(solve_annealer_t *a, uint32_t layer)
{
    const solve_problem_t *p = a->problem;
    if (p->transition != NULL && p->tiered) price_uniform(a, layer);
    if (p->transition != NULL && !p->tiered) price_any(a, layer);
    layer_t at = {.annealer = a,
                  .rank_of = a->rank_of + (size_t)layer * p->experts,
                  .weight = a->weight + (size_t)layer * p->experts,
                  .load = a->load + (size_t)layer * p->ranks,
                  .held = a->held + (size_t)layer * p->ranks};
    at.peak = peak_without(&at, UINT32_MAX, UINT32_MAX);
    memcpy(a->before, at.rank_of, p->experts * sizeof(*a->before));
    return at;
}

static void leave(solve_annealer_t *a, uint32_t layer)
{
    const solve_problem_t *p = a->problem;
    const solve_rank_t *now = a->rank_of + (size_t)layer * p->experts;
    if (p->transition == NULL || !p->tiered) return;
    for (uint32_t e = 0; e < p->experts; e++)
        if (now[e] != a->before[e]) solve_annealer_tell(a, layer, e, a->before[e], now[e]);
}

double solve_annealer_scale(solve_annealer_t *a, solve_search_t *random)
{
    double sum = 0;
    uint32_t drawn = 0;
    for (uint32_t l = 0; l < a->problem->layers; l++) {
        layer_t at = enter(a, l);
        for (uint32_t i = 0; i < 256; i++) {
            swap_t swap;
            if (!draw(&at, solve_random(random), &swap)) continue;
            judge(&at, &swap);
            sum += fabs(swap.change);
            drawn++;
        }
    }
    return drawn > 0 ? sum / drawn : 0;
}

/* Trials where only crossings count and all slots are taken: nothing but prices matters. */
static void stay_plain(layer_t *at, solve_search_t *random, float temperature)
{
    const solve_annealer_t *a = at->annealer;
    const float *restrict price = a->price;
    solve_rank_t *restrict rank_of = at->rank_of;
    uint32_t experts = a->problem->experts, ranks = a->problem->ranks;
    for (uint32_t i = 0; i < SOLVE_ANNEAL_STAY * experts; i++) {
        uint64_t bits = solve_random(random);
        uint32_t e = (uint32_t)(((bits & 0xffffff) * experts) >> 24);
        uint32_t f = (uint32_t)((((bits >> 24) & 0xffffff) * experts) >> 24);
        uint32_t from = rank_of[e], to = rank_of[f];
        const float *of_e = price + (size_t)e * ranks, *of_f = price + (size_t)f * ranks;
        float change = of_e[to] - of_e[from] + of_f[from] - of_f[to];
        if (change > temperature * a->logs[bits >> 52]) continue;
        rank_of[e] = (solve_rank_t)to;
        rank_of[f] = (solve_rank_t)from;
    }
}

static void stay(layer_t *at, solve_search_t *random, double temperature)
{
    uint32_t trials = SOLVE_ANNEAL_STAY * at->annealer->problem->experts;
    for (uint32_t i = 0; i < trials; i++) {
        uint64_t bits = solve_random(random);
        swap_t swap;
        if (!draw(at, bits, &swap)) continue;
        judge(at, &swap);
        if (swap.change > temperature * at->annealer->logs[bits >> 52]) continue;
        accept(at, &swap);
    }
}

void solve_annealer_sweep(solve_annealer_t *a, solve_search_t *random, double temperature)
{
    const solve_problem_t *p = a->problem;
    for (uint32_t l = 0; l < p->layers; l++) {
        layer_t at = enter(a, l);
        if (p->load_weight == 0 && p->free_slots == 0)
            stay_plain(&at, random, (float)temperature);
        else
            stay(&at, random, temperature);
        leave(a, l);
    }
}
