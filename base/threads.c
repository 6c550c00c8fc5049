#include "base/threads.h"

#include "base/memory.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <unistd.h>

enum { SPINS = 2000, THREADS_MAX = 1024 };

struct cot_pool {
    unsigned threads, started; /* the caller counts in threads, not in started */
    pthread_t *thread;
    pthread_mutex_t mutex;
    pthread_cond_t work_came, work_done;
    void (*work)(void *argument, uint32_t part);
    void *argument;
    uint32_t parts;
    atomic_uint next_part;
    atomic_uint generation; /* counts jobs; changes under the mutex */
    atomic_uint busy;       /* threads that have not finished the current job */
    bool ending;
};

static void take_parts(cot_pool_t *pool)
{
    for (;;) {
        uint32_t part = atomic_fetch_add_explicit(&pool->next_part, 1, memory_order_relaxed);
        if (part >= pool->parts) return;
        pool->work(pool->argument, part);
    }
}

/* Waits for a job after `seen`: spins a little, since stages follow each other closely, then sleeps. */
static bool await_job(cot_pool_t *pool, unsigned *seen)
{
    for (int spin = 0; spin < SPINS && atomic_load_explicit(&pool->generation, memory_order_acquire) == *seen; spin++)
        if (spin % 64 == 63) sched_yield();
    pthread_mutex_lock(&pool->mutex);
    while (atomic_load(&pool->generation) == *seen && !pool->ending) pthread_cond_wait(&pool->work_came, &pool->mutex);
    bool ending = pool->ending;
    *seen = atomic_load(&pool->generation);
    pthread_mutex_unlock(&pool->mutex);
    return !ending;
}

static void *run_thread(void *argument)
{
    cot_pool_t *pool = argument;
    unsigned seen = 0;
    while (await_job(pool, &seen)) {
        take_parts(pool);
        if (atomic_fetch_sub_explicit(&pool->busy, 1, memory_order_acq_rel) != 1) continue;
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_signal(&pool->work_done);
        pthread_mutex_unlock(&pool->mutex);
    }
    return NULL;
}

cot_status_t cot_pool_create(unsigned threads, cot_pool_t **pool_out)
{
    if (threads == 0 || threads > THREADS_MAX)
        return cot_fail(COT_ERR_INVALID, "%u threads: must be from 1 to %d", threads, THREADS_MAX);
    cot_pool_t *pool = cot_calloc(1, sizeof(*pool));
    pthread_t *thread = cot_calloc(threads, sizeof(*thread));
    if (pool == NULL || thread == NULL) {
        cot_free(pool);
        cot_free(thread);
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for %u threads", threads);
    }
    pool->threads = threads;
    pool->thread = thread;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work_came, NULL);
    pthread_cond_init(&pool->work_done, NULL);
    while (pool->started + 1 < threads) {
        if (pthread_create(&thread[pool->started], NULL, run_thread, pool) != 0) {
            cot_pool_destroy(pool);
            return cot_fail(COT_ERR_NO_MEMORY, "the system gives no %u threads; lower --threads", threads);
        }
        pool->started++;
    }
    *pool_out = pool;
    return COT_OK;
}

void cot_pool_destroy(cot_pool_t *pool)
{
    if (pool == NULL) return;
    pthread_mutex_lock(&pool->mutex);
    pool->ending = true;
    pthread_cond_broadcast(&pool->work_came);
    pthread_mutex_unlock(&pool->mutex);
    for (unsigned t = 0; t < pool->started; t++) pthread_join(pool->thread[t], NULL);
    pthread_cond_destroy(&pool->work_done);
    pthread_cond_destroy(&pool->work_came);
    pthread_mutex_destroy(&pool->mutex);
    cot_free(pool->thread);
    cot_free(pool);
}

unsigned cot_pool_threads(const cot_pool_t *pool)
{
    return pool != NULL ? pool->threads : 1;
}

void cot_pool_run(cot_pool_t *pool, uint32_t parts, void (*work)(void *argument, uint32_t part), void *argument)
{
    if (pool == NULL || pool->started == 0 || parts <= 1) {
        for (uint32_t part = 0; part < parts; part++) work(argument, part);
        return;
    }
    pthread_mutex_lock(&pool->mutex);
    pool->work = work;
    pool->argument = argument;
    pool->parts = parts;
    atomic_store(&pool->next_part, 0);
    atomic_store(&pool->busy, pool->started);
    atomic_fetch_add(&pool->generation, 1);
    pthread_cond_broadcast(&pool->work_came);
    pthread_mutex_unlock(&pool->mutex);

    take_parts(pool);
    for (int spin = 0; spin < SPINS && atomic_load_explicit(&pool->busy, memory_order_acquire) != 0; spin++)
        if (spin % 64 == 63) sched_yield();
    pthread_mutex_lock(&pool->mutex);
    while (atomic_load_explicit(&pool->busy, memory_order_acquire) != 0)
        pthread_cond_wait(&pool->work_done, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
}

unsigned cot_usable_cores(unsigned node_ranks)
{
    cpu_set_t allowed;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned cores = online > 0 ? (unsigned)online : 1;
    if (node_ranks == 0) node_ranks = 1;
    unsigned share = cores / node_ranks > 0 ? cores / node_ranks : 1;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return share;
    unsigned mine = (unsigned)CPU_COUNT(&allowed);
    /* All cores allowed: share them with the other ranks. One core only: the launcher's default binding, not a wish. */
    if (mine >= cores || mine <= 1) return share;
    return mine;
}
