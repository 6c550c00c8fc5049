#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static _Atomic int log_level = COT_LOG_INFO;
static _Atomic int log_rank = -1;
static atomic_uint warning_count;

static const char *const LEVEL_NAMES[] = {"error", "warn", "info", "debug"};

void cot_log_set_level(cot_log_level_t level)
{
    atomic_store(&log_level, (int)level);
}

bool cot_log_level_parse(const char *name, cot_log_level_t *level_out)
{
    for (int level = COT_LOG_ERROR; level <= COT_LOG_DEBUG; level++) {
        if (strcmp(name, LEVEL_NAMES[level]) != 0) continue;
        *level_out = (cot_log_level_t)level;
        return true;
    }
    return false;
}

void cot_log_set_rank(int rank)
{
    atomic_store(&log_rank, rank);
}

unsigned cot_log_warning_count(void)
{
    return atomic_load(&warning_count);
}

void cot_log_at(cot_log_level_t level, const char *format, ...)
{
    if (level <= COT_LOG_WARN) atomic_fetch_add(&warning_count, 1);
    if ((int)level > atomic_load(&log_level)) return;

    char line[1280];
    int used = snprintf(line, sizeof(line), "coterie: ");
    int rank = atomic_load(&log_rank);
    if (rank >= 0) used += snprintf(line + used, sizeof(line) - (size_t)used, "rank %d: ", rank);
    if (level == COT_LOG_WARN) used += snprintf(line + used, sizeof(line) - (size_t)used, "warning: ");

    va_list args;
    va_start(args, format);
    int text = vsnprintf(line + used, sizeof(line) - (size_t)used - 1, format, args);
    va_end(args);
    if (text < 0) return;
    size_t length = strlen(line);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)line[i] < ' ' || line[i] == 0x7f) line[i] = '?';
    line[length++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, length);
    (void)written; /* nobody is left to tell */
}
