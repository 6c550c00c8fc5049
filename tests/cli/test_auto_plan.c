/* `--plan auto`: whatever the planner does, the job goes on, with the same bits. The planners here are scripts that
 * stand beside a copy of the program; the last test runs the real one. */
#include "tests/cli/job.h"

#include "model/config.h"
#include "placement/cluster.h"

#define MODEL "$SOURCE/tests/fixtures/models/qwen3"
#define SCORE "$DIR/run -n 3 score " MODEL " --in $DIR/in.jsonl --max-context 128 --kv-memory 4M "
#define AUTO                                                                                \
    SCORE "--out $DIR/auto.jsonl --record $DIR/auto.trace.safetensors --plan auto --trace " \
          "$DIR/first.trace.safetensors "

static void planner(const char *script)
{
    char text[2048];
    snprintf(text, sizeof(text), "#!/bin/bash\n%s\n", script);
    unlink(job_path("bin/coterie-plan"));
    job_write("bin/coterie-plan", text);
    assert_int_equal(job_run("chmod +x $DIR/bin/coterie-plan"), 0);
}

/* Runs with --plan auto and looks at what came out, what was said and what is left. */
static void scored_as_ever(const char *flags, const char *words)
{
    unlink(job_path("auto.jsonl"));
    int code = job_run("TMPDIR=$DIR/tmp " AUTO
                       "%s > $DIR/report; code=$?\nls -d $DIR/tmp/coterie-plan.* 2>&- && exit 99; exit $code",
                       flags);
    if (code != 0) job_stderr_has("\001");
    assert_int_equal(code, 0);
    assert_true(job_stderr_has(words));
    job_assert_same("first.jsonl", "auto.jsonl");
    job_assert_same("first.trace.safetensors", "auto.trace.safetensors");
}

/* The arguments' names, for the scripts. */
#define ARGUMENTS \
    "trace=$1; shift\nwhile [ $# -gt 0 ]; do case $1 in --cluster) cluster=$2;; --out) out=$2;; esac; shift; done\n"

static void a_planner_that_fails(void **state)
{
    (void)state;
    planner("echo reading; echo 'coterie-plan: the trace is empty' >&2; exit 4");
    scored_as_ever("",
                   "coterie-plan: it ended with status 4: coterie-plan: the trace is empty; going on with contiguous "
                   "placement");
    planner("kill -SEGV $$");
    scored_as_ever("", "signal 11");
    planner("true");
    scored_as_ever("", "cannot be used");
    unlink(job_path("bin/coterie-plan"));
    scored_as_ever("", "deploy/build.sh; going on with contiguous placement");
}

/* Killed at its limit with all that it started. */
static void a_planner_that_hangs(void **state)
{
    (void)state;
    planner("echo $$ > $DIR/pids; sleep 4000 & echo $! >> $DIR/pids; sleep 4000");
    scored_as_ever("--plan-timeout 700", "it was killed after 700 ms; going on with contiguous placement");
    assert_int_equal(
        job_run("for pid in $(cat $DIR/pids); do test \"$(ps -o stat= -p $pid | cut -c1)\" = Z || ! kill -0 "
                "$pid || exit 1; done"),
        0);
}

static void a_planner_that_writes_nonsense(void **state)
{
    (void)state;
    planner(ARGUMENTS "echo '{\"format\": \"coterie.plan/1\", \"ranks\": ' > $out");
    scored_as_ever("", "what coterie-plan wrote cannot be used");
    planner(ARGUMENTS "head -c 100000 /dev/urandom > $out");
    scored_as_ever("", "going on with contiguous placement");
    planner(ARGUMENTS "sed 's/\"ranks\": 2/\"ranks\": 3/' $DIR/good.plan.json > $out");
    scored_as_ever("", "going on with contiguous placement");
    planner(ARGUMENTS "sed 's/[0-9a-f]\\{64\\}/'$(printf '%064d' 0)'/' $DIR/good.plan.json > $out");
    scored_as_ever("", "going on with contiguous placement");
    assert_true(job_stderr_has("model"));
    planner("yes > $DIR/tmp/long; yes");
    scored_as_ever("", "signal 25");
}

/* What it is told, within which limits; and the cluster file describes the job. */
static void what_a_planner_is_told(void **state)
{
    (void)state;
    planner("echo \"$@\" > $DIR/words\nulimit -v > $DIR/limit\nenv > $DIR/environment\n" ARGUMENTS
            "cp $cluster $DIR/job.cluster.json; cp $DIR/good.plan.json $out");
    assert_int_equal(setenv("COTERIE_PLAN_MEMORY", "1GiB", 1), 0);
    scored_as_ever("--plan-timeout 30000", "s: step_time 12.5 us, at most 2.00 % above the least possible");
    unsetenv("COTERIE_PLAN_MEMORY");
    assert_true(job_stderr_has("{\"count\": 2, \"node\": 0, \"slots\": "));
    assert_int_equal(
        job_run("grep -q \"^$DIR/first.trace.safetensors --cluster .* --out .* --time-limit 10.000 --model " MODEL
                "\\$\" $DIR/words"),
        0);
    assert_int_equal(job_run("test $(cat $DIR/limit) = 1048576 && ! grep -q ^COTERIE_ $DIR/environment"), 0);

    place_cluster_t *cluster = NULL;
    assert_ok(place_cluster_load(job_path("job.cluster.json"), &cluster));
    assert_int_equal(cluster->ranks, 2);
    assert_int_equal(cluster->nodes, 1);
    assert_true(cluster->rank[1].memory_bytes > 0);
    place_cluster_destroy(cluster);

    job_write("two.cluster.json", "{}");
    scored_as_ever("--cluster $DIR/two.cluster.json", "--plan auto: planned in");
    assert_int_equal(job_run("grep -q -- \"--cluster $DIR/two.cluster.json\" $DIR/words"), 0);
}

/* While the planner thinks nobody burns a core, and the time does not count as loading. */
static void waiting_is_idle(void **state)
{
    (void)state;
    planner(ARGUMENTS
            "ticks() { cat $(pgrep -P $(ps -o ppid= -p $PPID) | sed 's,.*,/proc/&/stat,') | awk '{ sum += $14 + "
            "$15 } END { print sum }'; }\n"
            "sleep 1.2; before=$(ticks); sleep 1; echo $(($(ticks) - before)) > $DIR/ticks\n"
            "cp $DIR/good.plan.json $out");
    scored_as_ever("--start-timeout 2000", "--plan auto: planned in");
    size_t bytes = 0;
    char *ticks = job_read("ticks", &bytes);
    print_message("%.*s ticks of 300\n", (int)bytes - 1, ticks);
    assert_in_range(atoi(ticks), 0, 45);
    cot_free(ticks);
}

static void serving_says_so(void **state)
{
    (void)state;
    planner("exit 1");
    pid_t server = job_start(
        "exec $DIR/run -n 3 serve $SOURCE/demo/model --listen unix:$DIR/s.sock --plan auto --trace "
        "$DIR/first.trace.safetensors");
    for (int tries = 0; tries < 400 && access(job_path("s.sock"), F_OK) != 0; tries++) usleep(50000);
    assert_int_equal(
        job_run("$PROGRAM generate --connect unix:$DIR/s.sock --max-tokens 3 hello > $DIR/text 2>> $DIR/other"), 0);
    assert_int_equal(job_run("$PROGRAM status --connect unix:$DIR/s.sock --json | grep -q '\"plan\": *\"contiguous\"'"),
                     0);
    assert_int_equal(job_run("$PROGRAM drain --connect unix:$DIR/s.sock"), 0);
    assert_int_equal(job_wait(server, 20000), 0);
}

/* The sanitizer's shadow needs more address space than a planner may take. */
#ifdef __SANITIZE_ADDRESS__
#define LIMITS "--plan-timeout 30000 --plan-memory 0 "
#else
#define LIMITS "--plan-timeout 6000 "
#endif

static void the_planner_itself(void **state)
{
    (void)state;
    assert_int_equal(job_run("cp $(dirname $PROGRAM)/coterie-plan $DIR/bin/coterie-plan"), 0);
    scored_as_ever(LIMITS, "--plan auto: planned in");
    assert_true(job_stderr_has("s: step_time "));
    job_write("empty.trace.safetensors", "");
    scored_as_ever(LIMITS "--trace $DIR/empty.trace.safetensors", "going on with contiguous placement");
    assert_true(job_stderr_has("empty.trace.safetensors"));
}

static void what_is_refused(void **state)
{
    (void)state;
    assert_int_equal(job_run(SCORE "--out $DIR/o --plan auto"), 2);
    assert_true(job_stderr_has("--plan auto needs --trace"));
    assert_int_equal(job_run(AUTO "--plan-timeout 0"), 2);
    assert_true(job_stderr_has("--plan-timeout"));
}

/* Two layers of eight experts on two workers, not where they stand without a plan. */
static void write_good_plan(void)
{
    static const char ranks[] = "\"ranks\": [[7, 1, 5, 3], [0, 2, 4, 6]]";
    model_config_t config;
    char text[1024];
    assert_ok(model_config_load(COTERIE_SOURCE_DIR "/tests/fixtures/models/qwen3", &config));
    snprintf(text, sizeof(text),
             "{\"format\": \"coterie.plan/1\", \"model\": {\"config_sha256\": \"%s\"}, \"ranks\": 2,\n"
             " \"layers\": [{\"layer\": 0, %s}, {\"layer\": 1, %s}],\n"
             " \"objective\": {\"name\": \"step_time\", \"value\": 12.5, \"unit\": \"us\", \"gap\": 0.02}}\n",
             config.sha256, ranks, ranks);
    job_write("good.plan.json", text);
}

static int setup(void **state)
{
    int code = job_setup(state);
    write_good_plan();
    job_write("in.jsonl", "{\"tokens\": [1, 5, 9, 2]}\n{\"tokens\": [7, 7, 7, 3, 1, 40, 41, 42]}\n");
    job_write("run", "#!/bin/sh\nexec $SOURCE/deploy/run.sh --program $DIR/bin/coterie \"$@\"\n");
    assert_int_equal(job_run("mkdir $DIR/bin $DIR/tmp && cp $PROGRAM $DIR/bin/ && chmod +x $DIR/run"), 0);
    assert_int_equal(job_run(SCORE "--out $DIR/first.jsonl --record $DIR/first.trace.safetensors > $DIR/report"), 0);
    return code;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_planner_that_fails),
        cmocka_unit_test(a_planner_that_hangs),
        cmocka_unit_test(a_planner_that_writes_nonsense),
        cmocka_unit_test(what_a_planner_is_told),
        cmocka_unit_test(waiting_is_idle),
        cmocka_unit_test(serving_says_so),
        cmocka_unit_test(the_planner_itself),
        cmocka_unit_test(what_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, job_teardown);
}
