/* Lines of a file or of standard input, one at a time and without waiting, and what they ask for. */
#ifndef COORD_SCORE_INPUT_H
#define COORD_SCORE_INPUT_H

#include "base/buffer.h"
#include "model/tokenizer.h"

#include <stdbool.h>

/* Owns its bytes, and the file unless it is standard input. */
typedef struct {
    const char *path; /* borrowed */
    int fd;
    size_t line_bytes;     /* longest line */
    cot_buffer_t bytes;    /* read: [taken, size) is still to be handed out */
    size_t taken, scanned; /* no newline in [taken, scanned) */
    bool ended;            /* nothing more comes from the file */
    bool skipping;         /* the rest of a line that was too long */
} coord_input_t;

typedef enum {
    COORD_INPUT_LINE,
    COORD_INPUT_TOO_LONG, /* a line over the limit: its bytes are dropped */
    COORD_INPUT_LATER,    /* standard input has nothing now */
    COORD_INPUT_END
} coord_input_found_t;

cot_status_t coord_input_open(const char *path, size_t line_bytes, coord_input_t *input_out);
void coord_input_close(coord_input_t *input);

/* The next line without its newline, valid until the next call. A last line without a newline counts. */
cot_status_t coord_input_next(coord_input_t *input, coord_input_found_t *found_out, const char **line_out,
                              size_t *bytes_out);

/* Appends the tokens that a line {"tokens":[…]} or {"text":"…"} gives, each below `vocab`, to `tokens` (int32_t); text
 * is encoded with special tokens. An error of the line: COT_ERR_FORMAT, COT_ERR_INVALID or COT_ERR_UNSUPPORTED. */
cot_status_t coord_input_parse(const char *line, size_t bytes, const model_tokenizer_t *tokenizer, uint32_t vocab,
                               cot_buffer_t *tokens);

#endif
