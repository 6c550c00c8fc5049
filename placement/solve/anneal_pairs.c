/* Two ranks a and b along the whole chain of layers: in each layer either nothing or one swap of an expert i of a with
 * one j of b. A swap costs what the flows say; swaps in consecutive layers correct each other by
 * D x ((T[i][j'] - T[j][j']) - (T[i][i'] - T[j][i'])) with D = cost(a,b) + cost(b,a), so the best way into a state
 * (i', j') is the least of alpha[j'] + beta[i'] over the states before: dynamic programming of cost C^4 a layer. With a
 * temperature every state's cost is disturbed by Gumbel noise first, which draws the chain from about its Boltzmann
 * distribution (perturb and MAP: Papandreou and Yuille, ICCV 2011). */
#include "placement/solve/anneal_int.h"

#include <math.h>
#include <string.h>

enum { MOST = SOLVE_PAIR_EXPERTS };

/* Experts of the two ranks in one layer, and the best sums that end in each state; state [MOST] of `total` rows is
 * "nothing". */
typedef struct {
    uint32_t count_a, count_b;
    uint16_t a[MOST], b[MOST];
    float total[MOST][MOST], nothing;
    /* D x transitions from the experts of the layer before: of its a and of its b, to this layer's a and b. */
    float a_to_a[MOST][MOST], a_to_b[MOST][MOST], b_to_a[MOST][MOST], b_to_b[MOST][MOST];
} stage_t;

typedef struct {
    solve_annealer_t *annealer;
    solve_search_t *random;
    uint32_t a, b;
    float both_ways, temperature;
    stage_t *stage; /* [layers] */
} chain_t;

size_t solve_annealer_pair_bytes(const solve_problem_t *problem)
{
    return problem->layers * sizeof(stage_t);
}

static float noise(chain_t *chain)
{
    return chain->temperature * chain->annealer->gumbel[solve_random(chain->random) >> 52];
}

/* Adds to a list that holds a random choice of all that were offered, once it is full. */
static void offer(chain_t *chain, uint16_t *list, uint32_t *seen, uint32_t expert)
{
    uint32_t at = (*seen)++;
    if (at >= MOST) at = (uint32_t)(solve_random(chain->random) % *seen);
    if (at < MOST) list[at] = (uint16_t)expert;
}

static void list_experts(chain_t *chain, uint32_t layer)
{
    const solve_problem_t *p = chain->annealer->problem;
    const solve_rank_t *rank_of = chain->annealer->rank_of + (size_t)layer * p->experts;
    stage_t *stage = &chain->stage[layer];
    stage->count_a = stage->count_b = 0;
    for (uint32_t e = 0; e < p->experts; e++) {
        if (rank_of[e] == chain->a) offer(chain, stage->a, &stage->count_a, e);
        if (rank_of[e] == chain->b) offer(chain, stage->b, &stage->count_b, e);
    }
    if (stage->count_a > MOST) stage->count_a = MOST;
    if (stage->count_b > MOST) stage->count_b = MOST;
}

/* Cost of moving the expert from rank `from` to rank `to`, by the flows. */
static float move_cost(const chain_t *chain, uint32_t layer, uint32_t e, uint32_t from, uint32_t to)
{
    const solve_annealer_t *a = chain->annealer;
    const solve_problem_t *p = a->problem;
    uint32_t from_node = p->cluster->rank[from].node, to_node = p->cluster->rank[to].node;
    float cost = (float)p->near_cost *
                 (float)(solve_annealer_flow(a, layer, from)[e] - solve_annealer_flow(a, layer, to)[e]);
    if (from_node == to_node || p->near_cost == p->far_cost) return cost;
    int64_t inside = 0;
    for (uint32_t g = 0; g < p->ranks; g++) {
        uint32_t node = p->cluster->rank[g].node;
        if (node == from_node) inside += solve_annealer_flow(a, layer, g)[e];
        if (node == to_node) inside -= solve_annealer_flow(a, layer, g)[e];
    }
    return cost + (float)(p->far_cost - p->near_cost) * (float)inside;
}

static double peak_without(const double *load, uint32_t ranks, uint32_t a, uint32_t b)
{
    double peak = 0;
    for (uint32_t r = 0; r < ranks; r++)
        if (r != a && r != b && load[r] > peak) peak = load[r];
    return peak;
}

/* The states' own costs. */
static void price_states(chain_t *chain, uint32_t layer)
{
    const solve_annealer_t *an = chain->annealer;
    const solve_problem_t *p = an->problem;
    stage_t *stage = &chain->stage[layer];
    float from_b[MOST];
    for (uint32_t j = 0; j < stage->count_b; j++) from_b[j] = move_cost(chain, layer, stage->b[j], chain->b, chain->a);
    const double *load = an->load + (size_t)layer * p->ranks, *weight = an->weight + (size_t)layer * p->experts;
    double others = 0, now = 0;
    if (p->load_weight != 0) {
        others = peak_without(load, p->ranks, chain->a, chain->b);
        now = fmax(others, fmax(load[chain->a], load[chain->b]));
    }
    for (uint32_t i = 0; i < stage->count_a; i++) {
        float from_a = move_cost(chain, layer, stage->a[i], chain->a, chain->b);
        for (uint32_t j = 0; j < stage->count_b; j++) {
            stage->total[i][j] = from_a + from_b[j];
            if (p->load_weight == 0) continue;
            double shift = weight[stage->a[i]] - weight[stage->b[j]];
            double to_a = load[chain->a] - shift * (double)p->slowness[chain->a],
                   to_b = load[chain->b] + shift * (double)p->slowness[chain->b];
            stage->total[i][j] += (float)(fmax(others, fmax(to_a, to_b)) - now);
        }
    }
    stage->nothing = 0;
    if (chain->temperature == 0) return;
    stage->nothing += noise(chain);
    for (uint32_t i = 0; i < stage->count_a; i++)
        for (uint32_t j = 0; j < stage->count_b; j++) stage->total[i][j] += noise(chain);
}

static void gather(const chain_t *chain, const int32_t *row, const stage_t *to, float *restrict to_a,
                   float *restrict to_b)
{
    for (uint32_t k = 0; k < to->count_a; k++) to_a[k] = chain->both_ways * (float)row[to->a[k]];
    for (uint32_t k = 0; k < to->count_b; k++) to_b[k] = chain->both_ways * (float)row[to->b[k]];
}

static void gather_boundary(chain_t *chain, uint32_t layer)
{
    const solve_problem_t *p = chain->annealer->problem;
    const stage_t *from = &chain->stage[layer - 1];
    stage_t *to = &chain->stage[layer];
    for (uint32_t i = 0; i < from->count_a; i++)
        gather(chain, solve_row(p, layer - 1, from->a[i]), to, to->a_to_a[i], to->a_to_b[i]);
    for (uint32_t j = 0; j < from->count_b; j++)
        gather(chain, solve_row(p, layer - 1, from->b[j]), to, to->b_to_a[j], to->b_to_b[j]);
}

/* For state (i, j) before: sums that end with b's expert k, and what a's expert k adds. */
static inline void add_up(const stage_t *to, uint32_t i, uint32_t j, float *restrict alpha, float *restrict beta)
{
    for (uint32_t k = 0; k < MOST; k++) {
        alpha[k] = to->a_to_b[i][k] - to->b_to_b[j][k];
        beta[k] = to->b_to_a[j][k] - to->a_to_a[i][k];
    }
}

ROWS static void extend(const stage_t *restrict from, stage_t *restrict to)
{
    float best[MOST][MOST], nothing = from->nothing, alpha[MOST], beta[MOST];
    for (uint32_t i = 0; i < MOST; i++)
        for (uint32_t j = 0; j < MOST; j++) best[i][j] = from->nothing;
    for (uint32_t i = 0; i < from->count_a; i++)
        for (uint32_t j = 0; j < from->count_b; j++) {
            float total = from->total[i][j];
            nothing = total < nothing ? total : nothing;
            add_up(to, i, j, alpha, beta);
            for (uint32_t x = 0; x < MOST; x++)
                for (uint32_t y = 0; y < MOST; y++) {
                    float sum = total + alpha[y] + beta[x];
                    best[x][y] = sum < best[x][y] ? sum : best[x][y];
                }
        }
    to->nothing += nothing;
    for (uint32_t i = 0; i < to->count_a; i++)
        for (uint32_t j = 0; j < to->count_b; j++) to->total[i][j] += best[i][j];
}

/* ---- the way back ---- */

typedef struct {
    uint32_t i, j; /* i == MOST: nothing */
} choice_t;

static choice_t best_state(const stage_t *stage)
{
    choice_t choice = {MOST, 0};
    float best = stage->nothing;
    for (uint32_t i = 0; i < stage->count_a; i++)
        for (uint32_t j = 0; j < stage->count_b; j++)
            if (stage->total[i][j] < best) {
                best = stage->total[i][j];
                choice = (choice_t){i, j};
            }
    return choice;
}

/* The state before `layer` through which `next` was reached. */
static choice_t step_back(const chain_t *chain, uint32_t layer, choice_t next)
{
    const stage_t *from = &chain->stage[layer - 1], *to = &chain->stage[layer];
    choice_t choice = {MOST, 0};
    float best = from->nothing;
    for (uint32_t i = 0; i < from->count_a; i++)
        for (uint32_t j = 0; j < from->count_b; j++) {
            float sum = from->total[i][j];
            if (next.i != MOST) {
                sum += to->a_to_b[i][next.j] - to->b_to_b[j][next.j];
                sum += to->b_to_a[j][next.i] - to->a_to_a[i][next.i];
            }
            if (sum >= best) continue;
            best = sum;
            choice = (choice_t){i, j};
        }
    return choice;
}

static void swap_experts(chain_t *chain, uint32_t layer, choice_t choice)
{
    solve_annealer_t *an = chain->annealer;
    const solve_problem_t *p = an->problem;
    uint32_t e = chain->stage[layer].a[choice.i], f = chain->stage[layer].b[choice.j];
    solve_rank_t *rank_of = an->rank_of + (size_t)layer * p->experts;
    double *load = an->load + (size_t)layer * p->ranks;
    double shift = an->weight[(size_t)layer * p->experts + e] - an->weight[(size_t)layer * p->experts + f];
    rank_of[e] = (solve_rank_t)chain->b;
    rank_of[f] = (solve_rank_t)chain->a;
    load[chain->a] -= shift * (double)p->slowness[chain->a];
    load[chain->b] += shift * (double)p->slowness[chain->b];
    solve_annealer_tell(an, layer, e, chain->a, chain->b);
    solve_annealer_tell(an, layer, f, chain->b, chain->a);
}

uint32_t solve_annealer_pair(solve_annealer_t *annealer, solve_search_t *random, const uint32_t pair[2],
                             double temperature)
{
    const solve_problem_t *p = annealer->problem;
    chain_t chain = {.annealer = annealer,
                     .random = random,
                     .a = pair[0],
                     .b = pair[1],
                     .temperature = (float)temperature,
                     .both_ways = (float)(p->cost[(size_t)pair[0] * p->ranks + pair[1]] +
                                          p->cost[(size_t)pair[1] * p->ranks + pair[0]]),
                     .stage = annealer->stages};
    for (uint32_t l = 0; l < p->layers; l++) {
        list_experts(&chain, l);
        price_states(&chain, l);
        if (l == 0) continue;
        gather_boundary(&chain, l);
        extend(&chain.stage[l - 1], &chain.stage[l]);
    }
    uint32_t swaps = 0;
    choice_t choice = best_state(&chain.stage[p->layers - 1]);
    for (uint32_t l = p->layers; l-- > 0;) {
        choice_t before = l > 0 ? step_back(&chain, l, choice) : choice;
        if (choice.i != MOST) {
            swap_experts(&chain, l, choice);
            swaps++;
        }
        choice = before;
    }
    return swaps;
}
