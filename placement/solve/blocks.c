/* Two ranks on different nodes: exchange all their experts in any set of layers. Two states a layer, exact. Loads stay
 * as they are, since the ranks are alike. Works on the flows between ranks, [ranks, ranks] for each boundary. */
#include "placement/solve/moves.h"

#include <string.h>

typedef struct {
    solve_search_t *search;
    int64_t *flow; /* [layers - 1, ranks, ranks] */
    struct {
        int64_t total[2];
        uint8_t parent[2];
    } * state; /* [layers] */
} blocks_t;

static void fill_flows(blocks_t *blocks)
{
    const solve_problem_t *p = blocks->search->table->problem;
    size_t ranks = p->ranks;
    memset(blocks->flow, 0, (p->layers - 1) * ranks * ranks * sizeof(*blocks->flow));
    for (uint32_t l = 0; l + 1 < p->layers; l++) {
        const solve_rank_t *from = blocks->search->table->rank_of + (size_t)l * p->experts, *to = from + p->experts;
        for (uint32_t e = 0; e < p->experts; e++) {
            const int32_t *row = solve_row(p, l, e);
            int64_t *flow = blocks->flow + (l * ranks + from[e]) * ranks;
            for (uint32_t f = 0; f < p->experts; f++) flow[to[f]] += row[f];
        }
    }
}

static uint32_t exchanged(uint32_t rank, const uint32_t pair[2], bool yes)
{
    if (!yes) return rank;
    return rank == pair[0] ? pair[1] : rank == pair[1] ? pair[0] : rank;
}

/* Cost change of a boundary when the pair's contents are exchanged before it (`x`), behind it (`y`), or both. */
static int64_t boundary_change(const blocks_t *blocks, uint32_t layer, const uint32_t pair[2], bool x, bool y)
{
    const solve_problem_t *p = blocks->search->table->problem;
    size_t ranks = p->ranks;
    const int64_t *flow = blocks->flow + layer * ranks * ranks;
    int64_t change = 0;
    for (int i = 0; i < 2; i++)
        for (uint32_t h = 0; h < ranks; h++)
            change += flow[pair[i] * ranks + h] *
                      (p->cost[exchanged(pair[i], pair, x) * ranks + exchanged(h, pair, y)] -
                       p->cost[pair[i] * ranks + h]);
    for (uint32_t g = 0; y && g < ranks; g++) {
        if (g == pair[0] || g == pair[1]) continue;
        for (int j = 0; j < 2; j++)
            change += flow[g * ranks + pair[j]] * (p->cost[g * ranks + pair[1 - j]] - p->cost[g * ranks + pair[j]]);
    }
    return change;
}

static void swap_in_layer(blocks_t *blocks, uint32_t layer, const uint32_t pair[2])
{
    const solve_problem_t *p = blocks->search->table->problem;
    size_t ranks = p->ranks;
    solve_rank_t *rank_of = blocks->search->table->rank_of + (size_t)layer * p->experts;
    for (uint32_t e = 0; e < p->experts; e++) rank_of[e] = (solve_rank_t)exchanged(rank_of[e], pair, true);
    for (size_t h = 0; layer + 1 < p->layers && h < ranks; h++) {
        int64_t *row = blocks->flow + layer * ranks * ranks + h, kept = row[pair[0] * ranks];
        row[pair[0] * ranks] = row[pair[1] * ranks];
        row[pair[1] * ranks] = kept;
    }
    for (size_t g = 0; layer > 0 && g < ranks; g++) {
        int64_t *row = blocks->flow + ((layer - 1) * ranks + g) * ranks, kept = row[pair[0]];
        row[pair[0]] = row[pair[1]];
        row[pair[1]] = kept;
    }
}

static bool exchange(blocks_t *blocks, uint32_t a, uint32_t b)
{
    uint32_t layers = blocks->search->table->problem->layers;
    const uint32_t pair[2] = {a, b};
    memset(&blocks->state[0], 0, sizeof(blocks->state[0]));
    for (uint32_t l = 1; l < layers; l++)
        for (int y = 0; y < 2; y++) {
            int64_t stay = blocks->state[l - 1].total[0] + (y ? boundary_change(blocks, l - 1, pair, false, true) : 0);
            int64_t swap = blocks->state[l - 1].total[1] + boundary_change(blocks, l - 1, pair, true, y);
            blocks->state[l].total[y] = stay <= swap ? stay : swap;
            blocks->state[l].parent[y] = swap < stay;
        }
    const int64_t *total = blocks->state[layers - 1].total;
    uint8_t s = total[1] < total[0];
    if (total[s] >= 0) return false;
    for (uint32_t l = layers; l-- > 0; s = blocks->state[l].parent[s])
        if (s) swap_in_layer(blocks, l, pair);
    return true;
}

bool solve_blocks(solve_search_t *search)
{
    const solve_problem_t *p = search->table->problem;
    blocks_t blocks = {.search = search, .flow = search->scratch};
    blocks.state = (void *)(blocks.flow + (size_t)(p->layers - 1) * p->ranks * p->ranks);
    fill_flows(&blocks);
    bool better = false;
    for (uint32_t a = 0; a < p->ranks && !solve_search_over(search); a++)
        for (uint32_t b = a + 1; b < p->ranks; b++)
            if (p->cluster->rank[a].node != p->cluster->rank[b].node) better |= exchange(&blocks, a, b);
    if (better) solve_table_set(search->table, search->table->rank_of);
    return better;
}
