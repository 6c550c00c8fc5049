/* coterie-lab sample: draws on the device equal kern_ref's (kernels/sample.c) token for token; logprobs within 1e-5; times
 * at 64 rows of the model's vocabulary. */
#include "kernels/lab/lab.cuh"

#include <math.h>
#include <vector>

/* Draws that differ only in what is named. */
struct kind_t {
    const char *name;
    float temperature, top_p, min_p, penalty;
    uint32_t top_k, top_logprobs;
};

static const kind_t KINDS[] = {
    {"greedy", 0, 1, 0, 1, 0, 0},
    {"greedy, penalty, 20 logprobs", 0, 1, 0, 1.3f, 0, 20},
    {"temperature", 0.8f, 1, 0, 1, 0, 5},
    {"top-k 50", 1, 1, 0, 1, 50, 0},
    {"top-k 1", 1, 1, 0, 1, 1, 0},
    {"top-k 3000", 1.2f, 1, 0, 1, 3000, 0},
    {"top-p 0.9", 0.7f, 0.9f, 0, 1, 0, 0},
    {"top-k 50, top-p 0.9", 1, 0.9f, 0, 1, 50, 0},
    {"min-p 0.05, penalty", 1, 1, 0.05f, 1.1f, 0, 0},
    {"top-k 40, top-p 0.8, min-p 0.02", 1.5f, 0.8f, 0.02f, 1.2f, 40, 0},
};

enum { ROWS = 64, HISTORY = 300 };

/* kern_draw_t and kern_drawn_t have no names, which nvcc does not take in a vector. */
struct named_draw_t : kern_draw_t {
};
struct named_drawn_t : kern_drawn_t {
};

struct sampling_t {
    lab_t *lab;
    kern_t *cuda, *ref;
    uint32_t vocab;
    std::vector<float> logits;
    std::vector<int32_t> history;
    float *device_logits;
    int32_t *device_history;
    kern_draw_t *device_draw;
    kern_drawn_t *device_drawn;
};

/* Sums of twelve uniforms, so nearly normal; `scale` is the deviation. A tie, a NaN and an infinity in some rows. */
static void draw_logits(sampling_t &sampling, float scale)
{
    for (float &logit : sampling.logits) {
        double sum = 0;
        for (int i = 0; i < 3; i++) {
            const uint64_t bits = lab_next(sampling.lab);
            for (int part = 0; part < 4; part++) sum += static_cast<double>(bits >> (16 * part) & 0xffff) / 65536.0;
        }
        logit = static_cast<float>(sum - 6.0) * scale;
    }
    for (uint32_t row = 0; row < ROWS; row++) {
        float *logits = &sampling.logits[static_cast<size_t>(row) * sampling.vocab];
        if (row % 4 == 1) logits[100] = logits[77] = 6.0f * scale;
        if (row % 8 == 2) logits[5] = NAN;
        if (row == 3) logits[9] = -INFINITY;
    }
    for (int32_t &token : sampling.history) token = static_cast<int32_t>(lab_next(sampling.lab) % sampling.vocab);
    for (uint32_t row = 0; row < ROWS; row++) sampling.history[row * HISTORY] = 77;
}

static std::vector<named_draw_t> make_draws(const sampling_t &sampling, const kind_t &kind, bool device)
{
    std::vector<named_draw_t> draws(ROWS);
    for (uint32_t row = 0; row < ROWS; row++) {
        named_draw_t &draw = draws[row];
        const float *logits = device ? sampling.device_logits : sampling.logits.data();
        const int32_t *history = device ? sampling.device_history : sampling.history.data();
        draw.logits = logits + static_cast<size_t>(row) * sampling.vocab;
        draw.temperature = kind.temperature;
        draw.top_p = kind.top_p;
        draw.min_p = kind.min_p;
        draw.repetition_penalty = kind.penalty;
        draw.top_k = kind.top_k;
        draw.seed = 1234567ULL * (row + 1);
        draw.position = 17 + row;
        draw.history = history + row * HISTORY;
        draw.history_tokens = HISTORY;
        draw.top_logprobs = kind.top_logprobs;
        draw.forced = row == 63 ? 11 : -1;
    }
    return draws;
}

static cot_status_t upload_draws(const sampling_t &sampling, const kind_t &kind)
{
    const std::vector<named_draw_t> draws = make_draws(sampling, kind, true);
    KERN_CUDA_TRY(cudaMemcpy(sampling.device_draw, draws.data(), ROWS * sizeof(kern_draw_t), cudaMemcpyHostToDevice));
    return COT_OK;
}

/* The log of a sum of V exponentials taken in fp32: relative error below V/1024 2^-24 + 2^-22 < 1e-5 for 152k ids. */
static void compare_draws(lab_t *lab, const kern_drawn_t *got, const kern_drawn_t *wanted, uint32_t listed)
{
    uint32_t other = 0, first = 0;
    double worst = 0;
    for (uint32_t row = 0; row < ROWS; row++) {
        bool same = got[row].token == wanted[row].token;
        for (uint32_t i = 0; i < listed; i++) {
            same = same && got[row].top_token[i] == wanted[row].top_token[i];
            const double error = fabs(got[row].top_logprob[i] - wanted[row].top_logprob[i]);
            if (isfinite(wanted[row].top_logprob[i])) worst = error <= worst ? worst : error;
        }
        const double error = fabs(got[row].logprob - wanted[row].logprob);
        if (isfinite(wanted[row].logprob) && same) worst = error <= worst ? worst : error;
        if (!same && other++ == 0) first = row;
    }
    if (other > 0)
        lab_wrong(lab, "%u rows differ, the first is %u: token %d, host %d", other, first, got[first].token, wanted[first].token);
    if (!(worst <= 2e-5)) lab_wrong(lab, "a logprob is off by %.3g", worst);
    LAB_RECORD(lab, {"differing", static_cast<double>(other)}, {"logprob error", worst});
}

static cot_status_t check_kind(sampling_t &sampling, const kind_t &kind)
{
    std::vector<named_drawn_t> got(ROWS), wanted(ROWS);
    const std::vector<named_draw_t> draws = make_draws(sampling, kind, false);
    COT_TRY(upload_draws(sampling, kind));
    COT_TRY(lab_poison(sampling.lab, sampling.device_drawn, ROWS * sizeof(kern_drawn_t)));
    const kern_sample_args_t args = {ROWS, sampling.device_draw, sampling.device_drawn};
    COT_TRY(kern_cuda.sample(sampling.cuda, &args));
    KERN_CUDA_TRY(cudaStreamSynchronize(sampling.lab->stream));
    KERN_CUDA_TRY(cudaMemcpy(got.data(), sampling.device_drawn, ROWS * sizeof(kern_drawn_t), cudaMemcpyDeviceToHost));
    const kern_sample_args_t host = {ROWS, draws.data(), wanted.data()};
    COT_TRY(kern_ref.sample(sampling.ref, &host));
    compare_draws(sampling.lab, got.data(), wanted.data(), kind.top_logprobs > 0 ? kind.top_logprobs : 1);
    return COT_OK;
}

static cot_status_t launch_sample(void *context, uint32_t round)
{
    (void)round;
    const sampling_t *sampling = static_cast<const sampling_t *>(context);
    const kern_sample_args_t args = {ROWS, sampling->device_draw, sampling->device_drawn};
    return kern_cuda.sample(sampling->cuda, &args);
}

static cot_status_t run_vocab(lab_t *lab, uint32_t vocab, float scale, bool timed)
{
    sampling_t sampling = {};
    kern_config_t config = lab_kern_config(lab, ROWS, ROWS);
    config.vocab = vocab;
    sampling.lab = lab;
    sampling.vocab = vocab;
    COT_TRY(kern_cuda.create(&config, &sampling.cuda));
    COT_TRY(kern_ref.create(&config, &sampling.ref));
    sampling.logits.resize(static_cast<size_t>(ROWS) * vocab);
    sampling.history.resize(ROWS * HISTORY);
    draw_logits(sampling, scale);
    sampling.device_logits = static_cast<float *>(lab_device(lab, sampling.logits.size() * 4));
    sampling.device_history = static_cast<int32_t *>(lab_device(lab, sampling.history.size() * 4));
    sampling.device_draw = static_cast<kern_draw_t *>(lab_device(lab, ROWS * sizeof(kern_draw_t)));
    sampling.device_drawn = static_cast<kern_drawn_t *>(lab_device(lab, ROWS * sizeof(kern_drawn_t)));
    if (sampling.device_drawn == NULL || sampling.device_logits == NULL) return COT_ERR_NO_MEMORY;
    KERN_CUDA_TRY(cudaMemcpy(sampling.device_logits, sampling.logits.data(), sampling.logits.size() * 4, cudaMemcpyHostToDevice));
    KERN_CUDA_TRY(cudaMemcpy(sampling.device_history, sampling.history.data(), sampling.history.size() * 4, cudaMemcpyHostToDevice));
    for (const kind_t &kind : KINDS) {
        if (!timed && lab_case(lab, "sample %u ids, deviation %g: %s", vocab, scale, kind.name)) COT_TRY(check_kind(sampling, kind));
        if (!timed || !lab_case(lab, "sample time %u x %u, deviation %g: %s", ROWS, vocab, scale, kind.name)) continue;
        double microseconds;
        COT_TRY(upload_draws(sampling, kind));
        const lab_timing_t timing = {launch_sample, &sampling, 10, 20};
        COT_TRY(lab_time(lab, &timing, &microseconds));
        LAB_RECORD(lab, {"us", microseconds});
    }
    kern_cuda.destroy(sampling.cuda);
    kern_ref.destroy(sampling.ref);
    lab_release(lab);
    return COT_OK;
}

cot_status_t lab_stage_sample(lab_t *lab)
{
    static const struct {
        uint32_t vocab;
        float scale;
    } CHECKED[] = {{37, 1.0f}, {1001, 2.0f}, {32000, 2.0f}, {32000, 0.0f}, {32000, 0.2f}};
    for (const auto &checked : CHECKED)
        if (!lab->timing_only) COT_TRY(run_vocab(lab, checked.vocab, checked.scale, false));
    if (!lab->timing_only) COT_TRY(run_vocab(lab, lab->config.vocab, 2.5f, false));
    return lab->check_only ? COT_OK : run_vocab(lab, lab->config.vocab, 2.5f, true);
}
