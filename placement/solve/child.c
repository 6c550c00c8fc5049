#include "placement/solve/child.h"

#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define FRAME_MAGIC UINT32_C(0xc07e21e5)
#define EXIT_NO_MEMORY 77
#define LOOK_MS 20   /* how often the stop flag is looked at */
#define REAP_MS 5000 /* a killed child is gone long before */

typedef struct {
    uint32_t magic, kind;
    uint64_t bytes, sum;
} frame_t;

/* FNV-1a: enough to tell a frame from what an unruly child scribbled. */
static uint64_t checksum(const void *bytes, size_t count)
{
    const uint8_t *at = bytes;
    uint64_t sum = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < count; i++) sum = (sum ^ at[i]) * UINT64_C(0x100000001b3);
    return sum;
}

/* ---- in the child ---- */

static bool send_all(int descriptor, const void *bytes, size_t count)
{
    const char *at = bytes;
    while (count > 0) {
        ssize_t sent = write(descriptor, at, count);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return false;
        at += sent;
        count -= (size_t)sent;
    }
    return true;
}

bool solve_child_send(solve_child_pipe_t *pipe, uint32_t kind, const void *bytes, size_t count)
{
    frame_t frame = {FRAME_MAGIC, kind, count, checksum(bytes, count)};
    return send_all(pipe->descriptor, &frame, sizeof(frame)) && send_all(pipe->descriptor, bytes, count);
}

void solve_child_no_memory(void)
{
    _exit(EXIT_NO_MEMORY);
}

/* Limits count what a child has from its parent too (under a sanitizer terabytes), so they are set on top of it. */
static void limit_memory(uint64_t bytes)
{
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL) return;
    int read = fscanf(file, "%llu", &pages);
    fclose(file);
    if (read != 1) return;
    rlim_t most = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + bytes;
    struct rlimit now;
    if (getrlimit(RLIMIT_AS, &now) == 0 && (now.rlim_max == RLIM_INFINITY || most <= now.rlim_max))
        setrlimit(RLIMIT_AS, &(struct rlimit){most, most});
}

_Noreturn static void be_child(const solve_child_config_t *config, int descriptor, pid_t parent)
{
    static const int SIGNALS[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGPIPE, SIGTERM, SIGALRM};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    for (size_t i = 0; i < sizeof(SIGNALS) / sizeof(*SIGNALS); i++) signal(SIGNALS[i], SIG_DFL);
    signal(SIGINT, SIG_IGN); /* Ctrl-C reaches the whole group: the parent decides */
    signal(SIGHUP, SIG_IGN);
    int nowhere = open("/dev/null", O_RDWR);
    for (int standard = 0; standard < 3; standard++)
        if (nowhere < 0 || dup2(nowhere, standard) < 0) _exit(1);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    limit_memory(config->memory_bytes);
    solve_child_pipe_t pipe = {descriptor};
    int result = config->work(config->user, &pipe);
    _exit(result >= 0 && result < EXIT_NO_MEMORY ? result : 1);
}

/* ---- here ---- */

typedef struct {
    const solve_child_config_t *config;
    pid_t pid;
    int descriptor;
    uint8_t *buffer; /* a frame's head and its longest body */
    size_t held;
} watch_t;

/* Hands on the frames that are whole; false if what came is none. */
static bool take_frames(watch_t *watch)
{
    while (watch->held >= sizeof(frame_t)) {
        frame_t frame;
        memcpy(&frame, watch->buffer, sizeof(frame));
        if (frame.magic != FRAME_MAGIC || frame.bytes > watch->config->frame_bytes) return false;
        size_t whole = sizeof(frame) + frame.bytes;
        if (watch->held < whole) return true;
        const uint8_t *body = watch->buffer + sizeof(frame);
        if (checksum(body, frame.bytes) != frame.sum) return false;
        if (!watch->config->take(watch->config->user, frame.kind, body, frame.bytes)) return false;
        memmove(watch->buffer, watch->buffer + whole, watch->held - whole);
        watch->held -= whole;
    }
    return true;
}

/* Reads what is there without waiting; false if it is no frame. */
static bool drain(watch_t *watch)
{
    size_t room = sizeof(frame_t) + watch->config->frame_bytes;
    for (;;) {
        ssize_t count = read(watch->descriptor, watch->buffer + watch->held, room - watch->held);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return true;
        watch->held += (size_t)count;
        if (!take_frames(watch)) return false;
        if (cot_deadline_passed(watch->config->deadline)) return true; /* however fast it writes */
    }
}

static void kill_and_reap(watch_t *watch)
{
    kill(watch->pid, SIGKILL);
    cot_deadline_t deadline = cot_deadline_in_ms(REAP_MS);
    while (waitpid(watch->pid, NULL, WNOHANG) == 0 && !cot_deadline_passed(deadline)) usleep(1000);
}

static solve_child_end_t judge(int status)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return SOLVE_CHILD_DONE;
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_NO_MEMORY) return SOLVE_CHILD_NO_MEMORY;
    return SOLVE_CHILD_DIED;
}

/* The pipe's end is no sign of the child's: another thread's child may have the writing end too. */
static solve_child_end_t watch_child(watch_t *watch)
{
    const solve_child_config_t *config = watch->config;
    for (;;) {
        int status = 0;
        pid_t gone = waitpid(watch->pid, &status, WNOHANG);
        if (!drain(watch)) {
            if (gone == 0) kill_and_reap(watch);
            return SOLVE_CHILD_GARBAGE;
        }
        if (gone != 0) return gone == watch->pid ? judge(status) : SOLVE_CHILD_DIED;
        bool stopped = config->stop != NULL && atomic_load_explicit(config->stop, memory_order_relaxed);
        if (stopped || cot_deadline_passed(config->deadline)) {
            kill_and_reap(watch);
            return drain(watch) ? (stopped ? SOLVE_CHILD_STOPPED : SOLVE_CHILD_LATE) : SOLVE_CHILD_GARBAGE;
        }
        int64_t left = cot_deadline_left_ms(config->deadline);
        struct pollfd ready = {.fd = watch->descriptor, .events = POLLIN};
        poll(&ready, 1, left < LOOK_MS ? (int)left : LOOK_MS);
        if (ready.revents & POLLHUP && !(ready.revents & POLLIN)) usleep(1000); /* it is about to end */
    }
}

cot_status_t solve_child_run(const solve_child_config_t *config, solve_child_end_t *end_out)
{
    watch_t watch = {.config = config, .buffer = cot_alloc(sizeof(frame_t) + config->frame_bytes)};
    int ends[2];
    if (watch.buffer == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a child's answer");
    if (pipe2(ends, O_CLOEXEC) != 0) {
        cot_free(watch.buffer);
        return cot_fail(COT_ERR_IO, "no pipe to a child: %s", strerror(errno));
    }
    pid_t parent = getpid();
    watch.pid = fork();
    if (watch.pid == 0) {
        close(ends[0]);
        be_child(config, ends[1], parent);
    }
    int fault = errno;
    close(ends[1]);
    watch.descriptor = ends[0];
    if (watch.pid > 0) {
        fcntl(ends[0], F_SETFL, O_NONBLOCK);
        *end_out = watch_child(&watch);
    }
    close(ends[0]);
    cot_free(watch.buffer);
    return watch.pid > 0 ? COT_OK : cot_fail(COT_ERR_IO, "no child could be started: %s", strerror(fault));
}
