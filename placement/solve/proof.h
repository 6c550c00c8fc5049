/* The lower bound, found beside the search in a thread of its own. */
#ifndef SOLVE_PROOF_H
#define SOLVE_PROOF_H

#include "placement/solve/bound.h"

/* Owns the thread and, until it is asked for, the bound. */
typedef struct solve_proof solve_proof_t;

typedef struct {
    const solve_problem_t *problem;
    cot_deadline_t deadline;
    void (*better)(void *user, int64_t value); /* told of every better bound, from the thread; may be NULL */
    void *user;
} solve_proof_config_t;

cot_status_t solve_proof_start(const solve_proof_config_t *config, solve_proof_t **proof_out);
/* The bound, once the thread has ended; `hurry`: with what it has by now. The caller's: solve_bound_destroy. */
cot_status_t solve_proof_finish(solve_proof_t *proof, bool hurry, solve_bound_t **bound_out);
void solve_proof_destroy(solve_proof_t *proof); /* NULL is allowed; ends the thread first */

#endif
