/* Lines of `coterie score`: any bytes either give token ids below the vocabulary or are refused. */
#include "base/json.h"
#include "coordinator/score_input.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    cot_buffer_t tokens = {0};
    cot_json_setup();
    if (coord_input_parse((const char *)bytes, count, NULL, 100, &tokens) == COT_OK) {
        const int32_t *id = (const int32_t *)(const void *)tokens.data;
        if (tokens.size == 0) abort();
        for (size_t i = 0; i < tokens.size / sizeof(*id); i++)
            if (id[i] < 0 || id[i] >= 100) abort();
    }
    cot_buffer_free(&tokens);
    return 0;
}
