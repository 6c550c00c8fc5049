/* The tokenizer that tokenizer.json describes (Hugging Face `tokenizers` format): byte-level BPE and SentencePiece-like
 * BPE with byte fallback. Anything the file asks for that is not understood is refused by name. */
#ifndef MODEL_TOKENIZER_H
#define MODEL_TOKENIZER_H

#include "base/buffer.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* Immutable once loaded: any number of threads may encode and decode. */
typedef struct model_tokenizer model_tokenizer_t;

cot_status_t model_tokenizer_load(const char *directory, model_tokenizer_t **tokenizer_out);
void model_tokenizer_destroy(model_tokenizer_t *tokenizer);
uint32_t model_tokenizer_size(const model_tokenizer_t *tokenizer); /* highest id + 1 */

/* Ids of UTF-8 `text`, appended to `ids` (an array of int32_t in a byte buffer). Special tokens written in the text are
 * recognised; `add_special` puts the post-processor's tokens around it. Invalid UTF-8: COT_ERR_INVALID, with the
 * offset. Linear time but for merges inside one pre-token (n log n). */
cot_status_t model_tokenizer_encode(const model_tokenizer_t *tokenizer, const char *text, size_t bytes,
                                    bool add_special, cot_buffer_t *ids);

/* Text of ids, appended; invalid UTF-8 in the result becomes U+FFFD, as in the `tokenizers` library. An id without a
 * token (a model may have more ids than its tokenizer) stands for no text. */
cot_status_t model_tokenizer_decode(const model_tokenizer_t *tokenizer, const int32_t *ids, uint32_t count,
                                    bool skip_special, cot_buffer_t *text);

/* Decoding of a growing sequence: hands out text only in whole characters, and the same text in all as decoding at
 * once. Owned by the caller; zero-initialise, end with model_stream_free. With byte fallback a run of byte tokens is
 * text only if all of it is UTF-8, so it waits for the run's end. */
typedef struct {
    cot_buffer_t pending; /* bytes of an unfinished character, or of a run of byte tokens */
    bool started;
} model_stream_t;

cot_status_t model_stream_push(const model_tokenizer_t *tokenizer, model_stream_t *stream, int32_t id,
                               bool skip_special, cot_buffer_t *text);
/* What is still pending (as U+FFFD). */
cot_status_t model_stream_finish(const model_tokenizer_t *tokenizer, model_stream_t *stream, cot_buffer_t *text);
void model_stream_free(model_stream_t *stream);

#endif
