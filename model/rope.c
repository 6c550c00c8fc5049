#include "model/rope.h"

#include "model/config_keys.h"

#include <math.h>
#include <string.h>

typedef struct {
    const char *type;
    double theta, factor, beta_fast, beta_slow, attention_factor, mscale, mscale_all_dim, original_context;
    bool truncate;
} rope_t;

static const char *const KEYS[] = {
    "type",      "rope_type",        "rope_theta", "factor",         "beta_fast",
    "beta_slow", "attention_factor", "mscale",     "mscale_all_dim", "original_max_position_embeddings",
    "truncate"};

static cot_status_t check_keys(const json_t *scaling)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)scaling, key, value)
    {
        bool known = json_is_null(value);
        for (size_t i = 0; i < sizeof(KEYS) / sizeof(*KEYS); i++) known |= strcmp(key, KEYS[i]) == 0;
        if (strcmp(key, "partial_rotary_factor") == 0) known = json_number_value(value) == 1;
        if (!known) return cot_fail(COT_ERR_UNSUPPORTED, "rope scaling: \"%.40s\" is not supported", key);
    }
    return COT_OK;
}

static cot_status_t read_scaling(const json_t *scaling, rope_t *rope)
{
    if (scaling == NULL || json_is_null(scaling)) return COT_OK;
    if (!json_is_object(scaling)) return cot_fail(COT_ERR_FORMAT, "the rope scaling must be an object");
    COT_TRY(check_keys(scaling));
    COT_TRY(cot_json_get_string(scaling, "type", &rope->type));
    COT_TRY(cot_json_get_string(scaling, "rope_type", &rope->type));
    COT_TRY(cot_json_get_double(scaling, "rope_theta", &rope->theta));
    COT_TRY(cot_json_get_double(scaling, "factor", &rope->factor));
    COT_TRY(cot_json_get_double(scaling, "beta_fast", &rope->beta_fast));
    COT_TRY(cot_json_get_double(scaling, "beta_slow", &rope->beta_slow));
    COT_TRY(cot_json_get_double(scaling, "attention_factor", &rope->attention_factor));
    COT_TRY(cot_json_get_double(scaling, "mscale", &rope->mscale));
    COT_TRY(cot_json_get_double(scaling, "mscale_all_dim", &rope->mscale_all_dim));
    COT_TRY(cot_json_get_double(scaling, "original_max_position_embeddings", &rope->original_context));
    return cot_json_get_bool(scaling, "truncate", &rope->truncate);
}

static void fill_plain(const rope_t *rope, double divisor, model_config_t *config)
{
    for (uint32_t i = 0; i < config->head_dim / 2; i++)
        config->inv_freq[i] = 1 / (divisor * pow(rope->theta, 2.0 * i / config->head_dim));
    config->rope_factor = 1;
}

/* The dimension whose wave turns `rotations` times over the original context. */
static double correction_dim(const rope_t *rope, double rotations, double dim)
{
    return dim * log(rope->original_context / (rotations * 2 * M_PI)) / (2 * log(rope->theta));
}

static double yarn_scale(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

/* YaRN (arXiv 2309.00071): slow waves are interpolated, fast ones kept, with a ramp between. */
static void fill_yarn(const rope_t *rope, model_config_t *config)
{
    double dim = config->head_dim;
    double low = correction_dim(rope, rope->beta_fast, dim), high = correction_dim(rope, rope->beta_slow, dim);
    if (rope->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, dim - 1);
    if (low == high) high += 0.001;
    for (uint32_t i = 0; i < config->head_dim / 2; i++) {
        double wave = pow(rope->theta, 2.0 * i / dim);
        double ramp = fmin(fmax(((double)i - low) / (high - low), 0), 1);
        config->inv_freq[i] = ramp / (rope->factor * wave) + (1 - ramp) / wave;
    }
    config->rope_factor = rope->attention_factor;
    if (!isnan(rope->attention_factor)) return;
    config->rope_factor = rope->mscale != 0 && rope->mscale_all_dim != 0
                              ? yarn_scale(rope->factor, rope->mscale) / yarn_scale(rope->factor, rope->mscale_all_dim)
                              : yarn_scale(rope->factor, 1);
}

cot_status_t model_rope_read(const json_t *root, double theta, model_config_t *config)
{
    rope_t rope = {
        .type = "default", .theta = theta, .beta_fast = 32, .beta_slow = 1, .attention_factor = NAN, .truncate = true};
    rope.original_context = config->max_context;
    COT_TRY(cot_json_get_double(root, "rope_theta", &rope.theta));
    const json_t *scaling = json_object_get(root, "rope_scaling"),
                 *parameters = json_object_get(root, "rope_parameters");
    if (!model_asks_nothing(scaling) && !model_asks_nothing(parameters))
        return cot_fail(COT_ERR_FORMAT, "\"rope_scaling\" and \"rope_parameters\" are both given; keep one");
    COT_TRY(read_scaling(scaling, &rope));
    COT_TRY(read_scaling(parameters, &rope));
    if (!(rope.theta > 1 && rope.theta < 1e12)) return cot_fail(COT_ERR_FORMAT, "\"rope_theta\" must be above 1");
    if (strcmp(rope.type, "default") == 0) {
        fill_plain(&rope, 1, config);
        return COT_OK;
    }
    bool yarn = strcmp(rope.type, "yarn") == 0;
    if (!yarn && strcmp(rope.type, "linear") != 0)
        return cot_fail(COT_ERR_UNSUPPORTED,
                        "rope scaling of the type \"%.40s\"; default, linear and yarn are supported", rope.type);
    if (yarn && rope.factor == 0) rope.factor = config->max_context / rope.original_context;
    if (!(rope.factor >= 1 && rope.factor <= 1e6))
        return cot_fail(COT_ERR_FORMAT, "rope scaling: \"factor\" must be at least 1");
    if (!(rope.original_context > 0 && rope.beta_fast > 0 && rope.beta_slow > 0 && !(rope.attention_factor <= 0)))
        return cot_fail(COT_ERR_FORMAT, "rope scaling: a parameter is out of range");
    if (!yarn) {
        fill_plain(&rope, rope.factor, config);
        return COT_OK;
    }
    fill_yarn(&rope, config);
    /* Qwen3's model cards switch YaRN on and leave max_position_embeddings as it was. */
    double stretched = rope.factor * rope.original_context;
    if (stretched > config->max_context) config->max_context = (uint32_t)fmin(stretched, MODEL_MAX_CONTEXT);
    return COT_OK;
}
