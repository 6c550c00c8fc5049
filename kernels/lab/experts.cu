/* Stage `experts`: the grouped feed-forward of half of a model's experts (two ranks), at a mean of --rows rows an
 * expert (0: eight assignments in all). Counts are equal, drawn (each token takes top-k distinct experts of all,
 * uniformly) or Zipf's.
 *
 * Checks, on fresh data: the forms (mma.sync, wgmma with few rows, with many, chosen) agree in every bit of y, rows
 * that no assignment names stay poisoned, sampled rows alone give the same bits as in the batch, and agree with
 * kern_ref. Times: a graph of `DRAWS` rounds, each with its own routing. Bytes are active weights + unique rows +
 * outputs. */
#include "kernels/lab/lab.cuh"

#include <algorithm>
#include <math.h>
#include <random>
#include <vector>

namespace
{

enum { DRAWS = 8 };

typedef enum { EQUAL, DRAWN, ZIPF, ONE_EXPERT, EIGHT } counts_t;
const char *const COUNTS[] = {"equal", "drawn", "zipf", "one", "eight"};

struct routing_t {
    std::vector<uint32_t> row, order, begin; /* by assignment; sorted; by slot */
    uint32_t *device_row, *device_order, *device_begin;
    uint32_t active, unique_rows;
};

struct bench_t {
    lab_t *lab;
    kern_t *kern;
    kern_bank_t *bank;
    kern_config_t config;
    uint32_t slots, width, max_assignments, max_tokens;
    uint16_t *x, *y, *other; /* [tokens][H], [assignments][H] twice */
    routing_t routing[DRAWS];
    uint32_t rounds;
};

/* ---- routing ---- */

void draw_token(lab_t *lab, const std::vector<double> &share, uint32_t top_k, std::vector<uint32_t> &chosen)
{
    chosen.clear();
    while (chosen.size() < top_k) {
        double at = static_cast<double>(lab_next(lab) >> 11) * 0x1p-53;
        uint32_t expert = 0;
        for (; expert + 1 < share.size() && at >= share[expert]; expert++) at -= share[expert];
        if (std::find(chosen.begin(), chosen.end(), expert) == chosen.end()) chosen.push_back(expert);
    }
}

/* (slot, token) pairs in the order of tokens. */
typedef std::vector<std::pair<uint32_t, uint32_t>> pairs_t;

pairs_t draw_pairs(const bench_t *bench, counts_t counts, uint32_t mean, uint32_t draw)
{
    lab_t *lab = bench->lab;
    const uint32_t experts = lab->config.experts, top_k = lab->config.top_k, slots = bench->slots;
    pairs_t pairs;
    if (counts == EIGHT) {
        for (uint32_t a = 0; a < 8; a++) pairs.push_back({(draw * 8 + a * 5) % slots, a % 2});
    } else if (counts == EQUAL) {
        const uint32_t tokens = std::max(1U, mean * experts / top_k);
        for (uint32_t a = 0; a < mean * slots; a++)
            pairs.push_back(
                {a % slots, a / slots * (tokens / std::max(1U, mean)) + a % std::max(1U, tokens / std::max(1U, mean))});
    } else if (counts == ONE_EXPERT) {
        for (uint32_t a = 0; a < mean * slots; a++) pairs.push_back({(draw + 3) % slots, a % bench->max_tokens});
    } else {
        std::vector<double> share(experts);
        double sum = 0;
        for (uint32_t e = 0; e < experts; e++) sum += share[e] = counts == ZIPF ? 1.0 / (e + 1) : 1.0;
        for (double &s : share) s /= sum;
        std::shuffle(share.begin(), share.end(), std::mt19937_64(lab_next(lab)));
        std::vector<uint32_t> chosen;
        for (uint32_t t = 0; t < std::max(1U, mean * experts / top_k); t++) {
            draw_token(lab, share, top_k, chosen);
            for (uint32_t expert : chosen)
                if (expert < slots) pairs.push_back({expert, t});
        }
    }
    if (pairs.size() > bench->max_assignments) pairs.resize(bench->max_assignments);
    return pairs;
}

cot_status_t make_routing(bench_t *bench, routing_t *routing, const pairs_t &pairs)
{
    const size_t count = pairs.size();
    std::vector<int32_t> slot(count);
    std::vector<bool> seen(bench->max_tokens, false);
    routing->row.resize(count);
    routing->order.assign(count + 1, 0);
    routing->begin.assign(bench->slots + 1, 0);
    routing->unique_rows = routing->active = 0;
    for (size_t a = 0; a < count; a++) {
        slot[a] = static_cast<int32_t>(pairs[a].first);
        routing->row[a] = pairs[a].second;
        routing->unique_rows += !seen[pairs[a].second];
        seen[pairs[a].second] = true;
    }
    kern_sort_args_t sort = {.assignments = static_cast<uint32_t>(count),
                             .slots = bench->slots,
                             .slot = slot.data(),
                             .order = routing->order.data(),
                             .slot_begin = routing->begin.data()};
    COT_TRY(kern_sort(NULL, &sort));
    for (uint32_t s = 0; s < bench->slots; s++) routing->active += routing->begin[s + 1] > routing->begin[s];
    KERN_CUDA_TRY(cudaMemcpy(routing->device_row, routing->row.data(), count * 4, cudaMemcpyHostToDevice));
    KERN_CUDA_TRY(cudaMemcpy(routing->device_order, routing->order.data(), count * 4, cudaMemcpyHostToDevice));
    KERN_CUDA_TRY(
        cudaMemcpy(routing->device_begin, routing->begin.data(), routing->begin.size() * 4, cudaMemcpyHostToDevice));
    return COT_OK;
}

cot_status_t launch(void *context, uint32_t round)
{
    bench_t *bench = static_cast<bench_t *>(context);
    const routing_t *routing = &bench->routing[round % DRAWS];
    const kern_experts_args_t args = {.expert = NULL,
                                      .bank = bench->bank,
                                      .slots = bench->slots,
                                      .assignments = bench->max_assignments,
                                      .x = bench->x,
                                      .row = routing->device_row,
                                      .order = routing->device_order,
                                      .slot_begin = routing->device_begin,
                                      .y = bench->y,
                                      .y_base = NULL,
                                      .per_base = 0};
    return kern_cuda.experts(bench->kern, &args);
}

/* ---- checks ---- */

cot_status_t copy_slot(const bench_t *bench, uint32_t slot, std::vector<uint16_t> (&ffn)[3])
{
    const size_t hidden = bench->config.hidden, matrix = bench->width * hidden;
    std::vector<uint16_t> both(2 * matrix);
    for (auto &part : ffn) part.resize(matrix);
    KERN_CUDA_TRY(
        cudaMemcpy(both.data(), bench->bank->gate_up + slot * 2 * matrix, 4 * matrix, cudaMemcpyDeviceToHost));
    KERN_CUDA_TRY(cudaMemcpy(ffn[2].data(), bench->bank->down + slot * matrix, 2 * matrix, cudaMemcpyDeviceToHost));
    for (size_t r = 0; r < 2 * bench->width; r++)
        memcpy(ffn[r / 8 % 2].data() + (r / 16 * 8 + r % 8) * hidden, both.data() + r * hidden, 2 * hidden);
    return COT_OK;
}

/* Assignment a by the reference, against y. Differences come from roundings of the SwiGLU outputs and of y that fall
 * the other way: at most a few in a thousand, each 2^-8 of its element. */
cot_status_t judge_row(const bench_t *bench, kern_t *ref, const routing_t *routing, uint32_t a, double sums[2])
{
    const uint32_t hidden = bench->config.hidden,
                   slot = static_cast<uint32_t>(
                       std::upper_bound(
                           routing->begin.begin(), routing->begin.end(),
                           static_cast<uint32_t>(std::find(routing->order.begin(), routing->order.end(), a) -
                                                 routing->order.begin())) -
                       routing->begin.begin() - 1);
    std::vector<uint16_t> ffn[3], x(hidden), want(hidden), got(hidden);
    COT_TRY(copy_slot(bench, slot, ffn));
    KERN_CUDA_TRY(cudaMemcpy(x.data(), bench->x + static_cast<size_t>(routing->row[a]) * hidden, 2 * hidden,
                             cudaMemcpyDeviceToHost));
    KERN_CUDA_TRY(
        cudaMemcpy(got.data(), bench->y + static_cast<size_t>(a) * hidden, 2 * hidden, cudaMemcpyDeviceToHost));
    const kern_ffn_weights_t weights = {
        .gate = {.data = ffn[0].data(), .dtype = KERN_BF16, .rows = bench->width, .cols = hidden, .owned = NULL},
        .up = {.data = ffn[1].data(), .dtype = KERN_BF16, .rows = bench->width, .cols = hidden, .owned = NULL},
        .down = {.data = ffn[2].data(), .dtype = KERN_BF16, .rows = hidden, .cols = bench->width, .owned = NULL}};
    float scale;
    const kern_mlp_args_t args = {
        .ffn = &weights, .gate = NULL, .rows = 1, .normed = x.data(), .y = want.data(), .scale = &scale};
    COT_TRY(kern_ref.mlp(ref, &args));
    for (uint32_t i = 0; i < hidden; i++) {
        const double w = kern_bf16_to_float(want[i]), g = kern_bf16_to_float(got[i]);
        sums[0] += (g - w) * (g - w);
        sums[1] += w * w;
    }
    return COT_OK;
}

cot_status_t judge(const bench_t *bench, const routing_t *routing, double *off_out)
{
    kern_t *ref;
    double sums[2] = {0, 0};
    const double work = 3.0 * bench->config.hidden * bench->width;
    const uint32_t count = static_cast<uint32_t>(routing->row.size());
    const uint32_t samples = std::min(count, static_cast<uint32_t>(std::max(2.0, std::min(64.0, 6e7 / work))));
    kern_config_t config = bench->config;
    config.vocab = 16;
    COT_TRY(kern_ref.create(&config, &ref));
    cot_status_t status = COT_OK;
    for (uint32_t i = 0; status == COT_OK && i < samples; i++)
        status = judge_row(bench, ref, routing, static_cast<uint32_t>(static_cast<uint64_t>(i) * count / samples),
                           sums);
    kern_ref.destroy(ref);
    *off_out = sums[1] > 0 ? sqrt(sums[0] / sums[1]) : 0;
    return status;
}

cot_status_t run_form(bench_t *bench, kern_cuda_form_t form, uint32_t draw, uint16_t *y)
{
    uint16_t *kept = bench->y;
    COT_TRY(kern_cuda_force(bench->kern, form));
    COT_TRY(lab_poison(bench->lab, y, static_cast<size_t>(bench->max_assignments) * bench->config.hidden * 2));
    bench->y = y;
    cot_status_t status = launch(bench, draw);
    bench->y = kept;
    COT_TRY(status);
    KERN_CUDA_TRY(cudaStreamSynchronize(bench->lab->stream));
    return kern_cuda_force(bench->kern, KERN_FORM_AUTO);
}

/* Row a alone: routing of one assignment, which writes row 0 of `other`. */
cot_status_t alone(bench_t *bench, const routing_t *routing, uint32_t a, uint64_t *differing)
{
    const size_t hidden = bench->config.hidden;
    const uint32_t position = static_cast<uint32_t>(std::find(routing->order.begin(), routing->order.end(), a) -
                                                    routing->order.begin());
    uint32_t slot = 0;
    while (routing->begin[slot + 1] <= position) slot++;
    routing_t kept = bench->routing[DRAWS - 1];
    routing_t *single = &bench->routing[DRAWS - 1];
    COT_TRY(make_routing(bench, single, {{slot, routing->row[a]}}));
    cot_status_t status = run_form(bench, KERN_FORM_AUTO, DRAWS - 1, bench->other);
    uint64_t found = 0;
    if (status == COT_OK) status = lab_differing(bench->lab, bench->other, bench->y + a * hidden, hidden * 2, &found);
    *differing += found;
    COT_TRY(status);
    pairs_t pairs;
    for (size_t i = 0; i < kept.row.size(); i++) pairs.push_back({0, kept.row[i]});
    for (uint32_t s = 0; s < bench->slots; s++)
        for (uint32_t p = kept.begin[s]; p < kept.begin[s + 1]; p++) pairs[kept.order[p]].first = s;
    return make_routing(bench, single, pairs);
}

cot_status_t check(bench_t *bench)
{
    lab_t *lab = bench->lab;
    const routing_t *routing = &bench->routing[0];
    const size_t bytes = static_cast<size_t>(bench->max_assignments) * bench->config.hidden * 2;
    const kern_cuda_form_t forms[] = {KERN_FORM_MMA, KERN_FORM_WGMMA_MANY, KERN_FORM_WGMMA_FEW};
    uint64_t differing[4] = {};
    double off = 0;
    const uint32_t most = bench->kern->major == 9 ? 3 : 1;
    uint32_t fullest = 0;
    for (uint32_t s = 0; s < bench->slots; s++) fullest = std::max(fullest, routing->begin[s + 1] - routing->begin[s]);
    COT_TRY(run_form(bench, KERN_FORM_AUTO, 0, bench->y));
    for (uint32_t f = 0; f < most; f++) {
        if (forms[f] == KERN_FORM_WGMMA_FEW && fullest > 256) continue;
        COT_TRY(run_form(bench, forms[f], 0, bench->other));
        COT_TRY(lab_differing(lab, bench->y, bench->other, bytes, &differing[f]));
    }
    const uint32_t count = static_cast<uint32_t>(routing->row.size());
    for (uint32_t i = 0; i < 3 && count > 0; i++)
        COT_TRY(alone(bench, routing, static_cast<uint32_t>(lab_next(lab) % count), &differing[3]));
    if (count > 0) COT_TRY(judge(bench, routing, &off));
    if (!(off < 4e-3)) lab_wrong(lab, "off the reference by %.3g of its size", off);
    for (int i = 0; i < 4; i++)
        if (differing[i] > 0)
            lab_wrong(lab, "%llu words differ: chosen against %s", static_cast<unsigned long long>(differing[i]),
                      i == 0   ? "mma.sync"
                      : i == 1 ? "many rows"
                      : i == 2 ? "few rows"
                               : "alone");
    LAB_RECORD(lab, {"off_ref", off}, {"mma_differ", double(differing[0])}, {"many_differ", double(differing[1])},
               {"few_differ", double(differing[2])}, {"alone_differ", double(differing[3])});
    return COT_OK;
}

/* ---- times ---- */

cot_status_t time_form(bench_t *bench, kern_cuda_form_t form, double *microseconds)
{
    COT_TRY(kern_cuda_force(bench->kern, form));
    const lab_timing_t timing = {.launch = launch, .context = bench, .rounds = bench->rounds, .milliseconds = 25};
    cot_status_t status = lab_time(bench->lab, &timing, microseconds);
    if (status == COT_OK) status = kern_cuda_force(bench->kern, KERN_FORM_AUTO);
    return status;
}

cot_status_t measure(bench_t *bench, counts_t counts)
{
    lab_t *lab = bench->lab;
    const double expert = 6.0 * bench->config.hidden * bench->width, row_bytes = 2.0 * bench->config.hidden;
    double bytes = 0, flops = 0, auto_us = 0, few_us = NAN, many_us = NAN, mma_us = NAN, most = 0;
    for (uint32_t d = 0; d < bench->rounds; d++) {
        const routing_t *routing = &bench->routing[d];
        const double rows = static_cast<double>(routing->row.size());
        bytes += routing->active * expert + (routing->unique_rows + rows) * row_bytes;
        flops += rows * expert;
        for (uint32_t s = 0; s < bench->slots; s++)
            most = std::max(most, double(routing->begin[s + 1] - routing->begin[s]));
    }
    bytes /= bench->rounds;
    flops /= bench->rounds;
    COT_TRY(time_form(bench, KERN_FORM_AUTO, &auto_us));
    if (bench->kern->major == 9 && most <= 256) COT_TRY(time_form(bench, KERN_FORM_WGMMA_FEW, &few_us));
    if (bench->kern->major == 9 && counts != EIGHT) COT_TRY(time_form(bench, KERN_FORM_WGMMA_MANY, &many_us));
    if (flops < 1e11) COT_TRY(time_form(bench, KERN_FORM_MMA, &mma_us));
    LAB_RECORD(lab, {"us", auto_us}, {"of_read", bytes / auto_us * 1e-3 / lab->read_gbs},
               {"TFLOP/s", flops / auto_us * 1e-6}, {"few_us", few_us}, {"many_us", many_us}, {"mma_us", mma_us});
    return COT_OK;
}

/* Two strided-batched products at equal counts, without SwiGLU. */
struct yardstick_t {
    cudaStream_t stream;
    lab_blas_plan_t *plan[2];
    lab_blas_t product[2];
};

cot_status_t launch_yardstick(void *context, uint32_t)
{
    const yardstick_t *on = static_cast<const yardstick_t *>(context);
    COT_TRY(lab_blas_run(on->plan[0], &on->product[0], on->stream));
    return lab_blas_run(on->plan[1], &on->product[1], on->stream);
}

cot_status_t yardstick(bench_t *bench, uint32_t rows)
{
    lab_t *lab = bench->lab;
    if (rows == 0 || !lab_case(lab, "experts/equal/%u cublaslt", rows)) return COT_OK;
    const uint32_t hidden = bench->config.hidden, width = bench->width, slots = bench->slots;
    void *x = lab_device(lab, 2ULL * slots * rows * hidden), *h = lab_device(lab, 4ULL * slots * rows * width);
    if (x == NULL || h == NULL) return COT_ERR_NO_MEMORY;
    COT_TRY(lab_random_bf16(lab, x, static_cast<size_t>(slots) * rows * hidden, 1));
    COT_TRY(lab_random_bf16(lab, h, 2ULL * slots * rows * width, 1));
    yardstick_t on = {.stream = lab->stream,
                      .plan = {},
                      .product = {{.m = rows,
                                   .n = 2 * width,
                                   .k = hidden,
                                   .batch = slots,
                                   .x = x,
                                   .w = bench->bank->gate_up,
                                   .out = h,
                                   .out_f32 = false},
                                  {.m = rows,
                                   .n = hidden,
                                   .k = width,
                                   .batch = slots,
                                   .x = h,
                                   .w = bench->bank->down,
                                   .out = x,
                                   .out_f32 = false}}};
    double microseconds = 0;
    cot_status_t status = lab_blas_create(lab, &on.product[0], false, 0, &on.plan[0]);
    if (status == COT_OK) status = lab_blas_create(lab, &on.product[1], false, 0, &on.plan[1]);
    const lab_timing_t timing = {.launch = launch_yardstick, .context = &on, .rounds = 2, .milliseconds = 25};
    if (status == COT_OK) status = lab_time(lab, &timing, &microseconds);
    lab_blas_destroy(on.plan[0]);
    lab_blas_destroy(on.plan[1]);
    COT_TRY(status);
    const double flops = 6.0 * slots * rows * hidden * width;
    LAB_RECORD(lab, {"us", microseconds}, {"TFLOP/s", flops / microseconds * 1e-6},
               {"of_read", 6.0 * slots * hidden * width / microseconds * 1e-3 / lab->read_gbs});
    lab->buffers -= 2;
    cudaFree(x);
    cudaFree(h);
    return COT_OK;
}

/* ---- the stage ---- */

cot_status_t run_counts(bench_t *bench, counts_t counts, uint32_t mean)
{
    lab_t *lab = bench->lab;
    bench->rounds = counts == EIGHT ? DRAWS : counts == EQUAL ? 2 : 4;
    for (uint32_t d = 0; d < DRAWS; d++)
        COT_TRY(make_routing(bench, &bench->routing[d], draw_pairs(bench, counts, mean, d)));
    if (!lab->timing_only && lab_case(lab, "experts/%s/%u check", COUNTS[counts], mean)) COT_TRY(check(bench));
    if (!lab->check_only && lab_case(lab, "experts/%s/%u", COUNTS[counts], mean)) COT_TRY(measure(bench, counts));
    return COT_OK;
}

cot_status_t run_cases(bench_t *bench)
{
    lab_t *lab = bench->lab;
    if (!lab->timing_only) { /* the ordinary extremes: none, one expert alone */
        COT_TRY(run_counts(bench, EQUAL, 0));
        COT_TRY(run_counts(bench, ONE_EXPERT, 1));
    }
    for (uint32_t r = 0; r < lab->rows_count; r++) {
        const uint32_t mean = lab->rows[r];
        if (mean == 0) {
            COT_TRY(run_counts(bench, EIGHT, 0));
            continue;
        }
        COT_TRY(run_counts(bench, DRAWN, mean));
        COT_TRY(run_counts(bench, EQUAL, mean));
        if (!lab->check_only) COT_TRY(yardstick(bench, mean));
        COT_TRY(run_counts(bench, ZIPF, mean));
    }
    return COT_OK;
}

cot_status_t fill_bench(bench_t *bench)
{
    lab_t *lab = bench->lab;
    const size_t hidden = bench->config.hidden, elements = 2ULL * bench->width * hidden * bench->slots;
    COT_TRY(kern_cuda.create(&bench->config, &bench->kern));
    COT_TRY(kern_bank_create(bench->kern, bench->slots, bench->config.hidden, bench->width, &bench->bank));
    COT_TRY(lab_random_bf16(lab, bench->bank->gate_up, elements, 3.0f / sqrtf(static_cast<float>(hidden))));
    COT_TRY(lab_random_bf16(lab, bench->bank->down, elements / 2, 3.0f / sqrtf(static_cast<float>(bench->width))));
    bench->x = static_cast<uint16_t *>(lab_device(lab, bench->max_tokens * hidden * 2));
    bench->y = static_cast<uint16_t *>(lab_device(lab, bench->max_assignments * hidden * 2));
    bench->other = static_cast<uint16_t *>(lab_device(lab, bench->max_assignments * hidden * 2));
    if (bench->x == NULL || bench->y == NULL || bench->other == NULL) return COT_ERR_NO_MEMORY;
    for (routing_t &routing : bench->routing) {
        routing.device_row = static_cast<uint32_t *>(lab_device(lab, bench->max_assignments * 4ULL));
        routing.device_order = static_cast<uint32_t *>(lab_device(lab, bench->max_assignments * 4ULL));
        routing.device_begin = static_cast<uint32_t *>(lab_device(lab, (bench->slots + 1) * 4ULL));
        if (routing.device_row == NULL || routing.device_order == NULL || routing.device_begin == NULL)
            return COT_ERR_NO_MEMORY;
    }
    return lab_random_bf16(lab, bench->x, bench->max_tokens * hidden, 1);
}

} // namespace

cot_status_t lab_stage_experts(lab_t *lab)
{
    COT_TRY(lab_limits(lab));
    const uint32_t most = lab->rows_count > 0 ? *std::max_element(lab->rows, lab->rows + lab->rows_count) : 1;
    bench_t bench = {};
    bench.lab = lab;
    bench.slots = std::max(1U, lab->config.experts / 2);
    bench.width = lab->config.expert_width;
    bench.max_assignments = bench.slots * std::max(most, 8U) * 5 / 4 + 1024;
    bench.max_tokens = std::max(most, 8U) * lab->config.experts / lab->config.top_k + 16;
    bench.config = lab_kern_config(lab, bench.max_tokens, bench.max_assignments);
    cot_status_t status = fill_bench(&bench);
    if (status == COT_OK) status = run_cases(&bench);
    cudaDeviceSynchronize();
    kern_bank_destroy(bench.bank);
    kern_cuda.destroy(bench.kern);
    return status;
}
