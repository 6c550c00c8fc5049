/* Any file as a safetensors file: refused, or every tensor's bytes lie inside it. */
#include "base/json.h"
#include "base/memory.h"
#include "base/safetensors.h"
#include "tests/fuzz/input.h"

#include <string.h>

static void read_all(const cot_safetensors_t *file)
{
    static volatile uint8_t sum;
    for (uint32_t i = 0; i < cot_safetensors_count(file); i++) {
        const cot_tensor_t *tensor = cot_safetensors_at(file, i);
        if (cot_safetensors_find(file, tensor->name) != tensor) abort();
        uint64_t elements = 1;
        for (uint32_t d = 0; d < tensor->dims; d++) elements *= tensor->shape[d];
        if (elements * cot_dtype_bytes(tensor->dtype) != tensor->bytes) abort();
        for (size_t b = 0; b < tensor->bytes; b++) sum = (uint8_t)(sum + ((const uint8_t *)tensor->data)[b]);
    }
    (void)cot_safetensors_metadata(file, "format");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cot_json_setup();
    size_t live = cot_memory_live_blocks();
    cot_safetensors_t *file = NULL;
    if (cot_safetensors_open(input_file(data, size), &file) == COT_OK) read_all(file);
    cot_safetensors_close(file);
    if (cot_memory_live_blocks() != live) abort();
    return 0;
}
