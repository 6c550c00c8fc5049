/* AVX-512 F, BW, DQ, VL. */
#define KERN_LANES 16

#include "kernels/cpu/prims_body.h"

const kern_prims_t kern_prims_avx512 = KERN_PRIMS_TABLE;
