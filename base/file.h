/* Files: mapped for reading, or written beside their name and renamed when whole. */
#ifndef COT_FILE_H
#define COT_FILE_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* A whole file mapped read-only and shared: ranks of a node share one page-cache copy. Owns the mapping. */
typedef struct {
    const uint8_t *data; /* NULL for an empty file */
    size_t bytes;
} cot_map_t;

cot_status_t cot_map_open(const char *path, cot_map_t *map_out);
void cot_map_close(cot_map_t *map);

/* The whole of a file that must be at most `limit` bytes; a NUL follows the bytes. Free with cot_free. */
cot_status_t cot_file_read(const char *path, size_t limit, char **text_out, size_t *bytes_out);

/* A file that appears under its name only when it is complete: written to NAME.tmp.PID, flushed to disk, renamed. What
 * is there and no file (/dev/null, a pipe) is written as it is; of a symbolic link, the file behind it is replaced.
 * Owns the stream and the temporary file. */
typedef struct {
    FILE *stream;
    char *path, *temporary; /* temporary NULL: written in place */
} cot_output_t;

cot_status_t cot_output_open(const char *path, cot_output_t *output_out);
cot_status_t cot_output_write(cot_output_t *output, const void *bytes, size_t count);
/* Makes the file appear. On failure (say, no space) the temporary file is removed, an old file stays. */
cot_status_t cot_output_commit(cot_output_t *output);
void cot_output_discard(cot_output_t *output); /* after commit or a failed open: does nothing */

/* All of these: a whole file at once. */
cot_status_t cot_file_write(const char *path, const void *bytes, size_t count);

/* DIRECTORY/NAME; NULL when out of memory. Free with cot_free. */
char *cot_path_join(const char *directory, const char *name);

/* SHA-256 of bytes, as 64 lower-case hexadecimal digits and a NUL. */
void cot_sha256_hex(const void *bytes, size_t count, char hex_out[65]);

#endif
