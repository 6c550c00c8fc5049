/* What config.json may not say: one sentence each, with the file and the key. */
#include "tests/model/model_dir.h"

static char directory[256];
static model_config_t config;

typedef struct {
    const char *fixture, *patch, *drop;
    cot_status_t status;
    const char *words;
} refusal_t;

static void refuse(const refusal_t *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        model_dir_config(list[i].fixture, list[i].patch, list[i].drop, directory);
        print_message("%s %s\n", list[i].fixture, list[i].patch);
        memset(&config, 0x5a, sizeof(config));
        assert_fails(model_config_load(directory, &config), list[i].status, list[i].words);
        assert_non_null(strstr(cot_error_text(), "config.json"));
        assert_int_equal(config.layers, 0x5a5a5a5a); /* outputs are written last */
    }
}

static void unknown_settings(void **state)
{
    (void)state;
    const cot_status_t no = COT_ERR_UNSUPPORTED;
    const refusal_t list[] = {
        {"qwen3", "{\"architectures\": [\"DeepseekV3ForCausalLM\"]}", NULL, no, "DeepseekV3ForCausalLM"},
        {"qwen3", "{\"architectures\": []}", NULL, COT_ERR_FORMAT, "architectures"},
        {"qwen3", "{\"architectures\": \"Qwen3MoeForCausalLM\"}", NULL, COT_ERR_FORMAT, "architectures"},
        {"qwen3", "{}", "architectures", COT_ERR_FORMAT, "architectures"},
        {"qwen3", "{\"quantization_config\": {\"quant_method\": \"fp8\"}}", NULL, no, "quantization_config"},
        {"qwen3", "{\"final_logit_softcapping\": 30.0}", NULL, no, "final_logit_softcapping"},
        {"qwen3", "{\"routed_scaling_factor\": 2.5}", NULL, no, "routed_scaling_factor"},
        {"qwen3", "{\"auto_map\": {\"AutoModel\": \"m.M\"}}", NULL, no, "auto_map"},
        {"qwen3", "{\"hidden_act\": \"gelu\"}", NULL, no, "gelu"},
        {"qwen3", "{\"dtype\": \"float8_e4m3fn\"}", NULL, no, "float8_e4m3fn"},
    };
    refuse(list, sizeof(list) / sizeof(*list));
}

/* A key that transformers reads for another family only: following it and ignoring it would both be wrong. */
static void settings_of_other_families(void **state)
{
    (void)state;
    const cot_status_t no = COT_ERR_UNSUPPORTED;
    const refusal_t list[] = {
        {"qwen3", "{\"qkv_bias\": true}", NULL, no, "qkv_bias"},
        {"qwen3", "{\"clip_qkv\": 8}", NULL, no, "clip_qkv"},
        {"qwen3", "{\"shared_expert_intermediate_size\": 64}", NULL, no, "shared_expert_intermediate_size"},
        {"qwen3", "{\"use_qk_norm\": false}", NULL, no, "use_qk_norm"},
        {"qwen2", "{\"use_qk_norm\": true}", NULL, no, "use_qk_norm"},
        {"qwen2", "{\"attention_bias\": true}", NULL, no, "attention_bias"},
        {"qwen2", "{\"clip_qkv\": 8}", NULL, no, "clip_qkv"},
        {"mixtral", "{\"attention_bias\": true}", NULL, no, "attention_bias"},
        {"mixtral", "{\"norm_topk_prob\": false}", NULL, no, "norm_topk_prob"},
        {"mixtral", "{\"mlp_only_layers\": [0]}", NULL, no, "mlp_only_layers"},
        {"mixtral", "{\"decoder_sparse_step\": 2}", NULL, no, "decoder_sparse_step"},
        {"mixtral", "{\"moe_intermediate_size\": 16}", NULL, no, "moe_intermediate_size"},
        {"mixtral", "{\"sliding_window\": 16, \"use_sliding_window\": false}", NULL, no, "use_sliding_window"},
        {"olmoe", "{\"sliding_window\": 16}", NULL, no, "sliding_window"},
        {"olmoe", "{\"qkv_bias\": true}", NULL, no, "qkv_bias"},
        {"olmoe", "{\"mlp_only_layers\": [0]}", NULL, no, "mlp_only_layers"},
    };
    refuse(list, sizeof(list) / sizeof(*list));
}

static void sizes(void **state)
{
    (void)state;
    const cot_status_t bad = COT_ERR_FORMAT;
    const refusal_t list[] = {
        {"qwen3", "{\"num_hidden_layers\": 0}", NULL, bad, "num_hidden_layers"},
        {"qwen3", "{\"num_hidden_layers\": 257}", NULL, bad, "num_hidden_layers"},
        {"qwen3", "{\"num_hidden_layers\": -1}", NULL, bad, "num_hidden_layers"},
        {"qwen3", "{\"num_hidden_layers\": 2.5}", NULL, bad, "num_hidden_layers"},
        {"qwen3", "{\"hidden_size\": \"32\"}", NULL, bad, "hidden_size"},
        {"qwen3", "{}", "hidden_size", bad, "\"hidden_size\" is missing"},
        {"qwen3", "{\"hidden_size\": 99999999999}", NULL, bad, "hidden_size"},
        {"qwen3", "{\"vocab_size\": null}", NULL, bad, "\"vocab_size\" is missing"},
        {"qwen3", "{\"num_key_value_heads\": 3}", NULL, bad, "multiple"},
        {"qwen3", "{\"head_dim\": 15}", NULL, COT_ERR_UNSUPPORTED, "even"},
        {"qwen3", "{\"head_dim\": 1024}", NULL, bad, "head_dim"},
        {"olmoe", "{\"hidden_size\": 36}", NULL, COT_ERR_UNSUPPORTED, "even"},
        {"qwen3", "{\"max_position_embeddings\": 0}", NULL, bad, "max_position_embeddings"},
        {"qwen3", "{\"num_experts_per_tok\": 9}", NULL, bad, "num_experts_per_tok"},
        {"qwen3", "{\"num_experts_per_tok\": 0}", NULL, bad, "num_experts_per_tok"},
        {"qwen3", "{}", "num_local_experts", bad, "num_local_experts"},
        {"qwen3", "{\"num_experts\": 4}", NULL, bad, "not the same"},
        {"qwen3", "{\"moe_intermediate_size\": 0}", NULL, bad, "moe_intermediate_size"},
        {"qwen2", "{}", "shared_expert_intermediate_size", bad, "shared_expert_intermediate_size"},
        {"qwen3", "{\"rms_norm_eps\": 0}", NULL, bad, "rms_norm_eps"},
        {"qwen3", "{\"tie_word_embeddings\": 1}", NULL, bad, "tie_word_embeddings"},
        {"olmoe", "{\"clip_qkv\": -1}", NULL, bad, "clip_qkv"},
        {"olmoe", "{\"clip_qkv\": 0}", NULL, bad, "clip_qkv"},
        {"qwen3", "{\"eos_token_id\": 131}", NULL, bad, "eos_token_id"},
        {"qwen3", "{\"eos_token_id\": [0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]}", NULL, COT_ERR_LIMIT,
         "eos_token_id"},
    };
    refuse(list, sizeof(list) / sizeof(*list));
}

static void layers(void **state)
{
    (void)state;
    const cot_status_t bad = COT_ERR_FORMAT, no = COT_ERR_UNSUPPORTED;
    const refusal_t list[] = {
        {"qwen3", "{\"decoder_sparse_step\": 0}", NULL, bad, "decoder_sparse_step"},
        {"qwen3", "{\"mlp_only_layers\": [-1]}", NULL, bad, "mlp_only_layers"},
        {"qwen3", "{\"mlp_only_layers\": 1}", NULL, bad, "mlp_only_layers"},
        {"qwen3", "{\"mlp_only_layers\": [0, 1]}", NULL, no, "no layer experts"},
        {"qwen3", "{\"decoder_sparse_step\": 3}", NULL, no, "no layer experts"},
        {"qwen3", "{\"mlp_only_layers\": [0]}", "intermediate_size", bad, "intermediate_size"},
        {"qwen3", "{\"use_sliding_window\": true}", NULL, bad, "sliding_window"},
        {"qwen3", "{\"use_sliding_window\": 1}", NULL, bad, "use_sliding_window"},
        {"qwen3", "{\"layer_types\": [\"sliding_attention\", \"full_attention\"]}", NULL, no, "layer_types"},
        {"qwen2-window", "{\"layer_types\": [\"full_attention\"]}", NULL, bad, "list of 3"},
        {"qwen2-window", "{\"layer_types\": \"full_attention\"}", NULL, bad, "list of 3"},
        {"qwen2-window", "{\"layer_types\": [\"full_attention\", \"linear_attention\", 1]}", NULL, no,
         "linear_attention"},
        {"qwen2-window", "{\"use_sliding_window\": false}", NULL, no, "layer_types"},
    };
    refuse(list, sizeof(list) / sizeof(*list));
}

static void files(void **state)
{
    (void)state;
    assert_fails(model_config_load("/nonexistent", &config), COT_ERR_NOT_FOUND, "/nonexistent/config.json");
    model_dir_write(directory, "config.json", "{\"architectures\": [");
    assert_fails(model_config_load(directory, &config), COT_ERR_FORMAT, "line 1");
    model_dir_write(directory, "config.json", "{\"vocab_size\": 1, \"vocab_size\": 2}");
    assert_fails(model_config_load(directory, &config), COT_ERR_FORMAT, "duplicate");
    model_dir_write(directory, "config.json", "[]");
    assert_fails(model_config_load(directory, &config), COT_ERR_FORMAT, "no JSON object");
    model_dir_write(directory, "config.json", "");
    assert_fails(model_config_load(directory, &config), COT_ERR_FORMAT, "config.json");
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(unknown_settings), cmocka_unit_test(settings_of_other_families),
                                       cmocka_unit_test(sizes), cmocka_unit_test(layers), cmocka_unit_test(files)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
