/* A fixed number of seeded streams. The first round of each is a greedy start; then cycles of annealing, a number of
 * rounds each, cooled from the cycle's first round to its last and descended at its end. How many rounds there are and
 * how they fall into cycles is a function of `work` alone. With a deadline `work` is set when one round was timed, so
 * that the plan can be made again with that number. */
#include "placement/solve/portfolio.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include "placement/solve/anneal.h"

#include <math.h>
#include <string.h>

enum { STREAMS = 4, ROUND_TRIALS = 400000 };

/* Temperatures, in mean changes of a random swap: hot cycles forget where they began, warm ones do not. */
#define HOT 0.6
#define WARM 0.12
#define COLD 0.02

/* The share of the time left that is planned for: what a machine under load takes back. */
#define PLANNED 0.92

typedef struct {
    solve_search_t search;
    solve_rank_t *best;         /* of this stream */
    int64_t value, cycle_value; /* of best; of the last cycle's end */
    bool hot;
} stream_t;

typedef struct {
    const solve_problem_t *problem;
    const solve_context_t *context;
    stream_t stream[STREAMS];
    solve_rank_t *start; /* NULL: none */
    solve_rank_t *best;  /* of all, at the last round's end */
    int64_t value;
    double scale;
    uint64_t work, round; /* all rounds (0: not yet set), rounds done */
    int64_t cycle_began_ns;
    uint64_t cycle, cycle_begin, cycle_end; /* cycle 0 is the start */
} portfolio_t;

/* ---- rounds ---- */

static void record(portfolio_t *portfolio, stream_t *stream)
{
    int64_t value = solve_table_value(stream->search.table);
    stream->cycle_value = value;
    if (value >= stream->value) return;
    stream->value = value;
    memcpy(stream->best, stream->search.table->rank_of, solve_cells(portfolio->problem) * sizeof(*stream->best));
}

/* Where nodes matter: first as if all links cost the same, which finds what belongs on one rank; then which ranks
 * belong on one node. */
static bool start_flat(portfolio_t *portfolio, solve_search_t *search)
{
    const solve_problem_t *p = portfolio->problem;
    if (p->transition == NULL || !p->uniform || p->nodes < 2 || p->near_cost == p->far_cost) return false;
    solve_problem_t flat = *p;
    size_t links = (size_t)p->ranks * p->ranks;
    solve_search_t flat_search;
    flat.near_cost = p->far_cost;
    flat.cost = cot_calloc(links, sizeof(*flat.cost));
    for (size_t i = 0; flat.cost != NULL && i < links; i++)
        flat.cost[i] = i / p->ranks == i % p->ranks ? 0 : p->far_cost;
    bool ready = flat.cost != NULL && solve_search_create(&flat, solve_random(search), &flat_search) == COT_OK;
    if (ready) {
        flat_search.stop = search->stop;
        flat_search.deadline = search->deadline;
        solve_greedy(&flat_search);
        solve_table_set(search->table, flat_search.table->rank_of);
        solve_descend(search);
        solve_search_destroy(&flat_search);
    }
    cot_free(flat.cost);
    return ready;
}

static void start_round(portfolio_t *portfolio, uint32_t number)
{
    solve_search_t *search = &portfolio->stream[number].search;
    if (number == 0 && portfolio->start != NULL) {
        solve_table_set(search->table, portfolio->start);
        solve_descend(search);
    } else if (number == 0 || !start_flat(portfolio, search)) {
        solve_greedy(search);
    }
    record(portfolio, &portfolio->stream[number]);
}

static void redraw_pairs(solve_search_t *search, double temperature)
{
    const solve_problem_t *p = search->table->problem;
    if (p->transition == NULL || !p->tiered || p->ranks < 2) return;
    for (uint32_t i = 0; i < (p->ranks + 3) / 4; i++) {
        uint32_t a = (uint32_t)(solve_random(search) % p->ranks);
        uint32_t b = (a + 1 + (uint32_t)(solve_random(search) % (p->ranks - 1))) % p->ranks;
        solve_annealer_pair(search->annealer, search, (const uint32_t[]){a, b}, temperature);
    }
}

/* Takes the annealer's placement over and brings it to rest. */
static void finish_cycle(portfolio_t *portfolio, stream_t *stream)
{
    solve_search_t *search = &stream->search;
    solve_annealer_sweep(search->annealer, search, 0);
    solve_table_set(search->table, solve_annealer_get(search->annealer));
    solve_descend(search);
    record(portfolio, stream);
}

static void anneal_round(portfolio_t *portfolio, uint32_t number)
{
    stream_t *stream = &portfolio->stream[number];
    solve_search_t *search = &stream->search;
    uint64_t sweeps = ROUND_TRIALS / SOLVE_ANNEAL_STAY / solve_cells(portfolio->problem) + 1;
    uint64_t length = (portfolio->cycle_end - portfolio->cycle_begin) * sweeps;
    uint64_t done = (portfolio->round - portfolio->cycle_begin) * sweeps;
    double first = stream->hot ? HOT : WARM;
    if (done == 0) solve_annealer_set(search->annealer, number % 2 == 1 ? portfolio->best : stream->best);
    for (uint64_t i = done; i < done + sweeps && !solve_search_over(search); i++) {
        double temperature = portfolio->scale * first * pow(COLD / first, (double)i / (double)length);
        solve_annealer_sweep(search->annealer, search, temperature);
        redraw_pairs(search, temperature);
    }
    if (portfolio->round + 1 == portfolio->cycle_end || solve_search_over(search)) finish_cycle(portfolio, stream);
}

static void run_stream(void *argument, uint32_t number)
{
    portfolio_t *portfolio = argument;
    if (portfolio->cycle == 0)
        start_round(portfolio, number);
    else
        anneal_round(portfolio, number);
}

/* The merge at a round's end: the best stream, ties to the lowest number. */
static void merge(portfolio_t *portfolio)
{
    const solve_context_t *context = portfolio->context;
    for (uint32_t s = 0; s < STREAMS; s++) {
        const stream_t *stream = &portfolio->stream[s];
        if (portfolio->value <= stream->value) continue;
        portfolio->value = stream->value;
        memcpy(portfolio->best, stream->best, solve_cells(portfolio->problem) * sizeof(*portfolio->best));
        if (context->better != NULL) context->better(context->user, stream->value);
    }
}

/* ---- cycles ---- */

/* Half of the streams hot, half warm; from then on three of the kind that did better. */
static void share_kinds(portfolio_t *portfolio)
{
    int64_t hot = INT64_MAX, warm = INT64_MAX;
    for (uint32_t s = 0; s < STREAMS; s++) {
        const stream_t *stream = &portfolio->stream[s];
        int64_t *kind = stream->hot ? &hot : &warm;
        if (stream->cycle_value < *kind) *kind = stream->cycle_value;
    }
    for (uint32_t s = 0; s < STREAMS; s++)
        portfolio->stream[s].hot = portfolio->cycle == 1 ? s % 2 == 0 : (hot < warm) != (s == STREAMS - 1);
}

/* Rounds that fit until the deadline, as long as those of the cycle that has ended. */
static uint64_t rounds_left(const portfolio_t *portfolio)
{
    int64_t now = cot_now_ns(), took = now - portfolio->cycle_began_ns;
    uint64_t rounds = portfolio->round - portfolio->cycle_begin;
    double each = (double)(took > 0 ? took : 1) / (double)rounds;
    double left = (double)(portfolio->context->deadline - now) * PLANNED / each;
    return left >= 1 ? (uint64_t)left : 0;
}

/* After the start cycles of 1, 2, 4, … rounds; the last one takes all that is left once that is less than two of its
 * turn. With a deadline the rounds left are an estimate until then: what is left is at least half a turn, or the cycle
 * before would have been the last, so a shorter rest is not used. */
static bool next_cycle(portfolio_t *portfolio)
{
    uint64_t turn = UINT64_C(1) << (portfolio->cycle < 62 ? portfolio->cycle : 62), length = turn;
    uint64_t left = portfolio->work > 0 ? portfolio->work - portfolio->round : rounds_left(portfolio);
    if (portfolio->work > 0 && left == 0) return false;
    if (portfolio->work == 0 && portfolio->cycle > 0 && left < turn / 2) return false;
    if (left < 2 * turn) {
        length = left > 0 ? left : 1;
        portfolio->work = portfolio->round + length;
    }
    portfolio->cycle++;
    portfolio->cycle_begin = portfolio->round;
    portfolio->cycle_end = portfolio->round + length;
    portfolio->cycle_began_ns = cot_now_ns();
    share_kinds(portfolio);
    return true;
}

static void run_rounds(portfolio_t *portfolio, cot_pool_t *pool)
{
    const solve_context_t *context = portfolio->context;
    bool more = true;
    portfolio->cycle_end = 1;
    portfolio->work = context->work;
    portfolio->cycle_began_ns = cot_now_ns();
    while (more) {
        cot_pool_run(pool, STREAMS, run_stream, portfolio);
        portfolio->round++;
        merge(portfolio);
        if (portfolio->round == portfolio->cycle_end) more = next_cycle(portfolio);
        more = more && !solve_context_over(context);
    }
    if (portfolio->round < portfolio->work)
        cot_log_debug("stopped in round %llu of %llu", (unsigned long long)portfolio->round,
                      (unsigned long long)portfolio->work);
}

/* ---- the whole ---- */

static cot_status_t create(portfolio_t *portfolio)
{
    size_t cells = solve_cells(portfolio->problem);
    portfolio->value = INT64_MAX;
    portfolio->best = cot_calloc(cells, sizeof(*portfolio->best));
    if (portfolio->best == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory to search");
    if (portfolio->context->start != NULL) {
        portfolio->start = cot_calloc(cells, sizeof(*portfolio->start));
        if (portfolio->start == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory to search");
        COT_TRY(solve_plan_to_ranks(portfolio->problem, portfolio->context->start, portfolio->start));
    }
    for (uint32_t s = 0; s < STREAMS; s++) {
        stream_t *stream = &portfolio->stream[s];
        COT_TRY(solve_search_create(portfolio->problem, portfolio->context->seed * STREAMS + s, &stream->search));
        stream->search.stop = portfolio->context->stop;
        stream->search.deadline = portfolio->context->deadline;
        stream->value = INT64_MAX;
        stream->best = cot_calloc(cells, sizeof(*stream->best));
        if (stream->best == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory to search");
    }
    solve_search_t *search = &portfolio->stream[0].search;
    solve_contiguous(portfolio->problem, portfolio->best);
    solve_annealer_set(search->annealer, portfolio->best);
    portfolio->scale = solve_annealer_scale(search->annealer, search);
    return COT_OK;
}

cot_status_t solve_portfolio(const solve_problem_t *problem, const solve_context_t *context, solve_answer_t *answer_out)
{
    portfolio_t portfolio = {.problem = problem, .context = context};
    solve_answer_t answer = {0};
    cot_pool_t *pool = NULL;
    cot_status_t status = cot_pool_create(context->threads < STREAMS ? context->threads : STREAMS, &pool);
    if (status == COT_OK) status = create(&portfolio);
    if (status == COT_OK) {
        run_rounds(&portfolio, pool);
        answer.work = portfolio.round;
        status = solve_plan_from_ranks(problem, portfolio.best, &answer.plan);
    }
    cot_pool_destroy(pool);
    for (uint32_t s = 0; s < STREAMS; s++) {
        cot_free(portfolio.stream[s].best);
        if (portfolio.stream[s].search.table != NULL) solve_search_destroy(&portfolio.stream[s].search);
    }
    cot_free(portfolio.best);
    cot_free(portfolio.start);
    COT_TRY(status);
    *answer_out = answer;
    return COT_OK;
}
