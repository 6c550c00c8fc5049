/* A folder of a test's own, removed at the end; and cmocka with what it needs. */
#ifndef TESTS_TEMPORARY_H
#define TESTS_TEMPORARY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/status.h"

/* OK, or the sentence in the test's output. */
#define assert_ok(call)                                                     \
    do {                                                                    \
        cot_status_t status_ = (call);                                      \
        if (status_ != COT_OK) fail_msg("%s: %s", #call, cot_error_text()); \
    } while (0)

/* The status, and a piece of the sentence. */
#define assert_fails(call, wanted, words)                                                             \
    do {                                                                                              \
        cot_status_t status_ = (call);                                                                \
        if (status_ != (wanted) || strstr(cot_error_text(), (words)) == NULL)                         \
            fail_msg("%s: status %d, wanted %d and \"%s\" in: %s", #call, status_, (wanted), (words), \
                     cot_error_text());                                                               \
    } while (0)

/* Makes a folder under the system's temporary one. */
static inline void temporary_make(char path[256])
{
    const char *base = getenv("TMPDIR");
    snprintf(path, 256, "%s/coterie-test.XXXXXX", base != NULL ? base : "/tmp");
    if (mkdtemp(path) == NULL) fail_msg("cannot make %s", path);
}

static inline void temporary_remove(const char *path)
{
    char command[300];
    snprintf(command, sizeof(command), "rm -rf '%s'", path);
    if (system(command) != 0) fail_msg("cannot remove %s", path);
}

static inline void temporary_write(const char *path, const void *bytes, size_t count)
{
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(bytes, 1, count, file) != count || fclose(file) != 0) fail_msg("cannot write %s", path);
}

#endif
