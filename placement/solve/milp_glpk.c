/* The child's side of milp.h, and the only file that knows GLPK. */
#include "placement/solve/milp.h"

#include "base/memory.h"
#include "placement/solve/child.h"

#include <glpk.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Frames: a solution is objective, bound, x [columns]; a bound one double; the last word one double. */
enum { FRAME_SOLUTION = 1, FRAME_BOUND, FRAME_LAST };
enum { LAST_OPTIMAL, LAST_FEASIBLE, LAST_INFEASIBLE, LAST_NOTHING };
#define BOUND_EVERY_NS INT64_C(200000000)

typedef struct {
    const solve_milp_t *milp;
    const solve_milp_config_t *config;
    /* in the child */
    solve_child_pipe_t *pipe;
    glp_prob *program;
    double *frame; /* [2 + columns] */
    bool started;  /* GLPK has the start */
    int64_t told_ns;
    /* here */
    double *x, objective, bound;
    bool found;
    int last;
} run_t;

/* ---- in the child ---- */

static int swallow(void *user, const char *text)
{
    (void)user;
    (void)text;
    return 1;
}

/* GLPK calls this instead of abort: for a full memory above all, which its own limit gives too. */
static void fault(void *user)
{
    (void)user;
    solve_child_no_memory();
}

static int bound_kind(double lower, double upper)
{
    if (lower == upper) return GLP_FX; /* GLP_DB with equal limits is refused */
    if (lower == -HUGE_VAL) return upper == HUGE_VAL ? GLP_FR : GLP_UP;
    return upper == HUGE_VAL ? GLP_LO : GLP_DB;
}

static void build(run_t *run)
{
    const solve_milp_t *m = run->milp;
    glp_prob *program = run->program = glp_create_prob();
    glp_set_obj_dir(program, GLP_MIN);
    if (m->columns > 0) glp_add_cols(program, (int)m->columns);
    if (m->rows > 0) glp_add_rows(program, (int)m->rows);
    for (uint32_t j = 0; j < m->columns; j++) {
        if (m->integer[j]) glp_set_col_kind(program, (int)j + 1, GLP_IV);
        glp_set_col_bnds(program, (int)j + 1, bound_kind(m->lower[j], m->upper[j]), m->lower[j], m->upper[j]);
        glp_set_obj_coef(program, (int)j + 1, m->objective[j]);
    }
    int *column = cot_calloc(m->columns + 1, sizeof(*column)); /* GLPK counts from 1 */
    double *value = cot_calloc(m->columns + 1, sizeof(*value));
    if (column == NULL || value == NULL) solve_child_no_memory();
    for (uint32_t i = 0; i < m->rows; i++) {
        int count = 0;
        for (uint64_t at = m->begin[i]; at < m->begin[i + 1]; at++) {
            column[++count] = (int)m->column[at] + 1;
            value[count] = m->value[at];
        }
        glp_set_row_bnds(program, (int)i + 1, bound_kind(m->row_lower[i], m->row_upper[i]), m->row_lower[i],
                         m->row_upper[i]);
        glp_set_mat_row(program, (int)i + 1, count, column, value);
    }
    cot_free(column);
    cot_free(value);
}

static void send_solution(run_t *run, double bound, double (*value)(glp_prob *, int))
{
    run->frame[0] = 0; /* judged where it arrives */
    run->frame[1] = bound;
    for (uint32_t j = 0; j < run->milp->columns; j++) run->frame[2 + j] = value(run->program, (int)j + 1);
    solve_child_send(run->pipe, FRAME_SOLUTION, run->frame, (2 + (size_t)run->milp->columns) * sizeof(double));
}

static void send_number(run_t *run, uint32_t kind, double number)
{
    solve_child_send(run->pipe, kind, &number, sizeof(number));
}

/* The tree is gone when glp_intopt returns, so its bound is told from within. */
static double tree_bound(glp_tree *tree)
{
    int best = glp_ios_best_node(tree);
    double bound = best != 0 ? glp_ios_node_bound(tree, best) : -HUGE_VAL;
    return bound > -1e300 ? bound : -HUGE_VAL;
}

static void watch_tree(glp_tree *tree, void *user)
{
    run_t *run = user;
    int reason = glp_ios_reason(tree);
    if (reason == GLP_IHEUR && run->config->start != NULL && !run->started) {
        run->started = true;
        glp_ios_heur_sol(tree, run->config->start - 1); /* counts from 1 */
    }
    if (reason == GLP_IBINGO) send_solution(run, tree_bound(tree), glp_get_col_prim);
    if (cot_now_ns() - run->told_ns < BOUND_EVERY_NS) return;
    run->told_ns = cot_now_ns();
    send_number(run, FRAME_BOUND, tree_bound(tree));
}

static int left_ms(const run_t *run)
{
    int64_t left = cot_deadline_left_ms(run->config->deadline);
    return left < INT_MAX / 2 ? (int)left + 1 : INT_MAX / 2;
}

/* Dual simplex was 3.7 times as fast as primal on these programs; behind the presolver it gave up on some. */
static int solve_relaxation(run_t *run)
{
    glp_smcp options;
    glp_init_smcp(&options);
    options.msg_lev = GLP_MSG_OFF;
    options.meth = GLP_DUALP;
    options.tm_lim = left_ms(run);
    int result = glp_simplex(run->program, &options);
    return result != 0 ? LAST_NOTHING : glp_get_status(run->program) == GLP_OPT ? LAST_OPTIMAL : LAST_INFEASIBLE;
}

static int solve_integers(run_t *run)
{
    glp_iocp options;
    glp_init_iocp(&options);
    options.msg_lev = GLP_MSG_OFF;
    options.presolve = GLP_OFF;
    options.cb_func = watch_tree;
    options.cb_info = run;
    options.mip_gap = run->config->gap;
    options.tm_lim = left_ms(run);
    if (run->config->start == NULL) options.fp_heur = GLP_ON;
    int result = glp_intopt(run->program, &options), status = glp_mip_status(run->program);
    if (status == GLP_OPT || status == GLP_FEAS) send_solution(run, -HUGE_VAL, glp_mip_col_val);
    if (status == GLP_OPT || (status == GLP_FEAS && result == GLP_EMIPGAP)) return LAST_OPTIMAL;
    return status == GLP_FEAS ? LAST_FEASIBLE : status == GLP_NOFEAS ? LAST_INFEASIBLE : LAST_NOTHING;
}

static int work(void *user, solve_child_pipe_t *pipe)
{
    run_t *run = user;
    run->pipe = pipe;
    glp_term_hook(swallow, NULL); /* glp_term_out does not silence errors */
    glp_error_hook(fault, NULL);
    glp_mem_limit((int)(run->config->memory_bytes >> 20) + 1);
    run->frame = cot_calloc(2 + (size_t)run->milp->columns, sizeof(double));
    if (run->frame == NULL) solve_child_no_memory();
    build(run);
    bool integers = glp_get_num_int(run->program) > 0;
    int last = solve_relaxation(run);
    if (last == LAST_OPTIMAL && !integers) send_solution(run, -HUGE_VAL, glp_get_col_prim);
    if (last == LAST_OPTIMAL && integers) {
        send_number(run, FRAME_BOUND, glp_get_obj_val(run->program));
        last = solve_integers(run);
    }
    send_number(run, FRAME_LAST, last);
    return 0;
}

/* ---- here ---- */

static bool take_solution(run_t *run, const double *frame)
{
    double objective = 0;
    if (!solve_milp_holds(run->milp, frame + 2, &objective)) return true; /* GLPK may be wrong; it is not believed */
    if (run->found && objective >= run->objective) return true;
    run->found = true;
    run->objective = objective;
    memcpy(run->x, frame + 2, run->milp->columns * sizeof(*run->x));
    return true;
}

static bool take(void *user, uint32_t kind, const void *bytes, size_t count)
{
    run_t *run = user;
    double number = 0;
    if (kind == FRAME_SOLUTION && count == (2 + (size_t)run->milp->columns) * sizeof(double)) {
        memcpy(run->frame, bytes, count); /* aligned */
        return take_solution(run, run->frame);
    }
    if (count != sizeof(number)) return false;
    memcpy(&number, bytes, sizeof(number));
    if (isnan(number)) return false;
    if (kind == FRAME_BOUND && number > run->bound) run->bound = number;
    if (kind == FRAME_LAST) run->last = (int)fmin(fmax(number, LAST_OPTIMAL), LAST_NOTHING);
    return kind == FRAME_BOUND || kind == FRAME_LAST;
}

static void judge(run_t *run, solve_child_end_t end, solve_milp_result_t *result)
{
    static const char *const ENDS[] = {
        [SOLVE_CHILD_DONE] = "gave up",     [SOLVE_CHILD_LATE] = "time limit",
        [SOLVE_CHILD_STOPPED] = "stopped",  [SOLVE_CHILD_NO_MEMORY] = "memory limit",
        [SOLVE_CHILD_DIED] = "GLPK failed", [SOLVE_CHILD_GARBAGE] = "GLPK's process answered nonsense"};
    const char *why = end == SOLVE_CHILD_DONE && cot_deadline_passed(run->config->deadline) ? "time limit" : ENDS[end];
    bool whole = end == SOLVE_CHILD_DONE && run->last == LAST_OPTIMAL && run->found;
    result->outcome = whole ? SOLVE_MILP_OPTIMAL : run->found ? SOLVE_MILP_FEASIBLE : SOLVE_MILP_NOTHING;
    result->objective = run->objective;
    result->bound = run->bound;
    if (whole)
        snprintf(result->ended, sizeof(result->ended), run->config->gap > 0 ? "within its gap of optimal" : "optimal");
    else if (end == SOLVE_CHILD_DONE && run->last == LAST_INFEASIBLE)
        snprintf(result->ended, sizeof(result->ended), "no solution exists");
    else
        snprintf(result->ended, sizeof(result->ended), "%s, %s", why, run->found ? "best so far" : "nothing found");
}

cot_status_t solve_milp_run(const solve_milp_t *milp, const solve_milp_config_t *config, double *x,
                            solve_milp_result_t *result_out)
{
    run_t run = {.milp = milp, .config = config, .x = x, .bound = -HUGE_VAL, .last = LAST_NOTHING};
    if (config->start != NULL) {
        if (!solve_milp_holds(milp, config->start, &run.objective))
            return cot_fail(COT_ERR_INTERNAL, "the start of a linear program does not hold its limits");
        run.found = true;
        memcpy(x, config->start, milp->columns * sizeof(*x));
    }
    size_t frame = (2 + (size_t)milp->columns) * sizeof(double);
    run.frame = cot_alloc(frame);
    if (run.frame == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a linear program's answer");
    solve_child_config_t child = {config->deadline, config->stop, config->memory_bytes, frame, work, take, &run};
    double *buffer = run.frame; /* the child has its own */
    solve_child_end_t end = SOLVE_CHILD_DIED;
    cot_status_t status = solve_child_run(&child, &end);
    cot_free(buffer);
    COT_TRY(status);
    judge(&run, end, result_out);
    return COT_OK;
}
