/* The machines a placement is for (*.cluster.json, DESIGN.md section 6): ranks with node, slots, memory and speed;
 * links by tier or as full matrices. `ranks` counts workers. Units as the names say. */
#ifndef PLACE_CLUSTER_H
#define PLACE_CLUSTER_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLACE_MAX_RANKS 1024U

typedef struct {
    uint32_t node;
    uint32_t slots;        /* expert slots in each MoE layer; 0: not stated */
    uint64_t memory_bytes; /* 0: not stated */
    double relative_speed; /* 1 is the reference */
} place_rank_t;

typedef struct {
    double latency_us, gigabytes_per_s; /* rate in each direction */
    int64_t crossing_cost;
    uint32_t tier; /* links of equal figures share a tier; a rank's link to itself is tier 0 */
} place_link_t;

/* Owns its arrays. Immutable once made. */
typedef struct {
    uint32_t ranks, nodes;    /* nodes are numbered 0 … nodes-1 in order of their first rank */
    double expert_ns_per_row; /* one expert on one row at relative speed 1, as calibrated; 0: not stated */
    uint32_t tiers;           /* distinct links, tier 0 (the rank itself) included */
    place_rank_t *rank;       /* [ranks] */
    place_link_t *link;       /* [ranks, ranks] from, to; zero cost on the diagonal */
} place_cluster_t;

/* Refuses what no exchange could run on: a pair of ranks without a link, a rate that is not above 0, a NaN. */
cot_status_t place_cluster_load(const char *path, place_cluster_t **cluster_out);
cot_status_t place_cluster_parse(const char *text, size_t bytes, const char *what, place_cluster_t **cluster_out);
void place_cluster_destroy(place_cluster_t *cluster);

/* Slots of each rank for a layer of `experts`: as stated; else what memory allows at `expert_bytes` over `layers` MoE
 * layers (if both are known); else experts / ranks rounded up. COT_ERR_LIMIT if the experts do not fit. slots_out
 * [ranks]. */
cot_status_t place_cluster_slots(const place_cluster_t *cluster, uint32_t experts, uint32_t layers,
                                 uint64_t expert_bytes, uint32_t *slots_out);

static inline const place_link_t *place_cluster_link(const place_cluster_t *cluster, uint32_t from, uint32_t to)
{
    return &cluster->link[(uint64_t)from * cluster->ranks + to];
}

#endif
