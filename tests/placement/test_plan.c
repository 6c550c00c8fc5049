#include "tests/temporary.h"

#include "base/json.h"
#include "placement/plan.h"

static const uint32_t LAYERS[] = {1, 3};

static place_plan_t *parse(const char *text)
{
    place_plan_t *plan = NULL;
    assert_ok(place_plan_parse(text, strlen(text), "text", &plan));
    return plan;
}

static void refuses(const char *text, const char *words)
{
    place_plan_t *plan = NULL;
    assert_fails(place_plan_parse(text, strlen(text), "text", &plan), COT_ERR_FORMAT, words);
    assert_null(plan);
}

static void contiguous_spreads_the_rest(void **state)
{
    (void)state;
    place_plan_t *plan = NULL;
    assert_ok(place_plan_contiguous(2, LAYERS, 5, 3, &plan));
    /* 5 experts on 3 ranks: 2, 2, 1. */
    const uint32_t begin[] = {0, 2, 4, 5, 7, 9, 10}, expert[] = {0, 1, 2, 3, 4, 0, 1, 2, 3, 4};
    assert_memory_equal(plan->slot_begin, begin, sizeof(begin));
    assert_memory_equal(plan->slot_expert, expert, sizeof(expert));
    assert_int_equal(place_plan_rank(plan, 1, 3, 0), 1);
    assert_int_equal(place_plan_slot(plan, 0, 1, 3), 1);
    assert_int_equal(place_plan_slot(plan, 0, 0, 3), -1);
    place_plan_destroy(plan);
}

static void more_ranks_than_experts(void **state)
{
    (void)state;
    place_plan_t *plan = NULL;
    assert_ok(place_plan_contiguous(1, LAYERS, 2, 4, &plan));
    for (uint32_t home = 0; home < 4; home++)
        for (uint32_t expert = 0; expert < 2; expert++)
            assert_int_equal(place_plan_rank(plan, 0, expert, home), expert);
    place_plan_destroy(plan);
}

/* Expert 0 on ranks 0 and 2; expert 1 on rank 1 alone. */
static void replicas_are_chosen_by_home(void **state)
{
    (void)state;
    place_plan_t *plan = parse("{\"format\": \"coterie.plan/1\", \"ranks\": 4, \"layers\": "
                               "[{\"layer\": 1, \"ranks\": [[0], [1], [0], []]}]}");
    assert_int_equal(place_plan_rank(plan, 0, 0, 0), 0);
    assert_int_equal(place_plan_rank(plan, 0, 0, 2), 2);
    assert_int_equal(place_plan_rank(plan, 0, 0, 1), 2); /* (1 + 0) % 2 = second copy */
    assert_int_equal(place_plan_rank(plan, 0, 0, 3), 2);
    assert_int_equal(place_plan_rank(plan, 0, 1, 3), 1);
    place_plan_destroy(plan);
}

static void round_trip_keeps_everything(void **state)
{
    (void)state;
    place_plan_t *plan = parse(
        "{\"format\": \"coterie.plan/1\", \"model\": {\"name\": \"m\\\"x\", \"config_sha256\": \"ab\", "
        "\"experts\": 3}, \"exchange\": \"home\", \"ranks\": 2, \"layers\": "
        "[{\"layer\": 1, \"ranks\": [[2, 0], [1]]}, {\"layer\": 3, \"ranks\": [[0, 1, 2], [2]]}], "
        "\"objective\": {\"name\": \"crossings\", \"value\": 12, \"gap\": 0.25}, \"extra\": 1}");
    cot_buffer_t once = {0}, twice = {0};
    assert_ok(place_plan_print(plan, &once));
    place_plan_t *again = NULL;
    assert_ok(place_plan_parse((const char *)once.data, once.size, "printed", &again));
    assert_ok(place_plan_print(again, &twice));
    assert_int_equal(once.size, twice.size);
    assert_memory_equal(once.data, twice.data, once.size);
    assert_string_equal(again->model_name, "m\"x");
    assert_non_null(json_object_get(again->extra, "objective"));
    cot_buffer_free(&once);
    cot_buffer_free(&twice);
    place_plan_destroy(plan);
    place_plan_destroy(again);
}

static void bad_plans_are_refused(void **state)
{
    (void)state;
#define PLAN(layers) "{\"format\": \"coterie.plan/1\", \"ranks\": 2, \"layers\": " layers "}"
    refuses("{}", "coterie.plan/1");
    refuses("{\"format\": \"coterie.plan/1\", \"layers\": []}", "ranks");
    refuses(PLAN("[]"), "layers");
    refuses(PLAN("[{\"layer\": 0, \"ranks\": [[0]]}]"), "list of 2");
    refuses(PLAN("[{\"layer\": 0, \"ranks\": [[0, 0], [1]]}]"), "twice on rank 0");
    refuses(PLAN("[{\"layer\": 0, \"ranks\": [[0], [2]]}]"), "expert 1 stands on no rank");
    refuses(PLAN("[{\"layer\": 0, \"ranks\": [[0], [-1]]}]"), "expert");
    refuses(PLAN("[{\"layer\": 0, \"ranks\": [[0], [\"1\"]]}]"), "expert");
    refuses(PLAN("[{\"layer\": 4, \"ranks\": [[0], [1]]}, {\"layer\": 2, \"ranks\": [[0], [1]]}]"), "ascending");
    refuses("{\"format\": \"coterie.plan/1\", \"ranks\": 2, \"model\": {\"experts\": 1}, \"layers\": "
            "[{\"layer\": 0, \"ranks\": [[0], [1]]}]}",
            "states 1 experts");
    refuses("[1, 2", "line 1");
#undef PLAN
}

static void another_model_or_job_is_refused(void **state)
{
    (void)state;
    place_plan_t *plan = NULL;
    assert_ok(place_plan_contiguous(2, LAYERS, 4, 2, &plan));
    plan->config_sha256 = cot_strdup("0123456789abcdef");
    const place_plan_need_t fits = {2, 4, 2, LAYERS, "0123456789abcdef"};
    assert_ok(place_plan_check(plan, &fits));
    place_plan_need_t need = fits;
    need.ranks = 3;
    assert_fails(place_plan_check(plan, &need), COT_ERR_MISMATCH, "2 workers");
    need = fits;
    need.config_sha256 = "ffff";
    assert_fails(place_plan_check(plan, &need), COT_ERR_MISMATCH, "another model");
    need = fits;
    need.experts = 8;
    assert_fails(place_plan_check(plan, &need), COT_ERR_MISMATCH, "experts");
    need = fits;
    need.layer_index = (const uint32_t[]){1, 2};
    assert_fails(place_plan_check(plan, &need), COT_ERR_MISMATCH, "layer");
    place_plan_destroy(plan);
}

static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    const char *text = "{\"format\": \"coterie.plan/1\", \"model\": {\"name\": \"m\"}, \"ranks\": 1, \"layers\": "
                       "[{\"layer\": 0, \"ranks\": [[0, 1]]}], \"objective\": {}}";
    place_plan_t *plan = NULL;
    assert_survives_allocations(place_plan_parse(text, strlen(text), "text", &plan),
                                (place_plan_destroy(plan), plan = NULL));
}

int main(void)
{
    cot_json_setup();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contiguous_spreads_the_rest),
        cmocka_unit_test(more_ranks_than_experts),
        cmocka_unit_test(replicas_are_chosen_by_home),
        cmocka_unit_test(round_trip_keeps_everything),
        cmocka_unit_test(bad_plans_are_refused),
        cmocka_unit_test(another_model_or_job_is_refused),
        cmocka_unit_test(every_failed_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
