#include "base/program.h"

#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { CANNOT_EXECUTE = 127 };

cot_status_t cot_program_beside(const char *name, char *path_out, size_t bytes)
{
    char self[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash = NULL;
    if (length > 0) {
        self[length] = '\0';
        slash = strrchr(self, '/');
    }
    if (slash == NULL) return cot_fail(COT_ERR_NOT_FOUND, "cannot find out where %s is", name);
    *slash = '\0';
    if (snprintf(path_out, bytes, "%s/%s", self, name) >= (int)bytes)
        return cot_fail(COT_ERR_LIMIT, "the path of %s is too long", name);
    if (access(path_out, X_OK) != 0)
        return cot_fail(COT_ERR_NOT_FOUND, "cannot run %s: %s; build it with deploy/build.sh", path_out,
                        strerror(errno));
    return COT_OK;
}

/* ---- start ---- */

/* A malloc arena for each thread would take 64 MiB of the address space that is limited. */
static char few_arenas[] = "MALLOC_ARENA_MAX=2";

static char **make_environment(bool limited)
{
    size_t count = 0, kept = 0;
    while (environ != NULL && environ[count] != NULL) count++;
    char **list = cot_calloc(count + 2, sizeof(*list));
    if (list != NULL && limited) list[kept++] = few_arenas;
    for (size_t i = 0; list != NULL && i < count; i++)
        if (strncmp(environ[i], "COTERIE_", 8) != 0) list[kept++] = environ[i];
    return list;
}

static void limit(int resource, uint64_t most)
{
    struct rlimit limit;
    if (most == 0 || getrlimit(resource, &limit) != 0 || limit.rlim_max < most) return;
    setrlimit(resource, &(struct rlimit){.rlim_cur = most, .rlim_max = most});
}

/* In the child: only calls that are allowed after fork in a process with threads. */
static _Noreturn void become(const cot_program_config_t *config, char *const *environment, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(CANNOT_EXECUTE); /* died before the line above */
    setpgid(0, 0);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    int nothing = open("/dev/null", O_RDONLY);
    dup2(nothing, STDIN_FILENO);
    if (config->output >= 0) {
        dup2(config->output, STDOUT_FILENO);
        dup2(config->output, STDERR_FILENO);
    }
    close_range(STDERR_FILENO + 1, ~0U, 0); /* sockets to clients and ranks are not for it */
    limit(RLIMIT_AS, config->memory_bytes);
    limit(RLIMIT_FSIZE, config->file_bytes);
    execve(config->path, config->argv, environment);
    _exit(CANNOT_EXECUTE);
}

cot_status_t cot_program_start(const cot_program_config_t *config, cot_program_t *program_out)
{
    char **environment = make_environment(config->memory_bytes != 0);
    if (environment == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory to start %s", config->path);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) become(config, environment, parent);
    int error = errno;
    cot_free(environment);
    if (pid < 0) return cot_fail(COT_ERR_NO_MEMORY, "cannot start %s: %s", config->path, strerror(error));
    setpgid(pid, pid); /* whoever comes first: a kill of the group must not miss it */
    *program_out = (cot_program_t){.pid = pid,
                                   .began_ns = cot_now_ns(),
                                   .timeout_ms = config->timeout_ms,
                                   .deadline = cot_deadline_in_ms(config->timeout_ms)};
    return COT_OK;
}

/* ---- end ---- */

/* While its leader is not yet waited for, the group's number is still its own. */
static void end_group(cot_program_t *program)
{
    kill(-program->pid, SIGKILL);
    waitpid(program->pid, NULL, 0); /* killed: it comes at once */
    program->pid = 0;
}

static cot_status_t judge(const siginfo_t *info)
{
    if (info->si_code == CLD_EXITED && info->si_status == 0) return COT_OK;
    if (info->si_code == CLD_EXITED && info->si_status == CANNOT_EXECUTE)
        return cot_fail(COT_ERR_INTERNAL, "it could not be executed");
    if (info->si_code == CLD_EXITED) return cot_fail(COT_ERR_INTERNAL, "it ended with status %d", info->si_status);
    return cot_fail(COT_ERR_INTERNAL, "signal %d (%s) ended it", info->si_status, strsignal(info->si_status));
}

bool cot_program_ended(cot_program_t *program, cot_status_t *status_out)
{
    siginfo_t info = {0};
    if (waitid(P_PID, (id_t)program->pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0) {
        *status_out = cot_fail(COT_ERR_INTERNAL, "it is lost: %s", strerror(errno));
        program->pid = 0;
        return true;
    }
    if (info.si_pid != 0)
        *status_out = judge(&info);
    else if (cot_deadline_passed(program->deadline))
        *status_out = cot_fail(COT_ERR_TIMEOUT, "it was killed after %lld ms", (long long)program->timeout_ms);
    else
        return false;
    end_group(program);
    return true;
}

void cot_program_kill(cot_program_t *program)
{
    if (program->pid != 0) end_group(program);
}
