/* Numbers 0 … count-1 that are free or taken: the KV blocks of one worker, or the slots of its sequences. */
#ifndef COORD_KV_TABLE_H
#define COORD_KV_TABLE_H

#include "base/status.h"

#include <stdint.h>

#define COORD_KV_BLOCK 16 /* tokens of a KV block, as KERN_KV_BLOCK */

/* Owns its stack. Zero-initialised: no numbers. */
typedef struct {
    uint32_t *number; /* [free] those that are free; the last one is taken next */
    uint32_t free, count;
} coord_numbers_t;

cot_status_t coord_numbers_create(uint32_t count, coord_numbers_t *numbers_out);
void coord_numbers_destroy(coord_numbers_t *numbers);
uint32_t coord_numbers_take(coord_numbers_t *numbers); /* one must be free */
void coord_numbers_give(coord_numbers_t *numbers, uint32_t number);

/* KV blocks that `tokens` tokens fill or begin. */
static inline uint32_t coord_blocks_of(uint32_t tokens)
{
    return tokens / COORD_KV_BLOCK + (tokens % COORD_KV_BLOCK != 0);
}

#endif
