#include "placement/solve/bound.h"

#include "base/memory.h"
#include "placement/solve/gram.h"
#include "placement/solve/levels.h"
#include "placement/solve/load_bound.h"
#include "placement/solve/matching.h"
#include "placement/solve/traffic_bound.h"

void solve_bound_destroy(solve_bound_t *bound)
{
    if (bound == NULL) return;
    for (uint32_t i = 0; i < bound->levels; i++) {
        cot_free(bound->level[i].group);
        cot_free(bound->level[i].before);
        cot_free(bound->level[i].after);
    }
    cot_free(bound->diagonal);
    cot_free(bound);
}

/* The relaxation behind the gram bound wants groups of one size. */
static bool equal_groups(const solve_problem_t *p, const solve_level_t *level)
{
    uint32_t size[PLACE_MAX_RANKS] = {0};
    for (uint32_t r = 0; r < p->ranks; r++) size[level->group[r]] += p->slots[r];
    for (uint32_t g = 1; g < level->groups; g++)
        if (size[g] != size[0]) return false;
    return level->groups > 1;
}

/* Takes the gram bound wherever it is the better one. */
static cot_status_t add_gram(const solve_problem_t *p, const solve_bound_config_t *config, solve_bound_t *bound)
{
    bool wanted = false, found = false, used = false;
    for (uint32_t i = 0; i < bound->levels; i++) wanted |= equal_groups(p, &bound->level[i]);
    if (!wanted || !solve_gram_applies(p)) return COT_OK;
    bound->diagonal = cot_calloc(solve_cells(p), sizeof(*bound->diagonal));
    if (bound->diagonal == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a bound");
    COT_TRY(solve_gram_bound(p, config, bound->diagonal, &bound->centre, &found));
    for (uint32_t i = 0; i < bound->levels && found; i++) {
        solve_level_t *level = &bound->level[i];
        if (!equal_groups(p, level)) continue;
        int64_t within = solve_gram_within(p, level->groups, bound->diagonal);
        if (within >= level->within) continue;
        level->within = within;
        level->method = SOLVE_BY_GRAM;
        used = true;
    }
    if (!used) {
        cot_free(bound->diagonal);
        bound->diagonal = NULL;
    }
    return COT_OK;
}

static void add_up(const solve_problem_t *p, int64_t all, solve_bound_t *bound)
{
    bound->crossings = 0;
    for (uint32_t i = 0; i < bound->levels; i++)
        bound->crossings += bound->level[i].weight * (all - bound->level[i].within);
    bound->dual = bound->crossings > 0;
    bound->value = bound->crossings * SOLVE_UNIT + bound->traffic + p->load_weight * (bound->balance / SOLVE_UNIT) +
                   p->load_weight * (bound->balance % SOLVE_UNIT) / SOLVE_UNIT;
}

static void tell(const solve_bound_config_t *config, const solve_bound_t *bound)
{
    if (config->better != NULL) config->better(config->user, bound->value);
}

static cot_status_t bound_crossings(const solve_problem_t *p, const solve_bound_config_t *config, solve_bound_t *bound)
{
    int64_t all = 0;
    size_t pairs = (size_t)p->experts * p->experts;
    for (size_t i = 0; i < (p->layers - 1) * pairs; i++) all += p->transition[i];
    COT_TRY(solve_find_levels(p, bound));
    for (uint32_t i = 0; i < bound->levels; i++) COT_TRY(solve_matching_bound(p, config, &bound->level[i]));
    add_up(p, all, bound);
    tell(config, bound);
    COT_TRY(add_gram(p, config, bound));
    add_up(p, all, bound);
    return COT_OK;
}

static cot_status_t bound_loads(const solve_problem_t *p, solve_bound_t *bound)
{
    for (uint32_t l = 0; l < p->layers; l++) {
        const solve_layer_load_t layer = {
            p->load + (size_t)l * p->experts, p->experts, p->slots, p->slowness, p->ranks, p->free_slots};
        int64_t least = 0, traffic = 0;
        COT_TRY(solve_load_bound(&layer, &least));
        bound->balance += least;
        if (p->objective != SOLVE_STEP_TIME) continue;
        COT_TRY(solve_traffic_bound(p, l, &traffic));
        bound->traffic += traffic;
    }
    return COT_OK;
}

cot_status_t solve_bound_create(const solve_problem_t *p, const solve_bound_config_t *config, solve_bound_t **bound_out)
{
    solve_bound_t *bound = cot_calloc(1, sizeof(*bound));
    if (bound == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a bound");
    bound->layers = p->layers;
    bound->experts = p->experts;
    bound->ranks = p->ranks;
    cot_status_t status = p->load_weight != 0 ? bound_loads(p, bound) : COT_OK;
    add_up(p, 0, bound);
    if (status == COT_OK && p->transition != NULL && p->objective != SOLVE_STEP_TIME)
        status = bound_crossings(p, config, bound);
    if (status != COT_OK) {
        solve_bound_destroy(bound);
        return status;
    }
    tell(config, bound);
    *bound_out = bound;
    return COT_OK;
}
