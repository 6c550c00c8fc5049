#include "placement/solve/times.h"

#include "base/memory.h"
#include "base/threads.h"
#include "placement/solve/moves.h"

#include <math.h>
#include <string.h>

enum { PHASES = 3, ROUND_WORK = 2000000 };

/* One layer at work. Times in picoseconds. Phases: home dispatch, return; shuffle dispatch, return; coherent gather,
 * dispatch into the layer, dispatch out of it. */
typedef struct {
    const solve_problem_t *problem;
    solve_search_t random;
    uint32_t layer, phases;
    solve_rank_t *rank_of; /* of the layer */
    uint32_t *held;        /* [ranks] */
    double *load, *pairs;  /* [ranks] rows; co-activations of the pairs of experts there */
    double *with;          /* [experts, ranks] co-activations of an expert with the others on a rank */
    double *in, *out;      /* [experts, ranks] coherent: transitions from and to the neighbours' experts on a rank */
    double *busy;          /* [phases, 2, ranks] what a rank sends, receives; without latency */
    double *trial;         /* the same, if the swap were made */
    double *latency;       /* [ranks] dearest of its links, all steps */
    solve_rank_t *kept;
    double tokens, per_home, per_expert;
} layer_t;

typedef struct {
    const solve_problem_t *problem;
    const solve_context_t *context;
    solve_rank_t *rank_of; /* [layers, experts] the best */
    double *value;         /* [layers] of it, as last seen */
    uint64_t round;
    uint32_t parity;
    bool failed;
} times_t;

static double *busy_of(const layer_t *at, double *busy, uint32_t phase, uint32_t way)
{
    return busy + (size_t)(phase * 2 + way) * at->problem->ranks;
}

/* Adds `rows` from rank `from` to rank `to`. */
static void send(const layer_t *at, double *busy, uint32_t phase, const uint32_t link[2], double rows)
{
    double time = rows * (double)at->problem->wire[(size_t)link[0] * at->problem->ranks + link[1]];
    busy_of(at, busy, phase, 0)[link[0]] += time;
    busy_of(at, busy, phase, 1)[link[1]] += time;
}

/* ---- home ---- */

/* Tokens with an expert on a rank: evaluate.h's bound from sums of load and of pairs. */
static double copies(const layer_t *at, double load, double pairs, uint32_t held)
{
    const solve_problem_t *p = at->problem;
    double most = held < p->top_k ? held : p->top_k;
    double seen = p->pairs && most > 0 ? load - floor(2 * pairs / most) : load;
    return seen < at->tokens ? seen : at->tokens;
}

/* A rank's copies and rows changed: every home sends it more, and gets more back. */
static void send_home(const layer_t *at, double *busy, uint32_t rank, double more_copies, double more_rows)
{
    for (uint32_t h = 0; h < at->problem->ranks; h++) {
        if (h == rank) continue;
        send(at, busy, 0, (const uint32_t[]){h, rank}, more_copies * at->per_home);
        send(at, busy, 1, (const uint32_t[]){rank, h}, more_rows * at->per_home);
    }
}

/* ---- shuffle and coherent ---- */

/* An expert's tokens that sit with the others go to them and back (shuffle), or are gathered (coherent). */
static void send_pairs(const layer_t *at, double *busy, uint32_t e, uint32_t rank, double sign)
{
    const solve_problem_t *p = at->problem;
    const double *with = at->with + (size_t)e * p->ranks;
    bool back = p->exchange == SOLVE_SHUFFLE;
    for (uint32_t g = 0; g < p->ranks; g++) {
        if (g == rank || with[g] == 0) continue;
        double rows = sign * with[g] * at->per_expert;
        for (uint32_t phase = 0; phase < (back ? 2U : 1U); phase++) {
            send(at, busy, phase, (const uint32_t[]){rank, g}, rows);
            send(at, busy, phase, (const uint32_t[]){g, rank}, rows);
        }
    }
}

static void send_chain(const layer_t *at, double *busy, uint32_t e, uint32_t rank, double sign)
{
    const solve_problem_t *p = at->problem;
    for (uint32_t g = 0; g < p->ranks; g++) {
        if (g == rank) continue;
        double in = at->in[(size_t)e * p->ranks + g], out = at->out[(size_t)e * p->ranks + g];
        if (in != 0) send(at, busy, 1, (const uint32_t[]){g, rank}, sign * in * at->per_expert);
        if (out != 0) send(at, busy, 2, (const uint32_t[]){rank, g}, sign * out * at->per_expert);
    }
}

/* ---- the layer ---- */

static const int64_t *pairs_of(const layer_t *at, uint32_t e)
{
    const solve_problem_t *p = at->problem;
    return p->stats->coactivation + ((size_t)at->layer * p->experts + e) * p->experts;
}

static void fill_tables(layer_t *at, const solve_rank_t *before, const solve_rank_t *after)
{
    const solve_problem_t *p = at->problem;
    size_t cells = (size_t)p->experts * p->ranks;
    memset(at->with, 0, cells * sizeof(*at->with));
    memset(at->in, 0, cells * sizeof(*at->in));
    memset(at->out, 0, cells * sizeof(*at->out));
    for (uint32_t e = 0; e < p->experts; e++)
        for (uint32_t f = 0; f < p->experts; f++) {
            size_t row = (size_t)e * p->ranks;
            if (p->pairs && e != f) at->with[row + at->rank_of[f]] += (double)pairs_of(at, e)[f];
            if (before != NULL) at->in[row + before[f]] += solve_column(p, at->layer - 1, e)[f];
            if (after != NULL) at->out[row + after[f]] += solve_row(p, at->layer, e)[f];
        }
}

static void fill_busy(layer_t *at)
{
    const solve_problem_t *p = at->problem;
    memset(at->held, 0, p->ranks * sizeof(*at->held));
    memset(at->load, 0, p->ranks * sizeof(*at->load));
    memset(at->pairs, 0, p->ranks * sizeof(*at->pairs));
    memset(at->busy, 0, (size_t)PHASES * 2 * p->ranks * sizeof(*at->busy));
    for (uint32_t e = 0; e < p->experts; e++) {
        uint32_t rank = at->rank_of[e];
        at->held[rank]++;
        at->load[rank] += (double)p->load[(size_t)at->layer * p->experts + e];
        at->pairs[rank] += at->with[(size_t)e * p->ranks + rank] / 2;
        /* Each pair is met from both its ends. */
        if (p->exchange != SOLVE_HOME) send_pairs(at, at->busy, e, rank, 0.5);
        if (p->exchange == SOLVE_COHERENT) send_chain(at, at->busy, e, rank, 1);
    }
    for (uint32_t r = 0; p->exchange == SOLVE_HOME && r < p->ranks; r++)
        send_home(at, at->busy, r, copies(at, at->load[r], at->pairs[r], at->held[r]), at->load[r]);
}

static double judge(const layer_t *at, const double *load, const double *busy)
{
    const solve_problem_t *p = at->problem;
    double compute = 0, value = 0;
    for (uint32_t r = 0; r < p->ranks; r++) {
        double time = load[r] * (double)p->slowness[r];
        compute = time > compute ? time : compute;
    }
    if (p->decode) compute /= SOLVE_UNIT;
    for (uint32_t phase = 0; phase < at->phases; phase++) {
        double most = 0;
        for (uint32_t i = 0; i < 2 * p->ranks; i++) {
            double time = busy[(size_t)phase * 2 * p->ranks + i];
            if (time > 0) time += at->latency[i % p->ranks];
            most = time > most ? time : most;
        }
        value += most;
    }
    return value + compute;
}

typedef struct {
    uint32_t e, f, a, b; /* e goes from a to b, f (experts: a free slot) from b to a */
    double load[2], pairs[2];
} move_t;

static double joint(const layer_t *at, const move_t *move)
{
    return at->problem->pairs && move->f < at->problem->experts ? (double)pairs_of(at, move->e)[move->f] : 0;
}

/* What all ranks would send and receive; into at->trial. */
static void try_move(layer_t *at, move_t *move)
{
    const solve_problem_t *p = at->problem;
    const double *with_e = at->with + (size_t)move->e * p->ranks;
    const double *with_f = at->with + (size_t)(move->f < p->experts ? move->f : move->e) * p->ranks;
    const int64_t *tokens = p->load + (size_t)at->layer * p->experts;
    bool swap = move->f < p->experts;
    double shift = (double)(tokens[move->e] - (swap ? tokens[move->f] : 0)), both = joint(at, move);
    uint32_t a = move->a, b = move->b;
    memcpy(at->trial, at->busy, (size_t)at->phases * 2 * p->ranks * sizeof(*at->trial));
    move->load[0] = at->load[a] - shift;
    move->load[1] = at->load[b] + shift;
    move->pairs[0] = at->pairs[a] - with_e[a] + (swap ? with_f[a] - both : 0);
    move->pairs[1] = at->pairs[b] + with_e[b] + (swap ? -with_f[b] - both : 0);
    if (p->exchange == SOLVE_HOME) {
        uint32_t gone = swap ? 0 : 1;
        send_home(at, at->trial, a,
                  copies(at, move->load[0], move->pairs[0], at->held[a] - gone) -
                      copies(at, at->load[a], at->pairs[a], at->held[a]),
                  -shift);
        send_home(at, at->trial, b,
                  copies(at, move->load[1], move->pairs[1], at->held[b] + gone) -
                      copies(at, at->load[b], at->pairs[b], at->held[b]),
                  shift);
        return;
    }
    send_pairs(at, at->trial, move->e, a, -1);
    send_pairs(at, at->trial, move->e, b, 1);
    if (swap) send_pairs(at, at->trial, move->f, b, -1);
    if (swap) send_pairs(at, at->trial, move->f, a, 1);
    /* e and f were taken for where the other no longer is: they stay on two ranks, before and after. */
    for (uint32_t phase = 0; both > 0 && phase < (p->exchange == SOLVE_SHUFFLE ? 2U : 1U); phase++) {
        send(at, at->trial, phase, (const uint32_t[]){a, b}, 2 * both * at->per_expert);
        send(at, at->trial, phase, (const uint32_t[]){b, a}, 2 * both * at->per_expert);
    }
    if (p->exchange != SOLVE_COHERENT) return;
    send_chain(at, at->trial, move->e, a, -1);
    send_chain(at, at->trial, move->e, b, 1);
    if (swap) send_chain(at, at->trial, move->f, b, -1);
    if (swap) send_chain(at, at->trial, move->f, a, 1);
}

static void make_move(layer_t *at, const move_t *move)
{
    const solve_problem_t *p = at->problem;
    bool swap = move->f < p->experts;
    for (uint32_t x = 0; p->pairs && x < p->experts; x++) {
        double shift = x != move->e ? (double)pairs_of(at, move->e)[x] : 0;
        if (swap && x != move->f) shift -= (double)pairs_of(at, move->f)[x];
        at->with[(size_t)x * p->ranks + move->a] -= shift;
        at->with[(size_t)x * p->ranks + move->b] += shift;
    }
    at->rank_of[move->e] = (solve_rank_t)move->b;
    if (swap) at->rank_of[move->f] = (solve_rank_t)move->a;
    if (!swap) {
        at->held[move->a]--;
        at->held[move->b]++;
    }
    at->load[move->a] = move->load[0];
    at->load[move->b] = move->load[1];
    at->pairs[move->a] = move->pairs[0];
    at->pairs[move->b] = move->pairs[1];
    double *kept = at->busy;
    at->busy = at->trial;
    at->trial = kept;
}

static bool draw(layer_t *at, move_t *move)
{
    const solve_problem_t *p = at->problem;
    uint64_t bits = solve_random(&at->random);
    move->e = (uint32_t)(((bits & 0xffffff) * p->experts) >> 24);
    uint32_t choices = p->experts + (p->free_slots < p->experts ? p->free_slots : p->experts);
    move->f = (uint32_t)((((bits >> 24) & 0xffffff) * choices) >> 24);
    move->a = at->rank_of[move->e];
    if (move->f < p->experts) {
        move->b = at->rank_of[move->f];
    } else {
        move->b = move->f % p->ranks;
        move->f = p->experts;
        if (at->held[move->b] >= p->slots[move->b]) return false;
    }
    return move->a != move->b;
}

/* Value if the move were made; the table of loads is put back. */
static double value_of(layer_t *at, move_t *move)
{
    try_move(at, move);
    double a = at->load[move->a], b = at->load[move->b];
    at->load[move->a] = move->load[0];
    at->load[move->b] = move->load[1];
    double value = judge(at, at->load, at->trial);
    at->load[move->a] = a;
    at->load[move->b] = b;
    return value;
}

static double mean_change(layer_t *at, double value)
{
    double sum = 0;
    uint32_t drawn = 0;
    move_t move;
    for (uint32_t i = 0; i < 200; i++)
        if (draw(at, &move)) {
            sum += fabs(value_of(at, &move) - value);
            drawn++;
        }
    return drawn > 0 ? sum / drawn : 0;
}

/* Anneals the layer; its placement becomes the best seen. Returns that one's value. */
static double anneal(layer_t *at, uint64_t trials, double heat, const solve_context_t *context)
{
    const solve_problem_t *p = at->problem;
    double value = judge(at, at->load, at->busy), best = value, scale = mean_change(at, value);
    memcpy(at->kept, at->rank_of, p->experts * sizeof(*at->kept));
    for (uint64_t t = 0; t < trials; t++) {
        double temperature = 0;
        if (t % 256 == 0 && solve_context_over(context)) break;
        temperature = scale * heat * exp(-5.0 * (double)(t / 64 * 64) / (double)trials);
        move_t move;
        if (!draw(at, &move)) continue;
        double now = value_of(at, &move);
        double chance = (double)(solve_random(&at->random) >> 11) * 0x1p-53;
        if (now > value && chance >= exp((value - now) / (temperature > 0 ? temperature : 1e-9))) continue;
        make_move(at, &move);
        value = now;
        if (value >= best) continue;
        best = value;
        memcpy(at->kept, at->rank_of, p->experts * sizeof(*at->kept));
    }
    memcpy(at->rank_of, at->kept, p->experts * sizeof(*at->kept));
    return best;
}

/* ---- rounds ---- */

static bool take(layer_t *at)
{
    const solve_problem_t *p = at->problem;
    size_t cells = (size_t)p->experts * p->ranks, busy = (size_t)PHASES * 2 * p->ranks;
    at->held = cot_calloc(p->ranks, sizeof(*at->held));
    at->load = cot_calloc(3 * (size_t)p->ranks + 3 * cells + 2 * busy, sizeof(*at->load));
    at->rank_of = cot_calloc(2 * (size_t)p->experts, sizeof(*at->rank_of));
    if (at->held == NULL || at->load == NULL || at->rank_of == NULL) return false;
    at->kept = at->rank_of + p->experts;
    at->pairs = at->load + p->ranks;
    at->latency = at->pairs + p->ranks;
    at->with = at->latency + p->ranks;
    at->in = at->with + cells;
    at->out = at->in + cells;
    at->busy = at->out + cells;
    at->trial = at->busy + busy;
    for (uint32_t r = 0; r < p->ranks; r++)
        for (uint32_t g = 0; g < p->ranks; g++)
            at->latency[r] = fmax(at->latency[r], (double)p->latency[(size_t)r * p->ranks + g]);
    return true;
}

static void work_layer(void *argument, uint32_t part)
{
    times_t *times = argument;
    const solve_problem_t *p = times->problem;
    static const double HEAT[] = {0.5, 0.1, 0.3, 0.05};
    layer_t at = {.problem = p,
                  .layer = part * 2 + times->parity,
                  .phases = p->exchange == SOLVE_COHERENT ? 3 : 2,
                  .tokens = ceil(p->tokens),
                  .per_home = 1.0 / p->ranks,
                  .per_expert = 1.0 / p->top_k};
    at.random.random = (times->context->seed * 0x10001 + times->round) * 0x100003 + at.layer;
    double *first = NULL;
    bool whole = take(&at);
    first = at.load;
    if (whole) {
        solve_rank_t *best = times->rank_of + (size_t)at.layer * p->experts;
        bool chain = p->exchange == SOLVE_COHERENT;
        memcpy(at.rank_of, best, p->experts * sizeof(*best));
        fill_tables(&at, chain && at.layer > 0 ? best - p->experts : NULL,
                    chain && at.layer + 1 < p->layers ? best + p->experts : NULL);
        fill_busy(&at);
        uint64_t trials = ROUND_WORK / ((uint64_t)p->layers * p->ranks) + 1000;
        times->value[at.layer] = anneal(&at, trials, HEAT[times->round % 4], times->context);
        memcpy(best, at.rank_of, p->experts * sizeof(*best));
    } else {
        times->failed = true;
    }
    cot_free(at.held);
    cot_free(first);
    cot_free(at.rank_of);
}

static void run_rounds(times_t *times, cot_pool_t *pool)
{
    const solve_context_t *context = times->context;
    uint32_t layers = times->problem->layers;
    do {
        double sum = 0;
        for (times->parity = 0; times->parity < 2; times->parity++)
            cot_pool_run(pool, (layers + 1 - times->parity) / 2, work_layer, times);
        times->round++;
        for (uint32_t l = 0; l < layers; l++) sum += times->value[l];
        if (context->better != NULL && !times->failed) context->better(context->user, llround(sum));
    } while (!times->failed && !solve_context_over(context) && (context->work == 0 || times->round < context->work));
}

static cot_status_t find_start(times_t *times)
{
    if (times->context->start != NULL)
        return solve_plan_to_ranks(times->problem, times->context->start, times->rank_of);
    solve_problem_t loads = *times->problem; /* the same without transitions: balanced by load alone */
    loads.transition = loads.transposed = NULL;
    solve_search_t search;
    COT_TRY(solve_search_create(&loads, times->context->seed, &search));
    search.stop = times->context->stop;
    search.deadline = times->context->deadline;
    solve_greedy(&search);
    memcpy(times->rank_of, search.table->rank_of, solve_cells(&loads) * sizeof(*times->rank_of));
    solve_search_destroy(&search);
    return COT_OK;
}

cot_status_t solve_times(const solve_problem_t *problem, const solve_context_t *context, solve_answer_t *answer_out)
{
    if (problem->objective != SOLVE_STEP_TIME)
        return cot_fail(COT_ERR_UNSUPPORTED, "this solver is for the objective step_time");
    times_t times = {.problem = problem, .context = context};
    solve_answer_t answer = {0};
    cot_pool_t *pool = NULL;
    times.rank_of = cot_calloc(solve_cells(problem), sizeof(*times.rank_of));
    times.value = cot_calloc(problem->layers, sizeof(*times.value));
    cot_status_t status = cot_pool_create(context->threads, &pool);
    if (status == COT_OK && (times.rank_of == NULL || times.value == NULL))
        status = cot_fail(COT_ERR_NO_MEMORY, "no memory to search");
    if (status == COT_OK) status = find_start(&times);
    if (status == COT_OK) {
        run_rounds(&times, pool);
        answer.work = times.round;
        if (times.failed) status = cot_fail(COT_ERR_NO_MEMORY, "no memory to search");
    }
    if (status == COT_OK) status = solve_plan_from_ranks(problem, times.rank_of, &answer.plan);
    cot_pool_destroy(pool);
    cot_free(times.rank_of);
    cot_free(times.value);
    COT_TRY(status);
    *answer_out = answer;
    return COT_OK;
}
