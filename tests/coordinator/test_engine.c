/* Requests through the engine, each compared with the same request alone. The fake workers' answers hang on every token
 * before and on every KV block: see fake_worker.h. */
#include "base/log.h"
#include "coordinator/engine_int.h"
#include "placement/trace.h"
#include "tests/coordinator/world.h"

#include <math.h>

static coord_engine_stats_t stats_of(const world_t *world)
{
    coord_engine_stats_t stats;
    coord_engine_stats(world->engine, &stats);
    return stats;
}

static void check_all_free(const world_t *world)
{
    coord_engine_stats_t stats = stats_of(world);
    assert_int_equal(stats.kv_blocks_used, 0);
    assert_int_equal(stats.running + stats.waiting, 0);
    for (uint32_t w = 0; w < world->config.workers; w++)
        assert_int_equal(world->engine->worker[w].slots.free, world->config.max_sequences);
}

static void run_and_check(world_t *world, talk_t *talk, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) assert_ok(talk_submit(&talk[i]));
    world_run(world);
    for (uint32_t i = 0; i < count; i++) talk_check(&talk[i]);
    check_all_free(world);
}

static void test_numbers(void **state)
{
    (void)state;
    coord_numbers_t numbers;
    assert_ok(coord_numbers_create(3, &numbers));
    assert_int_equal(coord_numbers_take(&numbers), 0);
    assert_int_equal(coord_numbers_take(&numbers), 1);
    coord_numbers_give(&numbers, 0);
    assert_int_equal(numbers.free, 2);
    assert_int_equal(coord_numbers_take(&numbers), 0);
    coord_numbers_destroy(&numbers);
    assert_int_equal(coord_blocks_of(0), 0);
    assert_int_equal(coord_blocks_of(16), 1);
    assert_int_equal(coord_blocks_of(17), 2);
    assert_int_equal(coord_blocks_of(UINT32_MAX), 1U << 28);
}

static void test_list_keeps_age(void **state)
{
    (void)state;
    coord_list_t list = {0};
    coord_request_t request[5] = {{.age = 30}, {.age = 10}, {.age = 20}, {.age = 50}, {.age = 40}};
    for (int i = 0; i < 5; i++) coord_list_insert(&list, &request[i]);
    uint64_t age = 0;
    for (coord_request_t *at = list.first; at != NULL; at = at->after) assert_int_equal(at->age, age += 10);
    assert_int_equal(age, 50);
    for (coord_request_t *at = list.last; at != NULL; at = at->before, age -= 10) assert_int_equal(at->age, age);
    coord_list_remove(&list, &request[1]);
    coord_list_remove(&list, &request[3]);
    coord_list_remove(&list, &request[2]);
    assert_ptr_equal(list.first, &request[0]);
    assert_ptr_equal(list.last, &request[4]);
    assert_int_equal(list.count, 2);
}

static void test_one(void **state)
{
    (void)state;
    world_t world;
    static talk_t talk;
    world_init(&world);
    world_start(&world);
    talk_init(&talk, &world, 1, 20, 30);
    talk.submit.ignore_eos = true;
    talk.submit.sampling.temperature = 0;
    talk.submit.sampling.top_logprobs = 5;
    run_and_check(&world, &talk, 1);
    assert_int_equal(talk.finish, COORD_FINISH_LENGTH);
    coord_engine_stats_t stats = stats_of(&world);
    assert_int_equal(stats.steps, 30); /* the prompt and 29 tokens: no row after the last one */
    assert_int_equal(stats.tokens_prefilled, 20);
    assert_int_equal(stats.tokens_drawn, 30);
    assert_int_equal(stats.requests_finished, 1);
    assert_int_equal(stats.kv_blocks, 1024);
    assert_true(stats.tokens_per_second > 0 && stats.step_ms > 0);
    coord_worker_stats_t worker;
    coord_engine_worker_stats(world.engine, 1, &worker);
    assert_int_equal(worker.step, 30);
    assert_int_equal(worker.assignments, 30);
    world_finish(&world);
}

static void test_chunks(void **state)
{
    (void)state;
    world_t world;
    static talk_t talk[3];
    world_init(&world);
    world.config.max_step_tokens = 7;
    world_start(&world);
    talk_init(&talk[0], &world, 1, 100, 5);
    talk_init(&talk[1], &world, 2, 1, 40);
    talk_init(&talk[2], &world, 3, 333, 1);
    run_and_check(&world, talk, 3);
    world_finish(&world);
}

/* More sequences decode than a step has rows. */
static void test_few_rows(void **state)
{
    (void)state;
    world_t world;
    static talk_t talk[9];
    world_init(&world);
    world.fake.workers = 1;
    world.config.max_step_tokens = 3;
    world_start(&world);
    for (uint32_t i = 0; i < 9; i++) talk_init(&talk[i], &world, i, 5 + i, 12);
    run_and_check(&world, talk, 9);
    world_finish(&world);
}

static void test_length_one(void **state)
{
    (void)state;
    world_t world;
    static talk_t talk;
    world_init(&world);
    world_start(&world);
    talk_init(&talk, &world, 1, 1, 1);
    run_and_check(&world, &talk, 1);
    assert_int_equal(stats_of(&world).steps, 1);
    world_finish(&world);
}

/* The token that the request draws first, alone. */
static int32_t first_token(const talk_t *talk)
{
    uint64_t state = FAKE_BEGIN;
    for (uint32_t i = 0; i < talk->submit.count; i++) state = fake_next(state, talk->prompt[i]);
    return fake_draw(state, talk->world->config.vocab, 1, talk->submit.sampling.seed, talk->submit.count);
}

static void test_eos_at_once(void **state)
{
    (void)state;
    world_t world;
    static talk_t talk[2];
    world_init(&world);
    talk_init(&talk[0], &world, 1, 10, 50);
    talk_init(&talk[1], &world, 1, 10, 50);
    int32_t eos = first_token(&talk[0]);
    world.config.eos = &eos;
    world_start(&world);
    talk[1].submit.ignore_eos = true;
    run_and_check(&world, talk, 2);
    assert_int_equal(talk[0].finish, COORD_FINISH_EOS);
    assert_int_equal(talk[0].count, 1);
    assert_int_equal(talk[1].count, 50);
    world_finish(&world);
}

static void test_stop_by_callback(void **state)
{
    (void)state;
    world_t world;
    static talk_t talk[4];
    world_init(&world);
    world_start(&world);
    for (uint32_t i = 0; i < 4; i++) {
        talk_init(&talk[i], &world, i, 10, 50);
        talk[i].stop_after = i + 1;
    }
    run_and_check(&world, talk, 4);
    assert_int_equal(talk[2].finish, COORD_FINISH_STOP);
    world_finish(&world);
}

/* What was received comes back as the beginning of a new request: the rest is the same. */
static void test_resume(void **state)
{
    (void)state;
    world_t world;
    static talk_t whole, rest;
    world_init(&world);
    world_start(&world);
    talk_init(&whole, &world, 5, 30, 40);
    whole.submit.ignore_eos = true;
    run_and_check(&world, &whole, 1);
    talk_init(&rest, &world, 5, 30, 25);
    memcpy(rest.prompt + 30, whole.token, 15 * sizeof(int32_t));
    rest.submit.count = 45;
    rest.submit.ignore_eos = true;
    run_and_check(&world, &rest, 1);
    assert_memory_equal(rest.token, whole.token + 15, 25 * sizeof(int32_t));
    world_finish(&world);
}

static void test_context_ends(void **state)
{
    (void)state;
    world_t world;
    static talk_t talk[3];
    world_init(&world);
    world.config.max_context = 40;
    world_start(&world);
    talk_init(&talk[0], &world, 1, 30, 1000);
    talk_init(&talk[1], &world, 2, 39, 1000);
    talk_init(&talk[2], &world, 3, 40, 0);
    talk[0].submit.ignore_eos = talk[1].submit.ignore_eos = true;
    run_and_check(&world, talk, 3);
    assert_int_equal(talk[0].count, 10);
    assert_int_equal(talk[1].count, 1);
    world_finish(&world);
}

static void test_kv_runs_out(void **state)
{
    (void)state;
    world_t world;
    static talk_t talk[6];
    world_init(&world);
    world.fake.workers = 1;
    world.config.kv_blocks = 12;
    world_start(&world);
    for (uint32_t i = 0; i < 6; i++) {
        talk_init(&talk[i], &world, i, 10 + i, 100);
        talk[i].submit.ignore_eos = true;
    }
    talk_init(&talk[5], &world, 5, 40, 0); /* scored, and perhaps pushed out too */
    run_and_check(&world, talk, 6);
    assert_true(stats_of(&world).preemptions > 0);
    world_finish(&world);
}

/* A request that is being scored is pushed out half-way by an older one: no row is handed over twice. */
static void test_scored_half_way(void **state)
{
    (void)state;
    world_t world;
    static talk_t talk[2];
    world_init(&world);
    world.fake.workers = 1;
    world.config.kv_blocks = 6;
    world.config.max_step_tokens = 3;
    world_start(&world);
    talk_init(&talk[0], &world, 1, 14, 40);
    talk[0].submit.ignore_eos = true;
    talk_init(&talk[1], &world, 2, 60, 0);
    for (uint32_t i = 0; i < 2; i++) assert_ok(talk_submit(&talk[i]));
    while (stats_of(&world).preemptions == 0) world_poll(&world, 1);
    assert_in_range(talk[1].count, 10, 59);
    world_run(&world);
    talk_check(&talk[0]);
    talk_check(&talk[1]);
    check_all_free(&world);
    world_finish(&world);
}

/* One request fills the whole cache to its last token. */
static void test_kv_exactly(void **state)
{
    (void)state;
    world_t world;
    static talk_t talk[2];
    world_init(&world);
    world.fake.workers = 1;
    world.config.kv_blocks = 4;
    world_start(&world);
    talk_init(&talk[0], &world, 1, 1, 63);
    talk_init(&talk[1], &world, 2, 60, 1000);
    talk[0].submit.ignore_eos = talk[1].submit.ignore_eos = true;
    run_and_check(&world, talk, 2);
    assert_int_equal(talk[0].count, 63);
    assert_int_equal(talk[1].count, 4);
    world_finish(&world);
}

/* The preempted request's draw is in flight: it is kept, and the request goes on from there. */
static void test_preempted_with_a_draw_in_flight(void **state)
{
    (void)state;
    world_t world;
    static talk_t talk[2];
    world_init(&world);
    world.fake.workers = 1;
    world.config.kv_blocks = 5;
    world_start(&world);
    for (uint32_t i = 0; i < 2; i++) {
        talk_init(&talk[i], &world, i, 14, 50);
        talk[i].submit.ignore_eos = true;
        assert_ok(talk_submit(&talk[i]));
    }
    uint64_t allowed = 0;
    while (stats_of(&world).preemptions == 0) {
        fake_fleet_allow(world.fleet, ++allowed);
        while (stats_of(&world).steps < allowed) world_poll(&world, 1);
    }
    coord_request_t *young = talk[1].request;
    assert_int_equal(young->state, COORD_WAITING);
    assert_int_equal(young->flights, 1); /* a step that is held back */
    uint32_t before = talk[1].count;
    fake_fleet_allow(world.fleet, ++allowed);
    while (stats_of(&world).steps < allowed) world_poll(&world, 1);
    assert_int_equal(talk[1].count, before + 1);
    assert_int_equal(young->state, COORD_WAITING);
    fake_fleet_allow(world.fleet, UINT64_MAX);
    world_run(&world);
    talk_check(&talk[0]);
    talk_check(&talk[1]);
    check_all_free(&world);
    world_finish(&world);
}

static void test_two_steps_in_flight(void **state)
{
    (void)state;
    world_t world;
    static talk_t talk;
    world_init(&world);
    world_start(&world);
    fake_fleet_allow(world.fleet, 0);
    talk_init(&talk, &world, 1, 5, 10);
    talk.submit.ignore_eos = true;
    assert_ok(talk_submit(&talk));
    world_poll(&world, 20);
    assert_int_equal(world.engine->in_flight, 2);
    assert_int_equal(world.engine->steps, 2);
    assert_int_equal(talk.request->drawing, 2);
    fake_fleet_allow(world.fleet, UINT64_MAX);
    world_run(&world);
    talk_check(&talk);
    assert_int_equal(stats_of(&world).steps, 10);
    world_finish(&world);
}

/* Cancelled with nothing sent, in the queue, after each number of steps, and at each drawn token. */
static void test_cancel_anywhere(void **state)
{
    (void)state;
    static talk_t talk[4];
    for (uint32_t when = 0; when < 12; when++) {
        world_t world;
        world_init(&world);
        world.config.max_sequences = 2;
        world.config.max_step_tokens = 8;
        world.fake.workers = 1;
        world_start(&world);
        for (uint32_t i = 0; i < 4; i++) {
            talk_init(&talk[i], &world, i, 20, 10);
            talk[i].submit.ignore_eos = true;
            assert_ok(talk_submit(&talk[i]));
        }
        fake_fleet_allow(world.fleet, when);
        uint64_t steps = 0;
        while (when > 0 && steps < when) {
            world_poll(&world, 1);
            steps = stats_of(&world).steps;
        }
        uint32_t victim = when % 4;
        if (talk[victim].request != NULL) {
            coord_engine_cancel(world.engine, talk[victim].request);
            assert_int_equal(talk[victim].finish, COORD_FINISH_CANCELLED);
            assert_int_equal(talk[victim].finished, 1);
        }
        fake_fleet_allow(world.fleet, UINT64_MAX);
        world_run(&world);
        for (uint32_t i = 0; i < 4; i++) talk_check(&talk[i]);
        check_all_free(&world);
        world_finish(&world);
    }
}

static void test_cancel_from_a_callback(void **state)
{
    (void)state;
    world_t world;
    static talk_t talk[3];
    world_init(&world);
    world_start(&world);
    for (uint32_t i = 0; i < 3; i++) talk_init(&talk[i], &world, i, 20, 30);
    talk[0].submit.ignore_eos = true;
    talk[0].cancel_after = 3;
    talk[0].cancels = &talk[1];
    run_and_check(&world, talk, 3);
    assert_int_equal(talk[0].finish, COORD_FINISH_CANCELLED);
    assert_int_equal(talk[1].finish, COORD_FINISH_CANCELLED);
    world_finish(&world);
}

static void test_busy(void **state)
{
    (void)state;
    world_t world;
    static talk_t talk[4];
    world_init(&world);
    world.fake.workers = 1;
    world.config.max_sequences = 1;
    world.config.max_waiting = 2;
    world_start(&world);
    fake_fleet_allow(world.fleet, 0);
    for (uint32_t i = 0; i < 4; i++) talk_init(&talk[i], &world, i, 20, 30);
    assert_ok(talk_submit(&talk[0]));
    world_poll(&world, 1); /* it runs, the queue is empty */
    assert_ok(talk_submit(&talk[1]));
    assert_ok(talk_submit(&talk[2]));
    assert_fails(talk_submit(&talk[3]), COT_ERR_BUSY, "busy: 2 requests");
    coord_engine_stats_t stats = stats_of(&world);
    assert_int_equal(stats.waiting, 2);
    assert_int_equal(stats.running, 1);
    coord_engine_cancel(world.engine, talk[1].request);
    assert_ok(talk_submit(&talk[3]));
    fake_fleet_allow(world.fleet, UINT64_MAX);
    world_run(&world);
    for (uint32_t i = 0; i < 4; i++) talk_check(&talk[i]);
    world_finish(&world);
}

static void test_refused(void **state)
{
    (void)state;
    world_t world;
    static talk_t talk;
    world_init(&world);
    world.config.max_context = 100;
    world_start(&world);
    talk_init(&talk, &world, 1, 100, 1);
    assert_fails(talk_submit(&talk), COT_ERR_LIMIT, "--max-context");
    talk_init(&talk, &world, 1, 101, 0);
    assert_fails(talk_submit(&talk), COT_ERR_LIMIT, "101 tokens");
    talk_init(&talk, &world, 1, 0, 1);
    assert_fails(talk_submit(&talk), COT_ERR_INVALID, "at least one");
    talk_init(&talk, &world, 1, 10, 1);
    talk.prompt[3] = 1000;
    assert_fails(talk_submit(&talk), COT_ERR_INVALID, "token 1000 at position 3");
    talk.prompt[3] = -1;
    assert_fails(talk_submit(&talk), COT_ERR_INVALID, "token -1 at position 3");
    talk_init(&talk, &world, 1, 10, 1);
    talk.submit.score = true;
    assert_fails(talk_submit(&talk), COT_ERR_INVALID, "not both");
    talk.submit.score = false;
    talk.submit.max_tokens = 0;
    assert_fails(talk_submit(&talk), COT_ERR_INVALID, "max_tokens is 0");
    world_finish(&world);

    world_init(&world);
    world.config.kv_blocks = 2;
    world_start(&world);
    talk_init(&talk, &world, 1, 33, 1);
    assert_fails(talk_submit(&talk), COT_ERR_LIMIT, "--kv-memory");
    world_finish(&world);
}

static void test_sampling_refused(void **state)
{
    (void)state;
    world_t world;
    static talk_t talk;
    world_init(&world);
    world_start(&world);
    const coord_sampling_t good = {.temperature = 1, .top_p = 1, .repetition_penalty = 1};
    const struct {
        const char *words;
        coord_sampling_t sampling;
    } bad[] = {
        {"temperature", {.temperature = -1, .top_p = 1, .repetition_penalty = 1}},
        {"temperature", {.temperature = NAN, .top_p = 1, .repetition_penalty = 1}},
        {"temperature", {.temperature = INFINITY, .top_p = 1, .repetition_penalty = 1}},
        {"top_p", {.top_p = 0, .repetition_penalty = 1}},
        {"top_p", {.top_p = 1.5f, .repetition_penalty = 1}},
        {"top_p", {.top_p = NAN, .repetition_penalty = 1}},
        {"min_p", {.top_p = 1, .min_p = 2, .repetition_penalty = 1}},
        {"min_p", {.top_p = 1, .min_p = NAN, .repetition_penalty = 1}},
        {"repetition_penalty", {.top_p = 1, .repetition_penalty = 0}},
        {"repetition_penalty", {.top_p = 1, .repetition_penalty = INFINITY}},
        {"at most 20", {.top_p = 1, .repetition_penalty = 1, .top_logprobs = 21}},
    };
    talk_init(&talk, &world, 1, 10, 1);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        talk.submit.sampling = bad[i].sampling;
        assert_fails(talk_submit(&talk), COT_ERR_INVALID, bad[i].words);
    }
    talk.submit.sampling = good;
    run_and_check(&world, &talk, 1);
    world_finish(&world);
}

static void test_score(void **state)
{
    (void)state;
    world_t world;
    static talk_t talk[5];
    world_init(&world);
    world.config.max_step_tokens = 10;
    world.config.max_logits_rows = 4;
    world.config.vocab = 50;
    world_start(&world);
    for (uint32_t i = 0; i < 5; i++) {
        talk_init(&talk[i], &world, i, 1 + i * 13, 0);
        talk[i].submit.want_logits = i % 2 == 0;
    }
    talk_init(&talk[3], &world, 3, 9, 9);
    run_and_check(&world, talk, 5);
    assert_int_equal(talk[4].count, 53);
    world_finish(&world);
}

/* Equal requests on one slot end in the order in which they came; new ones go to the worker with the most room. */
static void test_order(void **state)
{
    (void)state;
    world_t world;
    static talk_t talk[5];
    world_init(&world);
    world.fake.workers = 3;
    world_start(&world);
    fake_fleet_allow(world.fleet, 0);
    const uint32_t prompt[] = {100, 20, 50, 60, 10}, worker[] = {0, 1, 2, 1, 2};
    for (uint32_t i = 0; i < 5; i++) {
        talk_init(&talk[i], &world, i, prompt[i], 3);
        assert_ok(talk_submit(&talk[i]));
        world_poll(&world, 1);
    }
    /* Two steps are in flight by the third request: the others are placed when the first lands. */
    fake_fleet_allow(world.fleet, 1);
    while (stats_of(&world).steps < 1) world_poll(&world, 1);
    for (uint32_t i = 0; i < 5; i++)
        if (talk[i].request != NULL && talk[i].request->state == COORD_RUNNING)
            assert_int_equal(talk[i].request->worker, worker[i]);
    fake_fleet_allow(world.fleet, UINT64_MAX);
    world_run(&world);
    for (uint32_t i = 0; i < 5; i++) talk_check(&talk[i]);
    world_finish(&world);
}

static void test_first_come_first_served(void **state)
{
    (void)state;
    world_t world;
    static talk_t talk[8];
    world_init(&world);
    world.fake.workers = 1;
    world.config.max_sequences = 1;
    world_start(&world);
    for (uint32_t i = 0; i < 8; i++) {
        talk_init(&talk[i], &world, i, 8 - i, 4);
        assert_ok(talk_submit(&talk[i]));
    }
    while (!coord_engine_idle(world.engine)) {
        world_poll(&world, 1);
        for (uint32_t i = 1; i < 8; i++) assert_true(talk[i].count == 0 || talk[i - 1].finished == 1);
    }
    world_finish(&world);
}

/* ---- the trace ---- */

static void record_world(uint32_t workers, uint32_t kv_blocks, const char *path)
{
    world_t world;
    static talk_t talk[8];
    world_init(&world);
    world.record_bytes = 1 << 20;
    world.fake.workers = workers;
    world.fake.jitter_us = 50;
    world.config.kv_blocks = kv_blocks;
    world_start(&world);
    for (uint32_t i = 0; i < 8; i++) {
        talk_init(&talk[i], &world, i, 5 + i * 3, i == 4 ? 0 : 60);
        talk[i].submit.ignore_eos = i != 2;
        talk[i].submit.prompt_count = talk[i].submit.count - (i == 6 ? 2 : 0);
        if (i == 5) talk[i].stop_after = 17;
    }
    run_and_check(&world, talk, 8);
    if (kv_blocks < 50) assert_true(stats_of(&world).preemptions > 0);
    uint64_t rows = 0;
    for (uint32_t i = 0; i < 8; i++) rows += talk[i].submit.count + (i == 4 ? 0 : talk[i].count - 1);
    assert_int_equal(place_recorder_rows(world.config.recorder), rows);
    assert_ok(place_recorder_save(world.config.recorder, path));
    world_finish(&world);
}

static void check_trace(const char *path)
{
    place_trace_t *trace = NULL;
    assert_ok(place_trace_open(path, &trace));
    for (uint64_t row = 0; row < place_trace_tokens(trace); row++) {
        place_trace_where_t where = place_trace_where(trace, row);
        uint32_t prompt = 5 + (uint32_t)where.request * 3 - (where.request == 6 ? 2 : 0);
        assert_int_equal(where.phase, (uint32_t)where.position >= prompt);
    }
    place_trace_close(trace);
}

static void test_trace_is_the_same_file(void **state)
{
    (void)state;
    char folder[256], path[300], other[300], command[700];
    temporary_make(folder);
    snprintf(path, sizeof(path), "%s/a.trace.safetensors", folder);
    record_world(1, 512, path);
    check_trace(path);
    const struct {
        uint32_t workers, kv_blocks;
    } worlds[] = {{2, 512}, {3, 512}, {1, 8}, {2, 8}};
    for (size_t i = 0; i < sizeof(worlds) / sizeof(*worlds); i++) {
        snprintf(other, sizeof(other), "%s/b.trace.safetensors", folder);
        record_world(worlds[i].workers, worlds[i].kv_blocks, other);
        snprintf(command, sizeof(command), "cmp '%s' '%s'", path, other);
        assert_int_equal(system(command), 0);
    }
    temporary_remove(folder);
}

static void test_full_trace_goes_on(void **state)
{
    (void)state;
    world_t world;
    static talk_t talk[6];
    world_init(&world);
    world.record_bytes = 3000;
    world_start(&world);
    for (uint32_t i = 0; i < 6; i++) talk_init(&talk[i], &world, i, 90, 3);
    run_and_check(&world, talk, 6);
    assert_int_equal(cot_log_warning_count(), world.warnings + 1); /* said once */
    world.warnings++;
    world_finish(&world);
}

/* ---- life ---- */

static void test_destroy_with_requests(void **state)
{
    (void)state;
    world_t world;
    static talk_t talk[4];
    world_init(&world);
    world.config.max_sequences = 1;
    world_start(&world);
    fake_fleet_allow(world.fleet, 1);
    for (uint32_t i = 0; i < 4; i++) {
        talk_init(&talk[i], &world, i, 20, 10);
        assert_ok(talk_submit(&talk[i]));
    }
    while (stats_of(&world).steps < 1) world_poll(&world, 1);
    coord_engine_cancel(world.engine, talk[0].request);
    world_finish(&world);
    assert_int_equal(talk[0].finished, 1);
    assert_int_equal(talk[1].finished + talk[2].finished + talk[3].finished, 0);
}

static void test_stop(void **state)
{
    (void)state;
    world_t world;
    static talk_t talk;
    world_init(&world);
    world_start(&world);
    talk_init(&talk, &world, 1, 20, 10);
    run_and_check(&world, &talk, 1);
    assert_ok(coord_engine_stop(world.engine));
    assert_ok(coord_engine_stop(world.engine));
    assert_ok(comm_flush(world.config.link, cot_deadline_in_ms(10000)));
    cot_deadline_t deadline = cot_deadline_in_ms(10000);
    while (!fake_fleet_stopped(world.fleet) && !cot_deadline_passed(deadline)) usleep(1000);
    assert_true(fake_fleet_stopped(world.fleet));
    world_finish(&world);
}

static void test_bad_config(void **state)
{
    (void)state;
    world_t world;
    world_init(&world);
    world_start(&world);
    coord_engine_t *engine = NULL;
    coord_engine_config_t config = world.config;
    config.workers = 0;
    assert_fails(coord_engine_create(&config, &engine), COT_ERR_INVALID, "at least one worker");
    config = world.config;
    config.kv_blocks = 0;
    assert_fails(coord_engine_create(&config, &engine), COT_ERR_INVALID, "--kv-memory");
    config = world.config;
    config.max_step_tokens = 0;
    assert_fails(coord_engine_create(&config, &engine), COT_ERR_INVALID, "limit");
    assert_null(engine);
    world_finish(&world);
}

/* Every allocation of create and of submit fails once. */
static void test_out_of_memory(void **state)
{
    (void)state;
    world_t world;
    static talk_t talk;
    world_init(&world);
    world_start(&world);
    coord_engine_t *engine = NULL;
    size_t live = cot_memory_live_blocks();
    int64_t allowed = 0;
    cot_status_t status = COT_OK;
    do {
        cot_memory_fail_after(allowed++);
        status = coord_engine_create(&world.config, &engine);
        cot_memory_fail_after(-1);
        assert_true(status == COT_OK || status == COT_ERR_NO_MEMORY);
        assert_true(status == COT_OK || (engine == NULL && cot_memory_live_blocks() == live));
    } while (status != COT_OK);
    coord_engine_destroy(engine);

    talk_init(&talk, &world, 1, 20, 10);
    allowed = 0;
    do {
        cot_memory_fail_after(allowed++);
        status = talk_submit(&talk);
        cot_memory_fail_after(-1);
        assert_true(status == COT_OK || status == COT_ERR_NO_MEMORY);
        assert_true(status == COT_OK || cot_memory_live_blocks() == live);
    } while (status != COT_OK);
    world_run(&world);
    talk_check(&talk);
    world_finish(&world);
}

/* No memory for a step: the engine ends, the requests are told, nothing leaks. */
static void test_out_of_memory_in_a_step(void **state)
{
    (void)state;
    static talk_t talk[2];
    for (int64_t allowed = 0; allowed < 12; allowed++) {
        world_t world;
        bool worked = false;
        world_init(&world);
        world_start(&world);
        fake_fleet_allow(world.fleet, 0); /* so that the workers allocate nothing meanwhile */
        for (uint32_t i = 0; i < 2; i++) {
            talk_init(&talk[i], &world, i, 20, 10);
            assert_ok(talk_submit(&talk[i]));
        }
        cot_memory_fail_after(allowed);
        cot_status_t status = coord_engine_poll(world.engine, &worked);
        cot_memory_fail_after(-1);
        if (status != COT_OK) {
            assert_int_equal(status, COT_ERR_NO_MEMORY);
            assert_int_equal(talk[0].finish, COORD_FINISH_ERROR);
            assert_int_equal(talk[1].finish, COORD_FINISH_ERROR);
        }
        world_finish(&world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_list_keeps_age),
        cmocka_unit_test(test_one),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_few_rows),
        cmocka_unit_test(test_length_one),
        cmocka_unit_test(test_eos_at_once),
        cmocka_unit_test(test_stop_by_callback),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_context_ends),
        cmocka_unit_test(test_kv_runs_out),
        cmocka_unit_test(test_scored_half_way),
        cmocka_unit_test(test_kv_exactly),
        cmocka_unit_test(test_preempted_with_a_draw_in_flight),
        cmocka_unit_test(test_two_steps_in_flight),
        cmocka_unit_test(test_cancel_anywhere),
        cmocka_unit_test(test_cancel_from_a_callback),
        cmocka_unit_test(test_busy),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_sampling_refused),
        cmocka_unit_test(test_score),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_first_come_first_served),
        cmocka_unit_test(test_trace_is_the_same_file),
        cmocka_unit_test(test_full_trace_goes_on),
        cmocka_unit_test(test_destroy_with_requests),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_bad_config),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_out_of_memory_in_a_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
