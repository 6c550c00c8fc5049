/* LPT and EPLB: packing without regard to traffic. */
#include "placement/solve/baselines.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

/* ---- LPT ---- */

typedef struct {
    int64_t load;
    uint32_t expert;
} item_t;

static int hottest_first(const void *a, const void *b)
{
    const item_t *x = a, *y = b;
    if (x->load != y->load) return (x->load < y->load) - (x->load > y->load);
    return (x->expert > y->expert) - (x->expert < y->expert);
}

void solve_lpt_layer(const solve_problem_t *p, uint32_t layer, solve_rank_t *rank_of, void *scratch)
{
    item_t *item = scratch;
    int64_t time[PLACE_MAX_RANKS] = {0};
    uint32_t held[PLACE_MAX_RANKS] = {0};
    for (uint32_t e = 0; e < p->experts; e++) item[e] = (item_t){p->load[(size_t)layer * p->experts + e], e};
    qsort(item, p->experts, sizeof(*item), hottest_first);
    for (uint32_t i = 0; i < p->experts; i++) {
        uint32_t best = p->ranks;
        int64_t soonest = INT64_MAX;
        for (uint32_t r = 0; r < p->ranks; r++) {
            int64_t done = time[r] + item[i].load * p->slowness[r];
            if (held[r] == p->slots[r] || done >= soonest) continue;
            soonest = done;
            best = r;
        }
        rank_of[item[i].expert] = (solve_rank_t)best;
        time[best] = soonest;
        held[best]++;
    }
}

cot_status_t solve_lpt(const solve_problem_t *p, const solve_context_t *context, solve_answer_t *answer_out)
{
    (void)context;
    solve_rank_t *rank_of = cot_calloc(solve_cells(p), sizeof(*rank_of));
    item_t *scratch = cot_calloc(p->experts, sizeof(*scratch));
    solve_answer_t answer = {0};
    cot_status_t status = COT_OK;
    if (rank_of == NULL || scratch == NULL) status = cot_fail(COT_ERR_NO_MEMORY, "no memory for a placement");
    for (uint32_t l = 0; l < p->layers && status == COT_OK; l++)
        solve_lpt_layer(p, l, rank_of + (size_t)l * p->experts, scratch);
    if (status == COT_OK) status = solve_plan_from_ranks(p, rank_of, &answer.plan);
    cot_free(rank_of);
    cot_free(scratch);
    COT_TRY(status);
    *answer_out = answer;
    return COT_OK;
}

/* ---- EPLB ---- */

/* Sizes as EPLB names them; its loads are floating-point. */
typedef struct {
    uint32_t experts, replicas, groups, nodes, ranks;
    const int64_t *weight; /* [experts] */
    double *load;          /* [replicas] scratch, as are the next four */
    uint32_t *order, *pack, *place;
    uint32_t *copies;     /* [experts] */
    uint32_t *inner;      /* [experts] the expert behind each number after groups went to nodes */
    uint32_t *replica_of; /* [replicas] of one node: its inner number */
} eplb_t;

/* Items to packs of equally many, heaviest first, each to the lightest pack with room. pack [items], and place [items]
 * in the order in which they came. */
static void pack_evenly(const eplb_t *b, const double *load, uint32_t items, uint32_t packs)
{
    double sum[PLACE_MAX_RANKS] = {0};
    uint32_t held[PLACE_MAX_RANKS] = {0}, room = items / packs;
    for (uint32_t i = 0; i < items; i++) { /* stable, so that equal loads keep their order */
        uint32_t at = i;
        for (; at > 0 && load[b->order[at - 1]] < load[i]; at--) b->order[at] = b->order[at - 1];
        b->order[at] = i;
    }
    for (uint32_t i = 0; i < items; i++) {
        uint32_t item = room == 1 ? i : b->order[i], best = packs; /* one each: as they are */
        if (room == 1) best = i;
        for (uint32_t p = 0; p < packs && room > 1; p++)
            if (held[p] < room && (best == packs || sum[p] < sum[best])) best = p;
        b->pack[item] = best;
        b->place[item] = held[best]++;
        sum[best] += load[item];
    }
}

/* Which expert each replica of a node is: each once, then one more to whoever has the highest load per copy. */
static void replicate(const eplb_t *b, const uint32_t *inner, uint32_t experts, uint32_t replicas)
{
    for (uint32_t i = 0; i < experts; i++) {
        b->copies[i] = 1;
        b->replica_of[i] = i;
    }
    for (uint32_t i = experts; i < replicas; i++) {
        uint32_t best = 0;
        for (uint32_t e = 1; e < experts; e++)
            if ((double)b->weight[inner[e]] / b->copies[e] > (double)b->weight[inner[best]] / b->copies[best]) best = e;
        b->replica_of[i] = best;
        b->copies[best]++;
    }
}

/* One layer: slot [replicas] out, the expert in each slot, ranks one after the other. */
static void balance_layer(const eplb_t *b, uint32_t *slot)
{
    uint32_t group_size = b->experts / b->groups, groups_each = b->groups / b->nodes;
    uint32_t experts = b->experts / b->nodes, replicas = b->replicas / b->nodes, ranks = b->ranks / b->nodes;
    memset(b->load, 0, b->groups * sizeof(*b->load));
    for (uint32_t e = 0; e < b->experts; e++) b->load[e / group_size] += (double)b->weight[e];
    pack_evenly(b, b->load, b->groups, b->nodes);
    for (uint32_t e = 0; e < b->experts; e++) {
        uint32_t group = e / group_size;
        b->inner[(b->pack[group] * groups_each + b->place[group]) * group_size + e % group_size] = e;
    }
    for (uint32_t node = 0; node < b->nodes; node++) {
        const uint32_t *inner = b->inner + node * experts;
        replicate(b, inner, experts, replicas);
        for (uint32_t i = 0; i < replicas; i++)
            b->load[i] = (double)b->weight[inner[b->replica_of[i]]] / b->copies[b->replica_of[i]];
        pack_evenly(b, b->load, replicas, ranks);
        for (uint32_t i = 0; i < replicas; i++)
            slot[node * replicas + b->pack[i] * (replicas / ranks) + b->place[i]] = inner[b->replica_of[i]];
    }
}

cot_status_t solve_eplb_place(const int64_t *weight, const solve_eplb_sizes_t *sizes, uint32_t *slot_out)
{
    const uint32_t ranks = sizes->ranks, nodes = sizes->nodes, groups = sizes->groups, replicas = sizes->replicas;
    if (replicas % ranks != 0 || sizes->experts % groups != 0 || ranks % nodes != 0 || groups % nodes != 0 ||
        replicas < sizes->experts)
        return cot_fail(COT_ERR_UNSUPPORTED,
                        "EPLB needs equally many slots on every rank, ranks on every node and groups on every node");
    eplb_t b = {.experts = sizes->experts, .replicas = replicas, .groups = groups, .nodes = nodes, .ranks = ranks};
    uint32_t *numbers = cot_calloc((size_t)replicas * 6, sizeof(*numbers));
    b.load = cot_calloc(replicas, sizeof(*b.load));
    cot_status_t status = COT_OK;
    if (numbers == NULL || b.load == NULL) {
        status = cot_fail(COT_ERR_NO_MEMORY, "no memory for a placement");
    } else {
        b.order = numbers;
        b.pack = b.order + replicas;
        b.place = b.pack + replicas;
        b.copies = b.place + replicas;
        b.inner = b.copies + replicas;
        b.replica_of = b.inner + replicas;
        for (uint32_t l = 0; l < sizes->layers; l++) {
            b.weight = weight + (size_t)l * sizes->experts;
            balance_layer(&b, slot_out + (size_t)l * replicas);
        }
    }
    cot_free(numbers);
    cot_free(b.load);
    return status;
}

/* Slots to a plan; an expert twice on a rank becomes once. Ranks of a node need not stand together in the cluster. */
static cot_status_t to_plan(const solve_problem_t *p, const solve_eplb_sizes_t *sizes, const uint32_t *slot,
                            solve_answer_t *answer)
{
    place_plan_t *plan = NULL;
    COT_TRY(place_plan_contiguous(p->layers, p->stats->layer_index, p->experts, p->ranks, &plan));
    uint32_t *experts = cot_calloc((size_t)p->layers * sizes->replicas, sizeof(*experts)), merged = 0;
    if (experts == NULL) {
        place_plan_destroy(plan);
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for a placement");
    }
    cot_free(plan->slot_expert);
    plan->slot_expert = experts;
    uint32_t each = sizes->replicas / p->ranks, order[PLACE_MAX_RANKS], next = 0;
    for (uint32_t node = 0; node < p->nodes; node++) /* EPLB counts a node's ranks one after the other */
        for (uint32_t r = 0; r < p->ranks; r++)
            if (p->cluster->rank[r].node == node) order[r] = next++;
    for (uint32_t l = 0, at = 0; l < p->layers; l++)
        for (uint32_t r = 0; r < p->ranks; r++) {
            const uint32_t *here = slot + (size_t)l * sizes->replicas + (size_t)order[r] * each;
            for (uint32_t i = 0, first = at; i < each; i++) {
                bool again = false;
                for (uint32_t j = first; j < at; j++) again |= experts[j] == here[i];
                merged += again;
                if (!again) experts[at++] = here[i];
            }
            plan->slot_begin[l * p->ranks + r + 1] = at;
        }
    if (merged > 0)
        snprintf(answer->note, sizeof(answer->note), "%u copies beside another on their rank were merged", merged);
    answer->plan = plan;
    return COT_OK;
}

static cot_status_t eplb(const solve_problem_t *p, bool global, solve_answer_t *answer_out)
{
    solve_eplb_sizes_t sizes = {p->layers, p->experts, p->experts + p->free_slots, p->experts, p->nodes, p->ranks};
    if (global || p->experts % p->nodes != 0) sizes.groups = sizes.nodes = 1;
    uint32_t held[PLACE_MAX_RANKS] = {0};
    for (uint32_t r = 0; r < p->ranks; r++) {
        held[p->cluster->rank[r].node]++;
        if (p->slots[r] != p->slots[0])
            return cot_fail(COT_ERR_UNSUPPORTED, "EPLB needs equally many slots on every rank");
    }
    for (uint32_t n = 0; n < p->nodes && !global; n++)
        if (held[n] != held[0]) return cot_fail(COT_ERR_UNSUPPORTED, "EPLB needs equally many ranks on every node");
    uint32_t *slot = cot_calloc((size_t)p->layers * sizes.replicas, sizeof(*slot));
    if (slot == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a placement");
    solve_answer_t answer = {0};
    cot_status_t status = solve_eplb_place(p->stats->load, &sizes, slot);
    if (status == COT_OK) status = to_plan(p, &sizes, slot, &answer);
    cot_free(slot);
    COT_TRY(status);
    *answer_out = answer;
    return COT_OK;
}

cot_status_t solve_eplb(const solve_problem_t *problem, const solve_context_t *context, solve_answer_t *answer_out)
{
    (void)context;
    return eplb(problem, false, answer_out);
}

cot_status_t solve_eplb_global(const solve_problem_t *problem, const solve_context_t *context,
                               solve_answer_t *answer_out)
{
    (void)context;
    return eplb(problem, true, answer_out);
}
