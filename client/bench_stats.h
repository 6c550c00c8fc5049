/* The figures of a benchmark run, under the names that vLLM's `bench serve` gives them. */
#ifndef CLIENT_BENCH_STATS_H
#define CLIENT_BENCH_STATS_H

#include "base/buffer.h"

#include <stdbool.h>
#include <stdint.h>

/* Samples in ms, as an array of double in a buffer each. */
typedef struct {
    cot_buffer_t ttft; /* from sending to the first token */
    cot_buffer_t tpot; /* (end - first token) / (tokens - 1), of requests with two tokens or more */
    cot_buffer_t itl;  /* between tokens */
    cot_buffer_t e2el; /* from sending to the last word */
    uint64_t completed, failed, input_tokens, output_tokens;
    double seconds; /* of the whole run */
} client_samples_t;

void client_samples_free(client_samples_t *samples);
cot_status_t client_samples_add(cot_buffer_t *samples, double ms);
/* Moves what `from` holds to the end of `to`. */
cot_status_t client_samples_join(client_samples_t *to, const client_samples_t *from);

/* Of `count` samples, which are sorted here. What cannot be known of so few is NaN. Percentiles are interpolated
 * linearly, the deviation is the population's, both as numpy has them. */
typedef struct {
    double mean, median, std, p90, p95, p99;
} client_summary_t;
client_summary_t client_summarise(double *sample, size_t count);

/* What was not measured is "-" in the text and null in JSON. */
cot_status_t client_samples_print(client_samples_t *samples, bool json, cot_buffer_t *out);

#endif
