/* AVX2 with FMA; compiled with -mavx2 -mfma. */
#define KERN_LANES 8

#include "kernels/cpu/prims_body.h"

const kern_prims_t kern_prims_avx2 = KERN_PRIMS_TABLE;
