#include "worker/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The number in a one-line file; UINT64_MAX where there is none ("max", or no such file). */
static uint64_t read_limit(const char *path)
{
    char text[64] = "";
    FILE *file = fopen(path, "re");
    if (file == NULL) return UINT64_MAX;
    char *line = fgets(text, sizeof(text), file);
    fclose(file);
    if (line == NULL || *line < '0' || *line > '9') return UINT64_MAX;
    return strtoull(line, NULL, 10);
}

uint64_t worker_node_memory(void)
{
    uint64_t machine = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t group = read_limit("/sys/fs/cgroup/memory.max");
    return group < machine ? group : machine;
}

cot_status_t worker_memory_check(const worker_need_t *need, uint64_t available)
{
    const double mib = 1024.0 * 1024.0;
    uint64_t total = need->node_workers * (need->private_weights + need->kv + need->buffers) + need->mapped_weights +
                     need->stored_weights;
    if (total <= available) return COT_OK;
    return cot_fail(
        COT_ERR_NO_MEMORY,
        "%u workers on this node need %.0f MiB (each: KV %.0f, buffers %.0f, weights %.0f; together: weights "
        "%.0f mapped and %.0f converted), the node has %.0f MiB: use more nodes, or lower --kv-memory or "
        "--max-step-tokens",
        need->node_workers, (double)total / mib, (double)need->kv / mib, (double)need->buffers / mib,
        (double)need->private_weights / mib, (double)need->mapped_weights / mib, (double)need->stored_weights / mib,
        (double)available / mib);
}
