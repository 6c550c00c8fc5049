/* The cuda backend: kern_ops_t for NVIDIA GPUs. compute_90 runs the wgmma and TMA forms, compute_80 and newer the
 * mma.sync forms, with the same bits (docs/design.md). What a stage needs of its arguments is said in kernels/kern.h.
 */
#ifndef KERN_CUDA_H
#define KERN_CUDA_H

#include "kernels/kern.h"

#ifdef __cplusplus
extern "C" {
#endif

/* create refuses (COT_ERR_UNSUPPORTED) what this backend does not compute: activations of float32, a head_dim other
 * than 64 and 128, clip_qkv, sizes that are no multiple of what the kernels take; the sentence names it. */
extern const kern_ops_t kern_cuda;

/* Takes memory for the experts of one layer: `slots` (at most KERN_BANK_MAX_SLOTS) of gate and up [width, hidden], down
 * [hidden, width], bf16. hidden must be a multiple of 16, width of 8. The bank owns its memory; `kern` must outlive it.
 */
#define KERN_BANK_MAX_SLOTS 384
cot_status_t kern_bank_create(kern_t *kern, uint32_t slots, uint32_t hidden, uint32_t width, kern_bank_t **bank_out);
void kern_bank_destroy(kern_bank_t *bank); /* NULL is allowed */

/* One expert from host memory, maybe unaligned: gate, up [width, hidden], down [hidden, width], all of `dtype` (float32
 * is rounded to bf16). Waits for the copy: a loading call, not one of a step. COT_ERR_INVALID: no such slot. */
typedef struct {
    const void *gate, *up, *down;
    kern_dtype_t dtype;
} kern_bank_expert_t;
cot_status_t kern_bank_load(kern_bank_t *bank, uint32_t slot, const kern_bank_expert_t *expert);

/* Which form of the products runs, for tests and the lab; the bits are the same. AUTO: the fastest that the device has.
 * FEW and MANY: wgmma with experts of up to 256 rows, or none, taken as having few rows. */
typedef enum {
    KERN_FORM_AUTO,
    KERN_FORM_MMA,
    KERN_FORM_WGMMA,
    KERN_FORM_WGMMA_FEW,
    KERN_FORM_WGMMA_MANY
} kern_cuda_form_t;
/* COT_ERR_UNSUPPORTED: this device lacks it. */
cot_status_t kern_cuda_force(kern_t *kern, kern_cuda_form_t form);

#ifdef __cplusplus
}
#endif

#endif
