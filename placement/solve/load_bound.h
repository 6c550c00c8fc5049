/* How small the largest rank load of one layer can be. */
#ifndef SOLVE_LOAD_BOUND_H
#define SOLVE_LOAD_BOUND_H

#include "base/status.h"

#include <stdint.h>

/* One layer: experts of a weight each, ranks that take slowness [rank] for one unit of weight and have room for
 * slots [rank] experts. Borrows its arrays. */
typedef struct {
    const int64_t *weight; /* [experts] >= 0 */
    uint32_t experts;
    const uint32_t *slots;   /* [ranks] */
    const int64_t *slowness; /* [ranks] >= 0 */
    uint32_t ranks;
    uint32_t free_slots; /* sum of slots - experts: as many replicas there may be */
} solve_layer_load_t;

/* Every placement's largest sum of weight x slowness over the experts of a rank is at least *bound_out, also where it
 * counts replicas by the share of homes they serve and rounds down. The largest of
 *   the mean: the work spread by speed over all ranks;
 *   the hottest expert, on as many of the fastest ranks as it may have copies, with the lightest company where every
 *   slot must be taken;
 *   pigeonholes: among the hottest m x ranks + 1 experts that have no replica some m + 1 share a rank. */
cot_status_t solve_load_bound(const solve_layer_load_t *layer, int64_t *bound_out);

/* The least largest sum x slowness, rounded down, if `work` may be cut into whole 1/parts at will among `ranks`. */
int64_t solve_spread_bound(int64_t work, const int64_t *slowness, uint32_t ranks, int64_t parts);

#endif
