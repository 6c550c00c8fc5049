/* Rows into the form that products take, and products cut into parts. */
#include "kernels/cpu/cpu_int.h"

#include <assert.h>
#include <math.h>
#include <string.h>

void kern_spread(const kern_t *kern, uint32_t parts, uint64_t part_work, void (*work)(void *argument, uint32_t part),
                 void *argument)
{
    const uint64_t worth_waking = 1U << 17; /* about 5 us of arithmetic, 15 us of reading weights */
    cot_pool_run(parts * part_work < worth_waking ? NULL : kern->config.pool, parts, work, argument);
}

void kern_product(const kern_t *kern, const kern_job_t *job, uint32_t first, uint32_t outputs)
{
    const kern_matrix_t *w = job->w;
    const kern_product_t product = {
        .x = job->x,
        .x_stride = job->x_stride,
        .w = (const char *)w->data + (size_t)first * w->cols * kern_dtype_bytes(w->dtype),
        .rows = job->rows,
        .outputs = outputs,
        .cols = w->cols,
        .out = job->out,
        .out_stride = job->out_stride,
    };
    if (w->dtype == KERN_F32)
        kern->prims->product_f32(&product);
    else if (kern->form == KERN_FORM_BF16)
        kern->prims->product_pairs(&product);
    else
        kern->prims->product_bf16(&product);
}

typedef struct {
    const kern_t *kern;
    const kern_job_t *job;
    uint32_t end[3]; /* first part after each job's */
    uint32_t jobs;
} products_t;

/* Row blocks of one output block follow each other, so that threads share its weights in the last-level cache. */
static void product_part(void *argument, uint32_t part)
{
    const products_t *products = argument;
    uint32_t j = 0;
    while (part >= products->end[j]) j++;
    const kern_job_t *whole = &products->job[j];
    if (j > 0) part -= products->end[j - 1];
    uint32_t row_blocks = kern_blocks(whole->rows, KERN_PART_ROWS);
    uint32_t row = part % row_blocks * KERN_PART_ROWS, output = part / row_blocks * KERN_PART_OUTPUTS;
    uint32_t outputs = whole->w->rows - output;

    kern_job_t job = *whole;
    job.x += row * job.x_stride;
    job.out += row * job.out_stride + output;
    job.rows = whole->rows - row < KERN_PART_ROWS ? whole->rows - row : KERN_PART_ROWS;
    kern_product(products->kern, &job, output, outputs < KERN_PART_OUTPUTS ? outputs : KERN_PART_OUTPUTS);
}

void kern_products(const kern_t *kern, const kern_job_t *jobs, uint32_t count)
{
    products_t products = {.kern = kern, .job = jobs, .jobs = count};
    uint32_t parts = 0;
    uint64_t work = 0;
    assert(count <= 3);
    for (uint32_t j = 0; j < count; j++) {
        work += (uint64_t)jobs[j].rows * jobs[j].w->rows * jobs[j].w->cols;
        parts += kern_blocks(jobs[j].rows, KERN_PART_ROWS) * kern_blocks(jobs[j].w->rows, KERN_PART_OUTPUTS);
        products.end[j] = parts;
    }
    kern_spread(kern, parts, parts > 0 ? work / parts : 0, product_part, &products);
}

/* ---- packing ---- */

/* The products read rows in whole steps: what stands after the last element must be zero, not old data. */
static void pad(const kern_t *kern, char *packed, uint32_t cols)
{
    uint32_t padded = kern_blocks(cols, KERN_PAD) * KERN_PAD;
    size_t bytes = kern_form_bytes(kern->form);
    memset(packed + cols * bytes, 0, (padded - cols) * bytes);
}

void kern_pack_act(const kern_t *kern, const void *act, uint32_t cols, char *packed)
{
    if (kern->form == KERN_FORM_ROUNDED)
        kern->prims->widen(act, cols, (float *)(void *)packed);
    else
        memcpy(packed, act, cols * kern_form_bytes(kern->form));
    pad(kern, packed, cols);
}

typedef struct {
    kern_t *kern;
    const char *act;
    uint32_t cols;
} packing_t;

static void pack_part(void *argument, uint32_t row)
{
    const packing_t *packing = argument;
    const kern_t *kern = packing->kern;
    size_t row_bytes = packing->cols * kern_dtype_bytes(kern->config.act);
    kern_pack_act(kern, packing->act + row * row_bytes, packing->cols, kern_packed_row(kern, row));
}

void kern_pack_rows(kern_t *kern, const void *act, uint32_t rows, uint32_t cols)
{
    packing_t packing = {.kern = kern, .act = act, .cols = cols};
    kern_spread(kern, rows, cols, pack_part, &packing);
}

void kern_norm(const kern_t *kern, const float *x, const float *weight, kern_form_t form, void *out)
{
    enum { COLUMNS = 256 };
    const uint32_t hidden = kern->config.hidden;
    float mean = kern->prims->sum_squares(x, hidden) / (float)hidden;
    float factor = 1.0f / sqrtf(mean + kern->config.norm_eps);
    for (uint32_t i = 0; i < hidden; i += COLUMNS) {
        float columns[COLUMNS];
        uint32_t count = hidden - i < COLUMNS ? hidden - i : COLUMNS;
        kern->prims->scale(x + i, factor, weight + i, count, columns);
        kern->prims->pack(columns, count, form, (char *)out + i * kern_form_bytes(form));
    }
}

void kern_norm_packed(const kern_t *kern, const float *x, const float *weight, char *packed)
{
    kern_norm(kern, x, weight, kern->form, packed);
    pad(kern, packed, kern->config.hidden);
}
