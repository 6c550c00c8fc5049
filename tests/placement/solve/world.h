/* A tiny world for the planner's tests: random tokens in a trace file, their counts, a cluster, a random plan. */
#ifndef TESTS_PLACEMENT_SOLVE_WORLD_H
#define TESTS_PLACEMENT_SOLVE_WORLD_H

#include "tests/temporary.h"

#include "placement/cluster.h"
#include "placement/plan.h"
#include "placement/stats.h"
#include "placement/trace.h"

typedef struct {
    uint32_t layers, experts, ranks, top_k, tokens;
    uint64_t random;
    int16_t *expert; /* [tokens, layers, top_k] */
    place_stats_t *stats;
    place_trace_t *trace;
    place_cluster_t *cluster;
} world_t;

static inline uint32_t world_draw(world_t *world, uint32_t below)
{
    uint64_t x = world->random += 0x9e3779b97f4a7c15U;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
    return (uint32_t)((x ^ (x >> 31)) % below);
}

static inline uint32_t world_expert(const world_t *world, uint32_t token, uint32_t layer, uint32_t k)
{
    return (uint32_t)world->expert[((size_t)token * world->layers + layer) * world->top_k + k];
}

/* top_k different experts, the low ones likelier. */
static inline void world_choose(world_t *world, int16_t *chosen)
{
    for (uint32_t k = 0; k < world->top_k; k++) {
        bool again = true;
        while (again) {
            uint32_t a = world_draw(world, world->experts), b = world_draw(world, world->experts);
            chosen[k] = (int16_t)(a < b ? a : b);
            again = false;
            for (uint32_t j = 0; j < k; j++) again |= chosen[j] == chosen[k];
        }
    }
}

/* Writes the tokens to PATH (a recorder's file), reads them back. Rows of four tokens make a request. */
static inline void world_make(world_t *world, const char *path, const char *cluster)
{
    static const uint32_t LAYERS[] = {1, 2, 4, 5, 7, 8, 9, 11};
    place_trace_info_t info = {.model = "world",
                               .config_sha256 = "",
                               .experts = world->experts,
                               .top_k = world->top_k,
                               .layers = world->layers,
                               .layer_index = LAYERS,
                               .row_bytes = 1000};
    size_t width = (size_t)world->layers * world->top_k;
    uint16_t weights[256] = {0};
    assert_true(world->layers <= 8 && width <= 256);
    world->expert = cot_calloc(world->tokens * width, sizeof(*world->expert));
    assert_non_null(world->expert);
    place_recorder_t *recorder = NULL;
    assert_ok(place_recorder_create(&info, 1U << 24, &recorder));
    for (uint32_t t = 0; t < world->tokens; t++) {
        int16_t *row = world->expert + t * width;
        for (uint32_t l = 0; l < world->layers; l++) world_choose(world, row + (size_t)l * world->top_k);
        place_trace_row_t added = {.request = t / 4, .position = t % 4, .experts = row, .weights = weights};
        assert_ok(place_recorder_add(recorder, &added));
    }
    assert_ok(place_recorder_save(recorder, path));
    place_recorder_destroy(recorder);
    assert_ok(place_stats_load(&path, 1, &world->stats));
    assert_ok(place_trace_open(path, &world->trace));
    assert_ok(place_cluster_parse(cluster, strlen(cluster), "cluster", &world->cluster));
    assert_int_equal(world->cluster->ranks, world->ranks);
}

static inline void world_free(world_t *world)
{
    cot_free(world->expert);
    place_stats_destroy(world->stats);
    place_trace_close(world->trace);
    place_cluster_destroy(world->cluster);
}

/* Every expert on a random rank, and on each further one with one chance in `rarity` (0: never). */
static inline place_plan_t *world_plan(world_t *world, uint32_t rarity)
{
    place_plan_t *plan = NULL;
    size_t cells = (size_t)world->layers * world->ranks;
    assert_ok(place_plan_contiguous(world->layers, world->stats->layer_index, world->experts, world->ranks, &plan));
    cot_free(plan->slot_expert);
    plan->slot_expert = cot_calloc(cells * world->experts, sizeof(*plan->slot_expert));
    uint32_t *first = cot_calloc(world->experts, sizeof(*first)), slot = 0;
    assert_true(plan->slot_expert != NULL && first != NULL);
    for (uint32_t l = 0; l < world->layers; l++) {
        for (uint32_t e = 0; e < world->experts; e++) first[e] = world_draw(world, world->ranks);
        for (uint32_t r = 0; r < world->ranks; r++) {
            for (uint32_t e = 0; e < world->experts; e++)
                if (first[e] == r || (rarity > 0 && world_draw(world, rarity) == 0)) plan->slot_expert[slot++] = e;
            plan->slot_begin[l * world->ranks + r + 1] = slot;
        }
    }
    cot_free(first);
    return plan;
}

#endif
