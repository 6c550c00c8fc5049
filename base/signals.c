#include "base/signals.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_TERMINATED = 128 + SIGTERM, EXIT_INTERRUPTED = 128 + SIGINT, LEAVE_MS = 400 };

static volatile sig_atomic_t asked = COT_ASKED_NOTHING;
static timer_t leave_timer;

static void on_leave_timer(int number)
{
    (void)number;
    _exit(EXIT_TERMINATED);
}

static void on_end(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    if (info->si_pid != getppid() && asked == COT_ASKED_NOTHING) {
        asked = COT_ASKED_TO_DRAIN;
        return;
    }
    asked = COT_ASKED_TO_LEAVE;
    timer_settime(leave_timer, 0, &(struct itimerspec){.it_value.tv_nsec = LEAVE_MS * 1000000L}, NULL);
}

void cot_signals_install(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    timer_create(CLOCK_MONOTONIC, &event, &leave_timer);
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = on_leave_timer}, NULL);
    struct sigaction end = {.sa_sigaction = on_end, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGTERM, &end, NULL);
    sigaction(SIGINT, &end, NULL);
    sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_IGN}, NULL);
}

cot_asked_t cot_signals_asked(void)
{
    return (cot_asked_t)asked;
}

void cot_signals_install_exit(void)
{
    struct sigaction end = {.sa_handler = on_leave_timer};
    sigaction(SIGTERM, &end, NULL);
    sigaction(SIGINT, &end, NULL);
}

static atomic_bool stop; /* lock-free, so a handler may set it */

static void on_stop(int number)
{
    (void)number;
    if (atomic_exchange(&stop, true)) _exit(EXIT_INTERRUPTED);
}

const atomic_bool *cot_signals_install_stop(void)
{
    struct sigaction end = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &end, NULL);
    sigaction(SIGINT, &end, NULL);
    return &stop;
}
