/* The crossings (and loads) of a placement without replicas as one integer program. A product of two assignments is a
 * variable y(e, f, g) that no more than both can be; the cardinality rows multiplied by each assignment (RLT) make the
 * relaxation as strong as the b-matching. For tiny cases, and as an oracle of the tests. */
#include "placement/solve/baselines.h"
#include "placement/solve/milp.h"

#include "base/memory.h"

#include <math.h>
#include <stdio.h>

#define MEMORY_BYTES (UINT64_C(512) << 20)

typedef struct {
    const solve_problem_t *problem;
    double scale;      /* value in thousandths to the program's */
    uint32_t pairs_at; /* first y */
    uint32_t loads_at; /* first of the layers' largest loads */
    uint64_t pairs, nonzeros, rows;
} ilp_t;

static uint32_t x_of(const solve_problem_t *p, size_t layer, size_t e, size_t g)
{
    return (uint32_t)((layer * p->experts + e) * p->ranks + g);
}

/* y(e, g, f, h): the transitions of (e, f) go from rank g to rank h. */
static uint32_t y_of(const ilp_t *ilp, size_t boundary, size_t e, size_t g, size_t f, size_t h)
{
    const solve_problem_t *p = ilp->problem;
    return ilp->pairs_at + (uint32_t)((((boundary * p->experts + e) * p->ranks + g) * p->experts + f) * p->ranks + h);
}

static void measure(ilp_t *ilp)
{
    const solve_problem_t *p = ilp->problem;
    uint64_t cells = solve_cells(p), sides = (uint64_t)p->experts * p->ranks;
    uint64_t boundaries = p->transition != NULL ? p->layers - 1 : 0;
    bool loads = p->load_weight != 0;
    ilp->pairs = boundaries * sides * sides;
    ilp->pairs_at = (uint32_t)(cells * p->ranks);
    ilp->loads_at = (uint32_t)(cells * p->ranks + ilp->pairs);
    ilp->rows = cells + (uint64_t)p->layers * p->ranks * (loads ? 2 : 1) + boundaries * sides * 2 * p->experts;
    ilp->nonzeros = cells * p->ranks * (loads ? 3 : 2) + (loads ? (uint64_t)p->layers * p->ranks : 0) +
                    boundaries * sides * 2 * p->experts * (p->ranks + 1);
}

static void add_placement(const ilp_t *ilp, solve_milp_t *milp)
{
    const solve_problem_t *p = ilp->problem;
    for (size_t l = 0; l < p->layers; l++) {
        for (size_t e = 0; e < p->experts; e++) {
            solve_milp_row(milp, 1, 1);
            for (size_t g = 0; g < p->ranks; g++) {
                solve_milp_binary(milp, x_of(p, l, e, g));
                solve_milp_add(milp, x_of(p, l, e, g), 1);
            }
        }
        for (size_t g = 0; g < p->ranks; g++) {
            solve_milp_row(milp, -HUGE_VAL, p->slots[g]);
            for (size_t e = 0; e < p->experts; e++) solve_milp_add(milp, x_of(p, l, e, g), 1);
        }
        if (p->load_weight == 0) continue;
        milp->objective[ilp->loads_at + l] = 1;
        for (size_t g = 0; g < p->ranks; g++) {
            solve_milp_row(milp, 0, HUGE_VAL);
            solve_milp_add(milp, ilp->loads_at + (uint32_t)l, 1);
            for (size_t e = 0; e < p->experts; e++)
                solve_milp_add(milp, x_of(p, l, e, g),
                               -ilp->scale * (double)p->load_weight / SOLVE_UNIT *
                                   (double)(p->load[l * p->experts + e] * p->slowness[g]));
        }
    }
}

/* For each expert and rank and each expert on the other side: its y over that expert's ranks sum to x. */
static void add_products(const ilp_t *ilp, solve_milp_t *milp, size_t boundary)
{
    const solve_problem_t *p = ilp->problem;
    for (size_t e = 0; e < p->experts; e++)
        for (size_t g = 0; g < p->ranks; g++)
            for (size_t f = 0; f < p->experts; f++) {
                solve_milp_row(milp, 0, 0);
                solve_milp_add(milp, x_of(p, boundary, e, g), -1);
                for (size_t h = 0; h < p->ranks; h++) {
                    uint32_t y = y_of(ilp, boundary, e, g, f, h);
                    solve_milp_add(milp, y, 1);
                    milp->objective[y] = ilp->scale * (double)p->cost[g * p->ranks + h] *
                                         (double)solve_row(p, (uint32_t)boundary, (uint32_t)e)[f];
                }
                solve_milp_row(milp, 0, 0);
                solve_milp_add(milp, x_of(p, boundary + 1, e, g), -1);
                for (size_t h = 0; h < p->ranks; h++) solve_milp_add(milp, y_of(ilp, boundary, f, h, e, g), 1);
            }
}

static cot_status_t to_answer(const solve_problem_t *p, const double *x, const solve_milp_result_t *result,
                              solve_answer_t *answer)
{
    solve_rank_t *rank_of = cot_calloc(solve_cells(p), sizeof(*rank_of));
    if (rank_of == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a placement");
    for (size_t i = 0; i < solve_cells(p) * p->ranks; i++)
        if (x[i] > 0.5) rank_of[i / p->ranks] = (solve_rank_t)(i % p->ranks);
    snprintf(answer->note, sizeof(answer->note), "%s", result->ended);
    cot_status_t status = solve_plan_from_ranks(p, rank_of, &answer->plan);
    cot_free(rank_of);
    return status;
}

/* The contiguous placement as an x of the program. */
static cot_status_t fill_start(const ilp_t *ilp, double *x)
{
    const solve_problem_t *p = ilp->problem;
    solve_rank_t *rank_of = cot_calloc(solve_cells(p), sizeof(*rank_of));
    if (rank_of == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a start");
    solve_contiguous(p, rank_of);
    for (size_t l = 0; l < p->layers; l++) {
        const solve_rank_t *here = rank_of + l * p->experts;
        double load[PLACE_MAX_RANKS] = {0};
        for (size_t e = 0; e < p->experts; e++) {
            x[x_of(p, l, e, here[e])] = 1;
            load[here[e]] += ilp->scale * (double)p->load_weight / SOLVE_UNIT *
                             (double)(p->load[l * p->experts + e] * p->slowness[here[e]]);
            for (size_t f = 0; p->transition != NULL && l + 1 < p->layers && f < p->experts; f++)
                x[y_of(ilp, l, e, here[e], f, here[p->experts + f])] = 1;
        }
        for (size_t g = 0; p->load_weight != 0 && g < p->ranks; g++)
            x[ilp->loads_at + l] = fmax(x[ilp->loads_at + l], load[g]);
    }
    cot_free(rank_of);
    return COT_OK;
}

cot_status_t solve_ilp(const solve_problem_t *p, const solve_context_t *context, solve_answer_t *answer_out)
{
    if (p->objective == SOLVE_STEP_TIME)
        return cot_fail(COT_ERR_UNSUPPORTED, "ilp: there is no program for step_time: plan with --objective crossings");
    ilp_t ilp = {.problem = p};
    double all = 0;
    for (size_t i = 0; p->transition != NULL && i < (size_t)(p->layers - 1) * p->experts * p->experts; i++)
        all += p->transition[i];
    for (size_t i = 0; p->load_weight != 0 && i < solve_cells(p); i++)
        all += (double)p->load_weight / SOLVE_UNIT * (double)p->load[i];
    ilp.scale = 0.1 / (all > 0 ? all : 1); /* about percent */
    measure(&ilp);
    solve_milp_t *milp = NULL;
    cot_status_t status = solve_milp_create(ilp.loads_at + (uint64_t)p->layers, ilp.rows, ilp.nonzeros, &milp);
    if (status != COT_OK) return cot_fail_in(status, "ilp");
    double *x = cot_calloc(milp->columns, sizeof(*x)), *start = cot_calloc(milp->columns, sizeof(*start));
    solve_answer_t answer = {0};
    solve_milp_result_t result = {0};
    if (x == NULL || start == NULL) status = cot_fail(COT_ERR_NO_MEMORY, "no memory for an answer");
    if (status == COT_OK) status = fill_start(&ilp, start);
    if (status == COT_OK) {
        add_placement(&ilp, milp);
        for (uint32_t l = 0; p->transition != NULL && l + 1 < p->layers; l++) add_products(&ilp, milp, l);
        solve_milp_config_t config = {context->deadline, context->stop, MEMORY_BYTES, 0, start};
        status = solve_milp_run(milp, &config, x, &result);
    }
    if (status == COT_OK) status = to_answer(p, x, &result, &answer);
    cot_free(x);
    cot_free(start);
    solve_milp_destroy(milp);
    COT_TRY(status);
    *answer_out = answer;
    return COT_OK;
}
