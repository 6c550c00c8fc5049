/* UTF-8 and Unicode as the `tokenizers` library sees them, whatever the versions of PCRE2 and utf8proc. */
#ifndef MODEL_TOKENIZER_UNICODE_H
#define MODEL_TOKENIZER_UNICODE_H

#include "base/buffer.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MODEL_REPLACEMENT "\xef\xbf\xbd" /* U+FFFD in UTF-8 */

/* What a decoder finds at the first of `bytes` >= 1 bytes. */
typedef enum { MODEL_UTF8_CHARACTER, MODEL_UTF8_INVALID, MODEL_UTF8_CUT_OFF } model_utf8_t;

/* CHARACTER: *length_out its bytes, *code_out its code point. INVALID: *length_out bytes that stand for one U+FFFD (the
 * maximal subpart of Unicode's chapter 3, as in Rust's from_utf8_lossy). CUT_OFF: all `bytes` begin a character. */
model_utf8_t model_utf8_next(const char *text, size_t bytes, size_t *length_out, uint32_t *code_out);

/* Bytes before the first invalid one; `bytes` if all of the text is UTF-8. */
size_t model_utf8_valid(const char *text, size_t bytes);

/* Where `part` (1 byte or more) first stands in text at or behind `at`; `bytes` if nowhere. Looks no further than that.
 */
size_t model_find(const char *text, size_t bytes, size_t at, const char *part);

/* The code point at, and the one that ends before, a place in valid UTF-8. */
uint32_t model_utf8_at(const char *text, size_t *length_out);
uint32_t model_utf8_before(const char *text, size_t end, size_t *length_out);
/* Writes 1 to 4 bytes; returns how many. */
size_t model_utf8_put(uint32_t code, char out[4]);

/* White_Space and the word characters (\s and \w) of Rust's regex crate. */
bool model_is_space(uint32_t code);
bool model_is_word(uint32_t code);

/* A copy of valid `text`, of the same length, in which each code point that PCRE2 may class otherwise than the library
 * is replaced by one of the same class and length; *copy_out is `text` itself when there is none. Uses `buffer`. */
cot_status_t model_stand_in(const char *text, size_t bytes, cot_buffer_t *buffer, const char **copy_out);

/* Normalisation form C of valid `text`, appended to `out`. O(n log n) for any input. */
cot_status_t model_nfc(const char *text, size_t bytes, cot_buffer_t *out);
/* Whether text is surely in that form already (a quick look at the bytes; false may be wrong). */
bool model_is_nfc_quick(const char *text, size_t bytes);

#endif
