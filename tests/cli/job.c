#include "tests/cli/job.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>

char job_folder[256];

int job_setup(void **state)
{
    (void)state;
    cot_json_setup();
    temporary_make(job_folder);
    setenv("PROGRAM", COTERIE_BINARY_DIR "/bin/coterie", 1);
    setenv("RUN", COTERIE_SOURCE_DIR "/deploy/run.sh --program " COTERIE_BINARY_DIR "/bin/coterie", 1);
    setenv("SOURCE", COTERIE_SOURCE_DIR, 1);
    return setenv("DIR", job_folder, 1);
}

int job_teardown(void **state)
{
    (void)state;
    temporary_remove(job_folder);
    return 0;
}

const char *job_path(const char *name)
{
    static char ring[8][400];
    static unsigned next;
    char *path = ring[next++ % 8];
    snprintf(path, sizeof(ring[0]), "%s/%s", job_folder, name);
    return path;
}

/* What runs now, for the handler: an interrupted test leaves nothing behind. */
enum { RUNNING_MAX = 64 };
static volatile pid_t running[RUNNING_MAX];

static void on_interrupt(int number)
{
    for (int i = 0; i < RUNNING_MAX; i++)
        if (running[i] != 0) kill(-running[i], SIGTERM);
    signal(number, SIG_DFL);
    raise(number);
}

static void note_running(pid_t from, pid_t to)
{
    for (int i = 0; i < RUNNING_MAX; i++)
        if (running[i] == from) {
            running[i] = to;
            return;
        }
    fail_msg("more than %d commands at once", RUNNING_MAX);
}

static pid_t start_shell(const char *command)
{
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    pid_t pid = fork();
    if (pid < 0) fail_msg("cannot fork");
    if (pid > 0) {
        note_running(0, pid);
        return pid;
    }
    setpgid(0, 0);
    if (freopen(job_path("stderr"), "w", stderr) == NULL || freopen("/dev/null", "r", stdin) == NULL) _exit(99);
    execl("/bin/bash", "bash", "-c", command, (char *)NULL);
    _exit(99);
}

int job_wait(pid_t pid, int timeout_ms)
{
    cot_deadline_t deadline = cot_deadline_in_ms(timeout_ms);
    int status = 0;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (cot_deadline_passed(deadline)) {
            kill(-pid, SIGKILL);
            waitpid(pid, &status, 0);
            job_stderr_has("\001");
            fail_msg("process %d did not end within %d ms", (int)pid, timeout_ms);
        }
        usleep(5000);
    }
    note_running(pid, 0);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

#define FORMAT_COMMAND(command, format)                     \
    do {                                                    \
        va_list args_;                                      \
        va_start(args_, format);                            \
        vsnprintf(command, sizeof(command), format, args_); \
        va_end(args_);                                      \
    } while (0)

pid_t job_start(const char *format, ...)
{
    char command[4096];
    FORMAT_COMMAND(command, format);
    return start_shell(command);
}

int job_run(const char *format, ...)
{
    char command[4096];
    FORMAT_COMMAND(command, format);
    return job_wait(start_shell(command), 120000);
}

char *job_read(const char *name, size_t *bytes_out)
{
    char *text = NULL;
    size_t bytes = 0;
    assert_ok(cot_file_read(job_path(name), (size_t)1 << 30, &text, &bytes));
    if (bytes_out != NULL) *bytes_out = bytes;
    return text;
}

bool job_stderr_has(const char *words)
{
    char *text = job_read("stderr", NULL);
    bool found = strstr(text, words) != NULL;
    if (!found) print_message("stderr was:\n%s\n", text);
    cot_free(text);
    return found;
}

void job_write(const char *name, const char *text)
{
    temporary_write(job_path(name), text, strlen(text));
}

void job_assert_same(const char *name, const char *other)
{
    size_t left_bytes = 0, right_bytes = 0;
    char *left = job_read(name, &left_bytes), *right = job_read(other, &right_bytes);
    if (left_bytes != right_bytes || memcmp(left, right, left_bytes) != 0) fail_msg("%s and %s differ", name, other);
    cot_free(left);
    cot_free(right);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

uint32_t job_models(char names[][64], uint32_t max)
{
    DIR *folder = opendir(COTERIE_SOURCE_DIR "/tests/fixtures/models");
    if (folder == NULL) fail_msg("there are no model fixtures");
    uint32_t count = 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL && count < max;) {
        char config[512];
        snprintf(config, sizeof(config), COTERIE_SOURCE_DIR "/tests/fixtures/models/%s/config.json", entry->d_name);
        if (entry->d_name[0] == '.' || access(config, R_OK) != 0) continue;
        snprintf(names[count++], sizeof(names[0]), "%s", entry->d_name);
    }
    closedir(folder);
    qsort(names, count, sizeof(names[0]), compare_names);
    return count;
}
