#include "kernels/kern.h"

#include <assert.h>
#include <string.h>

static const char *const NAMES[] = {
#define X(name, text) text,
    KERN_ISA_MAP(X)
#undef X
};

const char *kern_isa_name(kern_isa_t isa)
{
    assert(isa < KERN_ISA_COUNT);
    return NAMES[isa];
}

bool kern_isa_parse(const char *name, kern_isa_t *isa_out)
{
    for (int isa = 0; isa < KERN_ISA_COUNT; isa++) {
        if (strcmp(name, NAMES[isa]) != 0) continue;
        *isa_out = (kern_isa_t)isa;
        return true;
    }
    return false;
}

#if defined(__x86_64__)
/* The builtin asks the CPU and, for wide registers, whether the operating system saves them. */
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool kern_isa_present(kern_isa_t isa)
{
    switch (isa) {
    case KERN_ISA_SCALAR: return true;
    case KERN_ISA_AVX2: return has_avx2();
    case KERN_ISA_AVX512: return has_avx512();
    case KERN_ISA_AVX512_BF16: return has_avx512() && __builtin_cpu_supports("avx512bf16");
    default: return false;
    }
}
#else
bool kern_isa_present(kern_isa_t isa)
{
    return isa == KERN_ISA_SCALAR;
}
#endif

kern_isa_t kern_isa_best(void)
{
    kern_isa_t best = KERN_ISA_SCALAR;
    for (int isa = 0; isa < KERN_ISA_COUNT; isa++)
        if (kern_isa_present((kern_isa_t)isa)) best = (kern_isa_t)isa;
    return best;
}
