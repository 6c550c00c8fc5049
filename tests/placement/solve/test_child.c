/* GLPK behind its child: whatever a child does (abort, hang, nonsense, a full memory) the planner goes on, and small
 * programs have their known answers. */
#include "tests/temporary.h"

#include "base/clock.h"
#include "placement/solve/child.h"
#include "placement/solve/milp.h"

#include <math.h>
#include <signal.h>

typedef struct {
    uint32_t frames;
    uint64_t sum;
    bool refuse;
} heard_t;

static bool take(void *user, uint32_t kind, const void *bytes, size_t count)
{
    heard_t *heard = user;
    heard->frames++;
    for (size_t i = 0; i < count; i++) heard->sum += ((const uint8_t *)bytes)[i];
    return kind == 7 && !heard->refuse;
}

static int answers(void *user, solve_child_pipe_t *pipe)
{
    (void)user;
    uint8_t bytes[1000];
    memset(bytes, 3, sizeof(bytes));
    for (int i = 0; i < 200; i++)
        if (!solve_child_send(pipe, 7, bytes, sizeof(bytes))) return 1;
    return 0;
}

static int aborts(void *user, solve_child_pipe_t *pipe)
{
    answers(user, pipe);
    abort();
}

static int falls(void *user, solve_child_pipe_t *pipe)
{
    (void)user;
    (void)pipe;
    raise(SIGSEGV);
    return 0;
}

static int hangs(void *user, solve_child_pipe_t *pipe)
{
    answers(user, pipe);
    for (volatile int forever = 1; forever;) {
    }
    return 0;
}

static int closes_and_hangs(void *user, solve_child_pipe_t *pipe)
{
    close(pipe->descriptor);
    return hangs(user, &(solve_child_pipe_t){-1});
}

static int scribbles(void *user, solve_child_pipe_t *pipe)
{
    (void)user;
    static const char TEXT[] = "Assertion failed: this is no frame at all, whatever it looks like to you";
    return write(pipe->descriptor, TEXT, sizeof(TEXT)) > 0 ? 0 : 1;
}

/* The head of a frame longer than any may be. */
static int boasts(void *user, solve_child_pipe_t *pipe)
{
    (void)user;
    const uint64_t head[3] = {UINT64_C(7) << 32 | UINT64_C(0xc07e21e5), UINT64_MAX, 0};
    return write(pipe->descriptor, head, sizeof(head)) > 0 ? 0 : 1;
}

static int never_stops_talking(void *user, solve_child_pipe_t *pipe)
{
    for (;;)
        if (answers(user, pipe) != 0) return 1;
}

static int eats(void *user, solve_child_pipe_t *pipe)
{
    (void)user;
    (void)pipe;
    for (;;) {
        char *meal = malloc(1U << 20);
        if (meal == NULL) solve_child_no_memory();
        memset(meal, 1, 1U << 20);
    }
}

static int refuses(void *user, solve_child_pipe_t *pipe)
{
    (void)user;
    (void)pipe;
    return 5;
}

static solve_child_end_t run(int (*work)(void *, solve_child_pipe_t *), heard_t *heard, const atomic_bool *stop)
{
    solve_child_config_t config = {.deadline = cot_deadline_in_ms(1500),
                                   .stop = stop,
                                   .memory_bytes = 64U << 20,
                                   .frame_bytes = 1000,
                                   .work = work,
                                   .take = take,
                                   .user = heard};
    solve_child_end_t end = SOLVE_CHILD_DONE;
    int64_t began = cot_now_ns();
    assert_ok(solve_child_run(&config, &end));
    assert_true(cot_now_ns() - began < INT64_C(20000000000));
    return end;
}

static void frames_arrive_whole(void **state)
{
    (void)state;
    heard_t heard = {0};
    assert_int_equal(run(answers, &heard, NULL), SOLVE_CHILD_DONE);
    assert_int_equal(heard.frames, 200);
    assert_int_equal(heard.sum, 200 * 1000 * 3);
}

static void a_child_that_dies_is_reported(void **state)
{
    (void)state;
    heard_t heard = {0};
    assert_int_equal(run(aborts, &heard, NULL), SOLVE_CHILD_DIED);
    assert_int_equal(heard.frames, 200); /* what it had found is kept */
    assert_int_equal(run(falls, &heard, NULL), SOLVE_CHILD_DIED);
    assert_int_equal(run(refuses, &heard, NULL), SOLVE_CHILD_DIED);
}

static void a_child_that_hangs_is_killed(void **state)
{
    (void)state;
    heard_t heard = {0};
    atomic_bool stop = true;
    assert_int_equal(run(hangs, &heard, NULL), SOLVE_CHILD_LATE);
    assert_int_equal(heard.frames, 200);
    assert_int_equal(run(closes_and_hangs, &heard, NULL), SOLVE_CHILD_LATE);
    assert_int_equal(run(never_stops_talking, &heard, NULL), SOLVE_CHILD_LATE);
    assert_int_equal(run(hangs, &heard, &stop), SOLVE_CHILD_STOPPED);
}

static void nonsense_is_refused(void **state)
{
    (void)state;
    heard_t heard = {0};
    assert_int_equal(run(scribbles, &heard, NULL), SOLVE_CHILD_GARBAGE);
    assert_int_equal(run(boasts, &heard, NULL), SOLVE_CHILD_GARBAGE);
    assert_int_equal(heard.frames, 0);
    heard.refuse = true;
    assert_int_equal(run(answers, &heard, NULL), SOLVE_CHILD_GARBAGE);
    assert_int_equal(heard.frames, 1);
}

/* A sanitizer that is out of memory dies of it in its own way, or is still writing its report at the deadline. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

static void memory_is_limited(void **state)
{
    (void)state;
    heard_t heard = {0};
    solve_child_end_t end = run(eats, &heard, NULL);
    assert_true(end == SOLVE_CHILD_NO_MEMORY || (SANITIZED && (end == SOLVE_CHILD_DIED || end == SOLVE_CHILD_LATE)));
}

/* ---- programs ---- */

/* A knapsack: the most of 10a + 13b + 7c with 3a + 4b + 2c <= 6: b and c, 20. */
static solve_milp_t *knapsack(void)
{
    solve_milp_t *milp = NULL;
    assert_ok(solve_milp_create(3, 1, 3, &milp));
    static const double WORTH[] = {10, 13, 7}, WEIGHT[] = {3, 4, 2};
    solve_milp_row(milp, -HUGE_VAL, 6);
    for (uint32_t j = 0; j < 3; j++) {
        solve_milp_binary(milp, j);
        milp->objective[j] = -WORTH[j];
        solve_milp_add(milp, j, WEIGHT[j]);
    }
    return milp;
}

static void programs_are_solved(void **state)
{
    (void)state;
    solve_milp_t *milp = knapsack();
    double x[3] = {0}, start[3] = {1, 0, 1};
    solve_milp_config_t config = {.deadline = cot_deadline_in_ms(20000), .memory_bytes = 256U << 20};
    solve_milp_result_t result;
    assert_ok(solve_milp_run(milp, &config, x, &result));
    assert_int_equal(result.outcome, SOLVE_MILP_OPTIMAL);
    assert_float_equal(result.objective, -20, 1e-6);
    assert_float_equal(x[1], 1, 1e-6);
    assert_string_equal(result.ended, "optimal");

    config.start = start;
    assert_ok(solve_milp_run(milp, &config, x, &result));
    assert_int_equal(result.outcome, SOLVE_MILP_OPTIMAL);
    assert_float_equal(result.objective, -20, 1e-6);

    /* No time: the start comes back, and it says so. */
    config.deadline = 0;
    assert_ok(solve_milp_run(milp, &config, x, &result));
    assert_int_equal(result.outcome, SOLVE_MILP_FEASIBLE);
    assert_float_equal(result.objective, -17, 1e-6);
    assert_string_equal(result.ended, "time limit, best so far");
    start[1] = 1;
    assert_fails(solve_milp_run(milp, &config, x, &result), COT_ERR_INTERNAL, "does not hold its limits");

    /* The relaxation alone, with room for 7.5: c and a whole, and 5/8 of b. */
    for (uint32_t j = 0; j < 3; j++) milp->integer[j] = false;
    milp->row_upper[0] = 7.5;
    config = (solve_milp_config_t){.deadline = cot_deadline_in_ms(20000), .memory_bytes = 256U << 20};
    assert_ok(solve_milp_run(milp, &config, x, &result));
    assert_int_equal(result.outcome, SOLVE_MILP_OPTIMAL);
    assert_float_equal(result.objective, -25.125, 1e-6);

    milp->row_lower[0] = 100; /* more than all of them weigh */
    milp->row_upper[0] = HUGE_VAL;
    assert_ok(solve_milp_run(milp, &config, x, &result));
    assert_int_equal(result.outcome, SOLVE_MILP_NOTHING);
    solve_milp_destroy(milp);
}

static void faulty_programs_hurt_nobody(void **state)
{
    (void)state;
    solve_milp_t *milp = knapsack();
    double x[3];
    solve_milp_config_t config = {.deadline = cot_deadline_in_ms(20000), .memory_bytes = 256U << 20};
    solve_milp_result_t result;
    milp->column[1] = 0; /* the same column twice in a row: GLPK would abort */
    assert_ok(solve_milp_run(milp, &config, x, &result));
    assert_int_equal(result.outcome, SOLVE_MILP_NOTHING);
    milp->column[1] = 1;
    milp->value[0] = NAN;
    assert_ok(solve_milp_run(milp, &config, x, &result));
    assert_int_not_equal(result.outcome, SOLVE_MILP_OPTIMAL);
    solve_milp_destroy(milp);
    assert_fails(solve_milp_create(10, 10, SOLVE_MILP_NONZEROS + 1, &milp), COT_ERR_LIMIT,
                 "200001 nonzeros is not built");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_arrive_whole),
        cmocka_unit_test(a_child_that_dies_is_reported),
        cmocka_unit_test(a_child_that_hangs_is_killed),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(memory_is_limited),
        cmocka_unit_test(programs_are_solved),
        cmocka_unit_test(faulty_programs_hurt_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
