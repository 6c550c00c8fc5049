/* A function run in a forked child within limits of time and memory: whatever it does there (abort, loop, fill the
 * memory, write nonsense) ends the child alone. What it found comes back through a pipe, frame by frame, so that the
 * best answer so far survives a child that is killed. */
#ifndef SOLVE_CHILD_H
#define SOLVE_CHILD_H

#include "base/clock.h"
#include "base/status.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* How it ended. */
typedef enum {
    SOLVE_CHILD_DONE,      /* returned 0 */
    SOLVE_CHILD_LATE,      /* killed at its deadline */
    SOLVE_CHILD_STOPPED,   /* killed because of the stop flag */
    SOLVE_CHILD_NO_MEMORY, /* said so: solve_child_no_memory */
    SOLVE_CHILD_DIED,      /* by a signal, or returned another number */
    SOLVE_CHILD_GARBAGE    /* killed because it wrote what is no frame, or a frame that was refused */
} solve_child_end_t;

/* For the child: where its frames go. */
typedef struct {
    int descriptor;
} solve_child_pipe_t;

/* Sends a frame of the child's; false if nobody reads it any more. */
bool solve_child_send(solve_child_pipe_t *pipe, uint32_t kind, const void *bytes, size_t count);
/* Ends the child at once, with the reason that its memory is spent. */
_Noreturn void solve_child_no_memory(void);

typedef struct {
    cot_deadline_t deadline;
    const atomic_bool *stop;                           /* may be NULL */
    uint64_t memory_bytes;                             /* beyond what the child has from its parent */
    size_t frame_bytes;                                /* of the longest frame */
    int (*work)(void *user, solve_child_pipe_t *pipe); /* in the child: 0 if all went well */
    bool (*take)(void *user, uint32_t kind, const void *bytes, size_t count); /* here; false: refused */
    void *user;
} solve_child_config_t;

/* Runs it to its end and reaps it. The child has no terminal: its standard streams are /dev/null. Of threads it has
 * only the calling one, so `work` takes no lock that another thread might have held. A failure to start is an error;
 * how a child ends is none. */
cot_status_t solve_child_run(const solve_child_config_t *config, solve_child_end_t *end_out);

#endif
