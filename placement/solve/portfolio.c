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
    const solve_portfolio_t *config;
    stream_t stream[STREAMS];
    solve_rank_t *best; /* of all, at the last round's end */
    int64_t value;
    uint64_t round;
    int64_t began_ns;
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
        if (number == 0 && portfolio->config->start != NULL)
            solve_table_set(search->table, portfolio->config->start);
        else
            solve_greedy(search);
        if (number == 0 && portfolio->config->start != NULL) solve_descend(search);
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
        if (portfolio->config->better != NULL)
            portfolio->config->better(portfolio->config->user, stream->value,
                                      (double)(cot_now_ns() - portfolio->began_ns) / 1e9);
    }
}

static void run_all_streams(portfolio_t *portfolio)
{
    pthread_t thread[STREAMS];
    uint32_t threads = portfolio->config->threads < STREAMS ? portfolio->config->threads : STREAMS, started = 0;
    portfolio->next_stream = 0;
    while (started + 1 < threads && pthread_create(&thread[started], NULL, run_streams, portfolio) == 0) started++;
    run_streams(portfolio);
    while (started > 0) pthread_join(thread[--started], NULL);
}

static bool over(const portfolio_t *portfolio)
{
    const solve_portfolio_t *config = portfolio->config;
    if (config->stop != NULL && *config->stop) return true;
    return config->rounds > 0 ? portfolio->round >= config->rounds : cot_deadline_passed(config->deadline);
}

static cot_status_t create(portfolio_t *portfolio)
{
    size_t cells = solve_cells(portfolio->problem);
    portfolio->value = INT64_MAX;
    portfolio->best = cot_calloc(cells, sizeof(*portfolio->best));
    if (portfolio->best == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory to search");
    for (uint32_t s = 0; s < STREAMS; s++) {
        stream_t *stream = &portfolio->stream[s];
        COT_TRY(solve_search_create(portfolio->problem, portfolio->config->seed * STREAMS + s, &stream->search));
        stream->search.stop = portfolio->config->stop;
        if (portfolio->config->rounds == 0) stream->search.deadline = portfolio->config->deadline;
        stream->best = cot_calloc(cells, sizeof(*stream->best));
        if (stream->best == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory to search");
    }
    return COT_OK;
}

cot_status_t solve_portfolio(const solve_problem_t *problem, const solve_portfolio_t *config, solve_rank_t *rank_of,
                             uint64_t *rounds_out)
{
    portfolio_t portfolio = {.problem = problem, .config = config, .began_ns = cot_now_ns()};
    cot_status_t status = create(&portfolio);
    if (status == COT_OK) {
        pthread_mutex_init(&portfolio.mutex, NULL);
        do {
            run_all_streams(&portfolio);
            merge(&portfolio);
            portfolio.round++;
        } while (!over(&portfolio));
        pthread_mutex_destroy(&portfolio.mutex);
        memcpy(rank_of, portfolio.best, solve_cells(problem) * sizeof(*rank_of));
        *rounds_out = portfolio.round;
    }
    for (uint32_t s = 0; s < STREAMS; s++) {
        cot_free(portfolio.stream[s].best);
        if (portfolio.stream[s].search.table != NULL) solve_search_destroy(&portfolio.stream[s].search);
    }
    cot_free(portfolio.best);
    return status;
}
