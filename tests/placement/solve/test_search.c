/* The search against brute force: a world of 3 layers, 4 experts, 2 ranks, whose 6^3 placements are all judged by the
 * evaluator. And what must hold on any world: moves keep the tables right, work gives the same plan on one thread and
 * on two, few moves are few. */
#include "tests/placement/solve/world.h"

#include "placement/solve/anneal.h"
#include "placement/solve/evaluate.h"
#include "placement/solve/exact_chain.h"
#include "placement/solve/moves.h"
#include "placement/solve/replan.h"
#include "placement/solve/solvers.h"
#include "placement/solve/times.h"

#define LINKS                                                                                         \
    "\"links\": {\"same_node\": {\"latency_us\": 2, \"gigabytes_per_s\": 10, \"crossing_cost\": 1}, " \
    "\"cross_node\": {\"latency_us\": 9, \"gigabytes_per_s\": 1, \"crossing_cost\": 5}}}"
static const char TWO[] = "{\"format\": \"coterie.cluster/1\", \"ranks\": [{\"count\": 2, \"node\": 0}], " LINKS;
static const char FOUR[] = "{\"format\": \"coterie.cluster/1\", \"ranks\": [{\"count\": 2, \"node\": 0}, "
                           "{\"count\": 2, \"node\": 1}], " LINKS;
static const char UNEVEN[] = "{\"format\": \"coterie.cluster/1\", \"ranks\": [{\"node\": 0, \"slots\": 5}, "
                             "{\"count\": 2, \"node\": 1, \"slots\": 3, \"relative_speed\": 0.5}], " LINKS;

static world_t make(const char *folder, const char *cluster, uint32_t layers, uint32_t experts, uint32_t ranks)
{
    world_t world = {.layers = layers, .experts = experts, .ranks = ranks, .top_k = 2, .tokens = 300, .random = 7};
    char path[300];
    snprintf(path, sizeof(path), "%s/world.trace.safetensors", folder);
    world_make(&world, path, cluster);
    return world;
}

static solve_problem_t *problem_of(const world_t *world, solve_objective_t objective, solve_exchange_t exchange)
{
    solve_problem_config_t config = {.stats = world->stats,
                                     .cluster = world->cluster,
                                     .objective = objective,
                                     .exchange = exchange,
                                     .lambda = 1,
                                     .row_bytes = 1000,
                                     .expert_ns_per_row = 50,
                                     .step_tokens = 64};
    solve_problem_t *problem = NULL;
    assert_ok(solve_problem_create(&config, &problem));
    return problem;
}

static int64_t judge(const solve_problem_t *problem, const place_plan_t *plan)
{
    solve_figures_t figures;
    assert_ok(solve_evaluate(problem, plan, &figures));
    return figures.value;
}

static int64_t judge_ranks(const solve_problem_t *problem, const solve_rank_t *rank_of)
{
    place_plan_t *plan = NULL;
    assert_ok(solve_plan_from_ranks(problem, rank_of, &plan));
    int64_t value = judge(problem, plan);
    place_plan_destroy(plan);
    return value;
}

static int64_t answer_of(const solve_solver_t *solver, const solve_problem_t *problem, const solve_context_t *context,
                         solve_proved_t *proved_out)
{
    solve_answer_t answer = {0};
    assert_ok(solver->solve(problem, context, &answer));
    int64_t value = judge(problem, answer.plan);
    if (proved_out != NULL) *proved_out = answer.proved;
    place_plan_destroy(answer.plan);
    return value;
}

static int64_t brute_force(const solve_problem_t *problem)
{
    static const uint8_t HALF[6] = {3, 5, 6, 9, 10, 12}; /* which experts are on rank 1 */
    int64_t best = INT64_MAX;
    solve_rank_t rank_of[12];
    for (uint32_t code = 0; code < 216; code++) {
        const uint8_t chosen[3] = {HALF[code % 6], HALF[code / 6 % 6], HALF[code / 36]};
        for (uint32_t cell = 0; cell < 12; cell++) rank_of[cell] = chosen[cell / 4] >> cell % 4 & 1;
        int64_t value = judge_ranks(problem, rank_of);
        if (value < best) best = value;
    }
    return best;
}

static const struct {
    solve_objective_t objective;
    solve_exchange_t exchange;
} CASES[] = {{SOLVE_CROSSINGS, SOLVE_HOME}, {SOLVE_BALANCE, SOLVE_HOME},      {SOLVE_WEIGHTED, SOLVE_HOME},
             {SOLVE_STEP_TIME, SOLVE_HOME}, {SOLVE_STEP_TIME, SOLVE_SHUFFLE}, {SOLVE_STEP_TIME, SOLVE_COHERENT}};
enum { CASE_COUNT = sizeof(CASES) / sizeof(*CASES) };

static void finds_what_brute_force_finds(void **state)
{
    (void)state;
    char folder[256];
    temporary_make(folder);
    world_t world = make(folder, TWO, 3, 4, 2);
    for (uint32_t i = 0; i < CASE_COUNT; i++) {
        solve_problem_t *problem = problem_of(&world, CASES[i].objective, CASES[i].exchange);
        const solve_context_t context = {.seed = 1, .threads = 2, .work = 4, .deadline = COT_NEVER};
        solve_proved_t proved = SOLVE_NOT_PROVED;
        int64_t best = brute_force(problem);
        assert_int_equal(answer_of(&SOLVE_SOLVERS[0], problem, &context, &proved), best);
        assert_int_equal(proved, CASES[i].objective == SOLVE_STEP_TIME ? SOLVE_NOT_PROVED : SOLVE_PROVED_DP);
        if (CASES[i].objective != SOLVE_STEP_TIME)
            assert_int_equal(answer_of(solve_find_solver("anneal"), problem, &context, NULL), best);
        solve_problem_destroy(problem);
    }
    world_free(&world);
    temporary_remove(folder);
}

/* Swaps random experts; returns the placement's own ranks. */
static void shuffle(world_t *world, const solve_problem_t *problem, solve_rank_t *rank_of)
{
    solve_contiguous(problem, rank_of);
    for (uint32_t i = 0; i < 500; i++) {
        solve_rank_t *layer = rank_of + (size_t)world_draw(world, world->layers) * world->experts;
        uint32_t e = world_draw(world, world->experts), f = world_draw(world, world->experts);
        solve_rank_t kept = layer[e];
        layer[e] = layer[f];
        layer[f] = kept;
    }
}

static void check_table(const solve_search_t *search, int64_t at_most)
{
    int64_t value = solve_table_value(search->table);
    assert_true(value <= at_most);
    assert_int_equal(judge_ranks(search->table->problem, search->table->rank_of), value);
    solve_table_set(search->table, search->table->rank_of);
    assert_int_equal(solve_table_value(search->table), value);
}

static bool transport_all(solve_search_t *search)
{
    bool better = false;
    for (uint32_t l = 0; l < search->table->problem->layers; l++) better |= solve_transport(search, l);
    return better;
}

static void moves_keep_the_tables(void **state)
{
    (void)state;
    bool (*const MOVES[])(solve_search_t *) = {transport_all, solve_sweep, solve_relabel,
                                               solve_blocks,  solve_pairs, solve_swaps};
    char folder[256];
    temporary_make(folder);
    world_t world = make(folder, FOUR, 6, 16, 4);
    solve_rank_t *rank_of = cot_calloc((size_t)6 * 16, sizeof(*rank_of));
    for (uint32_t kind = 0; kind < 2; kind++) {
        solve_problem_t *problem = problem_of(&world, kind == 0 ? SOLVE_CROSSINGS : SOLVE_WEIGHTED, SOLVE_HOME);
        solve_search_t search;
        assert_ok(solve_search_create(problem, 3, &search));
        for (uint32_t m = 0; m < sizeof(MOVES) / sizeof(*MOVES); m++) {
            if (kind == 1 && m < 2) continue; /* these do not look at loads */
            shuffle(&world, problem, rank_of);
            solve_table_set(search.table, rank_of);
            int64_t before = solve_table_value(search.table);
            bool better = MOVES[m](&search);
            check_table(&search, before - (better ? 1 : 0));
        }
        solve_search_destroy(&search);
        solve_problem_destroy(problem);
    }
    cot_free(rank_of);
    world_free(&world);
    temporary_remove(folder);
}

/* Sweeps and pair moves at a temperature, then the annealer's loads and flows against new ones: one that was set anew
 * must go the same way. */
static void the_annealer_keeps_its_tables(void **state)
{
    (void)state;
    char folder[256];
    temporary_make(folder);
    for (uint32_t kind = 0; kind < 2; kind++) {
        world_t world = make(folder, kind == 0 ? FOUR : UNEVEN, 6, kind == 0 ? 16 : 8, kind == 0 ? 4 : 3);
        solve_problem_t *problem = problem_of(&world, SOLVE_WEIGHTED, SOLVE_HOME);
        solve_search_t search;
        solve_annealer_t *fresh = NULL;
        assert_ok(solve_search_create(problem, 5, &search));
        assert_ok(solve_annealer_create(problem, &fresh));
        solve_contiguous(problem, search.table->rank_of);
        solve_annealer_set(search.annealer, search.table->rank_of);
        double scale = solve_annealer_scale(search.annealer, &search);
        assert_true(scale > 0);
        for (uint32_t i = 0; i < 20; i++) {
            solve_annealer_sweep(search.annealer, &search, scale / 2);
            solve_annealer_pair(search.annealer, &search, (const uint32_t[]){i % 3, (i + 1) % 3}, scale / 2);
        }
        solve_annealer_set(fresh, solve_annealer_get(search.annealer));
        judge_ranks(problem, solve_annealer_get(fresh)); /* nobody is over the slots */
        solve_search_t twin = search;
        for (uint32_t i = 0; i < 5; i++) {
            solve_annealer_sweep(search.annealer, &search, scale / 8);
            solve_annealer_sweep(fresh, &twin, scale / 8);
            size_t bytes = solve_cells(problem) * sizeof(solve_rank_t);
            assert_memory_equal(solve_annealer_get(search.annealer), solve_annealer_get(fresh), bytes);
        }
        solve_annealer_destroy(fresh);
        solve_search_destroy(&search);
        solve_problem_destroy(problem);
        world_free(&world);
    }
    temporary_remove(folder);
}

static void work_is_the_same_on_any_threads(void **state)
{
    (void)state;
    char folder[256];
    temporary_make(folder);
    world_t world = make(folder, FOUR, 5, 16, 4);
    for (uint32_t i = 0; i < CASE_COUNT; i++) {
        solve_problem_t *problem = problem_of(&world, CASES[i].objective, CASES[i].exchange);
        solve_answer_t one = {0}, two = {0};
        solve_context_t context = {.seed = 9, .threads = 1, .work = 5, .deadline = COT_NEVER};
        assert_ok(SOLVE_SOLVERS[0].solve(problem, &context, &one));
        context.threads = 2;
        assert_ok(SOLVE_SOLVERS[0].solve(problem, &context, &two));
        assert_memory_equal(one.plan->slot_expert, two.plan->slot_expert, (size_t)5 * 16 * sizeof(uint32_t));
        assert_memory_equal(one.plan->slot_begin, two.plan->slot_begin, (size_t)(5 * 4 + 1) * sizeof(uint32_t));
        assert_int_equal(one.work, 5);
        place_plan_destroy(one.plan);
        place_plan_destroy(two.plan);
        solve_problem_destroy(problem);
    }
    world_free(&world);
    temporary_remove(folder);
}

/* What a deadline's search says of its work makes the same plan again. */
static void a_deadline_can_be_repeated(void **state)
{
    (void)state;
    char folder[256];
    temporary_make(folder);
    world_t world = make(folder, FOUR, 5, 16, 4);
    solve_problem_t *problem = problem_of(&world, SOLVE_WEIGHTED, SOLVE_HOME);
    solve_answer_t timed = {0}, again = {0};
    int64_t began = cot_now_ns();
    solve_context_t context = {.seed = 2, .threads = 2, .deadline = cot_deadline_in_ms(1000)};
    assert_ok(solve_find_solver("anneal")->solve(problem, &context, &timed));
    assert_true(cot_now_ns() - began < INT64_C(8000000000)); /* 1 s, and what a loaded machine adds */
    context.deadline = COT_NEVER;
    context.work = timed.work;
    assert_ok(solve_find_solver("anneal")->solve(problem, &context, &again));
    assert_true(judge(problem, again.plan) <= judge(problem, timed.plan));
    place_plan_destroy(timed.plan);
    place_plan_destroy(again.plan);
    solve_problem_destroy(problem);
    world_free(&world);
    temporary_remove(folder);
}

static void stop_gives_the_best_so_far(void **state)
{
    (void)state;
    char folder[256];
    temporary_make(folder);
    world_t world = make(folder, FOUR, 5, 16, 4);
    atomic_bool stop = true;
    for (uint32_t i = 0; i < CASE_COUNT; i++) {
        solve_problem_t *problem = problem_of(&world, CASES[i].objective, CASES[i].exchange);
        const solve_context_t context = {.threads = 1, .deadline = cot_deadline_in_ms(60000), .stop = &stop};
        int64_t began = cot_now_ns();
        answer_of(&SOLVE_SOLVERS[0], problem, &context, NULL); /* a whole plan, judged */
        assert_true(cot_now_ns() - began < INT64_C(10000000000));
        solve_problem_destroy(problem);
    }
    world_free(&world);
    temporary_remove(folder);
}

static uint32_t moved(const place_plan_t *from, const place_plan_t *to)
{
    uint32_t count = 0;
    for (uint32_t l = 0; l < to->layers; l++)
        for (uint32_t r = 0; r < to->ranks; r++) {
            const uint32_t *begin = to->slot_begin + (size_t)l * to->ranks + r;
            for (uint32_t s = begin[0]; s < begin[1]; s++) count += place_plan_slot(from, l, r, to->slot_expert[s]) < 0;
        }
    return count;
}

static void few_moves_are_few(void **state)
{
    (void)state;
    char folder[256];
    temporary_make(folder);
    for (uint32_t kind = 0; kind < 2; kind++) {
        world_t world = make(folder, kind == 0 ? FOUR : UNEVEN, 5, kind == 0 ? 16 : 8, kind == 0 ? 4 : 3);
        solve_problem_t *problem = problem_of(&world, SOLVE_WEIGHTED, SOLVE_HOME);
        solve_context_t context = {.deadline = COT_NEVER};
        solve_answer_t first = {0}, few = {0}, more = {0};
        assert_ok(solve_find_solver("contiguous")->solve(problem, &context, &first));
        context.start = first.plan;
        context.max_moves = 4;
        assert_ok(SOLVE_SOLVERS[0].solve(problem, &context, &few));
        context.max_moves = 12;
        assert_ok(SOLVE_SOLVERS[0].solve(problem, &context, &more));
        assert_true(moved(first.plan, few.plan) <= 4 && moved(first.plan, more.plan) <= 12);
        assert_true(judge(problem, few.plan) < judge(problem, first.plan));
        assert_true(judge(problem, more.plan) <= judge(problem, few.plan));
        place_plan_destroy(first.plan);
        place_plan_destroy(few.plan);
        place_plan_destroy(more.plan);
        solve_problem_destroy(problem);
        world_free(&world);
    }
    temporary_remove(folder);
}

/* Two ranks of another speed and size: no dp, but every objective gives a plan at least as good as contiguous. */
static void uneven_ranks_are_ordinary(void **state)
{
    (void)state;
    char folder[256];
    temporary_make(folder);
    world_t world = make(folder, UNEVEN, 4, 8, 3);
    for (uint32_t i = 0; i < CASE_COUNT; i++) {
        solve_problem_t *problem = problem_of(&world, CASES[i].objective, CASES[i].exchange);
        const solve_context_t context = {.threads = 2, .work = 4, .deadline = COT_NEVER};
        solve_proved_t proved = SOLVE_PROVED_DP;
        int64_t found = answer_of(&SOLVE_SOLVERS[0], problem, &context, &proved);
        assert_int_equal(proved, SOLVE_NOT_PROVED);
        assert_true(found <= answer_of(solve_find_solver("contiguous"), problem, &context, NULL));
        solve_problem_destroy(problem);
    }
    world_free(&world);
    temporary_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_brute_force_finds),
        cmocka_unit_test(moves_keep_the_tables),
        cmocka_unit_test(the_annealer_keeps_its_tables),
        cmocka_unit_test(work_is_the_same_on_any_threads),
        cmocka_unit_test(a_deadline_can_be_repeated),
        cmocka_unit_test(stop_gives_the_best_so_far),
        cmocka_unit_test(few_moves_are_few),
        cmocka_unit_test(uneven_ranks_are_ordinary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
