/* Placements that others would make, to compare with: each from its description, named in the help page. */
#ifndef SOLVE_BASELINES_H
#define SOLVE_BASELINES_H

#include "placement/solve/solvers.h"

/* Longest processing time first (Graham 1969), layer by layer: the hottest expert that is left goes to the rank that is
 * done with it soonest and has a free slot. */
cot_status_t solve_lpt(const solve_problem_t *problem, const solve_context_t *context, solve_answer_t *answer_out);

/* The same for one layer: rank_of [experts], scratch of 16 x experts bytes. */
void solve_lpt_layer(const solve_problem_t *problem, uint32_t layer, solve_rank_t *rank_of, void *scratch);

/* DeepSeek's EPLB (github.com/deepseek-ai/EPLB), hierarchical and global: replicas to the highest load per copy, then
 * packing into equally many slots per rank. Where its packing puts two copies onto one rank they are merged, since a
 * plan holds an expert once on a rank. */
cot_status_t solve_eplb(const solve_problem_t *problem, const solve_context_t *context, solve_answer_t *answer_out);
cot_status_t solve_eplb_global(const solve_problem_t *problem, const solve_context_t *context,
                               solve_answer_t *answer_out);

/* EPLB itself, by its own terms: weight [layers, experts] in, the expert in each of a layer's slots out, slot_out
 * [layers, replicas]. Without groups of the model's each expert is one; global: one group, one node. */
typedef struct {
    uint32_t layers, experts, replicas, groups, nodes, ranks;
} solve_eplb_sizes_t;
cot_status_t solve_eplb_place(const int64_t *weight, const solve_eplb_sizes_t *sizes, uint32_t *slot_out);

/* ExFlow's integer program (arXiv 2401.08383), its tokens added up by pair of experts, which is the same program:
 * staged by halving the ranks as its code does, GLPK within the time there is, from a greedy chain. */
cot_status_t solve_exflow(const solve_problem_t *problem, const solve_context_t *context, solve_answer_t *answer_out);

/* MoETuner's two integer programs (arXiv 2502.06643) with the constraints it leaves out: experts into clusters of even
 * load, then clusters onto ranks for the least sum of the layers' dearest links. GLPK within the time there is. */
cot_status_t solve_moetuner(const solve_problem_t *problem, const solve_context_t *context, solve_answer_t *answer_out);

/* The crossings as one integer program with McCormick's products and cardinality rows (RLT): exact, for tiny cases. */
cot_status_t solve_ilp(const solve_problem_t *problem, const solve_context_t *context, solve_answer_t *answer_out);

#endif
