/* Everything that can place experts, behind one interface. A solver is a pure function of problem, start, seed and
 * work; only a deadline or the stop flag makes its answer depend on time. Whatever it returns is judged by
 * solve_evaluate. */
#ifndef SOLVE_SOLVERS_H
#define SOLVE_SOLVERS_H

#include "base/clock.h"
#include "placement/solve/problem.h"

#include <stdatomic.h>

typedef struct {
    uint64_t seed;
    uint32_t threads;
    cot_deadline_t deadline;   /* COT_NEVER with `work` */
    uint64_t work;             /* 0: until the deadline; else this many rounds, the same answer for any `threads` */
    const atomic_bool *stop;   /* Ctrl-C: return the best so far; may be NULL */
    const place_plan_t *start; /* a plan to begin with, or to move away from; may be NULL */
    uint64_t max_moves;        /* with `start`: most copies on a rank that did not hold the expert; 0: any number */
    /* Told of every better placement (the objective in thousandths), from one thread at a time; may be NULL. */
    void (*better)(void *user, int64_t value);
    void *user;
} solve_context_t;

static inline bool solve_context_over(const solve_context_t *context)
{
    return (context->stop != NULL && atomic_load_explicit(context->stop, memory_order_relaxed)) ||
           cot_deadline_passed(context->deadline);
}

/* How a solver knows that nothing is better, if it does. */
typedef enum { SOLVE_NOT_PROVED, SOLVE_PROVED_DP, SOLVE_PROVED_EXHAUSTIVE } solve_proved_t;

typedef struct {
    place_plan_t *plan; /* the caller's: place_plan_destroy */
    solve_proved_t proved;
    uint64_t work;  /* rounds done: `work` that gives this plan again, if it was not stopped within one */
    char note[160]; /* how it went, where a word is needed; "" else */
} solve_answer_t;

typedef struct {
    const char *name, *summary;
    /* COT_ERR_UNSUPPORTED: not a problem for this solver. Never COT_OK without a plan. */
    cot_status_t (*solve)(const solve_problem_t *problem, const solve_context_t *context, solve_answer_t *answer_out);
} solve_solver_t;

/* In the order of the help page; the first is the default. */
extern const solve_solver_t SOLVE_SOLVERS[];
extern const uint32_t SOLVE_SOLVER_COUNT;

/* NULL: there is none of that name. */
const solve_solver_t *solve_find_solver(const char *name);

#endif
