/* The proof: a number that no placement of this problem can come below, and the dual values that show it.
 *
 * Crossings. The cost of a link is at least a sum of levels, cost(a, b) >= sum of weight over the levels whose groups
 * part a and b (ranks and nodes, where links come in tiers). A level costs its weight x the transitions that leave a
 * group, so a bound on those that can stay inside a group, level by level, bounds the crossings. Two bounds:
 *   matching  an expert stays with at most as many successors (predecessors) as its group has slots: the dual of a
 *             maximum-weight b-matching at each boundary (weak duality: any u, v >= 0 prove a bound).
 *   gram      experts as unit vectors, equal exactly where they share a group (Goemans and Williamson's relaxation,
 *             with groups of equal size: Frieze and Jerrum's), over the whole chain of layers at once: any diagonal d
 *             with diag(d) - B positive semidefinite on vectors that sum to 0 in every layer proves a bound. It sees
 *             what a bound that adds up boundaries cannot: that a layer is placed once, not once for each side.
 * Loads: load_bound.h, layer by layer; the exchanges of step_time: traffic_bound.h. An objective that is a sum has the
 * sum of the bounds. */
#ifndef SOLVE_BOUND_H
#define SOLVE_BOUND_H

#include "base/clock.h"
#include "placement/solve/problem.h"

#include <stdatomic.h>

#define SOLVE_LEVELS_MAX 4U
#define SOLVE_GRAM_SCALE 1024 /* the diagonal counts in 1 / this of a transition */

typedef enum { SOLVE_BY_MATCHING, SOLVE_BY_GRAM } solve_method_t;

typedef struct {
    int64_t weight;          /* crossing cost of leaving a group */
    uint32_t groups, *group; /* [ranks] of each rank */
    solve_method_t method;   /* the better of the two */
    int64_t *before, *after; /* [layers-1, experts] the matching's duals u, v */
    int64_t within;          /* transitions that can stay inside a group, at most */
} solve_level_t;

/* Owns its arrays. */
typedef struct {
    uint32_t layers, experts, ranks;
    int64_t value;     /* of the objective: every placement's is at least this */
    bool dual;         /* the crossings have a part in it */
    int64_t crossings; /* transitions x crossing cost, at least; 0 if the objective has none */
    int64_t balance;   /* sum over layers of the largest load x slowness, at least */
    int64_t traffic;   /* of step_time: the exchanges, at least, in picoseconds */
    uint32_t levels;
    solve_level_t level[SOLVE_LEVELS_MAX];
    int64_t *diagonal; /* [layers, experts] of the gram bound; NULL if no level uses it */
    int64_t centre;    /* added to every pair of a layer: vectors sum to 0 there */
} solve_bound_t;

typedef struct {
    cot_deadline_t deadline;                   /* a bound is returned in any case, a better one with more time */
    const atomic_bool *stop;                   /* may be NULL */
    void (*better)(void *user, int64_t value); /* told of a first bound, before the slow part; may be NULL */
    void *user;
} solve_bound_config_t;

cot_status_t solve_bound_create(const solve_problem_t *problem, const solve_bound_config_t *config,
                                solve_bound_t **bound_out);
void solve_bound_destroy(solve_bound_t *bound);

#endif
