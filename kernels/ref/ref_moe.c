#include "kernels/ref/ref_int.h"

#include <assert.h>
#include <math.h>

/* kern->row = activations [row] of `act`. */
static void fetch(kern_t *kern, const void *act, size_t row, uint32_t width)
{
    for (uint32_t i = 0; i < width; i++) kern->row[i] = (float)kern_ref_get(kern, act, row * width + i);
}

cot_status_t kern_ref_route(kern_t *kern, const kern_route_args_t *args)
{
    const uint32_t experts = kern->config.experts, top_k = kern->config.top_k;
    for (uint32_t t = 0; top_k > 0 && t < args->rows; t++) {
        int32_t *expert = args->expert + (size_t)t * top_k;
        float *weight = args->weight + (size_t)t * top_k;
        fetch(kern, args->normed, t, kern->config.hidden);
        kern_ref_product(args->gate, kern->row, kern->sum);
        for (uint32_t e = 0; e < experts; e++) kern->row[e] = (float)kern->sum[e];
        kern_top_k(kern->row, experts, top_k, expert);
        double sum = 0, chosen = 0, max = kern->row[expert[0]];
        for (uint32_t e = 0; e < experts; e++) sum += exp(kern->row[e] - max);
        for (uint32_t k = 0; k < top_k; k++) chosen += exp(kern->row[expert[k]] - max);
        for (uint32_t k = 0; k < top_k; k++)
            weight[k] = (float)(exp(kern->row[expert[k]] - max) / (kern->config.norm_topk ? chosen : sum));
    }
    return COT_OK;
}

/* y[at] = ffn(x[row]) */
static void feed(kern_t *kern, const kern_ffn_weights_t *ffn, const void *x, size_t row, void *y, size_t at)
{
    const uint32_t hidden = kern->config.hidden, width = ffn->gate.rows;
    double *gate = kern->sum, *up = gate + width;
    fetch(kern, x, row, hidden);
    kern_ref_product(&ffn->gate, kern->row, gate);
    kern_ref_product(&ffn->up, kern->row, up);
    for (uint32_t i = 0; i < width; i++)
        kern->row[i] = (float)kern_ref_round(kern, gate[i] / (1 + exp(-gate[i])) * up[i]);
    kern_ref_product(&ffn->down, kern->row, kern->sum);
    for (uint32_t i = 0; i < hidden; i++) kern_ref_put(kern, y, at * hidden + i, kern->sum[i]);
}

cot_status_t kern_ref_experts(kern_t *kern, const kern_experts_args_t *args)
{
    for (uint32_t slot = 0; slot < args->slots; slot++)
        for (uint32_t i = args->slot_begin[slot]; i < args->slot_begin[slot + 1]; i++)
            feed(kern, &args->expert[slot], args->x, args->row[args->order[i]], args->y, args->order[i]);
    return COT_OK;
}

cot_status_t kern_ref_mlp(kern_t *kern, const kern_mlp_args_t *args)
{
    for (uint32_t t = 0; t < args->rows; t++) {
        feed(kern, args->ffn, args->normed, t, args->y, t);
        args->scale[t] = 1;
        if (args->gate == NULL) continue;
        fetch(kern, args->normed, t, kern->config.hidden);
        kern_ref_product(args->gate, kern->row, kern->sum);
        args->scale[t] = (float)(1 / (1 + exp(-kern->sum[0])));
    }
    return COT_OK;
}

cot_status_t kern_ref_combine(kern_t *kern, const kern_combine_args_t *args)
{
    const uint32_t hidden = kern->config.hidden;
    for (uint32_t t = 0; t < args->rows; t++) {
        for (uint32_t i = 0; i < hidden; i++) {
            double sum = 0;
            for (uint32_t k = 0; k < args->top_k; k++) {
                size_t at = (size_t)t * args->top_k + k;
                sum += args->weight[at] * kern_ref_get(kern, args->y, at * hidden + i);
            }
            if (args->shared != NULL) sum += args->scale[t] * kern_ref_get(kern, args->shared, (size_t)t * hidden + i);
            args->x[(size_t)t * hidden + i] = (float)(args->x[(size_t)t * hidden + i] + sum);
        }
        if (args->next_norm == NULL) continue;
        kern_ref_norm(kern, args->x + (size_t)t * hidden, args->next_norm, kern->row);
        for (uint32_t i = 0; i < hidden; i++)
            kern_ref_put(kern, args->next_normed, (size_t)t * hidden + i, kern->row[i]);
    }
    return COT_OK;
}
