/* Five hundred random requests on few blocks, few slots and few rows, with cancels and stops at random points; each is
 * compared with itself alone. COTERIE_SOAK_SEED sets another seed. */
#include "tests/coordinator/world.h"

enum { REQUESTS = 500 };

static uint32_t pick(uint64_t *random, uint32_t least, uint32_t most)
{
    *random = fake_mix(*random, 1);
    return least + (uint32_t)(*random % (most - least + 1));
}

typedef struct {
    uint64_t seed;
    uint32_t workers, kv_blocks, step_tokens, sequences, prompt;
} soak_t;

static void init_random(talk_t *talk, world_t *world, uint32_t longest, uint64_t *random)
{
    uint32_t number = (uint32_t)(*random >> 33);
    uint32_t long_one = pick(random, 0, 9) == 0;
    uint32_t prompt = pick(random, 1, long_one ? longest * 5 : longest);
    talk_init(talk, world, number, prompt, pick(random, 0, 9) == 0 ? 0 : pick(random, 1, 100));
    talk->submit.want_logits = talk->submit.score && pick(random, 0, 3) == 0;
    talk->submit.ignore_eos = pick(random, 0, 1) == 0;
    talk->submit.sampling.temperature = pick(random, 0, 3) == 0 ? 0 : 1;
    talk->submit.sampling.top_logprobs = pick(random, 0, 3) == 0 ? 4 : 0;
    if (pick(random, 0, 9) == 0) talk->stop_after = pick(random, 1, 20);
    if (!talk->submit.score && pick(random, 0, 9) == 0) talk->cancel_after = pick(random, 1, 20);
}

static void soak(const soak_t *soak)
{
    world_t world;
    uint64_t random = soak->seed;
    talk_t *talk = cot_calloc(REQUESTS, sizeof(*talk));
    assert_non_null(talk);
    world_init(&world);
    world.fake.workers = soak->workers;
    world.fake.jitter_us = 30;
    world.config.vocab = 400;
    world.config.kv_blocks = soak->kv_blocks;
    world.config.max_step_tokens = soak->step_tokens;
    world.config.max_sequences = soak->sequences;
    world.config.max_logits_rows = 5;
    world.config.max_waiting = 20;
    world.record_bytes = 64 << 20;
    world_start(&world);
    for (uint32_t i = 0; i < REQUESTS; i++) {
        init_random(&talk[i], &world, soak->prompt, &random);
        talk[i].submit.trace_request = i;
        cot_status_t status = COT_ERR_BUSY;
        while (status == COT_ERR_BUSY) {
            status = talk_submit(&talk[i]);
            world_poll(&world, 1);
        }
        assert_ok(status);
        uint32_t other = pick(&random, i - i % 16, i);
        if (pick(&random, 0, 9) == 0 && talk[other].request != NULL)
            coord_engine_cancel(world.engine, talk[other].request);
        world_poll(&world, (int)pick(&random, 0, 3));
    }
    world_run(&world);
    for (uint32_t i = 0; i < REQUESTS; i++) talk_check(&talk[i]);
    coord_engine_stats_t stats;
    coord_engine_stats(world.engine, &stats);
    print_message("seed %llu, %u workers: %llu steps, %llu preemptions\n", (unsigned long long)soak->seed,
                  soak->workers, (unsigned long long)stats.steps, (unsigned long long)stats.preemptions);
    assert_int_equal(stats.requests_finished, REQUESTS);
    assert_int_equal(stats.kv_blocks_used, 0);
    assert_true(stats.preemptions > 0);
    world_finish(&world);
    cot_free(talk);
}

static uint64_t seed_of_run(void)
{
    const char *seed = getenv("COTERIE_SOAK_SEED");
    return seed != NULL ? strtoull(seed, NULL, 10) : 1;
}

static void test_three_workers(void **state)
{
    (void)state;
    soak(&(soak_t){
        .seed = seed_of_run(), .workers = 3, .kv_blocks = 17, .step_tokens = 24, .sequences = 8, .prompt = 40});
}

static void test_one_worker(void **state)
{
    (void)state;
    soak(&(soak_t){
        .seed = seed_of_run() + 1000, .workers = 1, .kv_blocks = 20, .step_tokens = 9, .sequences = 8, .prompt = 40});
}

/* Short prompts grow until they push each other out, again and again. */
static void test_crowd(void **state)
{
    (void)state;
    soak(&(soak_t){
        .seed = seed_of_run() + 2000, .workers = 2, .kv_blocks = 24, .step_tokens = 32, .sequences = 16, .prompt = 6});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_three_workers),
        cmocka_unit_test(test_one_worker),
        cmocka_unit_test(test_crowd),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
