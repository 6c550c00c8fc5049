#include "coordinator/kv_table.h"

#include "base/memory.h"

#include <assert.h>

cot_status_t coord_numbers_create(uint32_t count, coord_numbers_t *numbers_out)
{
    uint32_t *number = cot_calloc(count, sizeof(*number));
    if (number == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a table of %u numbers", count);
    for (uint32_t i = 0; i < count; i++) number[i] = count - 1 - i;
    *numbers_out = (coord_numbers_t){.number = number, .free = count, .count = count};
    return COT_OK;
}

void coord_numbers_destroy(coord_numbers_t *numbers)
{
    cot_free(numbers->number);
    *numbers = (coord_numbers_t){0};
}

uint32_t coord_numbers_take(coord_numbers_t *numbers)
{
    assert(numbers->free > 0);
    return numbers->number[--numbers->free];
}

void coord_numbers_give(coord_numbers_t *numbers, uint32_t number)
{
    assert(numbers->free < numbers->count && number < numbers->count);
    numbers->number[numbers->free++] = number;
}
