#include "coordinator/score_line.h"

#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

cot_status_t coord_line_create(uint64_t number, void *owner, coord_line_t **line_out)
{
    coord_line_t *line = cot_calloc(1, sizeof(*line));
    if (line == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for line %llu", (unsigned long long)number);
    line->number = number;
    line->owner = owner;
    *line_out = line;
    return COT_OK;
}

void coord_line_free(coord_line_t *line)
{
    if (line == NULL) return;
    cot_free(line->error);
    cot_free(line->token);
    cot_free(line->top1);
    cot_free(line->logprob);
    cot_free(line);
}

cot_status_t coord_line_take(coord_line_t *line, const int32_t *tokens)
{
    line->token = cot_calloc(line->count, sizeof(*line->token));
    line->top1 = cot_calloc(line->count, sizeof(*line->top1));
    line->logprob = cot_calloc(line->count, sizeof(*line->logprob));
    if (line->token == NULL || line->top1 == NULL || line->logprob == NULL)
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for a line of %u tokens", line->count);
    memcpy(line->token, tokens, line->count * sizeof(*tokens));
    return COT_OK;
}

static cot_status_t print_ids(cot_buffer_t *text, const char *key, const int32_t *id, uint32_t count)
{
    COT_TRY(cot_buffer_printf(text, "%s[", key));
    for (uint32_t i = 0; i < count; i++) COT_TRY(cot_buffer_printf(text, i > 0 ? ",%d" : "%d", id[i]));
    return cot_buffer_append(text, "]", 1);
}

/* Nine digits tell every float from every other. A dot or an exponent keeps it a float for the reader: -0 as an integer
 * would lose its sign. */
static cot_status_t print_float(cot_buffer_t *text, float value)
{
    char digits[32];
    if (!isfinite(value)) return cot_buffer_append(text, "null", 4);
    int length = snprintf(digits, sizeof(digits) - 2, "%.9g", (double)value);
    if (strpbrk(digits, ".e") == NULL) {
        memcpy(digits + length, ".0", 2);
        length += 2;
    }
    return cot_buffer_append(text, digits, (size_t)length);
}

cot_status_t coord_line_print(const coord_line_t *line, cot_buffer_t *text)
{
    if (line->error != NULL) {
        COT_TRY(cot_buffer_printf(text, "{\"error\":"));
        COT_TRY(cot_buffer_json_string(text, line->error, strlen(line->error)));
        return cot_buffer_append(text, "}\n", 2);
    }
    COT_TRY(print_ids(text, "{\"tokens\":", line->token, line->count));
    COT_TRY(cot_buffer_printf(text, ",\"logprobs\":[null"));
    for (uint32_t i = 1; i < line->count; i++) {
        COT_TRY(cot_buffer_append(text, ",", 1));
        COT_TRY(print_float(text, line->logprob[i]));
    }
    COT_TRY(print_ids(text, "],\"top1\":", line->top1, line->count));
    return cot_buffer_append(text, "}\n", 2);
}
