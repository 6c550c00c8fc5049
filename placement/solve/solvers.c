#include "placement/solve/solvers.h"

#include "base/memory.h"
#include "placement/solve/baselines.h"
#include "placement/solve/exact_chain.h"
#include "placement/solve/portfolio.h"
#include "placement/solve/replan.h"
#include "placement/solve/replicas.h"
#include "placement/solve/times.h"

#include <string.h>

static cot_status_t contiguous(const solve_problem_t *problem, const solve_context_t *context,
                               solve_answer_t *answer_out)
{
    (void)context;
    solve_rank_t *rank_of = cot_calloc(solve_cells(problem), sizeof(*rank_of));
    if (rank_of == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a placement");
    solve_contiguous(problem, rank_of);
    solve_answer_t answer = {0};
    cot_status_t status = solve_plan_from_ranks(problem, rank_of, &answer.plan);
    cot_free(rank_of);
    COT_TRY(status);
    *answer_out = answer;
    return COT_OK;
}

/* Exact where that is quick, else the search for the objective. */
static cot_status_t search(const solve_problem_t *problem, const solve_context_t *context, solve_answer_t *answer_out)
{
    if (problem->objective == SOLVE_STEP_TIME) return solve_times(problem, context, answer_out);
    if (solve_chain(problem, context, answer_out) == COT_OK) return COT_OK;
    return solve_portfolio(problem, context, answer_out);
}

/* What suits the problem. Where there are free slots the last fifth of the time is for copies. */
static cot_status_t best_of_all(const solve_problem_t *problem, const solve_context_t *context,
                                solve_answer_t *answer_out)
{
    if (context->max_moves > 0) return solve_replan(problem, context, answer_out);
    if (problem->free_slots == 0) return search(problem, context, answer_out);
    solve_context_t first = *context;
    uint32_t added = 0;
    if (first.deadline != COT_NEVER) first.deadline -= (first.deadline - cot_now_ns()) / 5;
    COT_TRY(search(problem, &first, answer_out));
    cot_status_t status = solve_add_replicas(problem, context, &answer_out->plan, &added);
    if (status != COT_OK) place_plan_destroy(answer_out->plan);
    return status;
}

const solve_solver_t SOLVE_SOLVERS[] = {
    {"portfolio", "exact where that is quick, else search on all cores; the default", best_of_all},
    {"dp", "exact for few experts (8, say) on equal ranks with equal links", solve_chain},
    {"anneal", "annealing of layers and of pairs of ranks along the chain", solve_portfolio},
    {"times", "annealing of each layer by its step time", solve_times},
    {"replan", "the best swaps one by one away from the plan of --from, at most --max-moves", solve_replan},
    {"contiguous", "experts in equal runs, as engines do by default", contiguous},
    {"lpt", "hottest expert first to the rank done soonest (Graham 1969), layer by layer", solve_lpt},
    {"eplb", "DeepSeek's EPLB, hierarchical: replicas of hot experts, packed by node, then by rank", solve_eplb},
    {"eplb-global", "DeepSeek's EPLB, global", solve_eplb_global},
    {"replicas", "the search (or LPT) without replicas, then copies into the free slots", solve_replicas},
    {"exflow", "ExFlow's integer program (arXiv 2401.08383), halving the ranks, by GLPK within the time limit",
     solve_exflow},
    {"moetuner", "MoETuner's two integer programs (arXiv 2502.06643), by GLPK within the time limit", solve_moetuner},
    {"ilp", "one integer program, by GLPK: exact, for tiny problems", solve_ilp},
};
const uint32_t SOLVE_SOLVER_COUNT = sizeof(SOLVE_SOLVERS) / sizeof(*SOLVE_SOLVERS);

const solve_solver_t *solve_find_solver(const char *name)
{
    for (uint32_t i = 0; i < SOLVE_SOLVER_COUNT; i++)
        if (strcmp(SOLVE_SOLVERS[i].name, name) == 0) return &SOLVE_SOLVERS[i];
    return NULL;
}
