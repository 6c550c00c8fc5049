/* The assignment problem: rows to columns, each once, at the least sum. */
#ifndef SOLVE_HUNGARIAN_H
#define SOLVE_HUNGARIAN_H

#include <stddef.h>
#include <stdint.h>

#define SOLVE_HUNGARIAN_BYTES(n) (((size_t)(n) + 1) * (3 * sizeof(int64_t) + 3 * sizeof(uint32_t)))

/* cost [n, n]; column_of [n] out; scratch of SOLVE_HUNGARIAN_BYTES(n). Returns the sum. Kuhn-Munkres with potentials,
 * O(n^3). */
int64_t solve_hungarian(const int64_t *cost, uint32_t n, uint32_t *column_of, void *scratch);

#endif
