/* What the parts of the evaluator share: one layer of a plan under judgement (evaluate.h has the formulas). */
#ifndef SOLVE_EVALUATE_LAYER_H
#define SOLVE_EVALUATE_LAYER_H

#include "placement/solve/evaluate.h"

#define SOLVE_SHARE_ONE ((int64_t)1 << 20)

typedef __int128 solve_wide_t;

/* Rows between ranks in 1/unit of a row. */
typedef struct {
    int64_t *rows; /* [ranks, ranks] from, to; the diagonal is not looked at */
    int64_t unit;
} solve_phase_t;

typedef struct {
    const solve_case_t *judged;
    const place_plan_t *plan;
    uint32_t layers, experts, ranks, top_k;
    uint32_t layer;                /* the one judged now */
    int64_t tokens;                /* of this layer; 0 unknown */
    int64_t steps;                 /* of the trace */
    bool replicas;                 /* any in this layer */
    uint32_t *copies, *copy_rank;  /* [experts] how many, and [experts, ranks] which, ascending */
    uint16_t *serve;               /* [experts, ranks] who computes an expert for a token on a rank */
    int32_t *share, *share_before; /* [experts, ranks] q of this layer and of the one before */
    int64_t *inflow;               /* [experts, ranks] scratch of the chain */
    int64_t *rows;                 /* [experts, ranks] computed, in 1/rows_unit */
    int64_t rows_unit;
    solve_phase_t phase;
    uint64_t *seen; /* [ranks] scratch: the stamp of the last token that was counted for a rank */
    uint64_t stamp;
    uint32_t *group, *group_begin; /* [experts], [ranks + 1] scratch: experts by serving rank */
    solve_figures_t figures;
    solve_detail_t detail;
} solve_layer_t;

static inline size_t solve_pair(const solve_layer_t *at, uint32_t layer, uint32_t e, uint32_t f)
{
    return ((size_t)layer * at->experts + e) * at->experts + f;
}

/* How often a share of an expert's rows, `rows` / unit of them, activates it in all steps, in thousandths. */
int64_t solve_judge_activations(const solve_layer_t *at, int64_t rows, int64_t unit);
/* Rows of all phases of this layer, and with `timed` their time into the figures. */
cot_status_t solve_judge_exchange(solve_layer_t *at, bool timed);

#endif
