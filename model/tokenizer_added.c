/* Added tokens: found in a text before anything else is done with it, the leftmost first, the longest of these. */
#include "model/tokenizer_int.h"

#include "base/memory.h"

static model_trie_node_t *node_at(const model_trie_t *trie, uint32_t index)
{
    return (model_trie_node_t *)(void *)trie->nodes.data + index;
}

static uint32_t find_child(const model_trie_t *trie, uint32_t parent, uint8_t byte)
{
    if (parent == 0) return trie->first[byte];
    uint32_t child = node_at(trie, parent)->child;
    while (child != 0 && node_at(trie, child)->byte != byte) child = node_at(trie, child)->sibling;
    return child;
}

static cot_status_t add_node(model_trie_t *trie, uint32_t parent, uint8_t byte, uint32_t *index_out)
{
    model_trie_node_t node = {.added = MODEL_NO_TOKEN, .byte = byte};
    if (trie->nodes.size == 0) COT_TRY(cot_buffer_append(&trie->nodes, &node, sizeof node)); /* the root */
    if (parent != 0) node.sibling = node_at(trie, parent)->child;
    uint32_t index = (uint32_t)(trie->nodes.size / sizeof node);
    COT_TRY(cot_buffer_append(&trie->nodes, &node, sizeof node));
    if (parent == 0) {
        trie->first[byte] = index;
    } else {
        node_at(trie, parent)->child = index;
    }
    *index_out = index;
    return COT_OK;
}

cot_status_t model_trie_add(model_trie_t *trie, const char *bytes, size_t count, uint32_t added)
{
    uint32_t node = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t child = find_child(trie, node, (uint8_t)bytes[i]);
        if (child == 0) COT_TRY(add_node(trie, node, (uint8_t)bytes[i], &child));
        node = child;
    }
    /* Two tokens may normalise to the same text: the first keeps it, as in the library. */
    if (node_at(trie, node)->added == MODEL_NO_TOKEN) node_at(trie, node)->added = added;
    return COT_OK;
}

/* Length of the longest token that begins at text->data + at; 0: none. */
static size_t longest_at(const model_trie_t *trie, const model_text_t *text, size_t at, uint32_t *added_out)
{
    size_t longest = 0;
    uint32_t node = 0;
    for (size_t i = at; i < text->bytes; i++) {
        node = find_child(trie, node, (uint8_t)text->data[i]);
        if (node == 0) break;
        if (node_at(trie, node)->added == MODEL_NO_TOKEN) continue;
        longest = i + 1 - at;
        *added_out = node_at(trie, node)->added;
    }
    return longest;
}

static bool inside_word(const model_text_t *text, size_t start, size_t end)
{
    size_t length;
    if (start > 0 && model_is_word(model_utf8_before(text->data, start, &length))) return true;
    return end < text->bytes && model_is_word(model_utf8_at(text->data + end, &length));
}

static size_t strip_left(const model_text_t *text, size_t start, size_t taken)
{
    size_t length;
    while (start > taken && model_is_space(model_utf8_before(text->data, start, &length))) start -= length;
    return start;
}

static size_t strip_right(const model_text_t *text, size_t end)
{
    size_t length;
    while (end < text->bytes && model_is_space(model_utf8_at(text->data + end, &length))) end += length;
    return end;
}

bool model_trie_next(const model_tokenizer_t *tokenizer, const model_trie_t *trie, const model_text_t *text,
                     size_t taken, size_t *at, model_match_t *match_out)
{
    if (trie->nodes.size == 0) return false;
    while (*at < text->bytes) {
        uint32_t index = 0;
        size_t start = *at, length = 0;
        if (trie->first[(uint8_t)text->data[start]] != 0) length = longest_at(trie, text, start, &index);
        *at += length > 0 ? length : 1;
        if (length == 0) continue;
        const model_added_t *added = &tokenizer->added[index];
        size_t end = *at;
        if (added->single_word && inside_word(text, start, end)) continue;
        if (added->lstrip) start = strip_left(text, start, taken);
        /* The search goes on right behind the token, not behind the white space: that is the library's order too. */
        if (added->rstrip) end = strip_right(text, end);
        *match_out = (model_match_t){.start = start, .end = end, .id = added->id};
        return true;
    }
    return false;
}

/* ---- added_tokens of the file ---- */

static cot_status_t read_flags(const json_t *entry, model_added_t *added)
{
    added->normalized = true;
    COT_TRY(cot_json_get_bool(entry, "single_word", &added->single_word));
    COT_TRY(cot_json_get_bool(entry, "lstrip", &added->lstrip));
    COT_TRY(cot_json_get_bool(entry, "rstrip", &added->rstrip));
    COT_TRY(cot_json_get_bool(entry, "special", &added->special));
    added->normalized = !added->special;
    return cot_json_get_bool(entry, "normalized", &added->normalized);
}

static cot_status_t read_added(const json_t *entry, model_added_t *added, const char **text_out, size_t *bytes_out)
{
    const json_t *content = json_object_get(entry, "content");
    if (!json_is_string(content)) return cot_fail(COT_ERR_FORMAT, "an entry of \"added_tokens\" has no \"content\"");
    *text_out = json_string_value(content);
    *bytes_out = json_string_length(content);
    if (*bytes_out == 0 || *bytes_out > MODEL_MAX_ADDED_BYTES)
        return cot_fail(COT_ERR_LIMIT, "an added token has %zu bytes; 1 to %u are allowed", *bytes_out,
                        MODEL_MAX_ADDED_BYTES);
    added->id = MODEL_NO_TOKEN;
    COT_TRY(cot_json_get_u32(entry, "id", &added->id));
    if (added->id >= MODEL_MAX_TOKENS)
        return cot_fail(COT_ERR_FORMAT, "the added token \"%s\" has no \"id\" below %u", *text_out, MODEL_MAX_TOKENS);
    cot_status_t status = read_flags(entry, added);
    return status == COT_OK ? COT_OK : cot_fail_in(status, "the added token \"%s\"", *text_out);
}

/* The id that the library gives an added token: that of the vocabulary, else the next behind both. The file must say
 * the same, or its ids mean something else than the library (and the model) take them for. */
static cot_status_t check_id(const model_tokenizer_t *tokenizer, const model_added_t *added, uint32_t next,
                             model_text_t text)
{
    uint32_t due = model_strings_find(&tokenizer->content, text.data, text.bytes);
    if (due == MODEL_NO_TOKEN) due = next;
    if (added->id == due) return COT_OK;
    return cot_fail(COT_ERR_FORMAT,
                    "the added token \"%s\" has id %u where %u is due: ids of added tokens follow the vocabulary, in "
                    "order and without holes",
                    text.data, added->id, due);
}

/* *next is the id of an added token that is not in the vocabulary. */
static cot_status_t take_added(const json_t *entry, model_tokenizer_t *tokenizer, uint32_t *next)
{
    model_added_t added = {0};
    model_text_t text = {0};
    COT_TRY(read_added(entry, &added, &text.data, &text.bytes));
    COT_TRY(check_id(tokenizer, &added, *next, text));
    uint8_t *flags = &tokenizer->flags[added.id];
    if (*flags & MODEL_TOKEN_ADDED) return cot_fail(COT_ERR_FORMAT, "the added token \"%s\" stands twice", text.data);
    if (!model_strings_has(&tokenizer->content, added.id))
        COT_TRY(model_strings_add(&tokenizer->content, text.data, text.bytes, added.id));
    *flags |= (uint8_t)(MODEL_TOKEN_ADDED | (added.special ? MODEL_TOKEN_SPECIAL : 0));
    if (added.id >= *next) *next = added.id + 1;
    tokenizer->added[tokenizer->added_count++] = added;
    return COT_OK;
}

/* A token that is matched in its normalised form also decodes to that form, as in the library. (Should it be special,
 * it still counts as such; the library then forgets that.) */
static cot_status_t place_normalized(model_tokenizer_t *tokenizer, cot_buffer_t buffers[2], uint32_t index)
{
    uint32_t id = tokenizer->added[index].id;
    model_text_t text, normal;
    text.data = model_strings_get(&tokenizer->content, id, &text.bytes);
    normal = text;
    COT_TRY(model_normalize(tokenizer, buffers, &normal));
    if (normal.bytes == 0) return cot_fail(COT_ERR_FORMAT, "the added token %u normalises to nothing", id);
    COT_TRY(model_trie_add(&tokenizer->normal, normal.data, normal.bytes, index));
    return normal.data == text.data ? COT_OK : model_strings_rename(&tokenizer->content, id, normal.data, normal.bytes);
}

/* Special tokens go into the tries first: of two that normalise to the same text the first one wins. */
static cot_status_t fill_tries(model_tokenizer_t *tokenizer, cot_buffer_t buffers[2], bool special)
{
    for (uint32_t i = 0; i < tokenizer->added_count; i++) {
        const model_added_t *added = &tokenizer->added[i];
        if (added->special != special) continue;
        if (added->normalized) {
            COT_TRY(place_normalized(tokenizer, buffers, i));
            continue;
        }
        model_text_t text;
        text.data = model_strings_get(&tokenizer->content, added->id, &text.bytes);
        COT_TRY(model_trie_add(&tokenizer->raw, text.data, text.bytes, i));
    }
    return COT_OK;
}

cot_status_t model_parse_added(const json_t *root, model_tokenizer_t *tokenizer, uint32_t vocabulary)
{
    const json_t *list = json_object_get(root, "added_tokens");
    if (list == NULL || json_is_null(list)) return COT_OK;
    tokenizer->added = cot_calloc(json_array_size(list), sizeof *tokenizer->added);
    if (tokenizer->added == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the added tokens");
    uint32_t next = vocabulary;
    size_t index;
    json_t *entry;
    json_array_foreach(list, index, entry) COT_TRY(take_added(entry, tokenizer, &next));
    cot_buffer_t buffers[2] = {0};
    cot_status_t status = fill_tries(tokenizer, buffers, true);
    if (status == COT_OK) status = fill_tries(tokenizer, buffers, false);
    cot_buffer_free(&buffers[0]);
    cot_buffer_free(&buffers[1]);
    return status;
}
