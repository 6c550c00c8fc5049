/* tokenizer.json: vocabulary and merges, and the order in which its parts are read. */
#include "model/tokenizer_int.h"

#include "base/file.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

/* The largest known tokenizer.json files take about 40 MB. */
#define MAX_FILE_BYTES ((size_t)512 << 20)
#define MARK_CODE 0x2581U

static const json_t *present(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

/* ---- vocabulary ---- */

static cot_status_t check_token_id(const char *token, const json_t *value)
{
    if (json_is_integer(value) && json_integer_value(value) >= 0 && json_integer_value(value) < MODEL_MAX_TOKENS)
        return COT_OK;
    return cot_fail(COT_ERR_FORMAT, "the vocabulary's token \"%s\" has no id from 0 to %u", token,
                    MODEL_MAX_TOKENS - 1);
}

/* Highest id of the vocabulary and of the added tokens, plus 1. */
static cot_status_t count_ids(const json_t *root, const json_t *vocabulary, uint32_t *ids_out)
{
    json_int_t highest = -1;
    const char *key;
    json_t *value;
    size_t index;
    json_object_foreach((json_t *)(uintptr_t)vocabulary, key, value)
    {
        COT_TRY(check_token_id(key, value));
        if (json_integer_value(value) > highest) highest = json_integer_value(value);
    }
    const json_t *added = present(root, "added_tokens");
    if (added != NULL && !json_is_array(added)) return cot_fail(COT_ERR_FORMAT, "\"added_tokens\" must be a list");
    json_array_foreach(added, index, value)
    {
        json_int_t id = json_integer_value(json_object_get(value, "id"));
        if (id > highest && id < MODEL_MAX_TOKENS) highest = id;
    }
    *ids_out = (uint32_t)(highest + 1);
    return COT_OK;
}

cot_status_t model_parse_vocabulary(const json_t *root, const json_t *model, model_tokenizer_t *tokenizer,
                                    uint32_t *vocabulary_out)
{
    const json_t *vocabulary = json_object_get(model, "vocab");
    if (!json_is_object(vocabulary) || json_object_size(vocabulary) == 0)
        return cot_fail(COT_ERR_FORMAT, "the model has no vocabulary (\"vocab\")");
    COT_TRY(count_ids(root, vocabulary, &tokenizer->size));
    *vocabulary_out = (uint32_t)json_object_size(vocabulary);
    uint32_t entries = *vocabulary_out + (uint32_t)json_array_size(json_object_get(root, "added_tokens"));
    COT_TRY(model_strings_create(entries, tokenizer->size, &tokenizer->content));
    tokenizer->flags = cot_calloc(tokenizer->size, 1);
    if (tokenizer->flags == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for %u tokens", tokenizer->size);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)vocabulary, key, value)
    {
        uint32_t id = (uint32_t)json_integer_value(value);
        if (model_strings_has(&tokenizer->content, id))
            return cot_fail(COT_ERR_FORMAT, "the vocabulary gives id %u to \"%s\" and to another token", id, key);
        COT_TRY(model_strings_add(&tokenizer->content, key, strlen(key), id));
    }
    return COT_OK;
}

/* ---- what the vocabulary's tokens are in a text ---- */

/* The bytes that a byte-level token stands for; false if it has a character outside the alphabet: no text makes it. */
static bool token_bytes(const char *token, size_t bytes, char *out, size_t *count_out)
{
    *count_out = 0;
    for (size_t at = 0, length; at < bytes; at += length) {
        int byte = model_code_to_byte(model_utf8_at(token + at, &length));
        if (byte < 0) return false;
        out[(*count_out)++] = (char)byte;
    }
    return true;
}

static cot_status_t add_piece(model_tokenizer_t *tokenizer, uint32_t id, cot_buffer_t *scratch)
{
    size_t bytes, count;
    const char *token = model_strings_get(&tokenizer->content, id, &bytes);
    if (bytes == 0) return COT_OK;
    if (!tokenizer->byte_level) return model_strings_add(&tokenizer->pieces, token, bytes, id);
    COT_TRY(cot_buffer_reserve(scratch, bytes));
    char *out = (char *)scratch->data;
    return token_bytes(token, bytes, out, &count) ? model_strings_add(&tokenizer->pieces, out, count, id) : COT_OK;
}

/* Called before the added tokens join the vocabulary in `content`. */
static cot_status_t make_pieces(model_tokenizer_t *tokenizer, uint32_t vocabulary)
{
    COT_TRY(model_strings_create(vocabulary, tokenizer->size, &tokenizer->pieces));
    cot_buffer_t scratch = {0};
    cot_status_t status = COT_OK;
    for (uint32_t id = 0; id < tokenizer->size && status == COT_OK; id++)
        if (model_strings_has(&tokenizer->content, id)) status = add_piece(tokenizer, id, &scratch);
    cot_buffer_free(&scratch);
    for (uint32_t byte = 0; byte < 256; byte++) {
        char name[8];
        size_t length = model_utf8_put(model_byte_to_code((uint8_t)byte), name);
        if (!tokenizer->byte_level) length = (size_t)snprintf(name, sizeof name, "<0x%02X>", byte);
        tokenizer->byte_ids[byte] = model_strings_find(&tokenizer->content, name, length);
    }
    return status;
}

/* ---- merges ---- */

typedef struct {
    model_text_t left, right;
} merge_text_t;

/* "a b" or ["a", "b"]. */
static cot_status_t read_merge(const json_t *entry, size_t index, merge_text_t *merge)
{
    if (json_is_array(entry) && json_array_size(entry) == 2) {
        const json_t *left = json_array_get(entry, 0), *right = json_array_get(entry, 1);
        if (json_is_string(left) && json_is_string(right)) {
            merge->left = (model_text_t){json_string_value(left), json_string_length(left)};
            merge->right = (model_text_t){json_string_value(right), json_string_length(right)};
            return COT_OK;
        }
    }
    const char *text = json_string_value(entry), *space = text == NULL ? NULL : strchr(text, ' ');
    if (space == NULL || strchr(space + 1, ' ') != NULL)
        return cot_fail(COT_ERR_FORMAT, "merge %zu is not two tokens with a space between, nor a pair of strings",
                        index);
    merge->left = (model_text_t){text, (size_t)(space - text)};
    merge->right = (model_text_t){space + 1, strlen(space + 1)};
    return COT_OK;
}

static cot_status_t merge_part(const model_tokenizer_t *tokenizer, size_t index, model_text_t part, uint32_t *id_out)
{
    *id_out = model_strings_find(&tokenizer->content, part.data, part.bytes);
    if (*id_out != MODEL_NO_TOKEN) return COT_OK;
    return cot_fail(COT_ERR_FORMAT, "merge %zu needs the token \"%.*s\", which is not in the vocabulary", index,
                    (int)(part.bytes < 64 ? part.bytes : 64), part.data);
}

/* A merge whose right side begins with the mark: what stands before that mark may merge with it. */
static cot_status_t note_crossing(model_tokenizer_t *tokenizer, const merge_text_t *merge)
{
    size_t length;
    if (merge->left.bytes == 0 || merge->right.bytes == 0 || model_utf8_at(merge->right.data, &length) != MARK_CODE)
        return COT_OK;
    uint32_t code = model_utf8_before(merge->left.data, merge->left.bytes, &length);
    return cot_buffer_append(&tokenizer->crossing, &code, sizeof code);
}

static cot_status_t take_merge(const json_t *entry, uint32_t rank, model_tokenizer_t *tokenizer, cot_buffer_t *scratch)
{
    merge_text_t merge = {0};
    uint32_t left = 0, right = 0, id = 0;
    COT_TRY(read_merge(entry, rank, &merge));
    COT_TRY(merge_part(tokenizer, rank, merge.left, &left));
    COT_TRY(merge_part(tokenizer, rank, merge.right, &right));
    cot_buffer_clear(scratch);
    COT_TRY(cot_buffer_append(scratch, merge.left.data, merge.left.bytes));
    COT_TRY(cot_buffer_append(scratch, merge.right.data, merge.right.bytes));
    COT_TRY(merge_part(tokenizer, rank, (model_text_t){(const char *)scratch->data, scratch->size}, &id));
    model_merges_put(&tokenizer->merges, left, right, rank, id);
    return tokenizer->byte_level ? COT_OK : note_crossing(tokenizer, &merge);
}

static int compare_codes(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return left < right ? -1 : left > right;
}

cot_status_t model_parse_merges(const json_t *model, model_tokenizer_t *tokenizer)
{
    const json_t *list = json_object_get(model, "merges");
    size_t count = json_array_size(list);
    if (count == 0) return cot_fail(COT_ERR_FORMAT, "the model has no merges: byte pair encoding needs them");
    if (count >= MODEL_NO_RANK / 2) return cot_fail(COT_ERR_LIMIT, "the model has %zu merges", count);
    COT_TRY(model_merges_create((uint32_t)count, &tokenizer->merges));
    cot_buffer_t scratch = {0};
    cot_status_t status = COT_OK;
    uint32_t rank = 0;
    for (size_t i = 0; i < count && status == COT_OK; i++) {
        const json_t *entry = json_array_get(list, i);
        const char *text = json_string_value(entry);
        /* The first line of a merges.txt is no merge. */
        if (text == NULL || strncmp(text, "#version", 8) != 0) status = take_merge(entry, rank++, tokenizer, &scratch);
    }
    cot_buffer_free(&scratch);
    COT_TRY(status);
    size_t crossings = tokenizer->crossing.size / sizeof(uint32_t);
    if (crossings > 0) qsort(tokenizer->crossing.data, crossings, sizeof(uint32_t), compare_codes);
    tokenizer->cut_at_marks = !tokenizer->byte_level &&
                              model_strings_find(&tokenizer->pieces, "\xe2\x96\x81", 3) != MODEL_NO_TOKEN;
    return COT_OK;
}

/* Marks the tokens that the merges make of their own text: such a word needs no merging later. */
static cot_status_t find_whole_tokens(model_tokenizer_t *tokenizer)
{
    cot_buffer_t ids = {0};
    model_work_t work;
    COT_TRY(model_work_create(tokenizer, &ids, &work));
    cot_status_t status = COT_OK;
    for (uint32_t id = 0; id < tokenizer->size && status == COT_OK; id++) {
        if (!model_strings_has(&tokenizer->pieces, id)) continue;
        size_t bytes;
        const char *text = model_strings_get(&tokenizer->pieces, id, &bytes);
        cot_buffer_clear(&ids);
        status = model_bpe_merge(&work, text, bytes);
        if (status == COT_OK && ids.size == sizeof id && memcmp(ids.data, &id, sizeof id) == 0)
            tokenizer->flags[id] |= MODEL_TOKEN_WHOLE;
    }
    model_work_free(&work);
    cot_buffer_free(&ids);
    return status;
}

/* ---- the model's options ---- */

static cot_status_t refuse_affix(const json_t *model, const char *key)
{
    const char *affix = "";
    COT_TRY(cot_json_get_string(model, key, &affix));
    return affix[0] == '\0' ? COT_OK
                            : cot_fail(COT_ERR_UNSUPPORTED, "the model's %s \"%s\" is not supported", key, affix);
}

static cot_status_t parse_options(const json_t *model, model_tokenizer_t *tokenizer)
{
    static const char *const keys[] = {"type",
                                       "vocab",
                                       "merges",
                                       "dropout",
                                       "unk_token",
                                       "continuing_subword_prefix",
                                       "end_of_word_suffix",
                                       "fuse_unk",
                                       "byte_fallback",
                                       "ignore_merges"};
    const char *type = "BPE", *unknown = NULL;
    COT_TRY(cot_json_get_string(model, "type", &type));
    if (strcmp(type, "BPE") != 0)
        return cot_fail(COT_ERR_UNSUPPORTED, "the model type %s is not supported, only BPE", type);
    COT_TRY(model_only_keys(model, "the model", keys, sizeof keys / sizeof *keys));
    double dropout = 0;
    COT_TRY(cot_json_get_double(model, "dropout", &dropout));
    if (dropout != 0)
        return cot_fail(COT_ERR_UNSUPPORTED, "the model's dropout %g is not supported: it must be 0", dropout);
    COT_TRY(refuse_affix(model, "continuing_subword_prefix"));
    COT_TRY(refuse_affix(model, "end_of_word_suffix"));
    COT_TRY(cot_json_get_bool(model, "fuse_unk", &tokenizer->fuse_unknown));
    COT_TRY(cot_json_get_bool(model, "byte_fallback", &tokenizer->byte_fallback));
    COT_TRY(cot_json_get_bool(model, "ignore_merges", &tokenizer->ignore_merges));
    COT_TRY(cot_json_get_string(model, "unk_token", &unknown));
    tokenizer->unknown = MODEL_NO_TOKEN;
    if (unknown == NULL) return COT_OK;
    tokenizer->unknown = model_strings_find(&tokenizer->content, unknown, strlen(unknown));
    if (tokenizer->unknown != MODEL_NO_TOKEN) return COT_OK;
    return cot_fail(COT_ERR_FORMAT, "the unk_token \"%s\" is not in the vocabulary", unknown);
}

/* ---- the file ---- */

static cot_status_t check_root(const json_t *root)
{
    static const char *const keys[] = {"version",       "truncation",     "padding", "added_tokens", "normalizer",
                                       "pre_tokenizer", "post_processor", "decoder", "model"};
    COT_TRY(model_only_keys(root, "the file", keys, sizeof keys / sizeof *keys));
    const char *version = "1.0";
    COT_TRY(cot_json_get_string(root, "version", &version));
    if (strcmp(version, "1.0") != 0)
        return cot_fail(COT_ERR_UNSUPPORTED, "the version \"%s\" is not supported, only 1.0", version);
    static const char *const unused[] = {"truncation", "padding"};
    for (int i = 0; i < 2; i++)
        if (present(root, unused[i]) != NULL)
            return cot_fail(COT_ERR_UNSUPPORTED, "\"%s\" is not supported: set it to null", unused[i]);
    if (!json_is_object(json_object_get(root, "model"))) return cot_fail(COT_ERR_FORMAT, "there is no \"model\"");
    return COT_OK;
}

static cot_status_t parse_root(const json_t *root, model_tokenizer_t *tokenizer)
{
    uint32_t vocabulary = 0;
    COT_TRY(check_root(root));
    const json_t *model = json_object_get(root, "model");
    COT_TRY(model_parse_vocabulary(root, model, tokenizer, &vocabulary));
    COT_TRY(parse_options(model, tokenizer));
    COT_TRY(model_parse_normalizer(json_object_get(root, "normalizer"), tokenizer));
    COT_TRY(model_parse_pre_tokenizer(json_object_get(root, "pre_tokenizer"), tokenizer));
    if (tokenizer->byte_level && tokenizer->byte_fallback)
        return cot_fail(COT_ERR_UNSUPPORTED,
                        "byte_fallback together with the pre-tokenizer ByteLevel is not supported");
    COT_TRY(make_pieces(tokenizer, vocabulary));
    COT_TRY(model_parse_merges(model, tokenizer));
    COT_TRY(find_whole_tokens(tokenizer));
    COT_TRY(model_parse_added(root, tokenizer, vocabulary));
    COT_TRY(model_parse_post_processor(json_object_get(root, "post_processor"), tokenizer));
    return model_parse_decoder(json_object_get(root, "decoder"), tokenizer);
}

cot_status_t model_tokenizer_load(const char *directory, model_tokenizer_t **tokenizer_out)
{
    cot_status_t status = COT_OK;
    json_t *root = NULL;
    char *path = cot_path_join(directory, "tokenizer.json");
    model_tokenizer_t *tokenizer = cot_calloc(1, sizeof *tokenizer);
    if (path == NULL || tokenizer == NULL) {
        status = cot_fail(COT_ERR_NO_MEMORY, "no memory for a tokenizer");
        goto free_tokenizer;
    }
    COT_TRY_GOTO(cot_json_load_file(path, MAX_FILE_BYTES, &root), status, free_tokenizer);
    status = parse_root(root, tokenizer);
    json_decref(root);
    if (status != COT_OK) {
        cot_fail_in(status, "%s", path);
        goto free_tokenizer;
    }
    cot_free(path);
    *tokenizer_out = tokenizer;
    return COT_OK;
free_tokenizer:
    model_tokenizer_destroy(tokenizer);
    cot_free(path);
    return status;
}

void model_tokenizer_destroy(model_tokenizer_t *tokenizer)
{
    if (tokenizer == NULL) return;
    for (uint32_t i = 0; i < MODEL_MAX_STEPS; i++) pcre2_code_free(tokenizer->pres[i].pattern);
    model_strings_destroy(&tokenizer->content);
    model_strings_destroy(&tokenizer->pieces);
    model_merges_destroy(&tokenizer->merges);
    cot_free(tokenizer->flags);
    cot_buffer_free(&tokenizer->crossing);
    cot_free(tokenizer->added);
    cot_buffer_free(&tokenizer->raw.nodes);
    cot_buffer_free(&tokenizer->normal.nodes);
    cot_free(tokenizer);
}
