/* One placement problem, in integers: what the tokens do, who may hold how much, and what is to be small.
 * SPDX-License-Identifier: GPL-3.0-or-later (everything in placement/solve/ is part of coterie-plan). */
#ifndef SOLVE_PROBLEM_H
#define SOLVE_PROBLEM_H

#include "placement/cluster.h"
#include "placement/plan.h"
#include "placement/stats.h"

/* crossings: sum over consecutive layers of transitions x crossing cost (ExFlow's, whatever the exchange).
 * balance: sum over layers of the largest rank load / speed (MoETuner's first stage, EPLB's aim).
 * weighted: crossings + lambda x top_k x ranks x balance.
 * step_time: nanoseconds that the trace's tokens take in steps of step_tokens, as evaluate.h defines it. */
typedef enum { SOLVE_CROSSINGS, SOLVE_BALANCE, SOLVE_WEIGHTED, SOLVE_STEP_TIME } solve_objective_t;

/* Which exchange plan of the engine runs (DESIGN.md section 4): what counts as traffic in step_time. */
typedef enum { SOLVE_HOME, SOLVE_SHUFFLE, SOLVE_COHERENT } solve_exchange_t;

/* Objectives are kept in thousandths, so that lambda and speeds may have decimals: SOLVE_UNIT is one crossing, one row
 * of load, or one nanosecond (so step_time counts picoseconds). */
#define SOLVE_UNIT INT64_C(1000)

/* Owns its arrays; borrows `stats` and `cluster`. Immutable once made: any number of threads may search. */
typedef struct {
    const place_stats_t *stats;
    const place_cluster_t *cluster;
    solve_objective_t objective;
    solve_exchange_t exchange;
    bool decode; /* load counts activated experts, not rows */
    uint32_t layers, experts, ranks, nodes, top_k;
    uint32_t *slots;     /* [ranks] in each layer */
    uint32_t free_slots; /* beyond one for each expert: room for replicas */

    /* crossings and weighted; NULL where the objective has none */
    int64_t *cost;       /* [ranks, ranks] SOLVE_UNIT x crossing cost; 0 if the objective has no crossings */
    int32_t *transition; /* [layers-1, experts, experts] */
    int32_t *transposed; /* the same, [layers-1, successor, predecessor] */

    /* loads: all objectives but crossings */
    int64_t
        *load; /* [layers, experts] rows of each expert; with `decode`: thousandths of its activations in all steps */
    int64_t *slowness;   /* [ranks] of one row (or activation): SOLVE_UNIT / speed; with step_time picoseconds */
    int64_t load_weight; /* of the largest rank load in the objective, in thousandths; 0: loads do not count */

    /* step_time */
    int64_t *wire;    /* [ranks, ranks] picoseconds of one row over the link; 0 on the diagonal */
    int64_t *latency; /* [ranks, ranks] picoseconds over all steps */
    int64_t steps;    /* engine steps that the trace stands for */
    uint64_t step_tokens;
    double tokens;
    uint32_t row_bytes;
    double expert_ns; /* of one row, or with `decode` of one activation, at relative speed 1 */
    bool pairs;       /* one copy per destination is counted by co-activation; else the bound that counts duplicates */
    bool tiered;      /* crossing costs come in two tiers: inside a node and between nodes */
    bool uniform;     /* and ranks are alike (slots, speed), nodes too: labels may be permuted */
    int64_t near_cost, far_cost; /* with `tiered` */
} solve_problem_t;

typedef struct {
    const place_stats_t *stats;
    const place_cluster_t *cluster;
    solve_objective_t objective;
    solve_exchange_t exchange;
    bool decode;
    double lambda;              /* of `weighted` */
    uint64_t expert_bytes;      /* of one expert's weights in one layer; 0: unknown */
    uint32_t row_bytes;         /* of one dispatched row; 0: unknown */
    double expert_ns_per_row;   /* one expert on one row at relative speed 1; 0: unknown */
    double expert_ns_per_touch; /* reading one expert's weights once; 0: unknown. With `decode` */
    uint64_t step_tokens;       /* tokens of one engine step over all ranks */
} solve_problem_config_t;

/* COT_ERR_UNSUPPORTED if the traces do not hold what the objective needs; COT_ERR_LIMIT if the experts do not fit, or
 * if the sums could leave int64. */
cot_status_t solve_problem_create(const solve_problem_config_t *config, solve_problem_t **problem_out);
void solve_problem_destroy(solve_problem_t *problem);

const char *solve_objective_name(solve_objective_t objective);
const char *solve_exchange_name(solve_exchange_t exchange);

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

/* Between the two ways to write a placement. A plan with replicas has no ranks: COT_ERR_UNSUPPORTED. */
cot_status_t solve_plan_from_ranks(const solve_problem_t *problem, const solve_rank_t *rank_of,
                                   place_plan_t **plan_out);
cot_status_t solve_plan_to_ranks(const solve_problem_t *problem, const place_plan_t *plan, solve_rank_t *rank_of);

#endif
