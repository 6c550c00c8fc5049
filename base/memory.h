/* Allocation for the whole tree: counted, so that a leak is seen at exit, and able to fail on purpose in tests.
 * Thread-safe. Memory from here is freed with cot_free only. */
#ifndef COT_MEMORY_H
#define COT_MEMORY_H

#include <stddef.h>
#include <stdint.h>

void *cot_alloc(size_t bytes);                 /* NULL when out of memory; cot_alloc(0) is a valid pointer */
void *cot_calloc(size_t count, size_t bytes);  /* zeroed; NULL also when count x bytes overflows */
void *cot_realloc(void *memory, size_t bytes); /* like realloc; on failure `memory` stays */
void *cot_alloc_spared(size_t bytes);          /* spared by the test hook: for a library that cannot survive failure */
void *cot_alloc_aligned(size_t bytes);         /* aligned to 64 bytes (a cache line, an AVX-512 register) */
char *cot_strdup(const char *text);
char *cot_strndup(const char *text, size_t bytes);
void cot_free(void *memory); /* NULL is allowed */

size_t cot_memory_live_bytes(void);
size_t cot_memory_live_blocks(void);
size_t cot_memory_peak_bytes(void);

/* Test hook: the next `n` allocations succeed, the one after fails, then all succeed again. Negative: never fail. */
void cot_memory_fail_after(int64_t n);

#endif
