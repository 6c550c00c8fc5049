/* A vector of KERN_LANES floats in GNU C, the same source for every width. A file that wants another instruction set
 * than the baseline defines KERN_LANES and includes this first; what the language cannot say (fused multiply-add) is
 * chosen by width. */
#ifndef KERN_CPU_VEC_H
#define KERN_CPU_VEC_H

#include <stdint.h>
#include <string.h>

#ifndef KERN_LANES
#define KERN_LANES 4
#endif
#if KERN_LANES > 4
#include <immintrin.h>
#endif

#define KERN_INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define KERN_UNROLL _Pragma("unroll")
#else
#define KERN_UNROLL _Pragma("GCC unroll 16")
#endif

typedef float vec_t __attribute__((vector_size(KERN_LANES * 4)));
typedef uint32_t vec_bits_t __attribute__((vector_size(KERN_LANES * 4)));
typedef uint16_t vec_bf16_t __attribute__((vector_size(KERN_LANES * 2)));

/* Memory operands need not be aligned: weights lie in a file's mapping at any offset. */
KERN_INLINE vec_t v_load(const void *from)
{
    vec_t v;
    memcpy(&v, from, sizeof(v));
    return v;
}

KERN_INLINE void v_store(void *to, vec_t v)
{
    memcpy(to, &v, sizeof(v));
}

/* The first `count` < KERN_LANES floats, then zeros. */
KERN_INLINE vec_t v_load_part(const void *from, uint32_t count)
{
    vec_t v = {0};
    memcpy(&v, from, count * sizeof(float));
    return v;
}

KERN_INLINE void v_store_part(void *to, vec_t v, uint32_t count)
{
    memcpy(to, &v, count * sizeof(float));
}

KERN_INLINE vec_t v_all(float value)
{
    return value - (vec_t){0}; /* minus, not plus: -0 stays -0 */
}

KERN_INLINE vec_t v_of_bits(vec_bits_t bits)
{
    return (vec_t)bits;
}

KERN_INLINE vec_t v_widen(vec_bf16_t bf16)
{
    return (vec_t)(__builtin_convertvector(bf16, vec_bits_t) << 16);
}

KERN_INLINE vec_t v_load_bf16(const void *from)
{
    vec_bf16_t v;
    memcpy(&v, from, sizeof(v));
    return v_widen(v);
}

KERN_INLINE vec_t v_load_bf16_part(const void *from, uint32_t count)
{
    vec_bf16_t v = {0};
    memcpy(&v, from, count * sizeof(uint16_t));
    return v_widen(v);
}

/* kern_float_to_bf16, its result still a float. */
KERN_INLINE vec_t v_round(vec_t v)
{
    vec_bits_t bits = (vec_bits_t)v;
    vec_bits_t nan = (vec_bits_t)((bits & 0x7fffffffU) > 0x7f800000U);
    vec_bits_t rounded = bits + 0x7fffU + ((bits >> 16) & 1U);
    return (vec_t)(((nan & (bits | 0x400000U)) | (~nan & rounded)) & 0xffff0000U);
}

/* Of a vector that v_round gave. */
KERN_INLINE vec_bf16_t v_narrow(vec_t rounded)
{
    return __builtin_convertvector((vec_bits_t)rounded >> 16, vec_bf16_t);
}

KERN_INLINE vec_t v_select(vec_bits_t mask, vec_t yes, vec_t no)
{
    return (vec_t)((mask & (vec_bits_t)yes) | (~mask & (vec_bits_t)no));
}

/* A NaN in `v` stays. */
KERN_INLINE vec_t v_at_least(vec_t v, float least)
{
    return v_select((vec_bits_t)(v < v_all(least)), v_all(least), v);
}

KERN_INLINE vec_t v_at_most(vec_t v, float most)
{
    return v_select((vec_bits_t)(v > v_all(most)), v_all(most), v);
}

KERN_INLINE vec_t v_larger(vec_t a, vec_t b)
{
    return v_select((vec_bits_t)(a > b), a, b);
}

/* a b + c: fused where the instruction set has it. */
KERN_INLINE vec_t v_fma(vec_t a, vec_t b, vec_t c)
{
#if KERN_LANES == 16
    return (vec_t)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif KERN_LANES == 8
    return (vec_t)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

/* Sums of four vectors. Each by the same tree, whatever the others hold: halves are added until four lanes are left,
 * then (0 + 2) + (1 + 3). */
KERN_INLINE void v_sum4(const vec_t v[4], float sums[4])
{
#if KERN_LANES == 16
    __m512 a = (__m512)v[0], b = (__m512)v[1], c = (__m512)v[2], d = (__m512)v[3];
    __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    __m512 all = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    all = _mm512_add_ps(all, _mm512_permute_ps(all, 0xee));
    all = _mm512_add_ps(all, _mm512_permute_ps(all, 0x55));
    _mm_storeu_ps(sums, _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, all)));
#else
    typedef float quad_t __attribute__((vector_size(16)));
    quad_t q[4];
    for (int i = 0; i < 4; i++) {
#if KERN_LANES == 8
        __m256 whole = (__m256)v[i];
        q[i] = (quad_t)_mm_add_ps(_mm256_castps256_ps128(whole), _mm256_extractf128_ps(whole, 1));
#else
        q[i] = (quad_t)v[i];
#endif
    }
    for (int i = 0; i < 4; i++) sums[i] = (q[i][0] + q[i][2]) + (q[i][1] + q[i][3]);
#endif
}

KERN_INLINE float v_sum(vec_t v)
{
    const vec_t four[4] = {v};
    float sums[4];
    v_sum4(four, sums);
    return sums[0];
}

/* 2^v, within 4e-7 of it. 0 below 2^-126.5, infinity from 2^127.5 on. */
KERN_INLINE vec_t v_exp2(vec_t v)
{
    const float shifter = 0x1.8p23f; /* adding it rounds to an integer, which then stands in the low bits */
    vec_t x = v_at_most(v_at_least(v, -127.0f), 128.0f);
    vec_t shifted = x + v_all(shifter);
    vec_t f = x - (shifted - v_all(shifter)); /* in [-1/2, 1/2] */
    /* ln(2)^n / n!, the Taylor series of 2^f: the term of degree 8 is below 5.2e-9. */
    vec_t p = v_all(0x1.ffcbfcp-17f);
    p = v_fma(p, f, v_all(0x1.430912p-13f));
    p = v_fma(p, f, v_all(0x1.5d87fep-10f));
    p = v_fma(p, f, v_all(0x1.3b2ab6p-7f));
    p = v_fma(p, f, v_all(0x1.c6b08ep-5f));
    p = v_fma(p, f, v_all(0x1.ebfbep-3f));
    p = v_fma(p, f, v_all(0x1.62e43p-1f));
    p = v_fma(p, f, v_all(1.0f));
    return p * (vec_t)(((vec_bits_t)shifted << 23) + 0x3f800000U);
}

#endif
