/* Monotonic time, deadlines, and waiting without burning a core. */
#ifndef COT_CLOCK_H
#define COT_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

int64_t cot_now_ns(void); /* monotonic */

/* A point in monotonic time, in ns. */
typedef int64_t cot_deadline_t;
#define COT_NEVER INT64_MAX

cot_deadline_t cot_deadline_in_ms(int64_t timeout_ms); /* >= 0; too far for the clock: COT_NEVER */
bool cot_deadline_passed(cot_deadline_t deadline);
int64_t cot_deadline_left_ms(cot_deadline_t deadline); /* 0 once passed, INT64_MAX for COT_NEVER */

/* Backs off while a caller polls: yields for the first 50 ms without work, then sleeps 2 ms a call, after 1 s 5 ms.
 * Reset it whenever there was work. */
typedef struct {
    int64_t idle_since_ns; /* 0: not idle */
} cot_backoff_t;

void cot_backoff_reset(cot_backoff_t *backoff);
void cot_backoff_wait(cot_backoff_t *backoff);
/* How long cot_backoff_wait would sleep now: 0 while it would only yield. For loops that sleep in their own way. */
int cot_backoff_sleep_ms(cot_backoff_t *backoff);

#endif
