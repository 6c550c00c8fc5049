/* The thread pool: every part once, also when jobs follow each other without a pause. Meant to be run under the thread
 * sanitizer too. */
#include "base/threads.h"
#include "tests/temporary.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

enum { PARTS = 1000, ROUNDS = 20000 };

typedef struct {
    atomic_uint calls[PARTS];
    uint64_t sum[PARTS]; /* plain memory: seen by the caller after the job without more ado */
    uint64_t round;
} job_t;

static void work(void *argument, uint32_t part)
{
    job_t *job = argument;
    atomic_fetch_add(&job->calls[part], 1);
    job->sum[part] += job->round + part;
}

static void every_part_runs_once(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 9; threads += 4) {
        cot_pool_t *pool = NULL;
        assert_ok(cot_pool_create(threads, &pool));
        assert_int_equal(cot_pool_threads(pool), threads);
        static job_t job;
        memset(&job, 0, sizeof(job));
        cot_pool_run(pool, PARTS, work, &job);
        for (uint32_t part = 0; part < PARTS; part++) {
            assert_int_equal(job.calls[part], 1);
            assert_int_equal(job.sum[part], part);
        }
        cot_pool_destroy(pool);
    }
}

/* Jobs of changing size and two arguments, back to back: a thread that is late for one must not touch the next. */
static void jobs_follow_each_other(void **state)
{
    (void)state;
    cot_pool_t *pool = NULL;
    assert_ok(cot_pool_create(4, &pool));
    static job_t jobs[2];
    memset(jobs, 0, sizeof(jobs));
    uint64_t wanted[2][PARTS] = {0};
    for (uint64_t round = 0; round < ROUNDS; round++) {
        job_t *job = &jobs[round % 2];
        uint32_t parts = (uint32_t)(round * 7 % 40);
        job->round = round;
        cot_pool_run(pool, parts, work, job);
        for (uint32_t part = 0; part < parts; part++) {
            wanted[round % 2][part] += round + part;
            if (job->sum[part] != wanted[round % 2][part]) fail_msg("round %d part %u", (int)round, part);
        }
        if (round % 2000 == 1999) usleep(3000); /* long enough for the threads to fall asleep */
    }
    cot_pool_destroy(pool);
}

typedef struct {
    pthread_t caller;
    atomic_uint taken; /* by other threads */
    int done[8];
} slow_t;

/* The caller's parts wait until another thread has one, and that thread takes its time. */
static void work_slowly(void *argument, uint32_t part)
{
    slow_t *slow = argument;
    if (pthread_equal(pthread_self(), slow->caller)) {
        for (int wait = 0; wait < 5000 && atomic_load(&slow->taken) == 0; wait++) usleep(1000);
    } else {
        atomic_fetch_add(&slow->taken, 1);
        usleep(30000);
    }
    slow->done[part] = 1;
}

static void the_caller_waits_for_the_slowest(void **state)
{
    (void)state;
    cot_pool_t *pool = NULL;
    assert_ok(cot_pool_create(2, &pool));
    for (int round = 0; round < 3; round++) {
        slow_t slow = {.caller = pthread_self()};
        cot_pool_run(pool, 8, work_slowly, &slow);
        for (int part = 0; part < 8; part++) assert_int_equal(slow.done[part], 1);
        assert_true(slow.taken > 0);
    }
    cot_pool_destroy(pool);
}

static void the_caller_works_alone_without_a_pool(void **state)
{
    (void)state;
    static job_t job;
    memset(&job, 0, sizeof(job));
    cot_pool_run(NULL, 5, work, &job);
    for (uint32_t part = 0; part < 5; part++) assert_int_equal(job.calls[part], 1);
    assert_int_equal(job.calls[5], 0);
    assert_int_equal(cot_pool_threads(NULL), 1);
    cot_pool_destroy(NULL);
}

static void impossible_pools_are_refused(void **state)
{
    (void)state;
    cot_pool_t *pool = NULL;
    assert_fails(cot_pool_create(0, &pool), COT_ERR_INVALID, "0 threads: must be from 1 to 1024");
    assert_fails(cot_pool_create(1025, &pool), COT_ERR_INVALID, "1025 threads");
    size_t live = cot_memory_live_blocks();
    for (int n = 0; n < 2; n++) {
        cot_memory_fail_after(n);
        assert_fails(cot_pool_create(2, &pool), COT_ERR_NO_MEMORY, "2 threads");
        cot_memory_fail_after(-1);
        assert_int_equal(cot_memory_live_blocks(), live);
    }
    assert_null(pool);
}

static void cores_are_shared_among_ranks(void **state)
{
    (void)state;
    unsigned online = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    assert_in_range(cot_usable_cores(1), 1, online);
    assert_in_range(cot_usable_cores(0), 1, online);
    assert_int_equal(cot_usable_cores(100000), 1);
    cpu_set_t before, one;
    assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
    unsigned unbound = cot_usable_cores(1);
    size_t first = 0;
    while (!CPU_ISSET(first, &before)) first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    /* The launcher's binding to one core is not taken for a wish. */
    if ((unsigned)CPU_COUNT(&before) == online) assert_int_equal(cot_usable_cores(1), unbound);
    sched_setaffinity(0, sizeof(before), &before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_part_runs_once),
        cmocka_unit_test(jobs_follow_each_other),
        cmocka_unit_test(the_caller_waits_for_the_slowest),
        cmocka_unit_test(the_caller_works_alone_without_a_pool),
        cmocka_unit_test(impossible_pools_are_refused),
        cmocka_unit_test(cores_are_shared_among_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
