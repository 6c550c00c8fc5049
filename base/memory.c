#include "base/memory.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static atomic_size_t live_bytes, live_blocks, peak_bytes;
static _Atomic int64_t allocations_left = -1;

/* Whether the test hook lets this allocation fail. */
static bool must_fail(void)
{
    if (atomic_load_explicit(&allocations_left, memory_order_relaxed) < 0) return false;
    return atomic_fetch_sub(&allocations_left, 1) == 0;
}

static void *counted(void *memory)
{
    if (memory == NULL) return NULL;
    size_t now = atomic_fetch_add(&live_bytes, malloc_usable_size(memory)) + malloc_usable_size(memory);
    atomic_fetch_add(&live_blocks, 1);
    size_t peak = atomic_load(&peak_bytes);
    while (now > peak && !atomic_compare_exchange_weak(&peak_bytes, &peak, now)) {
    }
    return memory;
}

static void uncount(void *memory)
{
    if (memory == NULL) return;
    atomic_fetch_sub(&live_bytes, malloc_usable_size(memory));
    atomic_fetch_sub(&live_blocks, 1);
}

void *cot_alloc(size_t bytes)
{
    if (must_fail()) return NULL;
    return counted(malloc(bytes > 0 ? bytes : 1));
}

void *cot_alloc_spared(size_t bytes)
{
    return counted(malloc(bytes > 0 ? bytes : 1));
}

void *cot_calloc(size_t count, size_t bytes)
{
    if (must_fail()) return NULL;
    if (count == 0 || bytes == 0) count = bytes = 1;
    return counted(calloc(count, bytes));
}

void *cot_realloc(void *memory, size_t bytes)
{
    if (must_fail()) return NULL;
    size_t old_bytes = memory != NULL ? malloc_usable_size(memory) : 0;
    void *moved = realloc(memory, bytes > 0 ? bytes : 1);
    if (moved == NULL) return NULL;
    if (memory != NULL) {
        atomic_fetch_sub(&live_bytes, old_bytes);
        atomic_fetch_sub(&live_blocks, 1);
    }
    return counted(moved);
}

void *cot_alloc_aligned(size_t bytes)
{
    if (must_fail() || bytes > SIZE_MAX - 64) return NULL;
    size_t rounded = (bytes + 63) / 64 * 64;
    return counted(aligned_alloc(64, rounded > 0 ? rounded : 64));
}

char *cot_strndup(const char *text, size_t bytes)
{
    size_t length = strnlen(text, bytes);
    char *copy = cot_alloc(length + 1);
    if (copy == NULL) return NULL;
    memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

char *cot_strdup(const char *text)
{
    return cot_strndup(text, strlen(text));
}

void cot_free(void *memory)
{
    uncount(memory);
    free(memory);
}

size_t cot_memory_live_bytes(void)
{
    return atomic_load(&live_bytes);
}

size_t cot_memory_live_blocks(void)
{
    return atomic_load(&live_blocks);
}

size_t cot_memory_peak_bytes(void)
{
    return atomic_load(&peak_bytes);
}

void cot_memory_fail_after(int64_t n)
{
    atomic_store(&allocations_left, n);
}
