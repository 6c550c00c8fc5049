/* experts: which form runs. */
#include "kernels/cuda/experts_int.cuh"

#include <assert.h>

cot_status_t kern_cuda_experts_create(kern_t *kern)
{
    void *counters;
    COT_TRY(kern_cuda_take(kern, KERN_COUNTERS * sizeof(*kern->counters), &counters));
    kern->counters = static_cast<uint64_t *>(counters);
    kern->light_rows = 128;
    return kern_cuda_take(kern, static_cast<size_t>(kern->config.max_assignments) * kern->config.max_width * 2,
                          &kern->middle);
}

cot_status_t kern_cuda_experts(kern_t *kern, const kern_experts_args_t *args)
{
    const kern_bank_t *bank = args->bank;
    if (bank == NULL)
        return cot_fail(COT_ERR_UNSUPPORTED,
                        "the cuda backend takes the experts of a layer as a bank (kern_bank_create)");
    assert(args->assignments <= kern->config.max_assignments && args->slots <= bank->slots);
    if (args->slots == 0 || args->assignments == 0) return COT_OK;
    const experts_params params = {.slots = args->slots,
                                   .hidden = bank->hidden,
                                   .width = bank->width,
                                   .light_rows = kern->light_rows,
                                   .x = static_cast<const uint16_t *>(args->x),
                                   .row = args->row,
                                   .order = args->order,
                                   .slot_begin = args->slot_begin,
                                   .middle = static_cast<uint16_t *>(kern->middle),
                                   .y = static_cast<uint16_t *>(args->y),
                                   .y_base = args->y_base,
                                   .per_base = args->per_base,
                                   .counters = reinterpret_cast<unsigned long long *>(kern->counters)};
    return kern->form == KERN_FORM_WGMMA ? kern_cuda_experts_wgmma(kern, bank, &params)
                                         : kern_cuda_experts_mma(kern, bank, &params);
}
