/* Text to ids: added tokens, normalisation, pieces, merges, post-processing. */
#include "model/tokenizer_int.h"

#include <string.h>

/* Places in a text are 32-bit inside. */
#define MAX_TEXT_BYTES ((size_t)1 << 30)

cot_status_t model_replace(model_text_t text, const char *from, const char *to, cot_buffer_t *out)
{
    for (size_t at = 0; at < text.bytes;) {
        size_t found = model_find(text.data, text.bytes, at, from);
        COT_TRY(cot_buffer_append(out, text.data + at, found - at));
        if (found == text.bytes) break;
        COT_TRY(cot_buffer_append(out, to, strlen(to)));
        at = found + strlen(from);
    }
    return COT_OK;
}

/* One step, from `text` into `out`; *changed says whether there was anything to do. */
static cot_status_t normalize_step(const model_norm_t *norm, model_text_t text, cot_buffer_t *out, bool *changed)
{
    *changed = true;
    cot_buffer_clear(out);
    switch (norm->kind) {
    case MODEL_NORM_NFC:
        *changed = !model_is_nfc_quick(text.data, text.bytes);
        return *changed ? model_nfc(text.data, text.bytes, out) : COT_OK;
    case MODEL_NORM_PREPEND:
        COT_TRY(cot_buffer_append(out, norm->to, strlen(norm->to)));
        return cot_buffer_append(out, text.data, text.bytes);
    case MODEL_NORM_REPLACE: return model_replace(text, norm->from, norm->to, out);
    }
    return COT_OK;
}

cot_status_t model_normalize(const model_tokenizer_t *tokenizer, cot_buffer_t buffers[2], model_text_t *text)
{
    uint32_t turn = 0;
    for (uint32_t i = 0; i < tokenizer->norm_count && text->bytes > 0; i++) {
        bool changed;
        COT_TRY(normalize_step(&tokenizer->norms[i], *text, &buffers[turn], &changed));
        if (!changed) continue;
        bool empty = buffers[turn].size == 0; /* then there may be no memory at all */
        *text = (model_text_t){empty ? "" : (const char *)buffers[turn].data, buffers[turn].size};
        turn = 1 - turn;
    }
    return COT_OK;
}

static cot_status_t append_id(model_work_t *work, uint32_t id)
{
    return cot_buffer_append(work->ids, &id, sizeof id);
}

/* Normalised text without added tokens. */
static cot_status_t encode_plain(model_work_t *work, model_text_t text, bool first)
{
    if (text.bytes == 0) return COT_OK;
    model_piece_t piece = {.text = text.data, .bytes = text.bytes, .first = first};
    COT_TRY(model_stand_in(text.data, text.bytes, &work->shape, &piece.shape));
    return model_split(work, piece);
}

/* Text between tokens that were added as they are: normalised, then searched for those that are normalised too. */
static cot_status_t encode_segment(model_work_t *work, model_text_t text, bool first)
{
    const model_tokenizer_t *tokenizer = work->tokenizer;
    COT_TRY(model_normalize(tokenizer, work->normal, &text));
    size_t at = 0, taken = 0;
    model_match_t match;
    while (model_trie_next(tokenizer, &tokenizer->normal, &text, taken, &at, &match)) {
        if (taken < match.start)
            COT_TRY(encode_plain(work, (model_text_t){text.data + taken, match.start - taken}, first && taken == 0));
        COT_TRY(append_id(work, match.id));
        taken = match.end;
    }
    return encode_plain(work, (model_text_t){text.data + taken, text.bytes - taken}, first && taken == 0);
}

static cot_status_t encode_text(model_work_t *work, model_text_t text)
{
    const model_tokenizer_t *tokenizer = work->tokenizer;
    size_t at = 0, taken = 0;
    model_match_t match;
    while (model_trie_next(tokenizer, &tokenizer->raw, &text, taken, &at, &match)) {
        if (taken < match.start)
            COT_TRY(encode_segment(work, (model_text_t){text.data + taken, match.start - taken}, taken == 0));
        COT_TRY(append_id(work, match.id));
        taken = match.end;
    }
    return encode_segment(work, (model_text_t){text.data + taken, text.bytes - taken}, taken == 0);
}

cot_status_t model_tokenizer_encode(const model_tokenizer_t *tokenizer, const char *text, size_t bytes,
                                    bool add_special, cot_buffer_t *ids)
{
    if (bytes > MAX_TEXT_BYTES)
        return cot_fail(COT_ERR_LIMIT, "a text of %zu bytes is longer than the tokenizer's limit of %zu", bytes,
                        MAX_TEXT_BYTES);
    size_t valid = model_utf8_valid(text, bytes);
    if (valid < bytes)
        return cot_fail(COT_ERR_INVALID, "the text is not UTF-8: byte 0x%02x at offset %zu", (uint8_t)text[valid],
                        valid);
    model_work_t work;
    COT_TRY(model_work_create(tokenizer, ids, &work));
    size_t before = ids->size;
    cot_status_t status = COT_OK;
    if (add_special)
        COT_TRY_GOTO(cot_buffer_append(ids, tokenizer->prefix, tokenizer->prefix_count * sizeof(int32_t)), status,
                     drop_ids);
    COT_TRY_GOTO(encode_text(&work, (model_text_t){bytes == 0 ? "" : text, bytes}), status, drop_ids);
    if (add_special)
        COT_TRY_GOTO(cot_buffer_append(ids, tokenizer->suffix, tokenizer->suffix_count * sizeof(int32_t)), status,
                     drop_ids);
drop_ids:
    if (status != COT_OK) ids->size = before;
    model_work_free(&work);
    return status;
}
