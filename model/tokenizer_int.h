/* What a loaded tokenizer is made of; shared by the tokenizer_*.c files only. */
#ifndef MODEL_TOKENIZER_INT_H
#define MODEL_TOKENIZER_INT_H

#define PCRE2_CODE_UNIT_WIDTH 8

#include "base/json.h"
#include "model/tokenizer.h"
#include "model/tokenizer_table.h"
#include "model/tokenizer_unicode.h"

#include <pcre2.h>

#define MODEL_MAX_STEPS 16          /* of a normalizer, a pre-tokenizer or a decoder */
#define MODEL_MAX_TOKENS (1U << 24) /* ids; the largest vocabularies hold under a million */
#define MODEL_MAX_TEMPLATE 64       /* tokens that a post-processor adds on one side */
#define MODEL_MAX_REPLACE 32        /* bytes of the strings of a Replace step, with the final NUL */
#define MODEL_MAX_ADDED_BYTES 1024  /* longest added token */

typedef struct {
    const char *data;
    size_t bytes;
} model_text_t;

/* ---- added tokens ---- */

typedef struct {
    uint32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
} model_added_t;

/* One byte of a trie of added tokens. Node 0 is the root; a child of 0 ends a list. */
typedef struct {
    uint32_t sibling, child;
    uint32_t added; /* index of the token that ends here; MODEL_NO_TOKEN: none */
    uint8_t byte;
} model_trie_node_t;

typedef struct {
    cot_buffer_t nodes;  /* model_trie_node_t */
    uint32_t first[256]; /* child of the root by byte; 0: none */
} model_trie_t;

/* A match of an added token, its stripped white space included. */
typedef struct {
    size_t start, end;
    uint32_t id;
} model_match_t;

cot_status_t model_trie_add(model_trie_t *trie, const char *bytes, size_t count, uint32_t added);
/* The next match at or after *at, which moves past it; `taken` bytes belong to earlier matches. False: none. */
bool model_trie_next(const model_tokenizer_t *tokenizer, const model_trie_t *trie, const model_text_t *text,
                     size_t taken, size_t *at, model_match_t *match_out);

/* ---- normalizer: text -> text ---- */

typedef struct {
    enum { MODEL_NORM_NFC, MODEL_NORM_PREPEND, MODEL_NORM_REPLACE } kind;
    char from[MODEL_MAX_REPLACE], to[MODEL_MAX_REPLACE]; /* PREPEND puts `to` in front */
} model_norm_t;

/* *text becomes its normalised form: unchanged, or held by one of the buffers. */
cot_status_t model_normalize(const model_tokenizer_t *tokenizer, cot_buffer_t buffers[2], model_text_t *text);
/* Appends text with every `from` replaced. */
cot_status_t model_replace(model_text_t text, const char *from, const char *to, cot_buffer_t *out);

/* ---- pre-tokenizer: text -> pieces ---- */

typedef enum {
    MODEL_REMOVED,
    MODEL_ISOLATED,
    MODEL_MERGED_WITH_PREVIOUS,
    MODEL_MERGED_WITH_NEXT,
    MODEL_CONTIGUOUS
} model_behavior_t;

typedef struct {
    enum { MODEL_PRE_SPLIT, MODEL_PRE_SPACE, MODEL_PRE_METASPACE } kind;
    pcre2_code *pattern; /* SPLIT; METASPACE when it splits */
    model_behavior_t behavior;
    bool invert;
    bool first_only; /* METASPACE: prepends only where the text begins */
    bool prepend;    /* METASPACE */
    char mark[8];    /* METASPACE: what stands for a space */
} model_pre_t;

typedef struct {
    const char *text;  /* what is tokenized */
    const char *shape; /* what the patterns look at: text with stand-ins, of the same length */
    size_t bytes;
    bool first; /* begins where the whole text begins */
} model_piece_t;

/* ---- decoder: tokens -> text ---- */

typedef struct {
    enum { MODEL_DECODE_BYTE_LEVEL, MODEL_DECODE_METASPACE, MODEL_DECODE_SEQUENCE } kind;
    uint32_t replaces;
    char from[MODEL_MAX_STEPS][MODEL_MAX_REPLACE], to[MODEL_MAX_STEPS][MODEL_MAX_REPLACE];
    bool byte_fallback;
    char strip[8];   /* one leading character to drop; "": none */
    char mark[8];    /* METASPACE */
    bool drop_first; /* METASPACE: marks of the first token vanish */
} model_decoder_t;

/* ---- the whole ---- */

#define MODEL_TOKEN_ADDED 1U
#define MODEL_TOKEN_SPECIAL 2U
#define MODEL_TOKEN_WHOLE 4U /* the merges make exactly this token of its own text */

struct model_tokenizer {
    uint32_t size;           /* highest id + 1 */
    model_strings_t content; /* token text by id, added tokens included */
    model_strings_t pieces;  /* what a token of the model's vocabulary is in a text (byte-level: its bytes) */
    model_merges_t merges;
    bool byte_level, byte_fallback, fuse_unknown, ignore_merges;
    uint32_t unknown;       /* MODEL_NO_TOKEN: none; unknown characters vanish */
    uint32_t byte_ids[256]; /* byte-level: of each byte; byte fallback: of "<0x..>" */
    uint8_t *flags;         /* by id: MODEL_TOKEN_* */
    bool cut_at_marks;      /* no merge crosses into U+2581 but after a code point of `crossing` */
    cot_buffer_t crossing;  /* uint32_t, ascending */

    model_added_t *added;
    uint32_t added_count;
    model_trie_t raw, normal; /* matched before and after normalisation */

    model_norm_t norms[MODEL_MAX_STEPS];
    uint32_t norm_count;
    model_pre_t pres[MODEL_MAX_STEPS];
    uint32_t pre_count;
    model_decoder_t decoder;
    int32_t prefix[MODEL_MAX_TEMPLATE], suffix[MODEL_MAX_TEMPLATE];
    uint32_t prefix_count, suffix_count;
};

/* Where one call of encode keeps its working memory. Zero-initialise; model_work_free. */
typedef struct {
    const model_tokenizer_t *tokenizer;
    cot_buffer_t *ids;
    pcre2_match_data *match;
    pcre2_match_context *limits;
    cot_buffer_t normal[2], shape, step_text[MODEL_MAX_STEPS], step_shape[MODEL_MAX_STEPS];
    cot_buffer_t symbols, heap;
} model_work_t;

cot_status_t model_work_create(const model_tokenizer_t *tokenizer, cot_buffer_t *ids, model_work_t *work_out);
void model_work_free(model_work_t *work);

/* Runs the pre-tokenizer from step 0 and encodes each piece. */
cot_status_t model_split(model_work_t *work, model_piece_t piece);
/* Compiles a pattern in Oniguruma's syntax, as far as PCRE2 means the same by it. */
cot_status_t model_pattern_compile(const char *pattern, bool literal, pcre2_code **code_out);

/* Appends the ids of one piece. */
cot_status_t model_bpe(model_work_t *work, const char *text, size_t bytes);
/* ... without the short cut through whole[]. */
cot_status_t model_bpe_merge(model_work_t *work, const char *text, size_t bytes);

/* Components of tokenizer.json; each sets its part of `tokenizer` or refuses by name. Order: the vocabulary, then the
 * normalizer and the pre-tokenizer, then the merges and the added tokens, then the rest. */
cot_status_t model_parse_vocabulary(const json_t *root, const json_t *model, model_tokenizer_t *tokenizer,
                                    uint32_t *vocabulary_out);
cot_status_t model_parse_merges(const json_t *model, model_tokenizer_t *tokenizer);
cot_status_t model_parse_added(const json_t *root, model_tokenizer_t *tokenizer, uint32_t vocabulary);
cot_status_t model_parse_normalizer(const json_t *part, model_tokenizer_t *tokenizer);
cot_status_t model_parse_pre_tokenizer(const json_t *part, model_tokenizer_t *tokenizer);
cot_status_t model_parse_post_processor(const json_t *part, model_tokenizer_t *tokenizer);
cot_status_t model_parse_decoder(const json_t *part, model_tokenizer_t *tokenizer);

/* Refuses keys of `object` that are not among the `count` names; `what` is what holds them. */
cot_status_t model_only_keys(const json_t *object, const char *what, const char *const *names, size_t count);

/* GPT-2's printable stand-in of a byte, and back (-1: not one of them). */
uint32_t model_byte_to_code(uint8_t byte);
int model_code_to_byte(uint32_t code);

#endif
