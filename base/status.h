/* One status for the whole tree: 0 is success, negative is an error. The groups say what must be rebuilt:
 * a request, a peer, a device, or the process. Every failing function sets this thread's error sentence once, where
 * the fault is found (cot_fail); callers only pass the status on (COT_TRY). */
#ifndef COT_STATUS_H
#define COT_STATUS_H

#include <stdbool.h>

/* X(name, value, exit code, text) */
#define COT_STATUS_MAP(X)                                                  \
    X(OK, 0, 0, "success")                                                 \
    /* request: the caller's input is at fault; everything else goes on */ \
    X(ERR_INVALID, -1, 2, "invalid argument or setting")                   \
    X(ERR_NOT_FOUND, -2, 4, "not found")                                   \
    X(ERR_FORMAT, -3, 4, "malformed input")                                \
    X(ERR_UNSUPPORTED, -4, 4, "not supported")                             \
    X(ERR_MISMATCH, -5, 4, "inputs do not belong together")                \
    X(ERR_LIMIT, -6, 4, "over a limit")                                    \
    X(ERR_BUSY, -7, 7, "busy")                                             \
    X(ERR_AUTH, -8, 7, "not authorised")                                   \
    X(ERR_CANCELLED, -9, 130, "cancelled")                                 \
    X(ERR_PARTIAL, -10, 3, "some inputs were refused")                     \
    /* peer: another process is gone, late, or speaks nonsense */          \
    X(ERR_PEER_LOST, -20, 6, "a peer is gone")                             \
    X(ERR_TIMEOUT, -21, 6, "a wait passed its deadline")                   \
    X(ERR_PROTOCOL, -22, 6, "a peer broke the protocol")                   \
    /* device: an accelerator or an instruction set */                     \
    X(ERR_DEVICE, -40, 1, "a device failed")                               \
    /* fatal: this process */                                              \
    X(ERR_NO_MEMORY, -60, 5, "out of memory")                              \
    X(ERR_IO, -61, 5, "input or output failed")                            \
    X(ERR_IN_USE, -62, 5, "already in use")                                \
    X(ERR_INTERNAL, -63, 1, "internal error")

typedef enum {
#define X(name, value, exit_code, text) COT_##name = value,
    COT_STATUS_MAP(X)
#undef X
} cot_status_t;

/* The text and the process exit code of a status (docs/operations.md lists the exit codes). */
const char *cot_status_text(cot_status_t status);
int cot_exit_code(cot_status_t status);

/* Sets this thread's error sentence and returns `status`. The sentence says what is wrong, where, and what to do. */
__attribute__((format(printf, 2, 3))) cot_status_t cot_fail(cot_status_t status, const char *format, ...);

/* Puts "PREFIX: " before this thread's error sentence; returns `status`. For a caller that knows the file or line. */
__attribute__((format(printf, 2, 3))) cot_status_t cot_fail_in(cot_status_t status, const char *format, ...);

/* This thread's last error sentence; "" if there was none. Valid until the thread's next cot_fail. */
const char *cot_error_text(void);

/* The three forms: return while nothing is owned, goto afterwards, ignore (but log) in cleanup. */
#define COT_TRY(call)                            \
    do {                                         \
        cot_status_t cot_try_ = (call);          \
        if (cot_try_ != COT_OK) return cot_try_; \
    } while (0)
#define COT_TRY_GOTO(call, status, label)   \
    do {                                    \
        (status) = (call);                  \
        if ((status) != COT_OK) goto label; \
    } while (0)
#define COT_IGNORE(call)                                                     \
    do {                                                                     \
        if ((call) != COT_OK) cot_log_warn("ignored: %s", cot_error_text()); \
    } while (0)

#endif
