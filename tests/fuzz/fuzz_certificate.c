/* Any file as a certificate: refused, or what it proves about a tiny trace is true: no more crossings than the fewest
 * of all placements, which are tried one by one. A forged proof of too much would show here. */
#include "base/json.h"
#include "base/memory.h"
#include "placement/solve/check.h"
#include "tests/fuzz/input.h"

#include <string.h>

/* 3 layers of 4 experts, 2 ranks with 2 slots each, top-1: token t takes t % 4, then (t + t / 4) % 4, then t * t % 4.
 */
enum { LAYERS = 3, EXPERTS = 4, RANKS = 2, TOKENS = 23, HALVES = 6 };
static uint32_t layer_index[LAYERS] = {0, 1, 2};

static uint32_t choice(uint32_t token, uint32_t layer)
{
    const uint32_t chosen[LAYERS] = {token % EXPERTS, (token + token / EXPERTS) % EXPERTS, token * token % EXPERTS};
    return chosen[layer];
}

/* The experts of rank 0 in a layer, as bits. */
static const uint32_t HALF[HALVES] = {3, 5, 9, 6, 10, 12};

static int64_t fewest_crossings(void)
{
    int64_t fewest = INT64_MAX;
    for (uint32_t a = 0; a < HALVES; a++)
        for (uint32_t b = 0; b < HALVES; b++)
            for (uint32_t c = 0; c < HALVES; c++) {
                const uint32_t half[LAYERS] = {HALF[a], HALF[b], HALF[c]};
                int64_t crossings = 0;
                for (uint32_t t = 0; t < TOKENS; t++)
                    for (uint32_t l = 0; l + 1 < LAYERS; l++)
                        crossings += (half[l] >> choice(t, l) & 1) != (half[l + 1] >> choice(t, l + 1) & 1);
                if (crossings < fewest) fewest = crossings;
            }
    return fewest;
}

static place_cluster_t *make_cluster(void)
{
    static const char TEXT[] = "{\"format\": \"coterie.cluster/1\", \"ranks\": [{\"count\": 2}], \"links\": "
                               "{\"same_node\": {\"gigabytes_per_s\": 1, \"crossing_cost\": 1}}}";
    place_cluster_t *cluster = NULL;
    if (place_cluster_parse(TEXT, sizeof(TEXT) - 1, "cluster", &cluster) != COT_OK) abort();
    return cluster;
}

static void check(const solve_certificate_t *certificate)
{
    int64_t load[LAYERS * EXPERTS] = {0}, transition[(LAYERS - 1) * EXPERTS * EXPERTS] = {0}, proved = 0;
    for (uint32_t t = 0; t < TOKENS; t++)
        for (uint32_t l = 0; l < LAYERS; l++) {
            load[l * EXPERTS + choice(t, l)]++;
            if (l + 1 < LAYERS) transition[(l * EXPERTS + choice(t, l)) * EXPERTS + choice(t, l + 1)]++;
        }
    const place_stats_t stats = {.layers = LAYERS,
                                 .experts = EXPERTS,
                                 .top_k = 1,
                                 .layer_index = layer_index,
                                 .load = load,
                                 .transition = transition,
                                 .tokens = TOKENS};
    const uint32_t slots[RANKS] = {2, 2};
    place_cluster_t *cluster = make_cluster();
    if (solve_check_crossings(certificate, &stats, cluster, slots, &proved) == COT_OK && proved > fewest_crossings())
        abort();
    place_cluster_destroy(cluster);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cot_json_setup();
    size_t live = cot_memory_live_blocks();
    solve_certificate_t *certificate = NULL;
    if (solve_certificate_load(input_file(data, size), &certificate) == COT_OK) check(certificate);
    solve_certificate_destroy(certificate);
    if (cot_memory_live_blocks() != live) abort();
    return 0;
}
