#include "model/names.h"

#include <stdio.h>

bool model_role_in_layer(model_role_t role)
{
    return role != MODEL_EMBED && role != MODEL_FINAL_NORM && role != MODEL_LM_HEAD;
}

bool model_role_of_expert(model_role_t role)
{
    return role == MODEL_EXPERT_GATE || role == MODEL_EXPERT_UP || role == MODEL_EXPERT_DOWN;
}

bool model_role_is_vector(model_role_t role)
{
    switch (role) {
    case MODEL_FINAL_NORM:
    case MODEL_INPUT_NORM:
    case MODEL_POST_NORM:
    case MODEL_Q_BIAS:
    case MODEL_K_BIAS:
    case MODEL_V_BIAS:
    case MODEL_O_BIAS:
    case MODEL_Q_NORM:
    case MODEL_K_NORM: return true;
    default: return false;
    }
}

bool model_role_present(const model_config_t *config, model_role_t role, uint32_t layer)
{
    bool moe = config->layer[layer].moe;
    switch (role) {
    case MODEL_Q_BIAS:
    case MODEL_K_BIAS:
    case MODEL_V_BIAS: return config->qkv_bias;
    case MODEL_O_BIAS: return config->o_bias;
    case MODEL_Q_NORM:
    case MODEL_K_NORM: return config->qk_norm != MODEL_QK_NORM_NONE;
    case MODEL_ROUTER:
    case MODEL_EXPERT_GATE:
    case MODEL_EXPERT_UP:
    case MODEL_EXPERT_DOWN: return moe;
    case MODEL_SHARED_GATE:
    case MODEL_SHARED_UP:
    case MODEL_SHARED_DOWN:
    case MODEL_SHARED_ROUTER: return moe && config->shared_width > 0;
    case MODEL_DENSE_GATE:
    case MODEL_DENSE_UP:
    case MODEL_DENSE_DOWN: return !moe;
    default: return true;
    }
}

/* After "model.layers.L."; experts have a name of their own in between. */
static const char *name_in_layer(const model_config_t *config, model_role_t role)
{
    bool mixtral = config->family == MODEL_MIXTRAL;
    switch (role) {
    case MODEL_INPUT_NORM: return "input_layernorm.weight";
    case MODEL_POST_NORM: return "post_attention_layernorm.weight";
    case MODEL_Q: return "self_attn.q_proj.weight";
    case MODEL_K: return "self_attn.k_proj.weight";
    case MODEL_V: return "self_attn.v_proj.weight";
    case MODEL_O: return "self_attn.o_proj.weight";
    case MODEL_Q_BIAS: return "self_attn.q_proj.bias";
    case MODEL_K_BIAS: return "self_attn.k_proj.bias";
    case MODEL_V_BIAS: return "self_attn.v_proj.bias";
    case MODEL_O_BIAS: return "self_attn.o_proj.bias";
    case MODEL_Q_NORM: return "self_attn.q_norm.weight";
    case MODEL_K_NORM: return "self_attn.k_norm.weight";
    case MODEL_ROUTER: return mixtral ? "block_sparse_moe.gate.weight" : "mlp.gate.weight";
    case MODEL_EXPERT_GATE: return mixtral ? "w1.weight" : "gate_proj.weight";
    case MODEL_EXPERT_UP: return mixtral ? "w3.weight" : "up_proj.weight";
    case MODEL_EXPERT_DOWN: return mixtral ? "w2.weight" : "down_proj.weight";
    case MODEL_SHARED_GATE: return "mlp.shared_expert.gate_proj.weight";
    case MODEL_SHARED_UP: return "mlp.shared_expert.up_proj.weight";
    case MODEL_SHARED_DOWN: return "mlp.shared_expert.down_proj.weight";
    case MODEL_SHARED_ROUTER: return "mlp.shared_expert_gate.weight";
    case MODEL_DENSE_GATE: return "mlp.gate_proj.weight";
    case MODEL_DENSE_UP: return "mlp.up_proj.weight";
    default: return "mlp.down_proj.weight";
    }
}

void model_tensor_name(const model_config_t *config, model_role_t role, uint32_t layer, uint32_t expert,
                       char name[MODEL_NAME_BYTES])
{
    if (role == MODEL_LM_HEAD && config->tie_embeddings) role = MODEL_EMBED;
    if (role == MODEL_EMBED)
        snprintf(name, MODEL_NAME_BYTES, "model.embed_tokens.weight");
    else if (role == MODEL_FINAL_NORM)
        snprintf(name, MODEL_NAME_BYTES, "model.norm.weight");
    else if (role == MODEL_LM_HEAD)
        snprintf(name, MODEL_NAME_BYTES, "lm_head.weight");
    else if (model_role_of_expert(role))
        snprintf(name, MODEL_NAME_BYTES, "model.layers.%u.%s.experts.%u.%s", layer,
                 config->family == MODEL_MIXTRAL ? "block_sparse_moe" : "mlp", expert, name_in_layer(config, role));
    else
        snprintf(name, MODEL_NAME_BYTES, "model.layers.%u.%s", layer, name_in_layer(config, role));
}

void model_tensor_shape(const model_config_t *config, model_role_t role, uint64_t shape[2])
{
    uint64_t hidden = config->hidden, heads = (uint64_t)config->heads * config->head_dim;
    uint64_t kv = (uint64_t)config->kv_heads * config->head_dim, rows = hidden, cols = 1;
    bool whole = config->qk_norm == MODEL_QK_NORM_FULL;
    switch (role) {
    case MODEL_EMBED:
    case MODEL_LM_HEAD: rows = config->vocab, cols = hidden; break;
    case MODEL_Q: rows = heads, cols = hidden; break;
    case MODEL_K:
    case MODEL_V: rows = kv, cols = hidden; break;
    case MODEL_O: cols = heads; break;
    case MODEL_Q_BIAS: rows = heads; break;
    case MODEL_K_BIAS:
    case MODEL_V_BIAS: rows = kv; break;
    case MODEL_Q_NORM: rows = whole ? heads : config->head_dim; break;
    case MODEL_K_NORM: rows = whole ? kv : config->head_dim; break;
    case MODEL_ROUTER: rows = config->experts, cols = hidden; break;
    case MODEL_EXPERT_GATE:
    case MODEL_EXPERT_UP: rows = config->expert_width, cols = hidden; break;
    case MODEL_EXPERT_DOWN: cols = config->expert_width; break;
    case MODEL_SHARED_GATE:
    case MODEL_SHARED_UP: rows = config->shared_width, cols = hidden; break;
    case MODEL_SHARED_DOWN: cols = config->shared_width; break;
    case MODEL_SHARED_ROUTER: rows = 1, cols = hidden; break;
    case MODEL_DENSE_GATE:
    case MODEL_DENSE_UP: rows = config->dense_width, cols = hidden; break;
    case MODEL_DENSE_DOWN: cols = config->dense_width; break;
    default: break; /* norms and the bias of O: [hidden] */
    }
    shape[0] = rows;
    shape[1] = cols;
}
