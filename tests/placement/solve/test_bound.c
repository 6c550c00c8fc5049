/* The bounds against brute force: hundreds of tiny random problems of every objective, with replicas, uneven ranks and
 * odd cost matrices, and no placement below the bound; and known answers where a bound is exact. */
#include "tests/placement/solve/world.h"

#include "base/buffer.h"
#include "base/json.h"
#include "placement/solve/bound.h"
#include "placement/solve/evaluate.h"
#include "placement/solve/load_bound.h"

enum { ALIKE, MORE_SLOTS, UNEVEN, MATRIX, KINDS };
#define PLANS_MAX 4000 /* judged of one problem; of more a random part */

typedef struct {
    char folder[256], path[300];
    world_t world;
    solve_problem_t *problem;
    uint32_t **config;     /* ways to fill one layer: a set of ranks for each expert, as bits */
    uint32_t config_count; /* the same for all layers */
    int64_t best;          /* least value of the plans judged */
} fixture_t;

/* ---- random problems ---- */

static void print_matrix(world_t *world, const char *name, cot_buffer_t *out)
{
    assert_ok(cot_buffer_printf(out, "\"%s\": [", name));
    for (uint32_t a = 0; a < world->ranks; a++)
        for (uint32_t b = 0; b < world->ranks; b++)
            assert_ok(cot_buffer_printf(out, "%s%u%s",
                                        b > 0   ? ", "
                                        : a > 0 ? ", ["
                                                : "[",
                                        1 + world_draw(world, 7), b + 1 == world->ranks ? "]" : ""));
    assert_ok(cot_buffer_printf(out, "]"));
}

static void print_cluster(world_t *world, int kind, cot_buffer_t *out)
{
    uint32_t even = (world->experts + world->ranks - 1) / world->ranks, left = world->experts;
    assert_ok(cot_buffer_printf(out, "{\"format\": \"coterie.cluster/1\", \"ranks\": ["));
    for (uint32_t r = 0; r < world->ranks; r++) {
        uint32_t slots = even + (kind == MORE_SLOTS ? 1 : 0);
        if (kind >= UNEVEN) slots = r + 1 < world->ranks ? 1 + world_draw(world, 2) : left + world_draw(world, 2);
        if (slots == 0) slots = 1;
        left -= slots < left ? slots : left;
        const char *speed = kind >= UNEVEN && world_draw(world, 2) == 0 ? "0.6" : "1";
        assert_ok(cot_buffer_printf(out, "%s{\"node\": %u, \"slots\": %u, \"relative_speed\": %s}", r > 0 ? ", " : "",
                                    r * 2 / world->ranks, slots, speed));
    }
    if (kind != MATRIX) {
        assert_ok(cot_buffer_printf(out, "], \"links\": {\"same_node\": {\"latency_us\": 0.3, \"gigabytes_per_s\": 8, "
                                         "\"crossing_cost\": 1}, \"cross_node\": {\"latency_us\": 2, "
                                         "\"gigabytes_per_s\": 3, \"crossing_cost\": 4}}}"));
        return;
    }
    assert_ok(cot_buffer_printf(out, "], \"links\": {\"matrix\": {"));
    print_matrix(world, "crossing_cost", out);
    assert_ok(cot_buffer_printf(out, ", "));
    print_matrix(world, "gigabytes_per_s", out);
    assert_ok(cot_buffer_printf(out, "}}}"));
}

static void make(fixture_t *at, uint64_t seed, int kind, solve_problem_config_t config)
{
    *at = (fixture_t){.world = {.random = seed, .layers = 2 + (uint32_t)(seed % 2), .tokens = 12, .top_k = 2}};
    world_t *world = &at->world;
    world->ranks = 2 + (uint32_t)(seed / 2 % 2);
    world->experts = world->ranks * 2 - (kind == ALIKE ? 0 : (uint32_t)(seed / 4 % 2));
    cot_buffer_t text = {0};
    print_cluster(world, kind, &text);
    assert_ok(cot_buffer_append(&text, "", 1));
    temporary_make(at->folder);
    snprintf(at->path, sizeof(at->path), "%s/t.trace.safetensors", at->folder);
    world_make(world, at->path, (const char *)text.data);
    cot_buffer_free(&text);
    config.stats = world->stats;
    config.cluster = world->cluster;
    config.step_tokens = 5;
    config.row_bytes = 900;
    config.expert_ns_per_row = 70.3;
    config.expert_ns_per_touch = 812.5;
    assert_ok(solve_problem_create(&config, &at->problem));
}

static void unmake(fixture_t *at)
{
    for (uint32_t i = 0; i < at->config_count; i++) cot_free(at->config[i]);
    cot_free(at->config);
    solve_problem_destroy(at->problem);
    world_free(&at->world);
    temporary_remove(at->folder);
}

/* ---- every placement ---- */

static bool fits(const solve_problem_t *p, const uint32_t *set)
{
    for (uint32_t r = 0; r < p->ranks; r++) {
        uint32_t held = 0;
        for (uint32_t e = 0; e < p->experts; e++) held += set[e] >> r & 1;
        if (held > p->slots[r]) return false;
    }
    return true;
}

static void list_configs(fixture_t *at)
{
    const solve_problem_t *p = at->problem;
    uint32_t set[16], subsets = (1U << p->ranks) - 1;
    uint64_t count = 1;
    for (uint32_t e = 0; e < p->experts; e++) count *= subsets;
    at->config = cot_calloc(count, sizeof(*at->config));
    assert_non_null(at->config);
    for (uint64_t code = 0; code < count; code++) {
        uint64_t rest = code;
        for (uint32_t e = 0; e < p->experts; e++, rest /= subsets) set[e] = 1 + (uint32_t)(rest % subsets);
        if (!fits(p, set)) continue;
        uint32_t *kept = cot_calloc(p->experts, sizeof(*kept));
        assert_non_null(kept);
        memcpy(kept, set, p->experts * sizeof(*kept));
        at->config[at->config_count++] = kept;
    }
    assert_true(at->config_count > 0);
}

static int64_t value_of(const fixture_t *at, const uint32_t *chosen)
{
    const solve_problem_t *p = at->problem;
    place_plan_t *plan = NULL;
    assert_ok(place_plan_contiguous(p->layers, p->stats->layer_index, p->experts, p->ranks, &plan));
    cot_free(plan->slot_expert);
    plan->slot_expert = cot_calloc((size_t)p->layers * p->ranks * p->experts, sizeof(*plan->slot_expert));
    assert_non_null(plan->slot_expert);
    for (uint32_t l = 0, slot = 0; l < p->layers; l++)
        for (uint32_t r = 0; r < p->ranks; r++) {
            for (uint32_t e = 0; e < p->experts; e++)
                if (at->config[chosen[l]][e] >> r & 1) plan->slot_expert[slot++] = e;
            plan->slot_begin[l * p->ranks + r + 1] = slot;
        }
    solve_figures_t figures;
    assert_ok(solve_evaluate(p, plan, &figures));
    place_plan_destroy(plan);
    return figures.value;
}

static void try_all(fixture_t *at)
{
    const solve_problem_t *p = at->problem;
    list_configs(at);
    uint64_t count = 1;
    for (uint32_t l = 0; l < p->layers; l++) count *= at->config_count;
    uint64_t step = count > PLANS_MAX ? count / PLANS_MAX : 1;
    at->best = INT64_MAX;
    for (uint64_t code = step > 1 ? world_draw(&at->world, (uint32_t)step) : 0; code < count; code += step) {
        uint32_t chosen[8];
        uint64_t rest = code;
        for (uint32_t l = 0; l < p->layers; l++, rest /= at->config_count)
            chosen[l] = (uint32_t)(rest % at->config_count);
        int64_t value = value_of(at, chosen);
        if (value < at->best) at->best = value;
    }
}

static double check(uint64_t seed, int kind, solve_problem_config_t config)
{
    fixture_t at;
    make(&at, seed, kind, config);
    try_all(&at);
    solve_bound_config_t limits = {.deadline = COT_NEVER};
    solve_bound_t *bound = NULL;
    assert_ok(solve_bound_create(at.problem, &limits, &bound));
    if (bound->value > at.best)
        fail_msg("seed %llu, kind %d, objective %d, exchange %d, decode %d: bound %lld, but a plan has %lld",
                 (unsigned long long)seed, kind, config.objective, config.exchange, config.decode,
                 (long long)bound->value, (long long)at.best);
    double share = at.best > 0 ? (double)bound->value / (double)at.best : 1;
    solve_bound_destroy(bound);
    unmake(&at);
    return share;
}

static void check_all(uint64_t cases, solve_problem_config_t config)
{
    for (int kind = ALIKE; kind < KINDS; kind++) {
        double sum = 0;
        for (uint64_t seed = 0; seed < cases; seed++) sum += check(seed, kind, config);
        print_message("kind %d: bound / best on average %.3f\n", kind, sum / (double)cases);
        /* A bound of 0 everywhere would be no bound. In steps of five tokens latencies are most of a step's time. */
        assert_true(sum / (double)cases > (config.objective == SOLVE_STEP_TIME ? 0.02 : 0.4));
    }
}

static void no_crossings_below_it(void **state)
{
    (void)state;
    check_all(24, (solve_problem_config_t){.objective = SOLVE_CROSSINGS});
}

static void no_load_below_it(void **state)
{
    (void)state;
    check_all(24, (solve_problem_config_t){.objective = SOLVE_BALANCE});
    check_all(8, (solve_problem_config_t){.objective = SOLVE_BALANCE, .decode = true});
}

static void no_sum_below_it(void **state)
{
    (void)state;
    check_all(16, (solve_problem_config_t){.objective = SOLVE_WEIGHTED, .lambda = 0.35});
}

static void no_step_below_it(void **state)
{
    (void)state;
    for (int exchange = SOLVE_HOME; exchange <= SOLVE_COHERENT; exchange++)
        for (int decode = 0; decode < 2; decode++)
            check_all(8, (solve_problem_config_t){.objective = SOLVE_STEP_TIME,
                                                  .exchange = (solve_exchange_t)exchange,
                                                  .decode = decode > 0});
}

/* ---- known answers ---- */

static int64_t load_of(const int64_t *weight, uint32_t experts, const uint32_t *slots, const int64_t *slowness,
                       uint32_t ranks)
{
    uint32_t total = 0;
    for (uint32_t r = 0; r < ranks; r++) total += slots[r];
    const solve_layer_load_t layer = {weight, experts, slots, slowness, ranks, total - experts};
    int64_t bound = 0;
    assert_ok(solve_load_bound(&layer, &bound));
    return bound;
}

static void loads_by_hand(void **state)
{
    (void)state;
    const int64_t alike[] = {1000, 1000, 1000}, unlike[] = {1000, 2000};
    const uint32_t two[] = {2, 2, 2}, three[] = {3, 3};
    /* The mean is 10 / 2; the hottest has company of at least 0 + 1. */
    assert_int_equal(load_of((int64_t[]){4, 2, 2, 1, 1, 0}, 6, three, alike, 2), 5000);
    assert_int_equal(load_of((int64_t[]){9, 2, 2, 1, 1, 0}, 6, three, alike, 2), 10000);
    /* Of the four hottest two share a rank: 5 + 5, though the mean is 22 / 3. */
    assert_int_equal(load_of((int64_t[]){5, 5, 5, 5, 1, 1}, 6, two, alike, 3), 10000);
    /* With one slot more a copy of one of them may spare that: only the mean is left. */
    assert_int_equal(load_of((int64_t[]){5, 5, 5, 5, 1}, 5, two, alike, 3), 7000);
    /* A rank of half the speed: 12 = 8 + 4, and 8 x 1 = 4 x 2. */
    assert_int_equal(load_of((int64_t[]){2, 2, 2, 2, 2, 2}, 6, three, unlike, 2), 8000);
}

/* Each expert goes to the one of the same number: nothing need cross, and with any other pairing all of it. */
static void blocks_are_proved(void **state)
{
    (void)state;
    enum { LAYERS = 3, EXPERTS = 8, RANKS = 4 };
    uint32_t index[LAYERS] = {0, 1, 2};
    int64_t load[LAYERS * EXPERTS], transition[(LAYERS - 1) * EXPERTS * EXPERTS] = {0};
    for (size_t i = 0; i < LAYERS * EXPERTS; i++) load[i] = 20;
    for (size_t l = 0; l + 1 < LAYERS; l++)
        for (size_t e = 0; e < EXPERTS; e++)
            for (size_t f = 0; f < EXPERTS; f++) transition[(l * EXPERTS + e) * EXPERTS + f] = e / 2 == f / 2 ? 7 : 1;
    place_stats_t stats = {
        .layers = LAYERS, .experts = EXPERTS, .top_k = 1, .layer_index = index, .load = load, .transition = transition};
    static const char TEXT[] =
        "{\"format\": \"coterie.cluster/1\", \"ranks\": [{\"count\": 4, \"node\": 0}], \"links\": "
        "{\"same_node\": {\"gigabytes_per_s\": 1, \"crossing_cost\": 3}}}";
    place_cluster_t *cluster = NULL;
    assert_ok(place_cluster_parse(TEXT, strlen(TEXT), "cluster", &cluster));
    solve_problem_config_t config = {.stats = &stats, .cluster = cluster, .step_tokens = 1};
    solve_problem_t *problem = NULL;
    assert_ok(solve_problem_create(&config, &problem));
    solve_bound_config_t limits = {.deadline = COT_NEVER};
    solve_bound_t *bound = NULL;
    assert_ok(solve_bound_create(problem, &limits, &bound));
    assert_int_equal(bound->levels, 1);
    assert_int_equal(bound->level[0].groups, RANKS);
    assert_int_equal(bound->crossings, 3 * 2 * EXPERTS * 6); /* the blocks as they are, exactly */
    assert_int_equal(bound->value, 3 * 2 * EXPERTS * 6 * SOLVE_UNIT);
    assert_true(bound->dual);
    solve_bound_destroy(bound);

    /* No time at all: still a bound. */
    limits.deadline = 0;
    assert_ok(solve_bound_create(problem, &limits, &bound));
    assert_true(bound->value >= 0 && bound->value <= 3 * 2 * EXPERTS * 6 * SOLVE_UNIT);
    solve_bound_destroy(bound);
    solve_problem_destroy(problem);
    place_cluster_destroy(cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loads_by_hand),   cmocka_unit_test(blocks_are_proved), cmocka_unit_test(no_load_below_it),
        cmocka_unit_test(no_sum_below_it), cmocka_unit_test(no_step_below_it),  cmocka_unit_test(no_crossings_below_it),
    };
    cot_json_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
