#include "kernels/cuda/cuda_int.cuh"
cot_status_t kern_cuda_experts_create(kern_t *kern)
{
    COT_TRY(kern_cuda_take(kern, KERN_COUNTERS * sizeof(*kern->counters), reinterpret_cast<void **>(&kern->counters)));
    return kern_cuda_take(kern, static_cast<size_t>(kern->config.max_assignments) * kern->config.max_width * 2,
                          &kern->middle);
}
