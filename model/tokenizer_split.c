/* The pre-tokenizer: cuts a text into the pieces that byte pair encoding works on, one step after the other. */
#include "model/tokenizer_int.h"

#include "base/memory.h"

#include <ctype.h>
#include <string.h>

/* ---- patterns ---- */

static void *pattern_alloc(size_t bytes, void *unused)
{
    (void)unused;
    return cot_alloc(bytes);
}

static void pattern_free(void *memory, void *unused)
{
    (void)unused;
    cot_free(memory);
}

/* Length of the escape at `at` (a backslash), 0 if the two engines may differ on it. */
static size_t known_escape(const char *at)
{
    if (at[1] == 'p' || at[1] == 'P') {
        /* A general category; scripts and other properties are not the same in both. */
        size_t i = at[2] == '{' ? 3 : 0;
        if (i == 0) return 0;
        if (at[i] == '^') i++;
        if (strchr("CLMNPSZ", at[i]) == NULL || at[i] == '\0') return 0;
        i++;
        if (islower((unsigned char)at[i])) i++;
        return at[i] == '}' ? i + 1 : 0;
    }
    if (isalnum((unsigned char)at[1])) return strchr("sSdDrntf", at[1]) != NULL ? 2 : 0;
    return at[1] == '\0' ? 0 : 2;
}

/* Length of a bracketed class, 0 if it holds what the engines read differently (nested classes, intersections). */
static size_t known_class(const char *at)
{
    size_t i = at[1] == '^' ? 2 : 1;
    if (at[i] == ']') return 0;
    while (at[i] != ']') {
        if (at[i] == '\0' || at[i] == '[' || (at[i] == '&' && at[i + 1] == '&')) return 0;
        size_t step = at[i] == '\\' ? known_escape(at + i) : 1;
        if (step == 0) return 0;
        i += step;
    }
    return i + 1;
}

static size_t known_group(const char *at)
{
    static const char *const openings[] = {"(?:", "(?i:", "(?=", "(?!", "(?>", "(?<=", "(?<!"};
    if (at[1] == '*') return 0;
    if (at[1] != '?') return 1;
    for (size_t i = 0; i < sizeof openings / sizeof *openings; i++)
        if (strncmp(at, openings[i], strlen(openings[i])) == 0) return strlen(openings[i]);
    return 0;
}

/* {n}, {n,} and {n,m}; "{,m}" and a "+" behind it mean different things. Any other brace is a character. */
static size_t known_brace(const char *at)
{
    size_t i = 1;
    if (at[i] == ',') return 0;
    while (isdigit((unsigned char)at[i]) || at[i] == ',') i++;
    if (i == 1 || at[i] != '}') return 1;
    return at[i + 1] == '+' ? 0 : i + 1;
}

/* Where the pattern leaves the syntax that Oniguruma (the library's engine) and PCRE2 share; NULL: nowhere. */
static const char *first_unknown(const char *pattern)
{
    while (*pattern != '\0') {
        size_t length = 1;
        if (*pattern == '\\') length = known_escape(pattern);
        if (*pattern == '[') length = known_class(pattern);
        if (*pattern == '(') length = known_group(pattern);
        if (*pattern == '{') length = known_brace(pattern);
        if (length == 0) return pattern;
        pattern += length;
    }
    return NULL;
}

/* Looking for white space at the end, from each blank of a long run anew, costs the run's square. The same matches are
 * found from the run's start alone (or from where the search starts, behind an earlier match). */
static const char *linear_form(const char *pattern)
{
    return strcmp(pattern, "\\s+$") == 0 ? "(?:(?<!\\s)|\\G)\\s+$" : pattern;
}

static cot_status_t compile_in(pcre2_general_context *memory, const char *pattern, bool literal, pcre2_code **code_out)
{
    pcre2_compile_context *context = pcre2_compile_context_create(memory);
    if (context == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a pattern");
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    uint32_t options = PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE);
    const char *form = literal ? pattern : linear_form(pattern);
    int error = 0;
    PCRE2_SIZE offset = 0;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)form, PCRE2_ZERO_TERMINATED, options, &error, &offset, context);
    pcre2_compile_context_free(context);
    if (code == NULL) {
        char reason[128] = "";
        pcre2_get_error_message(error, (PCRE2_UCHAR *)reason, sizeof reason);
        if (error == PCRE2_ERROR_NOMEMORY || error == PCRE2_ERROR_HEAP_FAILED)
            return cot_fail(COT_ERR_NO_MEMORY, "no memory for a pattern");
        return cot_fail(COT_ERR_FORMAT, "the pattern \"%s\" is wrong at byte %zu: %s", pattern, (size_t)offset, reason);
    }
    uint32_t may_be_empty = 0;
    pcre2_pattern_info(code, PCRE2_INFO_MATCHEMPTY, &may_be_empty);
    if (may_be_empty) {
        pcre2_code_free(code);
        return cot_fail(COT_ERR_UNSUPPORTED, "the pattern \"%s\" may match nothing at all: not supported", pattern);
    }
    /* Without the just-in-time compiler (a hardened kernel, a rare CPU) the interpreter does the same, slower. */
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    *code_out = code;
    return COT_OK;
}

cot_status_t model_pattern_compile(const char *pattern, bool literal, pcre2_code **code_out)
{
    const char *unknown = literal ? NULL : first_unknown(pattern);
    if (unknown != NULL)
        return cot_fail(COT_ERR_UNSUPPORTED, "the pattern \"%s\" uses syntax that is not supported, from \"%.12s\" on",
                        pattern, unknown);
    pcre2_general_context *memory = pcre2_general_context_create(pattern_alloc, pattern_free, NULL);
    if (memory == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a pattern");
    cot_status_t status = compile_in(memory, pattern, literal, code_out);
    pcre2_general_context_free(memory);
    return status;
}

cot_status_t model_work_create(const model_tokenizer_t *tokenizer, cot_buffer_t *ids, model_work_t *work_out)
{
    model_work_t work = {.tokenizer = tokenizer, .ids = ids};
    pcre2_general_context *memory = pcre2_general_context_create(pattern_alloc, pattern_free, NULL);
    if (memory == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory to tokenize");
    work.match = pcre2_match_data_create(1, memory);
    work.limits = pcre2_match_context_create(memory);
    pcre2_general_context_free(memory);
    if (work.match == NULL || work.limits == NULL) {
        model_work_free(&work);
        return cot_fail(COT_ERR_NO_MEMORY, "no memory to tokenize");
    }
    *work_out = work;
    return COT_OK;
}

void model_work_free(model_work_t *work)
{
    pcre2_match_data_free(work->match);
    pcre2_match_context_free(work->limits);
    for (int i = 0; i < 2; i++) cot_buffer_free(&work->normal[i]);
    cot_buffer_free(&work->shape);
    for (int i = 0; i < MODEL_MAX_STEPS; i++) {
        cot_buffer_free(&work->step_text[i]);
        cot_buffer_free(&work->step_shape[i]);
    }
    cot_buffer_free(&work->symbols);
    cot_buffer_free(&work->heap);
    *work = (model_work_t){0};
}

/* ---- steps ---- */

static cot_status_t run_step(model_work_t *work, uint32_t step, model_piece_t piece);

static model_piece_t part_of(const model_piece_t *piece, size_t start, size_t end)
{
    return (model_piece_t){.text = piece->text + start,
                           .shape = piece->shape + start,
                           .bytes = end - start,
                           .first = piece->first && start == 0};
}

/* Takes the matches and the text between them, in order, and hands them to the next step as its behavior says. One
 * span is held back while the next may still join it. */
typedef struct {
    model_work_t *work;
    const model_piece_t *piece;
    uint32_t step;
    size_t start, end; /* of the span held back; equal: none */
    bool match;        /* it is a match (with MERGED_WITH_PREVIOUS: its last part is) */
} splitter_t;

static cot_status_t hand_on(splitter_t *splitter)
{
    if (splitter->start == splitter->end) return COT_OK;
    model_piece_t part = part_of(splitter->piece, splitter->start, splitter->end);
    splitter->start = splitter->end;
    return run_step(splitter->work, splitter->step + 1, part);
}

static cot_status_t take_span(splitter_t *splitter, size_t start, size_t end, bool match)
{
    const model_pre_t *pre = &splitter->work->tokenizer->pres[splitter->step];
    if (start == end) return COT_OK;
    if (pre->invert) match = !match;
    if (pre->behavior == MODEL_REMOVED && match) return COT_OK;
    bool held = splitter->start != splitter->end, join = false;
    if (pre->behavior == MODEL_CONTIGUOUS) join = held && splitter->match == match;
    if (pre->behavior == MODEL_MERGED_WITH_PREVIOUS) join = held && match && !splitter->match;
    if (pre->behavior == MODEL_MERGED_WITH_NEXT) join = held && !match && splitter->match;
    if (!join) {
        COT_TRY(hand_on(splitter));
        splitter->start = start;
    }
    splitter->end = end;
    splitter->match = match;
    bool may_grow = pre->behavior >= MODEL_MERGED_WITH_PREVIOUS;
    return may_grow ? COT_OK : hand_on(splitter);
}

static cot_status_t split_piece(model_work_t *work, uint32_t step, const model_piece_t *piece)
{
    const pcre2_code *pattern = work->tokenizer->pres[step].pattern;
    splitter_t splitter = {.work = work, .piece = piece, .step = step};
    for (size_t at = 0; at < piece->bytes;) {
        int found = pcre2_match(pattern, (PCRE2_SPTR)piece->shape, piece->bytes, at, PCRE2_NO_UTF_CHECK, work->match,
                                work->limits);
        if (found == PCRE2_ERROR_JIT_STACKLIMIT)
            found = pcre2_match(pattern, (PCRE2_SPTR)piece->shape, piece->bytes, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                                work->match, work->limits);
        if (found < 0 && found != PCRE2_ERROR_NOMATCH) {
            if (found == PCRE2_ERROR_NOMEMORY) return cot_fail(COT_ERR_NO_MEMORY, "no memory to match a pattern");
            return cot_fail(
                COT_ERR_LIMIT,
                "pattern %u of the pre-tokenizer goes back and forth too often on this text (PCRE2 error %d)", step,
                found);
        }
        size_t start = piece->bytes, end = piece->bytes;
        if (found >= 0) {
            const PCRE2_SIZE *range = pcre2_get_ovector_pointer(work->match);
            start = range[0];
            end = range[1];
        }
        COT_TRY(take_span(&splitter, at, start, false));
        COT_TRY(take_span(&splitter, start, end, true));
        at = end;
    }
    return hand_on(&splitter);
}

/* A step that changes the text leaves it in the step's own buffers: the piece before it is done with by then. */
static cot_status_t use_step_text(model_work_t *work, uint32_t step, model_piece_t *piece)
{
    piece->text = (const char *)work->step_text[step].data;
    piece->bytes = work->step_text[step].size;
    return model_stand_in(piece->text, piece->bytes, &work->step_shape[step], &piece->shape);
}

static cot_status_t add_space(model_work_t *work, uint32_t step, model_piece_t *piece)
{
    if (piece->text[0] == ' ') return COT_OK;
    cot_buffer_t *text = &work->step_text[step];
    cot_buffer_clear(text);
    COT_TRY(cot_buffer_append(text, " ", 1));
    COT_TRY(cot_buffer_append(text, piece->text, piece->bytes));
    return use_step_text(work, step, piece);
}

static cot_status_t mark_spaces(model_work_t *work, uint32_t step, model_piece_t *piece)
{
    const model_pre_t *pre = &work->tokenizer->pres[step];
    cot_buffer_t *text = &work->step_text[step];
    size_t mark = strlen(pre->mark);
    bool marked = piece->text[0] == ' ' || (piece->bytes >= mark && memcmp(piece->text, pre->mark, mark) == 0);
    cot_buffer_clear(text);
    if (pre->prepend && !marked && (piece->first || !pre->first_only))
        COT_TRY(cot_buffer_append(text, pre->mark, mark));
    COT_TRY(model_replace((model_text_t){piece->text, piece->bytes}, " ", pre->mark, text));
    return use_step_text(work, step, piece);
}

static cot_status_t run_step(model_work_t *work, uint32_t step, model_piece_t piece)
{
    if (piece.bytes == 0) return COT_OK;
    if (step == work->tokenizer->pre_count) return model_bpe(work, piece.text, piece.bytes);
    const model_pre_t *pre = &work->tokenizer->pres[step];
    if (pre->kind == MODEL_PRE_SPACE) COT_TRY(add_space(work, step, &piece));
    if (pre->kind == MODEL_PRE_METASPACE) COT_TRY(mark_spaces(work, step, &piece));
    if (pre->pattern == NULL) return run_step(work, step + 1, piece);
    return split_piece(work, step, &piece);
}

cot_status_t model_split(model_work_t *work, model_piece_t piece)
{
    /* One match may cost time in proportion to the piece, no more. */
    size_t limit = 100000 + 32 * piece.bytes;
    pcre2_set_match_limit(work->limits, limit < UINT32_MAX ? (uint32_t)limit : UINT32_MAX);
    return run_step(work, 0, piece);
}
