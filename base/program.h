/* Another program, run beside this process within limits: in a process group of its own, killed with all that it has
 * started when its time is over, when it is no longer wanted, or when this process dies. */
#ifndef COT_PROGRAM_H
#define COT_PROGRAM_H

#include "base/clock.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Path of the program NAME that is installed beside this one. COT_ERR_NOT_FOUND if there is none. */
cot_status_t cot_program_beside(const char *name, char *path_out, size_t bytes);

typedef struct {
    const char *path;
    char *const *argv;     /* argv[0] too; ends with NULL */
    int output;            /* descriptor that gets its standard output and error; -1: ours. Its input is empty. */
    uint64_t memory_bytes; /* most address space; 0: as much as we may */
    uint64_t file_bytes;   /* longest file that it may write; 0: likewise */
    int64_t timeout_ms;
} cot_program_config_t;

/* Zero-initialised is not running. */
typedef struct {
    pid_t pid;
    int64_t began_ns, timeout_ms;
    cot_deadline_t deadline;
} cot_program_t;

/* It gets our environment without COTERIE_* variables, which are for this process. */
cot_status_t cot_program_start(const cot_program_config_t *config, cot_program_t *program_out);
/* Whether it has ended; never waits. *status_out: COT_OK if it exited with 0, COT_ERR_TIMEOUT if it was killed at its
 * deadline, else COT_ERR_INTERNAL; the sentence says how it ended. */
bool cot_program_ended(cot_program_t *program, cot_status_t *status_out);
void cot_program_kill(cot_program_t *program); /* does nothing after the end */

#endif
