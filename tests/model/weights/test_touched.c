/* A worker that owns 2 of 16 experts reads their pages and no others. What this process has mapped in of the file is
 * read from /proc/self/smaps. A page fault may map its neighbourhood too, up to 2 MiB on each side of the two runs of
 * owned experts: 8 MiB of the 24 at worst, so half of the file is a bound that holds on any kernel. */
#include "tests/model/model_dir.h"

#include "model/names.h"
#include "model/weights.h"

enum { HIDDEN = 256, WIDTH = 512, EXPERTS = 16, OWNED = 2, LAYERS = 2 };

static char directory[256];
static model_config_t config;

static uint64_t role_bytes(model_role_t role)
{
    uint64_t shape[2];
    model_tensor_shape(&config, role, shape);
    return shape[0] * shape[1] * sizeof(uint16_t);
}

static void declare(cot_safetensors_writer_t *writer, model_role_t role, uint32_t layer, uint32_t expert)
{
    char name[MODEL_NAME_BYTES];
    uint64_t shape[2];
    model_tensor_name(&config, role, layer, expert, name);
    model_tensor_shape(&config, role, shape);
    assert_ok(cot_safetensors_writer_declare(writer, name, COT_DTYPE_BF16, model_role_is_vector(role) ? 1 : 2, shape));
}

/* All tensors of the architecture; the experts of a layer one after the other, as in files from the hub. */
static uint64_t write_model(const char *path)
{
    cot_safetensors_writer_t *writer = NULL;
    uint64_t left = 0, total;
    assert_ok(cot_safetensors_writer_create(path, &writer));
    for (int role = 0; role < MODEL_ROLE_COUNT; role++) {
        uint32_t layers = model_role_in_layer((model_role_t)role) ? config.layers : 1;
        for (uint32_t l = 0; l < layers; l++) {
            if (model_role_of_expert((model_role_t)role) || !model_role_present(&config, (model_role_t)role, l))
                continue;
            declare(writer, (model_role_t)role, l, 0);
            left += role_bytes((model_role_t)role);
        }
    }
    for (uint32_t l = 0; l < config.layers; l++)
        for (uint32_t e = 0; e < config.experts; e++) {
            declare(writer, MODEL_EXPERT_GATE, l, e);
            declare(writer, MODEL_EXPERT_UP, l, e);
            declare(writer, MODEL_EXPERT_DOWN, l, e);
            left += model_config_expert_bytes(&config, sizeof(uint16_t));
        }
    total = left;
    for (char block[8192] = {0}; left > 0;) {
        size_t count = left < sizeof(block) ? (size_t)left : sizeof(block);
        assert_ok(cot_safetensors_writer_write(writer, block, count));
        left -= count;
    }
    assert_ok(cot_safetensors_writer_commit(writer));
    cot_safetensors_writer_destroy(writer);
    return total;
}

/* Bytes of the file that are mapped in here. */
static uint64_t mapped_in(const char *path)
{
    FILE *maps = fopen("/proc/self/smaps", "r");
    assert_non_null(maps);
    char line[1024];
    bool ours = false, seen = false;
    uint64_t sum = 0, kilobytes;
    while (fgets(line, sizeof(line), maps) != NULL) {
        uint64_t from, to;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2) ours = strstr(line, path) != NULL;
        seen |= ours;
        if (ours && sscanf(line, "Rss: %lu kB", &kilobytes) == 1) sum += kilobytes * 1024;
    }
    fclose(maps);
    assert_true(seen);
    return sum;
}

static uint64_t touch(const cot_tensor_t *tensor)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < tensor->bytes; i += 512) sum += ((const volatile uint8_t *)tensor->data)[i];
    return sum;
}

static void a_worker_touches_only_its_experts(void **state)
{
    (void)state;
    char path[400], patch[300];
    snprintf(
        patch, sizeof(patch),
        "{\"hidden_size\": %d, \"moe_intermediate_size\": %d, \"num_local_experts\": %d, \"num_hidden_layers\": %d}",
        HIDDEN, WIDTH, EXPERTS, LAYERS);
    model_dir_config("qwen3", patch, NULL, directory);
    assert_ok(model_config_load(directory, &config));
    model_dir_path(directory, "model.safetensors", path);
    uint64_t total = write_model(path);

    model_weights_t *weights = NULL;
    assert_ok(model_weights_open(directory, &config, &weights));
    const model_role_t roles[] = {MODEL_EXPERT_GATE, MODEL_EXPERT_UP, MODEL_EXPERT_DOWN};
    cot_tensor_t tensor[LAYERS * OWNED * 3];
    uint32_t count = 0;
    for (uint32_t l = 0; l < LAYERS; l++)
        for (uint32_t e = 0; e < OWNED; e++)
            for (int r = 0; r < 3; r++) assert_ok(model_weights_get(weights, roles[r], l, e, &tensor[count++]));
    uint64_t opened = mapped_in(path), owned = model_weights_bytes(weights), sum = 0;
    assert_int_equal(owned, LAYERS * OWNED * model_config_expert_bytes(&config, sizeof(uint16_t)));
    for (uint32_t t = 0; t < count; t++) sum += touch(&tensor[t]);
    uint64_t touched = mapped_in(path);
    print_message("of %lu bytes: %lu after opening, %lu after reading %lu\n", total, opened, touched, owned);
    assert_int_equal(sum, 0);
    assert_true(opened <= (uint64_t)4 << 20); /* the header, and what a fault maps around it */
    assert_true(touched >= owned);
    assert_true(touched < total / 2);
    model_weights_close(weights);
}

static int set_up(void **state)
{
    (void)state;
    cot_json_setup();
    temporary_make(directory);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    temporary_remove(directory);
    return cot_memory_live_blocks() == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_worker_touches_only_its_experts)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
