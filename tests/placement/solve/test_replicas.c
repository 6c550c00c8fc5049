/* Copies in free slots: judged under the engine's fixed rule they make a plan better, never worse; what ideal routing
 * would give lies between the bound and what the rule gives. */
#include "tests/placement/solve/world.h"

#include "base/json.h"
#include "placement/solve/baselines.h"
#include "placement/solve/bound.h"
#include "placement/solve/evaluate.h"
#include "placement/solve/replicas.h"

typedef struct {
    char folder[256], path[300];
    world_t world;
    solve_problem_t *problem;
} fixture_t;

static const char ROOM[] = "{\"format\": \"coterie.cluster/1\", \"ranks\": [{\"count\": 2, \"node\": 0, \"slots\": 3}, "
                           "{\"node\": 1, \"slots\": 4, \"relative_speed\": 0.5}], \"links\": {\"same_node\": "
                           "{\"gigabytes_per_s\": 8, \"latency_us\": 1, \"crossing_cost\": 1}, \"cross_node\": "
                           "{\"gigabytes_per_s\": 3, \"latency_us\": 1, \"crossing_cost\": 4}}}";

static void make(fixture_t *at, uint64_t seed, solve_objective_t objective)
{
    *at = (fixture_t){.world = {.layers = 4, .experts = 7, .ranks = 3, .top_k = 2, .tokens = 120, .random = seed}};
    temporary_make(at->folder);
    snprintf(at->path, sizeof(at->path), "%s/t.trace.safetensors", at->folder);
    world_make(&at->world, at->path, ROOM);
    solve_problem_config_t config = {.stats = at->world.stats,
                                     .cluster = at->world.cluster,
                                     .objective = objective,
                                     .lambda = 0.4,
                                     .row_bytes = 900,
                                     .expert_ns_per_row = 70,
                                     .step_tokens = 16};
    assert_ok(solve_problem_create(&config, &at->problem));
}

static void unmake(fixture_t *at)
{
    solve_problem_destroy(at->problem);
    world_free(&at->world);
    temporary_remove(at->folder);
}

static solve_figures_t judge(const fixture_t *at, const place_plan_t *plan)
{
    solve_figures_t figures;
    assert_ok(solve_evaluate(at->problem, plan, &figures));
    return figures;
}

static void copies_make_it_better(void **state)
{
    (void)state;
    static const solve_objective_t OBJECTIVES[] = {SOLVE_CROSSINGS, SOLVE_BALANCE, SOLVE_WEIGHTED, SOLVE_STEP_TIME};
    uint32_t better[4] = {0};
    for (uint64_t seed = 0; seed < 24; seed++) {
        fixture_t at;
        make(&at, seed, OBJECTIVES[seed % 4]);
        const solve_context_t context = {.threads = 1, .deadline = COT_NEVER};
        solve_answer_t answer = {0};
        uint32_t added = 0;
        assert_ok(solve_lpt(at.problem, &context, &answer));
        int64_t before = judge(&at, answer.plan).value;
        assert_ok(solve_add_replicas(at.problem, &context, &answer.plan, &added));
        int64_t after = judge(&at, answer.plan).value; /* also sees that no rank is over its slots */
        assert_true(after <= before && (after < before) == (added > 0));
        better[seed % 4] += after < before;
        solve_bound_config_t limits = {.deadline = COT_NEVER};
        solve_bound_t *bound = NULL;
        assert_ok(solve_bound_create(at.problem, &limits, &bound));
        assert_true(bound->value <= after);
        if (OBJECTIVES[seed % 4] == SOLVE_BALANCE) {
            int64_t ideal = 0;
            assert_ok(solve_ideal_balance(at.problem, answer.plan, &context, &ideal));
            assert_true(ideal <= after + 4 && ideal >= bound->value - 4); /* rounded once a layer */
        }
        solve_bound_destroy(bound);
        place_plan_destroy(answer.plan);
        unmake(&at);
    }
    for (int i = 0; i < 4; i++) assert_true(better[i] >= 3); /* of 6 */
}

/* One expert has half of all tokens, two ranks, one free slot each: a second copy halves the largest load. */
static void the_hottest_is_halved(void **state)
{
    (void)state;
    static const char TEXT[] =
        "{\"format\": \"coterie.cluster/1\", \"ranks\": [{\"count\": 2, \"node\": 0, \"slots\": 3}], "
        "\"links\": {\"same_node\": {\"gigabytes_per_s\": 1}}}";
    uint32_t index[1] = {0};
    int64_t load[4] = {60, 20, 20, 20}, ideal = 0;
    place_stats_t stats = {.layers = 1, .experts = 4, .top_k = 1, .layer_index = index, .load = load};
    place_cluster_t *cluster = NULL;
    assert_ok(place_cluster_parse(TEXT, strlen(TEXT), "cluster", &cluster));
    solve_problem_config_t config = {.stats = &stats, .cluster = cluster, .objective = SOLVE_BALANCE, .step_tokens = 1};
    solve_problem_t *problem = NULL;
    assert_ok(solve_problem_create(&config, &problem));
    const solve_context_t context = {.threads = 1, .deadline = COT_NEVER};
    solve_answer_t answer = {0};
    solve_figures_t figures;
    assert_ok(solve_replicas(problem, &context, &answer));
    assert_ok(solve_evaluate(problem, answer.plan, &figures));
    assert_int_equal(figures.value, 60 * SOLVE_UNIT); /* 60 | 60: the mean already */
    place_plan_destroy(answer.plan);

    load[0] = 100; /* 100 | 60 becomes 50 + … */
    solve_problem_destroy(problem);
    assert_ok(solve_problem_create(&config, &problem));
    answer = (solve_answer_t){0};
    assert_ok(solve_replicas(problem, &context, &answer));
    assert_ok(solve_evaluate(problem, answer.plan, &figures));
    assert_true(figures.value <= 110 * SOLVE_UNIT && figures.value >= 80 * SOLVE_UNIT);
    assert_ok(solve_ideal_balance(problem, answer.plan, &context, &ideal));
    assert_int_equal(ideal, 80 * SOLVE_UNIT);
    assert_non_null(strstr(answer.note, "with ideal routing 80"));
    place_plan_destroy(answer.plan);
    solve_problem_destroy(problem);
    place_cluster_destroy(cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_make_it_better),
        cmocka_unit_test(the_hottest_is_halved),
    };
    cot_json_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
