/* config.json and generation_config.json of a Hugging Face model directory, understood whole or refused by name. */
#ifndef MODEL_CONFIG_H
#define MODEL_CONFIG_H

#include "base/safetensors.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define MODEL_MAX_LAYERS 256
#define MODEL_MAX_HEAD_DIM 512
#define MODEL_MAX_EXPERTS 4096
#define MODEL_MAX_EOS 16
#define MODEL_MAX_CONTEXT (1U << 24)

typedef enum { MODEL_MIXTRAL, MODEL_QWEN2_MOE, MODEL_QWEN3_MOE, MODEL_OLMOE } model_family_t;
typedef enum { MODEL_QK_NORM_NONE, MODEL_QK_NORM_HEAD, MODEL_QK_NORM_FULL } model_qk_norm_t;

typedef struct {
    bool moe;        /* else a dense layer */
    uint32_t window; /* sliding window in tokens; 0: none */
} model_layer_t;

/* Plain data; every field is checked: a kernel may rely on each without looking again. */
typedef struct {
    model_family_t family;
    char architecture[64];
    char sha256[65];   /* of config.json's bytes */
    cot_dtype_t dtype; /* of the checkpoint as config.json states it: BF16, F16 or F32 */
    uint32_t layers, hidden, heads, kv_heads, head_dim, vocab, max_context;
    uint32_t experts, top_k, expert_width;
    uint32_t dense_width;     /* of dense layers; 0: none */
    uint32_t shared_width;    /* of the shared expert; 0: none */
    float norm_eps, clip_qkv; /* clip_qkv 0: none */
    bool norm_topk, tie_embeddings, qkv_bias, o_bias;
    model_qk_norm_t qk_norm;
    double inv_freq[MODEL_MAX_HEAD_DIM / 2]; /* RoPE, after its scaling */
    double rope_factor;                      /* on cos and sin; 1 without YaRN */
    model_layer_t layer[MODEL_MAX_LAYERS];

    uint32_t eos_count;
    int32_t eos[MODEL_MAX_EOS];
    /* Default sampling of generation_config.json; neutral values where it is silent. temperature 0: greedy. */
    struct {
        float temperature, top_p, min_p, repetition_penalty;
        uint32_t top_k;
    } sampling;
} model_config_t;

cot_status_t model_config_load(const char *directory, model_config_t *config_out);
uint32_t model_config_moe_layers(const model_config_t *config);
/* The context to serve: `wanted` tokens, or for 0 the model's own up to 8192. COT_ERR_LIMIT if the model has less. */
cot_status_t model_config_context(const model_config_t *config, int64_t wanted, uint32_t *context_out);
uint64_t model_config_expert_bytes(const model_config_t *config, size_t bytes_per_weight);

#endif
