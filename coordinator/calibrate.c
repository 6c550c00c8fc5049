#include "coordinator/calibrate.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/signals.h"
#include "kernels/kern.h"
#include "proto/measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    STAGES = 5,          /* row counts of the expert stage */
    PINGS = 200,         /* of one pair */
    PAIRS_MAX = 16,      /* whose latency is measured in a tier */
    REPEATS = 3,         /* of a bulk transfer */
    LONG_NS = 200000000, /* a bulk transfer that takes this long is long enough */
    ALIKE_PERCENT = 10,  /* ranks whose speed differs by less count as alike */
    MARGIN_MS = 10000,   /* that an answer may take beyond the worker's own deadline */
};
#define BULK_BYTES_MIN ((uint64_t)1 << 20)
#define BULK_BYTES_MAX ((uint64_t)64 << 20)
static const uint32_t STAGE_ROWS[STAGES] = {1, 4, 16, 64, 256};

typedef enum { SAME_RANK, SAME_NODE, CROSS_NODE, TIERS } tier_t;
static const char *const TIER_NAMES[TIERS] = {"same_rank", "same_node", "cross_node"};

/* A worker sends to `to`, and gets from `from`: indices, or RPC_MEASURE_NOBODY. */
typedef struct {
    uint32_t to, from;
} partners_t;

typedef struct {
    bool measured;
    double latency_us;
    double alone, together, slowest; /* GB/s: one pair by itself; the median and the least while all send */
} figures_t;

typedef struct {
    const coord_calibrate_config_t *config;
    comm_link_t *link;
    uint32_t workers;
    rpc_measured_t *answer; /* [workers] */
    bool *asked;            /* [workers] an answer is still to come */
    partners_t *partners;   /* [workers] */
    double *values;         /* [workers] scratch for medians */
    double *stage_ns;       /* [STAGES, workers] ns of one (row, expert) pair; 0: no expert there */
    double *expert_ns;      /* [workers] median over the row counts */
    figures_t tier[TIERS];
} calibration_t;

/* ---- orders and answers ---- */

static uint32_t node_of(const calibration_t *calibration, uint32_t worker)
{
    return calibration->config->fleet->worker[worker].node;
}

static uint32_t rank_of(uint32_t worker)
{
    return worker == RPC_MEASURE_NOBODY ? worker : worker + 1;
}

static cot_status_t ask(calibration_t *calibration, uint32_t worker, rpc_measure_kind_t kind, uint64_t amount,
                        partners_t partners)
{
    const rpc_measure_t order = {.magic = RPC_STEP_MAGIC,
                                 .version = RPC_STEP_VERSION,
                                 .kind = kind,
                                 .to = rank_of(partners.to),
                                 .from = rank_of(partners.from),
                                 .amount = amount};
    calibration->asked[worker] = true;
    calibration->answer[worker] = (rpc_measured_t){0};
    return comm_send(calibration->link, worker + 1, COMM_TAG_STEP, &order, sizeof(order));
}

static cot_status_t take_answer(calibration_t *calibration, const comm_message_t *message)
{
    rpc_measured_t answer;
    COT_TRY(rpc_measured_decode(message->bytes, message->count, &answer));
    if (message->peer == 0 || message->peer > calibration->workers || !calibration->asked[message->peer - 1])
        return cot_fail(COT_ERR_PROTOCOL, "rank %u answered without being asked", message->peer);
    if (answer.status != 0)
        return cot_fail((cot_status_t) - (int)answer.status, "rank %u: %s", message->peer, answer.text);
    calibration->asked[message->peer - 1] = false;
    calibration->answer[message->peer - 1] = answer;
    return COT_OK;
}

/* Until everybody who was asked has answered. */
static cot_status_t await_answers(calibration_t *calibration, const char *what)
{
    int64_t timeout_ms = cot_settings_int(calibration->config->settings, COT_SET_STEP_TIMEOUT) + MARGIN_MS;
    cot_deadline_t deadline = cot_deadline_in_ms(timeout_ms);
    cot_backoff_t backoff = {0};
    for (uint32_t w = 0; w < calibration->workers;) {
        comm_message_t message;
        bool found = false;
        if (!calibration->asked[w]) {
            w++;
            continue;
        }
        if (cot_signals_asked() != COT_ASKED_NOTHING) return cot_fail(COT_ERR_CANCELLED, "interrupted");
        COT_TRY(comm_poll(calibration->link, COMM_TAG_RESULT, &message, &found));
        if (found) COT_TRY(take_answer(calibration, &message));
        if (!found && cot_deadline_passed(deadline))
            return cot_fail(COT_ERR_TIMEOUT, "%s: rank %u did not answer within %lld ms", what, w + 1,
                            (long long)timeout_ms);
        if (!found) cot_backoff_wait(&backoff);
    }
    return COT_OK;
}

static const partners_t NO_PARTNERS = {RPC_MEASURE_NOBODY, RPC_MEASURE_NOBODY};

static cot_status_t ask_all(calibration_t *calibration, rpc_measure_kind_t kind, uint64_t amount, const char *what)
{
    for (uint32_t w = 0; w < calibration->workers; w++) COT_TRY(ask(calibration, w, kind, amount, NO_PARTNERS));
    return await_answers(calibration, what);
}

static int compare_values(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

/* Sorts. 0 of none. */
static double median(double *values, uint32_t count)
{
    if (count == 0) return 0;
    qsort(values, count, sizeof(*values), compare_values);
    return values[count / 2];
}

/* ---- the expert stage ---- */

static cot_status_t measure_experts(calibration_t *calibration)
{
    uint32_t workers = calibration->workers;
    for (uint32_t stage = 0; stage < STAGES; stage++) {
        COT_TRY(ask_all(calibration, RPC_MEASURE_EXPERTS, STAGE_ROWS[stage], "the expert stage"));
        for (uint32_t w = 0; w < workers; w++)
            if (calibration->answer[w].units > 0)
                calibration->stage_ns[stage * workers + w] = (double)calibration->answer[w].ns /
                                                             (double)calibration->answer[w].units;
    }
    for (uint32_t w = 0; w < workers; w++) {
        double counts[STAGES];
        for (uint32_t stage = 0; stage < STAGES; stage++) counts[stage] = calibration->stage_ns[stage * workers + w];
        calibration->expert_ns[w] = median(counts, STAGES);
    }
    return COT_OK;
}

/* Of the workers that hold experts. */
static double median_expert_ns(calibration_t *calibration)
{
    uint32_t count = 0;
    for (uint32_t w = 0; w < calibration->workers; w++)
        if (calibration->expert_ns[w] > 0) calibration->values[count++] = calibration->expert_ns[w];
    return median(calibration->values, count);
}

/* Noise must not make ranks look different that are alike: planning for equal ranks finds better placements. */
static double relative_speed(const calibration_t *calibration, uint32_t worker, double usual_ns)
{
    double ns = calibration->expert_ns[worker], speed = ns > 0 ? usual_ns / ns : 1;
    if (fabs(speed - 1) * 100 < ALIKE_PERCENT) return 1;
    return fmin(fmax(round(speed * 100) / 100, 0.01), 100);
}

/* ---- links ---- */

static cot_status_t measure_copy(calibration_t *calibration)
{
    figures_t *figures = &calibration->tier[SAME_RANK];
    figures->measured = true;
    COT_TRY(ask_all(calibration, RPC_MEASURE_COPY, calibration->config->row_bytes, "copying a row"));
    for (uint32_t w = 0; w < calibration->workers; w++)
        calibration->values[w] = (double)calibration->answer[w].ns / 1000;
    figures->latency_us = median(calibration->values, calibration->workers);

    COT_TRY(ask(calibration, 0, RPC_MEASURE_COPY, BULK_BYTES_MAX / 2, NO_PARTNERS));
    COT_TRY(await_answers(calibration, "copying memory"));
    figures->alone = (double)calibration->answer[0].units / (double)calibration->answer[0].ns;
    COT_TRY(ask_all(calibration, RPC_MEASURE_COPY, BULK_BYTES_MAX / 2, "copying memory"));
    for (uint32_t w = 0; w < calibration->workers; w++)
        calibration->values[w] = (double)calibration->answer[w].units / (double)calibration->answer[w].ns;
    figures->together = median(calibration->values, calibration->workers);
    figures->slowest = calibration->values[0];
    return COT_OK;
}

static uint32_t place_on_node(const calibration_t *calibration, uint32_t worker)
{
    uint32_t before = 0;
    for (uint32_t w = 0; w < worker; w++) before += node_of(calibration, w) == node_of(calibration, worker);
    return before;
}

/* The worker at `place` on the next node after `node` that has workers; NOBODY if it has fewer. */
static uint32_t on_next_node(const calibration_t *calibration, uint32_t node, uint32_t place)
{
    uint32_t next = UINT32_MAX, first = UINT32_MAX;
    for (uint32_t w = 0; w < calibration->workers; w++) {
        uint32_t other = node_of(calibration, w);
        if (other > node && other < next) next = other;
        if (other < first) first = other;
    }
    if (next == UINT32_MAX) next = first;
    for (uint32_t w = 0; w < calibration->workers; w++)
        if (node_of(calibration, w) == next && next != node && place-- == 0) return w;
    return RPC_MEASURE_NOBODY;
}

static uint32_t next_on_node(const calibration_t *calibration, uint32_t worker)
{
    for (uint32_t step = 1; step < calibration->workers; step++) {
        uint32_t other = (worker + step) % calibration->workers;
        if (node_of(calibration, other) == node_of(calibration, worker)) return other;
    }
    return RPC_MEASURE_NOBODY;
}

/* Rings: within each node, or from node to node. Every worker has at most one partner each way. */
static uint32_t pair_up(calibration_t *calibration, tier_t tier, bool backwards)
{
    uint32_t pairs = 0;
    for (uint32_t w = 0; w < calibration->workers; w++) calibration->partners[w] = NO_PARTNERS;
    for (uint32_t w = 0; w < calibration->workers; w++) {
        uint32_t other = tier == SAME_NODE
                             ? next_on_node(calibration, w)
                             : on_next_node(calibration, node_of(calibration, w), place_on_node(calibration, w));
        if (other == RPC_MEASURE_NOBODY) continue;
        calibration->partners[backwards ? other : w].to = backwards ? w : other;
        calibration->partners[backwards ? w : other].from = backwards ? other : w;
        pairs++;
    }
    return pairs;
}

static cot_status_t measure_latency(calibration_t *calibration, tier_t tier)
{
    uint32_t pairs = pair_up(calibration, tier, false), step = (pairs + PAIRS_MAX - 1) / PAIRS_MAX, seen = 0, count = 0;
    for (uint32_t w = 0; w < calibration->workers; w++) {
        uint32_t other = calibration->partners[w].to;
        if (other == RPC_MEASURE_NOBODY || seen++ % step != 0) continue;
        COT_TRY(ask(calibration, other, RPC_MEASURE_LATENCY, PINGS, (partners_t){RPC_MEASURE_NOBODY, w}));
        COT_TRY(ask(calibration, w, RPC_MEASURE_LATENCY, PINGS, (partners_t){other, RPC_MEASURE_NOBODY}));
        COT_TRY(await_answers(calibration, "the latency of a link"));
        calibration->values[count++] = (double)calibration->answer[w].ns / 2000;
    }
    calibration->tier[tier].latency_us = median(calibration->values, count);
    return COT_OK;
}

/* One bulk transfer of `bytes` by every worker that has a partner; the longest time. */
static cot_status_t transfer(calibration_t *calibration, uint64_t bytes, int64_t *longest_ns_out)
{
    *longest_ns_out = 0;
    for (uint32_t w = 0; w < calibration->workers; w++) {
        partners_t partners = calibration->partners[w];
        calibration->answer[w] = (rpc_measured_t){0};
        if (partners.to != RPC_MEASURE_NOBODY || partners.from != RPC_MEASURE_NOBODY)
            COT_TRY(ask(calibration, w, RPC_MEASURE_RATE, bytes, partners));
    }
    COT_TRY(await_answers(calibration, "the rate of a link"));
    for (uint32_t w = 0; w < calibration->workers; w++)
        if (calibration->answer[w].ns > *longest_ns_out) *longest_ns_out = calibration->answer[w].ns;
    return COT_OK;
}

/* GB/s of the receivers: the median and the least, over REPEATS transfers that are long enough. */
static cot_status_t measure_rate(calibration_t *calibration, double *rate_out, double *slowest_out)
{
    uint64_t bytes = BULK_BYTES_MIN;
    int64_t ns = 0;
    double rates[REPEATS], slowest = INFINITY;
    COT_TRY(transfer(calibration, bytes, &ns)); /* connects; and drains what a shaped link lets through at once */
    while (ns < LONG_NS && bytes < BULK_BYTES_MAX) {
        bytes *= 2;
        COT_TRY(transfer(calibration, bytes, &ns));
    }
    for (int i = 0; i < REPEATS; i++) {
        uint32_t count = 0;
        COT_TRY(transfer(calibration, bytes, &ns));
        for (uint32_t w = 0; w < calibration->workers; w++)
            if (calibration->answer[w].ns > 0)
                calibration->values[count++] = (double)calibration->answer[w].units / (double)calibration->answer[w].ns;
        rates[i] = median(calibration->values, count);
        slowest = fmin(slowest, calibration->values[0]);
    }
    *rate_out = median(rates, REPEATS);
    *slowest_out = slowest;
    return COT_OK;
}

/* One pair by itself, one way. */
static cot_status_t measure_alone(calibration_t *calibration, tier_t tier)
{
    double slowest = 0;
    uint32_t w = 0;
    pair_up(calibration, tier, false);
    while (calibration->partners[w].to == RPC_MEASURE_NOBODY) w++;
    uint32_t other = calibration->partners[w].to;
    for (uint32_t any = 0; any < calibration->workers; any++) calibration->partners[any] = NO_PARTNERS;
    calibration->partners[w].to = other;
    calibration->partners[other].from = w;
    return measure_rate(calibration, &calibration->tier[tier].alone, &slowest);
}

/* While all send, as they do in an exchange: ranks of a node share its way out. Both ways round the ring. */
static cot_status_t measure_together(calibration_t *calibration, tier_t tier)
{
    figures_t *figures = &calibration->tier[tier];
    double there = 0, back = 0, slowest_there = 0, slowest_back = 0;
    pair_up(calibration, tier, false);
    COT_TRY(measure_rate(calibration, &there, &slowest_there));
    pair_up(calibration, tier, true);
    COT_TRY(measure_rate(calibration, &back, &slowest_back));
    figures->together = (there + back) / 2;
    figures->slowest = fmin(slowest_there, slowest_back);
    return COT_OK;
}

static cot_status_t measure_links(calibration_t *calibration)
{
    COT_TRY(measure_copy(calibration));
    for (tier_t tier = SAME_NODE; tier <= CROSS_NODE; tier++) {
        if (pair_up(calibration, tier, false) == 0) continue;
        COT_TRY(measure_latency(calibration, tier));
        COT_TRY(measure_alone(calibration, tier));
        COT_TRY(measure_together(calibration, tier));
        calibration->tier[tier].measured = true;
    }
    return COT_OK;
}

/* ---- the report and the file ---- */

static cot_status_t print_report(calibration_t *calibration)
{
    FILE *out = calibration->config->report;
    uint32_t workers = calibration->workers;
    fprintf(out, "expert stage, ns for a row of one expert\n%-12s", "rows/expert");
    for (uint32_t stage = 0; stage < STAGES; stage++) fprintf(out, "%10u", STAGE_ROWS[stage]);
    fprintf(out, "%10s\n", "median");
    for (uint32_t w = 0; w < workers; w++) {
        char name[32];
        snprintf(name, sizeof(name), "rank %u", w + 1);
        fprintf(out, "%-12s", name);
        for (uint32_t stage = 0; stage < STAGES; stage++)
            fprintf(out, "%10.0f", calibration->stage_ns[stage * workers + w]);
        fprintf(out, "%10.0f\n", calibration->expert_ns[w]);
    }
    fprintf(out, "\n%-12s%12s%14s%14s%14s\n", "link", "latency us", "alone GB/s", "together", "slowest");
    for (tier_t tier = SAME_RANK; tier < TIERS; tier++) {
        const figures_t *figures = &calibration->tier[tier];
        if (figures->measured)
            fprintf(out, "%-12s%12.1f%14.4g%14.4g%14.4g\n", TIER_NAMES[tier], figures->latency_us, figures->alone,
                    figures->together, figures->slowest);
    }
    if (fflush(out) != 0) return cot_fail(COT_ERR_IO, "the report cannot be written to standard output");
    return COT_OK;
}

static uint64_t worker_memory(const calibration_t *calibration, uint32_t worker)
{
    uint64_t given = cot_settings_bytes(calibration->config->settings, COT_SET_MEMORY), here = 0;
    for (uint32_t w = 0; w < calibration->workers; w++) here += node_of(calibration, w) == node_of(calibration, worker);
    return given > 0 ? given : calibration->config->fleet->worker[worker].node_memory_bytes / here;
}

static cot_status_t put_ranks(calibration_t *calibration, double usual_ns, cot_buffer_t *out)
{
    uint32_t workers = calibration->workers,
             slots = (uint32_t)cot_settings_int(calibration->config->settings, COT_SET_SLOTS);
    if (slots == 0) slots = (calibration->config->model->experts + workers - 1) / workers;
    for (uint32_t w = 0, count; w < workers; w += count) {
        double speed = relative_speed(calibration, w, usual_ns);
        uint64_t memory = worker_memory(calibration, w);
        count = 1;
        while (w + count < workers && node_of(calibration, w + count) == node_of(calibration, w) &&
               relative_speed(calibration, w + count, usual_ns) == speed &&
               worker_memory(calibration, w + count) == memory)
            count++;
        COT_TRY(cot_buffer_printf(out,
                                  "%s{\"count\": %u, \"node\": %u, \"slots\": %u, \"memory_bytes\": %llu, "
                                  "\"relative_speed\": %.4g}",
                                  w > 0 ? ",\n           " : "", count, node_of(calibration, w), slots,
                                  (unsigned long long)memory, speed));
    }
    return COT_OK;
}

/* How many times dearer than within a node a byte between nodes is. */
static uint32_t crossing_cost(const calibration_t *calibration, tier_t tier)
{
    const figures_t *near = &calibration->tier[SAME_NODE], *far = &calibration->tier[CROSS_NODE];
    if (tier == SAME_RANK) return 0;
    if (tier == SAME_NODE || !near->measured) return 1;
    return (uint32_t)fmin(fmax(round(near->together / far->together), 1), 1000);
}

static cot_status_t put_links(const calibration_t *calibration, cot_buffer_t *out)
{
    const char *comma = "";
    for (tier_t tier = SAME_RANK; tier < TIERS; tier++) {
        const figures_t *figures = &calibration->tier[tier];
        if (!figures->measured) continue;
        COT_TRY(cot_buffer_printf(
            out, "%s\"%s\": {\"latency_us\": %.4g, \"gigabytes_per_s\": %.4g, \"crossing_cost\": %u}", comma,
            TIER_NAMES[tier], figures->latency_us, figures->together, crossing_cost(calibration, tier)));
        comma = ",\n           ";
    }
    return COT_OK;
}

static cot_status_t put_cluster(calibration_t *calibration, cot_buffer_t *out)
{
    const coord_calibrate_config_t *config = calibration->config;
    double usual_ns = median_expert_ns(calibration);
    COT_TRY(cot_buffer_printf(out, "{\"format\": \"coterie.cluster/1\",\n \"ranks\": ["));
    COT_TRY(put_ranks(calibration, usual_ns, out));
    COT_TRY(cot_buffer_printf(out, "],\n \"links\": {"));
    COT_TRY(put_links(calibration, out));
    COT_TRY(cot_buffer_printf(
        out, "},\n \"expert_ns_per_row\": %.1f, \"row_bytes\": %u,\n \"measured_by\": {\"model\": ", usual_ns,
        config->row_bytes));
    COT_TRY(cot_buffer_json_string(out, config->model_name, strlen(config->model_name)));
    return cot_buffer_printf(out,
                             ", \"config_sha256\": \"%s\", \"dtype\": \"%s\", \"backend\": \"%s\", \"isa\": \"%s\", "
                             "\"version\": \"%s\"}}\n",
                             config->model->sha256, config->dtype,
                             cot_settings_string(config->settings, COT_SET_BACKEND),
                             kern_isa_name((kern_isa_t)config->fleet->isa), COTERIE_VERSION);
}

static cot_status_t write_cluster(calibration_t *calibration)
{
    const char *path = cot_settings_string(calibration->config->settings, COT_SET_OUT);
    cot_buffer_t text = {0};
    cot_status_t status = put_cluster(calibration, &text);
    if (status == COT_OK) status = cot_file_write(path, text.data, text.size);
    if (status == COT_OK) cot_log_info("written to %s", path);
    cot_buffer_free(&text);
    return status;
}

/* ---- the whole ---- */

static cot_status_t measure(calibration_t *calibration)
{
    COT_TRY(measure_experts(calibration));
    COT_TRY(measure_links(calibration));
    COT_TRY(print_report(calibration));
    return write_cluster(calibration);
}

cot_status_t coord_calibrate(const coord_calibrate_config_t *config)
{
    uint32_t workers = config->fleet->workers;
    calibration_t calibration = {.config = config,
                                 .link = config->fleet->link,
                                 .workers = workers,
                                 .answer = cot_calloc(workers, sizeof(*calibration.answer)),
                                 .asked = cot_calloc(workers, sizeof(*calibration.asked)),
                                 .partners = cot_calloc(workers, sizeof(*calibration.partners)),
                                 .values = cot_calloc(workers, sizeof(*calibration.values)),
                                 .stage_ns = cot_calloc((size_t)workers * STAGES, sizeof(*calibration.stage_ns)),
                                 .expert_ns = cot_calloc(workers, sizeof(*calibration.expert_ns))};
    void *const arrays[] = {calibration.answer, calibration.asked,    calibration.partners,
                            calibration.values, calibration.stage_ns, calibration.expert_ns};
    cot_status_t status = COT_OK;
    for (size_t i = 0; i < sizeof(arrays) / sizeof(*arrays); i++)
        if (arrays[i] == NULL) status = cot_fail(COT_ERR_NO_MEMORY, "no memory for the figures of %u workers", workers);
    if (status == COT_OK) status = measure(&calibration);
    for (size_t i = 0; i < sizeof(arrays) / sizeof(*arrays); i++) cot_free(arrays[i]);
    return status;
}
