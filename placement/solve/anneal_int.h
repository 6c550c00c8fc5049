/* What anneal.c and anneal_pairs.c share. */
#ifndef SOLVE_ANNEAL_INT_H
#define SOLVE_ANNEAL_INT_H

#include "placement/solve/anneal.h"

/* Compiled for two instruction sets; the sanitizers' runtimes are not ready when the choice between them is made. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ROWS
#else
#define ROWS __attribute__((target_clones("avx2", "default")))
#endif
enum { LOGS = 4096 };

struct solve_annealer {
    const solve_problem_t *problem;
    solve_rank_t *rank_of; /* [layers, experts] */
    int32_t *flow;         /* [layers, ranks, experts] transitions of an expert with those on a rank */
    int32_t *inside;       /* [nodes, experts] of the layer at work: flow by node */
    float *price;          /* [experts, ranks] of the layer at work: cost of an expert on a rank, in thousandths */
    solve_rank_t *before;  /* [experts] where the layer's experts stood when it was entered */
    double *load;          /* [layers, ranks] times slowness and load_weight: thousandths of the objective */
    double *weight;        /* [layers, experts] load x load_weight */
    uint32_t *held;        /* [layers, ranks] */
    float logs[LOGS];      /* -ln((i + 1/2) / LOGS): what a trial may cost at temperature 1 */
    float gumbel[LOGS];    /* -ln(-ln((i + 1/2) / LOGS)) turned round, so that it is added to a cost */
    void *stages;          /* scratch of the pair moves */
};

static inline int32_t *solve_annealer_flow(const solve_annealer_t *a, uint32_t layer, uint32_t rank)
{
    return a->flow + ((size_t)layer * a->problem->ranks + rank) * a->problem->experts;
}

/* The neighbours learn where an expert went; `from` UINT32_MAX: it stood nowhere. */
void solve_annealer_tell(solve_annealer_t *annealer, uint32_t layer, uint32_t e, uint32_t from, uint32_t to);

#endif
