/* Local routing consistency (arXiv 2505.16056): do neighbouring tokens use the same experts, so that a cache of few
 * experts serves them? */
#ifndef PLACE_LOCALITY_H
#define PLACE_LOCALITY_H

#include "placement/trace.h"

/* Window sizes m, in tokens, and the cache of the SCH figures in multiples of top_k (the paper's rule). */
#define PLACE_WINDOWS 4
#define PLACE_WINDOW_SIZES \
    {                      \
        4, 16, 64, 256     \
    }
#define PLACE_CACHE_RATIO 2

/* f(e) is the number of tokens of a window on which expert e is active. All overlapping windows of m consecutive tokens
 * of one request count.
 * srp: segment routing best performance, the largest F1 = 2 sum_{f >= a} f / sum (m [f >= a] + f) over one common
 *   threshold a, sums over windows and experts (and layers, for the whole model). size_ratio: mean number of experts
 *   with f >= a in a window, over top_k, at that a.
 * sch_window: hit rate of a cache that holds the 2 x top_k most active experts of each window (first version, Eq. 9).
 * sch: hit rate of a cache of 2 x top_k experts that loads on demand and evicts the expert with the fewest activations
 *   in the next m tokens, of several the least recently used, of these the lowest (published version). A load into a
 * cache that is not full counts as a hit; the experts of a token stay while it runs; every request starts with an empty
 * cache. */
typedef struct {
    uint64_t windows; /* 0: no request has m tokens: all but sch are 0 */
    double srp, size_ratio, sch, sch_window;
} place_locality_t;

/* Which requests were looked at: every `stride`-th run of consecutive positions, so that large traces take seconds. */
typedef struct {
    uint64_t runs, looked_at;
} place_locality_sample_t;

/* Figures of each layer, layers_out [layers, PLACE_WINDOWS], and of the model, model_out [PLACE_WINDOWS], of a token
 * trace with requests and positions; COT_ERR_UNSUPPORTED for others. */
cot_status_t place_trace_locality(const place_trace_t *trace, place_locality_t *layers_out, place_locality_t *model_out,
                                  place_locality_sample_t *sample_out);

#endif
