#include "placement/solve/links.h"

#include <stdio.h>
#include <string.h>

static bool same_node(const place_cluster_t *cluster, uint32_t a, uint32_t b)
{
    return cluster->rank[a].node == cluster->rank[b].node;
}

uint32_t solve_links_group(const solve_links_t *links, uint32_t from, uint32_t to)
{
    const place_cluster_t *cluster = links->cluster;
    if (links->by_node) return same_node(cluster, from, to) ? 0 : 1;
    return place_cluster_link(cluster, from, to)->tier - 1;
}

/* A group is named by the node if it is all links of that kind, and all its links are of that kind. */
static void name_group(solve_links_t *links, uint32_t group)
{
    const place_cluster_t *cluster = links->cluster;
    uint32_t near = 0, far = 0, near_all = 0, far_all = 0;
    const place_link_t *first = NULL;
    for (uint32_t a = 0; a < cluster->ranks; a++)
        for (uint32_t b = 0; b < cluster->ranks; b++) {
            if (a == b) continue;
            bool mine = solve_links_group(links, a, b) == group, is_near = same_node(cluster, a, b);
            near_all += is_near;
            far_all += !is_near;
            near += mine && is_near;
            far += mine && !is_near;
            if (mine && first == NULL) first = place_cluster_link(cluster, a, b);
        }
    char *name = links->name[group];
    if (far == 0 && near == near_all)
        snprintf(name, sizeof(links->name[0]), "same_node");
    else if (near == 0 && far == far_all)
        snprintf(name, sizeof(links->name[0]), "cross_node");
    else if (first != NULL)
        snprintf(name, sizeof(links->name[0]), "%.3g us, %.4g GB/s", first->latency_us, first->gigabytes_per_s);
}

void solve_links_find(const place_cluster_t *cluster, solve_links_t *links_out)
{
    *links_out = (solve_links_t){.cluster = cluster, .count = cluster->tiers - 1};
    if (links_out->count > SOLVE_LINKS_MOST) {
        links_out->by_node = true;
        links_out->count = 2;
    }
    for (uint32_t group = 0; group < links_out->count; group++) name_group(links_out, group);
}

void solve_links_sum(const solve_links_t *links, const int64_t *value, int64_t *sums_out)
{
    const place_cluster_t *cluster = links->cluster;
    memset(sums_out, 0, links->count * sizeof(*sums_out));
    for (uint32_t a = 0; a < cluster->ranks; a++)
        for (uint32_t b = 0; b < cluster->ranks; b++)
            if (a != b) sums_out[solve_links_group(links, a, b)] += value[(size_t)a * cluster->ranks + b];
}
