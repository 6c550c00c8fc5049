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

#include "base/file.h"
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

static inline void assert_same_bytes(const char *path, const char *other)
{
    char *left = NULL, *right = NULL;
    size_t left_bytes = 0, right_bytes = 0;
    assert_ok(cot_file_read(path, 1 << 24, &left, &left_bytes));
    assert_ok(cot_file_read(other, 1 << 24, &right, &right_bytes));
    assert_int_equal(left_bytes, right_bytes);
    assert_memory_equal(left, right, left_bytes);
    cot_free(left);
    cot_free(right);
}

/* Lets the first, the second, … allocation of `call` (a cot_status_t) fail until it succeeds. Every time it must leave
 * nothing behind but what `cleanup` frees. */
#define assert_survives_allocations(call, cleanup)                  \
    do {                                                            \
        size_t live_ = cot_memory_live_blocks();                    \
        cot_status_t status_ = COT_ERR_NO_MEMORY;                   \
        for (int64_t allowed_ = 0; status_ != COT_OK; allowed_++) { \
            cot_memory_fail_after(allowed_);                        \
            status_ = (call);                                       \
            cot_memory_fail_after(-1);                              \
            cleanup;                                                \
            assert_int_equal(cot_memory_live_blocks(), live_);      \
            assert_true(allowed_ < 1000);                           \
        }                                                           \
    } while (0)

#endif
