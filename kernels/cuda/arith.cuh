/* The one arithmetic of the cuda backend: every operation outside the matrix units, spelled as one instruction, so that
 * the compiler neither contracts nor reorders anything (the files are also built with -fmad=false). A stage that needs
 * more adds it here. Roundings are to nearest even unless an `approx` instruction is named. */
#ifndef KERN_CUDA_ARITH_CUH
#define KERN_CUDA_ARITH_CUH

#include <stdint.h>

namespace kcu
{

constexpr float LOG2_E = 1.44269504088896340736f;

/* 2^x: ex2.approx.ftz.f32, at most 2 ulp; results below 2^-126 are 0. */
__device__ __forceinline__ float exp2_approx(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* 1/x: rcp.approx.ftz.f32, at most 1 ulp. */
__device__ __forceinline__ float rcp_approx(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* silu(gate) up = gate / (1 + 2^(-gate log2 e)) up, before it is rounded to bf16. */
__device__ __forceinline__ float swiglu(float gate, float up)
{
    const float sigmoid = rcp_approx(__fadd_rn(1.0f, exp2_approx(__fmul_rn(gate, -LOG2_E))));
    return __fmul_rn(__fmul_rn(gate, sigmoid), up);
}

/* Two floats rounded to bf16: `low` in bits 0-15. NaN becomes 0x7fff. */
__device__ __forceinline__ uint32_t pack_bf16(float low, float high)
{
    uint32_t bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}

__device__ __forceinline__ float bf16_low(uint32_t pair)
{
    return __uint_as_float(pair << 16);
}

__device__ __forceinline__ float bf16_high(uint32_t pair)
{
    return __uint_as_float(pair & 0xffff0000U);
}

} // namespace kcu

#endif
