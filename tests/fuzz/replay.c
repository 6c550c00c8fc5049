/* Stands in for libFuzzer where there is none: runs the target over every file of the folders given, as it is and in
 * 300 damaged copies, the same ones at every run. */
#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COPIES = 300, INPUT_MAX = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t random_state = 1;

static uint32_t below(size_t limit)
{
    random_state = random_state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)((random_state >> 33) % limit);
}

/* A heap block of the exact size, so that a read past its end is seen. */
static void run(const uint8_t *data, size_t size)
{
    uint8_t *copy = calloc(size > 0 ? size : 1, 1);
    if (copy == NULL) abort();
    memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static void run_damaged(const uint8_t *data, size_t size)
{
    static uint8_t copy[INPUT_MAX];
    memcpy(copy, data, size);
    size_t length = below(4) == 0 ? below(size + 1) : size;
    for (uint32_t changes = below(4); changes > 0 && length > 0; changes--) {
        size_t at = below(length), from = below(length), most = length - (at > from ? at : from);
        switch (below(3)) {
        case 0: copy[at] ^= (uint8_t)(1U << below(8)); break;
        case 1: copy[at] = (uint8_t)below(256); break;
        default: memmove(copy + at, copy + from, below(most + 1)); break;
        }
    }
    run(copy, length);
}

static int replay(const char *path)
{
    static uint8_t data[INPUT_MAX];
    FILE *file = fopen(path, "rb");
    if (file == NULL) return 1;
    size_t size = fread(data, 1, sizeof(data), file);
    fclose(file);
    run(data, size);
    for (int copy = 0; copy < COPIES; copy++) run_damaged(data, size);
    return 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int replay_folder(const char *folder)
{
    struct dirent **entries;
    int count = scandir(folder, &entries, NULL, by_name), failed = count < 0;
    if (failed) fprintf(stderr, "cannot read the folder %s\n", folder);
    for (int i = 0; i < count; i++) {
        char path[4096];
        snprintf(path, sizeof(path), "%s/%s", folder, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.') failed |= replay(path);
        free(entries[i]);
    }
    if (count >= 0) free(entries);
    return failed;
}

int main(int argc, char **argv)
{
    int failed = argc < 2;
    run((const uint8_t *)"", 0);
    for (int i = 1; i < argc; i++) failed |= replay_folder(argv[i]);
    return failed;
}
