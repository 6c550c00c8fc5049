/* Any bytes as the messages between the coordinator and its workers: refused, or every view lies inside them. */
#include "proto/step.h"
#include "tests/fuzz/input.h"

static volatile uint8_t sum;

static void touch(const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) sum = (uint8_t)(sum + ((const uint8_t *)bytes)[i]);
}

static void read_step(const rpc_step_t *step)
{
    touch(step->run, step->header.runs * sizeof(*step->run));
    touch(step->token, step->header.tokens * sizeof(*step->token));
    touch(step->block, step->header.blocks * sizeof(*step->block));
    for (uint32_t r = 0; r < step->header.runs; r++) {
        const rpc_run_t *run = &step->run[r];
        touch(step->token + run->token_begin, run->rows * sizeof(*step->token));
        touch(step->block + run->block_begin, sizeof(*step->block) * (((size_t)run->position + run->rows + 15) / 16));
    }
}

static void read_result(const rpc_result_t *result)
{
    const rpc_result_header_t *header = &result->header;
    touch(result->drawn, header->drawn * sizeof(*result->drawn));
    touch(result->routed, header->routed * sizeof(*result->routed));
    touch(result->experts, (size_t)header->routed * header->route_width * sizeof(*result->experts));
    touch(result->weights, (size_t)header->routed * header->route_width * sizeof(*result->weights));
    touch(result->logits, (size_t)header->logits_rows * header->vocab * sizeof(*result->logits));
    touch(result->text, header->text_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* Messages lie at aligned addresses, as malloc gives them. */
    uint8_t *copy = malloc(size + 1);
    if (copy == NULL) abort();
    for (size_t i = 0; i < size; i++) copy[i] = data[i];
    rpc_step_t step;
    rpc_result_t result;
    rpc_start_t start;
    rpc_setup_t setup;
    if (rpc_step_decode(copy, size, &step) == COT_OK) read_step(&step);
    if (rpc_result_decode(copy, size, &result) == COT_OK) read_result(&result);
    if (rpc_start_decode(copy, size, &start) == COT_OK) touch(start.text, sizeof(start.text));
    if (rpc_setup_decode(copy, size, &setup) == COT_OK) {
        touch(setup.settings, setup.settings_bytes);
        touch(setup.plan, setup.plan_bytes);
    }
    free(copy);
    return 0;
}
