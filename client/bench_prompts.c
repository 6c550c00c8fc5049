#include "client/bench_prompts.h"

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"

#include <string.h>

#define FILE_BYTES ((size_t)1 << 30)

static cot_status_t add(client_prompts_t *prompts, const client_prompt_t *prompt)
{
    COT_TRY(cot_buffer_append(&prompts->prompts, prompt, sizeof(*prompt)));
    prompts->count++;
    return COT_OK;
}

static cot_status_t add_text(client_prompts_t *prompts, const json_t *text)
{
    const client_prompt_t prompt = {.is_text = true, .begin = prompts->text.size, .count = json_string_length(text)};
    COT_TRY(cot_buffer_append(&prompts->text, json_string_value(text), prompt.count));
    return add(prompts, &prompt);
}

static cot_status_t add_tokens(client_prompts_t *prompts, const json_t *tokens)
{
    const client_prompt_t prompt = {.begin = prompts->ids.size / sizeof(int32_t), .count = json_array_size(tokens)};
    for (size_t i = 0; i < prompt.count; i++) {
        const json_t *token = json_array_get(tokens, i);
        json_int_t value = json_integer_value(token);
        if (!json_is_integer(token) || value < 0 || value > INT32_MAX)
            return cot_fail(COT_ERR_FORMAT, "\"tokens\" must hold token ids");
        int32_t id = (int32_t)value;
        COT_TRY(cot_buffer_append(&prompts->ids, &id, sizeof(id)));
    }
    return add(prompts, &prompt);
}

static cot_status_t add_line(client_prompts_t *prompts, const char *line, size_t bytes)
{
    json_t *object = NULL;
    COT_TRY(cot_json_load_bytes(line, bytes, "the line", &object));
    const json_t *text = json_object_get(object, "text"), *tokens = json_object_get(object, "tokens");
    cot_status_t status;
    if (json_string_length(text) > 0)
        status = add_text(prompts, text);
    else if (json_array_size(tokens) > 0)
        status = add_tokens(prompts, tokens);
    else
        status = cot_fail(COT_ERR_FORMAT, "the line holds neither \"text\" nor \"tokens\", or an empty one");
    json_decref(object);
    return status;
}

cot_status_t client_prompts_read(client_prompts_t *prompts, const char *path)
{
    char *text = NULL;
    size_t bytes = 0;
    cot_status_t status = COT_OK;
    COT_TRY(cot_file_read(path, FILE_BYTES, &text, &bytes));
    const char *end = text + bytes;
    unsigned number = 0;
    for (const char *line = text, *next; line < end && status == COT_OK; line = next) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        const char *stop = newline != NULL ? newline : end;
        next = stop + 1;
        number++;
        if (strspn(line, " \t\r") >= (size_t)(stop - line)) continue;
        status = add_line(prompts, line, (size_t)(stop - line));
        if (status != COT_OK) cot_fail_in(status, "%s line %u", path, number);
    }
    cot_free(text);
    if (status == COT_OK && prompts->count == 0)
        return cot_fail(COT_ERR_FORMAT, "%s holds no prompt: give lines {\"text\": \"…\"}", path);
    return status;
}

/* splitmix64: the same sequence everywhere. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

cot_status_t client_prompts_make(client_prompts_t *prompts, uint32_t count, uint32_t tokens, uint32_t vocabulary,
                                 uint64_t seed)
{
    if (tokens == 0 || vocabulary == 0) return cot_fail(COT_ERR_INVALID, "--prompt-tokens is 0: give at least 1");
    for (uint32_t p = 0; p < count; p++) {
        uint64_t state = seed ^ ((uint64_t)p << 32);
        void *space = NULL;
        const client_prompt_t prompt = {.begin = prompts->ids.size / sizeof(int32_t), .count = tokens};
        COT_TRY(cot_buffer_extend(&prompts->ids, tokens * sizeof(int32_t), &space));
        int32_t *id = space;
        for (uint32_t i = 0; i < tokens; i++) id[i] = (int32_t)(next_random(&state) % vocabulary);
        COT_TRY(add(prompts, &prompt));
    }
    return COT_OK;
}

void client_prompts_free(client_prompts_t *prompts)
{
    cot_buffer_free(&prompts->prompts);
    cot_buffer_free(&prompts->text);
    cot_buffer_free(&prompts->ids);
}

const client_prompt_t *client_prompts_get(const client_prompts_t *prompts, uint32_t index)
{
    return (const client_prompt_t *)(const void *)prompts->prompts.data + index;
}
