/* Several traces made one, and one made two: `coterie trace merge` and `coterie trace split`. */
#ifndef PLACE_TRACE_SETS_H
#define PLACE_TRACE_SETS_H

#include "placement/trace.h"

/* Traces of one model. If all hold rows, their rows stand one after the other and requests are numbered on; else their
 * counts are added. Columns (or counts) that only some of them hold are left out, with a warning. */
cot_status_t place_trace_merge(const char *const *paths, uint32_t count, const char *out_path);

/* Puts `held_out`, a share above 0 and below 1, of the requests of a token trace into one file and the rest into the
 * other: at least one request each. Which ones depends on the seed and the request numbers alone. */
typedef struct {
    double held_out;
    uint64_t seed;
    const char *fitted_path, *held_out_path;
} place_split_t;
cot_status_t place_trace_split(const char *path, const place_split_t *split);

#endif
