/* Counts of how tokens flow, from one trace or several: what placement is decided by. */
#ifndef PLACE_STATS_H
#define PLACE_STATS_H

#include "placement/trace.h"

/* Owns its arrays; NULL where no trace holds the counts. Layers are MoE layers. */
typedef struct {
    uint32_t layers, experts, top_k; /* top_k 0: unknown */
    uint32_t *layer_index;           /* [layers] */
    int64_t *load;                   /* [layers, experts] tokens of each expert */
    int64_t *transition;             /* [layers-1, experts, experts] over all k x k pairs of consecutive layers */
    int64_t *coactivation;           /* [layers, experts, experts] symmetric; its diagonal is `load` */
    uint32_t row_bytes;              /* 0: unknown */
    char model[128], config_sha256[65];
} place_stats_t;

/* Sums over the traces, which must be of one model. Of token traces everything is counted; of counts, what they hold.
 * Layer sums or transition margins that do not add up: up to 2 % a warning that names the largest difference, beyond
 * that COT_ERR_FORMAT. An empty trace is refused. */
cot_status_t place_stats_load(const char *const *paths, uint32_t count, place_stats_t **stats_out);
void place_stats_destroy(place_stats_t *stats);

#endif
