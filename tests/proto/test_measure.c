/* The records of `coterie calibrate`: what is not one of them is refused. */
#include "proto/measure.h"
#include "proto/step.h"
#include "tests/temporary.h"

static void orders(void **state)
{
    (void)state;
    rpc_measure_t order = {.magic = RPC_STEP_MAGIC,
                           .version = RPC_STEP_VERSION,
                           .kind = RPC_MEASURE_RATE,
                           .to = 3,
                           .from = RPC_MEASURE_NOBODY,
                           .amount = 1 << 20};
    rpc_measure_t got;
    rpc_step_t step;
    assert_ok(rpc_measure_decode(&order, sizeof(order), &got));
    assert_memory_equal(&order, &got, sizeof(order));
    for (uint32_t kind = RPC_MEASURE_EXPERTS; kind <= RPC_MEASURE_RATE; kind++) { /* none passes for a step */
        order.kind = kind;
        assert_ok(rpc_measure_decode(&order, sizeof(order), &got));
        assert_fails(rpc_step_decode(&order, sizeof(order), &step), COT_ERR_PROTOCOL, "unknown kind");
    }
    assert_fails(rpc_measure_decode(&order, sizeof(order) - 1, &got), COT_ERR_PROTOCOL, "31 bytes");
    order.kind = RPC_MEASURE_RATE + 1;
    assert_fails(rpc_measure_decode(&order, sizeof(order), &got), COT_ERR_PROTOCOL, "unknown kind");
    order.kind = RPC_STEP_STOP;
    assert_fails(rpc_measure_decode(&order, sizeof(order), &got), COT_ERR_PROTOCOL, "unknown kind");
    order.magic++;
    assert_fails(rpc_measure_decode(&order, sizeof(order), &got), COT_ERR_PROTOCOL, "one build");
}

static void answers(void **state)
{
    (void)state;
    rpc_measured_t answer = {.magic = RPC_STEP_MAGIC, .version = RPC_STEP_VERSION, .rank = 2, .units = 7, .ns = 9}, got;
    assert_ok(rpc_measured_decode(&answer, sizeof(answer), &got));
    assert_int_equal(got.ns, 9);
    memset(answer.text, 'x', sizeof(answer.text)); /* no end: the reader puts one */
    assert_ok(rpc_measured_decode(&answer, sizeof(answer), &got));
    assert_int_equal(strlen(got.text), sizeof(got.text) - 1);
    answer.ns = 0;
    assert_fails(rpc_measured_decode(&answer, sizeof(answer), &got), COT_ERR_PROTOCOL, "rank 2 measured 0 ns");
    answer.units = 0;
    assert_ok(rpc_measured_decode(&answer, sizeof(answer), &got)); /* nothing to measure there */
    answer.ns = -1;
    assert_fails(rpc_measured_decode(&answer, sizeof(answer), &got), COT_ERR_PROTOCOL, "-1 ns");
    answer.version++;
    assert_fails(rpc_measured_decode(&answer, sizeof(answer), &got), COT_ERR_PROTOCOL, "one build");
    assert_fails(rpc_measured_decode(&answer, 0, &got), COT_ERR_PROTOCOL, "0 bytes");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(orders), cmocka_unit_test(answers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
