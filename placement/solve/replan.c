#include "placement/solve/replan.h"

#include "base/memory.h"
#include "placement/solve/table.h"

#include <string.h>

typedef struct {
    const solve_problem_t *problem;
    solve_table_t *table;
    const solve_rank_t *start;
    uint64_t moved, most;
} replan_t;

typedef struct {
    uint32_t layer, e, f, to; /* f == experts: into a free slot of `to` */
    int64_t change, moves;    /* of the objective; of experts away from the start */
} step_t;

static int64_t away(const replan_t *r, size_t cell, uint32_t rank)
{
    return rank != r->start[cell];
}

static void judge(const replan_t *r, step_t *step)
{
    const solve_problem_t *p = r->problem;
    size_t row = (size_t)step->layer * p->experts;
    uint32_t from = r->table->rank_of[row + step->e];
    const int64_t *load = r->table->load + (size_t)step->layer * p->ranks, *tokens = p->load + row;
    int64_t shift = tokens[step->e];
    step->moves = away(r, row + step->e, step->to) - away(r, row + step->e, from);
    step->change = p->transition != NULL ? solve_move_cost(r->table, step->layer, step->e, step->to) : 0;
    if (step->f < p->experts) {
        step->moves += away(r, row + step->f, from) - away(r, row + step->f, step->to);
        step->change += p->transition != NULL ? solve_move_cost(r->table, step->layer, step->f, from) : 0;
        shift -= tokens[step->f];
    }
    if (p->load_weight == 0) return;
    step->change += solve_load_term(r->table, step->layer, from, load[from] - shift * p->slowness[from], step->to,
                                    load[step->to] + shift * p->slowness[step->to]) -
                    solve_load_term(r->table, step->layer, from, load[from], step->to, load[step->to]);
}

static void consider(const replan_t *r, step_t step, step_t *best)
{
    const solve_problem_t *p = r->problem;
    if (step.to == r->table->rank_of[(size_t)step.layer * p->experts + step.e]) return;
    judge(r, &step);
    if (step.change < best->change && (int64_t)r->moved + step.moves <= (int64_t)r->most) *best = step;
}

/* Best gain of all that the budget allows; change 0: none. */
static step_t best_step(const replan_t *r)
{
    const solve_problem_t *p = r->problem;
    step_t best = {0};
    for (uint32_t l = 0; l < p->layers; l++)
        for (uint32_t e = 0; e < p->experts; e++) {
            const solve_rank_t *rank_of = r->table->rank_of + (size_t)l * p->experts;
            for (uint32_t f = e + 1; f < p->experts; f++)
                consider(r, (step_t){.layer = l, .e = e, .f = f, .to = rank_of[f]}, &best);
            for (uint32_t to = 0; p->free_slots > 0 && to < p->ranks; to++)
                if (r->table->held[(size_t)l * p->ranks + to] < p->slots[to])
                    consider(r, (step_t){.layer = l, .e = e, .f = p->experts, .to = to}, &best);
        }
    return best;
}

static void run(replan_t *r, const solve_context_t *context)
{
    const solve_problem_t *p = r->problem;
    while (!solve_context_over(context)) {
        step_t step = best_step(r);
        if (step.change >= 0) return;
        uint32_t from = r->table->rank_of[(size_t)step.layer * p->experts + step.e];
        solve_table_move(r->table, step.layer, step.e, step.to);
        if (step.f < p->experts) solve_table_move(r->table, step.layer, step.f, from);
        r->moved = (uint64_t)((int64_t)r->moved + step.moves);
        if (context->better != NULL) context->better(context->user, solve_table_value(r->table));
    }
}

cot_status_t solve_replan(const solve_problem_t *problem, const solve_context_t *context, solve_answer_t *answer_out)
{
    if (problem->objective == SOLVE_STEP_TIME || context->start == NULL)
        return cot_fail(COT_ERR_UNSUPPORTED, "few moves are planned for --objective crossings, balance or weighted, "
                                             "away from a plan (--from)");
    replan_t replan = {.problem = problem, .most = context->max_moves > 0 ? context->max_moves : UINT32_MAX};
    solve_answer_t answer = {.work = 1};
    solve_rank_t *start = cot_calloc(solve_cells(problem), sizeof(*start));
    if (start == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory to plan again");
    cot_status_t status = solve_plan_to_ranks(problem, context->start, start);
    if (status == COT_OK) status = solve_table_create(problem, &replan.table);
    if (status == COT_OK) {
        replan.start = start;
        solve_table_set(replan.table, start);
        run(&replan, context);
        status = solve_plan_from_ranks(problem, replan.table->rank_of, &answer.plan);
    }
    solve_table_destroy(replan.table);
    cot_free(start);
    COT_TRY(status);
    *answer_out = answer;
    return COT_OK;
}
