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
    uint64_t tokens;                 /* 0: not every trace states it */
    uint32_t row_bytes;              /* 0: unknown */
    double expert_ns_per_row;        /* 0: unknown */
    char model[128], config_sha256[65];
} place_stats_t;

/* Sums over the traces, which must be of one model. Of token traces everything is counted; of counts, what they hold.
 * An empty trace is refused, and so is what place_stats_check refuses. */
cot_status_t place_stats_load(const char *const *paths, uint32_t count, place_stats_t **stats_out);
/* Do the sums agree? The layers' loads, transition and co-activation margins, and k x tokens where that is known: up
 * to 2 % a warning that names the largest difference (none where the tokens are stated), beyond that COT_ERR_FORMAT. */
cot_status_t place_stats_check(const place_stats_t *stats);
/* As a counts trace: load, and transition and coactivation where they are known. */
cot_status_t place_stats_save(const place_stats_t *stats, const char *path);
/* The head of such a trace; borrows from `stats`. */
place_trace_info_t place_stats_info(const place_stats_t *stats);
void place_stats_destroy(place_stats_t *stats);

#endif
