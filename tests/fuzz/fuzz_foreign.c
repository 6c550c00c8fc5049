/* Any file as a placement of another program; the first byte chooses the format and how many ranks are stated. Refused,
 * or a plan that reads back from its own text. */
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "placement/foreign.h"
#include "tests/fuzz/input.h"

static void check(const place_plan_t *plan)
{
    cot_buffer_t text = {0};
    place_plan_t *again = NULL;
    if (place_plan_print(plan, &text) != COT_OK) abort();
    if (place_plan_parse((const char *)text.data, text.size, "again", &again) != COT_OK) abort();
    if (again->layers != plan->layers || again->ranks != plan->ranks || again->experts != plan->experts) abort();
    place_plan_destroy(again);
    cot_buffer_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cot_json_setup();
    cot_log_set_level(COT_LOG_ERROR);
    size_t live = cot_memory_live_blocks();
    uint8_t choice = size > 0 ? data[0] : 0;
    place_foreign_t format = (place_foreign_t)(choice % 3);
    const place_foreign_shape_t shape = {.ranks = choice >> 3, .experts = (choice & 4) != 0 ? 4 : 0};
    place_plan_t *plan = NULL;
    if (place_foreign_load(format, input_file(data + (size > 0), size > 0 ? size - 1 : 0), &shape, &plan) == COT_OK) {
        if ((uint64_t)plan->layers * (plan->ranks + plan->experts) < 100000) check(plan); /* more takes too long */
        (void)place_foreign_save(format, "/dev/null", plan);
    }
    place_plan_destroy(plan);
    if (cot_memory_live_blocks() != live) abort();
    return 0;
}
