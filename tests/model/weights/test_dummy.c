/* Made-up weights: a function of (seed, name, index) and of nothing else. */
#include "tests/temporary.h"

#include "base/json.h"
#include "model/weights.h"

#include <math.h>
#include <pthread.h>

static model_config_t config;

static float value(const cot_tensor_t *tensor, size_t index)
{
    uint16_t bits;
    memcpy(&bits, (const char *)tensor->data + index * sizeof(bits), sizeof(bits));
    uint32_t wide = (uint32_t)bits << 16;
    float result;
    memcpy(&result, &wide, sizeof(result));
    return result;
}

static cot_tensor_t get(model_weights_t *weights, model_role_t role, uint32_t layer, uint32_t expert)
{
    cot_tensor_t tensor;
    assert_ok(model_weights_get(weights, role, layer, expert, &tensor));
    return tensor;
}

static model_weights_t *make(uint64_t seed)
{
    model_weights_t *weights = NULL;
    assert_ok(model_weights_dummy(&config, seed, &weights));
    return weights;
}

/* Two workers that ask in another order, for other tensors, see the same values. */
static void the_same_everywhere(void **state)
{
    (void)state;
    model_weights_t *one = make(7), *two = make(7);
    cot_tensor_t a = get(one, MODEL_EXPERT_UP, 1, 3), unused = get(two, MODEL_Q, 0, 0);
    cot_tensor_t b = get(two, MODEL_EXPERT_UP, 1, 3);
    assert_true(unused.bytes > 0);
    assert_int_equal(a.dtype, COT_DTYPE_BF16);
    assert_int_equal(a.shape[0], config.expert_width);
    assert_int_equal(a.shape[1], config.hidden);
    assert_int_equal(a.bytes, b.bytes);
    assert_memory_equal(a.data, b.data, a.bytes);
    assert_ptr_equal(get(one, MODEL_EXPERT_UP, 1, 3).data, a.data); /* made once */
    model_weights_close(one);
    model_weights_close(two);
}

static void seeds_and_names_differ(void **state)
{
    (void)state;
    model_weights_t *one = make(7), *two = make(8);
    cot_tensor_t a = get(one, MODEL_EXPERT_UP, 1, 3), b = get(two, MODEL_EXPERT_UP, 1, 3);
    assert_memory_not_equal(a.data, b.data, a.bytes);
    b = get(one, MODEL_EXPERT_UP, 1, 2);
    assert_memory_not_equal(a.data, b.data, a.bytes);
    b = get(one, MODEL_EXPERT_UP, 0, 3);
    assert_memory_not_equal(a.data, b.data, a.bytes);
    model_weights_close(one);
    model_weights_close(two);
}

/* Pinned: a benchmark's weights may not drift from one version to the next. */
static void the_values_stay(void **state)
{
    (void)state;
    model_weights_t *weights = make(1);
    cot_tensor_t tensor = get(weights, MODEL_ROUTER, 0, 0);
    char hex[65];
    cot_sha256_hex(tensor.data, tensor.bytes, hex);
    assert_string_equal(hex, "7b425c96d3fc9217a70e95fa12ba521f20318e6b369c8ce825c5c75168e6dd59");
    model_weights_close(weights);
}

/* Sums of n values of deviation s: a mean within 5 s / sqrt(n) and a deviation within 5 s / sqrt(2 n) would be missed
 * once in a million seeds; the seed is fixed. */
static void spread_is(const cot_tensor_t *tensor, double mean, double deviation)
{
    size_t count = tensor->bytes / sizeof(uint16_t);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < count; i++) {
        double v = value(tensor, i);
        assert_true(fabs(v - mean) < 4 * deviation); /* four bytes: at most 3.5 deviations away */
        sum += v - mean;
        squares += (v - mean) * (v - mean);
    }
    double n = (double)count;
    assert_true(fabs(sum / n) < 5 * deviation / sqrt(n));
    assert_true(fabs(sqrt(squares / n) - deviation) < 5 * deviation / sqrt(2 * n) + 0.005 * deviation);
}

static void values_are_spread(void **state)
{
    (void)state;
    model_weights_t *weights = make(3);
    cot_tensor_t tensor = get(weights, MODEL_Q, 0, 0);
    spread_is(&tensor, 0, 1 / sqrt(config.hidden));
    tensor = get(weights, MODEL_EXPERT_DOWN, 1, 0);
    spread_is(&tensor, 0, 1 / sqrt(config.expert_width));
    tensor = get(weights, MODEL_INPUT_NORM, 1, 0);
    assert_int_equal(tensor.dims, 1);
    spread_is(&tensor, 1, 0.05);
    tensor = get(weights, MODEL_EMBED, 0, 0);
    spread_is(&tensor, 0, 1);
    model_weights_close(weights);
}

static void a_shape_makes_nothing(void **state)
{
    (void)state;
    model_weights_t *weights = make(3);
    size_t live = cot_memory_live_bytes();
    uint64_t shape[2];
    cot_dtype_t dtype;
    assert_ok(model_weights_shape(weights, MODEL_EMBED, 0, 0, shape, &dtype));
    assert_int_equal(shape[0], config.vocab);
    assert_int_equal(dtype, COT_DTYPE_BF16);
    assert_int_equal(cot_memory_live_bytes(), live);
    cot_tensor_t tensor = get(weights, MODEL_EMBED, 0, 0);
    assert_int_equal(model_weights_bytes(weights), tensor.bytes);
    model_weights_close(weights);
}

static void *ask(void *argument)
{
    model_weights_t *weights = argument;
    cot_tensor_t tensor;
    for (uint32_t e = 0; e < config.experts; e++)
        if (model_weights_get(weights, MODEL_EXPERT_GATE, 0, e, &tensor) != COT_OK) return NULL;
    return weights;
}

static void threads_may_ask_at_once(void **state)
{
    (void)state;
    model_weights_t *weights = make(3), *alone = make(3);
    pthread_t thread[4];
    for (int t = 0; t < 4; t++) assert_int_equal(pthread_create(&thread[t], NULL, ask, weights), 0);
    for (int t = 0; t < 4; t++) {
        void *answer = NULL;
        pthread_join(thread[t], &answer);
        assert_ptr_equal(answer, weights);
    }
    for (uint32_t e = 0; e < config.experts; e++) {
        cot_tensor_t a = get(weights, MODEL_EXPERT_GATE, 0, e), b = get(alone, MODEL_EXPERT_GATE, 0, e);
        assert_memory_equal(a.data, b.data, a.bytes);
    }
    model_weights_close(weights);
    model_weights_close(alone);
}

static void memory_may_run_out(void **state)
{
    (void)state;
    size_t live = cot_memory_live_blocks();
    cot_status_t status = COT_ERR_NO_MEMORY;
    for (int64_t spared = 0; status != COT_OK; spared++) {
        model_weights_t *weights = NULL;
        cot_tensor_t tensor;
        assert_int_equal(status, COT_ERR_NO_MEMORY);
        assert_true(spared < 100);
        cot_memory_fail_after(spared);
        status = model_weights_dummy(&config, 1, &weights);
        if (status == COT_OK) status = model_weights_get(weights, MODEL_Q, 0, 0, &tensor);
        cot_memory_fail_after(-1);
        model_weights_close(weights);
        assert_int_equal(cot_memory_live_blocks(), live);
    }
}

static int set_up(void **state)
{
    (void)state;
    cot_json_setup();
    return model_config_load(COTERIE_SOURCE_DIR "/tests/fixtures/models/qwen3", &config) == COT_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return cot_memory_live_blocks() == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_everywhere),   cmocka_unit_test(seeds_and_names_differ),
        cmocka_unit_test(the_values_stay),       cmocka_unit_test(values_are_spread),
        cmocka_unit_test(a_shape_makes_nothing), cmocka_unit_test(threads_may_ask_at_once),
        cmocka_unit_test(memory_may_run_out),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
