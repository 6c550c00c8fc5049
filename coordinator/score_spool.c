#include "coordinator/score_spool.h"

#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { COPY_BYTES = 1 << 20 };

typedef struct {
    uint64_t line;
    uint32_t rows;
} spool_line_t;

/* Beside the final file, because that is where there is room for it. */
static cot_status_t open_unnamed(const char *path, int *fd_out)
{
    cot_buffer_t name = {0};
    cot_status_t status = cot_buffer_printf(&name, "%s.spool.%ld", path, (long)getpid());
    if (status == COT_OK) {
        int fd = open((const char *)name.data, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0)
            status = cot_fail(COT_ERR_IO, "%s: %s", (const char *)name.data, strerror(errno));
        else
            unlink((const char *)name.data);
        *fd_out = fd;
    }
    cot_buffer_free(&name);
    return status;
}

cot_status_t coord_spool_open(const char *path, uint32_t vocab, coord_spool_t *spool_out)
{
    coord_spool_t spool = {.fd = -1, .vocab = vocab};
    COT_TRY(cot_safetensors_writer_create(path, &spool.writer));
    cot_status_t status = open_unnamed(path, &spool.fd);
    if (status != COT_OK) {
        coord_spool_close(&spool);
        return status;
    }
    *spool_out = spool;
    return COT_OK;
}

void coord_spool_close(coord_spool_t *spool)
{
    if (spool->fd >= 0) close(spool->fd);
    cot_buffer_free(&spool->lines);
    cot_safetensors_writer_destroy(spool->writer);
    *spool = (coord_spool_t){.fd = -1};
}

cot_status_t coord_spool_line(coord_spool_t *spool, uint64_t line, uint32_t rows, uint64_t *row_out)
{
    const spool_line_t entry = {.line = line, .rows = rows};
    COT_TRY(cot_buffer_append(&spool->lines, &entry, sizeof(entry)));
    *row_out = spool->rows;
    spool->rows += rows;
    return COT_OK;
}

cot_status_t coord_spool_row(coord_spool_t *spool, uint64_t row, const float *logits)
{
    size_t bytes = spool->vocab * sizeof(*logits);
    for (size_t done = 0; done < bytes;) {
        ssize_t count = pwrite(spool->fd, (const uint8_t *)logits + done, bytes - done, (off_t)(row * bytes + done));
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return cot_fail(COT_ERR_IO, "the logits cannot be kept beside their file: %s", strerror(errno));
        done += (size_t)count;
    }
    return COT_OK;
}

static cot_status_t declare(coord_spool_t *spool)
{
    const spool_line_t *line = (const spool_line_t *)(const void *)spool->lines.data;
    for (size_t i = 0; i < spool->lines.size / sizeof(*line); i++) {
        char name[24];
        snprintf(name, sizeof(name), "%llu", (unsigned long long)line[i].line);
        COT_TRY(cot_safetensors_writer_declare(spool->writer, name, COT_DTYPE_F32, 2,
                                               (const uint64_t[]){line[i].rows, spool->vocab}));
    }
    return COT_OK;
}

static cot_status_t copy(coord_spool_t *spool, uint8_t *chunk)
{
    uint64_t bytes = spool->rows * spool->vocab * sizeof(float);
    for (uint64_t done = 0; done < bytes;) {
        size_t wanted = bytes - done < COPY_BYTES ? (size_t)(bytes - done) : COPY_BYTES;
        ssize_t count = pread(spool->fd, chunk, wanted, (off_t)done);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return cot_fail(COT_ERR_IO, "the logits cannot be read back: %s", strerror(errno));
        COT_TRY(cot_safetensors_writer_write(spool->writer, chunk, (size_t)count));
        done += (uint64_t)count;
    }
    return COT_OK;
}

cot_status_t coord_spool_commit(coord_spool_t *spool)
{
    COT_TRY(declare(spool));
    uint8_t *chunk = cot_alloc(COPY_BYTES);
    if (chunk == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory to copy the logits");
    cot_status_t status = copy(spool, chunk);
    cot_free(chunk);
    return status == COT_OK ? cot_safetensors_writer_commit(spool->writer) : status;
}
