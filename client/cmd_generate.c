#include "client/command_int.h"
#include "client/commands.h"

#include "base/buffer.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "proto/limits.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* One answer as it is printed. */
typedef struct {
    bool json;
    cot_buffer_t text, tokens, logprobs, tops; /* JSON: texts of the values */
    cot_status_t status;                       /* of writing */
    int64_t start_ns, first_ns;
    client_bar_t bar;
} output_t;

/* ---- the prompt ---- */

static cot_status_t read_stdin(cot_buffer_t *prompt)
{
    char bytes[4096];
    size_t count;
    while ((count = fread(bytes, 1, sizeof(bytes), stdin)) > 0) {
        COT_TRY(cot_buffer_append(prompt, bytes, count));
        if (prompt->size > RPC_REQUEST_FRAME_BYTES)
            return cot_fail(COT_ERR_LIMIT, "standard input holds more than %u bytes: shorten the prompt",
                            RPC_REQUEST_FRAME_BYTES);
    }
    return ferror(stdin) ? cot_fail(COT_ERR_IO, "cannot read standard input") : COT_OK;
}

static cot_status_t read_prompt(const cot_settings_t *settings, cot_buffer_t *prompt)
{
    COT_TRY(client_check_arguments(settings, 1, "one prompt (quoted), or - for standard input"));
    const char *argument = cot_settings_argument(settings, 0);
    if (strcmp(argument, "-") == 0)
        COT_TRY(read_stdin(prompt));
    else
        COT_TRY(cot_buffer_append(prompt, argument, strlen(argument)));
    return prompt->size > 0 ? COT_OK : cot_fail(COT_ERR_INVALID, "the prompt is empty");
}

/* ---- the answer ---- */

static cot_status_t put_float(cot_buffer_t *json, float value)
{
    if (!isfinite(value)) return cot_buffer_printf(json, "null");
    return cot_buffer_printf(json, "%.9g", (double)value);
}

static cot_status_t put_top(cot_buffer_t *json, const coterie_client_top_t *top)
{
    COT_TRY(cot_buffer_printf(json, "%s[", json->size > 0 ? ", " : ""));
    for (uint32_t i = 0; i < top->count; i++) {
        COT_TRY(cot_buffer_printf(json, "%s{\"token\": %d, \"logprob\": ", i > 0 ? ", " : "", top->tokens[i]));
        COT_TRY(put_float(json, top->logprobs[i]));
        COT_TRY(cot_buffer_printf(json, "}"));
    }
    return cot_buffer_printf(json, "]");
}

static cot_status_t keep(output_t *output, const coterie_client_delta_t *delta)
{
    COT_TRY(cot_buffer_append(&output->text, delta->text, delta->text_bytes));
    for (uint32_t i = 0; i < delta->count; i++) {
        const char *comma = output->tokens.size > 0 ? ", " : "";
        COT_TRY(cot_buffer_printf(&output->tokens, "%s%d", comma, delta->tokens[i]));
        COT_TRY(cot_buffer_printf(&output->logprobs, "%s", comma));
        COT_TRY(put_float(&output->logprobs, delta->logprobs[i]));
        if (delta->tops != NULL) COT_TRY(put_top(&output->tops, &delta->tops[i]));
    }
    return COT_OK;
}

static int on_delta(void *user, const coterie_client_delta_t *delta)
{
    output_t *output = user;
    client_bar_clear(&output->bar);
    if (output->first_ns == 0 && delta->count > 0) output->first_ns = cot_now_ns();
    if (output->json)
        output->status = keep(output, delta);
    else if (fwrite(delta->text, 1, delta->text_bytes, stdout) != delta->text_bytes || fflush(stdout) != 0)
        output->status = cot_fail(COT_ERR_IO, "cannot write to standard output");
    return output->status != COT_OK;
}

static void on_loading(void *user, double progress)
{
    output_t *output = user;
    output->start_ns = cot_now_ns(); /* loading is no part of the latency */
    client_bar_show(&output->bar, progress);
}

static double ms_since(int64_t start_ns, int64_t end_ns)
{
    return (double)(end_ns - start_ns) * 1e-6;
}

/* One object, one key a line; what differs from run to run ends in _ms. */
static cot_status_t print_json(const output_t *output, cot_status_t status, const coterie_client_result_t *result)
{
    const char *error = status == COT_OK ? NULL : cot_error_text();
    cot_buffer_t json = {0};
    cot_status_t failed;
    COT_TRY_GOTO(cot_buffer_printf(&json, "{\n  \"text\": "), failed, free_json);
    COT_TRY_GOTO(cot_buffer_json_string(&json, (const char *)output->text.data, output->text.size), failed, free_json);
    COT_TRY_GOTO(cot_buffer_printf(&json, ",\n  \"tokens\": [%.*s],\n  \"logprobs\": [%.*s]", (int)output->tokens.size,
                                   (const char *)output->tokens.data, (int)output->logprobs.size,
                                   (const char *)output->logprobs.data),
                 failed, free_json);
    if (output->tops.size > 0)
        COT_TRY_GOTO(cot_buffer_printf(&json, ",\n  \"top_logprobs\": [%.*s]", (int)output->tops.size,
                                       (const char *)output->tops.data),
                     failed, free_json);
    COT_TRY_GOTO(cot_buffer_printf(&json,
                                   ",\n  \"finish_reason\": \"%s\",\n  \"prompt_tokens\": %u,\n  \"generated_tokens\": "
                                   "%u,\n  \"seed\": %" PRIu64 ",\n  \"error\": ",
                                   coterie_client_finish_name(result->finish), result->prompt_tokens,
                                   result->generated_tokens, result->seed),
                 failed, free_json);
    COT_TRY_GOTO(error != NULL ? cot_buffer_json_string(&json, error, strlen(error)) : cot_buffer_printf(&json, "null"),
                 failed, free_json);
    if (output->first_ns != 0)
        COT_TRY_GOTO(cot_buffer_printf(&json, ",\n  \"ttft_ms\": %.3f", ms_since(output->start_ns, output->first_ns)),
                     failed, free_json);
    COT_TRY_GOTO(cot_buffer_printf(&json, ",\n  \"total_ms\": %.3f\n}\n", ms_since(output->start_ns, cot_now_ns())),
                 failed, free_json);
    if (fwrite(json.data, 1, json.size, stdout) != json.size || fflush(stdout) != 0)
        failed = cot_fail(COT_ERR_IO, "cannot write to standard output");
free_json:
    cot_buffer_free(&json);
    return failed;
}

static void report(const output_t *output, const coterie_client_result_t *result)
{
    if (isatty(STDOUT_FILENO)) putchar('\n');
    fflush(stdout);
    double seconds = ms_since(output->first_ns, cot_now_ns()) * 1e-3;
    char rate[64] = "";
    if (result->generated_tokens > 1 && seconds > 0)
        snprintf(rate, sizeof(rate), ", first after %.0f ms, then %.1f a second",
                 ms_since(output->start_ns, output->first_ns), (result->generated_tokens - 1) / seconds);
    cot_log_info("finish: %s; %u prompt tokens, %u generated%s", coterie_client_finish_name(result->finish),
                 result->prompt_tokens, result->generated_tokens, rate);
}

/* ---- the request ---- */

static void fill_request(const cot_settings_t *settings, const cot_buffer_t *prompt, const char **stop,
                         coterie_client_request_t *request)
{
    static const struct {
        cot_setting_t id;
        uint32_t bit;
    } OPTIONAL[] = {{COT_SET_TEMPERATURE, COTERIE_CLIENT_TEMPERATURE},
                    {COT_SET_TOP_K, COTERIE_CLIENT_TOP_K},
                    {COT_SET_TOP_P, COTERIE_CLIENT_TOP_P},
                    {COT_SET_MIN_P, COTERIE_CLIENT_MIN_P},
                    {COT_SET_SEED, COTERIE_CLIENT_SEED},
                    {COT_SET_REPETITION_PENALTY, COTERIE_CLIENT_REPETITION_PENALTY}};
    coterie_client_request_init(request);
    for (size_t i = 0; i < sizeof(OPTIONAL) / sizeof(*OPTIONAL); i++)
        if (cot_settings_given(settings, OPTIONAL[i].id)) request->set |= OPTIONAL[i].bit;
    request->text = (const char *)prompt->data;
    request->text_bytes = prompt->size;
    request->temperature = (float)cot_settings_number(settings, COT_SET_TEMPERATURE);
    request->top_p = (float)cot_settings_number(settings, COT_SET_TOP_P);
    request->min_p = (float)cot_settings_number(settings, COT_SET_MIN_P);
    request->repetition_penalty = (float)cot_settings_number(settings, COT_SET_REPETITION_PENALTY);
    request->top_k = (uint32_t)cot_settings_int(settings, COT_SET_TOP_K);
    request->seed = (uint64_t)cot_settings_int(settings, COT_SET_SEED);
    request->set |= COTERIE_CLIENT_MAX_TOKENS;
    request->max_tokens = (uint32_t)cot_settings_int(settings, COT_SET_MAX_TOKENS);
    request->logprobs = (uint32_t)cot_settings_int(settings, COT_SET_LOGPROBS);
    request->ignore_eos = cot_settings_switch(settings, COT_SET_IGNORE_EOS);
    request->stops = stop;
    request->stop_count = cot_settings_given(settings, COT_SET_STOP) ? 1 : 0;
    request->timeout_ms = cot_settings_int(settings, COT_SET_TIMEOUT);
    request->on_delta = on_delta;
    request->on_loading = on_loading;
}

static cot_status_t check_counts(const cot_settings_t *settings)
{
    static const struct {
        cot_setting_t id;
        const char *flag;
    } COUNTS[] = {{COT_SET_MAX_TOKENS, "max-tokens"}, {COT_SET_TOP_K, "top-k"}, {COT_SET_LOGPROBS, "logprobs"}};
    for (size_t i = 0; i < sizeof(COUNTS) / sizeof(*COUNTS); i++)
        if (cot_settings_int(settings, COUNTS[i].id) > INT32_MAX)
            return cot_fail(COT_ERR_INVALID, "--%s %lld: too many", COUNTS[i].flag,
                            (long long)cot_settings_int(settings, COUNTS[i].id));
    return COT_OK;
}

static cot_status_t generate(const cot_settings_t *settings, const cot_buffer_t *prompt, coterie_client_t *client)
{
    const char *stop = cot_settings_string(settings, COT_SET_STOP);
    output_t output = {.json = cot_settings_switch(settings, COT_SET_JSON), .start_ns = cot_now_ns()};
    coterie_client_result_t result = {.size = sizeof(result)};
    coterie_client_request_t request;
    fill_request(settings, prompt, &stop, &request);
    request.user = &output;
    cot_status_t status = (cot_status_t)coterie_client_generate(client, &request, &result);
    client_bar_clear(&output.bar);
    if (output.status != COT_OK) status = output.status;
    if (output.json) {
        cot_status_t printed = print_json(&output, status, &result);
        if (status == COT_OK) status = printed;
    } else if (status == COT_OK || status == COT_ERR_CANCELLED) {
        report(&output, &result);
    }
    cot_buffer_free(&output.text);
    cot_buffer_free(&output.tokens);
    cot_buffer_free(&output.logprobs);
    cot_buffer_free(&output.tops);
    return status;
}

static cot_status_t connect_and_generate(const cot_settings_t *settings, client_interrupt_t *interrupt)
{
    cot_buffer_t prompt = {0};
    coterie_client_t *client = NULL;
    cot_status_t status;
    COT_TRY_GOTO(check_counts(settings), status, free_prompt);
    COT_TRY_GOTO(read_prompt(settings, &prompt), status, free_prompt);
    COT_TRY_GOTO(client_connect(settings, &client), status, free_prompt);
    client_interrupt_attach(interrupt, client);
    status = generate(settings, &prompt, client);
    client_interrupt_detach(interrupt, client);
    coterie_client_close(client);
free_prompt:
    cot_buffer_free(&prompt);
    return status;
}

int client_generate_command(const cot_settings_t *settings)
{
    client_interrupt_t interrupt;
    cot_status_t status = client_interrupt_start(&interrupt, 1);
    if (status != COT_OK) return client_exit(status);
    status = connect_and_generate(settings, &interrupt);
    int code = client_exit(status);
    client_interrupt_end(&interrupt);
    return code;
}
