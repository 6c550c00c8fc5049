#include "base/clock.h"

#include <sched.h>
#include <time.h>

#define NS_PER_MS INT64_C(1000000)

int64_t cot_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 * NS_PER_MS + now.tv_nsec;
}

cot_deadline_t cot_deadline_in_ms(int64_t timeout_ms)
{
    int64_t now = cot_now_ns();
    return timeout_ms < (COT_NEVER - now) / NS_PER_MS ? now + timeout_ms * NS_PER_MS : COT_NEVER;
}

bool cot_deadline_passed(cot_deadline_t deadline)
{
    return deadline != COT_NEVER && cot_now_ns() >= deadline;
}

int64_t cot_deadline_left_ms(cot_deadline_t deadline)
{
    if (deadline == COT_NEVER) return INT64_MAX;
    int64_t left_ns = deadline - cot_now_ns();
    return left_ns > 0 ? left_ns / NS_PER_MS : 0;
}

void cot_backoff_reset(cot_backoff_t *backoff)
{
    backoff->idle_since_ns = 0;
}

int cot_backoff_sleep_ms(cot_backoff_t *backoff)
{
    int64_t now = cot_now_ns();
    if (backoff->idle_since_ns == 0) backoff->idle_since_ns = now;
    int64_t idle_ms = (now - backoff->idle_since_ns) / NS_PER_MS;
    return idle_ms < 50 ? 0 : idle_ms < 1000 ? 2 : 5;
}

void cot_backoff_wait(cot_backoff_t *backoff)
{
    int sleep_ms = cot_backoff_sleep_ms(backoff);
    if (sleep_ms == 0) {
        sched_yield();
        return;
    }
    nanosleep(&(struct timespec){.tv_nsec = sleep_ms * NS_PER_MS}, NULL);
}
