/* Every stage of the cpu backend against the reference, for every instruction set, both activation types and odd
 * shapes.
 *
 * Both get the same bits in, so that a bound can be derived for each stage alone:
 *   - a sum of n products in fp32 is off by at most (n / 4 + 8) u times the sum of their magnitudes, u = 2^-24: the
 *     narrowest vectors have 4 lanes, each adds n / 4 terms (twice that many roundings where the multiplication rounds
 *     too, hence the factor 2 below), then comes the tree;
 *   - a value off by d before it is rounded to bf16 is off by at most d + 2^-7 of its size after it (two roundings of
 *     half a place each). That seldom happens: where d is far below a place, nearly all results must be equal, and
 *     `unequal` bounds the share of those that are not. It is not derived: it is 5 to 50 times the share measured on a
 *     Zen 4. It is this that shows a rounding point at the wrong place;
 *   - those bounds are of the worst case. Roundings are independent, so the root of the mean square of the differences
 *     must be within TYPICAL of that of the values, if the array is not rounded to bf16. */
#include "kernels/cpu/cpu_int.h"
#include "tests/kernels/world.h"

#include <math.h>

static const double U = 0x1p-24, TYPICAL = 0x1p-20;

static double sum_error(size_t terms, double magnitude)
{
    return 2 * ((double)terms / 4 + 8) * U * magnitude;
}

typedef struct {
    const char *stage;
    const shape_t *shape;
    kern_isa_t isa;
    kern_dtype_t act;
    session_t ref, cpu;
    uint64_t random;
} bench_t;

typedef struct {
    double error;   /* of an element, before it is rounded */
    double unequal; /* share of elements, if the array is bf16 */
} bound_t;

typedef struct {
    const char *what;
    kern_dtype_t dtype;
    size_t count;
} array_t;

static double element(kern_dtype_t dtype, const void *data, size_t i)
{
    return dtype == KERN_BF16 ? kern_bf16_to_float(((const uint16_t *)data)[i]) : ((const float *)data)[i];
}

static void put(kern_dtype_t dtype, void *data, size_t i, double value)
{
    if (dtype == KERN_BF16)
        ((uint16_t *)data)[i] = kern_float_to_bf16((float)value);
    else
        ((float *)data)[i] = (float)value;
}

static void assert_near(const bench_t *bench, const array_t *array, const void *got, const void *want, bound_t bound)
{
    size_t unequal = 0;
    double difference = 0, size = 0;
    for (size_t i = 0; i < array->count; i++) {
        double g = element(array->dtype, got, i), w = element(array->dtype, want, i);
        double most = bound.error + fabs(w) * (array->dtype == KERN_BF16 ? 0x1p-7 : 0x1p-23);
        unequal += g != w;
        difference += (g - w) * (g - w);
        size += w * w;
        if (!(fabs(g - w) <= most))
            fail_msg("%s %s, %s, shape %s, act %s: element %zu is %.9g, reference %.9g, bound %.3g", bench->stage,
                     array->what, kern_isa_name(bench->isa), bench->shape->name,
                     bench->act == KERN_BF16 ? "bf16" : "f32", i, g, w, most);
    }
    if (array->dtype == KERN_F32 && sqrt(difference) > TYPICAL * sqrt(size))
        fail_msg("%s %s, %s, shape %s: differences of %.3g of the reference", bench->stage, array->what,
                 kern_isa_name(bench->isa), bench->shape->name, sqrt(difference / size));
    if (array->dtype == KERN_BF16 && (double)unequal > bound.unequal * (double)array->count + 1)
        fail_msg("%s %s, %s, shape %s: %zu of %zu differ from the reference", bench->stage, array->what,
                 kern_isa_name(bench->isa), bench->shape->name, unequal, array->count);
}

/* Random activations in [-scale, scale], the same in both sessions' buffers. */
static void fill_act(bench_t *bench, size_t count, float scale, void *first, void *second)
{
    float *values = world_floats(&bench->random, count, scale);
    for (size_t i = 0; i < count; i++) put(bench->act, first, i, values[i]);
    memcpy(second, first, count * kern_dtype_bytes(bench->act));
    cot_free(values);
}

static void fill_floats(bench_t *bench, size_t count, float scale, float *first, float *second)
{
    float *values = world_floats(&bench->random, count, scale);
    memcpy(first, values, count * sizeof(float));
    memcpy(second, values, count * sizeof(float));
    cot_free(values);
}

/* Rows of +-1/2: their norm is a power of two, so both backends see the same normed row. */
static void fill_signs(bench_t *bench, size_t count, float *first, float *second)
{
    for (size_t i = 0; i < count; i++) first[i] = second[i] = world_next(&bench->random) & 1 ? 0.5f : -0.5f;
}

/* Largest sum of |w| over a row of a weight. */
static double row_magnitude(const kern_matrix_t *w)
{
    double most = 0;
    for (uint32_t n = 0; n < w->rows; n++) {
        double sum = 0;
        for (uint32_t k = 0; k < w->cols; k++) {
            _Alignas(float) char aligned[sizeof(float)]; /* the weights lie at odd addresses */
            const size_t bytes = kern_dtype_bytes(w->dtype);
            memcpy(aligned, (const char *)w->data + ((size_t)n * w->cols + k) * bytes, bytes);
            sum += fabs(element(w->dtype, aligned, 0));
        }
        if (sum > most) most = sum;
    }
    return most;
}

#define BOTH(bench, stage_, ...)                              \
    do {                                                      \
        (bench)->stage = #stage_;                             \
        session_t *on = &(bench)->ref;                        \
        assert_ok(on->ops->stage_(on->kern, &(__VA_ARGS__))); \
        on = &(bench)->cpu;                                   \
        assert_ok(on->ops->stage_(on->kern, &(__VA_ARGS__))); \
    } while (0)

/* ---- the stages ---- */

static const uint32_t BLOCKS[] = {9, 4, 17, 2, 30, 11, 12, 1, 0, 50, 21};

static double key_at(const bench_t *bench, bool cpu, uint32_t position, uint32_t head, uint32_t d, bool value)
{
    const kern_config_t *config = &bench->ref.config;
    const kern_kv_t *kv = cpu ? &bench->cpu.layer[0].kv : &bench->ref.layer[0].kv;
    const uint32_t block = BLOCKS[position / KERN_KV_BLOCK], slot = position % KERN_KV_BLOCK;
    if (!cpu) {
        size_t at = ((size_t)block * 2 + value) * config->kv_heads + head;
        return element(config->act, kv->data, (at * KERN_KV_BLOCK + slot) * config->head_dim + d);
    }
    return value ? element(config->act, kern_values(bench->cpu.kern, kv, block, head),
                           slot * kern_value_stride(bench->cpu.kern) + d)
                 : element(config->act, kern_keys(bench->cpu.kern, kv, block, head), d * KERN_KV_BLOCK + slot);
}

/* Q, K and V. With a q/k norm the error of an element grows by weight / rms(row), and that of the rms adds up to
 * sqrt(width) times it: 1.25 (1 + sqrt(width)) / rms. */
static void check_attn_in(bench_t *bench)
{
    const kern_config_t *config = &bench->ref.config;
    const uint32_t rows = 100, first = 37, q_width = config->heads * config->head_dim;
    const kern_run_t run = {.row = 0, .rows = rows, .position = first, .blocks = BLOCKS};
    const kern_attn_weights_t *attn = &bench->ref.layer[0].attn;
    fill_signs(bench, (size_t)rows * config->hidden, bench->ref.x, bench->cpu.x);
    BOTH(bench, attn_in,
         (kern_attn_in_args_t){.weights = &on->layer[0].attn,
                               .rows = rows,
                               .runs = 1,
                               .run = &run,
                               .x = on->x,
                               .q = on->q,
                               .kv = &on->layer[0].kv});
    double magnitude = 1.25 * fmax(row_magnitude(&attn->q), fmax(row_magnitude(&attn->k), row_magnitude(&attn->v)));
    double error = sum_error(config->hidden, magnitude) + 4 * U * magnitude;
    if (config->qk_norm != KERN_QK_NORM_NONE) {
        double width = config->qk_norm == KERN_QK_NORM_FULL ? q_width : config->head_dim;
        error *= 1.25 * (1 + sqrt(width)) / 0.25; /* rms of these rows: about 1, never below a quarter */
    }
    /* The turn mixes two elements and rounds cos and sin to float. */
    error = 2 * error + 8 * U * magnitude;
    const bound_t bound = {error, 0.002};
    assert_near(bench, &(array_t){"q", config->act, (size_t)rows * q_width}, bench->cpu.q, bench->ref.q, bound);
    const size_t count = (size_t)rows * config->kv_heads * config->head_dim;
    void *got = cot_alloc(count * sizeof(float)), *want = cot_alloc(count * sizeof(float));
    for (int value = 0; value < 2; value++) {
        size_t i = 0;
        for (uint32_t p = first; p < first + rows; p++)
            for (uint32_t h = 0; h < config->kv_heads; h++)
                for (uint32_t d = 0; d < config->head_dim; d++, i++) {
                    put(config->act, got, i, key_at(bench, true, p, h, d, value));
                    put(config->act, want, i, key_at(bench, false, p, h, d, value));
                }
        assert_near(bench, &(array_t){value ? "v" : "k", config->act, count}, got, want, bound);
    }
    cot_free(got);
    cot_free(want);
}

/* Keys and values of the reference copied into the cpu backend's blocks, so that both attend to the same numbers. */
static void copy_kv(bench_t *bench, uint32_t positions)
{
    const kern_config_t *config = &bench->ref.config;
    const kern_t *kern = bench->cpu.kern;
    for (uint32_t p = 0; p < positions; p++)
        for (uint32_t h = 0; h < config->kv_heads; h++)
            for (uint32_t d = 0; d < config->head_dim; d++) {
                char *key = kern_keys(kern, &bench->cpu.layer[0].kv, BLOCKS[p / 16], h);
                char *value = kern_values(kern, &bench->cpu.layer[0].kv, BLOCKS[p / 16], h);
                put(bench->act, key, d * 16 + p % 16, key_at(bench, false, p, h, d, false));
                put(bench->act, value, p % 16 * kern_value_stride(kern) + d, key_at(bench, false, p, h, d, true));
            }
}

/* A score (in units of ln 2) is off by e = 1.5 sum_error + a few u of its size, a probability by a relative
 * ln 2 e + 4e-7 (v_exp2), and by 2^-7 more where it rounds another way; the output, a mean of values, by twice that of
 * the largest value, and by what the sums lose. The 4e-7 and e round few probabilities another way. */
static void check_attention(bench_t *bench)
{
    const kern_config_t *config = &bench->ref.config;
    const uint32_t rows = 100, first = 60, positions = first + rows, head_dim = config->head_dim;
    for (uint32_t position = 0; position <= first; position += first) {
        const kern_run_t run = {.row = 0, .rows = rows, .position = position, .blocks = BLOCKS};
        fill_floats(bench, (size_t)rows * config->hidden, 1, bench->ref.x, bench->cpu.x);
        assert_ok(kern_ref.attn_in(bench->ref.kern, &(kern_attn_in_args_t){.weights = &bench->ref.layer[0].attn,
                                                                           .rows = rows,
                                                                           .runs = 1,
                                                                           .run = &run,
                                                                           .x = bench->ref.x,
                                                                           .q = bench->ref.q,
                                                                           .kv = &bench->ref.layer[0].kv}));
    }
    const kern_run_t run = {.row = 0, .rows = rows, .position = first, .blocks = BLOCKS};
    copy_kv(bench, positions);
    const size_t count = (size_t)rows * config->heads * head_dim;
    fill_act(bench, count, 2, bench->ref.q, bench->cpu.q);
    BOTH(bench, attention,
         (kern_attention_args_t){.weights = &on->layer[0].attn,
                                 .rows = rows,
                                 .runs = 1,
                                 .run = &run,
                                 .q = on->q,
                                 .kv = &on->layer[0].kv,
                                 .out = on->attn});
    double key = 0, value = 0;
    for (uint32_t p = 0; p < positions; p++)
        for (uint32_t h = 0; h < config->kv_heads; h++)
            for (uint32_t d = 0; d < head_dim; d++) {
                key = fmax(key, fabs(key_at(bench, false, p, h, d, false)));
                value = fmax(value, fabs(key_at(bench, false, p, h, d, true)));
            }
    const double score = 1.5 * 2 * key * sqrt(head_dim); /* sum of magnitudes, over sqrt(head_dim) */
    const double share = 0.7 * 2 * (head_dim + 8) * U * score + 4e-7 + (config->act == KERN_BF16 ? 0x1p-7 : 0);
    const double error = 2 * value * (share + 2 * (positions + 8) * U);
    assert_near(bench, &(array_t){"out", config->act, count}, bench->cpu.attn, bench->ref.attn,
                (bound_t){error, 0.001});
}

/* x within the product's error; a normed row within 8 u and the sum's n / 4 + 8, relative, of what x then was. */
static void check_attn_out(bench_t *bench)
{
    const kern_config_t *config = &bench->ref.config;
    const uint32_t rows = 50, width = config->heads * config->head_dim;
    const size_t count = (size_t)rows * config->hidden;
    fill_floats(bench, count, 1, bench->ref.x, bench->cpu.x);
    fill_act(bench, (size_t)rows * width, 1, bench->ref.attn, bench->cpu.attn);
    BOTH(bench, attn_out,
         (kern_attn_out_args_t){
             .weights = &on->layer[0].attn, .rows = rows, .attn = on->attn, .x = on->x, .normed = on->normed});
    double error = sum_error(width, row_magnitude(&bench->ref.layer[0].attn.o)) + 8 * U;
    assert_near(bench, &(array_t){"x", KERN_F32, count}, bench->cpu.x, bench->ref.x, (bound_t){error, 1});
    /* |normed| <= 1.25 sqrt(hidden), rms of x above 1/4 */
    double normed = 1.25 * sqrt(config->hidden) * (8 * error + sum_error(config->hidden, 1));
    assert_near(bench, &(array_t){"normed", config->act, count}, bench->cpu.normed, bench->ref.normed,
                (bound_t){normed, 0.002});
}

/* The same experts in the same order in every row but at most one (two logits can lie within the error of each other),
 * and in those rows weights within twice the logits' error. */
static void check_route(bench_t *bench)
{
    const kern_config_t *config = &bench->ref.config;
    const uint32_t rows = 64, top_k = config->top_k;
    fill_act(bench, (size_t)rows * config->hidden, 3, bench->ref.normed, bench->cpu.normed);
    BOTH(bench, route,
         (kern_route_args_t){.gate = &on->layer[0].router,
                             .rows = rows,
                             .normed = on->normed,
                             .expert = on->expert,
                             .weight = on->weight});
    double error = 3 * sum_error(config->hidden, row_magnitude(&bench->ref.layer[0].router));
    uint32_t same = 0;
    for (uint32_t t = 0; t < rows; t++) {
        const size_t at = (size_t)t * top_k;
        const float *want = bench->ref.weight + at;
        bool equal = memcmp(bench->ref.expert + at, bench->cpu.expert + at, top_k * sizeof(int32_t)) == 0;
        same += equal;
        if (!equal) continue;
        double sum = 0;
        for (uint32_t k = 0; k < top_k; k++) sum += bench->cpu.weight[at + k];
        if (config->norm_topk) assert_true(fabs(sum - 1) < 1e-6);
        assert_near(bench, &(array_t){"weight", KERN_F32, top_k}, bench->cpu.weight + at, want,
                    (bound_t){2 * error + 1e-6 + 2 * config->experts * U, 1});
    }
    assert_true(same >= rows - 1);
}

/* Gate and up are off by g, the SwiGLU output by 2.2 g G + 1e-6 G^2 (G: largest of their magnitudes), and 2^-7 G^2
 * where it rounds another way. */
static double ffn_error(const bench_t *bench, const kern_ffn_weights_t *ffn, double x)
{
    double magnitude = x * fmax(row_magnitude(&ffn->gate), row_magnitude(&ffn->up));
    double gate = sum_error(ffn->gate.cols, magnitude);
    double middle = 2.2 * gate * magnitude + 1e-6 * magnitude * magnitude;
    if (bench->act == KERN_BF16) middle += 0x1p-7 * magnitude * magnitude;
    double down = row_magnitude(&ffn->down);
    return middle * down + sum_error(ffn->down.cols, down * magnitude * magnitude);
}

/* Assignments to all slots, to one slot alone, and to none: skew is safe. More rows than one part covers. */
static void check_experts(bench_t *bench)
{
    const kern_config_t *config = &bench->ref.config;
    const uint32_t assignments = config->max_assignments < 120 ? config->max_assignments : 120, rows = 20;
    double error = 0;
    for (uint32_t e = 0; e < config->experts; e++)
        error = fmax(error, ffn_error(bench, &bench->ref.layer[0].expert[e], 1));
    for (int skew = 0; skew < 3; skew++) {
        int32_t slot[256];
        uint32_t row[256], count = skew == 2 ? 0 : assignments;
        for (uint32_t a = 0; a < count; a++) {
            slot[a] = (int32_t)(skew == 1 ? config->experts - 1 : world_next(&bench->random) % config->experts);
            row[a] = (uint32_t)(world_next(&bench->random) % rows);
        }
        fill_act(bench, (size_t)rows * config->hidden, 1, bench->ref.normed, bench->cpu.normed);
        BOTH(bench, sort,
             (kern_sort_args_t){.assignments = count,
                                .slots = config->experts,
                                .slot = slot,
                                .order = on->order,
                                .slot_begin = on->slot_begin});
        BOTH(bench, experts,
             (kern_experts_args_t){.expert = on->layer[0].expert,
                                   .slots = config->experts,
                                   .assignments = count,
                                   .x = on->normed,
                                   .row = row,
                                   .order = on->order,
                                   .slot_begin = on->slot_begin,
                                   .y = on->y});
        assert_near(bench, &(array_t){"y", config->act, (size_t)count * config->hidden}, bench->cpu.y, bench->ref.y,
                    (bound_t){error, 0.01});
    }
}

static void check_mlp(bench_t *bench)
{
    const kern_config_t *config = &bench->ref.config;
    const uint32_t rows = 61;
    const kern_ffn_weights_t *ffn = &bench->ref.layer[0].shared;
    fill_act(bench, (size_t)rows * config->hidden, 1, bench->ref.normed, bench->cpu.normed);
    for (int gated = 0; gated < 2; gated++) {
        BOTH(bench, mlp,
             (kern_mlp_args_t){.ffn = &on->layer[0].shared,
                               .gate = gated ? &on->layer[0].shared_gate : NULL,
                               .rows = rows,
                               .normed = on->normed,
                               .y = on->shared,
                               .scale = on->scale});
        assert_near(bench, &(array_t){"y", config->act, (size_t)rows * config->hidden}, bench->cpu.shared,
                    bench->ref.shared, (bound_t){ffn_error(bench, ffn, 1), 0.01});
        double error = gated ? sum_error(config->hidden, row_magnitude(&bench->ref.layer[0].shared_gate)) + 1e-6 : 0;
        assert_near(bench, &(array_t){"scale", KERN_F32, rows}, bench->cpu.scale, bench->ref.scale,
                    (bound_t){error, 1});
    }
}

static void check_combine(bench_t *bench)
{
    const kern_config_t *config = &bench->ref.config;
    const uint32_t rows = 30;
    const size_t count = (size_t)rows * config->hidden;
    for (int form = 0; form < 3; form++) { /* experts, experts and shared, a dense layer */
        const uint32_t top_k = form == 2 ? 0 : config->top_k;
        fill_floats(bench, count, 1, bench->ref.x, bench->cpu.x);
        fill_floats(bench, (size_t)rows * config->top_k, 1, bench->ref.weight, bench->cpu.weight);
        fill_floats(bench, rows, 1, bench->ref.scale, bench->cpu.scale);
        fill_act(bench, count * config->top_k, 1, bench->ref.y, bench->cpu.y);
        fill_act(bench, count, 1, bench->ref.shared, bench->cpu.shared);
        BOTH(bench, combine,
             (kern_combine_args_t){.rows = rows,
                                   .top_k = top_k,
                                   .weight = on->weight,
                                   .y = on->y,
                                   .shared = form > 0 ? on->shared : NULL,
                                   .scale = on->scale,
                                   .x = on->x});
        /* k products added one after the other, then x: at most k + 2 additions of at most k + 2. */
        double terms = config->top_k + 2;
        assert_near(bench, &(array_t){"x", KERN_F32, count}, bench->cpu.x, bench->ref.x,
                    (bound_t){2 * terms * terms * U, 1});
    }
}

/* The norm that combine makes for the next layer is the one that attn_in would make: bit for bit the same Q. */
static void check_next_norm(bench_t *bench)
{
    const kern_config_t *config = &bench->ref.config;
    const uint32_t rows = 33;
    const size_t q_bytes = (size_t)rows * config->heads * config->head_dim * kern_dtype_bytes(config->act);
    const kern_run_t run = {.row = 0, .rows = rows, .position = 5, .blocks = BLOCKS};
    fill_floats(bench, (size_t)rows * config->hidden, 3, bench->ref.x, bench->cpu.x);
    BOTH(bench, combine,
         (kern_combine_args_t){
             .rows = rows, .x = on->x, .next_norm = on->layer[0].attn.input_norm, .next_normed = on->normed});
    void *made[2] = {cot_alloc(q_bytes), cot_alloc(q_bytes)};
    for (int given = 0; given < 2; given++) {
        BOTH(bench, attn_in,
             (kern_attn_in_args_t){.weights = &on->layer[0].attn,
                                   .rows = rows,
                                   .runs = 1,
                                   .run = &run,
                                   .x = on->x,
                                   .normed = given ? on->normed : NULL,
                                   .q = on->q,
                                   .kv = &on->layer[0].kv});
        if (given) {
            assert_memory_equal(bench->ref.q, made[0], q_bytes);
            assert_memory_equal(bench->cpu.q, made[1], q_bytes);
        }
        memcpy(made[0], bench->ref.q, q_bytes);
        memcpy(made[1], bench->cpu.q, q_bytes);
    }
    cot_free(made[0]);
    cot_free(made[1]);
}

/* The embedding is exact; the head sees rows of known norm, through a list of rows with repeats. */
static void check_ends(bench_t *bench)
{
    const kern_config_t *config = &bench->ref.config;
    uint32_t row[128];
    int32_t tokens[128];
    for (uint32_t i = 0; i < 128; i++) {
        tokens[i] = (int32_t)(world_next(&bench->random) % config->vocab);
        row[i] = (i * 5) % 64;
    }
    BOTH(bench, embed, (kern_embed_args_t){.table = &on->embed, .rows = 64, .tokens = tokens, .x = on->x});
    assert_memory_equal(bench->ref.x, bench->cpu.x, 64 * config->hidden * sizeof(float));
    fill_signs(bench, (size_t)64 * config->hidden, bench->ref.x, bench->cpu.x);
    BOTH(bench, head,
         (kern_head_args_t){.norm = on->world->final_norm,
                            .lm_head = &on->lm_head,
                            .rows = 128,
                            .row = row,
                            .x = on->x,
                            .logits = on->logits});
    double error = 1.25 * sum_error(config->hidden, row_magnitude(&bench->ref.lm_head)) + 8 * U * 1.25;
    assert_near(bench, &(array_t){"logits", KERN_F32, (size_t)128 * config->vocab}, bench->cpu.logits,
                bench->ref.logits, (bound_t){error, 1});
}

static void check_all(const shape_t *shape, kern_isa_t isa, kern_dtype_t act, kern_dtype_t stored)
{
    bench_t bench = {.shape = shape, .isa = isa, .act = act, .random = 3};
    world_t world;
    world_create(shape, stored, 3, &world);
    kern_config_t config = world_config(&world, act);
    config.norm_eps = 0; /* rows of +-1/2 then have a norm of exactly 1/2 */
    config.isa = isa;
    session_create(&world, &kern_ref, &config, &bench.ref);
    session_create(&world, &kern_cpu, &config, &bench.cpu);
    check_attn_in(&bench);
    check_attention(&bench);
    check_attn_out(&bench);
    check_route(&bench);
    check_experts(&bench);
    check_mlp(&bench);
    check_combine(&bench);
    check_next_norm(&bench);
    check_ends(&bench);
    session_destroy(&bench.ref);
    session_destroy(&bench.cpu);
    world_destroy(&world);
}

static void check_isa(kern_isa_t isa)
{
    if (!isa_here(isa)) return;
    for (uint32_t s = 0; s < SHAPES_COUNT; s++) {
        check_all(&SHAPES[s], isa, KERN_BF16, KERN_BF16);
        check_all(&SHAPES[s], isa, KERN_F32, KERN_BF16);
        check_all(&SHAPES[s], isa, KERN_F32, KERN_F32);
    }
    assert_int_equal(cot_memory_live_blocks(), 0);
}

static void scalar(void **state)
{
    (void)state;
    check_isa(KERN_ISA_SCALAR);
}

static void avx2(void **state)
{
    (void)state;
    check_isa(KERN_ISA_AVX2);
}

static void avx512(void **state)
{
    (void)state;
    check_isa(KERN_ISA_AVX512);
}

static void avx512_bf16(void **state)
{
    (void)state;
    check_isa(KERN_ISA_AVX512_BF16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(scalar), cmocka_unit_test(avx2), cmocka_unit_test(avx512),
                                       cmocka_unit_test(avx512_bf16)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
