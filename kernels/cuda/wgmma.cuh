/* wgmma.mma_async m64nNk16, bf16 in, fp32 out, as overloads by N: acc [64 x N] += A [64 x 16] B [N x 16]^T.
 *   wgmma_ss<N>(acc, a, b): A and B by descriptors (hopper.cuh), both K-major;
 *   wgmma_rs<N>(acc, a, b): A from registers, fragments as in mma.cuh (warp w holds rows 16w … 16w + 15).
 * Warp w of the group, lane l, g = l / 4, t = l % 4: acc[4j], acc[4j + 1] are row 16w + g, columns 8j + 2t and the
 * next; acc[4j + 2], acc[4j + 3] the same of row 16w + g + 8. Only sm_90a. */
#ifndef KERN_CUDA_WGMMA_CUH
#define KERN_CUDA_WGMMA_CUH

#include "kernels/cuda/hopper.cuh"

namespace kcu
{

template <int N> struct wgmma_shape {
    static_assert(N % 8 == 0 && N >= 8 && N <= 256, "no such wgmma");
};

#if defined(KERN_SM90A)

/* Text of the accumulators: 4 per 8 columns. */
#define KERN_T0 "%0, %1, %2, %3"
#define KERN_T1 KERN_T0 ", %4, %5, %6, %7"
#define KERN_T2 KERN_T1 ", %8, %9, %10, %11"
#define KERN_T3 KERN_T2 ", %12, %13, %14, %15"
#define KERN_T4 KERN_T3 ", %16, %17, %18, %19"
#define KERN_T5 KERN_T4 ", %20, %21, %22, %23"
#define KERN_T6 KERN_T5 ", %24, %25, %26, %27"
#define KERN_T7 KERN_T6 ", %28, %29, %30, %31"
#define KERN_T8 KERN_T7 ", %32, %33, %34, %35"
#define KERN_T9 KERN_T8 ", %36, %37, %38, %39"
#define KERN_T10 KERN_T9 ", %40, %41, %42, %43"
#define KERN_T11 KERN_T10 ", %44, %45, %46, %47"
#define KERN_T12 KERN_T11 ", %48, %49, %50, %51"
#define KERN_T13 KERN_T12 ", %52, %53, %54, %55"
#define KERN_T14 KERN_T13 ", %56, %57, %58, %59"
#define KERN_T15 KERN_T14 ", %60, %61, %62, %63"
#define KERN_T16 KERN_T15 ", %64, %65, %66, %67"
#define KERN_T17 KERN_T16 ", %68, %69, %70, %71"
#define KERN_T18 KERN_T17 ", %72, %73, %74, %75"
#define KERN_T19 KERN_T18 ", %76, %77, %78, %79"
#define KERN_T20 KERN_T19 ", %80, %81, %82, %83"
#define KERN_T21 KERN_T20 ", %84, %85, %86, %87"
#define KERN_T22 KERN_T21 ", %88, %89, %90, %91"
#define KERN_T23 KERN_T22 ", %92, %93, %94, %95"
#define KERN_T24 KERN_T23 ", %96, %97, %98, %99"
#define KERN_T25 KERN_T24 ", %100, %101, %102, %103"
#define KERN_T26 KERN_T25 ", %104, %105, %106, %107"
#define KERN_T27 KERN_T26 ", %108, %109, %110, %111"
#define KERN_T28 KERN_T27 ", %112, %113, %114, %115"
#define KERN_T29 KERN_T28 ", %116, %117, %118, %119"
#define KERN_T30 KERN_T29 ", %120, %121, %122, %123"
#define KERN_T31 KERN_T30 ", %124, %125, %126, %127"

/* Their constraints: C4 covers 8 columns. */
#define KERN_C4(i) "+f"(acc[i]), "+f"(acc[(i) + 1]), "+f"(acc[(i) + 2]), "+f"(acc[(i) + 3])
#define KERN_C8(i) KERN_C4(i), KERN_C4((i) + 4)
#define KERN_C16(i) KERN_C8(i), KERN_C8((i) + 8)
#define KERN_C32(i) KERN_C16(i), KERN_C16((i) + 16)
#define KERN_C64(i) KERN_C32(i), KERN_C32((i) + 32)

/* clang-format off */
#define KERN_WGMMA(N, TEXT, P0, P1, P2, P3, P4, ...)                                                                  \
    __device__ __forceinline__ void wgmma_ss_(float (&acc)[N / 2], uint64_t a, uint64_t b)                            \
    {                                                                                                                 \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" TEXT "}, " P0 ", " P1               \
                     ", 1, 1, 1, 0, 0;"                                                                               \
                     : __VA_ARGS__                                                                                    \
                     : "l"(a), "l"(b));                                                                               \
    }                                                                                                                 \
    __device__ __forceinline__ void wgmma_rs_(float (&acc)[N / 2], const uint32_t (&a)[4], uint64_t b)                \
    {                                                                                                                 \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" TEXT "}, {" P0 ", " P1 ", " P2      \
                     ", " P3 "}, " P4 ", 1, 1, 1, 0;"                                                                 \
                     : __VA_ARGS__                                                                                    \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                           \
    }

KERN_WGMMA(8, KERN_T0, "%4", "%5", "%6", "%7", "%8", KERN_C4(0))
KERN_WGMMA(16, KERN_T1, "%8", "%9", "%10", "%11", "%12", KERN_C8(0))
KERN_WGMMA(24, KERN_T2, "%12", "%13", "%14", "%15", "%16", KERN_C8(0), KERN_C4(8))
KERN_WGMMA(32, KERN_T3, "%16", "%17", "%18", "%19", "%20", KERN_C16(0))
KERN_WGMMA(48, KERN_T5, "%24", "%25", "%26", "%27", "%28", KERN_C16(0), KERN_C8(16))
KERN_WGMMA(64, KERN_T7, "%32", "%33", "%34", "%35", "%36", KERN_C32(0))
KERN_WGMMA(80, KERN_T9, "%40", "%41", "%42", "%43", "%44", KERN_C32(0), KERN_C8(32))
KERN_WGMMA(96, KERN_T11, "%48", "%49", "%50", "%51", "%52", KERN_C32(0), KERN_C16(32))
KERN_WGMMA(112, KERN_T13, "%56", "%57", "%58", "%59", "%60", KERN_C32(0), KERN_C16(32), KERN_C8(48))
KERN_WGMMA(128, KERN_T15, "%64", "%65", "%66", "%67", "%68", KERN_C64(0))
KERN_WGMMA(160, KERN_T19, "%80", "%81", "%82", "%83", "%84", KERN_C64(0), KERN_C16(64))
KERN_WGMMA(192, KERN_T23, "%96", "%97", "%98", "%99", "%100", KERN_C64(0), KERN_C32(64))
KERN_WGMMA(224, KERN_T27, "%112", "%113", "%114", "%115", "%116", KERN_C64(0), KERN_C32(64), KERN_C16(96))
KERN_WGMMA(256, KERN_T31, "%128", "%129", "%130", "%131", "%132", KERN_C64(0), KERN_C64(64))
/* clang-format on */

template <int N> __device__ __forceinline__ void wgmma_ss(float (&acc)[N / 2], uint64_t a, uint64_t b)
{
    wgmma_ss_(acc, a, b);
}

template <int N> __device__ __forceinline__ void wgmma_rs(float (&acc)[N / 2], const uint32_t (&a)[4], uint64_t b)
{
    wgmma_rs_(acc, a, b);
}

#endif

} // namespace kcu

#endif
