#include "placement/plan.h"

#include "base/memory.h"

#include <string.h>

void place_plan_destroy(place_plan_t *plan)
{
    if (plan == NULL) return;
    cot_free(plan->layer_index);
    cot_free(plan->slot_begin);
    cot_free(plan->slot_expert);
    cot_free(plan->model_name);
    cot_free(plan->config_sha256);
    cot_free(plan->exchange);
    json_decref(plan->extra);
    cot_free(plan);
}

cot_status_t place_plan_contiguous(uint32_t layers, const uint32_t *layer_index, uint32_t experts, uint32_t ranks,
                                   place_plan_t **plan_out)
{
    place_plan_t *plan = cot_calloc(1, sizeof(*plan));
    if (plan == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a placement of %u layers", layers);
    *plan = (place_plan_t){.layers = layers, .experts = experts, .ranks = ranks};
    plan->layer_index = cot_calloc(layers, sizeof(*plan->layer_index));
    plan->slot_begin = cot_calloc((size_t)layers * ranks + 1, sizeof(*plan->slot_begin));
    plan->slot_expert = cot_calloc((size_t)layers * experts, sizeof(*plan->slot_expert));
    if (plan->layer_index == NULL || plan->slot_begin == NULL || plan->slot_expert == NULL) {
        place_plan_destroy(plan);
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for a placement of %u layers", layers);
    }

    for (uint32_t layer = 0, slot = 0; layer < layers; layer++) {
        plan->layer_index[layer] = layer_index[layer];
        for (uint32_t rank = 0, expert = 0; rank < ranks; rank++) {
            uint32_t held = experts / ranks + (rank < experts % ranks ? 1 : 0);
            while (held-- > 0) plan->slot_expert[slot++] = expert++;
            plan->slot_begin[layer * ranks + rank + 1] = slot;
        }
    }
    *plan_out = plan;
    return COT_OK;
}

cot_status_t place_plan_check(const place_plan_t *plan, const place_plan_need_t *need)
{
    if (plan->ranks != need->ranks)
        return cot_fail(COT_ERR_MISMATCH,
                        "the plan is for %u workers, this job has %u: start %u ranks or make a plan for %u",
                        plan->ranks, need->ranks, plan->ranks + 1, need->ranks);
    if (plan->config_sha256 != NULL && need->config_sha256 != NULL &&
        strcmp(plan->config_sha256, need->config_sha256) != 0)
        return cot_fail(COT_ERR_MISMATCH,
                        "the plan was made for another model: its config_sha256 is %.12s…, this model's %.12s…",
                        plan->config_sha256, need->config_sha256);
    if (plan->experts != need->experts)
        return cot_fail(COT_ERR_MISMATCH, "the plan places %u experts a layer, the model has %u", plan->experts,
                        need->experts);
    if (plan->layers != need->layers)
        return cot_fail(COT_ERR_MISMATCH, "the plan places %u MoE layers, the model has %u", plan->layers,
                        need->layers);
    for (uint32_t layer = 0; layer < plan->layers; layer++)
        if (plan->layer_index[layer] != need->layer_index[layer])
            return cot_fail(COT_ERR_MISMATCH, "the plan places layer %u, where the model's next MoE layer is %u",
                            plan->layer_index[layer], need->layer_index[layer]);
    return COT_OK;
}

int32_t place_plan_slot(const place_plan_t *plan, uint32_t layer, uint32_t rank, uint32_t expert)
{
    const uint32_t *begin = plan->slot_begin + (size_t)layer * plan->ranks + rank;
    for (uint32_t slot = begin[0]; slot < begin[1]; slot++)
        if (plan->slot_expert[slot] == expert) return (int32_t)(slot - begin[0]);
    return -1;
}

uint32_t place_plan_rank(const place_plan_t *plan, uint32_t layer, uint32_t expert, uint32_t home)
{
    if (place_plan_slot(plan, layer, home, expert) >= 0) return home;
    uint32_t copies = 0;
    for (uint32_t rank = 0; rank < plan->ranks; rank++) copies += place_plan_slot(plan, layer, rank, expert) >= 0;
    uint32_t wanted = copies > 0 ? (home + expert) % copies : 0;
    for (uint32_t rank = 0; rank < plan->ranks; rank++)
        if (place_plan_slot(plan, layer, rank, expert) >= 0 && wanted-- == 0) return rank;
    return home; /* not reached: every expert stands somewhere */
}
