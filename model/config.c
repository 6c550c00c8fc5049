#include "model/config.h"

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "model/config_keys.h"
#include "model/rope.h"

#include <math.h>
#include <string.h>

#define CONFIG_FILE_MAX ((size_t)4 << 20)

typedef struct {
    const char *architecture;
    model_family_t family;
    /* What an absent key means, as in the family's configuration class of transformers. */
    double rms_norm_eps, rope_theta;
    bool norm_topk, qkv_bias;
    model_qk_norm_t qk_norm;
} family_t;

static const family_t FAMILIES[] = {
    {"MixtralForCausalLM", MODEL_MIXTRAL, 1e-5, 1e6, true, false, MODEL_QK_NORM_NONE},
    {"Qwen2MoeForCausalLM", MODEL_QWEN2_MOE, 1e-6, 1e4, false, true, MODEL_QK_NORM_NONE},
    {"Qwen3MoeForCausalLM", MODEL_QWEN3_MOE, 1e-6, 1e4, false, false, MODEL_QK_NORM_HEAD},
    {"OlmoeForCausalLM", MODEL_OLMOE, 1e-5, 1e4, false, false, MODEL_QK_NORM_FULL},
};

static cot_status_t find_family(const json_t *root, const family_t **family_out)
{
    const json_t *list = json_object_get(root, "architectures");
    const char *name = json_string_value(json_array_get(list, 0));
    if (name == NULL) return cot_fail(COT_ERR_FORMAT, "\"architectures\" names no architecture");
    for (size_t i = 0; i < sizeof(FAMILIES) / sizeof(*FAMILIES); i++) {
        if (strcmp(FAMILIES[i].architecture, name) != 0) continue;
        *family_out = &FAMILIES[i];
        return COT_OK;
    }
    return cot_fail(COT_ERR_UNSUPPORTED,
                    "the architecture %.60s is not supported; Mixtral, Qwen2Moe, Qwen3Moe and Olmoe (…ForCausalLM) are",
                    name);
}

/* ---- sizes ---- */

static cot_status_t need_u32(const json_t *root, const char *key, uint32_t least, uint32_t most, uint32_t *out)
{
    uint64_t value = 0;
    const json_t *given = json_object_get(root, key);
    if (given == NULL || json_is_null(given)) return cot_fail(COT_ERR_FORMAT, "\"%s\" is missing", key);
    COT_TRY(cot_json_get_uint(root, key, UINT32_MAX, &value));
    if (value < least || value > most)
        return cot_fail(COT_ERR_FORMAT, "\"%s\" is %llu; it must be from %u to %u", key, (unsigned long long)value,
                        least, most);
    *out = (uint32_t)value;
    return COT_OK;
}

static bool given(const json_t *root, const char *key)
{
    const json_t *value = json_object_get(root, key);
    return value != NULL && !json_is_null(value);
}

static cot_status_t read_sizes(const json_t *root, model_config_t *config)
{
    COT_TRY(need_u32(root, "num_hidden_layers", 1, MODEL_MAX_LAYERS, &config->layers));
    COT_TRY(need_u32(root, "hidden_size", 1, 1U << 20, &config->hidden));
    COT_TRY(need_u32(root, "num_attention_heads", 1, 4096, &config->heads));
    config->kv_heads = config->heads;
    if (given(root, "num_key_value_heads")) COT_TRY(need_u32(root, "num_key_value_heads", 1, 4096, &config->kv_heads));
    if (config->heads % config->kv_heads != 0)
        return cot_fail(COT_ERR_FORMAT, "\"num_attention_heads\" %u is no multiple of \"num_key_value_heads\" %u",
                        config->heads, config->kv_heads);
    config->head_dim = config->hidden / config->heads;
    if (given(root, "head_dim")) COT_TRY(need_u32(root, "head_dim", 2, MODEL_MAX_HEAD_DIM, &config->head_dim));
    if (config->head_dim < 2 || config->head_dim % 2 != 0 || config->head_dim > MODEL_MAX_HEAD_DIM)
        return cot_fail(COT_ERR_UNSUPPORTED, "heads of %u dimensions; they must be even and from 2 to %d",
                        config->head_dim, MODEL_MAX_HEAD_DIM);
    COT_TRY(need_u32(root, "vocab_size", 1, 1U << 24, &config->vocab));
    return need_u32(root, "max_position_embeddings", 1, MODEL_MAX_CONTEXT, &config->max_context);
}

static cot_status_t read_experts(const json_t *root, model_config_t *config)
{
    bool both = given(root, "num_experts") && given(root, "num_local_experts");
    const char *count = given(root, "num_experts") ? "num_experts" : "num_local_experts";
    COT_TRY(need_u32(root, count, 1, MODEL_MAX_EXPERTS, &config->experts));
    if (both && !json_equal(json_object_get(root, "num_experts"), json_object_get(root, "num_local_experts")))
        return cot_fail(COT_ERR_FORMAT, "\"num_experts\" and \"num_local_experts\" are not the same");
    COT_TRY(need_u32(root, "num_experts_per_tok", 1, MODEL_MAX_EXPERTS, &config->top_k));
    if (config->top_k > config->experts)
        return cot_fail(COT_ERR_FORMAT, "\"num_experts_per_tok\" %u is more than the %u experts", config->top_k,
                        config->experts);
    bool own_width = config->family == MODEL_QWEN2_MOE || config->family == MODEL_QWEN3_MOE;
    COT_TRY(
        need_u32(root, own_width ? "moe_intermediate_size" : "intermediate_size", 1, 1U << 20, &config->expert_width));
    if (config->family == MODEL_QWEN2_MOE)
        COT_TRY(need_u32(root, "shared_expert_intermediate_size", 1, 1U << 20, &config->shared_width));
    return COT_OK;
}

/* ---- which layers are what ---- */

static cot_status_t read_dense_layers(const json_t *root, model_config_t *config)
{
    uint32_t step = 1;
    bool qwen = config->family == MODEL_QWEN2_MOE || config->family == MODEL_QWEN3_MOE, dense = false;
    const json_t *only = json_object_get(root, "mlp_only_layers");
    if (qwen) COT_TRY(cot_json_get_u32(root, "decoder_sparse_step", &step));
    if (step == 0) return cot_fail(COT_ERR_FORMAT, "\"decoder_sparse_step\" must be at least 1");
    if (!model_asks_nothing(only) && !json_is_array(only))
        return cot_fail(COT_ERR_FORMAT, "\"mlp_only_layers\" must be a list of layer numbers");
    for (uint32_t l = 0; l < config->layers; l++) config->layer[l].moe = (l + 1) % step == 0;
    size_t index;
    json_t *value;
    json_array_foreach(only, index, value)
    {
        if (!json_is_integer(value) || json_integer_value(value) < 0)
            return cot_fail(COT_ERR_FORMAT, "\"mlp_only_layers\" must be a list of layer numbers");
        if (json_integer_value(value) < config->layers) config->layer[json_integer_value(value)].moe = false;
    }
    for (uint32_t l = 0; l < config->layers; l++) dense |= !config->layer[l].moe;
    if (model_config_moe_layers(config) == 0)
        return cot_fail(COT_ERR_UNSUPPORTED, "\"decoder_sparse_step\" and \"mlp_only_layers\" leave no layer experts");
    return dense ? need_u32(root, "intermediate_size", 1, 1U << 20, &config->dense_width) : COT_OK;
}

/* transformers 5 writes which layers have the window as a list of layer types. Only Qwen2-MoE follows the list; the
 * others have the window in all layers or none, and a list that says otherwise is refused. */
static cot_status_t read_layer_types(const json_t *types, uint32_t window, model_config_t *config)
{
    if (!json_is_array(types) || json_array_size(types) != config->layers)
        return cot_fail(COT_ERR_FORMAT, "\"layer_types\" must be a list of %u types", config->layers);
    for (uint32_t l = 0; l < config->layers; l++) {
        const char *type = json_string_value(json_array_get(types, l));
        bool sliding = type != NULL && strcmp(type, "sliding_attention") == 0;
        bool known = sliding || (type != NULL && strcmp(type, "full_attention") == 0);
        bool follows = config->family == MODEL_QWEN2_MOE || sliding == (window > 0);
        if (!known || !follows || (sliding && window == 0))
            return cot_fail(COT_ERR_UNSUPPORTED, "\"layer_types\": layer %u is of the type \"%.40s\", which %s", l,
                            type != NULL ? type : "?", known ? "its other settings deny" : "is not supported");
        config->layer[l].window = sliding ? window : 0;
    }
    return COT_OK;
}

static cot_status_t read_windows(const json_t *root, model_config_t *config)
{
    const json_t *types = json_object_get(root, "layer_types");
    uint32_t window = 0, below = 28; /* as Qwen2-MoE's configuration class has it */
    bool use = config->family == MODEL_MIXTRAL;
    COT_TRY(cot_json_get_u32(root, "sliding_window", &window));
    if (!use) COT_TRY(cot_json_get_bool(root, "use_sliding_window", &use));
    if (use && config->family != MODEL_MIXTRAL && !given(root, "sliding_window"))
        return cot_fail(COT_ERR_FORMAT, "\"use_sliding_window\" is true, but \"sliding_window\" is missing");
    if (!use) window = 0;
    if (!model_asks_nothing(types)) return read_layer_types(types, window, config);
    COT_TRY(cot_json_get_u32(root, "max_window_layers", &below));
    bool alternate = config->family == MODEL_QWEN2_MOE; /* there: every other layer below max_window_layers */
    for (uint32_t l = 0; l < config->layers; l++)
        config->layer[l].window = !alternate || (l % 2 == 0 && l < below) ? window : 0;
    return COT_OK;
}

/* ---- the rest ---- */

static cot_status_t read_dtype(const json_t *root, cot_dtype_t *dtype_out)
{
    const char *name = "float32";
    COT_TRY(cot_json_get_string(root, "torch_dtype", &name));
    COT_TRY(cot_json_get_string(root, "dtype", &name));
    if (strcmp(name, "bfloat16") == 0)
        *dtype_out = COT_DTYPE_BF16;
    else if (strcmp(name, "float16") == 0)
        *dtype_out = COT_DTYPE_F16;
    else if (strcmp(name, "float32") == 0)
        *dtype_out = COT_DTYPE_F32;
    else
        return cot_fail(COT_ERR_UNSUPPORTED,
                        "weights of the type \"%.40s\"; bfloat16, float16 and float32 are supported", name);
    return COT_OK;
}

static cot_status_t read_flags(const json_t *root, const family_t *family, model_config_t *config)
{
    const char *activation = "silu";
    double eps = family->rms_norm_eps, clip = 0;
    bool bias = false;
    config->norm_topk = family->norm_topk;
    config->qkv_bias = family->qkv_bias;
    config->qk_norm = family->qk_norm;
    COT_TRY(cot_json_get_string(root, "hidden_act", &activation));
    if (strcmp(activation, "silu") != 0)
        return cot_fail(COT_ERR_UNSUPPORTED, "\"hidden_act\" is \"%.40s\"; only silu is supported", activation);
    COT_TRY(cot_json_get_double(root, "rms_norm_eps", &eps));
    COT_TRY(cot_json_get_bool(root, "tie_word_embeddings", &config->tie_embeddings));
    if (config->family != MODEL_MIXTRAL) COT_TRY(cot_json_get_bool(root, "norm_topk_prob", &config->norm_topk));
    if (config->family == MODEL_QWEN2_MOE) COT_TRY(cot_json_get_bool(root, "qkv_bias", &config->qkv_bias));
    COT_TRY(cot_json_get_bool(root, "attention_bias", &bias));
    if (bias) config->qkv_bias = config->o_bias = true;
    COT_TRY(cot_json_get_double(root, "clip_qkv", &clip));
    if (given(root, "clip_qkv") && config->family == MODEL_OLMOE && !(clip > 0))
        return cot_fail(COT_ERR_FORMAT, "\"clip_qkv\" is %g; it must be above 0, or null", clip);
    if (!(eps > 0 && eps < 1)) return cot_fail(COT_ERR_FORMAT, "\"rms_norm_eps\" must be above 0 and below 1");
    config->norm_eps = (float)eps;
    config->clip_qkv = (float)clip;
    return read_dtype(root, &config->dtype);
}

/* One id or a list of them. */
static cot_status_t read_eos(const json_t *root, model_config_t *config)
{
    const json_t *value = json_object_get(root, "eos_token_id");
    if (value == NULL || json_is_null(value)) return COT_OK;
    size_t count = json_is_array(value) ? json_array_size(value) : 1;
    if (count > MODEL_MAX_EOS) return cot_fail(COT_ERR_LIMIT, "\"eos_token_id\" lists more than %d ids", MODEL_MAX_EOS);
    config->eos_count = 0;
    for (size_t i = 0; i < count; i++) {
        const json_t *id = json_is_array(value) ? json_array_get(value, i) : value;
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= (json_int_t)config->vocab)
            return cot_fail(COT_ERR_FORMAT, "\"eos_token_id\" must be ids below the vocabulary's size, %u",
                            config->vocab);
        config->eos[config->eos_count++] = (int32_t)json_integer_value(id);
    }
    return COT_OK;
}

static cot_status_t read_config(const json_t *root, model_config_t *config)
{
    const family_t *family = NULL;
    if (!json_is_object(root)) return cot_fail(COT_ERR_FORMAT, "is no JSON object");
    COT_TRY(find_family(root, &family));
    COT_TRY(model_config_check_keys(root, family->family));
    config->family = family->family;
    snprintf(config->architecture, sizeof(config->architecture), "%s", family->architecture);
    COT_TRY(read_sizes(root, config));
    COT_TRY(read_experts(root, config));
    COT_TRY(read_dense_layers(root, config));
    COT_TRY(read_windows(root, config));
    COT_TRY(read_flags(root, family, config));
    COT_TRY(model_rope_read(root, family->rope_theta, config));
    return read_eos(root, config);
}

/* ---- generation_config.json ---- */

static cot_status_t read_sampling(const json_t *root, model_config_t *config)
{
    bool sample = false;
    double temperature = 1, top_p = 1, min_p = 0, penalty = 1;
    if (!json_is_object(root)) return cot_fail(COT_ERR_FORMAT, "is no JSON object");
    COT_TRY(read_eos(root, config));
    COT_TRY(cot_json_get_bool(root, "do_sample", &sample));
    COT_TRY(cot_json_get_double(root, "temperature", &temperature));
    COT_TRY(cot_json_get_double(root, "top_p", &top_p));
    COT_TRY(cot_json_get_double(root, "min_p", &min_p));
    COT_TRY(cot_json_get_double(root, "repetition_penalty", &penalty));
    COT_TRY(cot_json_get_u32(root, "top_k", &config->sampling.top_k));
    if (!(temperature >= 0 && temperature <= 100) || !(top_p > 0 && top_p <= 1) || !(min_p >= 0 && min_p <= 1) ||
        !(penalty > 0 && penalty <= 100))
        return cot_fail(COT_ERR_FORMAT, "holds sampling parameters out of range");
    config->sampling.temperature = sample ? (float)temperature : 0;
    config->sampling.top_p = (float)top_p;
    config->sampling.min_p = (float)min_p;
    config->sampling.repetition_penalty = (float)penalty;
    return COT_OK;
}

static cot_status_t load_sampling(const char *directory, model_config_t *config)
{
    char *path = cot_path_join(directory, "generation_config.json");
    json_t *root = NULL;
    if (path == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a path");
    cot_status_t status = cot_json_load_file(path, CONFIG_FILE_MAX, &root);
    if (status == COT_OK) {
        status = read_sampling(root, config);
        if (status != COT_OK) cot_fail_in(status, "%s", path);
        json_decref(root);
    }
    cot_free(path);
    return status == COT_ERR_NOT_FOUND ? COT_OK : status;
}

/* ---- the whole ---- */

static cot_status_t load_config(const char *path, model_config_t *config)
{
    char *text = NULL;
    size_t bytes = 0;
    json_t *root = NULL;
    COT_TRY(cot_file_read(path, CONFIG_FILE_MAX, &text, &bytes));
    cot_status_t status = cot_json_load_bytes(text, bytes, path, &root);
    if (status == COT_OK) {
        cot_sha256_hex(text, bytes, config->sha256);
        status = read_config(root, config);
        if (status != COT_OK) cot_fail_in(status, "%s", path);
        json_decref(root);
    }
    cot_free(text);
    return status;
}

cot_status_t model_config_load(const char *directory, model_config_t *config_out)
{
    model_config_t *config = cot_calloc(1, sizeof(*config));
    char *path = cot_path_join(directory, "config.json");
    cot_status_t status = COT_OK;
    if (config == NULL || path == NULL) status = cot_fail(COT_ERR_NO_MEMORY, "no memory for a configuration");
    if (status == COT_OK) {
        config->sampling.top_p = config->sampling.repetition_penalty = 1;
        status = load_config(path, config);
    }
    if (status == COT_OK) status = load_sampling(directory, config);
    if (status == COT_OK) *config_out = *config;
    cot_free(config);
    cot_free(path);
    return status;
}

uint32_t model_config_moe_layers(const model_config_t *config)
{
    uint32_t layers = 0;
    for (uint32_t l = 0; l < config->layers; l++) layers += config->layer[l].moe;
    return layers;
}

cot_status_t model_config_context(const model_config_t *config, int64_t wanted, uint32_t *context_out)
{
    if (wanted > (int64_t)config->max_context)
        return cot_fail(COT_ERR_LIMIT, "--max-context %lld: the model has %u", (long long)wanted, config->max_context);
    uint32_t most = config->max_context < 8192 ? config->max_context : 8192;
    *context_out = wanted > 0 ? (uint32_t)wanted : most;
    return COT_OK;
}

uint64_t model_config_expert_bytes(const model_config_t *config, size_t bytes_per_weight)
{
    return (uint64_t)3 * config->hidden * config->expert_width * bytes_per_weight;
}
