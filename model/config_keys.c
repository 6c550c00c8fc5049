#include "model/config_keys.h"

#include <string.h>

#define OF(family) (1U << (family))
#define MIXTRAL OF(MODEL_MIXTRAL)
#define QWEN2 OF(MODEL_QWEN2_MOE)
#define QWEN3 OF(MODEL_QWEN3_MOE)
#define OLMOE OF(MODEL_OLMOE)
#define ALL (MIXTRAL | QWEN2 | QWEN3 | OLMOE)

/* Keys that are read, and the families whose model follows them in transformers. */
static const struct {
    const char *key;
    unsigned families;
} UNDERSTOOD[] = {
    {"architectures", ALL},
    {"attention_bias", QWEN3 | OLMOE},
    {"clip_qkv", OLMOE},
    {"decoder_sparse_step", QWEN2 | QWEN3},
    {"dtype", ALL},
    {"eos_token_id", ALL},
    {"head_dim", ALL},
    {"hidden_act", ALL},
    {"hidden_size", ALL},
    {"intermediate_size", ALL},
    {"layer_types", ALL},
    {"max_position_embeddings", ALL},
    {"max_window_layers", QWEN2},
    {"mlp_only_layers", QWEN2 | QWEN3},
    {"moe_intermediate_size", QWEN2 | QWEN3},
    {"norm_topk_prob", QWEN2 | QWEN3 | OLMOE},
    {"num_attention_heads", ALL},
    {"num_experts", ALL},
    {"num_experts_per_tok", ALL},
    {"num_hidden_layers", ALL},
    {"num_key_value_heads", ALL},
    {"num_local_experts", ALL},
    {"qkv_bias", QWEN2},
    {"rms_norm_eps", ALL},
    {"rope_parameters", ALL},
    {"rope_scaling", ALL},
    {"rope_theta", ALL},
    {"shared_expert_intermediate_size", QWEN2},
    {"sliding_window", MIXTRAL | QWEN2 | QWEN3},
    {"tie_word_embeddings", ALL},
    {"torch_dtype", ALL},
    {"use_sliding_window", QWEN2 | QWEN3},
    {"vocab_size", ALL},
};

/* Keys that change nothing at inference, whatever they say. */
static const char *const HARMLESS[] = {
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_name_or_path",
    "attention_dropout",
    "bos_token_id",
    "chunk_size_feed_forward",
    "decoder_start_token_id",
    "finetuning_task",
    "id2label",
    "initializer_range",
    "is_encoder_decoder",
    "label2id",
    "model_type",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "pad_token_id",
    "problem_type",
    "return_dict",
    "sep_token_id",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "task_specific_params",
    "tokenizer_class",
    "torchscript",
    "transformers_version",
    "use_cache",
    "unk_token_id",
};

bool model_asks_nothing(const json_t *value)
{
    return value == NULL || json_is_null(value) || json_is_false(value) ||
           (json_is_number(value) && json_number_value(value) == 0) ||
           (json_is_string(value) && json_string_length(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0);
}

static bool is_harmless(const char *key)
{
    for (size_t i = 0; i < sizeof(HARMLESS) / sizeof(*HARMLESS); i++)
        if (strcmp(HARMLESS[i], key) == 0) return true;
    return false;
}

static bool is_read(const char *key, model_family_t family)
{
    for (size_t i = 0; i < sizeof(UNDERSTOOD) / sizeof(*UNDERSTOOD); i++)
        if (strcmp(UNDERSTOOD[i].key, key) == 0) return (UNDERSTOOD[i].families & OF(family)) != 0;
    return false;
}

/* Keys of other families that hub checkpoints carry along, saying what this family does anyway. */
static bool says_the_usual(const char *key, const json_t *value, model_family_t family)
{
    if (strcmp(key, "norm_topk_prob") == 0) return json_is_true(value);
    if (strcmp(key, "decoder_sparse_step") == 0) return json_integer_value(value) == 1;
    if (strcmp(key, "partial_rotary_factor") == 0) return json_number_value(value) == 1;
    if (strcmp(key, "max_window_layers") == 0) return family == MODEL_QWEN3_MOE; /* windows all layers or none */
    if (strcmp(key, "use_qk_norm") == 0) return json_is_true(value) && (OF(family) & (QWEN3 | OLMOE)) != 0;
    return false;
}

/* A window that is switched off, where the family has none anyway. */
static bool is_window_off(const json_t *root, const char *key)
{
    return strcmp(key, "sliding_window") == 0 && json_is_false(json_object_get(root, "use_sliding_window"));
}

/* false is no silence where the family does what the key denies. */
static bool denies_the_usual(const char *key, const json_t *value, model_family_t family)
{
    if (!json_is_false(value)) return false;
    if (strcmp(key, "use_qk_norm") == 0) return (OF(family) & (QWEN3 | OLMOE)) != 0;
    return strcmp(key, "norm_topk_prob") == 0 && family == MODEL_MIXTRAL;
}

cot_status_t model_config_check_keys(const json_t *root, model_family_t family)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)root, key, value)
    {
        if (is_read(key, family) || is_harmless(key) || is_window_off(root, key)) continue;
        if (!denies_the_usual(key, value, family) && (model_asks_nothing(value) || says_the_usual(key, value, family)))
            continue;
        return cot_fail(COT_ERR_UNSUPPORTED,
                        "\"%.60s\" is set, which may change the mathematics and is not supported for this architecture",
                        key);
    }
    if (family == MODEL_MIXTRAL && json_is_false(json_object_get(root, "use_sliding_window")) &&
        !model_asks_nothing(json_object_get(root, "sliding_window")))
        return cot_fail(COT_ERR_UNSUPPORTED,
                        "\"use_sliding_window\" is false, which Mixtral does not know; say \"sliding_window\": null");
    return COT_OK;
}
