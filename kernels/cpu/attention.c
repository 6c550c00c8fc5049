/* Attention of one row and key/value head at a time: prefill and decode take the same path, so they give the same bits.
 */
#include "kernels/cpu/cpu_int.h"

#include <math.h>
#include <string.h>

enum { BLOCKS = KERN_ATTN_KEYS / KERN_KV_BLOCK };

typedef struct {
    const kern_t *kern;
    const kern_attention_args_t *args;
} attention_t;

/* Up to KERN_SCORE_HEADS query heads that share a key/value head. Scores are in units of ln 2. */
typedef struct {
    const kern_t *kern;
    const kern_kv_t *kv;
    const uint32_t *blocks;
    uint32_t first_key, end_key; /* the row's window */
    uint32_t kv_head, heads;
    float q[KERN_SCORE_HEADS * KERN_MAX_HEAD_DIM];
    float score[KERN_SCORE_HEADS * KERN_ATTN_KEYS];
    float sum[KERN_SCORE_HEADS * KERN_MAX_HEAD_DIM]; /* of probability times value */
    float max[KERN_SCORE_HEADS], total[KERN_SCORE_HEADS];
} heads_t;

/* 2^exponent of an integer; 0 below the normal numbers, as in the vector code. */
static float power_of_two(float exponent)
{
    return exponent > -127.0f ? ldexpf(1.0f, (int)exponent) : 0.0f;
}

/* The part of KV block `block` (of those in this softmax block) that the row sees. False: nothing. */
static bool visible(const heads_t *heads, uint32_t key_block, uint32_t block, uint32_t *first, uint32_t *last)
{
    const uint32_t begin = key_block * KERN_ATTN_KEYS + block * KERN_KV_BLOCK, end = begin + KERN_KV_BLOCK;
    const uint32_t from = begin > heads->first_key ? begin : heads->first_key;
    const uint32_t to = end < heads->end_key ? end : heads->end_key;
    if (from >= to) return false;
    *first = from - begin;
    *last = to - begin;
    return true;
}

/* Scores of one softmax block; minus infinity for keys out of sight. */
static void score_block(heads_t *heads, uint32_t key_block)
{
    const kern_t *kern = heads->kern;
    const uint32_t head_dim = kern->config.head_dim;
    for (uint32_t b = 0; b < BLOCKS; b++) {
        uint32_t first = KERN_KV_BLOCK, last = KERN_KV_BLOCK;
        if (visible(heads, key_block, b, &first, &last)) {
            const uint32_t block = heads->blocks[key_block * BLOCKS + b];
            const kern_scores_t scores = {.q = heads->q,
                                          .key = kern_keys(kern, heads->kv, block, heads->kv_head),
                                          .heads = heads->heads,
                                          .head_dim = head_dim,
                                          .scale = 0x1.715476p0f / sqrtf((float)head_dim),
                                          .score = heads->score + b * KERN_KV_BLOCK};
            kern->prims->scores(&scores, kern->config.act);
        }
        for (uint32_t h = 0; h < heads->heads; h++) {
            float *score = heads->score + h * KERN_ATTN_KEYS + b * KERN_KV_BLOCK;
            for (uint32_t key = 0; key < first; key++) score[key] = -INFINITY;
            for (uint32_t key = last; key < KERN_KV_BLOCK; key++) score[key] = -INFINITY;
        }
    }
}

/* Moves every head's maximum, then turns its scores into probabilities relative to it. */
static void weigh_block(heads_t *heads)
{
    const kern_t *kern = heads->kern;
    const uint32_t stride = kern_value_stride(kern);
    for (uint32_t h = 0; h < heads->heads; h++) {
        float *score = heads->score + h * KERN_ATTN_KEYS, *sum = heads->sum + h * stride;
        float max = ceilf(kern->prims->max(score));
        if (max > heads->max[h]) {
            float factor = power_of_two(heads->max[h] - max);
            heads->max[h] = max;
            heads->total[h] *= factor;
            for (uint32_t i = 0; i < stride; i++) sum[i] *= factor;
        }
        heads->total[h] += kern->prims->softmax(score, heads->max[h], kern->config.act);
    }
}

static void add_values(heads_t *heads, uint32_t key_block)
{
    const kern_t *kern = heads->kern;
    for (uint32_t b = 0; b < BLOCKS; b++) {
        kern_values_t values = {.p = heads->score + b * KERN_KV_BLOCK,
                                .heads = heads->heads,
                                .stride = kern_value_stride(kern),
                                .sum = heads->sum};
        if (!visible(heads, key_block, b, &values.first, &values.last)) continue;
        values.value = kern_values(kern, heads->kv, heads->blocks[key_block * BLOCKS + b], heads->kv_head);
        kern->prims->values(&values, kern->config.act);
    }
}

/* `q` and `out` are the activations of the first of the heads. */
static void attend(heads_t *heads, const char *q, char *out)
{
    const kern_t *kern = heads->kern;
    const uint32_t head_dim = kern->config.head_dim, stride = kern_value_stride(kern);
    const size_t head_bytes = head_dim * kern_dtype_bytes(kern->config.act);
    if (kern->config.act == KERN_BF16)
        kern->prims->widen(q, heads->heads * head_dim, heads->q);
    else
        memcpy(heads->q, q, heads->heads * head_bytes);
    memset(heads->sum, 0, heads->heads * stride * sizeof(float));
    for (uint32_t h = 0; h < heads->heads; h++) {
        heads->max[h] = -INFINITY;
        heads->total[h] = 0;
    }
    for (uint32_t b = heads->first_key / KERN_ATTN_KEYS; b * KERN_ATTN_KEYS < heads->end_key; b++) {
        score_block(heads, b);
        weigh_block(heads);
        add_values(heads, b);
    }
    for (uint32_t h = 0; h < heads->heads; h++) {
        float *sum = heads->sum + h * stride;
        for (uint32_t d = 0; d < head_dim; d++) sum[d] /= heads->total[h];
        kern->prims->pack(sum, head_dim, kern_act_form(kern), out + h * head_bytes);
    }
}

static void attention_part(void *argument, uint32_t part)
{
    const attention_t *attention = argument;
    const kern_t *kern = attention->kern;
    const kern_config_t *config = &kern->config;
    const uint32_t row = part / config->kv_heads, window = attention->args->weights->window;
    const uint32_t group = config->heads / config->kv_heads;
    const kern_run_t *run = &attention->args->run[kern->row_run[row]];
    const uint32_t position = run->position + row - run->row;
    heads_t heads;
    heads.kern = kern;
    heads.kv = attention->args->kv;
    heads.blocks = run->blocks;
    heads.first_key = window > 0 && position >= window ? position + 1 - window : 0;
    heads.end_key = position + 1;
    heads.kv_head = part % config->kv_heads;
    for (uint32_t h = 0; h < group; h += KERN_SCORE_HEADS) {
        size_t head = (size_t)row * config->heads + heads.kv_head * group + h;
        size_t offset = head * config->head_dim * kern_dtype_bytes(config->act);
        heads.heads = group - h < KERN_SCORE_HEADS ? group - h : KERN_SCORE_HEADS;
        attend(&heads, (const char *)attention->args->q + offset, (char *)attention->args->out + offset);
    }
}

cot_status_t kern_cpu_attention(kern_t *kern, const kern_attention_args_t *args)
{
    attention_t attention = {.kern = kern, .args = args};
    kern_list_runs(kern, args->run, args->runs, args->rows);
    uint64_t keys = 0;
    for (uint32_t r = 0; r < args->runs; r++)
        keys += (uint64_t)args->run[r].rows * (args->run[r].position + args->run[r].rows);
    const uint32_t parts = args->rows * kern->config.kv_heads;
    const uint64_t work = 2 * keys * kern->config.heads * kern->config.head_dim;
    kern_spread(kern, parts, parts > 0 ? work / parts : 0, attention_part, &attention);
    return COT_OK;
}
