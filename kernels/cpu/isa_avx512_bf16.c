/* AVX-512 with bf16 products (vdpbf16ps) where activations are bf16; all else as in avx512. */
#define KERN_LANES 16

#include "kernels/cpu/prims_body.h"

const kern_prims_t kern_prims_avx512_bf16 = KERN_PRIMS_TABLE;
