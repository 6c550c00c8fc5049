/* Another program as a child: how it ends is told, its limits hold, and nothing that it started is left. The programs
 * are shell scripts of this test's own. */
#include "base/file.h"
#include "base/program.h"
#include "tests/temporary.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

static char folder[256];

/* Starts `script` with a shell; its output goes to FOLDER/out. */
static void start(const char *script, cot_program_config_t config, cot_program_t *program)
{
    char out[300];
    snprintf(out, sizeof(out), "%s/out", folder);
    int output = open(out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(output >= 0);
    char *argv[] = {(char *)"sh", (char *)"-c", (char *)script, NULL};
    config.path = "/bin/sh";
    config.argv = argv;
    config.output = output;
    if (config.timeout_ms == 0) config.timeout_ms = 20000;
    assert_ok(cot_program_start(&config, program));
    close(output);
}

static cot_status_t wait_for(cot_program_t *program)
{
    cot_status_t status = COT_OK;
    for (int tries = 0; !cot_program_ended(program, &status); tries++) {
        if (tries > 30000) fail_msg("it does not end");
        usleep(1000);
    }
    return status;
}

static cot_status_t run(const char *script, cot_program_config_t config)
{
    cot_program_t program = {0};
    start(script, config, &program);
    return wait_for(&program);
}

static void assert_said(const char *words)
{
    char path[300], *text = NULL;
    size_t bytes = 0;
    snprintf(path, sizeof(path), "%s/out", folder);
    assert_ok(cot_file_read(path, 1 << 20, &text, &bytes));
    assert_string_equal(text, words);
    cot_free(text);
}

static void how_it_ends(void **state)
{
    (void)state;
    const cot_program_config_t usual = {0};
    assert_ok(run("echo done; echo well >&2", usual));
    assert_said("done\nwell\n");
    assert_fails(run("exit 3", usual), COT_ERR_INTERNAL, "it ended with status 3");
    assert_fails(run("kill -SEGV $$", usual), COT_ERR_INTERNAL, "signal 11");
    assert_ok(run("read line; test -z \"$line\"", usual)); /* an empty input, not ours */

    cot_program_t program = {0};
    char *argv[] = {(char *)"absent", NULL};
    assert_ok(cot_program_start(
        &(cot_program_config_t){.path = "/nonexistent", .argv = argv, .output = -1, .timeout_ms = 20000}, &program));
    assert_fails(wait_for(&program), COT_ERR_INTERNAL, "could not be executed");
}

static void limits_hold(void **state)
{
    (void)state;
    assert_ok(run("ulimit -v", (cot_program_config_t){.memory_bytes = (uint64_t)512 << 20}));
    assert_said("524288\n");
    assert_fails(run("yes", (cot_program_config_t){.file_bytes = 4096}), COT_ERR_INTERNAL, "signal 25");
    assert_ok(run("echo ${COTERIE_PLAN-none} $OTHER", (cot_program_config_t){0}));
    assert_said("none seen\n");
}

/* Whether the process is gone, or a zombie that waits for init. */
static bool gone(pid_t pid)
{
    char path[64], state = '?';
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (file == NULL) return true;
    if (fscanf(file, "%*d %*s %c", &state) != 1) state = 'Z';
    fclose(file);
    return state == 'Z' || state == 'X';
}

static void await_gone(pid_t pid)
{
    for (int tries = 0; !gone(pid); tries++) {
        if (tries > 5000) fail_msg("process %d is left", (int)pid);
        usleep(1000);
    }
}

/* The pid that the script wrote. */
static pid_t written_pid(const char *path)
{
    int pid = 0;
    for (int tries = 0; pid == 0 && tries < 5000; tries++, usleep(1000)) {
        FILE *file = fopen(path, "r");
        if (file == NULL) continue;
        if (fscanf(file, "%d\n", &pid) != 1) pid = 0;
        fclose(file);
    }
    assert_int_not_equal(pid, 0);
    return pid;
}

static void what_it_started_ends_with_it(void **state)
{
    (void)state;
    char script[700], path[300];
    snprintf(path, sizeof(path), "%s/pid", folder);
    const char *const rest[] = {"sleep 1000" /* killed at the deadline */, "true" /* ends, and leaves one behind */};
    for (int i = 0; i < 2; i++) {
        unlink(path);
        snprintf(script, sizeof(script), "sleep 1000 & echo $! > %s; %s", path, rest[i]);
        cot_status_t status = run(script, (cot_program_config_t){.timeout_ms = i == 0 ? 300 : 20000});
        if (i == 0) assert_fails(status, COT_ERR_TIMEOUT, "killed after 300 ms");
        if (i == 1) assert_ok(status);
        await_gone(written_pid(path));
    }
    cot_program_t program = {0};
    unlink(path);
    start(script, (cot_program_config_t){0}, &program);
    pid_t left = written_pid(path);
    cot_program_kill(&program);
    cot_program_kill(&program);
    await_gone(left);
}

static void it_ends_with_us(void **state)
{
    (void)state;
    char script[400], path[300];
    snprintf(path, sizeof(path), "%s/pid", folder);
    snprintf(script, sizeof(script), "echo $$ > %s; exec sleep 1000", path);
    unlink(path);
    pid_t other = fork();
    if (other == 0) {
        cot_program_t program = {0};
        start(script, (cot_program_config_t){0}, &program);
        for (;;) pause();
    }
    pid_t left = written_pid(path);
    kill(other, SIGKILL);
    waitpid(other, NULL, 0);
    await_gone(left);
}

static void what_stands_beside_us(void **state)
{
    (void)state;
    char path[4096];
    assert_ok(cot_program_beside("test_program", path, sizeof(path)));
    assert_int_equal(access(path, X_OK), 0);
    assert_fails(cot_program_beside("absent", path, sizeof(path)), COT_ERR_NOT_FOUND, "deploy/build.sh");
    assert_fails(cot_program_beside("test_program", path, 8), COT_ERR_LIMIT, "too long");
}

static int setup(void **state)
{
    (void)state;
    temporary_make(folder);
    setenv("OTHER", "seen", 1);
    return setenv("COTERIE_PLAN", "auto", 1);
}

static int teardown(void **state)
{
    (void)state;
    temporary_remove(folder);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(how_it_ends),           cmocka_unit_test(limits_hold),
        cmocka_unit_test(it_ends_with_us),       cmocka_unit_test(what_it_started_ends_with_it),
        cmocka_unit_test(what_stands_beside_us),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
