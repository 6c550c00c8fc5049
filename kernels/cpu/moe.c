/* Routing, experts, dense layers and their sum. */
#include "kernels/cpu/cpu_int.h"

#include <assert.h>
#include <string.h>

/* ---- route ---- */

typedef struct {
    const kern_t *kern;
    const kern_route_args_t *args;
} route_t;

static void route_part(void *argument, uint32_t row)
{
    const route_t *route = argument;
    const kern_t *kern = route->kern;
    const uint32_t experts = kern->config.experts, top_k = kern->config.top_k;
    float *logits = kern->logits + (size_t)row * experts;
    int32_t *expert = route->args->expert + (size_t)row * top_k;
    float *weight = route->args->weight + (size_t)row * top_k;

    kern_top_k(logits, experts, top_k, expert);
    const float max = logits[expert[0]];
    for (uint32_t e = 0; e < experts; e++) logits[e] = (logits[e] - max) * 0x1.715476p0f;
    kern->prims->exp2(logits, experts);
    const float sum = kern->prims->sum(logits, experts);
    float chosen = 0;
    for (uint32_t k = 0; k < top_k; k++) {
        weight[k] = logits[expert[k]] / sum;
        chosen += weight[k];
    }
    if (!kern->config.norm_topk) return;
    for (uint32_t k = 0; k < top_k; k++) weight[k] /= chosen;
}

cot_status_t kern_cpu_route(kern_t *kern, const kern_route_args_t *args)
{
    assert(args->rows <= kern->config.max_rows && args->gate->rows == kern->config.experts);
    if (kern->config.top_k == 0) return COT_OK;
    kern_pack_rows(kern, args->normed, args->rows, kern->config.hidden);
    const kern_job_t job = {.w = args->gate,
                            .x = kern->packed,
                            .x_stride = kern->packed_stride,
                            .rows = args->rows,
                            .out = kern->logits,
                            .out_stride = kern->config.experts};
    kern_products(kern, &job, 1);
    route_t route = {.kern = kern, .args = args};
    kern_spread(kern, args->rows, 8ULL * kern->config.experts, route_part, &route);
    return COT_OK;
}

/* ---- feed-forward networks: experts, shared experts, dense layers ---- */

/* Rows of slot s are [begin[s], begin[s + 1]) of kern->packed; row i's output goes to y[order[i]]. */
typedef struct {
    kern_t *kern;
    const kern_ffn_weights_t *ffn;
    uint32_t slots;
    const uint32_t *begin, *order; /* order NULL: i itself */
    char *y;
    /* While packing: */
    const char *x;
    const uint32_t *row; /* of an assignment; NULL: the assignment itself */
} ffn_t;

/* What a part covers. */
typedef struct {
    const kern_ffn_weights_t *ffn;
    uint32_t row, rows, output, outputs;
} span_t;

static uint32_t original(const ffn_t *job, uint32_t i)
{
    return job->order != NULL ? job->order[i] : i;
}

static void gather_part(void *argument, uint32_t i)
{
    const ffn_t *job = argument;
    const kern_t *kern = job->kern;
    uint32_t assignment = original(job, i);
    size_t row = job->row != NULL ? job->row[assignment] : assignment;
    const char *x = job->x + row * kern->config.hidden * kern_dtype_bytes(kern->config.act);
    kern_pack_act(kern, x, kern->config.hidden, kern_packed_row(kern, i));
}

/* Fills part_begin for matrices of outputs(slot) rows; returns the number of parts. */
static uint32_t count_parts(const ffn_t *job, bool down)
{
    uint32_t *begin = job->kern->part_begin;
    begin[0] = 0;
    for (uint32_t s = 0; s < job->slots; s++) {
        uint32_t outputs = down ? job->ffn[s].down.rows : job->ffn[s].gate.rows;
        uint32_t row_blocks = kern_blocks(job->begin[s + 1] - job->begin[s], KERN_PART_ROWS);
        begin[s + 1] = begin[s] + row_blocks * kern_blocks(outputs, KERN_PART_OUTPUTS);
    }
    return begin[job->slots];
}

static span_t find_span(const ffn_t *job, uint32_t part, bool down)
{
    const uint32_t *begin = job->kern->part_begin;
    uint32_t slot = 0, end = job->slots; /* the last slot that begins at or before `part` */
    while (end - slot > 1) {
        uint32_t middle = slot + (end - slot) / 2;
        if (begin[middle] <= part)
            slot = middle;
        else
            end = middle;
    }
    const kern_ffn_weights_t *ffn = &job->ffn[slot];
    uint32_t outputs = down ? ffn->down.rows : ffn->gate.rows, rows = job->begin[slot + 1] - job->begin[slot];
    uint32_t row_blocks = kern_blocks(rows, KERN_PART_ROWS);
    uint32_t row = (part - begin[slot]) % row_blocks * KERN_PART_ROWS;
    uint32_t output = (part - begin[slot]) / row_blocks * KERN_PART_OUTPUTS;
    return (span_t){.ffn = ffn,
                    .row = job->begin[slot] + row,
                    .rows = rows - row < KERN_PART_ROWS ? rows - row : KERN_PART_ROWS,
                    .output = output,
                    .outputs = outputs - output < KERN_PART_OUTPUTS ? outputs - output : KERN_PART_OUTPUTS};
}

/* silu(gate x) (up x) of a part's rows and outputs, packed for the product with down. */
static void gate_up_part(void *argument, uint32_t part)
{
    const ffn_t *job = argument;
    const kern_t *kern = job->kern;
    const span_t span = find_span(job, part, false);
    const size_t bytes = kern_form_bytes(kern->form);
    float gate[KERN_PART_ROWS * KERN_PART_OUTPUTS], up[KERN_PART_ROWS * KERN_PART_OUTPUTS];
    kern_job_t product = {.w = &span.ffn->gate,
                          .x = kern_packed_row(kern, span.row),
                          .x_stride = kern->packed_stride,
                          .rows = span.rows,
                          .out = gate,
                          .out_stride = KERN_PART_OUTPUTS};
    kern_product(kern, &product, span.output, span.outputs);
    product.w = &span.ffn->up;
    product.out = up;
    kern_product(kern, &product, span.output, span.outputs);
    for (uint32_t r = 0; r < span.rows; r++) {
        char *out = kern->middle + (span.row + r) * kern->middle_stride + span.output * bytes;
        float *columns = gate + r * KERN_PART_OUTPUTS;
        kern->prims->swiglu(columns, up + r * KERN_PART_OUTPUTS, span.outputs, columns);
        kern->prims->pack(columns, span.outputs, kern->form, out);
        /* Parts are as wide as the padding: the last one pads. */
        memset(out + span.outputs * bytes, 0, (KERN_PART_OUTPUTS - span.outputs) * bytes);
    }
}

static void down_part(void *argument, uint32_t part)
{
    const ffn_t *job = argument;
    const kern_t *kern = job->kern;
    const span_t span = find_span(job, part, true);
    const size_t act_bytes = kern_dtype_bytes(kern->config.act);
    float out[KERN_PART_ROWS * KERN_PART_OUTPUTS];
    const kern_job_t product = {.w = &span.ffn->down,
                                .x = kern->middle + span.row * kern->middle_stride,
                                .x_stride = kern->middle_stride,
                                .rows = span.rows,
                                .out = out,
                                .out_stride = KERN_PART_OUTPUTS};
    kern_product(kern, &product, span.output, span.outputs);
    for (uint32_t r = 0; r < span.rows; r++) {
        size_t at = (size_t)original(job, span.row + r) * kern->config.hidden + span.output;
        kern->prims->pack(out + r * KERN_PART_OUTPUTS, span.outputs, kern_act_form(kern), job->y + at * act_bytes);
    }
}

/* kern->packed holds the rows. */
static void run_ffn(ffn_t *job)
{
    const kern_t *kern = job->kern;
    uint64_t work = 0; /* of the down projections; gate and up together take twice as much */
    for (uint32_t s = 0; s < job->slots; s++)
        work += (uint64_t)(job->begin[s + 1] - job->begin[s]) * job->ffn[s].down.rows * job->ffn[s].down.cols;
    kern_spread(kern, job->begin[job->slots], kern->config.hidden, gather_part, job);
    uint32_t parts = count_parts(job, false);
    kern_spread(kern, parts, parts > 0 ? 2 * work / parts : 0, gate_up_part, job);
    parts = count_parts(job, true);
    kern_spread(kern, parts, parts > 0 ? work / parts : 0, down_part, job);
}

cot_status_t kern_cpu_experts(kern_t *kern, const kern_experts_args_t *args)
{
    assert(args->assignments <= kern->config.max_assignments && args->slots <= kern->config.experts);
    assert(args->slots == 0 || args->slot_begin[args->slots] <= args->assignments);
    if (args->slots == 0) return COT_OK;
    ffn_t job = {.kern = kern,
                 .ffn = args->expert,
                 .slots = args->slots,
                 .begin = args->slot_begin,
                 .order = args->order,
                 .y = args->y,
                 .x = args->x,
                 .row = args->row};
    run_ffn(&job);
    return COT_OK;
}

cot_status_t kern_cpu_mlp(kern_t *kern, const kern_mlp_args_t *args)
{
    assert(args->rows <= kern->config.max_rows);
    const uint32_t begin[2] = {0, args->rows};
    ffn_t job = {.kern = kern, .ffn = args->ffn, .slots = 1, .begin = begin, .y = args->y, .x = args->normed};
    run_ffn(&job);
    if (args->gate == NULL) {
        for (uint32_t t = 0; t < args->rows; t++) args->scale[t] = 1.0f;
        return COT_OK;
    }
    const kern_job_t gate = {.w = args->gate,
                             .x = kern->packed,
                             .x_stride = kern->packed_stride,
                             .rows = args->rows,
                             .out = kern->logits,
                             .out_stride = 1};
    kern_products(kern, &gate, 1);
    for (uint32_t t = 0; t < args->rows; t++) args->scale[t] = kern->logits[t] * -0x1.715476p0f;
    kern->prims->exp2(args->scale, args->rows);
    for (uint32_t t = 0; t < args->rows; t++) args->scale[t] = 1.0f / (1.0f + args->scale[t]);
    return COT_OK;
}

/* ---- combine ---- */

typedef struct {
    const kern_t *kern;
    const kern_combine_args_t *args;
} combine_t;

static void combine_part(void *argument, uint32_t row)
{
    enum { COLUMNS = 256 };
    const combine_t *combine = argument;
    const kern_combine_args_t *args = combine->args;
    const kern_prims_t *prims = combine->kern->prims;
    const kern_dtype_t act = combine->kern->config.act;
    const uint32_t hidden = combine->kern->config.hidden;
    const size_t row_bytes = hidden * kern_dtype_bytes(act);
    for (uint32_t i = 0; i < hidden; i += COLUMNS) {
        const uint32_t count = hidden - i < COLUMNS ? hidden - i : COLUMNS;
        const size_t offset = i * kern_dtype_bytes(act);
        float sum[COLUMNS] = {0}, *x = args->x + (size_t)row * hidden + i;
        for (uint32_t k = 0; k < args->top_k; k++) {
            size_t at = (size_t)row * args->top_k + k;
            prims->add_scaled(args->weight[at], (const char *)args->y + at * row_bytes + offset, act, count, sum);
        }
        if (args->shared != NULL)
            prims->add_scaled(args->scale[row], (const char *)args->shared + row * row_bytes + offset, act, count, sum);
        for (uint32_t c = 0; c < count; c++) x[c] += sum[c];
    }
    if (args->next_norm != NULL)
        kern_norm(combine->kern, args->x + (size_t)row * hidden, args->next_norm, kern_act_form(combine->kern),
                  (char *)args->next_normed + row * row_bytes);
}

cot_status_t kern_cpu_combine(kern_t *kern, const kern_combine_args_t *args)
{
    combine_t combine = {.kern = kern, .args = args};
    kern_spread(kern, args->rows, (args->top_k + 2ULL) * kern->config.hidden, combine_part, &combine);
    return COT_OK;
}
