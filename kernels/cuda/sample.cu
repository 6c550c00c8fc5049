/* Sampling: one block of 1,024 threads a draw, everything in one launch.
 *
 *   1. One pass over the logits: the likeliest raw and penalised tokens, the sum of exponentials for logprobs (fp32 in
 * a thread, whose ids are fixed, then double in a tree), and each thread's largest penalised candidate.
 *   2. With a temperature: the j-th largest of the 1,024 threads' candidates is a floor with at least j candidates
 * above it, and few more; a second pass gathers those (and, without top-k, adds the shares of all), a bitonic network
 * sorts them by (logit descending, id ascending), and a scan finds where top-k, top-p and min-p cut and where the draw
 * falls.
 *   3. Where the list does not reach (flat logits), bit by bit search for the element at which a sum crosses a target.
 *
 * A share exp((logit - max) / temperature) is taken in double and rounded to a multiple of 2^-45: sums are integers, so
 * no order of addition and no thread count can matter. kernels/sample.c adds unrounded doubles in the order of
 * candidates; the two can differ where a target falls within about 2^-28 (at worst; 2^-40 is usual) of a boundary
 * between two tokens. Bytes: 4 V once (greedy), twice with a temperature (the second from L2). */
#include "kernels/cuda/arith.cuh"
#include "kernels/cuda/cuda_int.cuh"
#include "kernels/cuda/hopper.cuh"

using namespace kcu;

enum { THREADS = 1024, WARPS = 32, LIST = 8192, TABLE = 64, FEW = 646, MOST = 1020 };

#define SHARE_ONE 0x1p45

struct sample_params_t {
    const kern_draw_t *draw;
    kern_drawn_t *drawn;
    uint32_t vocab;
};

/* Candidate: ordered logit above, complement of the id below: larger stands first. */
typedef unsigned long long candidate_t;

struct sample_shared_t {
    candidate_t list[LIST];
    candidate_t cumulative[LIST]; /* of shares, inclusive */
    candidate_t floor[THREADS];
    double table[TABLE]; /* 2^(i / 64) */
    candidate_t warp_value[WARPS];
    double warp_sum[WARPS];
    float warp_max[WARPS];
    uint32_t count, cut, chosen;
};

struct row_view_t {
    const float *logits;
    const uint32_t *seen; /* bits of the tokens in the history; NULL: no penalty */
    uint32_t vocab;
    float penalty;
};

static __device__ __forceinline__ float least_if_nan(float logit)
{
    return isnan(logit) ? -INFINITY : logit;
}

static __device__ __forceinline__ float penalised(const row_view_t &row, uint32_t id, float logit)
{
    if (row.seen == NULL || (row.seen[id / 32] >> (id % 32) & 1) == 0) return logit;
    return logit < 0 ? __fmul_rn(logit, row.penalty) : __fdiv_rn(logit, row.penalty);
}

static __device__ __forceinline__ candidate_t candidate_of(float logit, uint32_t id)
{
    const uint32_t bits = __float_as_uint(__fadd_rn(least_if_nan(logit), 0.0f));
    const uint32_t key = bits & 0x80000000U ? ~bits : bits | 0x80000000U;
    return (candidate_t)key << 32 | (uint32_t)~id;
}

static __device__ __forceinline__ uint32_t id_of(candidate_t candidate)
{
    return ~(uint32_t)candidate;
}

static __device__ __forceinline__ float logit_of(candidate_t candidate)
{
    const uint32_t key = (uint32_t)(candidate >> 32);
    return __uint_as_float(key & 0x80000000U ? key & 0x7fffffffU : ~key);
}

/* use(id, logit) for every id, in an order that is fixed for each thread. */
template <typename Use> static __device__ __forceinline__ void for_ids(const row_view_t &row, Use use)
{
    if ((reinterpret_cast<uintptr_t>(row.logits) | row.vocab * 4ULL) % 16 != 0) {
        for (uint32_t id = threadIdx.x; id < row.vocab; id += THREADS) use(id, row.logits[id]);
        return;
    }
    const float4 *four = reinterpret_cast<const float4 *>(row.logits);
    const uint32_t count = row.vocab / 4;
    uint32_t at = threadIdx.x;
    for (; at + 3 * THREADS < count; at += 4 * THREADS) {
        float4 x[4];
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] = __ldcg(four + at + i * THREADS);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint32_t id = 4 * (at + i * THREADS);
            use(id, x[i].x), use(id + 1, x[i].y), use(id + 2, x[i].z), use(id + 3, x[i].w);
        }
    }
    for (; at < count; at += THREADS) {
        const float4 x = __ldcg(four + at);
        use(4 * at, x.x), use(4 * at + 1, x.y), use(4 * at + 2, x.z), use(4 * at + 3, x.w);
    }
}

/* ---- block-wide ---- */

static __device__ __forceinline__ candidate_t block_max(candidate_t value, sample_shared_t &shared)
{
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        const candidate_t other = __shfl_xor_sync(~0U, value, distance);
        value = other > value ? other : value;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared.warp_value[threadIdx.x / 32] = value;
    __syncthreads();
    value = shared.warp_value[threadIdx.x % 32];
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        const candidate_t other = __shfl_xor_sync(~0U, value, distance);
        value = other > value ? other : value;
    }
    return value;
}

static __device__ __forceinline__ candidate_t block_add(candidate_t value, sample_shared_t &shared)
{
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(~0U, value, distance);
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared.warp_value[threadIdx.x / 32] = value;
    __syncthreads();
    value = shared.warp_value[threadIdx.x % 32];
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(~0U, value, distance);
    return value;
}

/* The natural logarithm's sum of 2^((max of this thread - max) log2 e) sum, in double, by a tree. */
static __device__ __forceinline__ double block_sum(float max, float sum, float most, sample_shared_t &shared)
{
    double value = max == most ? (double)sum : (double)sum * exp((double)max - (double)most);
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(~0U, value, distance);
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared.warp_sum[threadIdx.x / 32] = value;
    __syncthreads();
    value = shared.warp_sum[threadIdx.x % 32];
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(~0U, value, distance);
    return value;
}

/* Descending; `size` a power of two. */
static __device__ void sort_list(candidate_t *list, uint32_t size)
{
    for (uint32_t run = 2; run <= size; run *= 2)
        for (uint32_t step = run / 2; step > 0; step /= 2) {
            __syncthreads();
            for (uint32_t i = threadIdx.x; i < size / 2; i += THREADS) {
                const uint32_t low = 2 * i - (i & (step - 1)), high = low + step;
                const candidate_t a = list[low], b = list[high];
                if ((a < b) == ((low & run) == 0)) {
                    list[low] = b;
                    list[high] = a;
                }
            }
        }
    __syncthreads();
}

/* ---- shares ---- */

/* What is constant of a draw. */
struct draw_t {
    double inverse; /* log2 e / temperature */
    double top_p, min_p;
    float max;     /* largest penalised logit */
    uint32_t most; /* candidates that top-k leaves */
    bool by_k, by_p, by_min;
};

/* 2^((logit - max) inverse) in double; 1 at the maximum, infinite ones included. |error| < 2^-50 of it. */
static __device__ __forceinline__ double share_of(const draw_t &draw, const double *table, float logit)
{
    if (logit == draw.max) return 1.0;
    const double x = ((double)logit - (double)draw.max) * draw.inverse;
    if (!(x > -60.0)) return 0.0;
    const double magic = 0x1.8p52 / TABLE, shifted = x + magic, r = (x - (shifted - magic)) * 0x1.62e42fefa39efp-1;
    const int k = (int)(uint32_t)__double2loint(shifted);
    double p = __fma_rn(r, 1.0 / 120.0, 1.0 / 24.0);
    p = __fma_rn(r, p, 1.0 / 6.0);
    p = __fma_rn(r, p, 0.5);
    p = __fma_rn(r, p, 1.0);
    const double base = table[k & (TABLE - 1)];
    p = __fma_rn(__dmul_rn(base, r), p, base);
    return __hiloint2double(__double2hiint(p) + ((k >> 6) << 20), __double2loint(p));
}

static __device__ __forceinline__ candidate_t fixed_share(const draw_t &draw, const double *table, float logit)
{
    return __double2ull_rn(__dmul_rn(share_of(draw, table, logit), SHARE_ONE));
}

static __device__ double uniform(uint64_t seed, uint32_t position)
{
    uint32_t c[4] = {position, 0, 0, 0}, k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        const uint64_t left = (uint64_t)0xD2511F53U * c[0], right = (uint64_t)0xCD9E8D57U * c[2];
        const uint32_t c1 = c[1], c3 = c[3];
        c[0] = (uint32_t)(right >> 32) ^ c1 ^ k0;
        c[1] = (uint32_t)right;
        c[2] = (uint32_t)(left >> 32) ^ c3 ^ k1;
        c[3] = (uint32_t)left;
        k0 += 0x9E3779B9U;
        k1 += 0xBB67AE85U;
    }
    return (double)((((uint64_t)c[0] << 32) | c[1]) >> 11) * 0x1p-53;
}

/* Sums are compared with floor(target): the first that is larger. */
static __device__ __forceinline__ candidate_t target_of(double unit, candidate_t sum)
{
    const candidate_t target = __double2ull_rd(__dmul_rn(unit, __ull2double_rn(sum)));
    return target < sum ? target : sum - 1;
}

/* ---- the list ---- */

/* Fills the list with candidates of at least `floor`; returns how many there are, maybe more than fit. With `add`, the
 * sum of all shares. */
static __device__ uint32_t gather(const row_view_t &row, const draw_t &draw, candidate_t floor, bool add,
                                  candidate_t &total, sample_shared_t &shared)
{
    candidate_t sum = 0;
    if (threadIdx.x == 0) shared.count = 0;
    __syncthreads();
    for_ids(row, [&](uint32_t id, float logit) {
        const float clean = least_if_nan(penalised(row, id, logit));
        const candidate_t candidate = candidate_of(clean, id);
        if (candidate >= floor) {
            const uint32_t at = atomicAdd(&shared.count, 1U);
            if (at < LIST) shared.list[at] = candidate;
        }
        if (add) sum += fixed_share(draw, shared.table, clean);
    });
    if (add) total = block_add(sum, shared);
    __syncthreads();
    return shared.count;
}

/* cumulative[i] of the first n candidates of the sorted list. */
static __device__ void add_up(const draw_t &draw, uint32_t n, sample_shared_t &shared)
{
    candidate_t before = 0;
    for (uint32_t first = 0; first < n; first += THREADS) {
        const uint32_t i = first + threadIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        candidate_t upto = i < n ? fixed_share(draw, shared.table, logit_of(shared.list[i])) : 0;
#pragma unroll
        for (uint32_t step = 1; step < 32; step *= 2) {
            const candidate_t other = __shfl_up_sync(~0U, upto, step);
            if (lane >= step) upto += other;
        }
        __syncthreads();
        if (lane == 31) shared.warp_value[warp] = upto;
        __syncthreads();
        candidate_t all = 0;
        for (uint32_t w = 0; w < WARPS; w++) {
            if (w < warp) upto += shared.warp_value[w];
            all += shared.warp_value[w];
        }
        if (i < n) shared.cumulative[i] = before + upto;
        before += all;
    }
    __syncthreads();
}

/* Draws from the first n candidates, sorted, of those that top-k leaves. False: the list does not reach. */
static __device__ bool draw_from_list(const draw_t &draw, uint32_t n, double unit, candidate_t total, uint32_t vocab,
                                      sample_shared_t &shared, uint32_t *token_out)
{
    n = min(n, draw.most);
    add_up(draw, n, shared);
    if (draw.by_k) total = shared.cumulative[n - 1];
    if (threadIdx.x == 0) shared.cut = shared.chosen = UINT32_MAX;
    __syncthreads();
    if (draw.by_p || draw.by_min)
        for (uint32_t i = threadIdx.x; i < n; i += THREADS) {
            if (i == 0) continue;
            const bool over = draw.by_p &&
                              __ull2double_rn(shared.cumulative[i - 1]) >= draw.top_p * __ull2double_rn(total);
            const bool under = draw.by_min && share_of(draw, shared.table, logit_of(shared.list[i])) < draw.min_p;
            if (over || under) atomicMin(&shared.cut, i);
        }
    __syncthreads();
    uint32_t kept = shared.cut;
    const bool whole = n == draw.most || n == vocab;
    if (kept == UINT32_MAX) {
        if ((draw.by_p || draw.by_min) && !whole) return false;
        kept = n;
    }
    const candidate_t sum = draw.by_p || draw.by_min || whole ? shared.cumulative[kept - 1] : total;
    const candidate_t target = target_of(unit, sum);
    for (uint32_t i = threadIdx.x; i < kept; i += THREADS)
        if (shared.cumulative[i] > target) {
            atomicMin(&shared.chosen, i);
            break;
        }
    __syncthreads();
    if (shared.chosen == UINT32_MAX) return false;
    *token_out = id_of(shared.list[shared.chosen]);
    return true;
}

/* ---- without a list ---- */

/* Of candidates at or above `least` with a share of at least `share`. */
struct filter_t {
    candidate_t least;
    double share;
    bool counts; /* candidates, not shares, are added */
};

static __device__ candidate_t sum_where(const row_view_t &row, const draw_t &draw, const filter_t &filter,
                                        sample_shared_t &shared)
{
    candidate_t sum = 0;
    for_ids(row, [&](uint32_t id, float logit) {
        const float clean = least_if_nan(penalised(row, id, logit));
        if (candidate_of(clean, id) < filter.least) return;
        if (filter.counts) {
            sum++;
            return;
        }
        const double share = share_of(draw, shared.table, clean);
        if (share >= filter.share) sum += __double2ull_rn(__dmul_rn(share, SHARE_ONE));
    });
    return block_add(sum, shared);
}

/* The largest candidate from which on down to the first the sum exceeds `target`. */
static __device__ candidate_t cross(const row_view_t &row, const draw_t &draw, filter_t filter, candidate_t target,
                                    sample_shared_t &shared)
{
    const candidate_t least = filter.least;
    candidate_t found = 0;
    for (int bit = 63; bit >= 0; bit--) {
        filter.least = found | 1ULL << bit;
        if (filter.least < least) filter.least = least;
        if (sum_where(row, draw, filter, shared) > target) found |= 1ULL << bit;
    }
    return found < least ? least : found;
}

static __device__ uint32_t draw_by_search(const row_view_t &row, const draw_t &draw, double unit,
                                          sample_shared_t &shared)
{
    filter_t filter = {0, 0.0, false};
    if (draw.by_k) {
        filter.counts = true;
        filter.least = cross(row, draw, filter, draw.most - 1, shared);
        filter.counts = false;
    }
    if (draw.by_p) {
        const double bound = draw.top_p * __ull2double_rn(sum_where(row, draw, filter, shared));
        const candidate_t reached = __double2ull_ru(bound); /* sums at or above it end the list */
        filter.least = cross(row, draw, filter, reached > 0 ? reached - 1 : 0, shared);
    }
    if (draw.by_min) filter.share = draw.min_p;
    const candidate_t target = target_of(unit, sum_where(row, draw, filter, shared));
    return id_of(cross(row, draw, filter, target, shared));
}

/* ---- the kernel ---- */

static __device__ void mark_history(const kern_draw_t &draw, uint32_t vocab, uint32_t *seen)
{
    for (uint32_t i = threadIdx.x; i < (vocab + 31) / 32; i += THREADS) seen[i] = 0;
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < draw.history_tokens; i += THREADS) {
        const int32_t token = draw.history[i];
        if (token >= 0 && (uint32_t)token < vocab) atomicOr(&seen[token / 32], 1U << (token % 32));
    }
    __syncthreads();
}

static __device__ uint32_t next_power(uint32_t n)
{
    return n <= 2 ? 2 : 1U << (32 - __clz(n - 1));
}

/* Gathers at least j candidates (floor[] sorted); returns how many are in the sorted list, 0 when they do not fit. */
static __device__ uint32_t make_list(const row_view_t &row, const draw_t &draw, uint32_t j, bool add,
                                     candidate_t &total, sample_shared_t &shared)
{
    const uint32_t count = gather(row, draw, shared.floor[j - 1], add, total, shared);
    if (count > LIST) return 0;
    const uint32_t size = next_power(count);
    for (uint32_t i = count + threadIdx.x; i < size; i += THREADS) shared.list[i] = 0;
    sort_list(shared.list, size);
    return count;
}

static __device__ uint32_t draw_token(const row_view_t &row, const draw_t &draw, const kern_draw_t &wanted,
                                      candidate_t best, sample_shared_t &shared)
{
    const double unit = uniform(wanted.seed, wanted.position);
    uint32_t token = 0;
    candidate_t total = 0;
    shared.floor[threadIdx.x] = best;
    sort_list(shared.floor, THREADS);
    const uint32_t filled = min(row.vocab, (uint32_t)THREADS); /* threads with a candidate */
    uint32_t j = draw.by_k ? min(draw.most, filled) : min((uint32_t)FEW, filled);
    bool add = !draw.by_k;
    for (int round = 0; round < 2; round++) {
        const uint32_t count = make_list(row, draw, j, add, total, shared);
        add = false;
        const bool enough = !draw.by_k || count >= draw.most || count == row.vocab;
        if (count > 0 && enough && draw_from_list(draw, count, unit, total, row.vocab, shared, &token)) return token;
        __syncthreads();
        j = min((uint32_t)MOST, filled);
    }
    return draw_by_search(row, draw, unit, shared);
}

/* The likeliest tokens by raw logits. */
static __device__ void list_top(const row_view_t &raw, uint32_t wanted, candidate_t best, candidate_t first,
                                sample_shared_t &shared)
{
    if (wanted <= 1) {
        if (threadIdx.x == 0) shared.list[0] = first;
        __syncthreads();
        return;
    }
    const draw_t none = {};
    candidate_t unused;
    __syncthreads();
    shared.floor[threadIdx.x] = best;
    sort_list(shared.floor, THREADS);
    if (make_list(raw, none, wanted, false, unused, shared) > 0) return;
    /* More candidates above the floor than fit: one at a time. */
    candidate_t below = ~0ULL;
    for (uint32_t i = 0; i < wanted; i++) {
        candidate_t most = 0;
        for_ids(raw, [&](uint32_t id, float logit) {
            const candidate_t candidate = candidate_of(logit, id);
            if (candidate < below && candidate > most) most = candidate;
        });
        below = block_max(most, shared);
        if (threadIdx.x == 0) shared.list[i] = below;
    }
    __syncthreads();
}

static __device__ void write_drawn(const row_view_t &row, uint32_t token, uint32_t wanted, float max, double sum,
                                   const sample_shared_t &shared, kern_drawn_t *drawn)
{
    const uint32_t i = threadIdx.x;
    if (i >= wanted && i != 32) return;
    const uint32_t id = i == 32 ? token : id_of(shared.list[i]);
    float logprob = -INFINITY;
    const bool there = i == 32 || i < row.vocab;
    if (there) {
        const float logit = least_if_nan(row.logits[id]);
        logprob = (float)((logit == max ? 0.0 : (double)logit - (double)max) - log(sum));
    }
    if (i == 32) {
        drawn->token = (int32_t)token;
        drawn->logprob = logprob;
    } else {
        drawn->top_token[i] = there ? (int32_t)id : -1;
        drawn->top_logprob[i] = logprob;
    }
}

__global__ void __launch_bounds__(THREADS, 1) sample_draws(const sample_params_t params)
{
    extern __shared__ __align__(16) char memory[];
    sample_shared_t &shared = *reinterpret_cast<sample_shared_t *>(memory);
    grid_dependency_wait();
    const kern_draw_t wanted = params.draw[blockIdx.x];
    if (wanted.logits == NULL) return; /* padding */
    row_view_t raw = {wanted.logits, NULL, params.vocab, 1.0f}, row = raw;
    if (wanted.repetition_penalty != 1.0f && wanted.history_tokens > 0) {
        uint32_t *seen = reinterpret_cast<uint32_t *>(memory + sizeof(sample_shared_t));
        mark_history(wanted, params.vocab, seen);
        row.seen = seen;
        row.penalty = wanted.repetition_penalty;
    }
    float max = -INFINITY, sum = 0.0f;
    candidate_t best = 0, best_raw = 0;
    for_ids(raw, [&](uint32_t id, float logit) {
        const float clean = least_if_nan(logit);
        if (clean > max) {
            sum = __fmul_rn(sum, exp2_approx(__fmul_rn(__fsub_rn(max, clean), LOG2_E)));
            max = clean;
        }
        sum = __fadd_rn(sum, clean == max ? 1.0f : exp2_approx(__fmul_rn(__fsub_rn(clean, max), LOG2_E)));
        const candidate_t candidate = candidate_of(clean, id);
        best_raw = candidate > best_raw ? candidate : best_raw;
        if (row.seen == NULL) return;
        const candidate_t other = candidate_of(penalised(row, id, logit), id);
        best = other > best ? other : best;
    });
    if (row.seen == NULL) best = best_raw;
    const candidate_t first_raw = block_max(best_raw, shared);
    const candidate_t first = row.seen == NULL ? first_raw : block_max(best, shared);
    const double all = block_sum(max, sum, logit_of(first_raw), shared);
    uint32_t token = id_of(first);
    if (wanted.forced >= 0) {
        token = (uint32_t)wanted.forced;
    } else if (wanted.temperature > 0.0f) {
        draw_t draw = {};
        draw.inverse = 0x1.71547652b82fep0 / (double)wanted.temperature;
        draw.top_p = wanted.top_p;
        draw.min_p = wanted.min_p;
        draw.max = logit_of(first);
        draw.by_k = wanted.top_k > 0 && wanted.top_k < params.vocab;
        draw.most = draw.by_k ? wanted.top_k : params.vocab;
        draw.by_p = wanted.top_p < 1.0f;
        draw.by_min = wanted.min_p > 0.0f;
        if (threadIdx.x < TABLE) shared.table[threadIdx.x] = exp2((double)threadIdx.x / TABLE);
        __syncthreads();
        token = draw_token(row, draw, wanted, best, shared);
        __syncthreads();
    }
    uint32_t top = wanted.top_logprobs < KERN_TOP_LOGPROBS ? wanted.top_logprobs : KERN_TOP_LOGPROBS;
    if (top == 0) top = 1;
    list_top(raw, min(top, params.vocab), best_raw, first_raw, shared);
    write_drawn(raw, token, top, logit_of(first_raw), all, shared, &params.drawn[blockIdx.x]);
}

cot_status_t kern_cuda_sample(kern_t *kern, const kern_sample_args_t *args)
{
    if (args->rows == 0) return COT_OK;
    const sample_params_t params = {args->draw, args->drawn, kern->config.vocab};
    kern_cuda_launch launch = {};
    launch.grid = dim3(args->rows);
    launch.block = dim3(THREADS);
    launch.shared_bytes = sizeof(sample_shared_t) + (kern->config.vocab + 31) / 32 * sizeof(uint32_t);
    launch.overlap = true;
    return kern_cuda_start(kern, launch, sample_draws, params);
}
