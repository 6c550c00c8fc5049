#include "client/bench_prompts.h"
#include "client/bench_stats.h"
#include "client/command_int.h"
#include "client/commands.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { MAX_REQUESTS = 1000000, MAX_CONCURRENCY = 1024, MAX_PROMPT_TOKENS = 1 << 20 };

/* What all threads share. */
typedef struct {
    const cot_settings_t *settings;
    client_prompts_t prompts;
    client_interrupt_t interrupt;
    uint32_t requests;
    atomic_uint next; /* request to send */
} bench_t;

/* One connection, with one request in flight. */
typedef struct {
    bench_t *bench;
    pthread_t thread;
    bool started;
    client_samples_t samples;
    cot_status_t status; /* of the first failure */
    char sentence[512];
    int64_t start_ns, first_ns, last_ns; /* of the request in flight */
    cot_status_t sampling;               /* adding a sample failed */
} lane_t;

/* ---- one request ---- */

static double ms_between(int64_t from_ns, int64_t to_ns)
{
    return (double)(to_ns - from_ns) * 1e-6;
}

static int on_delta(void *user, const coterie_client_delta_t *delta)
{
    lane_t *lane = user;
    if (delta->count == 0) return 0;
    int64_t now_ns = cot_now_ns();
    if (lane->first_ns == 0)
        lane->first_ns = now_ns;
    else
        lane->sampling = client_samples_add(&lane->samples.itl, ms_between(lane->last_ns, now_ns));
    lane->last_ns = now_ns;
    return lane->sampling != COT_OK;
}

static void fill_request(const bench_t *bench, uint32_t index, coterie_client_request_t *request)
{
    const cot_settings_t *settings = bench->settings;
    const client_prompt_t *prompt = client_prompts_get(&bench->prompts, index % bench->prompts.count);
    coterie_client_request_init(request);
    if (prompt->is_text) {
        request->text = (const char *)bench->prompts.text.data + prompt->begin;
        request->text_bytes = prompt->count;
    } else {
        request->tokens = (const int32_t *)(const void *)bench->prompts.ids.data + prompt->begin;
        request->token_count = (uint32_t)prompt->count;
    }
    request->set = COTERIE_CLIENT_MAX_TOKENS;
    request->max_tokens = (uint32_t)cot_settings_int(settings, COT_SET_MAX_TOKENS);
    if (cot_settings_given(settings, COT_SET_TEMPERATURE)) request->set |= COTERIE_CLIENT_TEMPERATURE;
    request->temperature = (float)cot_settings_number(settings, COT_SET_TEMPERATURE);
    if (cot_settings_given(settings, COT_SET_SEED)) request->set |= COTERIE_CLIENT_SEED;
    request->seed = (uint64_t)cot_settings_int(settings, COT_SET_SEED) + index;
    request->ignore_eos = cot_settings_switch(settings, COT_SET_IGNORE_EOS);
    request->timeout_ms = cot_settings_int(settings, COT_SET_TIMEOUT);
    request->on_delta = on_delta;
}

static cot_status_t add_request(lane_t *lane, const coterie_client_result_t *result)
{
    client_samples_t *samples = &lane->samples;
    int64_t end_ns = cot_now_ns();
    samples->completed++;
    samples->input_tokens += result->prompt_tokens;
    samples->output_tokens += result->generated_tokens;
    COT_TRY(client_samples_add(&samples->e2el, ms_between(lane->start_ns, end_ns)));
    if (lane->first_ns == 0) return COT_OK;
    COT_TRY(client_samples_add(&samples->ttft, ms_between(lane->start_ns, lane->first_ns)));
    if (result->generated_tokens < 2) return COT_OK;
    return client_samples_add(&samples->tpot,
                              ms_between(lane->first_ns, end_ns) / (double)(result->generated_tokens - 1));
}

static void note_failure(lane_t *lane, cot_status_t status)
{
    lane->samples.failed++;
    if (lane->status != COT_OK) return;
    lane->status = status;
    snprintf(lane->sentence, sizeof(lane->sentence), "%s", cot_error_text());
}

static cot_status_t run_request(lane_t *lane, coterie_client_t *client, uint32_t index)
{
    coterie_client_result_t result = {.size = sizeof(result)};
    coterie_client_request_t request;
    fill_request(lane->bench, index, &request);
    request.user = lane;
    size_t itl_before = lane->samples.itl.size;
    lane->first_ns = lane->last_ns = 0;
    lane->start_ns = cot_now_ns();
    cot_status_t status = (cot_status_t)coterie_client_generate(client, &request, &result);
    if (status == COT_OK) status = add_request(lane, &result);
    if (status == COT_OK) return COT_OK;
    lane->samples.itl.size = itl_before; /* a failed request counts nowhere else */
    note_failure(lane, lane->sampling != COT_OK ? lane->sampling : status);
    return status;
}

/* ---- lanes ---- */

static bool is_lost(cot_status_t status)
{
    return status == COT_ERR_PEER_LOST || status == COT_ERR_PROTOCOL || status == COT_ERR_TIMEOUT;
}

static void *run_lane(void *user)
{
    lane_t *lane = user;
    bench_t *bench = lane->bench;
    coterie_client_t *client = NULL;
    for (uint32_t index; (index = atomic_fetch_add(&bench->next, 1)) < bench->requests;) {
        if (client_interrupted(&bench->interrupt)) break;
        cot_status_t status = COT_OK;
        if (client == NULL) {
            status = client_connect(bench->settings, &client);
            if (status == COT_OK) client_interrupt_attach(&bench->interrupt, client);
        }
        if (status != COT_OK)
            note_failure(lane, status);
        else
            status = run_request(lane, client, index);
        if (client == NULL || !is_lost(status)) continue;
        client_interrupt_detach(&bench->interrupt, client); /* the next request begins with a new connection */
        coterie_client_close(client);
        client = NULL;
    }
    if (client != NULL) client_interrupt_detach(&bench->interrupt, client);
    coterie_client_close(client);
    return NULL;
}

static cot_status_t run_lanes(bench_t *bench, lane_t *lane, uint32_t lanes, client_samples_t *total)
{
    int64_t start_ns = cot_now_ns();
    cot_status_t status = COT_OK;
    for (uint32_t i = 0; i < lanes && status == COT_OK; i++) {
        lane[i].bench = bench;
        lane[i].started = pthread_create(&lane[i].thread, NULL, run_lane, &lane[i]) == 0;
        if (!lane[i].started)
            status = cot_fail(COT_ERR_NO_MEMORY, "cannot start %u threads: lower --concurrency", lanes);
    }
    if (status != COT_OK) atomic_store(&bench->next, bench->requests);
    for (uint32_t i = 0; i < lanes; i++)
        if (lane[i].started) pthread_join(lane[i].thread, NULL);
    total->seconds = ms_between(start_ns, cot_now_ns()) * 1e-3;
    for (uint32_t i = 0; i < lanes && status == COT_OK; i++) status = client_samples_join(total, &lane[i].samples);
    return status;
}

/* The first failure speaks for all. */
static cot_status_t judge(const lane_t *lane, uint32_t lanes, const client_samples_t *total)
{
    for (uint32_t i = 0; i < lanes && total->failed > 0; i++) {
        if (lane[i].status == COT_OK) continue;
        cot_status_t status = total->completed > 0 && lane[i].status != COT_ERR_CANCELLED ? COT_ERR_PARTIAL
                                                                                          : lane[i].status;
        return cot_fail(status, "%llu requests failed; one of them: %s", (unsigned long long)total->failed,
                        lane[i].sentence);
    }
    return COT_OK;
}

static cot_status_t report(client_samples_t *total, bool json)
{
    cot_buffer_t text = {0};
    cot_status_t status = client_samples_print(total, json, &text);
    if (status == COT_OK && (fwrite(text.data, 1, text.size, stdout) != text.size || fflush(stdout) != 0))
        status = cot_fail(COT_ERR_IO, "cannot write to standard output");
    cot_buffer_free(&text);
    return status;
}

static cot_status_t run_bench(bench_t *bench)
{
    uint32_t lanes = (uint32_t)cot_settings_int(bench->settings, COT_SET_CONCURRENCY);
    if (lanes > bench->requests) lanes = bench->requests;
    client_samples_t total = {0};
    lane_t *lane = cot_calloc(lanes, sizeof(*lane));
    if (lane == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for %u connections", lanes);
    cot_status_t status = run_lanes(bench, lane, lanes, &total);
    if (status == COT_OK) status = report(&total, cot_settings_switch(bench->settings, COT_SET_JSON));
    if (status == COT_OK) status = judge(lane, lanes, &total);
    if (status == COT_OK && client_interrupted(&bench->interrupt)) status = cot_fail(COT_ERR_CANCELLED, "interrupted");
    for (uint32_t i = 0; i < lanes; i++) client_samples_free(&lane[i].samples);
    client_samples_free(&total);
    cot_free(lane);
    return status;
}

/* ---- before the clock starts ---- */

static cot_status_t check_range(const cot_settings_t *settings, cot_setting_t id, const char *flag, int64_t most)
{
    int64_t value = cot_settings_int(settings, id);
    if (value >= 1 && value <= most) return COT_OK;
    return cot_fail(COT_ERR_INVALID, "--%s %lld: must be from 1 to %lld", flag, (long long)value, (long long)most);
}

static cot_status_t check_settings(const cot_settings_t *settings)
{
    COT_TRY(client_check_arguments(settings, 0, "no argument"));
    COT_TRY(check_range(settings, COT_SET_REQUESTS, "requests", MAX_REQUESTS));
    COT_TRY(check_range(settings, COT_SET_CONCURRENCY, "concurrency", MAX_CONCURRENCY));
    COT_TRY(check_range(settings, COT_SET_MAX_TOKENS, "max-tokens", INT32_MAX));
    return check_range(settings, COT_SET_PROMPT_TOKENS, "prompt-tokens", MAX_PROMPT_TOKENS);
}

static cot_status_t get_ready(bench_t *bench)
{
    const cot_settings_t *settings = bench->settings;
    const char *path = cot_settings_string(settings, COT_SET_IN);
    if (path[0] != '\0') COT_TRY(client_prompts_read(&bench->prompts, path));
    coterie_client_t *client = NULL;
    COT_TRY(client_connect(settings, &client));
    cot_status_t status = client_await_ready(client, settings);
    if (status == COT_OK && path[0] == '\0')
        status = client_prompts_make(
            &bench->prompts, bench->requests, (uint32_t)cot_settings_int(settings, COT_SET_PROMPT_TOKENS),
            coterie_client_vocabulary(client), (uint64_t)cot_settings_int(settings, COT_SET_SEED));
    coterie_client_close(client);
    return status;
}

int client_bench_command(const cot_settings_t *settings)
{
    bench_t bench = {.settings = settings};
    cot_status_t status = check_settings(settings);
    if (status != COT_OK) return client_exit(status);
    bench.requests = (uint32_t)cot_settings_int(settings, COT_SET_REQUESTS);
    status = client_interrupt_start(&bench.interrupt, MAX_CONCURRENCY);
    if (status != COT_OK) return client_exit(status);
    status = get_ready(&bench);
    if (status == COT_OK) status = run_bench(&bench);
    int code = client_exit(status);
    client_prompts_free(&bench.prompts);
    client_interrupt_end(&bench.interrupt);
    return code;
}
