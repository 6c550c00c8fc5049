#include "worker/step.h"

#include "base/clock.h"
#include "base/memory.h"
#include "worker/batch.h"

#include <assert.h>
#include <string.h>

enum { HEAD_ROWS = 32 }; /* rows whose logits are held at once */

static_assert(RPC_TOP_LOGPROBS == KERN_TOP_LOGPROBS, "the wire carries what the kernels return");

/* A row whose logits are wanted. */
typedef struct {
    uint32_t row, run; /* of the step; index into rows.run */
    bool score;
} output_t;

struct worker_stepper {
    worker_stepper_config_t config;
    worker_slots_t *slots;
    worker_rows_t rows;
    worker_batch_t batch;
    uint32_t route_width, outputs_max;

    output_t *output; /* [outputs_max] */
    rpc_drawn_t *drawn;
    rpc_routed_t *routed;
    float *logits; /* [HEAD_ROWS, vocab] */
    cot_buffer_t kept_logits;
    comm_traffic_t traffic; /* sums up to the last step */
    uint64_t assignments;
};

void worker_stepper_destroy(worker_stepper_t *stepper)
{
    if (stepper == NULL) return;
    const worker_model_t *model = stepper->config.model;
    worker_slots_destroy(stepper->slots);
    model->ops->free(model->kern, stepper->batch.x);
    model->ops->free(model->kern, stepper->logits);
    cot_free(stepper->rows.run);
    cot_free(stepper->rows.from);
    cot_free(stepper->rows.token);
    cot_free(stepper->batch.experts);
    cot_free(stepper->batch.gate_weights);
    cot_free(stepper->output);
    cot_free(stepper->drawn);
    cot_free(stepper->routed);
    cot_buffer_free(&stepper->kept_logits);
    cot_free(stepper);
}

static cot_status_t take_buffers(worker_stepper_t *stepper)
{
    const worker_model_t *model = stepper->config.model;
    size_t rows = model->max_rows, outputs = stepper->outputs_max;
    stepper->rows.run = cot_calloc(rows, sizeof(*stepper->rows.run));
    stepper->rows.from = cot_calloc(rows, sizeof(*stepper->rows.from));
    stepper->rows.token = cot_calloc(rows, sizeof(*stepper->rows.token));
    stepper->batch.experts = cot_calloc(rows * stepper->route_width, sizeof(*stepper->batch.experts));
    stepper->batch.gate_weights = cot_calloc(rows * stepper->route_width, sizeof(*stepper->batch.gate_weights));
    stepper->output = cot_calloc(outputs, sizeof(*stepper->output));
    stepper->drawn = cot_calloc(outputs, sizeof(*stepper->drawn));
    stepper->routed = cot_calloc(rows, sizeof(*stepper->routed));
    stepper->batch.x = model->ops->alloc(model->kern, rows * model->config.hidden * sizeof(float));
    stepper->logits = model->ops->alloc(model->kern, (size_t)HEAD_ROWS * model->config.vocab * sizeof(float));
    if (stepper->rows.run == NULL || stepper->rows.from == NULL || stepper->rows.token == NULL ||
        stepper->batch.experts == NULL || stepper->batch.gate_weights == NULL || stepper->output == NULL ||
        stepper->drawn == NULL || stepper->routed == NULL || stepper->batch.x == NULL || stepper->logits == NULL)
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for steps of %zu rows: lower --max-step-tokens", rows);
    return worker_slots_create(model, &stepper->slots);
}

cot_status_t worker_stepper_create(const worker_stepper_config_t *config, worker_stepper_t **stepper_out)
{
    worker_stepper_t *stepper = cot_calloc(1, sizeof(*stepper));
    if (stepper == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the step loop");
    stepper->config = *config;
    stepper->route_width = model_config_moe_layers(&config->model->config) * config->model->config.top_k;
    stepper->outputs_max = config->model->max_rows * 2; /* a row may be scored and sampled from */
    cot_status_t status = take_buffers(stepper);
    if (status != COT_OK) {
        worker_stepper_destroy(stepper);
        return status;
    }
    *stepper_out = stepper;
    return COT_OK;
}

/* ---- logits, draws, scores ---- */

static uint32_t list_outputs(worker_stepper_t *stepper)
{
    const worker_rows_t *rows = &stepper->rows;
    uint32_t outputs = 0;
    for (uint32_t r = 0; r < rows->runs; r++) {
        const kern_run_t *run = &rows->run[r];
        if (rows->from[r]->flags & RPC_RUN_SCORE)
            for (uint32_t row = run->row; row < run->row + run->rows; row++)
                stepper->output[outputs++] = (output_t){.row = row, .run = r, .score = true};
        if (rows->from[r]->flags & RPC_RUN_SAMPLE)
            stepper->output[outputs++] = (output_t){.row = run->row + run->rows - 1, .run = r};
    }
    return outputs;
}

/* The token that follows a scored row, or -1. */
static int32_t next_token(const worker_rows_t *rows, const output_t *output)
{
    const kern_run_t *run = &rows->run[output->run];
    return output->row + 1 < run->row + run->rows ? rows->token[output->row + 1] : rows->from[output->run]->next_token;
}

static kern_draw_t draw_of(const worker_stepper_t *stepper, const output_t *output, const float *logits)
{
    const worker_rows_t *rows = &stepper->rows;
    const rpc_run_t *from = rows->from[output->run];
    const kern_run_t *run = &rows->run[output->run];
    kern_draw_t draw = {
        .logits = logits,
        .top_p = 1,
        .repetition_penalty = 1,
        .position = run->position + (output->row - run->row) + 1,
        .top_logprobs = from->top_logprobs > KERN_TOP_LOGPROBS ? KERN_TOP_LOGPROBS : from->top_logprobs,
        .forced = -1,
    };
    if (output->score) {
        draw.forced = next_token(rows, output);
        return draw;
    }
    draw.temperature = from->temperature;
    draw.top_p = from->top_p;
    draw.min_p = from->min_p;
    draw.repetition_penalty = from->repetition_penalty;
    draw.top_k = from->top_k;
    draw.seed = from->seed;
    draw.history = worker_slots_history(stepper->slots, from->slot, &draw.history_tokens);
    return draw;
}

static void record_drawn(worker_stepper_t *stepper, const output_t *output, const kern_draw_t *draw,
                         const kern_drawn_t *drawn, rpc_drawn_t *out)
{
    const rpc_run_t *from = stepper->rows.from[output->run];
    *out = (rpc_drawn_t){
        .sequence = from->sequence,
        .position = output->score ? draw->position - 1 : draw->position,
        .token = output->score ? drawn->top_token[0] : drawn->token,
        .logprob = output->score && draw->forced < 0 ? 0 : drawn->logprob,
        .flags = output->score ? RPC_RUN_SCORE : RPC_RUN_SAMPLE,
        .tops = draw->top_logprobs,
    };
    memcpy(out->top_token, drawn->top_token, out->tops * sizeof(*out->top_token));
    memcpy(out->top_logprob, drawn->top_logprob, out->tops * sizeof(*out->top_logprob));
    if (!output->score) worker_slots_drew(stepper->slots, from->slot, drawn->token);
}

/* Up to HEAD_ROWS outputs: logits, then what is wanted of them. */
static cot_status_t finish_outputs(worker_stepper_t *stepper, uint32_t first, uint32_t count)
{
    const worker_model_t *model = stepper->config.model;
    uint32_t row[HEAD_ROWS];
    kern_draw_t draw[HEAD_ROWS];
    kern_drawn_t drawn[HEAD_ROWS];
    for (uint32_t i = 0; i < count; i++) row[i] = stepper->output[first + i].row;
    COT_TRY(model->ops->head(model->kern, &(kern_head_args_t){.norm = model->weights->final_norm,
                                                              .lm_head = &model->weights->lm_head,
                                                              .rows = count,
                                                              .row = row,
                                                              .x = stepper->batch.x,
                                                              .logits = stepper->logits}));
    size_t vocab = model->config.vocab;
    for (uint32_t i = 0; i < count; i++)
        draw[i] = draw_of(stepper, &stepper->output[first + i], stepper->logits + i * vocab);
    COT_TRY(model->ops->sample(model->kern, &(kern_sample_args_t){.rows = count, .draw = draw, .drawn = drawn}));
    for (uint32_t i = 0; i < count; i++) {
        const output_t *output = &stepper->output[first + i];
        record_drawn(stepper, output, &draw[i], &drawn[i], &stepper->drawn[first + i]);
        if (output->score && stepper->rows.from[output->run]->flags & RPC_RUN_LOGITS)
            COT_TRY(cot_buffer_append(&stepper->kept_logits, stepper->logits + i * vocab, vocab * sizeof(float)));
    }
    return COT_OK;
}

/* Moves the routing of traced rows to the front of the batch's arrays. */
static uint32_t pack_routed(worker_stepper_t *stepper)
{
    const worker_rows_t *rows = &stepper->rows;
    worker_batch_t *batch = &stepper->batch;
    size_t width = stepper->route_width;
    uint32_t routed = 0;
    for (uint32_t r = 0; r < rows->runs; r++) {
        if (!(rows->from[r]->flags & RPC_RUN_TRACE)) continue;
        for (uint32_t row = rows->run[r].row; row < rows->run[r].row + rows->run[r].rows; row++, routed++) {
            stepper->routed[routed] = (rpc_routed_t){.sequence = rows->from[r]->sequence,
                                                     .position = rows->run[r].position + row - rows->run[r].row,
                                                     .token = rows->token[row]};
            memmove(batch->experts + routed * width, batch->experts + row * width, width * sizeof(*batch->experts));
            memmove(batch->gate_weights + routed * width, batch->gate_weights + row * width,
                    width * sizeof(*batch->gate_weights));
        }
    }
    return routed;
}

static cot_status_t encode_result(worker_stepper_t *stepper, uint32_t outputs, int64_t started_ns, cot_buffer_t *result)
{
    const worker_model_t *model = stepper->config.model;
    comm_traffic_t traffic = {0};
    uint64_t assignments = 0;
    stepper->config.ep_ops->traffic(stepper->config.ep, &traffic, &assignments);
    const comm_traffic_t *before = &stepper->traffic;
    int64_t wait_ns = traffic.wait_ns - before->wait_ns;
    const rpc_result_t encoded = {
        .header = {.magic = RPC_STEP_MAGIC,
                   .version = RPC_STEP_VERSION,
                   .rank = model->worker + 1,
                   .step = stepper->batch.step,
                   .drawn = outputs,
                   .routed = pack_routed(stepper),
                   .route_width = stepper->route_width,
                   .logits_rows = (uint32_t)(stepper->kept_logits.size / (model->config.vocab * sizeof(float))),
                   .vocab = model->config.vocab,
                   .compute_ns = cot_now_ns() - started_ns - wait_ns,
                   .wait_ns = wait_ns,
                   .dispatch_bytes = traffic.dispatch_bytes - before->dispatch_bytes,
                   .combine_bytes = traffic.combine_bytes - before->combine_bytes,
                   .assignments = assignments - stepper->assignments},
        .drawn = stepper->drawn,
        .routed = stepper->routed,
        .experts = stepper->batch.experts,
        .weights = stepper->batch.gate_weights,
        .logits = (const float *)(const void *)stepper->kept_logits.data,
        .text = "",
    };
    stepper->traffic = traffic;
    stepper->assignments = assignments;
    return rpc_result_encode(&encoded, result);
}

cot_status_t worker_stepper_run(worker_stepper_t *stepper, const rpc_step_t *step, cot_buffer_t *result)
{
    const worker_model_t *model = stepper->config.model;
    int64_t started_ns = cot_now_ns();
    cot_buffer_clear(result);
    cot_buffer_clear(&stepper->kept_logits);
    COT_TRY(worker_slots_take(stepper->slots, step, &stepper->rows));

    worker_batch_t *batch = &stepper->batch;
    batch->step = step->header.step;
    batch->rows = stepper->rows.rows;
    batch->runs = stepper->rows.runs;
    batch->run = stepper->rows.run;
    if (batch->rows > 0)
        COT_TRY(model->ops->embed(model->kern, &(kern_embed_args_t){.table = &model->weights->embed,
                                                                    .rows = batch->rows,
                                                                    .tokens = stepper->rows.token,
                                                                    .x = batch->x}));
    COT_TRY(stepper->config.ep_ops->forward(stepper->config.ep, batch));

    uint32_t outputs = list_outputs(stepper);
    for (uint32_t first = 0; first < outputs; first += HEAD_ROWS)
        COT_TRY(finish_outputs(stepper, first, outputs - first < HEAD_ROWS ? outputs - first : HEAD_ROWS));
    return encode_result(stepper, outputs, started_ns, result);
}
