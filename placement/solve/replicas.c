#include "placement/solve/replicas.h"

#include "base/memory.h"
#include "placement/solve/baselines.h"
#include "placement/solve/evaluate.h"
#include "placement/solve/portfolio.h"

#include <stdio.h>
#include <string.h>

enum { TRIED = 6 }; /* candidates judged for one slot */

#define NOBODY UINT32_MAX

/* A copy of an expert on a rank that has none; where the rank is full its lightest expert makes room. */
typedef struct {
    double gain; /* estimated, in thousandths of the objective */
    uint32_t expert, rank;
    uint32_t leaves, to; /* an expert of that rank, and the rank with a free slot where it goes; NOBODY: none */
} candidate_t;

typedef struct {
    const solve_problem_t *problem;
    const solve_context_t *context;
    bool *on;       /* [layers, ranks, experts] */
    uint32_t *held; /* [layers, ranks] */
    double *load;   /* [ranks] x slowness, of the layer at hand */
    double *share;  /* [experts, ranks] of the layer before: where an expert's tokens are */
    double *inflow; /* [experts, ranks] transitions that arrive for an expert at a rank */
} replicas_t;

static bool *row(const replicas_t *r, uint32_t layer, uint32_t rank)
{
    return r->on + ((size_t)layer * r->problem->ranks + rank) * r->problem->experts;
}

/* Homes that each rank serves of an expert, out of `ranks`: place_plan_rank's rule. */
static void count_homes(const replicas_t *r, uint32_t layer, uint32_t expert, uint32_t extra, uint32_t *homes)
{
    uint32_t ranks = r->problem->ranks, copies[PLACE_MAX_RANKS], count = 0;
    for (uint32_t g = 0; g < ranks; g++) {
        homes[g] = 0;
        if (g == extra || row(r, layer, g)[expert]) copies[count++] = g;
    }
    for (uint32_t home = 0, at = 0; home < ranks; home++) {
        while (at < count && copies[at] < home) at++;
        bool own = at < count && copies[at] == home;
        homes[own ? home : copies[(home + expert) % count]]++;
    }
}

static void measure_layer(replicas_t *r, uint32_t layer)
{
    const solve_problem_t *p = r->problem;
    uint32_t homes[PLACE_MAX_RANKS];
    memset(r->load, 0, p->ranks * sizeof(*r->load));
    for (uint32_t e = 0; e < p->experts; e++) {
        count_homes(r, layer, e, NOBODY, homes);
        for (uint32_t g = 0; g < p->ranks; g++)
            r->load[g] += (double)p->load[(size_t)layer * p->experts + e] * homes[g] / p->ranks *
                          (double)p->slowness[g];
    }
    if (p->transition == NULL || layer == 0) return;
    for (uint32_t e = 0; e < p->experts; e++) {
        count_homes(r, layer - 1, e, NOBODY, homes);
        for (uint32_t g = 0; g < p->ranks; g++) r->share[(size_t)e * p->ranks + g] = (double)homes[g] / p->ranks;
    }
    memset(r->inflow, 0, (size_t)p->experts * p->ranks * sizeof(*r->inflow));
    for (uint32_t f = 0; f < p->experts; f++) {
        const int32_t *column = solve_column(p, layer - 1, f);
        for (uint32_t e = 0; e < p->experts; e++)
            for (uint32_t g = 0; column[e] != 0 && g < p->ranks; g++)
                r->inflow[(size_t)f * p->ranks + g] += column[e] * r->share[(size_t)e * p->ranks + g];
    }
}

static double largest(const double *load, uint32_t ranks)
{
    double most = 0;
    for (uint32_t g = 0; g < ranks; g++)
        if (load[g] > most) most = load[g];
    return most;
}

static double load_on(const replicas_t *r, uint32_t layer, uint32_t expert, uint32_t homes)
{
    const solve_problem_t *p = r->problem;
    return (double)p->load[(size_t)layer * p->experts + expert] * homes / p->ranks;
}

/* What the copy takes off the largest load, and the crossings into the layer that it makes local. */
static double estimate(const replicas_t *r, uint32_t layer, const candidate_t *c)
{
    const solve_problem_t *p = r->problem;
    uint32_t before[PLACE_MAX_RANKS], after[PLACE_MAX_RANKS];
    double load[PLACE_MAX_RANKS], gain = 0;
    if (p->load_weight != 0) {
        count_homes(r, layer, c->expert, NOBODY, before);
        count_homes(r, layer, c->expert, c->rank, after);
        for (uint32_t g = 0; g < p->ranks; g++)
            load[g] = r->load[g] + (load_on(r, layer, c->expert, after[g]) - load_on(r, layer, c->expert, before[g])) *
                                       (double)p->slowness[g];
        if (c->leaves != NOBODY) {
            count_homes(r, layer, c->leaves, NOBODY, before);
            double moved = load_on(r, layer, c->leaves, before[c->rank]);
            load[c->rank] -= moved * (double)p->slowness[c->rank];
            load[c->to] += moved * (double)p->slowness[c->to];
        }
        gain += (double)p->load_weight / SOLVE_UNIT * (largest(r->load, p->ranks) - largest(load, p->ranks));
    }
    if (p->transition == NULL || layer == 0) return gain;
    int64_t cheapest = INT64_MAX; /* of the links to the copies there are */
    for (uint32_t g = 0; g < p->ranks; g++)
        if (row(r, layer, g)[c->expert] && p->cost[(size_t)c->rank * p->ranks + g] < cheapest)
            cheapest = p->cost[(size_t)c->rank * p->ranks + g];
    return gain + r->inflow[(size_t)c->expert * p->ranks + c->rank] * (double)cheapest;
}

/* Who makes room on a full rank, and where to; false if nobody can. */
static bool make_room(const replicas_t *r, uint32_t layer, candidate_t *c)
{
    const solve_problem_t *p = r->problem;
    const int64_t *load = p->load + (size_t)layer * p->experts;
    c->leaves = c->to = NOBODY;
    if (r->held[(size_t)layer * p->ranks + c->rank] < p->slots[c->rank]) return true;
    for (uint32_t e = 0; e < p->experts; e++)
        if (row(r, layer, c->rank)[e] && (c->leaves == NOBODY || load[e] < load[c->leaves])) c->leaves = e;
    for (uint32_t g = 0; g < p->ranks && c->leaves != NOBODY; g++) {
        bool room = r->held[(size_t)layer * p->ranks + g] < p->slots[g];
        if (g == c->rank || !room || row(r, layer, g)[c->leaves]) continue;
        if (c->to == NOBODY || r->load[g] < r->load[c->to]) c->to = g;
    }
    return c->to != NOBODY;
}

/* The best few, best first. */
static uint32_t list_candidates(const replicas_t *r, uint32_t layer, candidate_t *best)
{
    const solve_problem_t *p = r->problem;
    uint32_t count = 0;
    for (uint32_t g = 0; g < p->ranks; g++) {
        candidate_t here = {.rank = g};
        if (!make_room(r, layer, &here)) continue;
        for (uint32_t e = 0; e < p->experts; e++) {
            if (row(r, layer, g)[e]) continue;
            here.expert = e;
            here.gain = estimate(r, layer, &here);
            if (here.gain <= 0 || (count == TRIED && here.gain <= best[count - 1].gain)) continue;
            uint32_t at = count < TRIED ? count++ : count - 1;
            for (; at > 0 && best[at - 1].gain < here.gain; at--) best[at] = best[at - 1];
            best[at] = here;
        }
    }
    return count;
}

/* ---- judging ---- */

static cot_status_t to_plan(const replicas_t *r, uint32_t first, uint32_t layers, place_plan_t **plan_out)
{
    const solve_problem_t *p = r->problem;
    place_plan_t *plan = NULL;
    uint32_t slots = 0;
    for (uint32_t i = first * p->ranks; i < (first + layers) * p->ranks; i++) slots += r->held[i];
    COT_TRY(place_plan_contiguous(layers, p->stats->layer_index + first, p->experts, p->ranks, &plan));
    cot_free(plan->slot_expert);
    plan->slot_expert = cot_calloc(slots, sizeof(*plan->slot_expert));
    if (plan->slot_expert == NULL) {
        place_plan_destroy(plan);
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for a placement");
    }
    for (uint32_t l = 0, at = 0; l < layers; l++)
        for (uint32_t g = 0; g < p->ranks; g++) {
            for (uint32_t e = 0; e < p->experts; e++)
                if (row(r, first + l, g)[e]) plan->slot_expert[at++] = e;
            plan->slot_begin[(size_t)l * p->ranks + g + 1] = at;
        }
    *plan_out = plan;
    return COT_OK;
}

/* The objective of the layers around one: what its copies change. Farther on their shares fade. */
static cot_status_t judge(const replicas_t *r, uint32_t layer, int64_t *value_out)
{
    const solve_problem_t *p = r->problem;
    bool chained = p->transition != NULL;
    uint32_t first = chained && layer > 0 ? layer - 1 : layer, end = chained ? layer + 3 : layer + 1;
    if (end > p->layers) end = p->layers;
    size_t pairs = (size_t)p->experts * p->experts;
    place_stats_t stats = *p->stats;
    stats.layers = end - first;
    stats.layer_index += first;
    stats.load += (size_t)first * p->experts;
    if (stats.transition != NULL) stats.transition += first * pairs;
    if (stats.coactivation != NULL) stats.coactivation += first * pairs;
    solve_problem_t part = *p;
    part.stats = &stats;
    part.layers = stats.layers;
    place_plan_t *plan = NULL;
    solve_figures_t figures;
    COT_TRY(to_plan(r, first, stats.layers, &plan));
    cot_status_t status = solve_evaluate(&part, plan, &figures);
    place_plan_destroy(plan);
    COT_TRY(status);
    *value_out = figures.value;
    return COT_OK;
}

static void set(replicas_t *r, uint32_t layer, uint32_t rank, uint32_t expert, bool on)
{
    row(r, layer, rank)[expert] = on;
    r->held[(size_t)layer * r->problem->ranks + rank] += on ? 1 : UINT32_MAX;
}

static void put(replicas_t *r, uint32_t layer, const candidate_t *copy, bool on)
{
    set(r, layer, copy->rank, copy->expert, on);
    if (copy->leaves == NOBODY) return;
    set(r, layer, copy->rank, copy->leaves, !on);
    set(r, layer, copy->to, copy->leaves, on);
}

/* One more copy, if one makes it better. */
static cot_status_t add_best(replicas_t *r, uint32_t layer, bool *added_out)
{
    candidate_t list[TRIED];
    int64_t now = 0, best = 0;
    uint32_t chosen = TRIED;
    *added_out = false;
    measure_layer(r, layer);
    uint32_t count = list_candidates(r, layer, list);
    if (count == 0) return COT_OK;
    COT_TRY(judge(r, layer, &now));
    best = now;
    for (uint32_t i = 0; i < count && !solve_context_over(r->context); i++) {
        int64_t value = 0;
        put(r, layer, &list[i], true);
        cot_status_t status = judge(r, layer, &value);
        put(r, layer, &list[i], false);
        COT_TRY(status);
        if (value >= best) continue;
        best = value;
        chosen = i;
    }
    if (chosen == TRIED) return COT_OK;
    put(r, layer, &list[chosen], true);
    *added_out = true;
    return COT_OK;
}

static void read_plan(replicas_t *r, const place_plan_t *plan)
{
    for (uint32_t l = 0; l < plan->layers; l++)
        for (uint32_t g = 0; g < plan->ranks; g++) {
            const uint32_t *begin = plan->slot_begin + (size_t)l * plan->ranks + g;
            r->held[(size_t)l * plan->ranks + g] = begin[1] - begin[0];
            for (uint32_t slot = begin[0]; slot < begin[1]; slot++) row(r, l, g)[plan->slot_expert[slot]] = true;
        }
}

static cot_status_t fill(replicas_t *r, place_plan_t **plan_inout, uint32_t *added_out)
{
    solve_figures_t before, after;
    uint32_t total = 0;
    COT_TRY(solve_evaluate(r->problem, *plan_inout, &before));
    read_plan(r, *plan_inout);
    for (uint32_t l = 0; l < r->problem->layers; l++)
        for (bool added = true; added && !solve_context_over(r->context); total += added)
            COT_TRY(add_best(r, l, &added));
    place_plan_t *plan = NULL;
    COT_TRY(to_plan(r, 0, r->problem->layers, &plan));
    cot_status_t status = solve_evaluate(r->problem, plan, &after);
    if (status != COT_OK || after.value >= before.value) {
        place_plan_destroy(plan);
        return status;
    }
    place_plan_destroy(*plan_inout);
    *plan_inout = plan;
    *added_out = total;
    return COT_OK;
}

cot_status_t solve_add_replicas(const solve_problem_t *p, const solve_context_t *context, place_plan_t **plan_inout,
                                uint32_t *added_out)
{
    size_t rows = (size_t)p->layers * p->ranks, sides = (size_t)p->experts * p->ranks;
    *added_out = 0;
    if (p->free_slots == 0) return COT_OK;
    replicas_t r = {.problem = p, .context = context};
    r.on = cot_calloc(rows * p->experts, sizeof(*r.on));
    r.held = cot_calloc(rows, sizeof(*r.held));
    r.load = cot_calloc(p->ranks + 2 * sides, sizeof(*r.load));
    cot_status_t status = COT_OK;
    if (r.on == NULL || r.held == NULL || r.load == NULL) {
        status = cot_fail(COT_ERR_NO_MEMORY, "no memory for replicas");
    } else {
        r.share = r.load + p->ranks;
        r.inflow = r.share + sides;
        status = fill(&r, plan_inout, added_out);
    }
    cot_free(r.on);
    cot_free(r.held);
    cot_free(r.load);
    return status;
}

/* ---- the solver ---- */

static cot_status_t find_base(const solve_problem_t *p, const solve_context_t *context, solve_answer_t *answer)
{
    if (context->start == NULL && p->transition == NULL) return solve_lpt(p, context, answer);
    if (context->start == NULL) {
        solve_context_t half = *context;
        int64_t now = cot_now_ns();
        if (half.deadline != COT_NEVER && half.deadline > now) half.deadline = now + (half.deadline - now) / 2;
        return solve_portfolio(p, &half, answer);
    }
    cot_buffer_t text = {0};
    cot_status_t status = place_plan_print(context->start, &text);
    if (status == COT_OK) status = place_plan_parse((const char *)text.data, text.size, "the start", &answer->plan);
    cot_buffer_free(&text);
    return status;
}

cot_status_t solve_replicas(const solve_problem_t *p, const solve_context_t *context, solve_answer_t *answer_out)
{
    solve_answer_t answer = {0};
    uint32_t added = 0;
    if (p->free_slots == 0)
        return cot_fail(COT_ERR_UNSUPPORTED, "replicas: no slot is free: give the cluster's ranks more slots");
    COT_TRY(find_base(p, context, &answer));
    answer.proved = SOLVE_NOT_PROVED;
    cot_status_t status = solve_add_replicas(p, context, &answer.plan, &added);
    solve_figures_t figures = {0};
    if (status == COT_OK) status = solve_evaluate(p, answer.plan, &figures);
    if (status != COT_OK) {
        place_plan_destroy(answer.plan);
        return status;
    }
    int64_t ideal = 0;
    if (p->load_weight != 0 && !p->decode && p->objective != SOLVE_STEP_TIME &&
        solve_ideal_balance(p, answer.plan, context, &ideal) == COT_OK)
        snprintf(answer.note, sizeof(answer.note), "%u copies; balance %.6g, with ideal routing %.6g", added,
                 (double)figures.balance / SOLVE_UNIT, (double)ideal / SOLVE_UNIT);
    else
        snprintf(answer.note, sizeof(answer.note), "%u copies", added);
    *answer_out = answer;
    return COT_OK;
}
