/* IEEE half precision, in which checkpoints and traces store numbers; nothing computes in it. */
#ifndef COT_HALF_H
#define COT_HALF_H

#include <math.h>
#include <stdint.h>

/* Round to nearest even; NaN stays NaN. */
static inline uint16_t cot_half_from_float(float value)
{
    union {
        float f;
        uint32_t u;
    } pun = {.f = value};
    uint16_t sign = (uint16_t)((pun.u >> 16) & 0x8000U);
    uint32_t magnitude = pun.u & 0x7fffffffU;
    if (magnitude > 0x7f800000U) return (uint16_t)(sign | 0x7e00U);  /* NaN */
    if (magnitude >= 0x477ff000U) return (uint16_t)(sign | 0x7c00U); /* rounds to 65536 or more: infinity */
    if (magnitude < 0x38800000U) {                                   /* below 2^-14: subnormal, in units of 2^-24 */
        pun.u = magnitude;
        return (uint16_t)(sign | (uint16_t)lrintf(pun.f * 16777216.0f));
    }
    uint32_t rounded = magnitude + 0xfffU + ((magnitude >> 13) & 1U);
    return (uint16_t)(sign | (uint16_t)((rounded - 0x38000000U) >> 13));
}

static inline float cot_half_to_float(uint16_t half)
{
    uint32_t exponent = (half >> 10) & 31U, mantissa = half & 1023U;
    float magnitude = exponent == 0    ? ldexpf((float)mantissa, -24)
                      : exponent == 31 ? (mantissa != 0 ? NAN : INFINITY)
                                       : ldexpf((float)(mantissa + 1024U), (int)exponent - 25);
    return half & 0x8000U ? -magnitude : magnitude;
}

#endif
