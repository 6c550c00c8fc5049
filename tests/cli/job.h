/* Starting our programs from a test: under mpirun or alone, with their output in files of a temporary folder. */
#ifndef TESTS_JOB_H
#define TESTS_JOB_H

#include "tests/temporary.h"

#include <stdbool.h>
#include <sys/types.h>

/* The folder of the test program; made by job_setup, removed by job_teardown (cmocka group fixtures). */
extern char job_folder[256];
int job_setup(void **state);
int job_teardown(void **state);

/* FOLDER/NAME in a static ring of buffers. */
const char *job_path(const char *name);

/* Runs a shell command with $PROGRAM, $RUN (deploy/run.sh on it), $SOURCE and $DIR set; standard error goes to
 * DIR/stderr. Returns its exit status (128 + signal if killed). Fails the test after 120 s. */
__attribute__((format(printf, 1, 2))) int job_run(const char *format, ...);
/* Starts it in the background, in a process group of its own. */
__attribute__((format(printf, 1, 2))) pid_t job_start(const char *format, ...);
/* Waits for a background command; fails the test if it takes longer. */
int job_wait(pid_t pid, int timeout_ms);

/* The whole of DIR/NAME; free with cot_free. */
char *job_read(const char *name, size_t *bytes_out);
/* Whether DIR/stderr contains `words`; prints it if not. */
bool job_stderr_has(const char *words);
void job_write(const char *name, const char *text);
void job_assert_same(const char *name, const char *other);

/* Model fixtures that are there: names in tests/fixtures/models, sorted. */
uint32_t job_models(char names[][64], uint32_t max);

#endif
