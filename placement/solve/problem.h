/* One placement problem, in integers: what the tokens do, who may hold how much, and what is to be small.
 * SPDX-License-Identifier: GPL-3.0-or-later (everything in placement/solve/ is part of coterie-plan). */
#ifndef SOLVE_PROBLEM_H
#define SOLVE_PROBLEM_H

#include "placement/cluster.h"
#include "placement/plan.h"
#include "placement/stats.h"

/* crossings: sum over consecutive layers of transitions x crossing cost (ExFlow's, whatever the exchange).
 * balance: sum over layers of the largest rank load / speed (MoETuner's first stage, EPLB's aim).
 * weighted: crossings + lambda x top_k x ranks x balance. */
typedef enum { SOLVE_CROSSINGS, SOLVE_BALANCE, SOLVE_WEIGHTED } solve_objective_t;

/* Objectives are kept in thousandths, so that lambda and speeds may have decimals: SOLVE_UNIT is one crossing. */
#define SOLVE_UNIT INT64_C(1000)

/* Owns its arrays; borrows `stats` and `cluster`. Immutable once made: any number of threads may search. */
typedef struct {
    const place_stats_t *stats;
    const place_cluster_t *cluster;
    solve_objective_t objective;
    uint32_t layers, experts, ranks, nodes;
    uint32_t *slots;     /* [ranks] in each layer */
    uint32_t free_slots; /* beyond one for each expert: room for replicas */
    int64_t *cost;       /* [ranks, ranks] SOLVE_UNIT x crossing cost; 0 if the objective has no crossings */
    int64_t *slowness;   /* [ranks] SOLVE_UNIT / relative speed, rounded */
    int64_t load_weight; /* of the largest rank load in the objective, in thousandths; 0: loads do not count */
    int32_t *transition; /* [layers-1, experts, experts]; NULL if the objective has no crossings */
    int32_t *transposed; /* the same, [layers-1, successor, predecessor] */
    bool uniform;        /* ranks are alike (slots, speed) and links come in tiers by node: labels may be permuted */
    int64_t near_cost, far_cost; /* with `uniform`: cost inside a node and between nodes */
} solve_problem_t;

typedef struct {
    const place_stats_t *stats;
    const place_cluster_t *cluster;
    solve_objective_t objective;
    double lambda;         /* of `weighted` */
    uint64_t expert_bytes; /* 0: unknown */
} solve_problem_config_t;

/* COT_ERR_UNSUPPORTED if the traces do not hold what the objective needs; COT_ERR_LIMIT if the experts do not fit, or
 * if the sums could leave int64. */
cot_status_t solve_problem_create(const solve_problem_config_t *config, solve_problem_t **problem_out);
void solve_problem_destroy(solve_problem_t *problem);

/* A placement without replicas: rank of (layer, expert), [layers, experts]. */
typedef uint16_t solve_rank_t;

static inline size_t solve_cells(const solve_problem_t *problem)
{
    return (size_t)problem->layers * problem->experts;
}

static inline const int32_t *solve_row(const solve_problem_t *problem, uint32_t layer, uint32_t expert)
{
    return problem->transition + ((size_t)layer * problem->experts + expert) * problem->experts;
}

static inline const int32_t *solve_column(const solve_problem_t *problem, uint32_t layer, uint32_t successor)
{
    return problem->transposed + ((size_t)layer * problem->experts + successor) * problem->experts;
}

/* Each rank's experts in equal runs, as far as its slots go. */
void solve_contiguous(const solve_problem_t *problem, solve_rank_t *rank_of);

#endif
