#include "client/client_int.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* What is absent is null: not measured is not zero. */

static cot_status_t put_text(cot_buffer_t *json, const char *name, const char *text)
{
    COT_TRY(cot_buffer_printf(json, "\"%s\": ", name));
    if (text == NULL) return cot_buffer_printf(json, "null, ");
    COT_TRY(cot_buffer_json_string(json, text, strlen(text)));
    return cot_buffer_printf(json, ", ");
}

static cot_status_t put_count(cot_buffer_t *json, const char *name, bool has, uint64_t value)
{
    if (!has) return cot_buffer_printf(json, "\"%s\": null, ", name);
    return cot_buffer_printf(json, "\"%s\": %" PRIu64 ", ", name, value);
}

static cot_status_t put_number(cot_buffer_t *json, const char *name, bool has, double value)
{
    if (!has || !isfinite(value)) return cot_buffer_printf(json, "\"%s\": null, ", name);
    return cot_buffer_printf(json, "\"%s\": %.6g, ", name, value);
}

/* An object's last ", " becomes its end. */
static cot_status_t put_end(cot_buffer_t *json, const char *end)
{
    json->size -= 2;
    return cot_buffer_printf(json, "%s", end);
}

#define COUNT(message, field) COT_TRY(put_count(json, #field, (message)->has_##field, (uint64_t)(message)->field))
#define NUMBER(message, field) COT_TRY(put_number(json, #field, (message)->has_##field, (double)(message)->field))
#define TEXT(message, field) COT_TRY(put_text(json, #field, (message)->field))

static cot_status_t print_rank(const Coterie__RankStatus *rank, cot_buffer_t *json)
{
    COT_TRY(cot_buffer_printf(json, "{"));
    COUNT(rank, rank);
    COUNT(rank, node);
    TEXT(rank, isa);
    COUNT(rank, threads);
    COUNT(rank, step);
    NUMBER(rank, age_seconds);
    COUNT(rank, weight_bytes);
    COUNT(rank, mapped_bytes);
    COUNT(rank, kv_bytes);
    COUNT(rank, buffer_bytes);
    COUNT(rank, assignments);
    COUNT(rank, dispatch_bytes);
    COUNT(rank, combine_bytes);
    COT_TRY(put_number(json, "compute_ms", rank->has_compute_ns, (double)rank->compute_ns * 1e-6));
    COT_TRY(put_number(json, "wait_ms", rank->has_wait_ns, (double)rank->wait_ns * 1e-6));
    return put_end(json, "}, ");
}

static const char *state_name(const Coterie__Status *status)
{
    switch (status->state) {
    case COTERIE__STATE__STATE_LOADING: return "loading";
    case COTERIE__STATE__STATE_OK: return "ok";
    case COTERIE__STATE__STATE_DRAINING: return "draining";
    default: return "unknown";
    }
}

cot_status_t client_status_print(const Coterie__Status *status, cot_buffer_t *json)
{
    COT_TRY(cot_buffer_printf(json, "{"));
    COT_TRY(put_text(json, "state", state_name(status)));
    NUMBER(status, progress);
    TEXT(status, model);
    TEXT(status, version);
    NUMBER(status, uptime_seconds);
    TEXT(status, dtype);
    TEXT(status, backend);
    TEXT(status, exchange);
    TEXT(status, plan);
    COUNT(status, max_context);
    COUNT(status, connections);
    COUNT(status, waiting);
    COUNT(status, running);
    COUNT(status, kv_blocks_used);
    COUNT(status, kv_blocks);
    COUNT(status, step);
    NUMBER(status, step_ms);
    NUMBER(status, tokens_per_second);
    COUNT(status, tokens_generated);
    COUNT(status, tokens_prefilled);
    COUNT(status, requests_finished);
    COUNT(status, preemptions);
    COT_TRY(cot_buffer_printf(json, "\"ranks\": ["));
    for (size_t i = 0; i < status->n_ranks; i++) COT_TRY(print_rank(status->ranks[i], json));
    return status->n_ranks > 0 ? put_end(json, "]}") : cot_buffer_printf(json, "]}");
}
