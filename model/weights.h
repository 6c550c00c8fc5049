/* The tensors of a model directory, mapped; or made up from a seed (`--load-format dummy`). */
#ifndef MODEL_WEIGHTS_H
#define MODEL_WEIGHTS_H

#include "base/safetensors.h"
#include "model/config.h"

/* Owns the mappings (or the made-up tensors handed out so far). Reading is thread-safe. `config` is borrowed. */
typedef struct model_weights model_weights_t;

/* Opens model.safetensors or model.safetensors.index.json's shards: headers only, no tensor is touched. */
cot_status_t model_weights_open(const char *directory, const model_config_t *config, model_weights_t **weights_out);
/* Every tensor's values are a function of (seed, name, index) alone, so that any rank makes the same; bf16. */
cot_status_t model_weights_dummy(const model_config_t *config, uint64_t seed, model_weights_t **weights_out);
void model_weights_close(model_weights_t *weights);

/* Which tensor of the architecture, by role; names are the family's own. layer and expert where the role has them. */
/* clang-format off */
#define MODEL_ROLE_MAP(X) \
    X(EMBED) X(FINAL_NORM) X(LM_HEAD) X(INPUT_NORM) X(POST_NORM) X(Q) X(K) X(V) X(O) X(Q_BIAS) X(K_BIAS) X(V_BIAS) \
    X(O_BIAS) X(Q_NORM) X(K_NORM) X(ROUTER) X(EXPERT_GATE) X(EXPERT_UP) X(EXPERT_DOWN) X(SHARED_GATE) X(SHARED_UP) \
    X(SHARED_DOWN) X(SHARED_ROUTER) X(DENSE_GATE) X(DENSE_UP) X(DENSE_DOWN)
/* clang-format on */
typedef enum {
#define X(name) MODEL_##name,
    MODEL_ROLE_MAP(X)
#undef X
} model_role_t;

/* A tensor, its shape checked against the configuration. Tied embeddings: LM_HEAD is EMBED. Touches no page of a
 * mapped file. Dummy tensors are made at the first call and live as long as `weights`. */
cot_status_t model_weights_get(model_weights_t *weights, model_role_t role, uint32_t layer, uint32_t expert,
                               cot_tensor_t *tensor_out);

/* Shape ([n, 1] for a vector) and stored dtype of a tensor, without making or touching it: what loading would take. */
cot_status_t model_weights_shape(const model_weights_t *weights, model_role_t role, uint32_t layer, uint32_t expert,
                                 uint64_t shape_out[2], cot_dtype_t *dtype_out);

/* Made-up weights only: the values of a matrix, in bf16, into memory of the caller's, `weights` keeping none of it. */
bool model_weights_made_up(const model_weights_t *weights);
void model_weights_make(const model_weights_t *weights, model_role_t role, uint32_t layer, uint32_t expert,
                        uint16_t *out);

/* Whether the architecture has this tensor (a bias, a q/k norm, a dense layer …). */
bool model_role_present(const model_config_t *config, model_role_t role, uint32_t layer);

/* Bytes of mapped tensors handed out so far: a worker that owns few experts stays small. */
uint64_t model_weights_bytes(const model_weights_t *weights);

#endif
