/* What routing could do at best with a plan's replicas: the linear program behind them. */
#include "placement/solve/milp.h"
#include "placement/solve/replicas.h"

#include "base/memory.h"

#include <math.h>

#define MEMORY_BYTES (UINT64_C(256) << 20)
#define LAYER_MS 2000 /* it takes milliseconds */

static uint32_t count_slots(const place_plan_t *plan, uint32_t layer)
{
    const uint32_t *begin = plan->slot_begin + (size_t)layer * plan->ranks;
    return begin[plan->ranks] - begin[0];
}

/* Minimise M: each expert's shares over its slots sum to 1, and each rank's load x slowness is at most M; in units of
 * the layer's load at slowness 1. */
static cot_status_t build(const solve_problem_t *p, const place_plan_t *plan, uint32_t layer, double unit,
                          solve_milp_t **milp_out)
{
    uint32_t slots = count_slots(plan, layer), first = plan->slot_begin[(size_t)layer * p->ranks];
    solve_milp_t *milp = NULL;
    COT_TRY(solve_milp_create(slots + 1, (uint64_t)p->experts + p->ranks, 2 * (uint64_t)slots + p->ranks, &milp));
    milp->objective[slots] = 1;
    for (uint32_t e = 0; e < p->experts; e++) {
        solve_milp_row(milp, 1, 1);
        for (uint32_t s = 0; s < slots; s++)
            if (plan->slot_expert[first + s] == e) solve_milp_add(milp, s, 1);
    }
    for (uint32_t r = 0; r < p->ranks; r++) {
        const uint32_t *begin = plan->slot_begin + (size_t)layer * p->ranks + r;
        solve_milp_row(milp, 0, HUGE_VAL);
        solve_milp_add(milp, slots, 1);
        for (uint32_t s = begin[0]; s < begin[1]; s++)
            solve_milp_add(milp, s - first,
                           -(double)(p->load[(size_t)layer * p->experts + plan->slot_expert[s]] * p->slowness[r]) /
                               unit);
    }
    *milp_out = milp;
    return COT_OK;
}

static cot_status_t solve_layer(const solve_problem_t *p, const place_plan_t *plan, uint32_t layer,
                                const solve_context_t *context, int64_t *least_out)
{
    double unit = 0;
    for (uint32_t e = 0; e < p->experts; e++)
        unit += (double)p->load[(size_t)layer * p->experts + e] * SOLVE_UNIT / p->ranks;
    *least_out = 0;
    if (unit <= 0) return COT_OK;
    solve_milp_t *milp = NULL;
    COT_TRY(build(p, plan, layer, unit, &milp));
    double *x = cot_calloc(milp->columns, sizeof(*x));
    solve_milp_config_t config = {cot_deadline_in_ms(LAYER_MS), context->stop, MEMORY_BYTES, 0, NULL};
    solve_milp_result_t result = {0};
    cot_status_t status = x != NULL ? solve_milp_run(milp, &config, x, &result)
                                    : cot_fail(COT_ERR_NO_MEMORY, "no memory for an answer");
    if (status == COT_OK && result.outcome != SOLVE_MILP_OPTIMAL)
        status = cot_fail(COT_ERR_LIMIT, "ideal routing: %s", result.ended);
    if (status == COT_OK) *least_out = llround(result.objective * unit);
    cot_free(x);
    solve_milp_destroy(milp);
    return status;
}

cot_status_t solve_ideal_balance(const solve_problem_t *p, const place_plan_t *plan, const solve_context_t *context,
                                 int64_t *balance_out)
{
    int64_t sum = 0;
    for (uint32_t l = 0; l < p->layers; l++) {
        int64_t least = 0;
        COT_TRY(solve_layer(p, plan, l, context, &least));
        sum += least;
    }
    *balance_out = sum;
    return COT_OK;
}
