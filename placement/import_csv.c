/* layer,expert,count: with a header line or without. Of other columns, those of --where pick lines; the rest must hold
 * one value, or lines of several models or domains would be mixed unseen. */
#include "placement/import_readers.h"

#include "base/memory.h"
#include "placement/lines.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS_MAX = 64, CONDITIONS_MAX = 16, NAME_SHOWN = 40 };

typedef struct {
    const char *text;
    size_t bytes;
} field_t;

typedef struct {
    field_t key, value;
    uint32_t column;
} condition_t;

typedef struct {
    uint32_t layer, expert, line;
    int64_t count;
} cell_t;

typedef struct {
    place_lines_t lines;
    uint32_t columns;
    field_t name[COLUMNS_MAX];
    field_t value[COLUMNS_MAX];                  /* of the first line taken */
    uint32_t layer, expert, count, model, top_k; /* their columns; COLUMNS_MAX: absent */
    condition_t condition[CONDITIONS_MAX];
    uint32_t conditions;
    uint32_t expert_limit;
    cot_buffer_t cells; /* of cell_t */
    uint32_t highest;   /* expert */
} csv_t;

static bool equals(field_t field, const char *word)
{
    return field.bytes == strlen(word) && memcmp(field.text, word, field.bytes) == 0;
}

static bool same(field_t a, field_t b)
{
    return a.bytes == b.bytes && (a.bytes == 0 || memcmp(a.text, b.text, a.bytes) == 0);
}

static int shown(field_t field)
{
    return field.bytes < NAME_SHOWN ? (int)field.bytes : NAME_SHOWN;
}

static field_t trim(const char *text, size_t bytes)
{
    while (bytes > 0 && isspace((unsigned char)text[0])) text++, bytes--;
    while (bytes > 0 && isspace((unsigned char)text[bytes - 1])) bytes--;
    return (field_t){text, bytes};
}

/* Cuts a line at its commas. A field may stand in double quotes, without quotes or line ends inside. */
static cot_status_t split(const char *text, size_t bytes, field_t field_out[COLUMNS_MAX], uint32_t *count_out)
{
    const char *end = text + bytes;
    uint32_t count = 0;
    for (;;) {
        if (count == COLUMNS_MAX) return cot_fail(COT_ERR_FORMAT, "has more than %d columns", COLUMNS_MAX);
        while (text < end && *text == ' ') text++;
        bool quoted = text < end && *text == '"';
        const char *close = quoted ? memchr(text + 1, '"', (size_t)(end - text - 1)) : NULL;
        if (quoted && close == NULL) return cot_fail(COT_ERR_FORMAT, "a double quote is not closed");
        const char *from = quoted ? close + 1 : text;
        const char *comma = memchr(from, ',', (size_t)(end - from));
        const char *stop = comma != NULL ? comma : end;
        if (quoted && trim(from, (size_t)(stop - from)).bytes > 0)
            return cot_fail(COT_ERR_FORMAT, "column %u goes on after its closing quote", count + 1);
        field_out[count++] = quoted ? (field_t){text + 1, (size_t)(close - text - 1)}
                                    : trim(text, (size_t)(stop - text));
        if (comma == NULL) break;
        text = comma + 1;
    }
    *count_out = count;
    return COT_OK;
}

static bool is_number(field_t field)
{
    size_t at = field.bytes > 0 && field.text[0] == '-' ? 1 : 0;
    if (at == field.bytes) return false;
    for (; at < field.bytes; at++)
        if (!isdigit((unsigned char)field.text[at])) return false;
    return true;
}

static cot_status_t read_number(field_t field, const char *what, int64_t max, int64_t *out)
{
    int64_t value = 0;
    bool fits = is_number(field) && field.text[0] != '-';
    for (size_t i = 0; i < field.bytes && fits; i++)
        fits = !__builtin_mul_overflow(value, 10, &value) &&
               !__builtin_add_overflow(value, field.text[i] - '0', &value) && value <= max;
    if (!fits)
        return cot_fail(COT_ERR_FORMAT, "%s is \"%.*s\", not a whole number from 0 to %lld", what, shown(field),
                        field.text, (long long)max);
    *out = value;
    return COT_OK;
}

/* ---- the header ---- */

static uint32_t find_column(const csv_t *csv, const char *name)
{
    uint32_t column = 0;
    while (column < csv->columns && !equals(csv->name[column], name)) column++;
    return column < csv->columns ? column : COLUMNS_MAX;
}

static cot_status_t read_conditions(csv_t *csv, const char *where)
{
    field_t part[COLUMNS_MAX];
    uint32_t parts = 0;
    if (where == NULL || where[0] == '\0') return COT_OK;
    COT_TRY(split(where, strlen(where), part, &parts));
    for (uint32_t i = 0; i < parts; i++) {
        const char *sign = memchr(part[i].text, '=', part[i].bytes);
        if (sign == NULL || csv->conditions == CONDITIONS_MAX)
            return cot_fail(COT_ERR_INVALID, "--where must be column=value, at most %d of them with commas between",
                            CONDITIONS_MAX);
        condition_t *condition = &csv->condition[csv->conditions++];
        size_t bytes = (size_t)(sign - part[i].text);
        condition->key = trim(part[i].text, bytes);
        condition->value = trim(sign + 1, part[i].bytes - bytes - 1);
        condition->column = 0;
        while (condition->column < csv->columns && !same(csv->name[condition->column], condition->key))
            condition->column++;
        if (condition->column == csv->columns)
            return cot_fail(COT_ERR_INVALID, "--where: there is no column \"%.*s\"", shown(condition->key),
                            condition->key.text);
    }
    return COT_OK;
}

/* A first line without a number is a header; else the columns are layer, expert, count. */
static cot_status_t read_head(csv_t *csv, const field_t *field, uint32_t fields, bool *header_out)
{
    bool header = true;
    for (uint32_t i = 0; i < fields; i++) header &= !is_number(field[i]);
    static const field_t PLAIN[] = {{"layer", 5}, {"expert", 6}, {"count", 5}};
    if (!header && fields != 3)
        return cot_fail(COT_ERR_FORMAT, "%u columns and no header: the columns are layer,expert,count", fields);
    csv->columns = fields;
    memcpy(csv->name, header ? field : PLAIN, fields * sizeof(*field));
    csv->layer = find_column(csv, "layer");
    csv->expert = find_column(csv, "expert");
    csv->count = find_column(csv, "count");
    csv->model = find_column(csv, "model");
    csv->top_k = find_column(csv, "top_k") != COLUMNS_MAX ? find_column(csv, "top_k") : find_column(csv, "topk");
    if (csv->layer == COLUMNS_MAX || csv->expert == COLUMNS_MAX || csv->count == COLUMNS_MAX)
        return cot_fail(COT_ERR_FORMAT, "the header must name the columns layer, expert and count");
    *header_out = header;
    return COT_OK;
}

/* ---- lines ---- */

static bool wanted(const csv_t *csv, const field_t *field)
{
    for (uint32_t i = 0; i < csv->conditions; i++)
        if (!same(field[csv->condition[i].column], csv->condition[i].value)) return false;
    return true;
}

static cot_status_t check_single(csv_t *csv, const field_t *field)
{
    if (csv->cells.size == 0) memcpy(csv->value, field, csv->columns * sizeof(*field));
    for (uint32_t c = 0; c < csv->columns; c++) {
        if (c == csv->layer || c == csv->expert || c == csv->count || same(field[c], csv->value[c])) continue;
        return cot_fail(COT_ERR_FORMAT,
                        "column \"%.*s\" is \"%.*s\" here and \"%.*s\" before: pick one with --where column=value",
                        shown(csv->name[c]), csv->name[c].text, shown(field[c]), field[c].text, shown(csv->value[c]),
                        csv->value[c].text);
    }
    return COT_OK;
}

static cot_status_t read_line(csv_t *csv)
{
    field_t field[COLUMNS_MAX];
    uint32_t fields = 0;
    int64_t layer = 0, expert = 0, count = 0;
    COT_TRY(split(csv->lines.text, csv->lines.bytes, field, &fields));
    if (fields != csv->columns)
        return cot_fail(COT_ERR_FORMAT, "has %u columns, the first line has %u", fields, csv->columns);
    if (!wanted(csv, field)) return COT_OK;
    COT_TRY(check_single(csv, field));
    COT_TRY(read_number(field[csv->layer], "the layer", PLACE_IMPORT_MAX_LAYERS, &layer));
    COT_TRY(read_number(field[csv->expert], "the expert", csv->expert_limit - 1, &expert));
    COT_TRY(read_number(field[csv->count], "the count", PLACE_COUNT_MAX, &count));
    const cell_t cell = {(uint32_t)layer, (uint32_t)expert, csv->lines.number, count};
    if (cell.expert > csv->highest) csv->highest = cell.expert;
    return cot_buffer_append(&csv->cells, &cell, sizeof(cell));
}

static cot_status_t read_lines(csv_t *csv, const place_import_t *options)
{
    bool first = true, header = false;
    while (place_lines_next(&csv->lines)) {
        cot_status_t status = COT_OK;
        if (trim(csv->lines.text, csv->lines.bytes).bytes == 0) continue;
        if (first) {
            field_t field[COLUMNS_MAX];
            uint32_t fields = 0;
            status = split(csv->lines.text, csv->lines.bytes, field, &fields);
            if (status == COT_OK) status = read_head(csv, field, fields, &header);
            if (status == COT_OK) COT_TRY(read_conditions(csv, options->where));
        }
        if (status == COT_OK && !(first && header)) status = read_line(csv);
        if (status != COT_OK) return cot_fail_in(status, "line %u", csv->lines.number);
        first = false;
    }
    if (csv->cells.size == 0)
        return cot_fail(COT_ERR_FORMAT, "the trace is empty: no line holds a count%s",
                        csv->conditions > 0 ? " that --where takes" : "");
    return COT_OK;
}

/* ---- the counts ---- */

static int by_place(const void *a, const void *b)
{
    const cell_t *left = a, *right = b;
    if (left->layer != right->layer) return left->layer < right->layer ? -1 : 1;
    if (left->expert != right->expert) return left->expert < right->expert ? -1 : 1;
    return (left->line > right->line) - (left->line < right->line);
}

static cot_status_t check_unique(const cell_t *cell, size_t cells, uint32_t *layers_out)
{
    uint32_t layers = 1;
    for (size_t i = 1; i < cells; i++) {
        layers += cell[i].layer != cell[i - 1].layer;
        if (cell[i].layer == cell[i - 1].layer && cell[i].expert == cell[i - 1].expert)
            return cot_fail(COT_ERR_FORMAT, "line %u: layer %u expert %u was counted in line %u already", cell[i].line,
                            cell[i].layer, cell[i].expert, cell[i - 1].line);
    }
    *layers_out = layers;
    return COT_OK;
}

static cot_status_t take_notes(const csv_t *csv, place_stats_t *stats)
{
    int64_t top_k = 0;
    if (csv->model != COLUMNS_MAX)
        snprintf(stats->model, sizeof(stats->model), "%.*s", (int)csv->value[csv->model].bytes,
                 csv->value[csv->model].text);
    if (csv->top_k != COLUMNS_MAX)
        COT_TRY(read_number(csv->value[csv->top_k], "top_k", PLACE_IMPORT_MAX_EXPERTS, &top_k));
    stats->top_k = (uint32_t)top_k;
    return COT_OK;
}

static cot_status_t make_stats(csv_t *csv, const place_import_t *options, place_stats_t **stats_out)
{
    cell_t *cell = (cell_t *)(void *)csv->cells.data;
    size_t cells = csv->cells.size / sizeof(*cell);
    uint32_t layers = 0;
    qsort(cell, cells, sizeof(*cell), by_place);
    COT_TRY(check_unique(cell, cells, &layers));
    place_stats_t *stats = NULL;
    COT_TRY(place_import_new_stats(layers, place_import_count_experts(place_import_experts(options), csv->highest),
                                   &stats));
    for (size_t i = 0, layer = 0; i < cells; i++) {
        layer += i > 0 && cell[i].layer != cell[i - 1].layer;
        stats->layer_index[layer] = cell[i].layer;
        stats->load[layer * stats->experts + cell[i].expert] = cell[i].count;
    }
    cot_status_t status = place_import_same_layers(options, layers, stats->layer_index);
    if (status == COT_OK) status = take_notes(csv, stats);
    if (status == COT_OK && options->top_k != 0 && stats->top_k != 0 && stats->top_k != options->top_k)
        status = cot_fail(COT_ERR_MISMATCH, "holds %u experts a token, where %u are stated", stats->top_k,
                          options->top_k);
    if (status != COT_OK) {
        place_stats_destroy(stats);
        return status;
    }
    *stats_out = stats;
    return COT_OK;
}

cot_status_t place_import_csv(const char *path, const place_import_t *options, place_stats_t **stats_out)
{
    uint32_t experts = place_import_experts(options);
    csv_t csv = {.expert_limit = experts != 0 ? experts : PLACE_IMPORT_MAX_EXPERTS};
    COT_TRY(place_lines_open(path, &csv.lines));
    cot_status_t status = read_lines(&csv, options);
    if (status == COT_OK) status = make_stats(&csv, options, stats_out);
    cot_buffer_free(&csv.cells);
    place_lines_close(&csv.lines);
    return status == COT_OK ? COT_OK : cot_fail_in(status, "%s", path);
}
