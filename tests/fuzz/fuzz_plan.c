/* Any text as a plan: refused, or a plan in which every expert has a place, and whose text reads back as itself. */
#include "base/json.h"
#include "base/memory.h"
#include "placement/plan.h"
#include "tests/fuzz/input.h"

#include <string.h>

static void check(const place_plan_t *plan)
{
    if ((uint64_t)plan->layers * plan->experts * plan->ranks > 100000) return; /* takes too long */
    for (uint32_t layer = 0; layer < plan->layers; layer++)
        for (uint32_t expert = 0; expert < plan->experts; expert++)
            for (uint32_t home = 0; home < plan->ranks; home++) {
                uint32_t rank = place_plan_rank(plan, layer, expert, home);
                if (rank >= plan->ranks || place_plan_slot(plan, layer, rank, expert) < 0) abort();
            }
}

static void print_twice(const place_plan_t *plan)
{
    cot_buffer_t first = {0}, second = {0};
    place_plan_t *again = NULL;
    if (place_plan_print(plan, &first) != COT_OK) abort();
    if (place_plan_parse((const char *)first.data, first.size, "again", &again) != COT_OK) abort();
    if (place_plan_print(again, &second) != COT_OK) abort();
    if (first.size != second.size || memcmp(first.data, second.data, first.size) != 0) abort();
    place_plan_destroy(again);
    cot_buffer_free(&first);
    cot_buffer_free(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cot_json_setup();
    size_t live = cot_memory_live_blocks();
    place_plan_t *plan = NULL;
    if (place_plan_parse((const char *)data, size, "plan", &plan) == COT_OK) {
        check(plan);
        print_twice(plan);
    }
    place_plan_destroy(plan);
    if (cot_memory_live_blocks() != live) abort();
    return 0;
}
