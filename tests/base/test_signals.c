/* Signals to a rank, each case in a process of its own. "The launcher" is a process's parent: here, this test. */
#include "base/clock.h"
#include "base/signals.h"
#include "tests/temporary.h"

#include <signal.h>
#include <sys/wait.h>

/* Polls as the coordinator does, until asked for `wanted` or five seconds are over. */
static bool asked_in_time(cot_asked_t wanted)
{
    for (cot_deadline_t deadline = cot_deadline_in_ms(5000); !cot_deadline_passed(deadline); usleep(2000))
        if (cot_signals_asked() == wanted) return true;
    return false;
}

static int status_of(pid_t child)
{
    int status = -1;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void a_signal_of_a_stranger_drains(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        cot_signals_install();
        if (cot_signals_asked() != COT_ASKED_NOTHING) _exit(1);
        raise(SIGTERM); /* from itself: not the parent */
        if (!asked_in_time(COT_ASKED_TO_DRAIN)) _exit(2);
        usleep(600000); /* draining takes as long as it takes */
        raise(SIGINT);
        if (!asked_in_time(COT_ASKED_TO_LEAVE)) _exit(3);
        for (;;) usleep(1000); /* stuck: the process ends by itself */
    }
    assert_int_equal(status_of(child), 143);
}

static void a_signal_of_the_launcher_ends_at_once(void **state)
{
    (void)state;
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        cot_signals_install();
        if (write(ready[1], "x", 1) != 1) _exit(1);
        _exit(asked_in_time(COT_ASKED_TO_LEAVE) ? 7 : 2); /* time enough to close its files */
    }
    char byte;
    assert_int_equal(read(ready[0], &byte, 1), 1);
    kill(child, SIGTERM);
    assert_int_equal(status_of(child), 7);
    close(ready[0]);
    close(ready[1]);
}

static void a_worker_just_ends(void **state)
{
    (void)state;
    for (int number = SIGINT; number <= SIGTERM; number += SIGTERM - SIGINT) {
        pid_t child = fork();
        if (child == 0) {
            cot_signals_install_exit();
            raise(number);
            _exit(1);
        }
        assert_int_equal(status_of(child), 143);
    }
}

static void a_broken_pipe_is_no_death(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        int ends[2];
        cot_signals_install();
        if (pipe(ends) != 0) _exit(1);
        close(ends[0]);
        _exit(write(ends[1], "x", 1) == -1 ? 0 : 2);
    }
    assert_int_equal(status_of(child), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_signal_of_a_stranger_drains),
        cmocka_unit_test(a_signal_of_the_launcher_ends_at_once),
        cmocka_unit_test(a_worker_just_ends),
        cmocka_unit_test(a_broken_pipe_is_no_death),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
