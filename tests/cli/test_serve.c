/* A served model: the same text under load as alone, under every placement; cancelling, draining, signals. */
#include "tests/cli/job.h"

#include <signal.h>
#include <stdlib.h>

#define DEMO "$SOURCE/demo/model"
#define SERVE "exec $RUN -n %u serve " DEMO " --listen unix:$DIR/s.sock --pid-file $DIR/pid %s"
#define GENERATE "$PROGRAM generate --connect unix:$DIR/s.sock "

enum { PROMPTS = 6 };
static const char *const PROMPT[PROMPTS] = {"static int ",       "The ",       "def main(",
                                            "In the beginning ", "#include <", "Returns the number of"};

static pid_t serve(uint32_t workers, const char *flags)
{
    pid_t server = job_start(SERVE, workers + 1, flags);
    for (int tries = 0; tries < 400; tries++) {
        if (access(job_path("s.sock"), F_OK) == 0) break;
        usleep(50000);
    }
    /* The socket opens before the weights are loaded; a request waits for them. */
    assert_int_equal(job_run(GENERATE "--max-tokens 1 -- x > $DIR/text"), 0);
    return server;
}

static void drain(pid_t server)
{
    assert_int_equal(job_run("$PROGRAM drain --connect unix:$DIR/s.sock"), 0);
    assert_int_equal(job_wait(server, 20000), 0);
    assert_int_equal(access(job_path("s.sock"), F_OK), -1);
}

static void generate_alone(const char *stem)
{
    for (int p = 0; p < PROMPTS; p++)
        assert_int_equal(job_run(GENERATE
                                 "--seed %d --temperature 0.8 --max-tokens 60 --ignore-eos --json --logprobs 3 -- '%s' "
                                 "> $DIR/%s.%d",
                                 p, PROMPT[p], stem, p),
                         0);
}

/* All at once, while the server is busy with others. */
static void generate_together(const char *stem)
{
    pid_t load = job_start("$PROGRAM bench --connect unix:$DIR/s.sock --requests 24 --concurrency 8 --max-tokens 40 "
                           "--prompt-tokens 100 > $DIR/bench");
    pid_t client[PROMPTS];
    for (int p = 0; p < PROMPTS; p++)
        client[p] = job_start(GENERATE
                              "--seed %d --temperature 0.8 --max-tokens 60 --ignore-eos --json --logprobs 3 -- '%s' "
                              "> $DIR/%s.%d",
                              p, PROMPT[p], stem, p);
    for (int p = 0; p < PROMPTS; p++) assert_int_equal(job_wait(client[p], 60000), 0);
    assert_int_equal(job_wait(load, 60000), 0);
}

/* The timing fields differ from run to run; what was generated must not. */
static void assert_same_answers(const char *stem, const char *other)
{
    for (int p = 0; p < PROMPTS; p++)
        assert_int_equal(
            job_run("for f in %s.%d %s.%d; do grep -v '_ms\"' $DIR/$f > $DIR/$f.cut; test -s $DIR/$f.cut || exit 1; "
                    "done; cmp $DIR/%s.%d.cut $DIR/%s.%d.cut",
                    stem, p, other, p, stem, p, other, p),
            0);
}

/* Contiguous from the last worker to the first; or scattered, every second expert on two workers. */
static bool holds(bool reversed, int layer, int expert, int rank, int ranks)
{
    int first = (expert * 7 + layer) % ranks;
    if (reversed) return rank == ranks - 1 - expert * ranks / 32;
    return rank == first || (expert % 2 != 0 && rank == (first + 1) % ranks);
}

/* A plan for the demo model's 8 layers of 32 experts. */
static void write_plan(const char *name, bool reversed, int ranks)
{
    FILE *file = fopen(job_path(name), "w");
    assert_non_null(file);
    fprintf(file, "{\"format\": \"coterie.plan/1\", \"ranks\": %d, \"layers\": [", ranks);
    for (int layer = 0; layer < 8; layer++) {
        fprintf(file, "%s{\"layer\": %d, \"ranks\": [", layer > 0 ? ", " : "", layer);
        for (int rank = 0; rank < ranks; rank++) {
            const char *comma = "";
            fprintf(file, rank > 0 ? ", [" : "[");
            for (int expert = 31; expert >= 0; expert--) {
                if (!holds(reversed, layer, expert, rank, ranks)) continue;
                fprintf(file, "%s%d", comma, expert);
                comma = ", ";
            }
            fprintf(file, "]");
        }
        fprintf(file, "]}");
    }
    fprintf(file, "]}\n");
    assert_int_equal(fclose(file), 0);
}

static void text_depends_on_nothing_else(void **state)
{
    (void)state;
    pid_t server = serve(1, "");
    generate_alone("alone");
    drain(server);
    static const char *const FLAGS[] = {"", "--kv-memory 450K --max-step-tokens 16",
                                        "--max-sequences 2 --plan $DIR/scattered.plan.json",
                                        "--plan $DIR/reversed.plan.json"};
    write_plan("scattered.plan.json", false, 3);
    write_plan("reversed.plan.json", true, 4);
    for (uint32_t workers = 1; workers <= 4; workers++) {
        print_message("%u workers %s\n", workers, FLAGS[workers - 1]);
        server = serve(workers, FLAGS[workers - 1]);
        generate_together("busy");
        assert_same_answers("alone", "busy");
        if (strstr(FLAGS[workers - 1], "--kv-memory") != NULL) /* so little of it that requests were put back */
            assert_int_equal(job_run("$PROGRAM status --json --connect unix:$DIR/s.sock > $DIR/status && "
                                     "grep -q '\"preemptions\": [1-9]' $DIR/status"),
                             0);
        drain(server);
    }
}

/* Processor time of every rank so far, one a line. */
static void note_times(const char *name)
{
    assert_int_equal(job_run("for p in $(pgrep -f \"^$PROGRAM serve .*$DIR/s.sock\"); do "
                             "awk '{print $1, $14 + $15}' /proc/$p/stat; done > $DIR/%s",
                             name),
                     0);
}

/* Under 2 % of a core for each rank; sanitizers cost more. */
static void an_idle_job_sleeps(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    enum { SECONDS = 5, PERCENT = 8 };
#else
    enum { SECONDS = 5, PERCENT = 2 };
#endif
    pid_t server = serve(2, "");
    sleep(2);
    note_times("before");
    sleep(SECONDS);
    note_times("after");
    char *before = job_read("before", NULL), *after = job_read("after", NULL), *from = before, *to = after;
    for (int rank = 0; rank < 3; rank++) {
        long pid = strtol(from, &from, 10), began = strtol(from, &from, 10);
        assert_true(pid > 0 && pid == strtol(to, &to, 10));
        long ticks = strtol(to, &to, 10) - began, most = SECONDS * sysconf(_SC_CLK_TCK) * PERCENT / 100;
        print_message("process %ld: %ld ticks in %d s, at most %ld\n", pid, ticks, SECONDS, most);
        assert_true(ticks <= most);
    }
    assert_string_equal(from, "\n");
    cot_free(before);
    cot_free(after);
    drain(server);
}

static void sigterm_to_rank_0_drains(void **state)
{
    (void)state;
    pid_t server = serve(2, "");
    pid_t client = job_start(GENERATE "--max-tokens 300 --ignore-eos -- 'The ' > $DIR/text");
    usleep(500000);
    assert_int_equal(job_run("kill -TERM $(cat $DIR/pid)"), 0);
    assert_int_equal(job_wait(client, 60000), 0);
    assert_int_equal(job_wait(server, 20000), 0);
}

static void ctrl_c_on_the_launch_script(void **state)
{
    (void)state;
    pid_t server = serve(2, "");
    kill(-server, SIGINT);
    int code = job_wait(server, 5000);
    assert_true(code == 0 || code == 130);
    assert_int_equal(job_run("sleep 0.3; ! pgrep -f \"$DIR/s.sock\""), 0);
}

static void a_killed_client_frees_its_request(void **state)
{
    (void)state;
    pid_t server = serve(1, "--max-sequences 1");
    pid_t client = job_start(
        "exec $PROGRAM generate --connect unix:$DIR/s.sock --max-tokens 1500 --ignore-eos -- 'The ' > /dev/null");
    usleep(300000);
    kill(client, SIGKILL);
    job_wait(client, 5000);
    assert_int_equal(job_run(GENERATE "--max-tokens 5 --timeout 10000 -- 'The ' > $DIR/text"), 0);
    drain(server);
}

static void a_port_in_use_is_refused(void **state)
{
    (void)state;
    pid_t server = serve(1, "");
    assert_int_equal(job_run("$RUN -n 2 serve " DEMO " --listen unix:$DIR/s.sock"), 5);
    assert_true(job_stderr_has("in use"));
    drain(server);
}

static void bad_requests_cost_only_themselves(void **state)
{
    (void)state;
    pid_t server = serve(1, "--max-context 64");
    assert_int_equal(job_run(GENERATE "--temperature -1 -- x > $DIR/text"), 2);
    assert_true(job_stderr_has("temperature") || job_stderr_has("number"));
    assert_int_not_equal(job_run(GENERATE "-- \"$(head -c 3000 $SOURCE/README.md)\" > $DIR/text"), 0);
    assert_true(job_stderr_has("context"));
    assert_int_equal(job_run("head -c 100000 /dev/urandom | timeout 2 nc -U $DIR/s.sock > /dev/null; true"), 0);
    assert_int_equal(job_run(GENERATE "--max-tokens 3 -- x > $DIR/text"), 0);
    drain(server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_depends_on_nothing_else),      cmocka_unit_test(an_idle_job_sleeps),
        cmocka_unit_test(sigterm_to_rank_0_drains),          cmocka_unit_test(ctrl_c_on_the_launch_script),
        cmocka_unit_test(a_killed_client_frees_its_request), cmocka_unit_test(a_port_in_use_is_refused),
        cmocka_unit_test(bad_requests_cost_only_themselves),
    };
    return cmocka_run_group_tests(tests, job_setup, job_teardown);
}
