/* Whole layers as one graph: plan `home` on all GPUs of an mpirun, or on one. Eight layers of distinct weights, so that
 * no weight is read from L2; decode at 1,024 tokens of context with random KV, prefill of prompts of 1,024. Every
 * replay has new random residuals, so the router draws anew; the result is the median over the draws of a layer's time,
 * the largest over the ranks.
 *
 * Floor: the bytes that a rank must read for one layer, at the read rate of the same run. Experts touched are the
 * expected number of distinct ones under uniform routing, E (1 - (1 - k/E)^tokens), over the ranks. */
#include "kernels/lab/lab.cuh"

#include "kernels/lab/bits_case.h"

#include <algorithm>
#include <math.h>

extern "C" {
#include "base/memory.h"
}

namespace
{

constexpr uint32_t LAYERS = 8, CONTEXT = 1024, DRAWS = 64, WARM = 3, PREFILL_DRAWS = 9, PREFILL_TOKENS = 2048;

lab_stack_config_t stack_config(const lab_t *lab, uint32_t layers)
{
    const model_config_t &model = lab->config;
    lab_stack_config_t config = {};
    config.link = lab->link;
    config.ranks = lab->ranks;
    config.device = lab->gpu;
    config.layers = layers;
    config.hidden = model.hidden;
    config.heads = model.heads;
    config.kv_heads = model.kv_heads;
    config.head_dim = model.head_dim;
    config.experts = model.experts;
    config.top_k = model.top_k;
    config.width = model.expert_width;
    config.norm_eps = model.norm_eps;
    config.norm_topk = model.norm_topk;
    config.qk_norm = model.qk_norm == MODEL_QK_NORM_HEAD;
    config.inv_freq = model.inv_freq;
    return config;
}

struct shape_t {
    uint32_t own, bucket;    /* rows of this rank, and of the fullest one */
    uint32_t rows, position; /* of each sequence in a step */
    uint32_t draws;
};

double floor_us(const lab_t *lab, const shape_t &shape, double tokens)
{
    const model_config_t &m = lab->config;
    const double width = m.heads * m.head_dim, narrow = m.kv_heads * m.head_dim;
    const double touched = m.experts * (1 - pow(1 - static_cast<double>(m.top_k) / m.experts, tokens)) / lab->ranks;
    const double weights = 2.0 * m.hidden * (2 * width + 2 * narrow + m.experts) +
                           touched * 6.0 * m.hidden * m.expert_width;
    const double kv = shape.rows == 1 ? 4.0 * shape.bucket * narrow * CONTEXT : 0;
    return (weights + kv) / lab->read_gbs * 1e-3;
}

struct draws_t {
    lab_stack_t *stack;
    shape_t shape;
    lab_span_t *span; /* [spans] */
    uint32_t spans;
    float *x; /* [own, hidden] */
};

cot_status_t run_draw(lab_t *lab, const draws_t &draws, uint32_t draw, float *ms_out)
{
    const shape_t &shape = draws.shape;
    const lab_step_t step = {shape.bucket, draws.spans, draws.span};
    for (uint32_t i = 0; i < shape.own; i++)
        lab_stack_input(draws.stack, lab->rank, draw * shape.own + i,
                        draws.x + static_cast<size_t>(i) * lab->config.hidden);
    COT_TRY(lab_stack_prepare(draws.stack, &step, draws.x));
    double together = 0; /* all ranks start a replay together */
    COT_TRY(lab_largest(lab, &together));
    COT_TRY(lab_stack_run(draws.stack, true));
    COT_TRY(lab_stack_wait(draws.stack, draw));
    return lab_stack_elapsed(draws.stack, ms_out);
}

cot_status_t run_draws(lab_t *lab, lab_stack_t *stack, const shape_t &shape, double *us_out)
{
    draws_t draws = {stack, shape, NULL, shape.own / shape.rows, NULL};
    float ms[DRAWS + WARM];
    draws.span = static_cast<lab_span_t *>(cot_calloc(draws.spans + 1, sizeof(*draws.span)));
    draws.x = static_cast<float *>(cot_calloc(shape.own + 1, lab->config.hidden * sizeof(float)));
    cot_status_t status = COT_OK;
    if (draws.span == NULL || draws.x == NULL) status = cot_fail(COT_ERR_NO_MEMORY, "no memory for a step");
    for (uint32_t s = 0; status == COT_OK && s < draws.spans; s++) {
        draws.span[s].sequence = s;
        draws.span[s].position = shape.position;
        draws.span[s].rows = shape.rows;
    }
    for (uint32_t draw = 0; status == COT_OK && draw < shape.draws + WARM; draw++) {
        lab->deadline = lab_seconds() + 30;
        status = run_draw(lab, draws, draw, &ms[draw]);
    }
    cot_free(draws.span);
    cot_free(draws.x);
    COT_TRY(status);
    std::sort(ms + WARM, ms + WARM + shape.draws);
    *us_out = ms[WARM + shape.draws / 2] * 1e3 / LAYERS;
    return lab_largest(lab, us_out);
}

/* `batch` tokens in all; each rank has its share, the first ones one more. */
cot_status_t time_batch(lab_t *lab, uint32_t batch, bool prefill)
{
    shape_t shape = {};
    shape.rows = prefill ? CONTEXT : 1;
    shape.position = prefill ? 0 : CONTEXT - 1;
    shape.draws = prefill ? PREFILL_DRAWS : DRAWS;
    const uint32_t sequences = prefill ? batch / CONTEXT : batch;
    shape.own = (sequences / lab->ranks + (lab->rank < sequences % lab->ranks)) * shape.rows;
    const uint32_t fullest = (sequences + lab->ranks - 1) / lab->ranks * shape.rows;
    for (shape.bucket = 1; shape.bucket < fullest;) shape.bucket *= 2;
    lab_stack_config_t config = stack_config(lab, LAYERS);
    config.sequences = std::max(1U, shape.bucket / shape.rows);
    config.context = CONTEXT;
    config.max_tokens = shape.bucket;
    lab_stack_t *stack;
    COT_TRY(lab_stack_create(&config, &stack));
    double us = 0;
    cot_status_t status = prefill ? COT_OK : lab_stack_fill_kv(stack, static_cast<uint32_t>(lab->seed));
    if (status == COT_OK) status = run_draws(lab, stack, shape, &us);
    const double gigabytes = static_cast<double>(lab_stack_bytes(stack)) * 1e-9;
    const double window = strcmp(lab_stack_transport(stack), "window") == 0 ? 1 : 0;
    lab_stack_destroy(stack);
    COT_TRY(status);
    if (prefill)
        LAB_RECORD(lab, {"us", us}, {"tokens/s_of_48_layers", batch / us * 1e6 / 48}, {"GB", gigabytes},
                   {"window", window});
    else
        LAB_RECORD(lab, {"us", us}, {"floor_us", floor_us(lab, shape, batch)},
                   {"share", floor_us(lab, shape, batch) / us}, {"GB", gigabytes}, {"window", window});
    return COT_OK;
}

void tell(void *user, const char *way, uint64_t rows, uint64_t wrong, const char *first_wrong)
{
    lab_t *lab = static_cast<lab_t *>(user);
    snprintf(lab->name, sizeof(lab->name), "bits %s", way);
    if (wrong > 0)
        lab_wrong(lab, "%llu of %llu rows; first: %s", static_cast<unsigned long long>(wrong),
                  static_cast<unsigned long long>(rows), first_wrong);
    LAB_RECORD(lab, {"rows", static_cast<double>(rows)}, {"wrong", static_cast<double>(wrong)});
    lab->deadline = lab_seconds() + 60;
}

} // namespace

cot_status_t lab_stage_layer(lab_t *lab)
{
    static const uint32_t DEFAULT[] = {1, 64, 256};
    const uint32_t count = lab->rows_count > 0 ? lab->rows_count : 3;
    COT_TRY(lab_limits(lab));
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t batch = lab->rows_count > 0 ? lab->rows[i] : DEFAULT[i];
        if (lab_case(lab, "layer, decode, batch %u on %u GPUs", batch, lab->ranks))
            COT_TRY(time_batch(lab, batch, false));
    }
    const uint32_t tokens = PREFILL_TOKENS * lab->ranks;
    if (lab_case(lab, "layer, prefill, %u tokens on %u GPUs", tokens, lab->ranks))
        COT_TRY(time_batch(lab, tokens, true));
    return COT_OK;
}

cot_status_t lab_stage_bits(lab_t *lab)
{
    if (!lab_case(lab, "bits")) return COT_OK;
    const lab_stack_config_t config = stack_config(lab, 2);
    uint64_t wrong = 0;
    COT_TRY(lab_bits_run(&config, tell, lab, &wrong));
    lab->deadline = 0;
    return COT_OK;
}
