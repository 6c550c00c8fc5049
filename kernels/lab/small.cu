/* coterie-lab route, sort, combine, rows: the stages between the products, against the reference (integers equal, floats
 * within bounds derived below), bits of a row alone and in a batch, padded rows, NaN; times in a chain of a graph. */
#include "kernels/lab/lab.cuh"

#include <algorithm>
#include <math.h>
#include <string.h>
#include <vector>

typedef std::vector<float> floats_t;
typedef std::vector<uint16_t> halves_t;
typedef std::vector<int32_t> ints_t;

static float draw(lab_t *lab)
{
    return static_cast<float>(static_cast<int32_t>(lab_next(lab) >> 32)) * 0x1p-31f;
}

static floats_t draw_floats(lab_t *lab, size_t count, float scale, float offset)
{
    floats_t made(count);
    for (float &x : made) x = draw(lab) * scale + offset;
    return made;
}

static halves_t draw_halves(lab_t *lab, size_t count, float scale)
{
    halves_t made(count);
    for (uint16_t &x : made) x = kern_float_to_bf16(draw(lab) * scale);
    return made;
}

/* A copy on the device until lab_release. */
template <typename T> static T *upload(lab_t *lab, const std::vector<T> &host)
{
    T *device = static_cast<T *>(lab_device(lab, host.size() * sizeof(T)));
    if (device != NULL) cudaMemcpy(device, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice);
    return device;
}

template <typename T> static std::vector<T> download(lab_t *lab, const T *device, size_t count)
{
    std::vector<T> host(count);
    cudaStreamSynchronize(lab->stream);
    cudaMemcpy(host.data(), device, count * sizeof(T), cudaMemcpyDeviceToHost);
    return host;
}

/* The two backends. */
struct pair_t {
    kern_t *cuda, *ref;
};

static cot_status_t make_pair(lab_t *lab, uint32_t rows, pair_t *pair)
{
    const kern_config_t config = lab_kern_config(lab, rows, rows * std::max(lab->config.top_k, 1U));
    COT_TRY(kern_cuda.create(&config, &pair->cuda));
    return kern_ref.create(&config, &pair->ref);
}

static void destroy_pair(pair_t *pair)
{
    kern_cuda.destroy(pair->cuda);
    kern_ref.destroy(pair->ref);
}

struct chain_t {
    kern_t *kern;
    kern_route_args_t route;
    kern_sort_args_t sort;
    kern_combine_args_t combine;
    kern_attn_in_args_t attn_in;
    kern_attn_out_args_t attn_out;
    int stage;
};

static cot_status_t launch_chain(void *context, uint32_t round)
{
    (void)round;
    const chain_t *chain = static_cast<const chain_t *>(context);
    switch (chain->stage) {
    case 0: return kern_cuda.route(chain->kern, &chain->route);
    case 1: return kern_cuda.sort(chain->kern, &chain->sort);
    case 2: return kern_cuda.combine(chain->kern, &chain->combine);
    case 3: return kern_cuda_finish_qkv(chain->kern, &chain->attn_in);
    default: return kern_cuda_residual(chain->kern, &chain->attn_out);
    }
}

static cot_status_t time_chain(lab_t *lab, chain_t *chain, double *microseconds_out)
{
    const lab_timing_t timing = {launch_chain, chain, 50, 20};
    return lab_time(lab, &timing, microseconds_out);
}

/* ---- route ---- */

struct routed_t {
    ints_t expert;
    floats_t weight;
};

static cot_status_t run_route(lab_t *lab, kern_t *kern, const kern_matrix_t *gate, const halves_t &x,
                              const std::vector<uint32_t> &row_run, routed_t *out)
{
    const uint32_t top_k = lab->config.top_k;
    kern_route_args_t args = {};
    args.gate = gate;
    args.rows = static_cast<uint32_t>(row_run.size());
    args.normed = upload(lab, x);
    args.row_run = upload(lab, row_run);
    args.expert = static_cast<int32_t *>(lab_device(lab, args.rows * top_k * 4ULL));
    args.weight = static_cast<float *>(lab_device(lab, args.rows * top_k * 4ULL));
    COT_TRY(lab_poison(lab, args.expert, args.rows * top_k * 4ULL));
    COT_TRY(lab_poison(lab, args.weight, args.rows * top_k * 4ULL));
    COT_TRY(kern_cuda.route(kern, &args));
    out->expert = download(lab, args.expert, args.rows * top_k);
    out->weight = download(lab, args.weight, args.rows * top_k);
    return COT_OK;
}

/* Logits of the two differ by the rounding of a sum of H products, at most H 2^-24 sum |x w| here (fp32 against double);
 * where the reference's logits are further apart than twice that, the choice is the same; a weight moves by as much. */
static void compare_route(lab_t *lab, const routed_t &got, const routed_t &ref, const ints_t &skip)
{
    const uint32_t top_k = lab->config.top_k;
    size_t swapped = 0, rows = 0;
    double worst = 0;
    for (size_t t = 0; t < skip.size(); t++) {
        if (skip[t]) continue;
        rows++;
        bool same = true;
        for (uint32_t k = 0; k < top_k; k++) same = same && got.expert[t * top_k + k] == ref.expert[t * top_k + k];
        swapped += !same;
        for (uint32_t k = 0; same && k < top_k; k++)
            worst = fmax(worst, fabs(got.weight[t * top_k + k] / ref.weight[t * top_k + k] - 1.0));
    }
    if (swapped * 100 > rows || !(worst < 1e-4)) lab_wrong(lab, "%zu of %zu rows chose otherwise, weights off by %.3g", swapped, rows, worst);
    LAB_RECORD(lab, {"rows", static_cast<double>(rows)}, {"other choice", static_cast<double>(swapped)}, {"relative error", worst});
}

static void expect_equal(lab_t *lab, const char *what, const void *a, const void *b, size_t bytes)
{
    if (memcmp(a, b, bytes) != 0)
        lab_wrong(lab, "%s differs", what);
    else
        LAB_RECORD(lab, {"differing", 0.0});
}

static cot_status_t check_route(lab_t *lab, const pair_t *pair, const floats_t &weights)
{
    enum { ROWS = 300 };
    const uint32_t hidden = lab->config.hidden, experts = lab->config.experts, top_k = lab->config.top_k;
    kern_matrix_t gate, host_gate;
    COT_TRY(kern_cuda.matrix_create(pair->cuda, weights.data(), KERN_F32, experts, hidden, &gate));
    COT_TRY(kern_ref.matrix_create(pair->ref, weights.data(), KERN_F32, experts, hidden, &host_gate));
    halves_t x = draw_halves(lab, static_cast<size_t>(ROWS) * hidden, 1.0f);
    ints_t skip(ROWS, 0);
    std::vector<uint32_t> row_run(ROWS, 0);
    x[7 * hidden + 3] = 0x7fc0; /* a NaN row, two equal ones, padded ones */
    skip[7] = 1;
    for (uint32_t t : {5U, 130U, 299U}) {
        row_run[t] = KERN_NO_RUN;
        skip[t] = 1;
    }
    routed_t got, few, ref = {ints_t(ROWS * top_k), floats_t(ROWS * top_k)};
    COT_TRY(run_route(lab, pair->cuda, &gate, x, row_run, &got));
    if (lab_case(lab, "route %u x %u against ref", ROWS, experts)) {
        kern_route_args_t args = {};
        args.gate = &host_gate;
        args.rows = ROWS;
        args.normed = x.data();
        args.expert = ref.expert.data();
        args.weight = ref.weight.data();
        COT_TRY(kern_ref.route(pair->ref, &args));
        compare_route(lab, got, ref, skip);
    }
    if (lab_case(lab, "route padded and NaN rows")) {
        bool right = true;
        for (uint32_t k = 0; k < top_k; k++)
            for (uint32_t t : {5U, 130U, 299U}) right = right && got.expert[t * top_k + k] == -1 && got.weight[t * top_k + k] == 0;
        for (uint32_t k = 0; k < top_k; k++)
            for (uint32_t j = 0; j < k; j++) right = right && got.expert[7 * top_k + j] != got.expert[7 * top_k + k];
        for (uint32_t k = 0; k < top_k; k++) right = right && got.expert[7 * top_k + k] >= 0 && got.expert[7 * top_k + k] < (int32_t)experts;
        if (!right) lab_wrong(lab, "a padded row has an expert, or a NaN row no valid ones");
        else LAB_RECORD(lab, {"right", 1.0});
    }
    for (uint32_t rows : {1U, 17U, 64U})
        if (lab_case(lab, "route bits of %u rows in 300", rows)) {
            COT_TRY(run_route(lab, pair->cuda, &gate, halves_t(x.begin() + 100 * hidden, x.begin() + (100 + rows) * hidden),
                              std::vector<uint32_t>(row_run.begin() + 100, row_run.begin() + 100 + rows), &few));
            const bool same = memcmp(&few.expert[0], &got.expert[100 * top_k], 4ULL * rows * top_k) == 0;
            if (!same && !(rows > 30)) lab_wrong(lab, "experts differ");
            expect_equal(lab, "weights", few.weight.data(), &got.weight[100 * top_k], std::min(rows, 30U) * 4ULL * top_k);
        }
    kern_cuda.matrix_destroy(pair->cuda, &gate);
    kern_ref.matrix_destroy(pair->ref, &host_gate);
    return COT_OK;
}

cot_status_t lab_stage_route(lab_t *lab)
{
    const uint32_t hidden = lab->config.hidden, experts = lab->config.experts;
    pair_t pair;
    COT_TRY(make_pair(lab, 4096, &pair));
    const floats_t weights = draw_floats(lab, static_cast<size_t>(experts) * hidden, 0.1f, 0.0f);
    if (!lab->timing_only) COT_TRY(check_route(lab, &pair, weights));
    chain_t chain = {};
    chain.kern = pair.cuda;
    kern_matrix_t gate;
    COT_TRY(kern_cuda.matrix_create(pair.cuda, weights.data(), KERN_F32, experts, hidden, &gate));
    chain.route.gate = &gate;
    void *x = lab_device(lab, 4096ULL * hidden * 2);
    COT_TRY(lab_random_bf16(lab, x, 4096ULL * hidden, 1.0f));
    chain.route.normed = x;
    chain.route.expert = static_cast<int32_t *>(lab_device(lab, 4096 * 32 * 4));
    chain.route.weight = static_cast<float *>(lab_device(lab, 4096 * 32 * 4));
    for (uint32_t rows : {1U, 64U, 256U, 1024U, 4096U})
        if (!lab->check_only && lab_case(lab, "route %u rows, %u experts", rows, experts)) {
            double us;
            chain.route.rows = rows;
            COT_TRY(time_chain(lab, &chain, &us));
            LAB_RECORD(lab, {"us", us});
        }
    kern_cuda.matrix_destroy(pair.cuda, &gate);
    destroy_pair(&pair);
    return COT_OK;
}

/* ---- sort ---- */

static cot_status_t check_sort(lab_t *lab, kern_t *kern, uint32_t count, uint32_t slots, int kind)
{
    ints_t slot(count);
    for (int32_t &s : slot) {
        const uint32_t drawn = static_cast<uint32_t>(lab_next(lab) % (2 * slots));
        s = kind == 1 ? 3 % static_cast<int32_t>(slots) : drawn < slots ? static_cast<int32_t>(drawn) : kind == 2 ? 0 : -1;
    }
    std::vector<uint32_t> order(count + 1, 0xffffffffU), begin(slots + 1), got_order, got_begin;
    kern_sort_args_t args = {count, slots, slot.data(), order.data(), begin.data()};
    COT_TRY(kern_ref.sort(NULL, &args));
    const std::vector<uint32_t> poisoned(count + 1, 0xffffffffU);
    args.slot = upload(lab, slot);
    args.order = upload(lab, poisoned);
    args.slot_begin = static_cast<uint32_t *>(lab_device(lab, (slots + 1) * 4));
    COT_TRY(kern_cuda.sort(kern, &args));
    got_order = download(lab, args.order, count + 1);
    got_begin = download(lab, args.slot_begin, slots + 1);
    if (got_begin != begin || got_order != order) lab_wrong(lab, "order or slot_begin differs from the reference");
    else LAB_RECORD(lab, {"differing", 0.0});
    return COT_OK;
}

cot_status_t lab_stage_sort(lab_t *lab)
{
    pair_t pair;
    COT_TRY(make_pair(lab, 4096, &pair));
    const uint32_t most = 4096 * lab->config.top_k;
    static const uint32_t SIZES[][2] = {{0, 4}, {1, 1}, {31, 64}, {512, 128}, {2048, 64}, {2049, 64}, {32768, 128}, {30001, 384}};
    for (const auto &size : SIZES)
        for (int kind = 0; kind < 3 && !lab->timing_only; kind++)
            if (size[0] <= most && lab_case(lab, "sort %u by %u kind %d", size[0], size[1], kind))
                COT_TRY(check_sort(lab, pair.cuda, size[0], size[1], kind));
    for (uint32_t rows : {1U, 64U, 256U, 4096U}) {
        const uint32_t count = rows * lab->config.top_k, slots = lab->config.experts;
        if (lab->check_only || !lab_case(lab, "sort %u assignments by %u", count, slots)) continue;
        ints_t slot(count);
        for (int32_t &s : slot) s = static_cast<int32_t>(lab_next(lab) % slots);
        chain_t chain = {};
        chain.kern = pair.cuda;
        chain.stage = 1;
        chain.sort = {count, slots, upload(lab, slot), static_cast<uint32_t *>(lab_device(lab, count * 4ULL)),
                      static_cast<uint32_t *>(lab_device(lab, (slots + 1) * 4ULL))};
        double us;
        COT_TRY(time_chain(lab, &chain, &us));
        LAB_RECORD(lab, {"us", us});
    }
    destroy_pair(&pair);
    return COT_OK;
}

/* ---- rows: combine, the residual of attn_out, norm ---- */

/* x within 4 ulp of its terms' size (K + 3 roundings of fp32 against double); a normed value within 2^-8 of itself (one
 * bf16 may be rounded the other way) plus what x's error brings. */
static void compare_rows(lab_t *lab, const floats_t &x, const floats_t &x_ref, const halves_t &normed, const halves_t &normed_ref)
{
    double worst = 0, worst_norm = 0;
    for (size_t i = 0; i < x.size(); i++) worst = fmax(worst, fabs(x[i] - x_ref[i]) / (0x1p-20 * (1 + fabs(x_ref[i]))));
    for (size_t i = 0; i < normed.size(); i++) {
        const double got = kern_bf16_to_float(normed[i]), ref = kern_bf16_to_float(normed_ref[i]);
        const double share = fabs(got - ref) / (0x1p-7 * fabs(ref) + 0x1p-20);
        worst_norm = share <= worst_norm ? worst_norm : share;
    }
    if (!(worst <= 1) || !(worst_norm <= 1)) lab_wrong(lab, "x at %.3g of its bound, normed at %.3g", worst, worst_norm);
    LAB_RECORD(lab, {"x, share of bound", worst}, {"normed, share of bound", worst_norm});
}

static cot_status_t check_combine(lab_t *lab, const pair_t *pair, uint32_t rows)
{
    const uint32_t hidden = lab->config.hidden, top_k = lab->config.top_k;
    const floats_t weight = draw_floats(lab, rows * top_k, 0.1f, 0.125f), norm = draw_floats(lab, hidden, 0.5f, 1.0f);
    floats_t x = draw_floats(lab, static_cast<size_t>(rows) * hidden, 1.0f, 0.0f);
    const halves_t y = draw_halves(lab, static_cast<size_t>(rows) * top_k * hidden, 1.0f);
    const floats_t scale = draw_floats(lab, rows, 0.5f, 0.5f);
    const halves_t shared = draw_halves(lab, static_cast<size_t>(rows) * hidden, 1.0f);
    kern_combine_args_t args = {};
    args.rows = rows;
    args.top_k = top_k;
    args.weight = upload(lab, weight);
    args.y = upload(lab, y);
    args.shared = upload(lab, shared);
    args.scale = upload(lab, scale);
    args.x = upload(lab, x);
    args.next_norm = upload(lab, norm);
    args.next_normed = lab_device(lab, static_cast<size_t>(rows) * hidden * 2);
    COT_TRY(kern_cuda.combine(pair->cuda, &args));
    const floats_t got = download(lab, args.x, x.size());
    const halves_t got_normed = download(lab, static_cast<uint16_t *>(args.next_normed), x.size());
    halves_t normed(x.size());
    args.weight = weight.data();
    args.y = y.data();
    args.shared = shared.data();
    args.scale = scale.data();
    args.x = x.data();
    args.next_norm = norm.data();
    args.next_normed = normed.data();
    COT_TRY(kern_ref.combine(pair->ref, &args));
    compare_rows(lab, got, x, got_normed, normed);
    return COT_OK;
}

/* The residual alone: products that are known. */
static cot_status_t check_residual(lab_t *lab, const pair_t *pair, uint32_t rows)
{
    const uint32_t hidden = lab->config.hidden;
    const size_t size = static_cast<size_t>(rows) * hidden;
    const floats_t x = draw_floats(lab, size, 1.0f, 0.0f), segments = draw_floats(lab, 2 * size, 1.0f, 0.0f);
    const floats_t norm = draw_floats(lab, hidden, 0.5f, 1.0f);
    KERN_CUDA_TRY(cudaMemcpy(pair->cuda->wide, segments.data(), 2 * size * 4, cudaMemcpyHostToDevice));
    kern_attn_weights_t weights = {};
    weights.post_norm = upload(lab, norm);
    kern_attn_out_args_t args = {};
    args.weights = &weights;
    args.rows = rows;
    args.x = upload(lab, x);
    args.normed = lab_device(lab, size * 2);
    COT_TRY(kern_cuda_residual(pair->cuda, &args));
    floats_t wanted(size);
    halves_t normed(size);
    for (uint32_t t = 0; t < rows; t++) {
        double squares = 0;
        for (uint32_t i = 0; i < hidden; i++) {
            const size_t at = static_cast<size_t>(t) * hidden + i;
            wanted[at] = (x[at] + segments[at]) + segments[size + at];
            squares += static_cast<double>(wanted[at]) * wanted[at];
        }
        const double factor = 1 / sqrt(squares / hidden + lab->config.norm_eps);
        for (uint32_t i = 0; i < hidden; i++)
            normed[static_cast<size_t>(t) * hidden + i] =
                kern_float_to_bf16(static_cast<float>(wanted[static_cast<size_t>(t) * hidden + i] * factor * norm[i]));
    }
    compare_rows(lab, download(lab, args.x, size), wanted, download(lab, static_cast<uint16_t *>(args.normed), size), normed);
    return COT_OK;
}

/* ---- attn_in ---- */

/* Two runs, a padded row between them; blocks in reverse. */
enum { IN_ROWS = 6, IN_BLOCKS = 8 };

static cot_status_t make_projections(lab_t *lab, const kern_ops_t *ops, kern_t *kern, const floats_t &weights,
                                     kern_attn_weights_t *out)
{
    const uint32_t hidden = lab->config.hidden, q = lab->config.heads * lab->config.head_dim;
    const uint32_t kv = lab->config.kv_heads * lab->config.head_dim;
    const float *from = weights.data();
    COT_TRY(ops->matrix_create(kern, from, KERN_F32, q, hidden, &out->q));
    COT_TRY(ops->matrix_create(kern, from + static_cast<size_t>(q) * hidden, KERN_F32, kv, hidden, &out->k));
    return ops->matrix_create(kern, from + static_cast<size_t>(q + kv) * hidden, KERN_F32, kv, hidden, &out->v);
}

/* Q, K and V are sums of H products of values below 1 by weights below 0.05, normed, turned, and rounded to bf16: 2^-7 of the
 * largest value of a head covers a rounding the other way and the error of the sums. */
static void compare_in(lab_t *lab, const halves_t &got, const halves_t &wanted, const char *what)
{
    double worst = 0;
    size_t at = 0;
    for (size_t i = 0; i < got.size(); i++) {
        const double a = kern_bf16_to_float(got[i]), b = kern_bf16_to_float(wanted[i]);
        const double share = fabs(a - b) / (0x1p-7 * fabs(b) + 0x1p-10);
        if (share <= worst) continue; /* NaN is not */
        worst = share;
        at = i;
        if (!(share <= 1)) break;
    }
    if (!(worst <= 1))
        lab_wrong(lab, "%s %zu: %g, reference %g", what, at, kern_bf16_to_float(got[at]), kern_bf16_to_float(wanted[at]));
    LAB_RECORD(lab, {"share of bound", worst});
}

static cot_status_t check_attn_in(lab_t *lab, const pair_t *pair)
{
    const model_config_t *model = &lab->config;
    const uint32_t hidden = model->hidden, dim = model->head_dim, kv_heads = model->kv_heads, width = model->heads * dim;
    const floats_t weights = draw_floats(lab, static_cast<size_t>(width + 2 * kv_heads * dim) * hidden, 0.05f, 0.0f);
    const floats_t norm = draw_floats(lab, std::max(hidden, width), 0.5f, 1.0f);
    const floats_t x = draw_floats(lab, IN_ROWS * hidden, 1.0f, 0.0f);
    const std::vector<uint32_t> blocks = {7, 6, 5, 4, 3, 2, 1, 0}, row_run = {0, 0, 0, KERN_NO_RUN, 1, 1};
    const uint32_t *device_blocks = upload(lab, blocks);
    const size_t cache = 2ULL * IN_BLOCKS * kv_heads * KERN_KV_BLOCK * dim;
    kern_run_t runs[2] = {{0, 3, 14, device_blocks}, {4, 2, 31, device_blocks + 4}};
    kern_run_t *device_runs = static_cast<kern_run_t *>(lab_device(lab, sizeof(runs)));
    KERN_CUDA_TRY(cudaMemcpy(device_runs, runs, sizeof(runs), cudaMemcpyHostToDevice));
    kern_attn_weights_t device_weights = {}, host_weights = {};
    COT_TRY(make_projections(lab, &kern_cuda, pair->cuda, weights, &device_weights));
    COT_TRY(make_projections(lab, &kern_ref, pair->ref, weights, &host_weights));
    host_weights.input_norm = norm.data();
    device_weights.input_norm = upload(lab, norm);
    if (model->qk_norm != 0) {
        host_weights.q_norm = host_weights.k_norm = norm.data();
        device_weights.q_norm = device_weights.k_norm = device_weights.input_norm;
    }
    halves_t q(IN_ROWS * width, 0xffff), kv(cache, 0xffff), flat(cache, 0xffff);
    kern_kv_t host_kv = {kv.data(), IN_BLOCKS}, device_kv = {upload(lab, kv), IN_BLOCKS};
    kern_attn_in_args_t args = {};
    args.weights = &device_weights;
    args.rows = IN_ROWS;
    args.runs = 2;
    args.run = device_runs;
    args.row_run = upload(lab, row_run);
    args.x = upload(lab, x);
    args.q = upload(lab, q);
    args.kv = &device_kv;
    COT_TRY(kern_cuda.attn_in(pair->cuda, &args));
    const halves_t got_q = download(lab, static_cast<uint16_t *>(args.q), q.size());
    const halves_t got_kv = download(lab, static_cast<uint16_t *>(device_kv.data), cache);
    runs[0].blocks = blocks.data();
    runs[1].blocks = blocks.data() + 4;
    args.weights = &host_weights;
    args.run = runs;
    args.x = x.data();
    args.q = q.data();
    args.kv = &host_kv;
    COT_TRY(kern_ref.attn_in(pair->ref, &args));
    for (size_t head = 0; head < cache / (16 * dim); head++)
        for (uint32_t token = 0; token < 16; token++)
            for (uint32_t d = 0; d < dim; d++)
                flat[((head * (dim / 64) + d / 64) * 16 + token) * 64 + d % 64] = kv[(head * 16 + token) * dim + d];
    /* What neither writes stays 0xffff, a NaN: it must be the same words. */
    for (size_t i = 0; i < cache; i++)
        if ((got_kv[i] == 0xffff) != (flat[i] == 0xffff)) lab_wrong(lab, "word %zu of the cache: written by one alone", i);
    halves_t a = got_q, b = q;
    a.insert(a.end(), got_kv.begin(), got_kv.end());
    b.insert(b.end(), flat.begin(), flat.end());
    for (size_t i = 0; i < b.size(); i++)
        if (b[i] == 0xffff && a[i] == 0xffff) a[i] = b[i] = 0;
    compare_in(lab, a, b, "Q, K, V value");
    return COT_OK;
}

cot_status_t lab_stage_rows(lab_t *lab)
{
    pair_t pair;
    const uint32_t hidden = lab->config.hidden, top_k = lab->config.top_k;
    COT_TRY(make_pair(lab, 4096, &pair));
    if (!lab->timing_only && lab_case(lab, "combine 37 rows against ref")) COT_TRY(check_combine(lab, &pair, 37));
    if (!lab->timing_only && lab_case(lab, "residual and norm, 37 rows")) COT_TRY(check_residual(lab, &pair, 37));
    if (!lab->timing_only && lab_case(lab, "attn_in %d rows against ref", IN_ROWS)) COT_TRY(check_attn_in(lab, &pair));
    lab_release(lab);
    chain_t chain = {};
    chain.kern = pair.cuda;
    const size_t most = 4096ULL * hidden;
    kern_attn_weights_t weights = {};
    floats_t ones(std::max(hidden, 8192U), 1.0f);
    weights.post_norm = weights.q_norm = weights.k_norm = upload(lab, ones);
    chain.combine.top_k = top_k;
    chain.combine.weight = static_cast<float *>(lab_device(lab, 4096ULL * top_k * 4));
    chain.combine.y = lab_device(lab, most * top_k * 2);
    chain.attn_out.x = chain.combine.x = static_cast<float *>(lab_device(lab, most * 4));
    chain.combine.next_norm = weights.post_norm;
    chain.attn_out.normed = chain.combine.next_normed = lab_device(lab, most * 2);
    chain.attn_out.weights = chain.attn_in.weights = &weights;
    COT_TRY(lab_random_f32(lab, chain.combine.x, most, 1.0f));
    COT_TRY(lab_random_f32(lab, const_cast<float *>(chain.combine.weight), 4096ULL * top_k, 0.01f));
    COT_TRY(lab_random_bf16(lab, const_cast<void *>(chain.combine.y), most * top_k, 1.0f));
    for (uint32_t rows : {1U, 64U, 256U, 4096U})
        for (int stage : {2, 4}) {
            if (lab->check_only || !lab_case(lab, "%s %u rows", stage == 2 ? "combine with norm" : "residual and norm", rows)) continue;
            double us;
            chain.stage = stage;
            chain.combine.rows = chain.attn_out.rows = rows;
            COT_TRY(time_chain(lab, &chain, &us));
            const double bytes = static_cast<double>(rows) * hidden * (stage == 2 ? 2.0 * top_k + 10 : 18.0);
            LAB_RECORD(lab, {"us", us}, {"GB/s", bytes / us * 1e-3});
        }
    destroy_pair(&pair);
    return COT_OK;
}
