#include "tests/temporary.h"

#include "base/json.h"
#include "placement/model.h"

static place_model_t *parse(const char *text)
{
    place_model_t *model = NULL;
    assert_ok(place_model_parse(text, strlen(text), &model));
    return model;
}

static void refuses(const char *text, const char *words)
{
    place_model_t *model = NULL;
    assert_fails(place_model_parse(text, strlen(text), &model), COT_ERR_FORMAT, words);
    assert_null(model);
}

static void every_layer_of_mixtral_has_experts(void **state)
{
    (void)state;
    place_model_t *model = parse("{\"num_local_experts\": 8, \"num_experts_per_tok\": 2, \"hidden_size\": 4096, "
                                 "\"intermediate_size\": 14336, \"num_hidden_layers\": 3, \"torch_dtype\": "
                                 "\"bfloat16\"}");
    assert_int_equal(model->experts, 8);
    assert_int_equal(model->top_k, 2);
    assert_int_equal(model->layers, 3);
    assert_int_equal(model->layer_index[2], 2);
    assert_int_equal(model->row_bytes, 8192);
    assert_int_equal(model->expert_bytes, 352321536); /* 3 x 4096 x 14336 x 2 */
    place_model_destroy(model);
}

static void dense_layers_of_qwen_and_deepseek_are_left_out(void **state)
{
    (void)state;
    place_model_t *model = parse("{\"num_experts\": 4, \"num_experts_per_tok\": 1, \"hidden_size\": 8, "
                                 "\"intermediate_size\": 99, \"moe_intermediate_size\": 2, \"num_hidden_layers\": 8, "
                                 "\"decoder_sparse_step\": 2, \"mlp_only_layers\": [3], \"dtype\": \"float32\"}");
    const uint32_t qwen[] = {1, 5, 7};
    assert_int_equal(model->layers, 3);
    assert_memory_equal(model->layer_index, qwen, sizeof(qwen));
    assert_int_equal(model->expert_bytes, 192);
    place_model_destroy(model);
    model = parse("{\"n_routed_experts\": 64, \"num_experts_per_tok\": 6, \"hidden_size\": 8, "
                  "\"moe_intermediate_size\": 2, \"num_hidden_layers\": 4, \"first_k_dense_replace\": 1, "
                  "\"moe_layer_freq\": 1}");
    const uint32_t deepseek[] = {1, 2, 3};
    assert_int_equal(model->layers, 3);
    assert_memory_equal(model->layer_index, deepseek, sizeof(deepseek));
    place_model_destroy(model);
}

static void bad_models_are_refused(void **state)
{
    (void)state;
#define REST "\"hidden_size\": 8, \"intermediate_size\": 8, \"num_hidden_layers\": 1"
    refuses("{" REST "}", "num_experts");
    refuses("{\"num_experts\": 4, " REST "}", "num_experts_per_tok");
    refuses("{\"num_experts\": 4, \"num_experts_per_tok\": 5, " REST "}", "num_experts_per_tok");
    refuses("{\"num_experts\": 4, \"num_experts_per_tok\": 1, \"mlp_only_layers\": [0], " REST "}", "no layer");
    refuses("{\"num_experts\": 4, \"num_experts_per_tok\": 1, \"decoder_sparse_step\": 0, " REST "}", "at least 1");
    refuses("[1", "line 1");
#undef REST
    place_model_t *model = NULL;
    assert_fails(place_model_load("/nonexistent", &model), COT_ERR_NOT_FOUND, "/nonexistent");
}

static void a_directory_gives_the_name(void **state)
{
    (void)state;
    place_model_t *model = NULL;
    assert_ok(place_model_load(COTERIE_SOURCE_DIR "/tests/fixtures/models/qwen2-window/", &model));
    assert_string_equal(model->name, "qwen2-window");
    assert_int_equal(model->experts, 6);
    assert_int_equal(strlen(model->sha256), 64);
    place_model_destroy(model);
}

static void another_model_is_told_apart(void **state)
{
    (void)state;
    place_model_t *model = parse("{\"num_experts\": 4, \"num_experts_per_tok\": 2, \"hidden_size\": 8, "
                                 "\"intermediate_size\": 8, \"num_hidden_layers\": 2}");
    const uint32_t layers[] = {0, 1}, others[] = {0, 2};
    assert_ok(place_model_check(model, 4, 2, 2, layers));
    assert_ok(place_model_check(model, 4, 0, 2, NULL));
    assert_fails(place_model_check(model, 5, 2, 2, layers), COT_ERR_MISMATCH, "5 experts");
    assert_fails(place_model_check(model, 4, 1, 2, layers), COT_ERR_MISMATCH, "1 experts a token");
    assert_fails(place_model_check(model, 4, 2, 3, NULL), COT_ERR_MISMATCH, "3 MoE layers");
    assert_fails(place_model_check(model, 4, 2, 2, others), COT_ERR_MISMATCH, "layer 2");
    place_model_destroy(model);
}

int main(void)
{
    cot_json_setup();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layer_of_mixtral_has_experts),
        cmocka_unit_test(dense_layers_of_qwen_and_deepseek_are_left_out),
        cmocka_unit_test(bad_models_are_refused),
        cmocka_unit_test(a_directory_gives_the_name),
        cmocka_unit_test(another_model_is_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
