#include "client/bench_stats.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

void client_samples_free(client_samples_t *samples)
{
    cot_buffer_free(&samples->ttft);
    cot_buffer_free(&samples->tpot);
    cot_buffer_free(&samples->itl);
    cot_buffer_free(&samples->e2el);
}

cot_status_t client_samples_add(cot_buffer_t *samples, double ms)
{
    return cot_buffer_append(samples, &ms, sizeof(ms));
}

cot_status_t client_samples_join(client_samples_t *to, const client_samples_t *from)
{
    COT_TRY(cot_buffer_append(&to->ttft, from->ttft.data, from->ttft.size));
    COT_TRY(cot_buffer_append(&to->tpot, from->tpot.data, from->tpot.size));
    COT_TRY(cot_buffer_append(&to->itl, from->itl.data, from->itl.size));
    COT_TRY(cot_buffer_append(&to->e2el, from->e2el.data, from->e2el.size));
    to->completed += from->completed;
    to->failed += from->failed;
    to->input_tokens += from->input_tokens;
    to->output_tokens += from->output_tokens;
    return COT_OK;
}

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static double percentile(const double *sorted, size_t count, double share)
{
    double at = share * (double)(count - 1);
    size_t below = (size_t)at;
    if (below + 1 >= count) return sorted[count - 1];
    return sorted[below] + (at - (double)below) * (sorted[below + 1] - sorted[below]);
}

client_summary_t client_summarise(double *sample, size_t count)
{
    if (count == 0) return (client_summary_t){NAN, NAN, NAN, NAN, NAN, NAN};
    qsort(sample, count, sizeof(*sample), compare);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < count; i++) sum += sample[i];
    double mean = sum / (double)count;
    for (size_t i = 0; i < count; i++) squares += (sample[i] - mean) * (sample[i] - mean);
    return (client_summary_t){.mean = mean,
                              .median = percentile(sample, count, 0.5),
                              .std = count > 1 ? sqrt(squares / (double)count) : NAN,
                              .p90 = percentile(sample, count, 0.90),
                              .p95 = percentile(sample, count, 0.95),
                              .p99 = percentile(sample, count, 0.99)};
}

/* ---- printing ---- */

static cot_status_t put(cot_buffer_t *out, bool json, const char *name, double value)
{
    COT_TRY(cot_buffer_printf(out, json ? "  \"%s\": " : "%-24s ", name));
    if (isfinite(value))
        COT_TRY(cot_buffer_printf(out, json ? "%.6f" : "%12.3f", value));
    else
        COT_TRY(cot_buffer_printf(out, json ? "null" : "%12s", "-"));
    return cot_buffer_printf(out, json ? ",\n" : "\n");
}

static cot_status_t put_count(cot_buffer_t *out, bool json, const char *name, uint64_t value)
{
    return cot_buffer_printf(out, json ? "  \"%s\": %" PRIu64 ",\n" : "%-24s %12" PRIu64 "\n", name, value);
}

static cot_status_t put_summary(cot_buffer_t *out, bool json, const char *name, cot_buffer_t *samples)
{
    client_summary_t summary = client_summarise((double *)(void *)samples->data, samples->size / sizeof(double));
    const struct {
        const char *name;
        double value;
    } figure[] = {{"mean", summary.mean}, {"median", summary.median}, {"std", summary.std},
                  {"p90", summary.p90},   {"p95", summary.p95},       {"p99", summary.p99}};
    for (size_t i = 0; i < sizeof(figure) / sizeof(*figure); i++) {
        char key[64];
        snprintf(key, sizeof(key), "%s_%s_ms", figure[i].name, name);
        COT_TRY(put(out, json, key, figure[i].value));
    }
    return COT_OK;
}

cot_status_t client_samples_print(client_samples_t *samples, bool json, cot_buffer_t *out)
{
    double seconds = samples->completed > 0 && samples->seconds > 0 ? samples->seconds : NAN;
    uint64_t tokens = samples->input_tokens + samples->output_tokens;
    if (json) COT_TRY(cot_buffer_printf(out, "{\n"));
    COT_TRY(put_count(out, json, "completed", samples->completed));
    COT_TRY(put_count(out, json, "failed", samples->failed));
    COT_TRY(put(out, json, "duration", samples->seconds));
    COT_TRY(put_count(out, json, "total_input_tokens", samples->input_tokens));
    COT_TRY(put_count(out, json, "total_output_tokens", samples->output_tokens));
    COT_TRY(put(out, json, "request_throughput", (double)samples->completed / seconds));
    COT_TRY(put(out, json, "output_throughput", (double)samples->output_tokens / seconds));
    COT_TRY(put(out, json, "total_token_throughput", (double)tokens / seconds));
    COT_TRY(put_summary(out, json, "ttft", &samples->ttft));
    COT_TRY(put_summary(out, json, "tpot", &samples->tpot));
    COT_TRY(put_summary(out, json, "itl", &samples->itl));
    COT_TRY(put_summary(out, json, "e2el", &samples->e2el));
    if (!json) return COT_OK;
    out->size -= 2; /* the last comma */
    return cot_buffer_printf(out, "\n}\n");
}
