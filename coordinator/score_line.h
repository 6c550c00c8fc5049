/* One line of `score` between its reading and its writing. */
#ifndef COORD_SCORE_LINE_H
#define COORD_SCORE_LINE_H

#include "base/buffer.h"
#include "coordinator/engine.h"

typedef struct coord_line {
    struct coord_line *next;
    void *owner;
    uint64_t number; /* from 0 */
    uint32_t count;  /* tokens; 0 with `error` */
    char *error;
    int32_t *token, *top1;    /* [count] */
    float *logprob;           /* [count]; [0] means nothing */
    uint64_t spool_row;       /* of its first row of logits */
    coord_request_t *request; /* NULL once it is done, or was refused */
} coord_line_t;

cot_status_t coord_line_create(uint64_t number, void *owner, coord_line_t **line_out);
void coord_line_free(coord_line_t *line);
/* Copies line->count tokens and takes room for what comes back. */
cot_status_t coord_line_take(coord_line_t *line, const int32_t *tokens);
/* Appends {"tokens":[…],"logprobs":[null,…],"top1":[…]} or {"error":"…"} and a newline. Floats read back to the same
 * bits; what is no number becomes null, for which JSON has no other word. */
cot_status_t coord_line_print(const coord_line_t *line, cot_buffer_t *text);

#endif
