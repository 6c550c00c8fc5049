/* The primitives over vectors of KERN_LANES floats: compiled once per instruction set by the isa_*.c that includes it.
 */
#ifndef KERN_CPU_PRIMS_BODY_H
#define KERN_CPU_PRIMS_BODY_H

#include "kernels/cpu/prims.h"
#include "kernels/cpu/vec.h"

#include <math.h>

/* ---- products ---- */

/* Rows of a register tile: with 4 outputs each they leave registers for the weights and one row. */
#define TILE_ROWS (KERN_LANES == 16 ? 6 : KERN_LANES == 8 ? 3 : 2)
#define TILE_ROWS_MOST 6
#define TILE_OUTPUTS 4

typedef vec_t tile_sums_t[TILE_ROWS_MOST][TILE_OUTPUTS];

KERN_INLINE vec_t load_weight(const char *w, kern_dtype_t dtype)
{
    return dtype == KERN_BF16 ? v_load_bf16(w) : v_load(w);
}

KERN_INLINE vec_t load_weight_part(const char *w, kern_dtype_t dtype, uint32_t count)
{
    return dtype == KERN_BF16 ? v_load_bf16_part(w, count) : v_load_part(w, count);
}

/* Adds one step of KERN_LANES elements to rows x outputs sums. All loops over a tile unroll. */
KERN_INLINE void tile_step(tile_sums_t sum, const vec_t weight[TILE_OUTPUTS], const char *x, size_t x_stride,
                           const uint32_t shape[2])
{
    KERN_UNROLL for (uint32_t m = 0; m < shape[0]; m++)
    {
        vec_t element = v_load(x + m * x_stride);
        KERN_UNROLL for (uint32_t n = 0; n < shape[1]; n++) sum[m][n] = v_fma(element, weight[n], sum[m][n]);
    }
}

/* Float rows. Each sum keeps its own accumulator, lane l of which adds the elements l, l + KERN_LANES, … in order: a
 * dot product does not depend on the tile that it is part of. */
KERN_INLINE void tile_floats(const kern_product_t *p, const char *x, const char *w, kern_dtype_t dtype,
                             const uint32_t shape[2], tile_sums_t sum)
{
    const size_t element_bytes = kern_dtype_bytes(dtype), w_stride = p->cols * element_bytes;
    const uint32_t whole = p->cols / KERN_LANES * KERN_LANES;
    vec_t weight[TILE_OUTPUTS];
    for (uint32_t k = 0; k < whole; k += KERN_LANES) {
        KERN_UNROLL for (uint32_t n = 0; n < shape[1]; n++)
            weight[n] = load_weight(w + n * w_stride + k * element_bytes, dtype);
        tile_step(sum, weight, x + k * sizeof(float), p->x_stride, shape);
    }
    if (whole == p->cols) return;
    KERN_UNROLL for (uint32_t n = 0; n < shape[1]; n++)
        weight[n] = load_weight_part(w + n * w_stride + whole * element_bytes, dtype, p->cols - whole);
    tile_step(sum, weight, x + whole * sizeof(float), p->x_stride, shape);
}

#ifdef __AVX512BF16__
/* Bf16 rows and weights in vdpbf16ps: lane l adds the pairs l, l + 16, … in order. It treats subnormals as zero. */
KERN_INLINE void tile_pairs(const kern_product_t *p, const char *x, const char *w, const uint32_t shape[2],
                            tile_sums_t sum)
{
    const size_t w_stride = p->cols * sizeof(uint16_t);
    for (uint32_t k = 0; k < p->cols; k += 32) {
        const uint32_t left = p->cols - k;
        const __mmask32 mask = left >= 32 ? 0xffffffffU : (1U << left) - 1;
        __m512i weight[TILE_OUTPUTS];
        KERN_UNROLL for (uint32_t n = 0; n < shape[1]; n++)
            weight[n] = _mm512_maskz_loadu_epi16(mask, w + n * w_stride + k * sizeof(uint16_t));
        KERN_UNROLL for (uint32_t m = 0; m < shape[0]; m++)
        {
            __m512i element = _mm512_loadu_si512(x + m * p->x_stride + k * sizeof(uint16_t));
            KERN_UNROLL for (uint32_t n = 0; n < shape[1]; n++)
                sum[m][n] = (vec_t)_mm512_dpbf16_ps((__m512)sum[m][n], (__m512bh)element, (__m512bh)weight[n]);
        }
    }
}
#endif

typedef enum { WEIGHTS_F32, WEIGHTS_BF16, PAIRS } product_kind_t;

KERN_INLINE void tile(const kern_product_t *p, uint32_t row, uint32_t output, product_kind_t kind,
                      const uint32_t shape[2])
{
    const size_t w_stride = p->cols * (kind == WEIGHTS_F32 ? sizeof(float) : sizeof(uint16_t));
    const char *w = (const char *)p->w + output * w_stride, *x = (const char *)p->x + row * p->x_stride;
    tile_sums_t sum = {{{0}}};
#ifdef __AVX512BF16__
    if (kind == PAIRS)
        tile_pairs(p, x, w, shape, sum);
    else
#endif
        tile_floats(p, x, w, kind == WEIGHTS_F32 ? KERN_F32 : KERN_BF16, shape, sum);
    KERN_UNROLL for (uint32_t m = 0; m < shape[0]; m++)
    {
        float sums[TILE_OUTPUTS];
        v_sum4(sum[m], sums);
        memcpy(p->out + (row + m) * p->out_stride + output, sums, shape[1] * sizeof(float));
    }
}

/* A row count that is only reached where a tile is larger than it. */
#define TILE_LEFT(n) ((n) < TILE_ROWS ? (n) : 1)
#define TILE_SHAPE(rows) ((const uint32_t[2]){rows, outputs})

/* All rows against `outputs` weight rows, which stay in the nearest cache. */
KERN_INLINE void all_rows(const kern_product_t *p, uint32_t output, product_kind_t kind, const uint32_t outputs)
{
    uint32_t row = 0;
    for (; row + TILE_ROWS <= p->rows; row += TILE_ROWS) tile(p, row, output, kind, TILE_SHAPE(TILE_ROWS));
    switch (p->rows - row) {
    case 5: tile(p, row, output, kind, TILE_SHAPE(TILE_LEFT(5))); break;
    case 4: tile(p, row, output, kind, TILE_SHAPE(TILE_LEFT(4))); break;
    case 3: tile(p, row, output, kind, TILE_SHAPE(TILE_LEFT(3))); break;
    case 2: tile(p, row, output, kind, TILE_SHAPE(TILE_LEFT(2))); break;
    case 1: tile(p, row, output, kind, TILE_SHAPE(1)); break;
    default: break;
    }
}

KERN_INLINE void product(const kern_product_t *p, product_kind_t kind)
{
    uint32_t output = 0;
    for (; output + TILE_OUTPUTS <= p->outputs; output += TILE_OUTPUTS) all_rows(p, output, kind, TILE_OUTPUTS);
    for (; output < p->outputs; output++) all_rows(p, output, kind, 1);
}

static inline void product_bf16(const kern_product_t *p)
{
    product(p, WEIGHTS_BF16);
}

static inline void product_f32(const kern_product_t *p)
{
    product(p, WEIGHTS_F32);
}

#ifdef __AVX512BF16__
static inline void product_pairs(const kern_product_t *p)
{
    product(p, PAIRS);
}
#define PRODUCT_PAIRS product_pairs
#else
#define PRODUCT_PAIRS NULL
#endif

/* ---- rows ---- */

static inline void pack(const float *in, uint32_t count, kern_form_t form, void *out)
{
    if (form == KERN_FORM_F32) {
        memcpy(out, in, count * sizeof(float));
        return;
    }
    for (uint32_t i = 0; i < count; i += KERN_LANES) {
        uint32_t left = count - i;
        vec_t v = v_round(left < KERN_LANES ? v_load_part(in + i, left) : v_load(in + i));
        if (left > KERN_LANES) left = KERN_LANES;
        if (form == KERN_FORM_ROUNDED) {
            v_store_part((float *)out + i, v, left);
        } else {
            vec_bf16_t narrow = v_narrow(v);
            memcpy((uint16_t *)out + i, &narrow, left * sizeof(uint16_t));
        }
    }
}

static inline void widen(const void *bf16, uint32_t count, float *out)
{
    const uint16_t *in = bf16;
    uint32_t i = 0;
    for (; i + KERN_LANES <= count; i += KERN_LANES) v_store(out + i, v_load_bf16(in + i));
    if (i < count) v_store_part(out + i, v_load_bf16_part(in + i, count - i), count - i);
}

/* One tree, fixed by the column: lanes, then v_sum. */
static inline float sum_squares(const float *x, uint32_t count)
{
    vec_t sum = {0};
    uint32_t i = 0;
    for (; i + KERN_LANES <= count; i += KERN_LANES) sum = v_fma(v_load(x + i), v_load(x + i), sum);
    if (i < count) {
        vec_t v = v_load_part(x + i, count - i);
        sum = v_fma(v, v, sum);
    }
    return v_sum(sum);
}

static inline float sum(const float *x, uint32_t count)
{
    vec_t all = {0};
    uint32_t i = 0;
    for (; i + KERN_LANES <= count; i += KERN_LANES) all += v_load(x + i);
    if (i < count) all += v_load_part(x + i, count - i);
    return v_sum(all);
}

static inline void scale(const float *x, float factor, const float *weight, uint32_t count, float *out)
{
    for (uint32_t i = 0; i < count; i++) out[i] = x[i] * factor * weight[i];
}

static inline void add_scaled(float factor, const void *x, kern_dtype_t dtype, uint32_t count, float *total)
{
    const char *in = x;
    const size_t bytes = kern_dtype_bytes(dtype);
    const vec_t factors = v_all(factor);
    uint32_t i = 0;
    for (; i + KERN_LANES <= count; i += KERN_LANES)
        v_store(total + i, v_fma(factors, load_weight(in + i * bytes, dtype), v_load(total + i)));
    if (i == count) return;
    vec_t last = v_fma(factors, load_weight_part(in + i * bytes, dtype, count - i), v_load_part(total + i, count - i));
    v_store_part(total + i, last, count - i);
}

static inline void exp2_all(float *x, uint32_t count)
{
    uint32_t i = 0;
    for (; i + KERN_LANES <= count; i += KERN_LANES) v_store(x + i, v_exp2(v_load(x + i)));
    if (i < count) v_store_part(x + i, v_exp2(v_load_part(x + i, count - i)), count - i);
}

KERN_INLINE vec_t v_swiglu(vec_t gate, vec_t up)
{
    vec_t e = v_exp2(gate * v_all(-0x1.715476p0f)); /* exp(-gate) */
    return gate / (v_all(1.0f) + e) * up;
}

static inline void swiglu(const float *gate, const float *up, uint32_t count, float *out)
{
    uint32_t i = 0;
    for (; i + KERN_LANES <= count; i += KERN_LANES) v_store(out + i, v_swiglu(v_load(gate + i), v_load(up + i)));
    if (i == count) return;
    uint32_t left = count - i;
    v_store_part(out + i, v_swiglu(v_load_part(gate + i, left), v_load_part(up + i, left)), left);
}

/* ---- attention ---- */

#define KEY_VECTORS (KERN_KV_BLOCK / KERN_LANES)
#define SCORE_ROWS (KERN_SCORE_HEADS / KEY_VECTORS) /* heads whose scores fit into the registers */

/* `heads` scores for each of the block's keys: a lane is a key, so each adds its head_dim products in order. */
KERN_INLINE void score_heads(const kern_scores_t *s, uint32_t first, uint32_t heads, kern_dtype_t dtype)
{
    const char *key = s->key;
    const size_t vector_bytes = KERN_LANES * kern_dtype_bytes(dtype);
    const float *q = s->q + (size_t)first * s->head_dim;
    vec_t dot[SCORE_ROWS][KEY_VECTORS] = {{{0}}};
    for (uint32_t d = 0; d < s->head_dim; d++) {
        vec_t element[KEY_VECTORS];
        KERN_UNROLL for (uint32_t v = 0; v < KEY_VECTORS; v++)
            element[v] = load_weight(key + (d * KEY_VECTORS + v) * vector_bytes, dtype);
        KERN_UNROLL for (uint32_t h = 0; h < heads; h++)
        {
            vec_t factor = v_all(q[h * s->head_dim + d]);
            KERN_UNROLL for (uint32_t v = 0; v < KEY_VECTORS; v++) dot[h][v] = v_fma(factor, element[v], dot[h][v]);
        }
    }
    KERN_UNROLL for (uint32_t h = 0; h < heads; h++) KERN_UNROLL for (uint32_t v = 0; v < KEY_VECTORS; v++)
        v_store(s->score + (first + h) * KERN_ATTN_KEYS + v * KERN_LANES, dot[h][v] * v_all(s->scale));
}

KERN_INLINE void scores_of(const kern_scores_t *s, kern_dtype_t dtype)
{
    uint32_t head = 0;
    for (; head + SCORE_ROWS <= s->heads; head += SCORE_ROWS) score_heads(s, head, SCORE_ROWS, dtype);
    for (; head + 4 <= s->heads && SCORE_ROWS > 4; head += 4) score_heads(s, head, SCORE_ROWS > 4 ? 4 : 1, dtype);
    for (; head < s->heads; head++) score_heads(s, head, 1, dtype);
}

static inline void scores(const kern_scores_t *s, kern_dtype_t dtype)
{
    if (dtype == KERN_BF16)
        scores_of(s, KERN_BF16);
    else
        scores_of(s, KERN_F32);
}

static inline float max(const float *x)
{
    vec_t most = v_load(x);
    for (uint32_t i = KERN_LANES; i < KERN_ATTN_KEYS; i += KERN_LANES) most = v_larger(v_load(x + i), most);
    float lane[KERN_LANES];
    v_store(lane, most);
    for (uint32_t i = 1; i < KERN_LANES; i++)
        if (lane[i] > lane[0]) lane[0] = lane[i];
    return lane[0];
}

static inline float softmax(float *x, float most, kern_dtype_t dtype)
{
    vec_t total = {0};
    for (uint32_t i = 0; i < KERN_ATTN_KEYS; i += KERN_LANES) {
        vec_t p = v_exp2(v_load(x + i) - v_all(most));
        if (dtype == KERN_BF16) p = v_round(p);
        v_store(x + i, p);
        total += p;
    }
    return v_sum(total);
}

/* `vectors` x KERN_LANES columns from column `at` on. */
KERN_INLINE void value_columns(const kern_values_t *v, uint32_t head, uint32_t at, uint32_t vectors, kern_dtype_t dtype)
{
    const size_t bytes = kern_dtype_bytes(dtype);
    const char *value = (const char *)v->value + at * bytes;
    float *total = v->sum + (size_t)head * v->stride + at;
    const float *p = v->p + (size_t)head * KERN_ATTN_KEYS;
    vec_t all[8];
    KERN_UNROLL for (uint32_t i = 0; i < vectors; i++) all[i] = v_load(total + i * KERN_LANES);
    for (uint32_t key = v->first; key < v->last; key++) {
        vec_t factor = v_all(p[key]);
        KERN_UNROLL for (uint32_t i = 0; i < vectors; i++) all[i] = v_fma(
            factor, load_weight(value + ((size_t)key * v->stride + i * KERN_LANES) * bytes, dtype), all[i]);
    }
    KERN_UNROLL for (uint32_t i = 0; i < vectors; i++) v_store(total + i * KERN_LANES, all[i]);
}

KERN_INLINE void values_of(const kern_values_t *v, kern_dtype_t dtype)
{
    for (uint32_t head = 0; head < v->heads; head++) {
        uint32_t at = 0;
        for (; at + 8 * KERN_LANES <= v->stride; at += 8 * KERN_LANES) value_columns(v, head, at, 8, dtype);
        for (; at < v->stride; at += KERN_LANES) value_columns(v, head, at, 1, dtype);
    }
}

static inline void values(const kern_values_t *v, kern_dtype_t dtype)
{
    if (dtype == KERN_BF16)
        values_of(v, KERN_BF16);
    else
        values_of(v, KERN_F32);
}

#define KERN_PRIMS_TABLE                                                                                        \
    {                                                                                                           \
        .product_bf16 = product_bf16, .product_f32 = product_f32, .product_pairs = PRODUCT_PAIRS, .pack = pack, \
        .widen = widen, .sum_squares = sum_squares, .scale = scale, .add_scaled = add_scaled, .exp2 = exp2_all, \
        .sum = sum, .swiglu = swiglu, .scores = scores, .softmax = softmax, .max = max, .values = values        \
    }

#endif
