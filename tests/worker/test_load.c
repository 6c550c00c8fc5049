/* Loading takes everything but the experts of other workers from the files, and foretells what it takes; what it must
 * convert stands on a node once. */
#include "tests/temporary.h"

#include "base/json.h"
#include "worker/load.h"

#include <pthread.h>

enum { WORKERS = 3, LAYERS = 3, EXPERTS = 5, WIDTH = 17, HIDDEN = 40 }; /* of the qwen3-odd fixture, stored in F32 */

#define DIRECTORY COTERIE_SOURCE_DIR "/tests/fixtures/models/qwen3-odd"

static model_config_t config;
static kern_t *kern, *kern16[2]; /* activations in float32; in bf16, one for each worker */

/* Loads the share of one worker; the bytes handed out of the files, also as foretold. */
static uint64_t load_share(const place_plan_t *plan, uint32_t worker)
{
    model_weights_t *files = NULL;
    worker_weights_t *weights = NULL;
    worker_load_need_t need;
    assert_ok(model_weights_open(DIRECTORY, &config, &files));
    const worker_load_t load = {.ops = &kern_ref,
                                .kern = kern,
                                .config = &config,
                                .files = files,
                                .plan = plan,
                                .worker = worker,
                                .act = KERN_F32};
    assert_ok(worker_load_measure(&load, &need));
    assert_int_equal(model_weights_bytes(files), 0); /* measuring takes nothing */
    assert_ok(worker_load(&load, &weights));
    uint64_t bytes = model_weights_bytes(files);
    assert_int_equal(bytes, need.mapped_bytes);
    assert_int_equal(need.store_bytes, 0);
    assert_int_equal(weights->copied_bytes, need.private_bytes);
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

/* ---- matrices that are not borrowed: one copy on a node ---- */

enum { ACT_WORKERS = 2 };

typedef struct {
    comm_link_t *link;
    const model_config_t *config;
    const place_plan_t *plan;
    bool dummy, fails; /* fails: before it loads */
    cot_status_t status;
    worker_load_need_t need;
    uint64_t copied, shared;
    uint16_t first_head, last_head, expert_sum; /* of what the kernels would read */
    const void *embed, *lm_head;
} sharer_t;

static uint16_t sum_bits(const kern_matrix_t *matrix)
{
    uint16_t sum = 0;
    const uint16_t *bits = matrix->data;
    for (size_t i = 0; i < (size_t)matrix->rows * matrix->cols; i++) sum = (uint16_t)(sum * 31 + bits[i]);
    return sum;
}

/* As a worker process does it, under activations in bf16. */
static void share(sharer_t *sharer, kern_t *own_kern)
{
    static const uint32_t everybody[ACT_WORKERS] = {0, 1};
    model_weights_t *files = NULL;
    worker_weights_t *weights = NULL;
    const uint32_t worker = comm_rank(sharer->link) - 1;
    if (sharer->dummy)
        assert_ok(model_weights_dummy(sharer->config, 5, &files));
    else
        assert_ok(model_weights_open(DIRECTORY, sharer->config, &files));
    const worker_load_t load = {.ops = &kern_ref,
                                .kern = own_kern,
                                .config = sharer->config,
                                .files = files,
                                .plan = sharer->plan,
                                .worker = worker,
                                .act = KERN_BF16,
                                .link = sharer->link,
                                .node_worker = everybody,
                                .node_workers = ACT_WORKERS,
                                .timeout_ms = 20000};
    assert_ok(worker_load_measure(&load, &sharer->need));
    if (sharer->fails)
        worker_store_give_up(sharer->link);
    else
        sharer->status = worker_load(&load, &weights);
    if (weights != NULL) {
        sharer->copied = weights->copied_bytes;
        sharer->shared = weights->shared_bytes;
        sharer->first_head = sum_bits(&weights->embed);
        sharer->last_head = sum_bits(&weights->lm_head);
        sharer->embed = weights->embed.data;
        sharer->lm_head = weights->lm_head.data;
        const int32_t slot = weights->layer[0].slot_of[2]; /* both have expert 2 */
        sharer->expert_sum = slot >= 0 ? sum_bits(&weights->layer[0].expert[slot].down) : 0;
        worker_weights_destroy(&kern_ref, own_kern, weights);
    }
    model_weights_close(files);
}

static void *share_in_thread(void *argument)
{
    share(argument, kern16[1]);
    return NULL;
}

/* Two workers, rank 0 only looks on. */
static void share_all(sharer_t sharer[ACT_WORKERS])
{
    comm_link_t *links[ACT_WORKERS + 1];
    pthread_t thread;
    assert_ok(comm_local_start(ACT_WORKERS + 1, links));
    for (int w = 0; w < ACT_WORKERS; w++) sharer[w].link = links[w + 1];
    assert_int_equal(pthread_create(&thread, NULL, share_in_thread, &sharer[1]), 0);
    share(&sharer[0], kern16[0]);
    pthread_join(thread, NULL);
    comm_local_finish(ACT_WORKERS + 1, links);
}

/* Under this plan both workers hold expert 2. */
static place_plan_t *plan_for_two(void)
{
    const char *text =
        "{\"format\": \"coterie.plan/1\", \"ranks\": 2, \"layers\": ["
        "{\"layer\": 0, \"ranks\": [[4, 0, 2], [2, 1, 3]]}, {\"layer\": 1, \"ranks\": [[0, 1, 2, 3, 4], [2]]},"
        "{\"layer\": 2, \"ranks\": [[], [4, 3, 2, 1, 0]]}]}";
    place_plan_t *plan = NULL;
    assert_ok(place_plan_parse(text, strlen(text), "text", &plan));
    return plan;
}

/* What F32 on disk becomes in bf16, or made-up weights: on the node once, though both workers use it. */
static void converted_weights_are_there_once(void **state)
{
    (void)state;
    place_plan_t *plan = plan_for_two();
    const uint64_t matrices = common_bytes() / sizeof(float) - HIDDEN - LAYERS * (2 * HIDDEN + 2 * 12);
    const uint64_t expert = (uint64_t)3 * WIDTH * HIDDEN;
    for (int dummy = 0; dummy < 2; dummy++) {
        sharer_t sharer[ACT_WORKERS] = {{.config = &config, .plan = plan, .dummy = dummy},
                                        {.config = &config, .plan = plan, .dummy = dummy}};
        share_all(sharer);
        uint64_t least = (matrices + LAYERS * EXPERTS * expert) * sizeof(uint16_t);
        for (int w = 0; w < ACT_WORKERS; w++) {
            assert_ok(sharer[w].status);
            assert_in_range(sharer[w].need.store_bytes, least, least + 64 * 100); /* each begins a cache line */
            assert_int_equal(sharer[w].copied, sharer[w].need.private_bytes);
            assert_int_equal(sharer[w].shared, (matrices + (w == 0 ? 8 : 9) * expert) * sizeof(uint16_t));
        }
        assert_int_equal(sharer[0].first_head, sharer[1].first_head);
        assert_int_equal(sharer[0].last_head, sharer[1].last_head);
        assert_int_equal(sharer[0].expert_sum, sharer[1].expert_sum);
        assert_true(sharer[0].first_head != 0 && sharer[0].last_head != 0 && sharer[0].expert_sum != 0);
    }
    place_plan_destroy(plan);
}

/* Tied embeddings are one matrix, also where it is converted. */
static void a_tied_head_is_the_embedding(void **state)
{
    (void)state;
    model_config_t *tied = cot_alloc(sizeof(*tied));
    place_plan_t *plan = plan_for_two();
    *tied = config;
    tied->tie_embeddings = true;
    sharer_t sharer[ACT_WORKERS] = {{.config = tied, .plan = plan}, {.config = tied, .plan = plan}};
    share_all(sharer);
    for (int w = 0; w < ACT_WORKERS; w++) {
        assert_ok(sharer[w].status);
        assert_ptr_equal(sharer[w].embed, sharer[w].lm_head);
    }
    cot_free(tied);
    place_plan_destroy(plan);
}

/* Whichever fails: the other does not wait for the deadline. */
static void one_failure_is_everybodys(void **state)
{
    (void)state;
    place_plan_t *plan = plan_for_two();
    for (int bad = 0; bad < ACT_WORKERS; bad++) {
        sharer_t sharer[ACT_WORKERS] = {{.config = &config, .plan = plan}, {.config = &config, .plan = plan}};
        sharer[bad].fails = true;
        int64_t began_ns = cot_now_ns();
        share_all(sharer);
        assert_int_equal(sharer[1 - bad].status, COT_ERR_CANCELLED);
        assert_true(cot_now_ns() - began_ns < 10 * INT64_C(1000000000));
    }
    place_plan_destroy(plan);
}

static int set_up(void **state)
{
    (void)state;
    cot_json_setup();
    if (model_config_load(DIRECTORY, &config) != COT_OK) return -1;
    kern_config_t shape = {.act = KERN_F32,
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
    if (kern_ref.create(&shape, &kern) != COT_OK) return -1;
    shape.act = KERN_BF16;
    return kern_ref.create(&shape, &kern16[0]) == COT_OK && kern_ref.create(&shape, &kern16[1]) == COT_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    kern_ref.destroy(kern);
    for (int w = 0; w < 2; w++) kern_ref.destroy(kern16[w]);
    return cot_memory_live_blocks() == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_worker_takes_its_own_experts), cmocka_unit_test(any_plan),
                                       cmocka_unit_test(converted_weights_are_there_once),
                                       cmocka_unit_test(a_tied_head_is_the_embedding),
                                       cmocka_unit_test(one_failure_is_everybodys)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
