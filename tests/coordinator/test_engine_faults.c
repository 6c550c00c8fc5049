/* Workers that are silent, fail, or speak nonsense: the engine ends with a sentence that names the rank and the step,
 * and every request hears it. */
#include "base/log.h"
#include "tests/coordinator/world.h"

typedef struct {
    fake_fault_t fault;
    cot_status_t status;
    const char *words;
} case_t;

static const case_t cases[] = {
    {FAKE_FAILED, COT_ERR_DEVICE, "rank 2 step 3: the device burst"},
    {FAKE_RANK, COT_ERR_PROTOCOL, "rank 2 answered step 3 as rank 3"},
    {FAKE_STEP, COT_ERR_PROTOCOL, "rank 2 answered step 10"},
    {FAKE_COUNT, COT_ERR_PROTOCOL, "rank 2"},
    {FAKE_SEQUENCE, COT_ERR_PROTOCOL, "rank 2 step 3: answered token"},
    {FAKE_POSITION, COT_ERR_PROTOCOL, "rank 2 step 3: answered token"},
    {FAKE_TOKEN, COT_ERR_PROTOCOL, "rank 2 step 3: answered token 1000"},
    {FAKE_TOPS, COT_ERR_PROTOCOL, "(20 likeliest)"},
    {FAKE_GARBAGE, COT_ERR_PROTOCOL, "rank 2"},
    {FAKE_TWICE, COT_ERR_PROTOCOL, "rank 2 answered step 3"},
    {FAKE_ROUTE_WIDTH, COT_ERR_PROTOCOL, "rank 2"},
    {FAKE_ROUTE_TOKEN, COT_ERR_PROTOCOL, "rank 2 step 3: answered the routing of token"},
    {FAKE_ROUTE_POSITION, COT_ERR_PROTOCOL, "rank 2 step 3: answered the routing of position"},
    {FAKE_LOGITS_VOCAB, COT_ERR_PROTOCOL, "rank 2 step 3"},
};

static cot_status_t run_until_fault(world_t *world)
{
    cot_deadline_t deadline = cot_deadline_in_ms(20000);
    while (!cot_deadline_passed(deadline)) {
        bool worked = false;
        cot_status_t status = coord_engine_poll(world->engine, &worked);
        if (status != COT_OK) return status;
        usleep(100);
    }
    fail_msg("the fault was not noticed");
    return COT_OK;
}

static void check_fault(world_t *world, const case_t *wanted)
{
    static talk_t talk[12], late;
    for (uint32_t i = 0; i < 12; i++) {
        talk_init(&talk[i], world, i, 30, i == 9 || wanted->fault == FAKE_LOGITS_VOCAB ? 0 : 50);
        talk[i].submit.want_logits = wanted->fault == FAKE_LOGITS_VOCAB;
        talk[i].submit.ignore_eos = true;
        assert_ok(talk_submit(&talk[i]));
    }
    assert_fails(run_until_fault(world), wanted->status, wanted->words);
    for (uint32_t i = 0; i < 12; i++) {
        assert_int_equal(talk[i].finished, 1);
        if (talk[i].finish != COORD_FINISH_LENGTH) {
            assert_int_equal(talk[i].finish, COORD_FINISH_ERROR);
            assert_non_null(strstr(talk[i].error, wanted->words));
        }
    }
    bool worked = true;
    talk_init(&late, world, 99, 30, 50);
    assert_fails(talk_submit(&late), wanted->status, wanted->words);
    assert_fails(coord_engine_poll(world->engine, &worked), wanted->status, wanted->words);
    assert_false(worked);
}

static void init_faulty(world_t *world, fake_fault_t fault)
{
    world_init(world);
    world->record_bytes = 1 << 20;
    world->config.max_sequences = 4;
    world->config.max_step_tokens = 20;
    world->fake.fault = fault;
    world->fake.fault_worker = 1;
    world->fake.fault_step = 3;
}

static void test_nonsense(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        world_t world;
        print_message("fault %d\n", (int)cases[i].fault);
        init_faulty(&world, cases[i].fault);
        world_start(&world);
        check_fault(&world, &cases[i]);
        world_finish(&world);
    }
}

static void test_silence(void **state)
{
    (void)state;
    world_t world;
    init_faulty(&world, FAKE_SILENT);
    world.config.step_timeout_ms = 200;
    world_start(&world);
    check_fault(&world, &(case_t){FAKE_SILENT, COT_ERR_TIMEOUT,
                                  "step 3: 1 of 2 workers answered within 200 ms; nothing from rank 2 (last seen with "
                                  "step 2 "});
    world_finish(&world);
}

static void test_never_answered(void **state)
{
    (void)state;
    world_t world;
    init_faulty(&world, FAKE_SILENT);
    world.fake.fault_step = 1;
    world.config.step_timeout_ms = 200;
    world_start(&world);
    check_fault(&world, &(case_t){FAKE_SILENT, COT_ERR_TIMEOUT, "rank 2 (which answered no step)"});
    world_finish(&world);
}

/* The second step waits behind the first: its time counts from when the first has landed. */
static void test_deadline_counts_from_the_head(void **state)
{
    (void)state;
    world_t world;
    static talk_t talk;
    world_init(&world);
    world.config.step_timeout_ms = 600;
    world_start(&world);
    fake_fleet_allow(world.fleet, 0);
    talk_init(&talk, &world, 1, 5, 2);
    talk.submit.ignore_eos = true;
    assert_ok(talk_submit(&talk));
    world_poll(&world, 1);
    usleep(400000);
    world_poll(&world, 1);
    fake_fleet_allow(world.fleet, 1);
    coord_engine_stats_t stats = {0};
    while (stats.steps < 1) {
        world_poll(&world, 1);
        coord_engine_stats(world.engine, &stats);
    }
    usleep(400000);
    world_poll(&world, 1);
    fake_fleet_allow(world.fleet, UINT64_MAX);
    world_run(&world);
    talk_check(&talk);
    world_finish(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nonsense),
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_never_answered),
        cmocka_unit_test(test_deadline_counts_from_the_head),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
