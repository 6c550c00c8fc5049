#include "worker/batch.h"

#include "base/memory.h"

typedef struct {
    uint64_t sequence;
    uint32_t tokens; /* known of its history */
    int32_t drawn;   /* -1: nothing drawn since */
} slot_t;

struct worker_slots {
    const worker_model_t *model;
    slot_t *slot;
    int32_t *history; /* [max_sequences, max_context] */
};

cot_status_t worker_slots_create(const worker_model_t *model, worker_slots_t **slots_out)
{
    worker_slots_t *slots = cot_calloc(1, sizeof(*slots));
    if (slots == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for %u sequences", model->max_sequences);
    slots->model = model;
    slots->slot = cot_calloc(model->max_sequences, sizeof(*slots->slot));
    slots->history = cot_calloc((size_t)model->max_sequences * model->max_context, sizeof(*slots->history));
    if (slots->slot == NULL || slots->history == NULL) {
        worker_slots_destroy(slots);
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for %u sequences of %u tokens", model->max_sequences,
                        model->max_context);
    }
    *slots_out = slots;
    return COT_OK;
}

void worker_slots_destroy(worker_slots_t *slots)
{
    if (slots == NULL) return;
    cot_free(slots->slot);
    cot_free(slots->history);
    cot_free(slots);
}

const int32_t *worker_slots_history(const worker_slots_t *slots, uint32_t slot, uint32_t *tokens_out)
{
    *tokens_out = slots->slot[slot].tokens;
    return slots->history + (size_t)slot * slots->model->max_context;
}

void worker_slots_drew(worker_slots_t *slots, uint32_t slot, int32_t token)
{
    slots->slot[slot].drawn = token;
}

static cot_status_t check_run(const worker_slots_t *slots, const rpc_step_t *step, const rpc_run_t *run, uint32_t rows)
{
    const worker_model_t *model = slots->model;
    unsigned long long sequence = run->sequence;
    if (run->slot >= model->max_sequences || run->rows == 0 || run->rows > model->max_rows - rows ||
        run->position >= model->max_context || run->rows > model->max_context - run->position)
        return cot_fail(COT_ERR_PROTOCOL,
                        "sequence %llu: a run of %u rows at %u in slot %u is over this worker's limits", sequence,
                        run->rows, run->position, run->slot);
    const slot_t *slot = &slots->slot[run->slot];
    if (run->position > 0 && (slot->sequence != run->sequence || slot->tokens < run->position))
        return cot_fail(COT_ERR_PROTOCOL, "sequence %llu: goes on at position %u, but slot %u holds %u tokens of %llu",
                        sequence, run->position, run->slot, slot->tokens, (unsigned long long)slot->sequence);
    uint32_t blocks = (run->position + run->rows + KERN_KV_BLOCK - 1) / KERN_KV_BLOCK;
    for (uint32_t b = 0; b < blocks; b++)
        if (step->block[run->block_begin + b] >= model->kv_blocks)
            return cot_fail(COT_ERR_PROTOCOL, "sequence %llu: KV block %u of %u", sequence,
                            step->block[run->block_begin + b], model->kv_blocks);
    return COT_OK;
}

/* Copies the run's tokens to `token` and into the slot's history. */
static cot_status_t take_tokens(worker_slots_t *slots, const rpc_step_t *step, const rpc_run_t *run, int32_t *token)
{
    slot_t *slot = &slots->slot[run->slot];
    int32_t *history = slots->history + (size_t)run->slot * slots->model->max_context;
    if (run->position == 0) *slot = (slot_t){.sequence = run->sequence, .drawn = -1};
    for (uint32_t row = 0; row < run->rows; row++) {
        int32_t id = step->token[run->token_begin + row];
        if (id == RPC_TOKEN_SAMPLED) id = slot->drawn;
        if (id < 0 || (uint32_t)id >= slots->model->config.vocab)
            return cot_fail(COT_ERR_PROTOCOL, "sequence %llu: token %d at position %u is outside the vocabulary",
                            (unsigned long long)run->sequence, id, run->position + row);
        token[row] = history[run->position + row] = id;
    }
    slot->tokens = run->position + run->rows;
    return COT_OK;
}

cot_status_t worker_slots_take(worker_slots_t *slots, const rpc_step_t *step, worker_rows_t *rows)
{
    rows->rows = rows->runs = 0;
    for (uint32_t r = 0; r < step->header.runs; r++) {
        const rpc_run_t *run = &step->run[r];
        if (run->home != slots->model->worker) continue;
        COT_TRY(check_run(slots, step, run, rows->rows));
        COT_TRY(take_tokens(slots, step, run, rows->token + rows->rows));
        rows->run[rows->runs] = (kern_run_t){
            .row = rows->rows, .rows = run->rows, .position = run->position, .blocks = step->block + run->block_begin};
        rows->from[rows->runs++] = run;
        rows->rows += run->rows;
    }
    return COT_OK;
}
