/* One JSON object a line: a "meta" line, lines of one token or of a run of tokens, or "route" lines of one token in one
 * layer. Every form becomes records of one token and some of its layers; sorted, they must make whole rows. */
#include "placement/import_readers.h"

#include "base/half.h"
#include "base/json.h"
#include "base/memory.h"
#include "placement/lines.h"

#include <stdlib.h>
#include <string.h>

#define POSITION_MAX INT32_MAX

typedef struct {
    int32_t request, position, token_id;
    uint8_t phase;
    uint32_t layer, layers; /* the record holds `layers` layers from `layer` on */
    uint32_t line;
    uint64_t at; /* index into routes and weights */
} record_t;

/* What the first line of rows states, every line must. */
enum { HAS_REQUEST = 1, HAS_WEIGHTS = 2, HAS_TOKEN_ID = 4, HAS_PHASE = 8, HAS_NOTHING_YET = 16 };

typedef struct {
    const place_import_t *options;
    place_lines_t lines;
    place_draft_t *draft;
    uint64_t tokens;                     /* as the meta line states; 0: it does not */
    bool numbered;                       /* the meta line gives the layers */
    uint32_t has, expert_limit, highest; /* expert */
    json_t *requests;                    /* id as text -> next position */
    bool named;                          /* request ids are strings: numbered in order of appearance */
    cot_buffer_t records, routes, weights;
} jsonl_t;

/* The first of two keys that the line has. */
static json_t *either(const json_t *line, const char *key, const char *other)
{
    json_t *value = json_object_get(line, key);
    if (value == NULL || json_is_null(value)) value = json_object_get(line, other);
    return json_is_null(value) ? NULL : value;
}

static cot_status_t read_whole(const json_t *value, const char *what, int64_t max, int64_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > max)
        return cot_fail(COT_ERR_FORMAT, "%s must be an integer from 0 to %lld", what, (long long)max);
    *out = json_integer_value(value);
    return COT_OK;
}

/* ---- the meta line ---- */

static cot_status_t take_layers(jsonl_t *jsonl, const json_t *layers)
{
    place_draft_t *draft = jsonl->draft;
    int64_t count = 0, index = 0;
    if (json_is_integer(layers))
        COT_TRY(read_whole(layers, "\"layers\"", PLACE_IMPORT_MAX_LAYERS, &count));
    else
        count = (int64_t)json_array_size(layers);
    if (count == 0 || count > PLACE_IMPORT_MAX_LAYERS)
        return cot_fail(COT_ERR_FORMAT, "\"layers\" must be a number of layers or a list of layer numbers");
    draft->layer_index = cot_calloc((size_t)count, sizeof(*draft->layer_index));
    if (draft->layer_index == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the layers");
    draft->layers = (uint32_t)count;
    for (uint32_t l = 0; l < draft->layers; l++) {
        index = l;
        if (json_is_array(layers))
            COT_TRY(read_whole(json_array_get(layers, l), "a layer number", PLACE_IMPORT_MAX_LAYERS, &index));
        if (l > 0 && index <= draft->layer_index[l - 1])
            return cot_fail(COT_ERR_FORMAT, "\"layers\" must ascend, each once");
        draft->layer_index[l] = (uint32_t)index;
    }
    jsonl->numbered = true;
    return COT_OK;
}

static cot_status_t read_meta(jsonl_t *jsonl, const json_t *line)
{
    place_draft_t *draft = jsonl->draft;
    uint64_t experts = 0, top_k = 0;
    const char *model = json_string_value(either(line, "model", "model_id"));
    if (jsonl->records.size > 0 || jsonl->numbered)
        return cot_fail(COT_ERR_FORMAT, "a \"meta\" line stands once, before all rows");
    if (model != NULL) snprintf(draft->model, sizeof(draft->model), "%s", model);
    COT_TRY(cot_json_get_uint(line, "num_experts", PLACE_IMPORT_MAX_EXPERTS, &experts));
    COT_TRY(cot_json_get_uint(line, "experts", PLACE_IMPORT_MAX_EXPERTS, &experts));
    COT_TRY(cot_json_get_uint(line, "top_k", PLACE_IMPORT_MAX_EXPERTS, &top_k));
    COT_TRY(cot_json_get_uint(line, "tokens", INT32_MAX, &jsonl->tokens));
    uint32_t stated = place_import_experts(jsonl->options);
    if (experts != 0 && stated != 0 && experts != stated)
        return cot_fail(COT_ERR_MISMATCH, "states %llu experts, where %u are stated", (unsigned long long)experts,
                        stated);
    if (experts != 0) jsonl->expert_limit = draft->experts = (uint32_t)experts;
    if (jsonl->expert_limit > INT16_MAX + 1U)
        return cot_fail(COT_ERR_LIMIT, "a trace of tokens takes at most %u experts", INT16_MAX + 1U);
    draft->top_k = (uint32_t)top_k;
    const json_t *layers = either(line, "layers", "layers_logged");
    return layers != NULL ? take_layers(jsonl, layers) : COT_OK;
}

/* ---- requests ---- */

/* An entry of `requests` is [number, next position]. */
static cot_status_t find_request(jsonl_t *jsonl, const json_t *id, json_t **entry_out)
{
    char digits[32];
    int64_t number = 0;
    bool named = json_is_string(id);
    if (!named) {
        COT_TRY(read_whole(id, "\"request\"", INT32_MAX, &number));
        snprintf(digits, sizeof(digits), "%lld", (long long)number);
    }
    if (json_object_size(jsonl->requests) > 0 && named != jsonl->named)
        return cot_fail(COT_ERR_FORMAT, "\"request\" must be a number in every line or a string in every line");
    const char *key = named ? json_string_value(id) : digits;
    json_t *entry = json_object_get(jsonl->requests, key);
    if (entry == NULL) {
        if (named) number = (int64_t)json_object_size(jsonl->requests);
        entry = json_pack("[I,I]", (json_int_t)number, (json_int_t)0);
        if (entry == NULL || json_object_set_new(jsonl->requests, key, entry) != 0)
            return cot_fail(COT_ERR_NO_MEMORY, "no memory for the requests");
    }
    jsonl->named = named;
    *entry_out = entry;
    return COT_OK;
}

/* Request and first position of a line of `tokens` tokens; without a position they go on after the request's last. */
static cot_status_t read_where(jsonl_t *jsonl, const json_t *line, int64_t tokens, record_t *record)
{
    const json_t *id = either(line, "request", "req_id");
    const json_t *position = either(line, "position", "token_idx");
    json_t *entry = NULL;
    static const char *const NO_REQUEST = "";
    json_t *nobody = id == NULL ? json_string(NO_REQUEST) : NULL;
    cot_status_t status = find_request(jsonl, id != NULL ? id : nobody, &entry);
    json_decref(nobody);
    COT_TRY(status);
    if (id == NULL && position != NULL)
        return cot_fail(COT_ERR_FORMAT, "a \"position\" needs a \"request\" that it is in");
    int64_t first = json_integer_value(json_array_get(entry, 1));
    if (position != NULL) COT_TRY(read_whole(position, "\"position\"", POSITION_MAX, &first));
    if (first + tokens > POSITION_MAX) return cot_fail(COT_ERR_LIMIT, "a position past %d", POSITION_MAX);
    json_integer_set(json_array_get(entry, 1), first + tokens);
    record->request = (int32_t)json_integer_value(json_array_get(entry, 0));
    record->position = (int32_t)first;
    return COT_OK;
}

/* ---- one row of experts ---- */

static cot_status_t check_top_k(jsonl_t *jsonl, const json_t *experts)
{
    uint32_t *top_k = &jsonl->draft->top_k;
    size_t found = json_array_size(experts);
    if (*top_k == 0 && found > 0 && found <= jsonl->expert_limit) *top_k = (uint32_t)found;
    if (found == 0 || found != *top_k)
        return cot_fail(COT_ERR_FORMAT, "%zu experts of a token in a layer, where each has %u", found, *top_k);
    return COT_OK;
}

/* The top_k experts of one token in one layer, each once, and their weights where the line has some. */
static cot_status_t add_choice(jsonl_t *jsonl, const json_t *experts, const json_t *weights)
{
    COT_TRY(check_top_k(jsonl, experts));
    size_t base = jsonl->routes.size / sizeof(int16_t);
    for (uint32_t k = 0; k < jsonl->draft->top_k; k++) {
        int64_t expert = 0;
        COT_TRY(read_whole(json_array_get(experts, k), "an expert", jsonl->expert_limit - 1, &expert));
        for (uint32_t j = 0; j < k; j++)
            if (((const int16_t *)(void *)jsonl->routes.data)[base + j] == expert)
                return cot_fail(COT_ERR_FORMAT, "expert %lld stands twice among a token's", (long long)expert);
        int16_t narrow = (int16_t)expert;
        if (expert > jsonl->highest) jsonl->highest = (uint32_t)expert;
        COT_TRY(cot_buffer_append(&jsonl->routes, &narrow, sizeof(narrow)));
    }
    if (weights == NULL) return COT_OK;
    if (json_array_size(weights) != jsonl->draft->top_k)
        return cot_fail(COT_ERR_FORMAT, "the weights do not have the shape of the experts");
    for (uint32_t k = 0; k < jsonl->draft->top_k; k++) {
        const json_t *weight = json_array_get(weights, k);
        if (!json_is_number(weight)) return cot_fail(COT_ERR_FORMAT, "a weight must be a number");
        uint16_t half = cot_half_from_float((float)json_number_value(weight));
        COT_TRY(cot_buffer_append(&jsonl->weights, &half, sizeof(half)));
    }
    return COT_OK;
}

static cot_status_t check_has(jsonl_t *jsonl, uint32_t has)
{
    static const char *const WHAT[] = {"a \"request\"", "weights", "token ids", "a \"phase\""};
    if (jsonl->has == HAS_NOTHING_YET) jsonl->has = has;
    for (uint32_t bit = 0; bit < 4; bit++)
        if (((jsonl->has ^ has) & (1U << bit)) != 0)
            return cot_fail(COT_ERR_FORMAT, "%s %s, unlike the rows before it: state it in every line or in none",
                            (has & (1U << bit)) != 0 ? "has" : "lacks", WHAT[bit]);
    return COT_OK;
}

/* ---- lines of rows ---- */

static cot_status_t read_phase(const json_t *value, uint8_t *out)
{
    const char *word = json_string_value(value);
    int64_t number = 0;
    if (word != NULL && strcmp(word, "decode") == 0)
        number = 1;
    else if (word == NULL || strcmp(word, "prefill") != 0)
        COT_TRY(read_whole(value, "\"phase\" (prefill or decode)", 1, &number));
    *out = (uint8_t)number;
    return COT_OK;
}

/* Of a value that is stated for each of the tokens or once for all. */
static const json_t *of_token(const json_t *value, size_t token)
{
    return json_is_array(value) ? json_array_get(value, token) : value;
}

static cot_status_t add_token(jsonl_t *jsonl, const json_t *layers, const json_t *weights, record_t *record)
{
    place_draft_t *draft = jsonl->draft;
    size_t count = json_array_size(layers);
    if (draft->layers == 0 && count <= PLACE_IMPORT_MAX_LAYERS) draft->layers = (uint32_t)count;
    if (count == 0 || count != draft->layers)
        return cot_fail(COT_ERR_FORMAT, "%zu layers of a token, where each has %u", count, draft->layers);
    if (weights != NULL && json_array_size(weights) != count)
        return cot_fail(COT_ERR_FORMAT, "the weights do not have the shape of the experts");
    record->layers = draft->layers;
    record->at = jsonl->routes.size / sizeof(int16_t);
    for (size_t l = 0; l < count; l++)
        COT_TRY(add_choice(jsonl, json_array_get(layers, l), weights != NULL ? json_array_get(weights, l) : NULL));
    return cot_buffer_append(&jsonl->records, record, sizeof(*record));
}

/* "experts" is [layers][top_k] of one token, or [tokens][layers][top_k] of a run of one request. */
static cot_status_t add_tokens(jsonl_t *jsonl, const json_t *line)
{
    const json_t *experts = either(line, "experts", "routed_experts");
    const json_t *weights = either(line, "gate_weights", "topk_weights");
    const json_t *token_id = either(line, "token_id", "token_ids"), *phase = either(line, "phase", "phases");
    bool run = json_is_array(json_array_get(json_array_get(experts, 0), 0));
    size_t tokens = run ? json_array_size(experts) : 1;
    record_t record = {.line = jsonl->lines.number};
    if (!json_is_array(experts) || json_array_size(experts) == 0)
        return cot_fail(COT_ERR_FORMAT, "\"experts\" must be [layers][top_k] of a token or [tokens][layers][top_k]");
    COT_TRY(check_has(jsonl, (either(line, "request", "req_id") != NULL ? HAS_REQUEST : 0U) |
                                 (weights != NULL ? HAS_WEIGHTS : 0U) | (token_id != NULL ? HAS_TOKEN_ID : 0U) |
                                 (phase != NULL ? HAS_PHASE : 0U)));
    if ((json_is_array(token_id) && json_array_size(token_id) != tokens) ||
        (json_is_array(phase) && json_array_size(phase) != tokens) ||
        (run && weights != NULL && json_array_size(weights) != tokens))
        return cot_fail(COT_ERR_FORMAT, "holds %zu tokens, but not as many token ids, phases or weights", tokens);
    COT_TRY(read_where(jsonl, line, (int64_t)tokens, &record));
    for (size_t t = 0; t < tokens; t++, record.position++) {
        int64_t id = 0;
        if (token_id != NULL) COT_TRY(read_whole(of_token(token_id, t), "a token id", INT32_MAX, &id));
        if (phase != NULL) COT_TRY(read_phase(of_token(phase, t), &record.phase));
        record.token_id = (int32_t)id;
        COT_TRY(add_token(jsonl, run ? json_array_get(experts, t) : experts, run ? json_array_get(weights, t) : weights,
                          &record));
    }
    return COT_OK;
}

/* One token in one layer: req_id, token_idx, layer, topk_ids, topk_weights. */
static cot_status_t add_route(jsonl_t *jsonl, const json_t *line)
{
    const place_draft_t *draft = jsonl->draft;
    const json_t *weights = either(line, "topk_weights", "gate_weights");
    record_t record = {.line = jsonl->lines.number, .layers = 1, .at = jsonl->routes.size / sizeof(int16_t)};
    int64_t layer = 0;
    if (!jsonl->numbered)
        return cot_fail(COT_ERR_FORMAT, "\"route\" lines need a \"meta\" line with \"layers\" before them");
    if (either(line, "request", "req_id") == NULL || either(line, "position", "token_idx") == NULL)
        return cot_fail(COT_ERR_FORMAT, "a \"route\" line needs \"req_id\" and \"token_idx\"");
    COT_TRY(check_has(jsonl, HAS_REQUEST | (weights != NULL ? HAS_WEIGHTS : 0U)));
    COT_TRY(read_where(jsonl, line, 1, &record));
    COT_TRY(read_whole(json_object_get(line, "layer"), "\"layer\"", PLACE_IMPORT_MAX_LAYERS, &layer));
    while (record.layer < draft->layers && draft->layer_index[record.layer] != layer) record.layer++;
    if (record.layer == draft->layers)
        return cot_fail(COT_ERR_FORMAT, "layer %lld is none of the %u that the \"meta\" line gives", (long long)layer,
                        draft->layers);
    COT_TRY(add_choice(jsonl, either(line, "topk_ids", "experts"), weights));
    return cot_buffer_append(&jsonl->records, &record, sizeof(record));
}

static cot_status_t add_line(jsonl_t *jsonl, const json_t *line)
{
    const char *type = json_string_value(json_object_get(line, "type"));
    if (!json_is_object(line)) return cot_fail(COT_ERR_FORMAT, "is not a JSON object");
    if (type == NULL || strcmp(type, "token") == 0) return add_tokens(jsonl, line);
    if (strcmp(type, "route") == 0) return add_route(jsonl, line);
    if (strcmp(type, "meta") == 0) return read_meta(jsonl, line);
    return cot_fail(COT_ERR_FORMAT, "\"type\" is \"%.40s\": meta, token or route", type);
}

static cot_status_t read_lines(jsonl_t *jsonl)
{
    while (place_lines_next(&jsonl->lines)) {
        json_t *line = NULL;
        size_t blank = 0;
        while (blank < jsonl->lines.bytes && strchr(" \t", jsonl->lines.text[blank]) != NULL) blank++;
        if (blank == jsonl->lines.bytes) continue;
        cot_status_t status = cot_json_load_bytes(jsonl->lines.text, jsonl->lines.bytes, "the object", &line);
        if (status == COT_OK) status = add_line(jsonl, line);
        json_decref(line);
        if (status != COT_OK) return cot_fail_in(status, "line %u", jsonl->lines.number);
    }
    return COT_OK;
}

/* ---- whole rows ---- */

static int by_place(const void *a, const void *b)
{
    const record_t *left = a, *right = b;
    if (left->request != right->request) return left->request < right->request ? -1 : 1;
    if (left->position != right->position) return left->position < right->position ? -1 : 1;
    if (left->layer != right->layer) return left->layer < right->layer ? -1 : 1;
    return (left->line > right->line) - (left->line < right->line);
}

static cot_status_t copy_choices(jsonl_t *jsonl, const record_t *record)
{
    cot_buffer_t *column = jsonl->draft->column;
    size_t begin = record->at * sizeof(int16_t), bytes = (size_t)record->layers * jsonl->draft->top_k * sizeof(int16_t);
    COT_TRY(cot_buffer_append(&column[PLACE_COLUMN_EXPERTS], jsonl->routes.data + begin, bytes));
    if ((jsonl->has & HAS_WEIGHTS) == 0) return COT_OK;
    return cot_buffer_append(&column[PLACE_COLUMN_GATE_WEIGHTS], jsonl->weights.data + begin, bytes);
}

static cot_status_t begin_row(jsonl_t *jsonl, const record_t *record)
{
    cot_buffer_t *column = jsonl->draft->column;
    jsonl->draft->rows++;
    if ((jsonl->has & HAS_TOKEN_ID) != 0)
        COT_TRY(cot_buffer_append(&column[PLACE_COLUMN_TOKEN_ID], &record->token_id, sizeof(record->token_id)));
    if ((jsonl->has & HAS_PHASE) != 0)
        COT_TRY(cot_buffer_append(&column[PLACE_COLUMN_PHASE], &record->phase, sizeof(record->phase)));
    if ((jsonl->has & HAS_REQUEST) == 0) return COT_OK;
    COT_TRY(cot_buffer_append(&column[PLACE_COLUMN_REQUEST], &record->request, sizeof(record->request)));
    return cot_buffer_append(&column[PLACE_COLUMN_POSITION], &record->position, sizeof(record->position));
}

static cot_status_t fail_incomplete(const jsonl_t *jsonl, const record_t *record, uint32_t layer)
{
    return cot_fail(COT_ERR_FORMAT, "line %u: its token lacks layer %u", record->line,
                    jsonl->draft->layer_index[layer]);
}

/* The sorted records must be whole rows: each (request, position) once, each of its layers once. */
static cot_status_t make_rows(jsonl_t *jsonl)
{
    record_t *record = (record_t *)(void *)jsonl->records.data;
    size_t records = jsonl->records.size / sizeof(*record);
    uint32_t layers = jsonl->draft->layers, next = layers; /* the layer that the open row needs next */
    qsort(record, records, sizeof(*record), by_place);
    for (size_t i = 0; i < records; i++) {
        const record_t *now = &record[i];
        bool same = i > 0 && now[-1].request == now->request && now[-1].position == now->position;
        if (!same) {
            if (next != layers) return fail_incomplete(jsonl, now - 1, next);
            COT_TRY(begin_row(jsonl, now));
            next = 0;
        }
        if (now->layer < next)
            return cot_fail(COT_ERR_FORMAT, "line %u: position %d of its request was given in line %u already",
                            now->line, now->position, now[-1].line);
        if (now->layer > next) return fail_incomplete(jsonl, now, next);
        COT_TRY(copy_choices(jsonl, now));
        next = now->layer + now->layers;
    }
    return next == layers ? COT_OK : fail_incomplete(jsonl, &record[records - 1], next);
}

static cot_status_t finish(jsonl_t *jsonl)
{
    place_draft_t *draft = jsonl->draft;
    const place_import_t *options = jsonl->options;
    if (jsonl->records.size == 0) return cot_fail(COT_ERR_FORMAT, "the trace is empty: it holds no token");
    if (jsonl->numbered) {
        COT_TRY(place_import_same_layers(options, draft->layers, draft->layer_index));
    } else {
        draft->layer_index = cot_calloc(draft->layers, sizeof(*draft->layer_index));
        if (draft->layer_index == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the layers");
        COT_TRY(place_import_layers(options, draft->layers, draft->layer_index));
    }
    draft->experts = place_import_count_experts(draft->experts, jsonl->highest);
    COT_TRY(make_rows(jsonl));
    if (jsonl->tokens != 0 && jsonl->tokens != draft->rows)
        return cot_fail(COT_ERR_FORMAT, "the \"meta\" line states %llu tokens, the lines hold %llu",
                        (unsigned long long)jsonl->tokens, (unsigned long long)draft->rows);
    return COT_OK;
}

cot_status_t place_import_jsonl(const char *path, const place_import_t *options, place_draft_t **draft_out)
{
    uint32_t experts = place_import_experts(options);
    jsonl_t jsonl = {.options = options, .has = HAS_NOTHING_YET};
    jsonl.expert_limit = experts != 0 && experts <= INT16_MAX + 1U ? experts : INT16_MAX + 1U;
    COT_TRY(place_lines_open(path, &jsonl.lines));
    jsonl.draft = cot_calloc(1, sizeof(*jsonl.draft));
    jsonl.requests = json_object();
    cot_status_t status = COT_OK;
    if (jsonl.draft == NULL || jsonl.requests == NULL)
        status = cot_fail(COT_ERR_NO_MEMORY, "no memory for a trace");
    else if (experts > INT16_MAX + 1U)
        status = cot_fail(COT_ERR_LIMIT, "a trace of tokens takes at most %u experts", INT16_MAX + 1U);
    else
        jsonl.draft->experts = experts;
    if (status == COT_OK) status = read_lines(&jsonl);
    if (status == COT_OK) status = finish(&jsonl);
    cot_buffer_free(&jsonl.records);
    cot_buffer_free(&jsonl.routes);
    cot_buffer_free(&jsonl.weights);
    json_decref(jsonl.requests);
    place_lines_close(&jsonl.lines);
    if (status != COT_OK) {
        place_draft_destroy(jsonl.draft);
        return cot_fail_in(status, "%s", path);
    }
    *draft_out = jsonl.draft;
    return COT_OK;
}
