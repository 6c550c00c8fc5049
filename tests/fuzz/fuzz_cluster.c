/* Any text as a cluster file: refused, or every pair of ranks has a link with finite figures. And any text as a model's
 * config.json, of which the planner takes shapes. */
#include "base/json.h"
#include "base/memory.h"
#include "placement/cluster.h"
#include "placement/model.h"
#include "tests/fuzz/input.h"

#include <math.h>

static void check(const place_cluster_t *cluster)
{
    uint32_t slots[PLACE_MAX_RANKS];
    if (cluster->ranks == 0 || cluster->ranks > PLACE_MAX_RANKS || cluster->nodes > cluster->ranks) abort();
    for (uint32_t a = 0; a < cluster->ranks; a++) {
        if (cluster->rank[a].node >= cluster->nodes || !(cluster->rank[a].relative_speed > 0)) abort();
        for (uint32_t b = 0; b < cluster->ranks; b++) {
            const place_link_t *link = place_cluster_link(cluster, a, b);
            if (link->tier >= cluster->tiers || (a == b) != (link->tier == 0)) abort();
            if (a != b && (!isfinite(link->latency_us) || !(link->gigabytes_per_s > 0) || link->crossing_cost < 0))
                abort();
        }
    }
    if (place_cluster_slots(cluster, 64, 16, 1 << 20, slots) != COT_OK) return;
    uint64_t total = 0;
    for (uint32_t a = 0; a < cluster->ranks; a++) total += slots[a];
    if (total < 64) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cot_json_setup();
    size_t live = cot_memory_live_blocks();
    place_cluster_t *cluster = NULL;
    place_model_t *model = NULL;
    if (place_cluster_parse((const char *)data, size, "cluster", &cluster) == COT_OK) check(cluster);
    if (place_model_parse((const char *)data, size, &model) == COT_OK &&
        (model->layers == 0 || model->top_k == 0 || model->top_k > model->experts))
        abort();
    place_cluster_destroy(cluster);
    place_model_destroy(model);
    if (cot_memory_live_blocks() != live) abort();
    return 0;
}
