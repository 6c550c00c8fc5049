/* Every tensor of every fixture, by role: the same bytes as by its name in the files; and what is counted. */
#include "tests/model/model_dir.h"

#include "model/names.h"
#include "model/weights.h"

#include <dirent.h>

static model_config_t config;

typedef struct {
    model_role_t role;
    uint32_t layer, expert;
} place_t;

/* The next tensor that the architecture has; begin with role EMBED, layer 0, expert 0 after a zero place. */
static bool next(place_t *place, bool *begun)
{
    if (*begun) place->expert++;
    *begun = true;
    for (; place->role < (model_role_t)MODEL_ROLE_COUNT; place->role++, place->layer = 0, place->expert = 0) {
        uint32_t layers = model_role_in_layer(place->role) ? config.layers : 1;
        uint32_t experts = model_role_of_expert(place->role) ? config.experts : 1;
        for (; place->layer < layers; place->layer++, place->expert = 0)
            if (model_role_present(&config, place->role, place->layer) && place->expert < experts) return true;
    }
    return false;
}

static const cot_tensor_t *by_name(cot_safetensors_t *const *shard, uint32_t shards, const char *name)
{
    const cot_tensor_t *tensor = NULL;
    for (uint32_t s = 0; s < shards && tensor == NULL; s++) tensor = cot_safetensors_find(shard[s], name);
    return tensor;
}

/* Opens the fixture's files a second time, by themselves. */
static uint32_t open_shards(const char *directory, cot_safetensors_t *shard[8])
{
    uint32_t shards = 0;
    DIR *folder = opendir(directory);
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char path[700];
        if (strncmp(entry->d_name, "model", 5) != 0 || strstr(entry->d_name, ".json") != NULL) continue;
        snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
        assert_true(shards < 8);
        assert_ok(cot_safetensors_open(path, &shard[shards++]));
    }
    closedir(folder);
    return shards;
}

static void check_fixture(const char *directory)
{
    cot_safetensors_t *shard[8];
    uint32_t shards = open_shards(directory, shard), stored = 0, roles = 0;
    model_weights_t *weights = NULL;
    assert_ok(model_config_load(directory, &config));
    assert_ok(model_weights_open(directory, &config, &weights));
    assert_int_equal(model_weights_bytes(weights), 0);
    place_t place = {0};
    uint64_t sum = 0;
    for (bool begun = false; next(&place, &begun); roles++) {
        char name[MODEL_NAME_BYTES];
        uint64_t shape[2];
        cot_dtype_t dtype;
        cot_tensor_t tensor;
        model_tensor_name(&config, place.role, place.layer, place.expert, name);
        const cot_tensor_t *want = by_name(shard, shards, name);
        if (want == NULL) fail_msg("%s: no %s", directory, name);
        assert_ok(model_weights_shape(weights, place.role, place.layer, place.expert, shape, &dtype));
        assert_int_equal(model_weights_bytes(weights), sum); /* a shape takes nothing */
        assert_ok(model_weights_get(weights, place.role, place.layer, place.expert, &tensor));
        assert_int_equal(dtype, want->dtype);
        assert_int_equal(tensor.bytes, shape[0] * shape[1] * cot_dtype_bytes(dtype));
        assert_int_equal(tensor.bytes, want->bytes);
        assert_memory_equal(tensor.data, want->data, want->bytes);
        sum += tensor.bytes;
    }
    assert_int_equal(model_weights_bytes(weights), sum);
    for (uint32_t s = 0; s < shards; s++) {
        stored += cot_safetensors_count(shard[s]);
        cot_safetensors_close(shard[s]);
    }
    /* Nothing in the files is left over: no bias or norm was forgotten. A tied head is the embedding again. */
    assert_int_equal(roles - config.tie_embeddings, stored);
    model_weights_close(weights);
}

static void every_tensor_of_every_fixture(void **state)
{
    (void)state;
    DIR *folder = opendir(MODEL_FIXTURES);
    assert_non_null(folder);
    uint32_t fixtures = 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char path[700];
        snprintf(path, sizeof(path), MODEL_FIXTURES "%s/config.json", entry->d_name);
        if (access(path, R_OK) != 0) continue;
        snprintf(path, sizeof(path), MODEL_FIXTURES "%s", entry->d_name);
        check_fixture(path);
        fixtures++;
    }
    closedir(folder);
    assert_true(fixtures >= 12);
}

static void the_shared_gate_is_a_row(void **state)
{
    (void)state;
    model_weights_t *weights = NULL;
    uint64_t shape[2];
    cot_dtype_t dtype;
    assert_ok(model_config_load(MODEL_FIXTURES "qwen2", &config));
    assert_ok(model_weights_open(MODEL_FIXTURES "qwen2", &config, &weights));
    assert_ok(model_weights_shape(weights, MODEL_SHARED_ROUTER, 0, 0, shape, &dtype));
    assert_int_equal(shape[0], 1);
    assert_int_equal(shape[1], config.hidden);
    assert_ok(model_weights_shape(weights, MODEL_Q_BIAS, 0, 0, shape, &dtype));
    assert_int_equal(shape[0], config.heads * config.head_dim);
    assert_int_equal(shape[1], 1);
    model_weights_close(weights);
}

/* Workers 0 … 2 own every third expert: together they take each expert once, alone only their own. */
static void only_own_experts_are_counted(void **state)
{
    (void)state;
    enum { WORKERS = 3 };
    assert_ok(model_config_load(MODEL_FIXTURES "qwen3-odd", &config));
    const model_role_t roles[] = {MODEL_EXPERT_GATE, MODEL_EXPERT_UP, MODEL_EXPERT_DOWN};
    uint64_t together = 0, expert = model_config_expert_bytes(&config, cot_dtype_bytes(config.dtype));
    for (uint32_t worker = 0; worker < WORKERS; worker++) {
        model_weights_t *weights = NULL;
        assert_ok(model_weights_open(MODEL_FIXTURES "qwen3-odd", &config, &weights));
        uint64_t owned = 0;
        for (uint32_t l = 0; l < config.layers; l++)
            for (uint32_t e = worker; e < config.experts; e += WORKERS, owned++)
                for (int r = 0; r < 3; r++) {
                    cot_tensor_t tensor;
                    assert_ok(model_weights_get(weights, roles[r], l, e, &tensor));
                }
        assert_int_equal(model_weights_bytes(weights), owned * expert);
        together += model_weights_bytes(weights);
        model_weights_close(weights);
    }
    assert_int_equal(together, config.layers * config.experts * expert);
}

static void memory_may_run_out(void **state)
{
    (void)state;
    assert_ok(model_config_load(MODEL_FIXTURES "mixtral-window", &config));
    size_t live = cot_memory_live_blocks();
    cot_status_t status = COT_ERR_NO_MEMORY;
    for (int64_t spared = 0; status != COT_OK; spared++) {
        model_weights_t *weights = NULL;
        assert_int_equal(status, COT_ERR_NO_MEMORY);
        assert_true(spared < 1000);
        cot_memory_fail_after(spared);
        status = model_weights_open(MODEL_FIXTURES "mixtral-window", &config, &weights);
        cot_memory_fail_after(-1);
        assert_true((status == COT_OK) == (weights != NULL));
        model_weights_close(weights);
        assert_int_equal(cot_memory_live_blocks(), live);
    }
}

static int set_up(void **state)
{
    (void)state;
    cot_json_setup();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return cot_memory_live_blocks() == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tensor_of_every_fixture), cmocka_unit_test(the_shared_gate_is_a_row),
        cmocka_unit_test(only_own_experts_are_counted), cmocka_unit_test(memory_may_run_out)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
