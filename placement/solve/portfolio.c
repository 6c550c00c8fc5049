#include "placement/solve/portfolio.h"

#include "base/memory.h"
#include "placement/solve/attempts.h"

#include <pthread.h>
#include <string.h>

enum { STREAMS = 4 }; /* fixed, so that results do not depend on the number of threads */

typedef struct {
    solve_search_t search;
    solve_rank_t *best; /* of this stream */
    int64_t value;
} stream_t;

typedef struct {
    const solve_problem_t *problem;
    const solve_context_t *context;
    stream_t stream[STREAMS];
    solve_rank_t *start; /* NULL: none */
    solve_rank_t *best;  /* of all, at the last round's end */
    int64_t value;
    uint64_t round;
    pthread_mutex_t mutex;
    uint32_t next_stream;
} portfolio_t;

/* One round of one stream: a pure function of the problem, the seed, the stream's number and what it starts from. */
static void run_round(portfolio_t *portfolio, uint32_t number)
{
    stream_t *stream = &portfolio->stream[number];
    solve_search_t *search = &stream->search;
    const solve_problem_t *p = portfolio->problem;
    uint64_t cells = solve_cells(p);
    if (portfolio->round == 0) {
        if (number == 0 && portfolio->start != NULL)
            solve_table_set(search->table, portfolio->start);
        else
            solve_greedy(search);
        if (number == 0 && portfolio->start != NULL) solve_descend(search);
    } else {
        /* Streams with an odd number go on from the best of all, the others from their own. */
        solve_table_set(search->table, number % 2 == 1 ? portfolio->best : stream->best);
        static const double HEAT[] = {0.06, 0.2, 0.02, 0.12, 0.4};
        bool small = p->experts <= 64;
        uint64_t turn = portfolio->round + number;
        if (small ? turn % 3 != 0 : turn % 4 == 0)
            solve_kicks(search, (uint32_t)(4000000 / cells / p->ranks + 8));
        else
            solve_anneal(search, cells * (small ? 1500 : 4000), HEAT[(portfolio->round / 2 + number) % 5]);
    }
    int64_t value = solve_table_value(search->table);
    if (portfolio->round == 0 || value < stream->value) {
        stream->value = value;
        memcpy(stream->best, search->table->rank_of, cells * sizeof(*stream->best));
    }
}

static void *run_streams(void *argument)
{
    portfolio_t *portfolio = argument;
    for (;;) {
        pthread_mutex_lock(&portfolio->mutex);
        uint32_t number = portfolio->next_stream++;
        pthread_mutex_unlock(&portfolio->mutex);
        if (number >= STREAMS) return NULL;
        run_round(portfolio, number);
    }
}

/* The merge at a round's end: the best stream, ties to the lowest number. */
static void merge(portfolio_t *portfolio)
{
    for (uint32_t s = 0; s < STREAMS; s++) {
        const stream_t *stream = &portfolio->stream[s];
        if (portfolio->value <= stream->value) continue;
        portfolio->value = stream->value;
        memcpy(portfolio->best, stream->best, solve_cells(portfolio->problem) * sizeof(*portfolio->best));
        if (portfolio->context->better != NULL) portfolio->context->better(portfolio->context->user, stream->value);
    }
}

static void run_all_streams(portfolio_t *portfolio)
{
    pthread_t thread[STREAMS];
    uint32_t threads = portfolio->context->threads < STREAMS ? portfolio->context->threads : STREAMS, started = 0;
    portfolio->next_stream = 0;
    while (started + 1 < threads && pthread_create(&thread[started], NULL, run_streams, portfolio) == 0) started++;
    run_streams(portfolio);
    while (started > 0) pthread_join(thread[--started], NULL);
}

static bool over(const portfolio_t *portfolio)
{
    const solve_context_t *context = portfolio->context;
    return solve_context_over(context) || (context->work > 0 && portfolio->round >= context->work);
}

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
        stream->best = cot_calloc(cells, sizeof(*stream->best));
        if (stream->best == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory to search");
    }
    return COT_OK;
}

cot_status_t solve_portfolio(const solve_problem_t *problem, const solve_context_t *context, solve_answer_t *answer_out)
{
    portfolio_t portfolio = {.problem = problem, .context = context};
    solve_answer_t answer = {0};
    cot_status_t status = create(&portfolio);
    if (status == COT_OK) {
        pthread_mutex_init(&portfolio.mutex, NULL);
        do {
            run_all_streams(&portfolio);
            merge(&portfolio);
            portfolio.round++;
        } while (!over(&portfolio));
        pthread_mutex_destroy(&portfolio.mutex);
        answer.work = portfolio.round;
        status = solve_plan_from_ranks(problem, portfolio.best, &answer.plan);
    }
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
