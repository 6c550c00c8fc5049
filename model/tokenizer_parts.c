/* The components of tokenizer.json: normalizer, pre_tokenizer, post_processor, decoder. What is not understood is
 * refused by name: a part that was left out would give other ids than the model was trained on. */
#include "model/tokenizer_int.h"

#include <string.h>

#define GPT2_PATTERN "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/* What Digits takes for one. The library asks Rust, which knows Unicode 17: U+11DE0 to 11DE9, U+16FF4 to 16FF6 too. */
#define NUMBER_PATTERN "[\\p{N}\xf0\x91\xb7\xa0-\xf0\x91\xb7\xa9\xf0\x96\xbf\xb4-\xf0\x96\xbf\xb6]"

cot_status_t model_only_keys(const json_t *object, const char *what, const char *const *names, size_t count)
{
    if (!json_is_object(object)) return cot_fail(COT_ERR_FORMAT, "%s must be an object", what);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        bool known = false;
        for (size_t i = 0; i < count && !known; i++) known = strcmp(key, names[i]) == 0;
        if (!known) return cot_fail(COT_ERR_UNSUPPORTED, "%s has the option \"%s\", which is not supported", what, key);
    }
    return COT_OK;
}

#define ONLY_KEYS(object, what, ...)                                                  \
    COT_TRY(model_only_keys(object, what, (const char *const[]){"type", __VA_ARGS__}, \
                            sizeof((const char *const[]){"type", __VA_ARGS__}) / sizeof(char *)))

static cot_status_t type_of(const json_t *part, const char *what, const char **type_out)
{
    const char *type = json_string_value(json_object_get(part, "type"));
    if (type == NULL) return cot_fail(COT_ERR_FORMAT, "the %s has no \"type\"", what);
    *type_out = type;
    return COT_OK;
}

/* Copies a string of the file into a small field; it must not be empty unless `may_be_empty`. */
static cot_status_t copy_text(const json_t *value, const char *what, bool may_be_empty, char *out, size_t room)
{
    const char *text = json_string_value(value);
    size_t bytes = text == NULL ? 0 : json_string_length(value);
    if (text == NULL || (bytes == 0 && !may_be_empty) || bytes >= room || strlen(text) != bytes)
        return cot_fail(COT_ERR_FORMAT, "%s must be a string of %s to %zu bytes without U+0000", what,
                        may_be_empty ? "0" : "1", room - 1);
    memcpy(out, text, bytes + 1);
    return COT_OK;
}

/* The parts of a list: those of `key` if `part` is a Sequence, else `part` alone. */
static cot_status_t part_list(const json_t *part, const char *what, const char *key, size_t *count_out)
{
    *count_out = 1;
    const char *type = "";
    COT_TRY(type_of(part, what, &type));
    if (strcmp(type, "Sequence") != 0) return COT_OK;
    ONLY_KEYS(part, what, key);
    const json_t *list = json_object_get(part, key);
    if (!json_is_array(list)) return cot_fail(COT_ERR_FORMAT, "the %s is a Sequence without \"%s\"", what, key);
    *count_out = json_array_size(list);
    if (*count_out > MODEL_MAX_STEPS)
        return cot_fail(COT_ERR_LIMIT, "the %s has %zu steps; at most %d are allowed", what, *count_out,
                        MODEL_MAX_STEPS);
    return COT_OK;
}

static const json_t *part_at(const json_t *part, const char *key, size_t index)
{
    const json_t *list = json_object_get(part, key);
    return strcmp(json_string_value(json_object_get(part, "type")), "Sequence") == 0 ? json_array_get(list, index)
                                                                                     : part;
}

/* Pattern and content of a Replace, in a normalizer or a decoder. */
static cot_status_t parse_replace(const json_t *part, char from[MODEL_MAX_REPLACE], char to[MODEL_MAX_REPLACE])
{
    ONLY_KEYS(part, "a Replace", "pattern", "content");
    const json_t *pattern = json_object_get(part, "pattern");
    if (json_object_get(pattern, "Regex") != NULL)
        return cot_fail(COT_ERR_UNSUPPORTED, "a Replace with a Regex pattern is not supported, only String");
    COT_TRY(copy_text(json_object_get(pattern, "String"), "the pattern of a Replace", false, from, MODEL_MAX_REPLACE));
    return copy_text(json_object_get(part, "content"), "the content of a Replace", true, to, MODEL_MAX_REPLACE);
}

/* ---- normalizer ---- */

static cot_status_t parse_norm(const json_t *part, model_norm_t *norm)
{
    const char *type = "";
    COT_TRY(type_of(part, "normalizer", &type));
    if (strcmp(type, "NFC") == 0) {
        COT_TRY(model_only_keys(part, "the normalizer NFC", (const char *const[]){"type"}, 1));
        norm->kind = MODEL_NORM_NFC;
        return COT_OK;
    }
    if (strcmp(type, "Prepend") == 0) {
        ONLY_KEYS(part, "the normalizer Prepend", "prepend");
        norm->kind = MODEL_NORM_PREPEND;
        return copy_text(json_object_get(part, "prepend"), "\"prepend\"", true, norm->to, MODEL_MAX_REPLACE);
    }
    if (strcmp(type, "Replace") == 0) {
        norm->kind = MODEL_NORM_REPLACE;
        return parse_replace(part, norm->from, norm->to);
    }
    return cot_fail(COT_ERR_UNSUPPORTED, "the normalizer %s is not supported", type);
}

cot_status_t model_parse_normalizer(const json_t *part, model_tokenizer_t *tokenizer)
{
    if (part == NULL || json_is_null(part)) return COT_OK;
    size_t count = 0;
    COT_TRY(part_list(part, "normalizer", "normalizers", &count));
    for (size_t i = 0; i < count; i++)
        COT_TRY(parse_norm(part_at(part, "normalizers", i), &tokenizer->norms[tokenizer->norm_count++]));
    return COT_OK;
}

/* ---- pre-tokenizer ---- */

static cot_status_t parse_behavior(const json_t *part, model_behavior_t *behavior_out)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *name = json_string_value(json_object_get(part, "behavior"));
    if (name == NULL) return cot_fail(COT_ERR_FORMAT, "a Split has no \"behavior\"");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i]) != 0) continue;
        *behavior_out = (model_behavior_t)i;
        return COT_OK;
    }
    return cot_fail(COT_ERR_UNSUPPORTED, "the behavior \"%s\" of a Split is not supported", name);
}

static cot_status_t parse_split(const json_t *part, model_pre_t *pre)
{
    ONLY_KEYS(part, "the pre-tokenizer Split", "pattern", "behavior", "invert");
    pre->kind = MODEL_PRE_SPLIT;
    COT_TRY(parse_behavior(part, &pre->behavior));
    COT_TRY(cot_json_get_bool(part, "invert", &pre->invert));
    const json_t *pattern = json_object_get(part, "pattern"), *regex = json_object_get(pattern, "Regex");
    const json_t *text = regex != NULL ? regex : json_object_get(pattern, "String");
    if (!json_is_string(text) || json_string_length(text) == 0 ||
        strlen(json_string_value(text)) != json_string_length(text))
        return cot_fail(COT_ERR_FORMAT,
                        "the pattern of a Split must be a Regex or a String, not empty, without U+0000");
    return model_pattern_compile(json_string_value(text), regex == NULL, &pre->pattern);
}

static cot_status_t parse_digits(const json_t *part, model_pre_t *pre)
{
    ONLY_KEYS(part, "the pre-tokenizer Digits", "individual_digits");
    bool individual = false;
    COT_TRY(cot_json_get_bool(part, "individual_digits", &individual));
    pre->kind = MODEL_PRE_SPLIT;
    pre->behavior = individual ? MODEL_ISOLATED : MODEL_CONTIGUOUS;
    return model_pattern_compile(NUMBER_PATTERN, false, &pre->pattern);
}

/* Mark and prepend scheme, shared by the pre-tokenizer and the decoder; old files say add_prefix_space instead. */
static cot_status_t parse_metaspace(const json_t *part, char mark[8], const char **scheme_out)
{
    ONLY_KEYS(part, "a Metaspace", "replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep");
    COT_TRY(copy_text(json_object_get(part, "replacement"), "the replacement of a Metaspace", false, mark, 8));
    bool prefix = true;
    COT_TRY(cot_json_get_bool(part, "add_prefix_space", &prefix));
    const char *scheme = prefix ? "always" : "never";
    COT_TRY(cot_json_get_string(part, "prepend_scheme", &scheme));
    if (strcmp(scheme, "first") != 0 && strcmp(scheme, "always") != 0 && strcmp(scheme, "never") != 0)
        return cot_fail(COT_ERR_UNSUPPORTED, "the prepend_scheme \"%s\" is not supported", scheme);
    if (!prefix && strcmp(scheme, "never") != 0)
        return cot_fail(COT_ERR_FORMAT, "a Metaspace says add_prefix_space false and prepend_scheme \"%s\"", scheme);
    *scheme_out = scheme;
    return COT_OK;
}

static cot_status_t parse_metaspace_step(const json_t *part, model_pre_t *pre)
{
    const char *scheme = "";
    bool split = true;
    COT_TRY(parse_metaspace(part, pre->mark, &scheme));
    COT_TRY(cot_json_get_bool(part, "split", &split));
    pre->kind = MODEL_PRE_METASPACE;
    pre->prepend = strcmp(scheme, "never") != 0;
    pre->first_only = strcmp(scheme, "first") == 0;
    pre->behavior = MODEL_MERGED_WITH_NEXT;
    return split ? model_pattern_compile(pre->mark, true, &pre->pattern) : COT_OK;
}

static cot_status_t add_step(model_tokenizer_t *tokenizer, model_pre_t **pre_out)
{
    if (tokenizer->pre_count == MODEL_MAX_STEPS)
        return cot_fail(COT_ERR_LIMIT, "the pre_tokenizer has more than %d steps", MODEL_MAX_STEPS);
    *pre_out = &tokenizer->pres[tokenizer->pre_count++];
    return COT_OK;
}

static cot_status_t parse_byte_level(const json_t *part, model_tokenizer_t *tokenizer)
{
    ONLY_KEYS(part, "the pre-tokenizer ByteLevel", "add_prefix_space", "trim_offsets", "use_regex");
    bool space = true, regex = true;
    COT_TRY(cot_json_get_bool(part, "add_prefix_space", &space));
    COT_TRY(cot_json_get_bool(part, "use_regex", &regex));
    model_pre_t *pre = NULL;
    if (space) {
        COT_TRY(add_step(tokenizer, &pre));
        pre->kind = MODEL_PRE_SPACE;
    }
    if (regex) {
        COT_TRY(add_step(tokenizer, &pre));
        pre->kind = MODEL_PRE_SPLIT;
        pre->behavior = MODEL_ISOLATED;
        COT_TRY(model_pattern_compile(GPT2_PATTERN, false, &pre->pattern));
    }
    tokenizer->byte_level = true;
    return COT_OK;
}

static cot_status_t parse_pre(const json_t *part, model_tokenizer_t *tokenizer)
{
    const char *type = "";
    COT_TRY(type_of(part, "pre_tokenizer", &type));
    if (tokenizer->byte_level)
        return cot_fail(COT_ERR_UNSUPPORTED, "the pre-tokenizer %s behind ByteLevel is not supported", type);
    if (strcmp(type, "ByteLevel") == 0) return parse_byte_level(part, tokenizer);
    bool split = strcmp(type, "Split") == 0, digits = strcmp(type, "Digits") == 0;
    if (!split && !digits && strcmp(type, "Metaspace") != 0)
        return cot_fail(COT_ERR_UNSUPPORTED, "the pre-tokenizer %s is not supported", type);
    model_pre_t *pre = NULL;
    COT_TRY(add_step(tokenizer, &pre));
    return split ? parse_split(part, pre) : digits ? parse_digits(part, pre) : parse_metaspace_step(part, pre);
}

cot_status_t model_parse_pre_tokenizer(const json_t *part, model_tokenizer_t *tokenizer)
{
    if (part == NULL || json_is_null(part)) return COT_OK;
    size_t count = 0;
    COT_TRY(part_list(part, "pre_tokenizer", "pretokenizers", &count));
    for (size_t i = 0; i < count; i++) COT_TRY(parse_pre(part_at(part, "pretokenizers", i), tokenizer));
    return COT_OK;
}

/* ---- post-processor ---- */

static cot_status_t add_special(const json_t *tokens, const char *name, model_tokenizer_t *tokenizer, int32_t *ids,
                                uint32_t *count)
{
    const json_t *list = json_object_get(json_object_get(tokens, name), "ids");
    if (!json_is_array(list)) return cot_fail(COT_ERR_FORMAT, "the post_processor does not define \"%s\"", name);
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_int_t id = json_integer_value(json_array_get(list, i));
        if (!json_is_integer(json_array_get(list, i)) || id < 0 || id >= tokenizer->size ||
            !model_strings_has(&tokenizer->content, (uint32_t)id))
            return cot_fail(COT_ERR_FORMAT, "the post_processor's \"%s\" has an id that no token has", name);
        if (*count == MODEL_MAX_TEMPLATE)
            return cot_fail(COT_ERR_LIMIT, "the post_processor adds more than %d tokens", MODEL_MAX_TEMPLATE);
        ids[(*count)++] = (int32_t)id;
    }
    return COT_OK;
}

static cot_status_t parse_template(const json_t *part, model_tokenizer_t *tokenizer)
{
    ONLY_KEYS(part, "the post-processor TemplateProcessing", "single", "pair", "special_tokens");
    const json_t *single = json_object_get(part, "single"), *tokens = json_object_get(part, "special_tokens");
    uint32_t texts = 0;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *piece = json_array_get(single, i);
        const char *text = json_string_value(json_object_get(json_object_get(piece, "Sequence"), "id"));
        const char *name = json_string_value(json_object_get(json_object_get(piece, "SpecialToken"), "id"));
        if (text != NULL && strcmp(text, "A") == 0) {
            texts++;
        } else if (name != NULL && texts == 0) {
            COT_TRY(add_special(tokens, name, tokenizer, tokenizer->prefix, &tokenizer->prefix_count));
        } else if (name != NULL) {
            COT_TRY(add_special(tokens, name, tokenizer, tokenizer->suffix, &tokenizer->suffix_count));
        } else {
            return cot_fail(COT_ERR_FORMAT,
                            "entry %zu of the post_processor's \"single\" is no Sequence A or SpecialToken", i);
        }
    }
    if (texts != 1) return cot_fail(COT_ERR_FORMAT, "the post_processor's \"single\" must hold Sequence A once");
    return COT_OK;
}

cot_status_t model_parse_post_processor(const json_t *part, model_tokenizer_t *tokenizer)
{
    if (part == NULL || json_is_null(part)) return COT_OK;
    size_t count = 0;
    bool template_seen = false;
    COT_TRY(part_list(part, "post_processor", "processors", &count));
    for (size_t i = 0; i < count; i++) {
        const json_t *step = part_at(part, "processors", i);
        const char *type = "";
        COT_TRY(type_of(step, "post_processor", &type));
        if (strcmp(type, "ByteLevel") == 0) continue; /* trims offsets, which nobody asks for here */
        if (strcmp(type, "TemplateProcessing") != 0)
            return cot_fail(COT_ERR_UNSUPPORTED, "the post-processor %s is not supported", type);
        if (template_seen)
            return cot_fail(COT_ERR_UNSUPPORTED, "a post_processor with two TemplateProcessing steps is not supported");
        template_seen = true;
        COT_TRY(parse_template(step, tokenizer));
    }
    return COT_OK;
}

/* ---- decoder ---- */

/* Steps of a decoder, in the only order that is supported. */
typedef enum { STAGE_REPLACE, STAGE_BYTES, STAGE_FUSE, STAGE_STRIP } stage_t;

static cot_status_t parse_strip(const json_t *part, stage_t reached, model_decoder_t *decoder)
{
    ONLY_KEYS(part, "the decoder Strip", "content", "start", "stop");
    uint32_t start = 0, stop = 0;
    COT_TRY(cot_json_get_u32(part, "start", &start));
    COT_TRY(cot_json_get_u32(part, "stop", &stop));
    if (reached != STAGE_FUSE || start > 1 || stop != 0)
        return cot_fail(COT_ERR_UNSUPPORTED, "a decoder Strip is supported behind Fuse only, with start 1 and stop 0");
    char text[sizeof decoder->strip];
    COT_TRY(copy_text(json_object_get(part, "content"), "the content of a Strip", false, text, sizeof text));
    if (start == 1) memcpy(decoder->strip, text, sizeof text);
    return COT_OK;
}

static cot_status_t parse_stage(const json_t *part, const char *type, stage_t *reached, model_decoder_t *decoder)
{
    static const char *const names[] = {"Replace", "ByteFallback", "Fuse", "Strip"};
    uint32_t stage = 0;
    while (stage < 4 && strcmp(type, names[stage]) != 0) stage++;
    if (stage == 4) return cot_fail(COT_ERR_UNSUPPORTED, "the decoder %s is not supported here", type);
    if (stage < (uint32_t)*reached)
        return cot_fail(COT_ERR_UNSUPPORTED, "the decoder %s behind %s is not supported", type, names[*reached]);
    switch (stage) {
    case STAGE_REPLACE:
        COT_TRY(parse_replace(part, decoder->from[decoder->replaces], decoder->to[decoder->replaces]));
        decoder->replaces++;
        break;
    case STAGE_BYTES: decoder->byte_fallback = true; break;
    case STAGE_FUSE: break;
    default: COT_TRY(parse_strip(part, *reached, decoder)); break;
    }
    *reached = (stage_t)stage;
    return COT_OK;
}

cot_status_t model_parse_decoder(const json_t *part, model_tokenizer_t *tokenizer)
{
    model_decoder_t *decoder = &tokenizer->decoder;
    if (part == NULL || json_is_null(part))
        return cot_fail(COT_ERR_UNSUPPORTED, "a tokenizer without a \"decoder\" is not supported");
    size_t count = 0;
    COT_TRY(part_list(part, "decoder", "decoders", &count));
    stage_t reached = STAGE_REPLACE;
    decoder->kind = MODEL_DECODE_SEQUENCE;
    for (size_t i = 0; i < count; i++) {
        const json_t *step = part_at(part, "decoders", i);
        const char *type = "", *scheme = "";
        COT_TRY(type_of(step, "decoder", &type));
        if (count == 1 && strcmp(type, "ByteLevel") == 0) {
            decoder->kind = MODEL_DECODE_BYTE_LEVEL;
        } else if (count == 1 && strcmp(type, "Metaspace") == 0) {
            decoder->kind = MODEL_DECODE_METASPACE;
            COT_TRY(parse_metaspace(step, decoder->mark, &scheme));
            decoder->drop_first = strcmp(scheme, "never") != 0;
        } else {
            COT_TRY(parse_stage(step, type, &reached, decoder));
        }
    }
    return COT_OK;
}
