/* MoETuner's two integer programs (arXiv 2502.06643, section 4) with what the paper's text asks for but its equations
 * leave out: every expert in exactly one cluster; clusters no larger than a rank's slots (its "equal memory"); and no
 * link of a rank to itself among those whose dearest counts. */
#include "placement/solve/baselines.h"
#include "placement/solve/milp.h"

#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MEMORY_BYTES (UINT64_C(512) << 20)
#define TOLERANCE 0.025 /* the paper's */

typedef struct {
    const solve_problem_t *problem;
    const solve_context_t *context;
    cot_deadline_t deadline;
    solve_rank_t *rank_of; /* [layers, experts] the cluster, then the rank */
    void *scratch;
    uint32_t optimal; /* layers whose clusters GLPK proved */
    char stage_two[96];
} tuner_t;

/* ---- first: experts into clusters ---- */

/* Minimise sum of d, d >= |T - share of the cluster|, T = sum of load x. Cluster c has rank c's slots and speed. In
 * percent of the mean. */
static void fill_clusters(const tuner_t *t, uint32_t layer, solve_milp_t *milp, double *start)
{
    const solve_problem_t *p = t->problem;
    const int64_t *load = p->load + (size_t)layer * p->experts;
    double sum = 0, speeds = 0;
    for (uint32_t e = 0; e < p->experts; e++) sum += (double)load[e];
    for (uint32_t c = 0; c < p->ranks; c++) speeds += 1 / (double)p->slowness[c];
    double scale = sum > 0 ? 100 * p->ranks / sum : 1;
    for (uint32_t e = 0; e < p->experts; e++) {
        solve_milp_row(milp, 1, 1);
        for (uint32_t c = 0; c < p->ranks; c++) {
            solve_milp_binary(milp, e * p->ranks + c);
            solve_milp_add(milp, e * p->ranks + c, 1);
            start[e * p->ranks + c] = t->rank_of[(size_t)layer * p->experts + e] == c;
        }
    }
    for (uint32_t c = 0; c < p->ranks; c++) {
        uint32_t d = p->experts * p->ranks + c;
        double share = sum * scale / (double)p->slowness[c] / speeds, here = 0;
        milp->objective[d] = 1;
        solve_milp_row(milp, -HUGE_VAL, p->slots[c]);
        for (uint32_t e = 0; e < p->experts; e++) solve_milp_add(milp, e * p->ranks + c, 1);
        for (int sign = -1; sign <= 1; sign += 2) {
            solve_milp_row(milp, sign * share, HUGE_VAL); /* d + T >= share, d - T >= -share */
            solve_milp_add(milp, d, 1);
            for (uint32_t e = 0; e < p->experts; e++)
                solve_milp_add(milp, e * p->ranks + c, sign * (double)load[e] * scale);
        }
        for (uint32_t e = 0; e < p->experts; e++)
            if (t->rank_of[(size_t)layer * p->experts + e] == c) here += (double)load[e] * scale;
        start[d] = fabs(here - share);
    }
}

static cot_status_t solve_program(const tuner_t *t, const solve_milp_t *milp, cot_deadline_t deadline, double *x,
                                  solve_milp_result_t *result)
{
    double *start = cot_alloc(milp->columns * sizeof(*start));
    if (start == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a start");
    memcpy(start, x, milp->columns * sizeof(*start));
    solve_milp_config_t config = {deadline, t->context->stop, MEMORY_BYTES, TOLERANCE, start};
    cot_status_t status = solve_milp_run(milp, &config, x, result);
    cot_free(start);
    return status;
}

static cot_status_t cluster_layer(tuner_t *t, uint32_t layer, cot_deadline_t deadline)
{
    const solve_problem_t *p = t->problem;
    uint64_t cells = (uint64_t)p->experts * p->ranks;
    solve_milp_t *milp = NULL;
    solve_lpt_layer(p, layer, t->rank_of + (size_t)layer * p->experts, t->scratch);
    COT_TRY(solve_milp_create(cells + p->ranks, p->experts + 3 * (uint64_t)p->ranks, 4 * cells + 2 * p->ranks, &milp));
    double *x = cot_calloc(milp->columns, sizeof(*x));
    solve_milp_result_t result = {0};
    cot_status_t status = x != NULL ? COT_OK : cot_fail(COT_ERR_NO_MEMORY, "no memory for an answer");
    if (status == COT_OK) {
        fill_clusters(t, layer, milp, x);
        status = solve_program(t, milp, deadline, x, &result);
    }
    for (size_t i = 0; status == COT_OK && i < cells; i++)
        if (x[i] > 0.5) t->rank_of[(size_t)layer * p->experts + i / p->ranks] = (solve_rank_t)(i % p->ranks);
    t->optimal += result.outcome == SOLVE_MILP_OPTIMAL;
    cot_free(x);
    solve_milp_destroy(milp);
    return status;
}

/* ---- second: clusters onto ranks ---- */

/* Tokens from cluster a of a layer to cluster b of the next, [ranks, ranks]. */
static void count_flows(const tuner_t *t, uint32_t layer, double *flow)
{
    const solve_problem_t *p = t->problem;
    const solve_rank_t *from = t->rank_of + (size_t)layer * p->experts, *to = from + p->experts;
    const int64_t *pairs = p->stats->transition + (size_t)layer * p->experts * p->experts;
    memset(flow, 0, (size_t)p->ranks * p->ranks * sizeof(*flow));
    for (uint32_t e = 0; e < p->experts; e++)
        for (uint32_t f = 0; f < p->experts; f++)
            flow[(size_t)from[e] * p->ranks + to[f]] += (double)pairs[(size_t)e * p->experts + f];
}

static uint32_t y_of(const tuner_t *t, uint32_t layer, uint32_t cluster, uint32_t rank)
{
    return (layer * t->problem->ranks + cluster) * t->problem->ranks + rank;
}

/* One to one, and only onto ranks alike in slots and speed to the one that the cluster was made for. */
static void add_assignment(const tuner_t *t, solve_milp_t *milp, double *start)
{
    const solve_problem_t *p = t->problem;
    for (uint32_t l = 0; l < p->layers; l++)
        for (uint32_t side = 0; side < 2; side++)
            for (uint32_t a = 0; a < p->ranks; a++) {
                solve_milp_row(milp, 1, 1);
                for (uint32_t b = 0; b < p->ranks; b++)
                    solve_milp_add(milp, side == 0 ? y_of(t, l, a, b) : y_of(t, l, b, a), 1);
            }
    for (uint32_t l = 0; l < p->layers; l++)
        for (uint32_t c = 0; c < p->ranks; c++)
            for (uint32_t g = 0; g < p->ranks; g++) {
                solve_milp_binary(milp, y_of(t, l, c, g));
                if (p->slots[c] != p->slots[g] || p->slowness[c] != p->slowness[g]) milp->upper[y_of(t, l, c, g)] = 0;
                start[y_of(t, l, c, g)] = c == g;
            }
}

/* t >= flow(a, b) / bandwidth(g, h) if a is on g and b on h != g, for all b at once:
 * t - sum over b of w y(b, h) - most x y(a, g) >= -most, w = flow(a, b) / bandwidth, most the largest of them. */
static void add_links(const tuner_t *t, solve_milp_t *milp, uint32_t layer, const double *flow, double *start)
{
    const solve_problem_t *p = t->problem;
    uint32_t peak = p->layers * p->ranks * p->ranks + layer;
    double all = 0, worst = 0;
    for (uint32_t i = 0; i < p->ranks * p->ranks; i++) all += flow[i];
    milp->objective[peak] = 1;
    for (uint32_t a = 0; a < p->ranks; a++)
        for (uint32_t g = 0; g < p->ranks; g++)
            for (uint32_t h = 0; h < p->ranks; h++) {
                if (g == h) continue;
                double rate = place_cluster_link(p->cluster, g, h)->gigabytes_per_s, most = 0;
                solve_milp_row(milp, 0, HUGE_VAL);
                solve_milp_add(milp, peak, 1);
                for (uint32_t b = 0; b < p->ranks; b++) {
                    double cost = all > 0 ? 100 * flow[(size_t)a * p->ranks + b] / all / rate : 0;
                    solve_milp_add(milp, y_of(t, layer + 1, b, h), -cost);
                    if (cost > most) most = cost;
                    if (a == g && b == h && cost > worst) worst = cost;
                }
                solve_milp_add(milp, y_of(t, layer, a, g), -most);
                milp->row_lower[milp->rows - 1] = -most;
            }
    start[peak] = worst;
}

static void lay_clusters(tuner_t *t, const double *x)
{
    const solve_problem_t *p = t->problem;
    for (size_t cell = 0; cell < solve_cells(p); cell++)
        for (uint32_t g = 0, c = t->rank_of[cell]; g < p->ranks; g++)
            if (x[y_of(t, (uint32_t)(cell / p->experts), c, g)] > 0.5) t->rank_of[cell] = (solve_rank_t)g;
}

static cot_status_t place_clusters(tuner_t *t)
{
    const solve_problem_t *p = t->problem;
    uint64_t ranks = p->ranks, boundaries = p->layers - 1, links = boundaries * ranks * ranks * (ranks - 1);
    solve_milp_t *milp = NULL;
    solve_milp_result_t result = {0};
    COT_TRY(solve_milp_create(p->layers * ranks * ranks + boundaries, 2 * p->layers * ranks + links,
                              2 * p->layers * ranks * ranks + links * (ranks + 2), &milp));
    double *x = cot_calloc(milp->columns, sizeof(*x)), *flow = cot_calloc(ranks * ranks, sizeof(*flow));
    cot_status_t status = COT_OK;
    if (x == NULL || flow == NULL) status = cot_fail(COT_ERR_NO_MEMORY, "no memory for a linear program");
    if (status == COT_OK) {
        add_assignment(t, milp, x);
        for (uint32_t l = 0; l < boundaries; l++) {
            count_flows(t, l, flow);
            add_links(t, milp, l, flow, x);
        }
        status = solve_program(t, milp, t->deadline, x, &result);
    }
    if (status == COT_OK) {
        lay_clusters(t, x);
        snprintf(t->stage_two, sizeof(t->stage_two), "%s", result.ended);
    }
    cot_free(x);
    cot_free(flow);
    solve_milp_destroy(milp);
    return status;
}

static cot_status_t run(tuner_t *t, solve_answer_t *answer)
{
    const solve_problem_t *p = t->problem;
    int64_t began = cot_now_ns(), half = (t->deadline > began ? t->deadline - began : 0) / 2;
    for (uint32_t l = 0; l < p->layers; l++) {
        int64_t now = cot_now_ns(), left = began + half > now ? began + half - now : 0;
        COT_TRY(cluster_layer(t, l, now + left / (p->layers - l)));
    }
    snprintf(t->stage_two, sizeof(t->stage_two), "none, for want of transitions");
    if (p->stats->transition != NULL && p->layers > 1 && p->ranks > 1) {
        cot_status_t status = place_clusters(t);
        if (status == COT_ERR_LIMIT) {
            uint64_t ranks = p->ranks;
            snprintf(t->stage_two, sizeof(t->stage_two), "not built: over %llu nonzeros (%llu)",
                     (unsigned long long)SOLVE_MILP_NONZEROS,
                     (unsigned long long)((p->layers - 1) * ranks * ranks * (ranks - 1) * (ranks + 2)));
        } else {
            COT_TRY(status);
        }
    }
    COT_TRY(solve_plan_from_ranks(p, t->rank_of, &answer->plan));
    snprintf(answer->note, sizeof(answer->note), "clusters: %u of %u layers within the paper's gap%s; ranks: %.60s",
             t->optimal, p->layers, t->optimal < p->layers ? ", the others best so far (from LPT)" : "", t->stage_two);
    return COT_OK;
}

cot_status_t solve_moetuner(const solve_problem_t *p, const solve_context_t *context, solve_answer_t *answer_out)
{
    tuner_t t = {.problem = p, .context = context, .deadline = context->deadline};
    if (t.deadline == COT_NEVER) t.deadline = cot_deadline_in_ms(60000);
    t.rank_of = cot_calloc(solve_cells(p), sizeof(*t.rank_of));
    t.scratch = cot_calloc(p->experts, 16);
    solve_answer_t answer = {0};
    cot_status_t status = COT_OK;
    if (t.rank_of == NULL || t.scratch == NULL) status = cot_fail(COT_ERR_NO_MEMORY, "no memory for a placement");
    if (status == COT_OK) status = run(&t, &answer);
    cot_free(t.rank_of);
    cot_free(t.scratch);
    if (status != COT_OK) return cot_fail_in(status, "moetuner");
    *answer_out = answer;
    return COT_OK;
}
