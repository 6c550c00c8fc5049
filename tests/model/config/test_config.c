/* What configurations mean: each fixture as it lies, both styles of config.json, and hub checkpoints' own keys. */
#include "tests/model/model_dir.h"

static char directory[256];
static model_config_t config;

static void load_fixture(const char *name)
{
    char path[400];
    snprintf(path, sizeof(path), MODEL_FIXTURES "%s", name);
    assert_ok(model_config_load(path, &config));
}

static void load(const char *fixture, const char *patch, const char *drop)
{
    model_dir_config(fixture, patch, drop, directory);
    assert_ok(model_config_load(directory, &config));
}

/* W: window, .: none; lower case: dense layer. Compared to `want`, one letter a layer. */
static void layers_are(const char *want)
{
    char got[MODEL_MAX_LAYERS + 1] = "";
    for (uint32_t l = 0; l < config.layers; l++) {
        bool window = config.layer[l].window > 0;
        got[l] = config.layer[l].moe ? (window ? 'W' : 'M') : (window ? 'w' : 'd');
    }
    assert_string_equal(got, want);
}

static void qwen3(void **state)
{
    (void)state;
    load_fixture("qwen3-odd");
    assert_int_equal(config.family, MODEL_QWEN3_MOE);
    assert_string_equal(config.architecture, "Qwen3MoeForCausalLM");
    assert_int_equal(config.dtype, COT_DTYPE_F32);
    assert_int_equal(config.layers, 3);
    assert_int_equal(config.hidden, 40);
    assert_int_equal(config.heads, 6);
    assert_int_equal(config.kv_heads, 3);
    assert_int_equal(config.head_dim, 12);
    assert_int_equal(config.vocab, 131);
    assert_int_equal(config.max_context, 256);
    assert_int_equal(config.experts, 5);
    assert_int_equal(config.top_k, 2);
    assert_int_equal(config.expert_width, 17);
    assert_int_equal(config.dense_width, 0);
    assert_int_equal(config.shared_width, 0);
    assert_int_equal(config.qk_norm, MODEL_QK_NORM_HEAD);
    assert_true(config.norm_topk);
    assert_false(config.tie_embeddings || config.qkv_bias || config.o_bias);
    assert_true(config.norm_eps == 1e-6f && config.clip_qkv == 0);
    assert_int_equal(config.eos_count, 1);
    assert_int_equal(config.eos[0], 2);
    assert_true(config.sampling.temperature == 0 && config.sampling.top_p == 1 && config.sampling.min_p == 0);
    assert_true(config.sampling.repetition_penalty == 1 && config.sampling.top_k == 0);
    layers_are("MMM");
    assert_int_equal(model_config_moe_layers(&config), 3);
    assert_int_equal(model_config_expert_bytes(&config, 2), 3 * 40 * 17 * 2);

    load_fixture("qwen3-all-experts");
    layers_are("dM");
    assert_int_equal(config.dense_width, 40);
    assert_true(config.tie_embeddings);
    assert_false(config.norm_topk);
    assert_int_equal(model_config_moe_layers(&config), 1);

    load_fixture("qwen3-yarn");
    assert_true(config.qkv_bias && config.o_bias);
}

static void qwen2(void **state)
{
    (void)state;
    load_fixture("qwen2"); /* without the key qkv_bias */
    assert_int_equal(config.family, MODEL_QWEN2_MOE);
    assert_true(config.qkv_bias);
    assert_false(config.o_bias || config.norm_topk);
    assert_int_equal(config.shared_width, 28);
    assert_int_equal(config.expert_width, 20);
    assert_int_equal(config.qk_norm, MODEL_QK_NORM_NONE);
    layers_are("MM");

    load_fixture("qwen2-dense-layers"); /* layers 1 and 3 by the step; 3 is dense by the list */
    layers_are("dMdd");
    assert_int_equal(config.dense_width, 40);
    assert_false(config.qkv_bias);
}

static void mixtral(void **state)
{
    (void)state;
    load_fixture("mixtral"); /* "head_dim": null */
    assert_int_equal(config.family, MODEL_MIXTRAL);
    assert_int_equal(config.dtype, COT_DTYPE_F16);
    assert_int_equal(config.head_dim, 8);
    assert_int_equal(config.expert_width, 40);
    assert_true(config.norm_topk);
    assert_true(config.norm_eps == 1e-5f);
    layers_are("MM");
    load_fixture("mixtral-window");
    layers_are("WW");
    assert_int_equal(config.layer[1].window, 24);
    load("mixtral", "{\"sliding_window\": 0}", NULL);
    layers_are("MM");
    load("mixtral", "{\"head_dim\": 12}", NULL);
    assert_int_equal(config.head_dim, 12);
}

static void olmoe(void **state)
{
    (void)state;
    load_fixture("olmoe-clip");
    assert_int_equal(config.family, MODEL_OLMOE);
    assert_true(config.clip_qkv == 0.4f);
    assert_int_equal(config.qk_norm, MODEL_QK_NORM_FULL);
    assert_int_equal(config.experts, 7);
    assert_int_equal(config.expert_width, 24);
    assert_false(config.norm_topk);
    load_fixture("olmoe-bias");
    assert_true(config.qkv_bias && config.o_bias && config.tie_embeddings && config.norm_topk);
    load("olmoe", "{\"num_key_value_heads\": null}", NULL);
    assert_int_equal(config.kv_heads, 4);
}

/* As transformers 5.23 has it, with or without layer_types. */
static void windows(void **state)
{
    (void)state;
    load_fixture("qwen2-window");
    layers_are("WMW");
    assert_int_equal(config.layer[0].window, 20);
    load("qwen2-window", "{}", "layer_types");
    layers_are("WMW");
    load("qwen2-window", "{\"max_window_layers\": 1}", "layer_types");
    layers_are("WMM");
    load("qwen2-window", "{\"num_hidden_layers\": 6, \"max_window_layers\": 4}", "layer_types");
    layers_are("WMWMMM");
    load("qwen2-window", "{\"layer_types\": [\"full_attention\", \"sliding_attention\", \"full_attention\"]}", NULL);
    layers_are("MWM");
    load("qwen2-window", "{\"use_sliding_window\": false}", "layer_types");
    layers_are("MMM");
    /* Qwen3-MoE has the window in all layers or none, whatever max_window_layers says. */
    load("qwen3", "{\"use_sliding_window\": true, \"sliding_window\": 9, \"max_window_layers\": 1}", NULL);
    layers_are("WW");
    load("qwen3", "{\"use_sliding_window\": false, \"sliding_window\": 9, \"max_window_layers\": 1}", NULL);
    layers_are("MM");
}

/* Keys as in the files of Qwen3-30B-A3B, Qwen3-Coder, Qwen1.5-MoE, Mixtral-8x7B and OLMoE on the hub. */
static void hub_files_load(void **state)
{
    (void)state;
    load("qwen3",
         "{\"max_window_layers\": 48, \"qkv_bias\": false, \"shared_expert_intermediate_size\": 0, \"use_qk_norm\": "
         "true, "
         "\"rope_scaling\": null, \"quantization_config\": null}",
         NULL);
    layers_are("MM");
    load("qwen2", "{\"sliding_window\": 32768, \"use_sliding_window\": false, \"max_window_layers\": 21}", NULL);
    layers_are("MM");
    load("mixtral", "{\"attention_bias\": false, \"norm_topk_prob\": true, \"_name_or_path\": \"x\"}", NULL);
    load("mixtral", "{\"_attn_implementation_autoset\": true, \"tokenizer_class\": \"LlamaTokenizer\"}", NULL);
    load("olmoe", "{\"sliding_window\": null, \"decoder_sparse_step\": 1}", NULL);
    load("olmoe", "{\"sliding_window\": 4096, \"use_sliding_window\": false}", NULL);
    layers_are("MM");
}

static void both_styles_are_the_same(void **state)
{
    (void)state;
    model_config_t *other = cot_alloc(sizeof(*other));
    load_fixture("qwen3");
    *other = config;
    load("qwen3",
         "{\"num_experts\": 8, \"torch_dtype\": \"bfloat16\", \"rope_theta\": 10000.0, \"rope_parameters\": null}",
         "num_local_experts");
    memcpy(other->sha256, config.sha256, sizeof(config.sha256));
    assert_memory_equal(other, &config, sizeof(config));
    cot_free(other);
}

static void the_hash_is_of_the_bytes(void **state)
{
    (void)state;
    char path[400], hex[65], *text = NULL;
    size_t bytes = 0;
    load("qwen3", "{}", NULL);
    model_dir_path(directory, "config.json", path);
    assert_ok(cot_file_read(path, 1 << 20, &text, &bytes));
    cot_sha256_hex(text, bytes, hex);
    assert_string_equal(config.sha256, hex);
    cot_free(text);
}

static void generation_config_applies(void **state)
{
    (void)state;
    model_dir_config("qwen3", "{\"eos_token_id\": 5}", NULL, directory);
    model_dir_write(directory, "generation_config.json",
                    "{\"do_sample\": true, \"temperature\": 0.6, \"top_p\": 0.95, \"top_k\": 20, \"min_p\": 0.125, "
                    "\"repetition_penalty\": 1.05, \"eos_token_id\": [7, 9], \"transformers_version\": \"5\"}");
    assert_ok(model_config_load(directory, &config));
    assert_int_equal(config.eos_count, 2);
    assert_int_equal(config.eos[0], 7);
    assert_int_equal(config.eos[1], 9);
    assert_true(config.sampling.temperature == 0.6f && config.sampling.top_p == 0.95f);
    assert_true(config.sampling.min_p == 0.125f && config.sampling.repetition_penalty == 1.05f);
    assert_int_equal(config.sampling.top_k, 20);

    /* Silent: greedy, nothing cut, the EOS of config.json. */
    model_dir_write(directory, "generation_config.json", "{\"temperature\": 0.6, \"top_k\": null}");
    assert_ok(model_config_load(directory, &config));
    assert_true(config.sampling.temperature == 0 && config.sampling.top_p == 1);
    assert_int_equal(config.sampling.top_k, 0);
    assert_int_equal(config.eos[0], 5);

    model_dir_write(directory, "generation_config.json", "{\"do_sample\": true}");
    assert_ok(model_config_load(directory, &config));
    assert_true(config.sampling.temperature == 1);
}

static void generation_config_is_checked(void **state)
{
    (void)state;
    model_dir_config("qwen3", "{}", NULL, directory);
    const char *const bad[][2] = {{"{\"temperature\": -1}", "out of range"},
                                  {"{\"top_p\": 0}", "out of range"},
                                  {"{\"min_p\": 2}", "out of range"},
                                  {"{\"repetition_penalty\": 0}", "out of range"},
                                  {"{\"top_k\": -1}", "top_k"},
                                  {"{\"eos_token_id\": 131}", "eos_token_id"},
                                  {"{\"eos_token_id\": [1, \"x\"]}", "eos_token_id"},
                                  {"{\"do_sample\": 1}", "do_sample"},
                                  {"[]", "no JSON object"},
                                  {"{", "line 1"}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        model_dir_write(directory, "generation_config.json", bad[i][0]);
        assert_fails(model_config_load(directory, &config), COT_ERR_FORMAT, bad[i][1]);
        assert_non_null(strstr(cot_error_text(), "generation_config.json"));
    }
}

static void context(void **state)
{
    (void)state;
    uint32_t tokens = 0;
    load("qwen3", "{\"max_position_embeddings\": 40960}", NULL);
    assert_ok(model_config_context(&config, 0, &tokens));
    assert_int_equal(tokens, 8192);
    assert_ok(model_config_context(&config, 40960, &tokens));
    assert_int_equal(tokens, 40960);
    assert_fails(model_config_context(&config, 40961, &tokens), COT_ERR_LIMIT, "40960");
    load("qwen3", "{\"max_position_embeddings\": 100}", NULL);
    assert_ok(model_config_context(&config, 0, &tokens));
    assert_int_equal(tokens, 100);
}

static void memory_may_run_out(void **state)
{
    (void)state;
    load("qwen3", "{}", NULL);
    model_dir_write(directory, "generation_config.json", "{\"do_sample\": true}");
    size_t live = cot_memory_live_blocks();
    cot_status_t status = COT_ERR_NO_MEMORY;
    for (int64_t spared = 0; status != COT_OK; spared++) {
        assert_int_equal(status, COT_ERR_NO_MEMORY);
        assert_true(spared < 1000);
        cot_memory_fail_after(spared);
        status = model_config_load(directory, &config);
        cot_memory_fail_after(-1);
        assert_int_equal(cot_memory_live_blocks(), live);
    }
}

static int set_up(void **state)
{
    (void)state;
    cot_json_setup();
    temporary_make(directory);
    return 0;
}

/* Each test begins without a generation_config.json. */
static int clean(void **state)
{
    (void)state;
    char path[400];
    model_dir_path(directory, "generation_config.json", path);
    unlink(path);
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
        cmocka_unit_test_setup(qwen3, clean),
        cmocka_unit_test_setup(qwen2, clean),
        cmocka_unit_test_setup(mixtral, clean),
        cmocka_unit_test_setup(olmoe, clean),
        cmocka_unit_test_setup(windows, clean),
        cmocka_unit_test_setup(hub_files_load, clean),
        cmocka_unit_test_setup(both_styles_are_the_same, clean),
        cmocka_unit_test_setup(the_hash_is_of_the_bytes, clean),
        cmocka_unit_test_setup(generation_config_applies, clean),
        cmocka_unit_test_setup(generation_config_is_checked, clean),
        cmocka_unit_test_setup(context, clean),
        cmocka_unit_test_setup(memory_may_run_out, clean),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
