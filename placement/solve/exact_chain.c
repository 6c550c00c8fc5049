#include "placement/solve/exact_chain.h"

#include "base/memory.h"
#include "placement/solve/hungarian.h"
#include "placement/solve/table.h"

#include <string.h>

enum { EXPERTS_MAX = 32, RANKS_MAX = 16, STATES_MAX = 20000 };
#define EFFORT_MAX 2e9

typedef struct {
    const solve_problem_t *problem;
    uint32_t size, states; /* experts of a part */
    uint8_t *part_of;      /* [states, experts] parts numbered by their first expert */
    int64_t *best;         /* [2, states] least sum that ends in a state */
    uint16_t *before;      /* [layers, states] */
    int64_t *inner;        /* [experts, ranks] transitions of an expert of the layer before with a part */
    void *scratch;
} chain_t;

/* How many ways there are to split the experts into equal parts without names; 0: more than STATES_MAX. */
static uint32_t count_states(uint32_t experts, uint32_t size)
{
    double count = 1;
    for (uint32_t left = experts; left > size; left -= size)
        for (uint32_t i = 1; i < size; i++) count *= (double)(left - i) / (double)(size - i);
    return count <= STATES_MAX ? (uint32_t)(count + 0.5) : 0;
}

/* Depth first: each expert joins a part that has room, or opens the next. */
static void list_states(chain_t *chain, uint8_t *part_of, uint32_t expert, uint32_t open, uint8_t *held)
{
    const solve_problem_t *p = chain->problem;
    if (expert == p->experts) {
        memcpy(chain->part_of + (size_t)chain->states++ * p->experts, part_of, p->experts);
        return;
    }
    for (uint32_t part = 0; part <= open && part < p->ranks; part++) {
        if (held[part] == chain->size) continue;
        held[part]++;
        part_of[expert] = (uint8_t)part;
        list_states(chain, part_of, expert + 1, part == open ? open + 1 : open, held);
        held[part]--;
    }
}

static int64_t load_term(const chain_t *chain, uint32_t layer, const uint8_t *part_of)
{
    const solve_problem_t *p = chain->problem;
    int64_t load[RANKS_MAX] = {0}, worst = 0;
    for (uint32_t e = 0; e < p->experts; e++)
        load[part_of[e]] += p->load[(size_t)layer * p->experts + e] * p->slowness[0];
    for (uint32_t r = 0; r < p->ranks; r++) worst = load[r] > worst ? load[r] : worst;
    return worst;
}

/* Least cost of the boundary, the parts of `from` already summed in `inner`; column_of: rank of each part of `to`. */
static int64_t match(const chain_t *chain, const uint8_t *from, const uint8_t *to, uint32_t *column_of)
{
    const solve_problem_t *p = chain->problem;
    int64_t kept[RANKS_MAX * RANKS_MAX] = {0};
    (void)from;
    for (uint32_t f = 0; f < p->experts; f++)
        for (uint32_t g = 0; g < p->ranks; g++) kept[to[f] * p->ranks + g] -= chain->inner[(size_t)f * p->ranks + g];
    return solve_hungarian(kept, p->ranks, column_of, chain->scratch);
}

/* inner[f][g]: transitions from part g of `from` into expert f of the next layer. */
static void sum_parts(chain_t *chain, uint32_t layer, const uint8_t *from)
{
    const solve_problem_t *p = chain->problem;
    memset(chain->inner, 0, (size_t)p->experts * p->ranks * sizeof(*chain->inner));
    for (uint32_t e = 0; e < p->experts; e++)
        for (uint32_t f = 0; p->transition != NULL && f < p->experts; f++)
            chain->inner[(size_t)f * p->ranks + from[e]] += solve_row(p, layer, e)[f];
}

/* The load terms of a plan add up before they are weighed, and weighing rounds: so sums of loads are kept apart only in
 * effect, by weighing each layer's load whole. The evaluator's value may differ by under one thousandth a layer. */
static bool extend(chain_t *chain, uint32_t layer, const solve_context_t *context)
{
    const solve_problem_t *p = chain->problem;
    const int64_t *from = chain->best + (size_t)((layer - 1) % 2) * chain->states;
    int64_t *to = chain->best + (size_t)(layer % 2) * chain->states;
    uint16_t *before = chain->before + (size_t)layer * chain->states;
    for (uint32_t t = 0; t < chain->states; t++) to[t] = INT64_MAX;
    uint32_t column_of[RANKS_MAX];
    for (uint32_t s = 0; s < chain->states; s++) {
        const uint8_t *part_of = chain->part_of + (size_t)s * p->experts;
        if (solve_context_over(context)) return false;
        sum_parts(chain, layer - 1, part_of);
        for (uint32_t t = 0; t < chain->states; t++) {
            int64_t total = from[s] +
                            p->near_cost * match(chain, part_of, chain->part_of + (size_t)t * p->experts, column_of);
            if (total >= to[t]) continue;
            to[t] = total;
            before[t] = (uint16_t)s;
        }
    }
    for (uint32_t t = 0; t < chain->states; t++)
        to[t] += solve_weighed(p, load_term(chain, layer, chain->part_of + (size_t)t * p->experts));
    return true;
}

/* Names the parts, layer by layer from the first. */
static void name_parts(chain_t *chain, const uint32_t *state, solve_rank_t *rank_of)
{
    const solve_problem_t *p = chain->problem;
    uint32_t name[RANKS_MAX], column_of[RANKS_MAX];
    for (uint32_t r = 0; r < p->ranks; r++) name[r] = r;
    for (uint32_t l = 0; l < p->layers; l++) {
        const uint8_t *part_of = chain->part_of + (size_t)state[l] * p->experts;
        if (l > 0) {
            const uint8_t *from = chain->part_of + (size_t)state[l - 1] * p->experts;
            uint32_t next[RANKS_MAX];
            sum_parts(chain, l - 1, from);
            match(chain, from, part_of, column_of);
            for (uint32_t r = 0; r < p->ranks; r++) next[r] = name[column_of[r]];
            memcpy(name, next, sizeof(name));
        }
        for (uint32_t e = 0; e < p->experts; e++) rank_of[(size_t)l * p->experts + e] = (solve_rank_t)name[part_of[e]];
    }
}

static cot_status_t run(chain_t *chain, const solve_context_t *context, solve_rank_t *rank_of)
{
    const solve_problem_t *p = chain->problem;
    uint8_t part_of[EXPERTS_MAX], held[RANKS_MAX] = {0};
    uint32_t *state = cot_calloc(p->layers, sizeof(*state)), last = 0;
    if (state == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the states");
    list_states(chain, part_of, 0, 0, held);
    for (uint32_t t = 0; t < chain->states; t++)
        chain->best[t] = solve_weighed(p, load_term(chain, 0, chain->part_of + (size_t)t * p->experts));
    bool whole = true;
    for (uint32_t l = 1; l < p->layers && whole; l++) whole = extend(chain, l, context);
    const int64_t *best = chain->best + (size_t)((p->layers - 1) % 2) * chain->states;
    for (uint32_t t = 1; whole && t < chain->states; t++)
        if (best[t] < best[last]) last = t;
    for (uint32_t l = p->layers; whole && l-- > 0;) {
        state[l] = last;
        last = chain->before[(size_t)l * chain->states + last];
    }
    if (whole) name_parts(chain, state, rank_of);
    cot_free(state);
    return whole ? COT_OK : cot_fail(COT_ERR_TIMEOUT, "the time was over before the dynamic programming was");
}

static cot_status_t check(const solve_problem_t *p, uint32_t *states_out)
{
    bool flat = p->nodes == 1 || p->near_cost == p->far_cost;
    if (p->objective == SOLVE_STEP_TIME || !p->uniform || !flat || p->free_slots > 0 || p->experts > EXPERTS_MAX ||
        p->ranks > RANKS_MAX || p->experts % p->ranks != 0)
        return cot_fail(COT_ERR_UNSUPPORTED,
                        "dp needs equal ranks whose links cost the same, no spare slots, at most %d experts",
                        EXPERTS_MAX);
    uint32_t states = count_states(p->experts, p->experts / p->ranks);
    double effort = (double)states * states * (p->layers - 1) * p->ranks * (p->experts + p->ranks * p->ranks);
    if (states == 0 || effort > EFFORT_MAX)
        return cot_fail(COT_ERR_UNSUPPORTED, "dp: %u experts on %u ranks have too many partitions", p->experts,
                        p->ranks);
    *states_out = states;
    return COT_OK;
}

cot_status_t solve_chain(const solve_problem_t *problem, const solve_context_t *context, solve_answer_t *answer_out)
{
    uint32_t states = 0;
    COT_TRY(check(problem, &states));
    chain_t chain = {.problem = problem, .size = problem->experts / problem->ranks};
    solve_answer_t answer = {.proved = SOLVE_PROVED_DP, .work = 1};
    solve_rank_t *rank_of = cot_calloc(solve_cells(problem), sizeof(*rank_of));
    chain.part_of = cot_calloc((size_t)states * problem->experts, 1);
    chain.best = cot_calloc((size_t)states * 2, sizeof(*chain.best));
    chain.before = cot_calloc((size_t)states * problem->layers, sizeof(*chain.before));
    chain.inner = cot_calloc((size_t)problem->experts * problem->ranks, sizeof(*chain.inner));
    chain.scratch = cot_alloc(SOLVE_HUNGARIAN_BYTES(problem->ranks));
    cot_status_t status = COT_OK;
    if (rank_of == NULL || chain.part_of == NULL || chain.best == NULL || chain.before == NULL || chain.inner == NULL ||
        chain.scratch == NULL)
        status = cot_fail(COT_ERR_NO_MEMORY, "no memory for %u partitions", states);
    if (status == COT_OK) status = run(&chain, context, rank_of);
    if (status == COT_OK) status = solve_plan_from_ranks(problem, rank_of, &answer.plan);
    cot_free(rank_of);
    cot_free(chain.part_of);
    cot_free(chain.best);
    cot_free(chain.before);
    cot_free(chain.inner);
    cot_free(chain.scratch);
    COT_TRY(status);
    *answer_out = answer;
    return COT_OK;
}
