/* coterie-lab attention: paged attention against the reference, bits of every form and chunking, and time against the
 * read rate of its keys and values (decode) or the dense rate (prefill, causal FLOPs). */
#include "kernels/cuda/attention.cuh"
#include "kernels/lab/lab.cuh"

#include <algorithm>
#include <math.h>
#include <vector>

using namespace kcu;

/* A sequence's part in a step: `rows` new tokens after `position` old ones. */
struct part_t {
    uint32_t rows, position;
};

struct shape_t {
    const char *name;
    uint32_t heads, kv_heads, head_dim, window;
};

/* Everything of one step on the device, and the backend that serves it. */
struct world_t {
    lab_t *lab = NULL;
    kern_t *kern = NULL;
    shape_t shape = {};
    std::vector<part_t> parts;
    std::vector<uint32_t> table_begin, table; /* block ids of each part */
    uint32_t rows = 0, blocks = 0;
    std::vector<uint16_t> q, kv; /* host copies, only for checks */
    uint16_t *device_q = NULL, *device_kv = NULL, *device_out = NULL;
    uint32_t *device_table = NULL;
    kern_attn_weights_t weights = {};
    kern_kv_t cache = {};
};

/* nvcc does not take a vector of a struct without a name. */
struct named_run_t : kern_run_t {
};
typedef std::vector<named_run_t> runs_t;

static size_t head_row(const world_t &world)
{
    return static_cast<size_t>(world.shape.heads) * world.shape.head_dim;
}

static size_t block_words(const shape_t &shape)
{
    return 2ULL * shape.kv_heads * KERN_KV_BLOCK * shape.head_dim;
}

static cot_status_t make_kern(world_t &world, uint32_t max_rows, uint32_t max_context)
{
    kern_config_t config = lab_kern_config(world.lab, max_rows, 1);
    const std::vector<double> inv_freq(world.shape.head_dim / 2, 1.0);
    config.heads = world.shape.heads;
    config.kv_heads = world.shape.kv_heads;
    config.head_dim = world.shape.head_dim;
    config.max_context = max_context;
    config.inv_freq = inv_freq.data();
    return kern_cuda.create(&config, &world.kern);
}

/* Blocks of all parts, in random order, and rows; memory for them. */
static cot_status_t make_world(world_t &world)
{
    uint32_t blocks = 0, context = 1, most = 1;
    for (const part_t &part : world.parts) {
        world.table_begin.push_back(blocks);
        blocks += (part.position + part.rows + KERN_KV_BLOCK - 1) / KERN_KV_BLOCK;
        world.rows += part.rows;
        context = std::max(context, part.position + part.rows);
        most = std::max(most, part.rows);
    }
    world.blocks = blocks;
    for (uint32_t b = 0; b < blocks; b++) world.table.push_back(b);
    for (uint32_t b = blocks; b > 1; b--) std::swap(world.table[b - 1], world.table[lab_next(world.lab) % b]);
    COT_TRY(make_kern(world, world.rows, context));
    lab_t *lab = world.lab;
    world.device_q = static_cast<uint16_t *>(lab_device(lab, world.rows * head_row(world) * 2));
    world.device_out = static_cast<uint16_t *>(lab_device(lab, world.rows * head_row(world) * 2));
    world.device_kv = static_cast<uint16_t *>(lab_device(lab, blocks * block_words(world.shape) * 2));
    world.device_table = static_cast<uint32_t *>(lab_device(lab, blocks * sizeof(uint32_t)));
    if (world.device_table == NULL || world.device_kv == NULL) return COT_ERR_NO_MEMORY;
    KERN_CUDA_TRY(cudaMemcpy(world.device_table, world.table.data(), blocks * 4ULL, cudaMemcpyHostToDevice));
    world.weights.window = world.shape.window;
    world.cache = {world.device_kv, blocks};
    return COT_OK;
}

/* Host copies with NaN wherever no token lies: what is past a sequence's end must not matter. */
static cot_status_t fill_checked(world_t &world)
{
    const shape_t &shape = world.shape;
    world.q.resize(world.rows * head_row(world));
    world.kv.assign(world.blocks * block_words(shape), 0x7fff);
    auto draw = [&](float scale) {
        const float unit = static_cast<float>(static_cast<int32_t>(lab_next(world.lab) >> 32)) * 0x1p-31f;
        return kern_float_to_bf16(unit * scale);
    };
    for (uint16_t &q : world.q) q = draw(8.0f);
    for (size_t p = 0; p < world.parts.size(); p++)
        for (uint32_t token = 0; token < world.parts[p].position + world.parts[p].rows; token++) {
            uint16_t *block = &world.kv[world.table[world.table_begin[p] + token / 16] * block_words(shape)];
            for (uint32_t part = 0; part < 2 * shape.kv_heads * (shape.head_dim / 64); part++)
                for (uint32_t c = 0; c < 64; c++) block[(part * 16 + token % 16) * 64 + c] = draw(1.0f);
        }
    KERN_CUDA_TRY(cudaMemcpy(world.device_q, world.q.data(), world.q.size() * 2, cudaMemcpyHostToDevice));
    KERN_CUDA_TRY(cudaMemcpy(world.device_kv, world.kv.data(), world.kv.size() * 2, cudaMemcpyHostToDevice));
    return COT_OK;
}

/* The parts as runs, each cut into chunks of at most `chunk` rows; a padded run after every third. `base`: the table that
 * the runs point into. */
static runs_t make_runs(const world_t &world, uint32_t chunk, const uint32_t *base)
{
    runs_t runs;
    uint32_t row = 0;
    for (size_t p = 0; p < world.parts.size(); p++) {
        const part_t &part = world.parts[p];
        for (uint32_t at = 0; at < part.rows; at += chunk) {
            const uint32_t rows = std::min(chunk, part.rows - at);
            runs.push_back({{row + at, rows, part.position + at, base + world.table_begin[p]}});
            if (runs.size() % 4 == 3) runs.push_back({{0, 0, 0, base}});
        }
        row += part.rows;
    }
    return runs;
}

enum form_t { STAGE, FEW, WHOLE, MANY, WGMMA, FORMS };
static const char *const FORM_NAMES[] = {"stage", "few", "few, unsplit", "mma", "wgmma"};

static cot_status_t launch_form(const world_t &world, const kern_attention_args_t &args, form_t form)
{
    if (form == STAGE) return kern_cuda.attention(world.kern, &args);
    attention_params_t params = kern_attention_params(world.kern, &args);
    const attention_bounds_t bounds = {world.shape.head_dim, args.rows, args.max_position};
    if (form == WHOLE) params.slots = 0;
    if (form == FEW || form == WHOLE) return kern_attention_few(world.kern, params, bounds);
    if (form == MANY) return kern_attention_many(world.kern, params, bounds);
    CUtensorMap map;
    COT_TRY(kern_cuda_encode(world.kern, world.device_kv, world.blocks * block_words(world.shape) / 64, 64, 64, &map));
    return kern_attention_wgmma(world.kern, params, bounds, map);
}

static kern_attention_args_t make_args(const world_t &world, const kern_run_t *run, const runs_t &runs)
{
    kern_attention_args_t args = {};
    args.weights = &world.weights;
    args.rows = world.rows;
    args.runs = static_cast<uint32_t>(runs.size());
    args.run = run;
    for (const kern_run_t &r : runs) {
        args.max_run_rows = std::max(args.max_run_rows, r.rows);
        if (r.rows > 0) args.max_position = std::max(args.max_position, r.position + r.rows - 1);
    }
    args.q = world.device_q;
    args.kv = &world.cache;
    args.out = world.device_out;
    return args;
}

static cot_status_t run_form(world_t &world, form_t form, uint32_t chunk, std::vector<uint16_t> &out)
{
    const runs_t runs = make_runs(world, chunk, world.device_table);
    kern_run_t *device;
    KERN_CUDA_TRY(cudaMalloc(&device, runs.size() * sizeof(runs[0])));
    KERN_CUDA_TRY(cudaMemcpy(device, runs.data(), runs.size() * sizeof(runs[0]), cudaMemcpyHostToDevice));
    out.resize(world.rows * head_row(world));
    COT_TRY(lab_poison(world.lab, world.device_out, out.size() * 2));
    COT_TRY(launch_form(world, make_args(world, device, runs), form));
    KERN_CUDA_TRY(cudaStreamSynchronize(world.lab->stream));
    KERN_CUDA_TRY(cudaMemcpy(out.data(), world.device_out, out.size() * 2, cudaMemcpyDeviceToHost));
    KERN_CUDA_TRY(cudaFree(device));
    return COT_OK;
}

/* ---- the reference ---- */

/* kern_ref keeps a head's 16 tokens as [16][D], not in pieces of 64 columns. */
static std::vector<uint16_t> reference_cache(const world_t &world)
{
    const uint32_t dim = world.shape.head_dim, pieces = dim / 64;
    std::vector<uint16_t> cache(world.kv.size());
    for (size_t head = 0; head < world.kv.size() / (16 * dim); head++)
        for (uint32_t token = 0; token < 16; token++)
            for (uint32_t d = 0; d < dim; d++)
                cache[(head * 16 + token) * dim + d] = world.kv[((head * pieces + d / 64) * 16 + token) * 64 + d % 64];
    return cache;
}

static cot_status_t reference(const world_t &world, std::vector<uint16_t> &out)
{
    kern_config_t config = lab_kern_config(world.lab, world.rows, 1);
    std::vector<double> inv_freq(world.shape.head_dim / 2, 1.0);
    config.heads = world.shape.heads;
    config.kv_heads = world.shape.kv_heads;
    config.head_dim = world.shape.head_dim;
    config.inv_freq = inv_freq.data();
    kern_t *kern;
    COT_TRY(kern_ref.create(&config, &kern));
    std::vector<uint16_t> cache = reference_cache(world);
    out.resize(world.rows * head_row(world));
    const runs_t runs = make_runs(world, UINT32_MAX, world.table.data());
    kern_attention_args_t args = make_args(world, runs.data(), runs);
    const kern_kv_t kv = {cache.data(), world.blocks};
    args.q = world.q.data();
    args.kv = &kv;
    args.out = out.data();
    const cot_status_t status = kern_ref.attention(kern, &args);
    kern_ref.destroy(kern);
    return status;
}

/* The two round every probability to bf16; where their scores differ by an ulp, a probability may be rounded the other
 * way, by at most 2^-8 of itself. |v| <= 1, so the mean moves by at most 2^-8 (1 + |out|) <= 2^-7, and out itself may
 * round the other way: 2^-8 |out|. A wrong key or scale moves it by far more; the root mean square is held to a tenth. */
static void compare_reference(world_t &world, const std::vector<uint16_t> &out, const std::vector<uint16_t> &wanted)
{
    double worst = 0, squares = 0, size = 0;
    size_t at = 0;
    for (size_t i = 0; i < out.size(); i++) {
        const double got = kern_bf16_to_float(out[i]), ref = kern_bf16_to_float(wanted[i]);
        const double share = fabs(got - ref) / (0x1p-7 + 0x1p-8 * fabs(ref));
        squares += (got - ref) * (got - ref);
        size += ref * ref;
        if (share <= worst) continue; /* NaN is not */
        worst = share;
        at = i;
        if (!(share <= 1)) break;
    }
    const double relative = sqrt(squares / size);
    if (!(worst <= 1) || !(relative <= 0x1p-8))
        lab_wrong(world.lab, "row %zu head %zu column %zu: %g, reference %g (relative error of all %.3g)",
                  at / head_row(world), at % head_row(world) / world.shape.head_dim, at % world.shape.head_dim,
                  kern_bf16_to_float(out[at]), kern_bf16_to_float(wanted[at]), relative);
    LAB_RECORD(world.lab, {"share of bound", worst}, {"relative error", relative});
}

static void compare_bits(world_t &world, const std::vector<uint16_t> &out, const std::vector<uint16_t> &wanted)
{
    size_t differing = 0, first = 0;
    for (size_t i = 0; i < out.size(); i++)
        if (out[i] != wanted[i] && differing++ == 0) first = i;
    if (differing > 0)
        lab_wrong(world.lab, "%zu of %zu values differ, the first at row %zu head %zu column %zu: %04x, not %04x",
                  differing, out.size(), first / head_row(world),
                  first % head_row(world) / world.shape.head_dim, first % world.shape.head_dim, out[first],
                  wanted[first]);
    else
        LAB_RECORD(world.lab, {"differing", 0.0});
}

static cot_status_t check_shape(lab_t *lab, const shape_t &shape)
{
    world_t world;
    world.lab = lab;
    world.shape = shape;
    world.parts = {{1, 0},    {1, 63},  {1, 64},   {1, 255}, {1, 256}, {1, 700}, {7, 250},
                   {64, 200}, {130, 0}, {33, 500}, {1, 1},   {1, 15},  {17, 1007}};
    COT_TRY(make_world(world));
    COT_TRY(fill_checked(world));
    std::vector<uint16_t> base, other;
    if (lab_case(lab, "attention %s few against ref", shape.name)) {
        COT_TRY(run_form(world, FEW, UINT32_MAX, base));
        COT_TRY(reference(world, other));
        compare_reference(world, base, other);
    }
    const struct {
        form_t form;
        uint32_t chunk;
    } variants[] = {{FEW, 1},  {FEW, 7},   {FEW, 64},         {WHOLE, 1},          {WHOLE, UINT32_MAX}, {MANY, UINT32_MAX},
                    {MANY, 1}, {MANY, 64}, {WGMMA, UINT32_MAX}, {WGMMA, 1},         {WGMMA, 7},          {WGMMA, 64},
                    {STAGE, 1}, {STAGE, 64}, {STAGE, UINT32_MAX}};
    for (const auto &variant : variants) {
        if (variant.form == WGMMA && lab->device.major != 9) continue;
        char chunk[16];
        snprintf(chunk, sizeof(chunk), variant.chunk == UINT32_MAX ? "whole" : "%u", variant.chunk);
        if (!lab_case(lab, "attention %s bits of %s, chunks %s", shape.name, FORM_NAMES[variant.form], chunk)) continue;
        if (base.empty()) COT_TRY(run_form(world, FEW, UINT32_MAX, base));
        COT_TRY(run_form(world, variant.form, variant.chunk, other));
        compare_bits(world, other, base);
    }
    kern_cuda.destroy(world.kern);
    return COT_OK;
}

/* ---- time ---- */

struct timed_t {
    world_t *world;
    kern_attention_args_t args;
    form_t form;
    uint32_t sets;
    size_t set_bytes;
    char *kv;
};

static cot_status_t launch_timed(void *context, uint32_t round)
{
    timed_t *timed = static_cast<timed_t *>(context);
    timed->world->cache.data = timed->kv + round % timed->sets * timed->set_bytes;
    timed->world->device_kv = static_cast<uint16_t *>(timed->world->cache.data);
    return launch_form(*timed->world, timed->args, timed->form);
}

static cot_status_t time_world(lab_t *lab, const shape_t &shape, const std::vector<part_t> &parts, form_t form)
{
    world_t world;
    world.lab = lab;
    world.shape = shape;
    world.parts = parts;
    COT_TRY(make_world(world));
    const runs_t runs = make_runs(world, UINT32_MAX, world.device_table);
    kern_run_t *device = static_cast<kern_run_t *>(lab_device(lab, runs.size() * sizeof(runs[0])));
    KERN_CUDA_TRY(cudaMemcpy(device, runs.data(), runs.size() * sizeof(runs[0]), cudaMemcpyHostToDevice));
    timed_t timed = {&world, make_args(world, device, runs), form, 0, 0, NULL};
    timed.set_bytes = world.blocks * block_words(shape) * 2;
    timed.sets = parts[0].rows > 1 ? 1 : lab_rotations(lab, timed.set_bytes, 16);
    timed.kv = static_cast<char *>(lab_device(lab, timed.sets * timed.set_bytes));
    if (timed.kv == NULL) return COT_ERR_NO_MEMORY;
    COT_TRY(lab_random_bf16(lab, timed.kv, timed.sets * timed.set_bytes / 2, 1.0f));
    COT_TRY(lab_random_bf16(lab, world.device_q, world.rows * head_row(world), 4.0f));
    timed.args.kv = &world.cache;
    const lab_timing_t timing = {launch_timed, &timed, std::max(8U, timed.sets), 60};
    double microseconds = 0, keys = 0;
    COT_TRY(lab_time(lab, &timing, &microseconds));
    for (const part_t &part : parts)
        for (uint32_t i = 0; i < part.rows; i++) keys += part.position + i + 1;
    if (parts[0].rows == 1) {
        const double gbs = static_cast<double>(timed.set_bytes) / microseconds * 1e-3;
        LAB_RECORD(lab, {"us", microseconds}, {"GB/s", gbs}, {"share", gbs / lab->read_gbs});
    } else {
        const double tflops = 4.0 * keys * static_cast<double>(head_row(world)) / microseconds * 1e-6;
        LAB_RECORD(lab, {"us", microseconds}, {"TFLOP/s", tflops}, {"share", tflops / lab->dense_tflops});
    }
    KERN_CUDA_TRY(cudaStreamSynchronize(lab->stream));
    kern_cuda.destroy(world.kern);
    lab_release(lab);
    return COT_OK;
}

static cot_status_t time_shape(lab_t *lab, const shape_t &shape)
{
    static const uint32_t DECODE[][2] = {{64, 1024}, {8, 16384}, {256, 1024}, {1, 1024}, {1, 16384}};
    for (const auto &decode : DECODE)
        if (lab_case(lab, "attention %s decode %u x %u", shape.name, decode[0], decode[1]))
            COT_TRY(time_world(lab, shape, std::vector<part_t>(decode[0], {1, decode[1] - 1}), STAGE));
    static const uint32_t PREFILL[][2] = {{1, 4096}, {4, 1024}, {1, 512}};
    for (const auto &prefill : PREFILL)
        for (form_t form : {WGMMA, MANY})
            if ((form != WGMMA || lab->device.major == 9) &&
                lab_case(lab, "attention %s prefill %u x %u %s", shape.name, prefill[0], prefill[1], FORM_NAMES[form]))
                COT_TRY(time_world(lab, shape, std::vector<part_t>(prefill[0], {prefill[1], 0}), form));
    return COT_OK;
}

cot_status_t lab_stage_attention(lab_t *lab)
{
    const model_config_t *model = &lab->config;
    const shape_t own = {"model", model->heads, model->kv_heads, model->head_dim, 0};
    static const shape_t CHECKED[] = {{"8/1 d128", 8, 1, 128, 0},  {"8/2 d64 window 100", 8, 2, 64, 100},
                                      {"2/2 d128", 2, 2, 128, 0},  {"6/2 d128 window 300", 6, 2, 128, 300},
                                      {"40/2 d64", 40, 2, 64, 0}};
    if (!lab->timing_only)
        for (const shape_t &shape : CHECKED) {
            COT_TRY(check_shape(lab, shape));
            lab_release(lab);
        }
    if (lab->check_only) return COT_OK;
    COT_TRY(lab_limits(lab));
    return time_shape(lab, own);
}
