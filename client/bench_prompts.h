/* What a benchmark asks: lines of a file, or made-up token ids. */
#ifndef CLIENT_BENCH_PROMPTS_H
#define CLIENT_BENCH_PROMPTS_H

#include "base/buffer.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    bool is_text;
    size_t begin, count; /* bytes into `text`, or ids into `ids` */
} client_prompt_t;

/* Zero-initialise; end with client_prompts_free. Immutable once filled: any thread may read. */
typedef struct {
    cot_buffer_t prompts; /* client_prompt_t */
    cot_buffer_t text, ids;
    uint32_t count;
} client_prompts_t;

/* JSONL with {"text": "…"} or {"tokens": […]}; an empty file, or a line of another form, is refused by its number. */
cot_status_t client_prompts_read(client_prompts_t *prompts, const char *path);
/* `count` prompts of `tokens` ids below `vocabulary`, the same for the same seed. */
cot_status_t client_prompts_make(client_prompts_t *prompts, uint32_t count, uint32_t tokens, uint32_t vocabulary,
                                 uint64_t seed);
void client_prompts_free(client_prompts_t *prompts);

const client_prompt_t *client_prompts_get(const client_prompts_t *prompts, uint32_t index); /* < count */

#endif
