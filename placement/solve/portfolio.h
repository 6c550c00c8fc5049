/* The search as a whole: streams of seeded attempts on all cores until a deadline or a number of rounds. */
#ifndef SOLVE_PORTFOLIO_H
#define SOLVE_PORTFOLIO_H

#include "base/clock.h"
#include "placement/solve/problem.h"

typedef struct {
    uint64_t seed;
    uint32_t threads;
    cot_deadline_t deadline; /* COT_NEVER with rounds */
    uint64_t rounds;         /* 0: until the deadline; else this many, then byte-identical for any number of threads */
    const volatile bool *stop; /* Ctrl-C */
    const solve_rank_t *start; /* a placement to begin with; NULL: none */
    /* Told of every better placement, from one thread at a time. */
    void (*better)(void *user, int64_t value, double seconds);
    void *user;
} solve_portfolio_t;

/* Best placement found into rank_of [layers, experts]; *rounds_out: rounds done. */
cot_status_t solve_portfolio(const solve_problem_t *problem, const solve_portfolio_t *config, solve_rank_t *rank_of,
                             uint64_t *rounds_out);

#endif
