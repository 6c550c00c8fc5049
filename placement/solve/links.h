/* Links that are alike, under one name: what a table of traffic has columns for. */
#ifndef SOLVE_LINKS_H
#define SOLVE_LINKS_H

#include "placement/cluster.h"

#define SOLVE_LINKS_MOST 8U

/* Groups by tier; a cluster with more than SOLVE_LINKS_MOST tiers by node alone. */
typedef struct {
    const place_cluster_t *cluster;
    uint32_t count;
    bool by_node;
    char name[SOLVE_LINKS_MOST][48]; /* "same_node", "cross_node", or latency and rate where that does not tell */
} solve_links_t;

void solve_links_find(const place_cluster_t *cluster, solve_links_t *links_out);
/* Group of the link between two different ranks. */
uint32_t solve_links_group(const solve_links_t *links, uint32_t from, uint32_t to);
/* Sums [ranks, ranks] values by group, the diagonal left out. sums_out [count] */
void solve_links_sum(const solve_links_t *links, const int64_t *value, int64_t *sums_out);

#endif
