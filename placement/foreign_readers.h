/* One reader for each format of placement/foreign.h, and what they fill. */
#ifndef PLACE_FOREIGN_READERS_H
#define PLACE_FOREIGN_READERS_H

#include "base/buffer.h"
#include "placement/foreign.h"

#define PLACE_FOREIGN_MAX_LAYERS 4096U
#define PLACE_FOREIGN_MAX_EXPERTS 65536U
#define PLACE_FOREIGN_MAX_RANKS 65536U

/* Slots as the file lists them, layer by layer and rank by rank. Zero-initialised is empty; owns its buffers. */
typedef struct {
    uint32_t ranks, layers, highest; /* expert */
    bool numbered;                   /* the file gives the model's layer numbers */
    cot_buffer_t layer;              /* uint32_t [layers], if numbered */
    cot_buffer_t count;              /* uint32_t [layers, ranks] slots of each rank */
    cot_buffer_t expert;             /* uint32_t, one a slot */
} place_slots_t;

/* Adds the slots of a layer, dealt out equally to the ranks. COT_ERR_FORMAT if they do not divide. */
cot_status_t place_slots_deal(place_slots_t *slots, uint32_t count);
cot_status_t place_slots_add(place_slots_t *slots, int64_t expert);

/* These fill `slots`, whose `ranks` is as stated (0: not); the faults that they find name the file. */
cot_status_t place_foreign_read_trtllm(const char *path, place_slots_t *slots);
cot_status_t place_foreign_read_ascend(const char *path, place_slots_t *slots);
cot_status_t place_foreign_read_phy2log(const char *path, place_slots_t *slots);

#endif
