/* Loading takes everything but the experts of other workers from the files, and foretells what it takes. */
#include "tests/temporary.h"

#include "base/json.h"
#include "worker/load.h"

enum { WORKERS = 3, LAYERS = 3, EXPERTS = 5, WIDTH = 17, HIDDEN = 40 }; /* of the qwen3-odd fixture, stored in F32 */

#define DIRECTORY COTERIE_SOURCE_DIR "/tests/fixtures/models/qwen3-odd"

static model_config_t config;
static kern_t *kern;

/* Loads the share of one worker; the bytes handed out of the files, also as foretold. */
static uint64_t load_share(const place_plan_t *plan, uint32_t worker)
{
    model_weights_t *files = NULL;
    worker_weights_t *weights = NULL;
    uint64_t private_bytes = 0, mapped_bytes = 0;
    assert_ok(model_weights_open(DIRECTORY, &config, &files));
    const worker_load_t load = {
        .ops = &kern_ref, .kern = kern, .config = &config, .files = files, .plan = plan, .worker = worker};
    assert_ok(worker_load_measure(&load, KERN_F32, &private_bytes, &mapped_bytes));
    assert_int_equal(model_weights_bytes(files), 0); /* measuring takes nothing */
    assert_ok(worker_load(&load, &weights));
    uint64_t bytes = model_weights_bytes(files);
    assert_int_equal(bytes, mapped_bytes);
    assert_int_equal(weights->copied_bytes, private_bytes);
    worker_weights_destroy(&kern_ref, kern, weights);
    model_weights_close(files);
    return bytes;
}

/* What every worker takes: all of the file's weights but the experts. */
static uint64_t common_bytes(void)
{
    const uint64_t heads = 6 * 12, kv = 3 * 12, vocab = 131;
    uint64_t layer = 2 * HIDDEN + 2 * 12 + (2 * heads + 2 * kv) * HIDDEN + EXPERTS * HIDDEN;
    return (2 * vocab * HIDDEN + HIDDEN + LAYERS * layer) * sizeof(float);
}

static void a_worker_takes_its_own_experts(void **state)
{
    (void)state;
    const uint32_t layer_index[LAYERS] = {0, 1, 2};
    const uint64_t expert = (uint64_t)3 * WIDTH * HIDDEN * sizeof(float);
    assert_int_equal(expert, model_config_expert_bytes(&config, sizeof(float)));
    place_plan_t *plan = NULL;
    assert_ok(place_plan_contiguous(LAYERS, layer_index, EXPERTS, WORKERS, &plan));
    assert_int_equal(load_share(plan, 0), common_bytes() + LAYERS * 2 * expert);
    assert_int_equal(load_share(plan, 1), common_bytes() + LAYERS * 2 * expert);
    assert_int_equal(load_share(plan, 2), common_bytes() + LAYERS * 1 * expert);
    place_plan_destroy(plan);
}

/* Uneven counts, a replica, and a worker without experts. */
static void any_plan(void **state)
{
    (void)state;
    const char *text = "{\"format\": \"coterie.plan/1\", \"ranks\": 3, \"layers\": ["
                       "{\"layer\": 0, \"ranks\": [[4, 0, 1, 2, 3], [2], []]},"
                       "{\"layer\": 1, \"ranks\": [[0, 1, 2], [3, 4], []]},"
                       "{\"layer\": 2, \"ranks\": [[0, 1, 2, 3], [4, 3, 2], []]}]}";
    const uint64_t expert = model_config_expert_bytes(&config, sizeof(float));
    place_plan_t *plan = NULL;
    assert_ok(place_plan_parse(text, strlen(text), "text", &plan));
    assert_int_equal(load_share(plan, 0), common_bytes() + 12 * expert);
    assert_int_equal(load_share(plan, 1), common_bytes() + 6 * expert);
    assert_int_equal(load_share(plan, 2), common_bytes());
    place_plan_destroy(plan);
}

static int set_up(void **state)
{
    (void)state;
    cot_json_setup();
    if (model_config_load(DIRECTORY, &config) != COT_OK) return -1;
    const kern_config_t shape = {.act = KERN_F32,
                                 .hidden = config.hidden,
                                 .heads = config.heads,
                                 .kv_heads = config.kv_heads,
                                 .head_dim = config.head_dim,
                                 .vocab = config.vocab,
                                 .experts = config.experts,
                                 .top_k = config.top_k,
                                 .max_width = config.expert_width,
                                 .max_rows = 8,
                                 .max_assignments = 16,
                                 .max_context = 64,
                                 .norm_eps = config.norm_eps,
                                 .norm_topk = config.norm_topk,
                                 .qk_norm = KERN_QK_NORM_HEAD,
                                 .inv_freq = config.inv_freq,
                                 .rope_factor = config.rope_factor};
    return kern_ref.create(&shape, &kern) == COT_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    kern_ref.destroy(kern);
    return cot_memory_live_blocks() == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_worker_takes_its_own_experts), cmocka_unit_test(any_plan)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
