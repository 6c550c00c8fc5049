/* Pair counts out of a trace: transitions between consecutive MoE layers and co-activation within one. */
#ifndef PLACE_TRACE_COUNTS_H
#define PLACE_TRACE_COUNTS_H

#include "placement/trace.h"

/* Token traces hold both; a counts trace what its tensors say. */
bool place_trace_has_transition(const place_trace_t *trace);
bool place_trace_has_coactivation(const place_trace_t *trace);

/* Adds the trace's counts to `load` [L, E], and to `transition` [L-1, E, E] and `coactivation` [L, E, E] where they are
 * not NULL (the trace must hold them). COT_ERR_FORMAT for a negative count or a tensor of another shape. */
cot_status_t place_trace_count(const place_trace_t *trace, int64_t *load, int64_t *transition, int64_t *coactivation);

#endif
