/* The workers while they start: who is missing, how far the slowest is, what all can compute, whose fault is told. */
#include "tests/temporary.h"

#include "base/memory.h"
#include "coordinator/fleet.h"
#include "kernels/kern.h"

enum { WORKERS = 3 };

static comm_link_t *links[WORKERS + 1];
static coord_fleet_t fleet;

static int set_up(void **state)
{
    (void)state;
    if (comm_local_start(WORKERS + 1, links) != COT_OK) return -1;
    return coord_fleet_create(links[0], &fleet) == COT_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    coord_fleet_destroy(&fleet);
    comm_local_finish(WORKERS + 1, links);
    return cot_memory_live_blocks() == 0 ? 0 : -1;
}

/* A worker says something; rank 0 hears it. */
static cot_status_t say(uint32_t rank, rpc_start_t start)
{
    start.magic = RPC_STEP_MAGIC;
    start.version = RPC_STEP_VERSION;
    start.rank = rank;
    assert_ok(comm_send(links[rank], 0, COMM_TAG_SETUP, &start, sizeof(start)));
    return coord_fleet_poll(&fleet);
}

static void who_is_missing(void **state)
{
    (void)state;
    char missing[64];
    assert_ok(say(2, (rpc_start_t){.kind = RPC_START_HELLO}));
    assert_false(coord_fleet_all(&fleet, RPC_START_HELLO));
    coord_fleet_missing(&fleet, RPC_START_HELLO, missing, sizeof(missing));
    assert_string_equal(missing, "rank 1, 3");
    assert_ok(say(1, (rpc_start_t){.kind = RPC_START_HELLO}));
    assert_ok(say(3, (rpc_start_t){.kind = RPC_START_HELLO}));
    assert_true(coord_fleet_all(&fleet, RPC_START_HELLO));
    assert_false(coord_fleet_all(&fleet, RPC_START_READY));
}

static void the_slowest_counts(void **state)
{
    (void)state;
    assert_ok(say(1, (rpc_start_t){.kind = RPC_START_PROGRESS, .progress = 0.5f}));
    assert_ok(say(2, (rpc_start_t){.kind = RPC_START_READY, .progress = 1}));
    assert_true(coord_fleet_progress(&fleet) == 0);
    assert_ok(say(3, (rpc_start_t){.kind = RPC_START_PROGRESS, .progress = 0.25f}));
    assert_true(coord_fleet_progress(&fleet) == 0.25f);
}

static void all_can_compute_it(void **state)
{
    (void)state;
    const uint32_t isa[WORKERS] = {KERN_ISA_AVX512, KERN_ISA_AVX2, KERN_ISA_AVX512_BF16};
    char *words[][2] = {{"--isa", "auto"}, {"--isa", "scalar"}, {"--isa", "avx512"}, {"--isa", "mmx"}};
    for (uint32_t w = 0; w < WORKERS; w++) assert_ok(say(w + 1, (rpc_start_t){.kind = RPC_START_HELLO, .isa = isa[w]}));
    for (int i = 0; i < 4; i++) {
        cot_settings_t *settings = NULL;
        assert_ok(cot_settings_parse(COT_CMD_SERVE, 2, words[i], &settings));
        if (i == 2)
            assert_fails(coord_fleet_agree(&fleet, settings), COT_ERR_UNSUPPORTED, "rank 2 has avx2 at best");
        else if (i == 3)
            assert_fails(coord_fleet_agree(&fleet, settings), COT_ERR_INVALID, "avx512_bf16");
        else
            assert_ok(coord_fleet_agree(&fleet, settings));
        assert_int_equal(fleet.isa, i == 0 ? KERN_ISA_AVX2 : KERN_ISA_SCALAR);
        cot_settings_destroy(settings);
    }
}

/* Rank 1 gave up because of rank 3. */
static void the_cause_is_told(void **state)
{
    (void)state;
    assert_ok(
        say(1, (rpc_start_t){.kind = RPC_START_READY, .status = -COT_ERR_CANCELLED, .text = "because of another"}));
    assert_ok(say(2, (rpc_start_t){.kind = RPC_START_READY}));
    assert_fails(coord_fleet_fault(&fleet), COT_ERR_CANCELLED, "rank 1: because of another");
    assert_ok(say(3, (rpc_start_t){.kind = RPC_START_READY, .status = -COT_ERR_NO_MEMORY, .text = "no memory"}));
    assert_fails(coord_fleet_fault(&fleet), COT_ERR_NO_MEMORY, "rank 3: no memory");
}

static void strangers_are_refused(void **state)
{
    (void)state;
    assert_ok(comm_send(links[1], 0, COMM_TAG_SETUP, "hello", 5));
    assert_int_equal(coord_fleet_poll(&fleet), COT_ERR_PROTOCOL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(who_is_missing, set_up, tear_down),
                                       cmocka_unit_test_setup_teardown(the_slowest_counts, set_up, tear_down),
                                       cmocka_unit_test_setup_teardown(all_can_compute_it, set_up, tear_down),
                                       cmocka_unit_test_setup_teardown(the_cause_is_told, set_up, tear_down),
                                       cmocka_unit_test_setup_teardown(strangers_are_refused, set_up, tear_down)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
