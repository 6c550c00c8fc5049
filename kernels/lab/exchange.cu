/* The exchange between GPUs: every row and slot against what must come, then the time of a dispatch and of a return
 * that moves the outputs, in a chain of 32 inside a graph. One rank a GPU: mpirun -n R coterie-lab exchange. */
#include "kernels/lab/lab.cuh"

#include "kernels/lab/exchange_case.h"

namespace
{

struct way_t {
    comm_gpu_transport_t transport;
    comm_gpu_mode_t mode;
    const char *name;
};

const way_t WAYS[] = {{COMM_GPU_WINDOW, COMM_GPU_GATHER, "window gather"},
                      {COMM_GPU_WINDOW, COMM_GPU_SIZED, "window sized"},
                      {COMM_GPU_NCCL, COMM_GPU_GATHER, "nccl"}};
const char *const PATTERNS[] = {"spread", "all to one", "nobody", "last rank idle"};

cot_status_t open_case(lab_t *lab, const way_t &way, uint32_t tokens, lab_exchange_t *x)
{
    const model_config_t &model = lab->config;
    comm_gpu_config_t config = {};
    config.link = lab->link;
    config.ranks = lab->ranks;
    config.device = lab->gpu;
    config.transport = way.transport;
    config.mode = way.mode;
    config.row_bytes = 2 * model.hidden;
    config.max_tokens = tokens;
    config.top_k = model.top_k;
    config.experts = model.experts;
    config.timeout_ms = 2000;
    *x = {};
    x->ranks = lab->ranks;
    x->me = lab->rank;
    x->tokens = tokens;
    x->top_k = model.top_k;
    x->experts = model.experts;
    x->row_bytes = config.row_bytes;
    x->seed = static_cast<uint32_t>(lab->seed);
    return comm_gpu_create(&config, &x->gpu);
}

cot_status_t check(lab_t *lab, const way_t &way)
{
    static const uint32_t TOKENS[] = {1, 64, 150};
    for (uint32_t tokens : TOKENS)
        for (uint32_t pattern = 0; pattern < LAB_PATTERNS; pattern++) {
            if (!lab_case(lab, "exchange %s, %u tokens, %s", way.name, tokens, PATTERNS[pattern])) continue;
            lab_exchange_t x;
            uint64_t wrong = 0;
            COT_TRY(open_case(lab, way, tokens, &x));
            x.pattern = static_cast<lab_pattern_t>(pattern);
            const cot_status_t status = lab_exchange_check(&x, &wrong);
            comm_gpu_destroy(x.gpu);
            COT_TRY(status);
            if (wrong > 0) lab_wrong(lab, "%llu words or slots", static_cast<unsigned long long>(wrong));
            LAB_RECORD(lab, {"wrong", static_cast<double>(wrong)});
        }
    return COT_OK;
}

cot_status_t time_way(lab_t *lab, const way_t &way)
{
    static const uint32_t DEFAULT[] = {1, 64, 512, 4096};
    const uint32_t count = lab->rows_count > 0 ? lab->rows_count : 4;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t tokens = lab->rows_count > 0 ? lab->rows[i] : DEFAULT[i];
        if (!lab_case(lab, "exchange %s, %u tokens a rank, time", way.name, tokens)) continue;
        lab_exchange_t x;
        lab_exchange_time_t time = {};
        COT_TRY(open_case(lab, way, tokens, &x));
        const cot_status_t status = lab_exchange_time(&x, &time);
        comm_gpu_destroy(x.gpu);
        COT_TRY(status);
        COT_TRY(lab_largest(lab, &time.dispatch_us));
        COT_TRY(lab_largest(lab, &time.return_us));
        const double sent = static_cast<double>(tokens) * x.row_bytes * (lab->ranks - 1); /* GATHER, out of one GPU */
        LAB_RECORD(lab, {"dispatch_us", time.dispatch_us}, {"return_us", time.return_us},
                   {"dispatch_GB/s", way.mode == COMM_GPU_GATHER ? sent / time.dispatch_us * 1e-3 : 0});
    }
    return COT_OK;
}

} // namespace

cot_status_t lab_stage_exchange(lab_t *lab)
{
    for (const way_t &way : WAYS) {
        if (way.transport == COMM_GPU_NCCL && lab->ranks == 1) continue;
        if (!lab->timing_only) COT_TRY(check(lab, way));
        if (!lab->check_only) COT_TRY(time_way(lab, way));
    }
    return COT_OK;
}

/* --only nccl takes that transport. */
cot_status_t lab_stage_exchange_loop(lab_t *lab)
{
    const way_t &way = WAYS[lab->only != NULL && strcmp(lab->only, "nccl") == 0 ? 2 : 0];
    const int seconds = lab->rows_count > 0 ? static_cast<int>(lab->rows[0]) : 20;
    lab_exchange_t x;
    uint64_t steps = 0;
    COT_TRY(open_case(lab, way, 64, &x));
    COT_TRY(lab_exchange_loop(&x, seconds, &steps));
    comm_gpu_destroy(x.gpu);
    if (lab->rank == 0)
        printf("exchange-loop %s: %llu steps in %d s\n", way.name, static_cast<unsigned long long>(steps), seconds);
    return COT_OK;
}
