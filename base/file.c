#include "base/file.h"

#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static cot_status_t fail_errno(const char *path, const char *doing)
{
    cot_status_t status = errno == ENOENT || errno == ENOTDIR ? COT_ERR_NOT_FOUND
                          : errno == ENOMEM                   ? COT_ERR_NO_MEMORY
                                                              : COT_ERR_IO;
    return cot_fail(status, "%s: cannot %s: %s", path, doing, strerror(errno));
}

/* Opens a regular file and learns its size. */
static cot_status_t open_regular(const char *path, int *fd_out, size_t *bytes_out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return fail_errno(path, "open it");
    struct stat info;
    if (fstat(fd, &info) != 0) {
        cot_status_t status = fail_errno(path, "look at it");
        close(fd);
        return status;
    }
    if (!S_ISREG(info.st_mode)) {
        close(fd);
        return cot_fail(COT_ERR_FORMAT, "%s: is not a regular file", path);
    }
    *fd_out = fd;
    *bytes_out = (size_t)info.st_size;
    return COT_OK;
}

cot_status_t cot_map_open(const char *path, cot_map_t *map_out)
{
    int fd;
    size_t bytes;
    COT_TRY(open_regular(path, &fd, &bytes));
    void *data = bytes > 0 ? mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0) : NULL;
    cot_status_t status = data == MAP_FAILED ? fail_errno(path, "map it") : COT_OK;
    close(fd);
    if (status == COT_OK) *map_out = (cot_map_t){.data = data, .bytes = bytes};
    return status;
}

void cot_map_close(cot_map_t *map)
{
    if (map->data != NULL) munmap((void *)(uintptr_t)map->data, map->bytes);
    *map = (cot_map_t){0};
}

static cot_status_t read_all(int fd, const char *path, char *text, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t got = read(fd, text + done, bytes - done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return fail_errno(path, "read it");
        if (got == 0) return cot_fail(COT_ERR_IO, "%s: became shorter while it was read", path);
        done += (size_t)got;
    }
    return COT_OK;
}

cot_status_t cot_file_read(const char *path, size_t limit, char **text_out, size_t *bytes_out)
{
    int fd;
    size_t bytes;
    COT_TRY(open_regular(path, &fd, &bytes));
    char *text = NULL;
    cot_status_t status;
    if (bytes > limit)
        status = cot_fail(COT_ERR_LIMIT, "%s: is %zu bytes, at most %zu are read", path, bytes, limit);
    else if ((text = cot_alloc(bytes + 1)) == NULL)
        status = cot_fail(COT_ERR_NO_MEMORY, "%s: no memory for its %zu bytes", path, bytes);
    else
        status = read_all(fd, path, text, bytes);
    close(fd);
    if (status != COT_OK) {
        cot_free(text);
        return status;
    }
    text[bytes] = '\0';
    *text_out = text;
    *bytes_out = bytes;
    return COT_OK;
}

/* Where to write: *path_out is the file behind any symbolic links, *temporary_out its name until it is whole, or NULL
 * for what cannot be replaced. */
static cot_status_t choose_names(const char *path, char **path_out, char **temporary_out)
{
    char real[PATH_MAX];
    struct stat info;
    bool there = stat(path, &info) == 0;
    if (there && S_ISDIR(info.st_mode)) return cot_fail(COT_ERR_INVALID, "%s: is a directory; name a file", path);
    bool replaced = !there || S_ISREG(info.st_mode);
    if (there && replaced && realpath(path, real) != NULL) path = real;

    char *name = cot_strdup(path);
    size_t length = strlen(path) + 32;
    char *temporary = replaced ? cot_alloc(length) : NULL;
    if (name == NULL || (replaced && temporary == NULL)) {
        cot_free(name);
        cot_free(temporary);
        return cot_fail(COT_ERR_NO_MEMORY, "%s: no memory to write it", path);
    }
    if (replaced) snprintf(temporary, length, "%s.tmp.%ld", path, (long)getpid());
    *path_out = name;
    *temporary_out = temporary;
    return COT_OK;
}

static void free_names(cot_output_t *output)
{
    cot_free(output->path);
    cot_free(output->temporary);
    *output = (cot_output_t){0};
}

cot_status_t cot_output_open(const char *path, cot_output_t *output_out)
{
    cot_output_t output = {0};
    COT_TRY(choose_names(path, &output.path, &output.temporary));
    const char *name = output.temporary != NULL ? output.temporary : output.path;
    output.stream = fopen(name, "wbe");
    if (output.stream == NULL) {
        cot_status_t status = fail_errno(name, "create it");
        free_names(&output);
        return status;
    }
    *output_out = output;
    return COT_OK;
}

cot_status_t cot_output_write(cot_output_t *output, const void *bytes, size_t count)
{
    if (count == 0 || fwrite(bytes, 1, count, output->stream) == count) return COT_OK;
    return fail_errno(output->path, "write it");
}

cot_status_t cot_output_commit(cot_output_t *output)
{
    cot_status_t status = COT_OK;
    bool replaced = output->temporary != NULL;
    if (fflush(output->stream) != 0 || (replaced && fsync(fileno(output->stream)) != 0))
        status = fail_errno(output->path, "write it");
    if (fclose(output->stream) != 0 && status == COT_OK) status = fail_errno(output->path, "write it");
    if (replaced && status == COT_OK && rename(output->temporary, output->path) != 0)
        status = fail_errno(output->path, "give it its name");
    if (replaced && status != COT_OK) unlink(output->temporary);
    free_names(output);
    return status;
}

void cot_output_discard(cot_output_t *output)
{
    if (output->stream == NULL) return;
    fclose(output->stream);
    if (output->temporary != NULL) unlink(output->temporary);
    free_names(output);
}

cot_status_t cot_file_write(const char *path, const void *bytes, size_t count)
{
    cot_output_t output = {0};
    COT_TRY(cot_output_open(path, &output));
    cot_status_t status = cot_output_write(&output, bytes, count);
    if (status == COT_OK) status = cot_output_commit(&output);
    cot_output_discard(&output);
    return status;
}

char *cot_path_join(const char *directory, const char *name)
{
    size_t length = strlen(directory);
    bool slash = length > 0 && directory[length - 1] == '/';
    char *path = cot_alloc(length + strlen(name) + 2);
    if (path != NULL) sprintf(path, "%s%s%s", directory, slash ? "" : "/", name);
    return path;
}

void cot_sha256_hex(const void *bytes, size_t count, char hex_out[65])
{
    unsigned char digest[EVP_MAX_MD_SIZE] = {0};
    EVP_Digest(bytes, count, digest, NULL, EVP_sha256(), NULL);
    for (int i = 0; i < 32; i++) sprintf(hex_out + 2 * i, "%02x", digest[i]);
}
