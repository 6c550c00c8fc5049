/* Byte pair encoding of one piece: symbols in a linked list, the lowest-ranked pair first, the leftmost of equals. */
#include "model/tokenizer_int.h"

#include <stdlib.h>
#include <string.h>

#define NOWHERE UINT32_MAX
#define MARK "\xe2\x96\x81" /* U+2581, which SentencePiece writes for a space */
#define MARK_BYTES 3

/* Up to this many symbols a plain search for the best pair beats a heap. */
#define FEW_SYMBOLS 24

/* `rank` and `merged` are those of the pair with `next`; a symbol that was merged away has MODEL_NO_RANK. */
typedef struct {
    uint32_t id, previous, next, rank, merged;
} symbol_t;

/* The symbols a piece begins with. `unknown` counts characters that await their unknown token. */
typedef struct {
    symbol_t *symbols;
    uint32_t count;
    bool unknown;
} word_t;

static void add_symbol(word_t *word, uint32_t id)
{
    word->symbols[word->count].id = id;
    word->count++;
}

static void flush_unknown(const model_tokenizer_t *tokenizer, word_t *word)
{
    if (word->unknown) add_symbol(word, tokenizer->unknown);
    word->unknown = false;
}

/* A character without a token: its bytes' tokens if there is one for each, else the unknown token, else nothing. The
 * unknown token is put only when the next known character comes: byte tokens may overtake it, as in the library. */
static void add_unknown(const model_tokenizer_t *tokenizer, word_t *word, const char *text, size_t bytes)
{
    bool all = tokenizer->byte_fallback;
    for (size_t i = 0; all && i < bytes; i++) all = tokenizer->byte_ids[(uint8_t)text[i]] != MODEL_NO_TOKEN;
    for (size_t i = 0; all && i < bytes; i++) add_symbol(word, tokenizer->byte_ids[(uint8_t)text[i]]);
    if (all || tokenizer->unknown == MODEL_NO_TOKEN) return;
    if (!tokenizer->fuse_unknown) flush_unknown(tokenizer, word);
    word->unknown = true;
}

static void add_bytes(const model_tokenizer_t *tokenizer, word_t *word, const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        uint32_t id = tokenizer->byte_ids[(uint8_t)text[i]];
        if (id == MODEL_NO_TOKEN) {
            add_unknown(tokenizer, word, text + i, 1);
        } else {
            flush_unknown(tokenizer, word);
            add_symbol(word, id);
        }
    }
    flush_unknown(tokenizer, word);
}

static void add_characters(const model_tokenizer_t *tokenizer, word_t *word, const char *text, size_t bytes)
{
    for (size_t at = 0, length; at < bytes; at += length) {
        model_utf8_at(text + at, &length);
        uint32_t id = model_strings_find(&tokenizer->pieces, text + at, length);
        if (id == MODEL_NO_TOKEN) {
            add_unknown(tokenizer, word, text + at, length);
        } else {
            flush_unknown(tokenizer, word);
            add_symbol(word, id);
        }
    }
    flush_unknown(tokenizer, word);
}

/* Looks up the pair that begins at a symbol. */
static void rank_pair(const model_tokenizer_t *tokenizer, symbol_t *symbols, uint32_t at)
{
    symbol_t *symbol = &symbols[at];
    symbol->rank = MODEL_NO_RANK;
    if (symbol->next == NOWHERE) return;
    const model_merge_t *merge = model_merges_find(&tokenizer->merges, symbol->id, symbols[symbol->next].id);
    if (merge == NULL) return;
    symbol->rank = merge->rank;
    symbol->merged = merge->id;
}

/* Merges the symbol with the next one and ranks the two pairs that changed. */
static void merge_pair(const model_tokenizer_t *tokenizer, symbol_t *symbols, uint32_t at)
{
    symbol_t *left = &symbols[at], *right = &symbols[left->next];
    left->id = left->merged;
    left->next = right->next;
    right->rank = MODEL_NO_RANK;
    if (left->next != NOWHERE) symbols[left->next].previous = at;
    rank_pair(tokenizer, symbols, at);
    if (left->previous != NOWHERE) rank_pair(tokenizer, symbols, left->previous);
}

static void merge_few(const model_tokenizer_t *tokenizer, symbol_t *symbols)
{
    for (;;) {
        uint32_t best = NOWHERE, rank = MODEL_NO_RANK;
        for (uint32_t at = 0; at != NOWHERE; at = symbols[at].next) {
            if (symbols[at].rank >= rank) continue;
            best = at;
            rank = symbols[at].rank;
        }
        if (best == NOWHERE) return;
        merge_pair(tokenizer, symbols, best);
    }
}

/* ---- a heap of (rank, place), the lowest on top ---- */

static void heap_push(uint64_t *heap, size_t *count, uint64_t value)
{
    size_t at = (*count)++;
    while (at > 0 && heap[(at - 1) / 2] > value) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = value;
}

static uint64_t heap_pop(uint64_t *heap, size_t *count)
{
    uint64_t top = heap[0], last = heap[--*count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= *count) break;
        if (child + 1 < *count && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= last) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
    return top;
}

static void push_pair(uint64_t *heap, size_t *count, const symbol_t *symbols, uint32_t at)
{
    if (at != NOWHERE && symbols[at].rank != MODEL_NO_RANK)
        heap_push(heap, count, (uint64_t)symbols[at].rank << 32 | at);
}

/* An entry is stale when its symbol has another rank by now: a pair never comes back to a place. Every merge takes one
 * entry off and puts two on at most, so that 2 x count entries are enough. */
static cot_status_t merge_many(model_work_t *work, symbol_t *symbols, uint32_t count)
{
    cot_buffer_clear(&work->heap);
    COT_TRY(cot_buffer_reserve(&work->heap, 2 * (size_t)count * sizeof(uint64_t)));
    uint64_t *heap = (uint64_t *)(void *)work->heap.data;
    size_t entries = 0;
    for (uint32_t at = 0; at < count; at++) push_pair(heap, &entries, symbols, at);
    while (entries > 0) {
        uint64_t top = heap_pop(heap, &entries);
        uint32_t at = (uint32_t)top;
        if (symbols[at].rank != (uint32_t)(top >> 32)) continue;
        merge_pair(work->tokenizer, symbols, at);
        push_pair(heap, &entries, symbols, at);
        push_pair(heap, &entries, symbols, symbols[at].previous);
    }
    return COT_OK;
}

cot_status_t model_bpe_merge(model_work_t *work, const char *text, size_t bytes)
{
    const model_tokenizer_t *tokenizer = work->tokenizer;
    cot_buffer_clear(&work->symbols);
    COT_TRY(cot_buffer_reserve(&work->symbols, bytes * sizeof(symbol_t)));
    word_t word = {.symbols = (symbol_t *)(void *)work->symbols.data};
    if (tokenizer->byte_level) {
        add_bytes(tokenizer, &word, text, bytes);
    } else {
        add_characters(tokenizer, &word, text, bytes);
    }
    if (word.count == 0) return COT_OK;
    for (uint32_t at = 0; at < word.count; at++) {
        word.symbols[at].previous = at == 0 ? NOWHERE : at - 1;
        word.symbols[at].next = at + 1 == word.count ? NOWHERE : at + 1;
        rank_pair(tokenizer, word.symbols, at);
    }
    if (word.count <= FEW_SYMBOLS) {
        merge_few(tokenizer, word.symbols);
    } else {
        COT_TRY(merge_many(work, word.symbols, word.count));
    }
    for (uint32_t at = 0; at != NOWHERE; at = word.symbols[at].next)
        COT_TRY(cot_buffer_append(work->ids, &word.symbols[at].id, sizeof(int32_t)));
    return COT_OK;
}

/* A word that is a token: most are, and need no merging then. */
static cot_status_t encode_word(model_work_t *work, const char *text, size_t bytes)
{
    uint32_t id = model_strings_find(&work->tokenizer->pieces, text, bytes);
    if (id != MODEL_NO_TOKEN && (work->tokenizer->flags[id] & MODEL_TOKEN_WHOLE) != 0)
        return cot_buffer_append(work->ids, &id, sizeof id);
    return model_bpe_merge(work, text, bytes);
}

static int compare_codes(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return left < right ? -1 : left > right;
}

/* Whether no merge can join text[at - 1] and the mark at `at`: then both sides may be encoded alone. */
static bool may_cut(const model_tokenizer_t *tokenizer, const char *text, size_t at)
{
    size_t length, crossings = tokenizer->crossing.size / sizeof(uint32_t);
    uint32_t code = model_utf8_before(text, at, &length);
    if (crossings > 0 && bsearch(&code, tokenizer->crossing.data, crossings, sizeof code, compare_codes) != NULL)
        return false;
    /* A character that byte tokens or nothing stands for brings others next to the mark. */
    return model_strings_find(&tokenizer->pieces, text + at - length, length) != MODEL_NO_TOKEN;
}

/* SentencePiece-like text comes as one piece of any length; words are cut off it where no merge can cross. */
static cot_status_t encode_words(model_work_t *work, const char *text, size_t bytes)
{
    size_t start = 0;
    for (size_t at = 1; (at = model_find(text, bytes, at, MARK)) < bytes; at += MARK_BYTES) {
        if (!may_cut(work->tokenizer, text, at)) continue;
        COT_TRY(encode_word(work, text + start, at - start));
        start = at;
    }
    return encode_word(work, text + start, bytes - start);
}

cot_status_t model_bpe(model_work_t *work, const char *text, size_t bytes)
{
    const model_tokenizer_t *tokenizer = work->tokenizer;
    if (tokenizer->ignore_merges) {
        uint32_t id = model_strings_find(&tokenizer->pieces, text, bytes);
        if (id != MODEL_NO_TOKEN) return cot_buffer_append(work->ids, &id, sizeof id);
    }
    return tokenizer->cut_at_marks ? encode_words(work, text, bytes) : encode_word(work, text, bytes);
}
