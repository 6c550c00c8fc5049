/* Files that are missing, cut short, or not what config.json says: found at opening, from the headers. */
#include "tests/model/model_dir.h"

#include "model/weights.h"

static char directory[256];
static model_config_t config;

static void refuses(cot_status_t status, const char *words)
{
    model_weights_t *weights = NULL;
    assert_fails(model_weights_open(directory, &config, &weights), status, words);
    assert_null(weights);
}

static void begin(const char *fixture)
{
    model_dir_copy(fixture, directory);
    assert_ok(model_config_load(directory, &config));
}

static void no_files(void **state)
{
    (void)state;
    char path[400];
    begin("qwen3");
    model_dir_path(directory, "model.safetensors", path);
    assert_int_equal(unlink(path), 0);
    refuses(COT_ERR_NOT_FOUND, "model.safetensors");
}

/* At every cut: within the length, the header, the data. */
static void cut_short(void **state)
{
    (void)state;
    char path[400], *bytes = NULL;
    size_t count = 0;
    begin("qwen3");
    model_dir_path(directory, "model.safetensors", path);
    assert_ok(cot_file_read(path, 1 << 20, &bytes, &count));
    const size_t cuts[] = {0, 7, 8, 100, count / 2, count - 1};
    for (size_t i = 0; i < sizeof(cuts) / sizeof(*cuts); i++) {
        temporary_write(path, bytes, cuts[i]);
        refuses(COT_ERR_FORMAT, "model.safetensors");
    }
    refuses(COT_ERR_FORMAT, "cut short");
    cot_free(bytes);
}

static void a_shard_is_missing(void **state)
{
    (void)state;
    char path[400];
    begin("mixtral-window");
    model_dir_path(directory, "model-00002-of-00002.safetensors", path);
    assert_int_equal(unlink(path), 0);
    refuses(COT_ERR_NOT_FOUND, "model-00002-of-00002.safetensors");
    refuses(COT_ERR_NOT_FOUND, "missing");
}

static void the_index_points_outside(void **state)
{
    (void)state;
    const char *const outside[] = {"../model.safetensors", "/etc/passwd", "sub/model.safetensors", "..", ".", ""};
    begin("mixtral-window");
    for (size_t i = 0; i < sizeof(outside) / sizeof(*outside); i++) {
        char index[300];
        snprintf(index, sizeof(index), "{\"weight_map\": {\"lm_head.weight\": \"%s\"}}", outside[i]);
        model_dir_write(directory, "model.safetensors.index.json", index);
        refuses(COT_ERR_FORMAT, "outside the model directory");
    }
}

static void the_index_is_no_index(void **state)
{
    (void)state;
    begin("mixtral-window");
    const char *const bad[][2] = {{"{}", "weight_map"},
                                  {"{\"weight_map\": {}}", "weight_map"},
                                  {"{\"weight_map\": [\"a\"]}", "weight_map"},
                                  {"{\"weight_map\": {\"lm_head.weight\": 1}}", "lm_head.weight"},
                                  {"{\"weight_map\": ", "line 1"}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        model_dir_write(directory, "model.safetensors.index.json", bad[i][0]);
        refuses(COT_ERR_FORMAT, bad[i][1]);
    }
    /* A whole index over half of the tensors. */
    model_dir_write(directory, "model.safetensors.index.json",
                    "{\"weight_map\": {\"lm_head.weight\": \"model-00001-of-00002.safetensors\"}}");
    refuses(COT_ERR_NOT_FOUND, "none of the model's files");
}

static void another_shape(void **state)
{
    (void)state;
    begin("qwen3");
    model_config_t good = config;
    config.kv_heads = 4;
    refuses(COT_ERR_FORMAT, "self_attn.k_proj.weight has the shape [32, 32]; config.json asks for [64, 32]");
    config = good;
    config.vocab = 130;
    refuses(COT_ERR_FORMAT, "model.embed_tokens.weight has the shape [131, 32]; config.json asks for [130, 32]");
    config = good;
    config.head_dim = 8;
    refuses(COT_ERR_FORMAT, "self_attn");
    config = good;
    config.expert_width = 25;
    refuses(COT_ERR_FORMAT, "experts.0.");
    config = good;
    config.qk_norm = MODEL_QK_NORM_FULL;
    refuses(COT_ERR_FORMAT, "q_norm.weight has the shape [16]; config.json asks for [64]");
}

static void a_tensor_is_missing(void **state)
{
    (void)state;
    begin("qwen3");
    model_config_t good = config;
    config.layers = 3;
    config.layer[2].moe = true;
    refuses(COT_ERR_NOT_FOUND, "model.layers.2.");
    config = good;
    config.qkv_bias = true;
    refuses(COT_ERR_NOT_FOUND, "q_proj.bias");
    config = good;
    config.experts = 9;
    refuses(COT_ERR_FORMAT, "mlp.gate.weight has the shape [8, 32]");
    config = good;
    config.family = MODEL_MIXTRAL;
    refuses(COT_ERR_NOT_FOUND, "block_sparse_moe");
}

/* Writes all tensors of the qwen3 fixture again, one of them as `dims` dimensions of the type `dtype`, or, with `name`
 * given, under another name. */
static void rewrite(const char *which, cot_dtype_t dtype, uint32_t dims, const char *name)
{
    cot_safetensors_t *file = NULL;
    cot_safetensors_writer_t *writer = NULL;
    char path[400];
    assert_ok(cot_safetensors_open(MODEL_FIXTURES "qwen3/model.safetensors", &file));
    model_dir_path(directory, "model.safetensors", path);
    assert_ok(cot_safetensors_writer_create(path, &writer));
    for (uint32_t t = 0; t < cot_safetensors_count(file); t++) {
        cot_tensor_t tensor = *cot_safetensors_at(file, t);
        if (strcmp(tensor.name, which) == 0) {
            tensor.dtype = dtype;
            for (; tensor.dims < dims; tensor.dims++) tensor.shape[tensor.dims] = 1;
            if (name != NULL) tensor.name = name;
        }
        assert_ok(cot_safetensors_writer_declare(writer, tensor.name, tensor.dtype, tensor.dims, tensor.shape));
    }
    for (uint32_t t = 0; t < cot_safetensors_count(file); t++)
        assert_ok(cot_safetensors_writer_write(writer, cot_safetensors_at(file, t)->data,
                                               cot_safetensors_at(file, t)->bytes));
    assert_ok(cot_safetensors_writer_commit(writer));
    cot_safetensors_writer_destroy(writer);
    cot_safetensors_close(file);
}

static void another_type_or_rank(void **state)
{
    (void)state;
    begin("qwen3");
    rewrite("model.norm.weight", COT_DTYPE_BF16, 0, NULL);
    model_weights_t *weights = NULL;
    assert_ok(model_weights_open(directory, &config, &weights));
    model_weights_close(weights);
    rewrite("model.norm.weight", COT_DTYPE_I16, 0, NULL);
    refuses(COT_ERR_UNSUPPORTED, "model.norm.weight is of the type I16");
    rewrite("model.norm.weight", COT_DTYPE_BF16, 2, NULL);
    refuses(COT_ERR_FORMAT, "model.norm.weight has the shape [32, 1]; config.json asks for [32]");
    rewrite("lm_head.weight", COT_DTYPE_BF16, 3, NULL);
    refuses(COT_ERR_FORMAT, "lm_head.weight has the shape [131, 32, 1]; config.json asks for [131, 32]");
}

static void fused_experts_are_named(void **state)
{
    (void)state;
    begin("qwen3");
    rewrite("model.layers.0.mlp.experts.0.gate_proj.weight", COT_DTYPE_BF16, 0,
            "model.layers.0.mlp.experts.gate_up_proj");
    refuses(COT_ERR_UNSUPPORTED, "stored fused");
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
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_files),
        cmocka_unit_test(cut_short),
        cmocka_unit_test(a_shard_is_missing),
        cmocka_unit_test(the_index_points_outside),
        cmocka_unit_test(the_index_is_no_index),
        cmocka_unit_test(another_shape),
        cmocka_unit_test(a_tensor_is_missing),
        cmocka_unit_test(another_type_or_rank),
        cmocka_unit_test(fused_experts_are_named),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
