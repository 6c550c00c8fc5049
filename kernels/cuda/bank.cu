/* The experts of a layer, stacked in slot order. Gate and up rows are interleaved in groups of 8, so that a gate and
 * its up sit in one thread's accumulators whichever side the weights are on. */
#include "kernels/cuda/cuda_int.cuh"

static cot_status_t take(uint64_t bytes, const kern_t *kern, uint16_t **memory_out)
{
    void *memory = NULL;
    if (cudaMalloc(&memory, bytes) != cudaSuccess)
        return cot_fail(COT_ERR_NO_MEMORY, "device %d has no memory for a layer's experts (%llu bytes)", kern->device,
                        static_cast<unsigned long long>(bytes));
    *memory_out = static_cast<uint16_t *>(memory);
    return COT_OK;
}

static cot_status_t fill(kern_bank_t *bank)
{
    const uint64_t rows = static_cast<uint64_t>(bank->slots) * 2 * bank->width;
    const uint64_t down_rows = static_cast<uint64_t>(bank->slots) * bank->hidden;
    COT_TRY(take(rows * bank->hidden * 2, bank->kern, &bank->gate_up));
    COT_TRY(take(down_rows * bank->width * 2, bank->kern, &bank->down));
    COT_TRY(kern_cuda_encode(bank->kern, bank->gate_up, rows, bank->hidden, bank->hidden, &bank->gate_up_map));
    return kern_cuda_encode(bank->kern, bank->down, down_rows, bank->width, bank->width, &bank->down_map);
}

cot_status_t kern_bank_create(kern_t *kern, uint32_t slots, uint32_t hidden, uint32_t width, kern_bank_t **bank_out)
{
    if (slots == 0 || slots > KERN_BANK_MAX_SLOTS)
        return cot_fail(COT_ERR_UNSUPPORTED, "%u experts of a layer on one device: the cuda backend takes 1 to %d",
                        slots, KERN_BANK_MAX_SLOTS);
    if (hidden % 64 != 0 || width == 0 || width % 8 != 0 || hidden != kern->config.hidden ||
        width > kern->config.max_width)
        return cot_fail(COT_ERR_UNSUPPORTED,
                        "experts of %u x %u: the cuda backend takes a hidden size in multiples of 64 and a width in "
                        "multiples of 8, within the configuration's",
                        width, hidden);
    kern_bank_t *bank = static_cast<kern_bank_t *>(cot_calloc(1, sizeof(*bank)));
    if (bank == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a bank of experts");
    bank->kern = kern;
    bank->slots = slots;
    bank->hidden = hidden;
    bank->width = width;
    cot_status_t status = fill(bank);
    if (status != COT_OK) {
        kern_bank_destroy(bank);
        return status;
    }
    *bank_out = bank;
    return COT_OK;
}

void kern_bank_destroy(kern_bank_t *bank)
{
    if (bank == NULL) return;
    cudaFree(bank->gate_up);
    cudaFree(bank->down);
    cot_free(bank);
}

cot_status_t kern_bank_load(kern_bank_t *bank, uint32_t slot, const kern_bank_expert_t *expert)
{
    if (slot >= bank->slots) return cot_fail(COT_ERR_INVALID, "slot %u of a bank of %u experts", slot, bank->slots);
    const size_t hidden = bank->hidden;
    uint16_t *gate_up = bank->gate_up + slot * 2ULL * bank->width * hidden;
    /* A group of 8 rows is 8 hidden elements in one piece, groups of one kind lie 16 rows apart: a row of 8 hidden. */
    for (int up = 0; up < 2; up++) {
        const kern_cuda_copy rows = {.data = up ? expert->up : expert->gate,
                                     .dtype = expert->dtype,
                                     .rows = bank->width / 8,
                                     .cols = static_cast<uint32_t>(8 * hidden),
                                     .pitch = static_cast<uint32_t>(16 * hidden)};
        COT_TRY(kern_cuda_copy_rows(&rows, gate_up + up * 8 * hidden));
    }
    const kern_cuda_copy down = {
        .data = expert->down, .dtype = expert->dtype, .rows = bank->hidden, .cols = bank->width, .pitch = bank->width};
    return kern_cuda_copy_rows(&down, bank->down + slot * hidden * bank->width);
}
