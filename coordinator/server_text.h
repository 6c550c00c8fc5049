/* The text of one answer as its tokens come: whole characters, up to the first stop text. What may be the beginning of
 * a stop text is held back. What has been handed out depends on the tokens alone, not on when they came. */
#ifndef COORD_SERVER_TEXT_H
#define COORD_SERVER_TEXT_H

#include "base/buffer.h"
#include "model/tokenizer.h"
#include "proto/limits.h"

#include <stdbool.h>

/* Zero-initialise; end with coord_text_free. Without a tokenizer there is no text. */
typedef struct {
    const model_tokenizer_t *tokenizer; /* borrowed */
    model_stream_t stream;
    cot_buffer_t held; /* decoded and not handed out */
    cot_buffer_t stop_bytes;
    size_t stop_begin[RPC_MAX_STOPS + 1];
    uint32_t stops;
} coord_text_t;

/* At most RPC_MAX_STOPS, before the first push. COT_ERR_INVALID: empty, too long, not UTF-8, one too many. */
cot_status_t coord_text_add_stop(coord_text_t *text, const void *bytes, size_t count);
/* The prompt's tokens, so that the answer begins where the prompt's text ends (white space, split characters). */
cot_status_t coord_text_follow(coord_text_t *text, const int32_t *prompt, uint32_t count);
/* The next token; what may be handed out is appended to `out`. *stopped_out: a stop text is complete; `out` ends before
 * it, and nothing more is to be pushed. */
cot_status_t coord_text_push(coord_text_t *text, int32_t token, cot_buffer_t *out, bool *stopped_out);
/* The last token has come: hands out what was held back. */
cot_status_t coord_text_finish(coord_text_t *text, cot_buffer_t *out);
void coord_text_free(coord_text_t *text);

#endif
