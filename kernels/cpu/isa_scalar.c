/* The baseline of the architecture: narrow vectors, no fused multiply-add. */
#define KERN_LANES 4

#include "kernels/cpu/prims_body.h"

const kern_prims_t kern_prims_scalar = KERN_PRIMS_TABLE;
