#include "placement/solve/load_bound.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    const solve_layer_load_t *layer;
    int64_t *weight;   /* [experts] heaviest first */
    int64_t *lightest; /* [experts + 1] sum of so many lightest experts */
    int64_t *slowness; /* [ranks] fastest first */
    int64_t parts;     /* a replica serves some homes' tokens only: loads count in 1/parts of a token */
} load_t;

static int descending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

static int ascending(const void *a, const void *b)
{
    return descending(b, a);
}

/* Whether the ranks can take `work` when each may reach `most`, rounded down. */
static bool can_take(int64_t work, const int64_t *slowness, uint32_t ranks, int64_t parts, int64_t most)
{
    __int128 room = 0;
    for (uint32_t r = 0; r < ranks; r++) {
        if (slowness[r] == 0) return true;
        room += (((__int128)most + 1) * parts - 1) / slowness[r];
    }
    return room >= (__int128)work * parts;
}

int64_t solve_spread_bound(int64_t work, const int64_t *slowness, uint32_t ranks, int64_t parts)
{
    int64_t low = 0, high = INT64_MAX / 2; /* the problem's range check keeps every load below */
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (can_take(work, slowness, ranks, parts, middle))
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Some rank holds `together` of the experts [0, last] of the descending order: the lightest of them at least, and where
 * no slot stays free the lightest company that fills the rank. */
static int64_t crowd(const load_t *load, uint32_t last, uint32_t together)
{
    const solve_layer_load_t *layer = load->layer;
    int64_t sum = 0;
    __int128 least = INT64_MAX / 2;
    for (uint32_t i = 0; i < together; i++) sum += load->weight[last - i];
    for (uint32_t r = 0; r < layer->ranks; r++) {
        if (layer->slots[r] < together) continue;
        uint32_t company = layer->free_slots == 0 ? layer->slots[r] - together : 0;
        __int128 here = (__int128)(sum + load->lightest[company]) * layer->slowness[r];
        if (here < least) least = here;
    }
    return (int64_t)least;
}

/* How many experts the ranks can hold when none holds more than `each`. */
static uint64_t room(const solve_layer_load_t *layer, uint32_t each)
{
    uint64_t sum = 0;
    for (uint32_t r = 0; r < layer->ranks; r++) sum += layer->slots[r] < each ? layer->slots[r] : each;
    return sum;
}

static int64_t pigeonholes(const load_t *load)
{
    const solve_layer_load_t *layer = load->layer;
    int64_t most = 0;
    for (uint32_t each = 0;; each++) {
        /* All but free_slots of the experts before `last` + 1 have one copy only, and one more than fit apart. */
        uint64_t last = room(layer, each) + layer->free_slots;
        if (last >= layer->experts) return most;
        int64_t here = crowd(load, (uint32_t)last, each + 1);
        if (here > most) most = here;
    }
}

static int64_t best_of_all(const load_t *load)
{
    const solve_layer_load_t *layer = load->layer;
    int64_t work = load->lightest[layer->experts];
    int64_t most = solve_spread_bound(work, load->slowness, layer->ranks, load->parts);
    uint64_t copies = (uint64_t)layer->free_slots + 1;
    uint32_t fastest = copies < layer->ranks ? (uint32_t)copies : layer->ranks;
    int64_t hottest = solve_spread_bound(load->weight[0], load->slowness, fastest, load->parts);
    if (hottest > most) most = hottest;
    int64_t shared = pigeonholes(load);
    return shared > most ? shared : most;
}

cot_status_t solve_load_bound(const solve_layer_load_t *layer, int64_t *bound_out)
{
    size_t experts = layer->experts, ranks = layer->ranks;
    load_t load = {.layer = layer, .parts = layer->free_slots > 0 ? layer->ranks : 1};
    int64_t *memory = cot_calloc(2 * experts + 1 + ranks, sizeof(*memory));
    if (memory == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory to bound the load of %zu experts", experts);
    load.weight = memory;
    load.lightest = load.weight + experts;
    load.slowness = load.lightest + experts + 1;
    memcpy(load.weight, layer->weight, experts * sizeof(*load.weight));
    qsort(load.weight, experts, sizeof(*load.weight), descending);
    for (size_t e = 0; e < experts; e++) load.lightest[e + 1] = load.lightest[e] + load.weight[experts - 1 - e];
    memcpy(load.slowness, layer->slowness, ranks * sizeof(*load.slowness));
    qsort(load.slowness, ranks, sizeof(*load.slowness), ascending);
    *bound_out = best_of_all(&load);
    cot_free(memory);
    return COT_OK;
}
