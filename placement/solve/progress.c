#include "placement/solve/progress.h"

#include "base/log.h"
#include "base/memory.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { POINTS_MAX = 4096, REDRAW_MS = 200, LINE_MS = 1000 };

struct solve_progress {
    solve_progress_config_t config;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    pthread_t thread;
    bool started, over, terminal, drawn, fresh;
    int64_t value; /* INT64_MAX: none yet */
    uint32_t points, bounds;
    solve_point_t point[POINTS_MAX], bound[POINTS_MAX];
};

double solve_natural(const solve_problem_t *problem, int64_t value)
{
    if (problem->objective == SOLVE_STEP_TIME) return (double)value / 1e6 / (double)problem->steps;
    return (double)value / (double)SOLVE_UNIT;
}

const char *solve_unit(const solve_problem_t *problem)
{
    switch (problem->objective) {
    case SOLVE_CROSSINGS: return "transitions x cost";
    case SOLVE_STEP_TIME: return "us";
    case SOLVE_BALANCE: return problem->decode ? "activations" : "rows";
    default: return "transitions x cost + lambda x top_k x ranks x rows";
    }
}

static void describe(const solve_progress_t *progress, char *line, size_t bytes)
{
    const solve_progress_config_t *config = &progress->config;
    int64_t now = cot_now_ns();
    int length = snprintf(line, bytes, "%7.1f s  %s %.6g", (double)(now - config->began_ns) / 1e9,
                          solve_objective_name(config->problem->objective),
                          solve_natural(config->problem, progress->value));
    if (config->bound > 0 && progress->value > 0)
        length += snprintf(line + length, bytes - (size_t)length, "  bound %.6g  gap %.2f %%",
                           solve_natural(config->problem, config->bound),
                           100 * (double)(progress->value - config->bound) / (double)progress->value);
    if (config->deadline != COT_NEVER)
        snprintf(line + length, bytes - (size_t)length, "  %.0f s left",
                 (double)cot_deadline_left_ms(config->deadline) / 1e3);
}

/* With the mutex held. */
static void show(solve_progress_t *progress)
{
    char line[256];
    if (progress->config.quiet || progress->value == INT64_MAX || (!progress->terminal && !progress->fresh)) return;
    describe(progress, line, sizeof(line));
    if (progress->terminal)
        fprintf(stderr, "\r\033[K%s", line);
    else
        cot_log_info("%s", line);
    progress->drawn = true;
    progress->fresh = false;
}

static void *redraw(void *argument)
{
    solve_progress_t *progress = argument;
    pthread_mutex_lock(&progress->mutex);
    while (!progress->over) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        int64_t ns = until.tv_nsec + (progress->terminal ? REDRAW_MS : LINE_MS) * INT64_C(1000000);
        until.tv_sec += ns / 1000000000;
        until.tv_nsec = ns % 1000000000;
        pthread_cond_timedwait(&progress->wake, &progress->mutex, &until);
        show(progress);
    }
    pthread_mutex_unlock(&progress->mutex);
    return NULL;
}

cot_status_t solve_progress_create(const solve_progress_config_t *config, solve_progress_t **progress_out)
{
    solve_progress_t *progress = cot_calloc(1, sizeof(*progress));
    if (progress == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory to show progress");
    progress->config = *config;
    progress->value = INT64_MAX;
    progress->terminal = isatty(STDERR_FILENO) == 1;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&progress->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&progress->mutex, NULL);
    progress->started = pthread_create(&progress->thread, NULL, redraw, progress) == 0;
    *progress_out = progress;
    return COT_OK;
}

/* With the mutex held. When there is no room left, the newest point is the one that is renewed. */
static void add_point(const solve_progress_t *progress, solve_point_t *points, uint32_t *count, int64_t value)
{
    uint32_t at = *count < POINTS_MAX ? (*count)++ : POINTS_MAX - 1;
    double seconds = (double)(cot_now_ns() - progress->config.began_ns) / 1e9;
    points[at] = (solve_point_t){.seconds = seconds, .value = value};
}

void solve_progress_better(void *user, int64_t value)
{
    solve_progress_t *progress = user;
    pthread_mutex_lock(&progress->mutex);
    if (value < progress->value) {
        progress->value = value;
        progress->fresh = true;
        add_point(progress, progress->point, &progress->points, value);
    }
    pthread_mutex_unlock(&progress->mutex);
}

void solve_progress_bound(void *user, int64_t bound)
{
    solve_progress_t *progress = user;
    pthread_mutex_lock(&progress->mutex);
    if (bound > progress->config.bound) {
        progress->config.bound = bound;
        add_point(progress, progress->bound, &progress->bounds, bound);
    }
    pthread_mutex_unlock(&progress->mutex);
}

void solve_progress_end(solve_progress_t *progress)
{
    pthread_mutex_lock(&progress->mutex);
    bool started = progress->started;
    progress->over = true;
    progress->started = false;
    pthread_cond_signal(&progress->wake);
    pthread_mutex_unlock(&progress->mutex);
    if (started) pthread_join(progress->thread, NULL);
    if (progress->terminal && progress->drawn) fprintf(stderr, "\r\033[K");
    progress->drawn = false;
}

const solve_point_t *solve_progress_points(const solve_progress_t *progress, uint32_t *count_out)
{
    *count_out = progress->points;
    return progress->point;
}

const solve_point_t *solve_progress_bounds(const solve_progress_t *progress, uint32_t *count_out)
{
    *count_out = progress->bounds;
    return progress->bound;
}

void solve_progress_destroy(solve_progress_t *progress)
{
    if (progress == NULL) return;
    solve_progress_end(progress);
    pthread_cond_destroy(&progress->wake);
    pthread_mutex_destroy(&progress->mutex);
    cot_free(progress);
}
