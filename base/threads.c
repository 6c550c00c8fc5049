#include "base/threads.h"

#include "base/memory.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

enum { SPINS = 2000, THREADS_MAX = 1024 };

/* A job is published by its ticket: the job's number in the upper half, the next part in the lower. A thread that takes
 * a part by compare-and-swap knows that the job it read is still the current one, since that part is not done; so the
 * caller waits for parts alone, never for a thread that the system lets sleep. */
struct cot_pool {
    unsigned threads, started; /* the caller counts in threads, not in started */
    pthread_t *thread;
    pthread_mutex_t mutex;
    pthread_cond_t work_came, work_done;
    void (*_Atomic work)(void *argument, uint32_t part);
    void *_Atomic argument;
    atomic_uint parts, parts_left;
    atomic_uint_least64_t ticket;
    bool ending;
};

static uint32_t job_of(uint64_t ticket)
{
    return (uint32_t)(ticket >> 32);
}

static void take_parts(cot_pool_t *pool)
{
    uint64_t ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
    for (;;) {
        uint32_t part = (uint32_t)ticket;
        void (*work)(void *, uint32_t) = atomic_load_explicit(&pool->work, memory_order_acquire);
        void *argument = atomic_load_explicit(&pool->argument, memory_order_acquire);
        if (part >= atomic_load_explicit(&pool->parts, memory_order_acquire)) return;
        if (!atomic_compare_exchange_weak_explicit(&pool->ticket, &ticket, ticket + 1, memory_order_acq_rel,
                                                   memory_order_acquire))
            continue;
        ticket++;
        work(argument, part);
        if (atomic_fetch_sub_explicit(&pool->parts_left, 1, memory_order_acq_rel) != 1) continue;
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_signal(&pool->work_done);
        pthread_mutex_unlock(&pool->mutex);
    }
}

/* Waits for a job after `seen`: spins a little, since stages follow each other closely, then sleeps. */
static bool await_job(cot_pool_t *pool, uint32_t *seen)
{
    for (int spin = 0; spin < SPINS && job_of(atomic_load_explicit(&pool->ticket, memory_order_acquire)) == *seen;
         spin++)
        if (spin % 64 == 63) sched_yield();
    pthread_mutex_lock(&pool->mutex);
    while (job_of(atomic_load(&pool->ticket)) == *seen && !pool->ending)
        pthread_cond_wait(&pool->work_came, &pool->mutex);
    bool ending = pool->ending;
    *seen = job_of(atomic_load(&pool->ticket));
    pthread_mutex_unlock(&pool->mutex);
    return !ending;
}

static void *run_thread(void *argument)
{
    cot_pool_t *pool = argument;
    uint32_t seen = 0;
    while (await_job(pool, &seen)) take_parts(pool);
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
    uint64_t job = (uint64_t)job_of(atomic_load_explicit(&pool->ticket, memory_order_relaxed)) + 2;
    /* First closed under a number of its own: whoever sees a field of the new job can no longer take a part of the old.
     */
    atomic_store_explicit(&pool->ticket, ((job - 1) << 32) | UINT32_MAX, memory_order_release);
    atomic_store_explicit(&pool->work, work, memory_order_release);
    atomic_store_explicit(&pool->argument, argument, memory_order_release);
    atomic_store_explicit(&pool->parts, parts, memory_order_release);
    atomic_store_explicit(&pool->parts_left, parts, memory_order_release);
    pthread_mutex_lock(&pool->mutex);
    atomic_store_explicit(&pool->ticket, job << 32, memory_order_release);
    pthread_cond_broadcast(&pool->work_came);
    pthread_mutex_unlock(&pool->mutex);

    take_parts(pool);
    for (int spin = 0; spin < SPINS && atomic_load_explicit(&pool->parts_left, memory_order_acquire) != 0; spin++)
        if (spin % 64 == 63) sched_yield();
    pthread_mutex_lock(&pool->mutex);
    while (atomic_load_explicit(&pool->parts_left, memory_order_acquire) != 0)
        pthread_cond_wait(&pool->work_done, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
}

/* What a container's CPU quota amounts to, in whole cores; `cores` where there is none. */
static unsigned quota_cores(unsigned cores)
{
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (file == NULL) return cores;
    unsigned long long quota_us, period_us;
    int fields = fscanf(file, "%llu %llu", &quota_us, &period_us); /* "max 100000" where there is no limit */
    fclose(file);
    if (fields != 2 || period_us == 0 || quota_us / period_us >= cores) return cores;
    return quota_us < period_us ? 1 : (unsigned)(quota_us / period_us);
}

unsigned cot_usable_cores(unsigned node_ranks)
{
    cpu_set_t allowed;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned cores = quota_cores(online > 0 ? (unsigned)online : 1);
    if (node_ranks == 0) node_ranks = 1;
    unsigned share = cores / node_ranks > 0 ? cores / node_ranks : 1;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return share;
    unsigned mine = (unsigned)CPU_COUNT(&allowed);
    /* All cores allowed: share them with the other ranks. One core only: the launcher's default binding, not a wish. */
    if (mine >= cores || mine <= 1) return share;
    return mine;
}
