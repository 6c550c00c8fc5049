#include "tests/coordinator/fake_worker.h"

#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the model ---- */

uint64_t fake_mix(uint64_t state, uint64_t value)
{
    uint64_t z = (state ^ value) + 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

uint64_t fake_next(uint64_t state, int32_t token)
{
    return fake_mix(state * 3, (uint64_t)(uint32_t)token + 1);
}

int32_t fake_top(uint64_t state, uint32_t vocab, uint32_t rank)
{
    return (int32_t)((state + rank) % vocab);
}

float fake_logprob(uint64_t state, int32_t token)
{
    return -(float)(fake_mix(state, (uint64_t)(uint32_t)token + 77) & 0xffff) / 3000.0f;
}

float fake_logit(uint64_t state, int32_t token)
{
    return (float)(fake_mix(state, (uint64_t)(uint32_t)token + 99) & 0xffff) / 7.0f;
}

int32_t fake_draw(uint64_t state, uint32_t vocab, float temperature, uint64_t seed, uint32_t position)
{
    if (temperature == 0) return fake_top(state, vocab, 0);
    return (int32_t)(fake_mix(state, fake_mix(seed, position)) % vocab);
}

int16_t fake_expert(uint64_t state, uint32_t choice)
{
    return (int16_t)((state >> 7) % FAKE_EXPERTS + choice) % FAKE_EXPERTS;
}

uint16_t fake_weight(uint64_t state, uint32_t choice)
{
    return (uint16_t)(0x3800 - (state >> 11) % 64 - choice * 64);
}

/* ---- one worker ---- */

typedef struct {
    int32_t token;
    uint64_t sequence;
} cell_t;

typedef struct {
    uint64_t sequence;
    uint32_t tokens;
    int32_t drawn;
    int32_t *history; /* [max_context] */
} slot_t;

typedef struct {
    fake_fleet_t *fleet;
    comm_link_t *link;
    pthread_t thread;
    uint32_t index;
    uint64_t random;
    cell_t *kv; /* [kv_blocks * 16] */
    slot_t *slot;
    cot_buffer_t drawn, routed, experts, weights, logits, message;
    char wrong[256]; /* the first thing in a step that no worker would take */
    _Atomic uint64_t answered;
    atomic_bool stopped;
} worker_t;

struct fake_fleet {
    fake_config_t config;
    comm_link_t *link[FAKE_WORKERS_MAX + 1];
    worker_t worker[FAKE_WORKERS_MAX];
    _Atomic uint64_t allowed;
};

static void *extend(cot_buffer_t *buffer, size_t bytes)
{
    void *space = NULL;
    if (cot_buffer_extend(buffer, bytes, &space) != COT_OK) abort();
    return space;
}

#define WRONG(worker, ...)                                                                               \
    do {                                                                                                 \
        if ((worker)->wrong[0] == '\0') snprintf((worker)->wrong, sizeof((worker)->wrong), __VA_ARGS__); \
    } while (0)

static bool check_run(worker_t *worker, const rpc_step_t *step, const rpc_run_t *run, uint32_t rows)
{
    const fake_config_t *config = &worker->fleet->config;
    if (run->slot >= config->slots || run->position + run->rows > config->max_context ||
        rows + run->rows > config->max_step_tokens) {
        WRONG(worker, "a run of %u rows at %u in slot %u", run->rows, run->position, run->slot);
        return false;
    }
    slot_t *slot = &worker->slot[run->slot];
    if (run->position == 0) {
        slot->sequence = run->sequence;
        slot->tokens = 0;
        slot->drawn = -1;
    }
    if (slot->sequence != run->sequence || slot->tokens != run->position) {
        WRONG(worker, "sequence %llu at %u: the slot has %u of %llu", (unsigned long long)run->sequence, run->position,
              slot->tokens, (unsigned long long)slot->sequence);
        return false;
    }
    for (uint32_t b = 0; b < (run->position + run->rows + 15) / 16; b++)
        if (step->block[run->block_begin + b] >= config->kv_blocks) {
            WRONG(worker, "a KV block out of range");
            return false;
        }
    return true;
}

static cell_t *cell_at(worker_t *worker, const rpc_step_t *step, const rpc_run_t *run, uint32_t position)
{
    return &worker->kv[step->block[run->block_begin + position / 16] * 16 + position % 16];
}

/* All runs write before any is computed: two sequences with one block in the same step are found out. */
static void write_kv(worker_t *worker, const rpc_step_t *step, const rpc_run_t *run)
{
    slot_t *slot = &worker->slot[run->slot];
    for (uint32_t row = 0; row < run->rows; row++) {
        int32_t token = step->token[run->token_begin + row];
        if (token == RPC_TOKEN_SAMPLED) token = slot->drawn;
        if (token < 0 || (uint32_t)token >= worker->fleet->config.vocab) {
            WRONG(worker, "token %d at position %u", token, run->position + row);
            token = 0;
        }
        slot->history[run->position + row] = token;
        *cell_at(worker, step, run, run->position + row) = (cell_t){token, run->sequence};
    }
    slot->tokens = run->position + run->rows;
}

static void add_drawn(worker_t *worker, const rpc_run_t *run, const rpc_drawn_t *base, uint64_t state)
{
    rpc_drawn_t *drawn = extend(&worker->drawn, sizeof(*drawn));
    *drawn = *base;
    drawn->sequence = run->sequence;
    drawn->tops = run->top_logprobs;
    for (uint32_t i = 0; i < drawn->tops; i++) {
        drawn->top_token[i] = fake_top(state, worker->fleet->config.vocab, i);
        drawn->top_logprob[i] = fake_logprob(state, drawn->top_token[i]);
    }
}

static void score_row(worker_t *worker, const rpc_run_t *run, uint32_t row, uint64_t state)
{
    uint32_t vocab = worker->fleet->config.vocab;
    slot_t *slot = &worker->slot[run->slot];
    int32_t next = row + 1 < run->rows ? slot->history[run->position + row + 1] : run->next_token;
    add_drawn(worker, run,
              &(rpc_drawn_t){.position = run->position + row,
                             .token = fake_top(state, vocab, 0),
                             .logprob = next < 0 ? 0 : fake_logprob(state, next),
                             .flags = RPC_RUN_SCORE},
              state);
    if (!(run->flags & RPC_RUN_LOGITS)) return;
    float *logits = extend(&worker->logits, vocab * sizeof(*logits));
    for (uint32_t v = 0; v < vocab; v++) logits[v] = fake_logit(state, (int32_t)v);
}

static void trace_row(worker_t *worker, const rpc_run_t *run, uint32_t row, uint64_t state)
{
    uint32_t width = worker->fleet->config.route_width;
    rpc_routed_t *routed = extend(&worker->routed, sizeof(*routed));
    *routed = (rpc_routed_t){.sequence = run->sequence,
                             .position = run->position + row,
                             .token = worker->slot[run->slot].history[run->position + row]};
    int16_t *experts = extend(&worker->experts, width * sizeof(*experts));
    uint16_t *weights = extend(&worker->weights, width * sizeof(*weights));
    for (uint32_t i = 0; i < width; i++) {
        experts[i] = fake_expert(state, i);
        weights[i] = fake_weight(state, i);
    }
}

static void compute_run(worker_t *worker, const rpc_step_t *step, const rpc_run_t *run)
{
    slot_t *slot = &worker->slot[run->slot];
    uint64_t state = FAKE_BEGIN;
    for (uint32_t position = 0; position < run->position + run->rows; position++) {
        const cell_t *cell = cell_at(worker, step, run, position);
        if (cell->sequence != run->sequence || cell->token != slot->history[position])
            WRONG(worker, "KV of position %u of sequence %llu belongs to %llu", position,
                  (unsigned long long)run->sequence, (unsigned long long)cell->sequence);
        state = fake_next(state, cell->token);
        if (position < run->position) continue;
        if (run->flags & RPC_RUN_TRACE) trace_row(worker, run, position - run->position, state);
        if (run->flags & RPC_RUN_SCORE) score_row(worker, run, position - run->position, state);
    }
    if (!(run->flags & RPC_RUN_SAMPLE)) return;
    uint32_t position = run->position + run->rows, vocab = worker->fleet->config.vocab;
    slot->drawn = fake_draw(state, vocab, run->temperature, run->seed, position);
    add_drawn(worker, run,
              &(rpc_drawn_t){.position = position,
                             .token = slot->drawn,
                             .logprob = fake_logprob(state, slot->drawn),
                             .flags = RPC_RUN_SAMPLE},
              state);
}

static void spoil(worker_t *worker, rpc_result_t *result)
{
    rpc_drawn_t *drawn = (rpc_drawn_t *)(void *)worker->drawn.data;
    rpc_routed_t *routed = (rpc_routed_t *)(void *)worker->routed.data;
    switch (worker->fleet->config.fault) {
    case FAKE_FAILED:
        result->header.status = (uint32_t)-COT_ERR_DEVICE;
        result->text = "the device burst";
        result->header.text_bytes = (uint32_t)strlen(result->text);
        break;
    case FAKE_RANK: result->header.rank++; break;
    case FAKE_STEP: result->header.step += 7; break;
    case FAKE_COUNT: result->header.drawn--; break;
    case FAKE_SEQUENCE: drawn->sequence += 1000; break;
    case FAKE_POSITION: drawn->position++; break;
    case FAKE_TOKEN: drawn->token = (int32_t)worker->fleet->config.vocab; break;
    case FAKE_TOPS: drawn->tops = RPC_TOP_LOGPROBS; break;
    case FAKE_ROUTE_WIDTH: result->header.route_width--; break;
    case FAKE_ROUTE_TOKEN: routed->token++; break;
    case FAKE_ROUTE_POSITION: routed->position++; break;
    case FAKE_LOGITS_VOCAB:
        result->header.logits_rows *= result->header.vocab;
        result->header.vocab = 1;
        break;
    default: break;
    }
}

static void answer(worker_t *worker, uint64_t step)
{
    const fake_config_t *config = &worker->fleet->config;
    bool fault = config->fault != FAKE_NO_FAULT && worker->index == config->fault_worker && step == config->fault_step;
    rpc_result_t result = {
        .header = {.magic = RPC_STEP_MAGIC,
                   .version = RPC_STEP_VERSION,
                   .rank = worker->index + 1,
                   .step = step,
                   .drawn = (uint32_t)(worker->drawn.size / sizeof(rpc_drawn_t)),
                   .routed = (uint32_t)(worker->routed.size / sizeof(rpc_routed_t)),
                   .route_width = config->route_width,
                   .logits_rows = (uint32_t)(worker->logits.size / (config->vocab * sizeof(float))),
                   .vocab = config->vocab,
                   .assignments = step},
        .drawn = (const rpc_drawn_t *)(const void *)worker->drawn.data,
        .routed = (const rpc_routed_t *)(const void *)worker->routed.data,
        .experts = (const int16_t *)(const void *)worker->experts.data,
        .weights = (const uint16_t *)(const void *)worker->weights.data,
        .logits = (const float *)(const void *)worker->logits.data,
        .text = "",
    };
    if (fault) spoil(worker, &result);
    if (worker->wrong[0] != '\0') {
        result = (rpc_result_t){.header = result.header, .text = worker->wrong};
        result.header.drawn = result.header.routed = result.header.logits_rows = 0;
        result.header.status = (uint32_t)-COT_ERR_PROTOCOL;
        result.header.text_bytes = (uint32_t)strlen(worker->wrong);
    }
    cot_buffer_clear(&worker->message);
    if (rpc_result_encode(&result, &worker->message) != COT_OK) abort();
    if (fault && config->fault == FAKE_GARBAGE) worker->message.size = 40;
    for (int times = fault && config->fault == FAKE_TWICE ? 2 : 1; times > 0; times--)
        if (comm_send(worker->link, 0, COMM_TAG_RESULT, worker->message.data, worker->message.size) != COT_OK) abort();
    if (comm_flush(worker->link, cot_deadline_in_ms(20000)) != COT_OK) return; /* interrupted: the test ends */
    atomic_store(&worker->answered, step);
}

static void execute(worker_t *worker, const rpc_step_t *step)
{
    uint32_t rows = 0, logits_rows = 0;
    cot_buffer_t *buffers[] = {&worker->drawn, &worker->routed, &worker->experts, &worker->weights, &worker->logits};
    for (size_t b = 0; b < sizeof(buffers) / sizeof(*buffers); b++) cot_buffer_clear(buffers[b]);
    for (uint32_t r = 0; r < step->header.runs && worker->wrong[0] == '\0'; r++) {
        const rpc_run_t *run = &step->run[r];
        if (run->home != worker->index || !check_run(worker, step, run, rows)) continue;
        write_kv(worker, step, run);
        rows += run->rows;
        if (run->flags & RPC_RUN_LOGITS) logits_rows += run->rows;
    }
    if (logits_rows > worker->fleet->config.max_logits_rows) WRONG(worker, "%u rows of logits", logits_rows);
    for (uint32_t r = 0; r < step->header.runs && worker->wrong[0] == '\0'; r++)
        if (step->run[r].home == worker->index) compute_run(worker, step, &step->run[r]);
}

static void *work(void *argument)
{
    worker_t *worker = argument;
    fake_fleet_t *fleet = worker->fleet;
    const fake_config_t *config = &fleet->config;
    for (;;) {
        comm_message_t message;
        rpc_step_t step;
        if (comm_receive(worker->link, 0, COMM_TAG_STEP, COT_NEVER, "a step", &message) != COT_OK) return NULL;
        if (rpc_step_decode(message.bytes, message.count, &step) != COT_OK) abort();
        if (step.header.kind == RPC_STEP_STOP) {
            atomic_store(&worker->stopped, true);
            return NULL;
        }
        while (step.header.step > atomic_load(&fleet->allowed)) usleep(50);
        worker->random = fake_mix(worker->random, step.header.step);
        if (config->jitter_us > 0) usleep((useconds_t)(worker->random % config->jitter_us));
        execute(worker, &step);
        if (config->fault == FAKE_SILENT && worker->index == config->fault_worker &&
            step.header.step >= config->fault_step)
            return NULL;
        answer(worker, step.header.step);
    }
}

/* ---- all ---- */

fake_fleet_t *fake_fleet_start(const fake_config_t *config)
{
    fake_fleet_t *fleet = cot_calloc(1, sizeof(*fleet));
    fleet->config = *config;
    atomic_store(&fleet->allowed, UINT64_MAX);
    if (comm_local_start(config->workers + 1, fleet->link) != COT_OK) abort();
    for (uint32_t w = 0; w < config->workers; w++) {
        worker_t *worker = &fleet->worker[w];
        worker->fleet = fleet;
        worker->link = fleet->link[w + 1];
        worker->index = w;
        worker->random = w;
        worker->kv = cot_calloc((size_t)config->kv_blocks * 16, sizeof(*worker->kv));
        worker->slot = cot_calloc(config->slots, sizeof(*worker->slot));
        for (uint32_t s = 0; s < config->slots; s++)
            worker->slot[s].history = cot_calloc(config->max_context, sizeof(int32_t));
        if (pthread_create(&worker->thread, NULL, work, worker) != 0) abort();
    }
    return fleet;
}

comm_link_t *fake_fleet_link(fake_fleet_t *fleet)
{
    return fleet->link[0];
}

void fake_fleet_allow(fake_fleet_t *fleet, uint64_t step)
{
    atomic_store(&fleet->allowed, step);
}

uint64_t fake_fleet_answered(fake_fleet_t *fleet)
{
    uint64_t least = UINT64_MAX;
    for (uint32_t w = 0; w < fleet->config.workers; w++) {
        uint64_t answered = atomic_load(&fleet->worker[w].answered);
        if (answered < least) least = answered;
    }
    return least;
}

bool fake_fleet_stopped(fake_fleet_t *fleet)
{
    bool stopped = true;
    for (uint32_t w = 0; w < fleet->config.workers; w++) stopped = stopped && atomic_load(&fleet->worker[w].stopped);
    return stopped;
}

void fake_fleet_finish(fake_fleet_t *fleet)
{
    fake_fleet_allow(fleet, UINT64_MAX);
    for (uint32_t w = 0; w < fleet->config.workers; w++) comm_interrupt(fleet->worker[w].link);
    for (uint32_t w = 0; w < fleet->config.workers; w++) {
        worker_t *worker = &fleet->worker[w];
        pthread_join(worker->thread, NULL);
        for (uint32_t s = 0; s < fleet->config.slots; s++) cot_free(worker->slot[s].history);
        cot_free(worker->slot);
        cot_free(worker->kv);
        cot_buffer_free(&worker->drawn);
        cot_buffer_free(&worker->routed);
        cot_buffer_free(&worker->experts);
        cot_buffer_free(&worker->weights);
        cot_buffer_free(&worker->logits);
        cot_buffer_free(&worker->message);
    }
    comm_local_finish(fleet->config.workers + 1, fleet->link);
    cot_free(fleet);
}
