#include "placement/solve/evaluate.h"

#include "base/memory.h"

#include <string.h>

/* Loads of the ranks in one layer, and whether nobody is over the slots. */
static cot_status_t add_loads(const solve_problem_t *problem, const solve_rank_t *rank_of, uint32_t layer,
                              int64_t *load, uint32_t *held)
{
    memset(load, 0, problem->ranks * sizeof(*load));
    memset(held, 0, problem->ranks * sizeof(*held));
    for (uint32_t e = 0; e < problem->experts; e++) {
        size_t cell = (size_t)layer * problem->experts + e;
        uint32_t rank = rank_of[cell];
        if (rank >= problem->ranks || ++held[rank] > problem->slots[rank])
            return cot_fail(COT_ERR_INTERNAL, "layer %u: expert %u on rank %u is over the rank's slots", layer, e,
                            rank);
        load[rank] += problem->load[cell];
    }
    return COT_OK;
}

static void judge_loads(const solve_problem_t *problem, const int64_t *load, int64_t *worst_out,
                        solve_figures_t *figures)
{
    int64_t worst = 0, sum = 0, heaviest = 0;
    double speeds = 0;
    for (uint32_t r = 0; r < problem->ranks; r++) {
        if (load[r] * problem->slowness[r] > worst) worst = load[r] * problem->slowness[r];
        if (load[r] > heaviest) heaviest = load[r];
        sum += load[r];
        speeds += (double)SOLVE_UNIT / (double)problem->slowness[r];
    }
    double fair = (double)sum / speeds; /* time if the work were spread by speed */
    if (sum > 0) {
        double share = (double)heaviest * problem->ranks / (double)sum;
        if (share > figures->largest_load) figures->largest_load = share;
        figures->mean_imbalance += ((double)worst / SOLVE_UNIT / fair - 1) / problem->layers;
    }
    *worst_out = worst;
}

static void count_crossings(const solve_problem_t *problem, const solve_rank_t *rank_of, uint32_t layer,
                            solve_figures_t *figures)
{
    const place_cluster_t *cluster = problem->cluster;
    const int64_t *pairs = problem->stats->transition + (size_t)layer * problem->experts * problem->experts;
    const solve_rank_t *from = rank_of + (size_t)layer * problem->experts, *to = from + problem->experts;
    for (uint32_t e = 0; e < problem->experts; e++)
        for (uint32_t f = 0; f < problem->experts; f++) {
            int64_t count = pairs[(size_t)e * problem->experts + f];
            figures->transitions += count;
            if (from[e] == to[f]) continue;
            figures->any_crossings += count;
            figures->crossings += count * place_cluster_link(cluster, from[e], to[f])->crossing_cost;
            if (cluster->rank[from[e]].node != cluster->rank[to[f]].node) figures->far_crossings += count;
        }
}

static cot_status_t evaluate_ranks(const solve_problem_t *problem, const solve_rank_t *rank_of,
                                   solve_figures_t *figures_out)
{
    int64_t *load = cot_calloc(problem->ranks, sizeof(*load)), balance = 0;
    uint32_t *held = cot_calloc(problem->ranks, sizeof(*held));
    solve_figures_t figures = {0};
    cot_status_t status = COT_OK;
    if (load == NULL || held == NULL) status = cot_fail(COT_ERR_NO_MEMORY, "no memory to judge a placement");
    for (uint32_t l = 0; l < problem->layers && status == COT_OK; l++) {
        int64_t worst = 0;
        status = add_loads(problem, rank_of, l, load, held);
        if (status != COT_OK) break;
        judge_loads(problem, load, &worst, &figures);
        balance += worst;
        if (problem->stats->transition != NULL && l + 1 < problem->layers)
            count_crossings(problem, rank_of, l, &figures);
    }
    cot_free(load);
    cot_free(held);
    COT_TRY(status);
    figures.balance = (double)balance / SOLVE_UNIT;
    figures.value = problem->load_weight * (balance / SOLVE_UNIT) +
                    problem->load_weight * (balance % SOLVE_UNIT) / SOLVE_UNIT;
    if (problem->cost != NULL && problem->objective != SOLVE_BALANCE) figures.value += figures.crossings * SOLVE_UNIT;
    *figures_out = figures;
    return COT_OK;
}

cot_status_t solve_evaluate(const solve_problem_t *problem, const place_plan_t *plan, solve_figures_t *figures_out)
{
    solve_rank_t *rank_of = cot_calloc(solve_cells(problem), sizeof(*rank_of));
    if (rank_of == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory to judge a placement");
    cot_status_t status = solve_plan_to_ranks(problem, plan, rank_of);
    if (status == COT_OK) status = evaluate_ranks(problem, rank_of, figures_out);
    cot_free(rank_of);
    return status;
}
