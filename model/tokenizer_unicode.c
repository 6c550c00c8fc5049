#include "model/tokenizer_unicode.h"

#include "model/tokenizer_unicode_table.h"

#include <assert.h>
#include <string.h>
#include <utf8proc.h>

/* Length of the sequence that `lead` starts, 0 if none; the bounds of its second byte (RFC 3629's table). */
static size_t lead_length(uint8_t lead, uint8_t *low, uint8_t *high)
{
    *low = 0x80;
    *high = 0xbf;
    if (lead < 0x80) return 1;
    if (lead < 0xc2 || lead > 0xf4) return 0;
    if (lead < 0xe0) return 2;
    if (lead == 0xe0) *low = 0xa0;
    if (lead == 0xed) *high = 0x9f;
    if (lead == 0xf0) *low = 0x90;
    if (lead == 0xf4) *high = 0x8f;
    return lead < 0xf0 ? 3 : 4;
}

model_utf8_t model_utf8_next(const char *text, size_t bytes, size_t *length_out, uint32_t *code_out)
{
    assert(bytes > 0);
    const uint8_t *at = (const uint8_t *)text;
    uint8_t low, high;
    size_t length = lead_length(at[0], &low, &high);
    *length_out = 1;
    if (length == 0) return MODEL_UTF8_INVALID;
    uint32_t code = length == 1 ? at[0] : at[0] & (0x7fU >> length);
    for (size_t i = 1; i < length; i++) {
        *length_out = i;
        if (i == bytes) return MODEL_UTF8_CUT_OFF;
        if (at[i] < low || at[i] > high) return MODEL_UTF8_INVALID;
        code = code << 6 | (at[i] & 0x3fU);
        low = 0x80;
        high = 0xbf;
    }
    *length_out = length;
    *code_out = code;
    return MODEL_UTF8_CHARACTER;
}

/* ASCII bytes at the start of text, found eight at a time. */
static size_t ascii_run(const char *text, size_t bytes)
{
    size_t at = 0;
    while (at + 8 <= bytes) {
        uint64_t word;
        memcpy(&word, text + at, sizeof word);
        if (word & 0x8080808080808080ULL) break;
        at += 8;
    }
    while (at < bytes && (uint8_t)text[at] < 0x80) at++;
    return at;
}

size_t model_utf8_valid(const char *text, size_t bytes)
{
    size_t at = ascii_run(text, bytes);
    while (at < bytes) {
        size_t length;
        uint32_t code;
        if (model_utf8_next(text + at, bytes - at, &length, &code) != MODEL_UTF8_CHARACTER) return at;
        at += length;
        if (code < 0x80) at += ascii_run(text + at, bytes - at);
    }
    return at;
}

size_t model_find(const char *text, size_t bytes, size_t at, const char *part)
{
    size_t length = strlen(part);
    while (at < bytes) {
        const char *found = memchr(text + at, part[0], bytes - at);
        if (found == NULL) return bytes;
        at = (size_t)(found - text);
        if (bytes - at >= length && memcmp(found, part, length) == 0) return at;
        at++;
    }
    return bytes;
}

uint32_t model_utf8_at(const char *text, size_t *length_out)
{
    const uint8_t *at = (const uint8_t *)text;
    if (at[0] < 0x80) {
        *length_out = 1;
        return at[0];
    }
    size_t length = at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;
    uint32_t code = at[0] & (0x7fU >> length);
    for (size_t i = 1; i < length; i++) code = code << 6 | (at[i] & 0x3fU);
    *length_out = length;
    return code;
}

uint32_t model_utf8_before(const char *text, size_t end, size_t *length_out)
{
    size_t start = end - 1;
    while (start > 0 && ((uint8_t)text[start] & 0xc0) == 0x80) start--;
    return model_utf8_at(text + start, length_out);
}

size_t model_utf8_put(uint32_t code, char out[4])
{
    return (size_t)utf8proc_encode_char((utf8proc_int32_t)code, (utf8proc_uint8_t *)out);
}

bool model_is_space(uint32_t code)
{
    return (code >= 0x9 && code <= 0xd) || code == 0x20 || code == 0x85 || code == 0xa0 || code == 0x1680 ||
           (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 || code == 0x202f || code == 0x205f ||
           code == 0x3000;
}

/* The entry of a range table (rows of `width` numbers, first and last in front) that holds `code`, or NULL. */
static const uint32_t *find_range(const uint32_t *table, size_t rows, size_t width, uint32_t code)
{
    size_t low = 0, high = rows;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const uint32_t *row = table + middle * width;
        if (code < row[0]) {
            high = middle;
        } else if (code > row[1]) {
            low = middle + 1;
        } else {
            return row;
        }
    }
    return NULL;
}

#define ROWS(table) (sizeof(table) / sizeof((table)[0]))

static uint32_t stand_in(uint32_t code)
{
    if (code < stand_in_table[0][0]) return code;
    const uint32_t *row = find_range(stand_in_table[0], ROWS(stand_in_table), 3, code);
    return row == NULL ? code : row[2];
}

static bool is_inert(uint32_t code)
{
    return code >= inert_table[0][0] && find_range(inert_table[0], ROWS(inert_table), 2, code) != NULL;
}

bool model_is_word(uint32_t code)
{
    if (code == 0x200c || code == 0x200d) return true;
    bool circled_letter = (code >= 0x24b6 && code <= 0x24e9) || (code >= 0x1f130 && code <= 0x1f149) ||
                          (code >= 0x1f150 && code <= 0x1f169) || (code >= 0x1f170 && code <= 0x1f189);
    if (circled_letter) return true;
    switch (utf8proc_category((utf8proc_int32_t)stand_in(code))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    default: return false;
    }
}

cot_status_t model_stand_in(const char *text, size_t bytes, cot_buffer_t *buffer, const char **copy_out)
{
    char *copy = NULL;
    for (size_t at = 0; at < bytes;) {
        /* Every code point of the table takes three bytes or four. */
        if ((uint8_t)text[at] < 0xe0) {
            at += (uint8_t)text[at] < 0x80 ? 1 : 2;
            continue;
        }
        size_t length;
        uint32_t code = model_utf8_at(text + at, &length), other = stand_in(code);
        if (other != code && copy == NULL) {
            cot_buffer_clear(buffer);
            COT_TRY(cot_buffer_append(buffer, text, bytes));
            copy = (char *)buffer->data;
        }
        if (other != code) model_utf8_put(other, copy + at);
        at += length;
    }
    *copy_out = copy == NULL ? text : copy;
    return COT_OK;
}

bool model_is_nfc_quick(const char *text, size_t bytes)
{
    /* Nothing below U+0300 (lead bytes below 0xcc) combines. */
    for (size_t i = 0; i < bytes; i++)
        if ((uint8_t)text[i] >= 0xcc) return false;
    return true;
}

/* ---- normalisation: decompose, order the marks, compose ---- */

static uint8_t combining_class(uint32_t code)
{
    return (uint8_t)utf8proc_get_property((utf8proc_int32_t)code)->combining_class;
}

/* Stable merge of two neighbouring sorted runs of `codes` through `spare`. */
static void merge_marks(int32_t *codes, size_t middle, size_t end, int32_t *spare)
{
    size_t a = 0, b = middle, out = 0;
    while (a < middle || b < end) {
        bool take_a = b == end ||
                      (a < middle && combining_class((uint32_t)codes[a]) <= combining_class((uint32_t)codes[b]));
        spare[out++] = take_a ? codes[a++] : codes[b++];
    }
    memcpy(codes, spare, end * sizeof *codes);
}

/* Canonical ordering of one run of marks, by merging upwards: a long run must not cost its square. */
static void order_marks(int32_t *codes, size_t count, int32_t *spare)
{
    for (size_t width = 1; width < count; width *= 2) {
        for (size_t at = 0; at + width < count; at += 2 * width) {
            size_t end = count - at < 2 * width ? count - at : 2 * width;
            merge_marks(codes + at, width, end, spare);
        }
    }
}

static void order_all_marks(int32_t *codes, size_t count, int32_t *spare)
{
    for (size_t at = 0; at < count;) {
        size_t end = at;
        while (end < count && combining_class((uint32_t)codes[end]) > 0) end++;
        if (end - at > 1) order_marks(codes + at, end - at, spare);
        at = end > at ? end : at + 1;
    }
}

/* Normalises text[0, bytes) that holds no inert code point. `codes` has room for 2 x 4 code points a character. */
static cot_status_t normalise_run(const char *text, size_t bytes, cot_buffer_t *scratch, cot_buffer_t *out)
{
    /* A byte decomposes to at most two code points (a character of two bytes to four at most; Hangul's three to 3). */
    size_t room = 2 * bytes + 4;
    COT_TRY(cot_buffer_reserve(scratch, 2 * room * sizeof(int32_t)));
    int32_t *codes = (int32_t *)(void *)scratch->data, *spare = codes + room;
    size_t count = 0;
    int boundary = 0;
    for (size_t at = 0, length; at < bytes; at += length) {
        uint32_t code = model_utf8_at(text + at, &length);
        utf8proc_ssize_t made = utf8proc_decompose_char(
            (utf8proc_int32_t)code, codes + count, (utf8proc_ssize_t)(room - count), UTF8PROC_DECOMPOSE, &boundary);
        if (made < 0 || (size_t)made > room - count)
            return cot_fail(COT_ERR_INTERNAL, "U+%04X does not decompose: report this text", (unsigned)code);
        count += (size_t)made;
    }
    order_all_marks(codes, count, spare);
    utf8proc_ssize_t composed = utf8proc_normalize_utf32(codes, (utf8proc_ssize_t)count,
                                                         UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    for (utf8proc_ssize_t i = 0; i < composed; i++) {
        char encoded[4];
        size_t length = model_utf8_put((uint32_t)codes[i], encoded);
        COT_TRY(cot_buffer_append(out, encoded, length));
    }
    return COT_OK;
}

/* Text is normalised in runs: ASCII neither decomposes nor composes with what stands before it, so that any ASCII
 * character may begin one. Short runs leave most of a text that is in the form already untouched. */
#define RUN_BYTES ((size_t)256)

/* Bytes that are normalised at once: up to the first inert code point, or a place to cut. */
static size_t run_length(const char *text, size_t bytes)
{
    size_t at = 0;
    while (at < bytes) {
        size_t length;
        uint32_t code = model_utf8_at(text + at, &length);
        if (is_inert(code) || (at >= RUN_BYTES && code < 0x80)) break;
        at += length;
    }
    return at;
}

cot_status_t model_nfc(const char *text, size_t bytes, cot_buffer_t *out)
{
    cot_buffer_t scratch = {0};
    cot_status_t status = COT_OK;
    for (size_t at = 0; at < bytes;) {
        size_t run = run_length(text + at, bytes - at);
        if (run > 0 && model_is_nfc_quick(text + at, run)) {
            COT_TRY_GOTO(cot_buffer_append(out, text + at, run), status, free_scratch);
        } else if (run > 0) {
            COT_TRY_GOTO(normalise_run(text + at, run, &scratch, out), status, free_scratch);
        } else {
            model_utf8_at(text + at, &run); /* an inert character stays as it is */
            COT_TRY_GOTO(cot_buffer_append(out, text + at, run), status, free_scratch);
        }
        at += run;
    }
free_scratch:
    cot_buffer_free(&scratch);
    return status;
}
