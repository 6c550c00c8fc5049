#include "placement/foreign.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "placement/foreign_readers.h"
#include "placement/npy.h"

#include <string.h>

#define CELLS_MAX ((uint64_t)1 << 26) /* layers x ranks, and layers x experts */

cot_status_t place_foreign_format(const char *name, const char *path, place_foreign_t *format_out)
{
    static const struct {
        const char *name, *ending;
        place_foreign_t format;
    } FORMATS[] = {{"trtllm", ".yaml", PLACE_FOREIGN_TRTLLM},
                   {"trtllm", ".yml", PLACE_FOREIGN_TRTLLM},
                   {"ascend", ".json", PLACE_FOREIGN_ASCEND},
                   {"phy2log", ".npy", PLACE_FOREIGN_PHY2LOG}};
    size_t length = strlen(path);
    for (size_t f = 0; f < sizeof(FORMATS) / sizeof(*FORMATS); f++) {
        size_t ending = strlen(FORMATS[f].ending);
        bool fits = name[0] != '\0' ? strcmp(name, FORMATS[f].name) == 0
                                    : length >= ending && strcmp(path + length - ending, FORMATS[f].ending) == 0;
        if (!fits) continue;
        *format_out = FORMATS[f].format;
        return COT_OK;
    }
    if (name[0] != '\0')
        return cot_fail(COT_ERR_INVALID, "--format must be trtllm, ascend or phy2log, not \"%.40s\"", name);
    return cot_fail(COT_ERR_INVALID, "%s: its name does not tell the format: give --format trtllm, ascend or phy2log",
                    path);
}

/* ---- reading ---- */

cot_status_t place_slots_add(place_slots_t *slots, int64_t expert)
{
    if (expert < 0 || expert >= PLACE_FOREIGN_MAX_EXPERTS)
        return cot_fail(COT_ERR_FORMAT, "expert %lld: the numbers go from 0 to %u", (long long)expert,
                        PLACE_FOREIGN_MAX_EXPERTS - 1);
    const uint32_t narrow = (uint32_t)expert;
    if (narrow > slots->highest) slots->highest = narrow;
    return cot_buffer_append(&slots->expert, &narrow, sizeof(narrow));
}

cot_status_t place_slots_deal(place_slots_t *slots, uint32_t count)
{
    if (slots->ranks == 0)
        return cot_fail(COT_ERR_INVALID, "this format does not say how many ranks share the slots: give --ranks");
    if (count == 0 || count % slots->ranks != 0)
        return cot_fail(COT_ERR_FORMAT, "%u slots of a layer cannot be shared equally by %u ranks", count,
                        slots->ranks);
    const uint32_t each = count / slots->ranks;
    for (uint32_t rank = 0; rank < slots->ranks; rank++) COT_TRY(cot_buffer_append(&slots->count, &each, sizeof(each)));
    slots->layers++;
    return COT_OK;
}

static cot_status_t read_phy2log(const place_npy_t *npy, place_slots_t *slots)
{
    if (npy->dims != 2 || npy->count == 0 || npy->shape[0] > PLACE_FOREIGN_MAX_LAYERS || npy->shape[1] > UINT32_MAX)
        return cot_fail(COT_ERR_FORMAT, "is an array of %u dimensions and %llu numbers; phy2log is [layers, slots]",
                        npy->dims, (unsigned long long)npy->count);
    for (uint64_t l = 0, i = 0; l < npy->shape[0]; l++) {
        for (uint64_t slot = 0; slot < npy->shape[1]; slot++, i++) {
            int64_t expert = 0;
            COT_TRY(place_npy_integer(npy, i, &expert));
            cot_status_t status = place_slots_add(slots, expert);
            if (status != COT_OK)
                return cot_fail_in(status, "row %llu slot %llu", (unsigned long long)l, (unsigned long long)slot);
        }
        COT_TRY(place_slots_deal(slots, (uint32_t)npy->shape[1]));
    }
    return COT_OK;
}

cot_status_t place_foreign_read_phy2log(const char *path, place_slots_t *slots)
{
    place_npy_t npy;
    COT_TRY(place_npy_open(path, &npy));
    cot_status_t status = read_phy2log(&npy, slots);
    place_npy_close(&npy);
    return status == COT_OK ? COT_OK : cot_fail_in(status, "%s", path);
}

/* The model's layer numbers, in this order: of the file, as stated, of the model, 0, 1, …. Two that are known must be
 * the same. */
static cot_status_t take_layers(const place_slots_t *slots, const place_foreign_shape_t *shape, uint32_t *layer_index)
{
    const uint32_t *own = slots->numbered ? (const uint32_t *)(const void *)slots->layer.data : NULL;
    uint32_t stated = shape->layers != 0 || shape->model == NULL ? shape->layers : shape->model->layers;
    const uint32_t *index = shape->layers != 0 || shape->model == NULL ? shape->layer_index : shape->model->layer_index;
    if (stated != 0 && stated != slots->layers)
        return cot_fail(COT_ERR_MISMATCH, "holds %u layers, where %u are stated", slots->layers, stated);
    for (uint32_t l = 0; l < slots->layers; l++) {
        layer_index[l] = own != NULL ? own[l] : stated != 0 ? index[l] : l;
        if (stated != 0 && index[l] != layer_index[l])
            return cot_fail(COT_ERR_MISMATCH, "holds layer %u, where layer %u is stated", layer_index[l], index[l]);
    }
    return COT_OK;
}

/* Fills the plan's lists; last_seen [experts] is zeroed. An expert that its rank has already is passed over. */
static cot_status_t take_slots(const place_slots_t *slots, place_plan_t *plan, uint32_t *last_seen,
                               uint32_t *merged_out)
{
    const uint32_t *count = (const uint32_t *)(const void *)slots->count.data;
    const uint32_t *expert = (const uint32_t *)(const void *)slots->expert.data;
    uint32_t slot = 0;
    for (uint32_t layer = 0, list = 0; layer < plan->layers; layer++) {
        uint32_t before = list;
        for (uint32_t rank = 0; rank < plan->ranks; rank++, list++) {
            for (uint32_t i = 0; i < count[list]; i++, expert++) {
                if (last_seen[*expert] == list + 1) {
                    ++*merged_out;
                    continue;
                }
                last_seen[*expert] = list + 1;
                plan->slot_expert[slot++] = *expert;
            }
            plan->slot_begin[list + 1] = slot;
        }
        for (uint32_t e = 0; e < plan->experts; e++)
            if (last_seen[e] <= before)
                return cot_fail(COT_ERR_FORMAT,
                                "layer %u: expert %u stands on no rank; every expert must stand somewhere",
                                plan->layer_index[layer], e);
    }
    return COT_OK;
}

static cot_status_t count_experts(const place_slots_t *slots, const place_foreign_shape_t *shape, uint32_t *experts_out)
{
    uint32_t stated = shape->experts != 0 || shape->model == NULL ? shape->experts : shape->model->experts;
    if (stated != 0 && slots->highest >= stated)
        return cot_fail(COT_ERR_MISMATCH, "holds expert %u, where %u experts are stated", slots->highest, stated);
    if (stated == 0)
        cot_log_warn("the number of experts is not stated: %u, the highest id + 1, is taken (--experts)",
                     slots->highest + 1);
    *experts_out = stated != 0 ? stated : slots->highest + 1;
    return COT_OK;
}

static cot_status_t fill_plan(const place_slots_t *slots, const place_foreign_shape_t *shape, place_plan_t *plan)
{
    uint32_t merged = 0;
    if (slots->layers == 0) return cot_fail(COT_ERR_FORMAT, "holds no layer");
    *plan = (place_plan_t){.layers = slots->layers, .ranks = slots->ranks};
    COT_TRY(count_experts(slots, shape, &plan->experts));
    if ((uint64_t)plan->layers * plan->ranks > CELLS_MAX || (uint64_t)plan->layers * plan->experts > CELLS_MAX)
        return cot_fail(COT_ERR_LIMIT, "%u layers of %u experts on %u ranks are more than a plan takes", plan->layers,
                        plan->experts, plan->ranks);
    plan->layer_index = cot_calloc(plan->layers, sizeof(*plan->layer_index));
    plan->slot_begin = cot_calloc((size_t)plan->layers * plan->ranks + 1, sizeof(*plan->slot_begin));
    plan->slot_expert = cot_calloc(slots->expert.size / sizeof(uint32_t), sizeof(*plan->slot_expert));
    uint32_t *last_seen = cot_calloc(plan->experts, sizeof(*last_seen));
    cot_status_t status = COT_OK;
    if (plan->layer_index == NULL || plan->slot_begin == NULL || plan->slot_expert == NULL || last_seen == NULL)
        status = cot_fail(COT_ERR_NO_MEMORY, "no memory for a plan of %u layers", plan->layers);
    if (status == COT_OK) status = take_layers(slots, shape, plan->layer_index);
    if (status == COT_OK) status = take_slots(slots, plan, last_seen, &merged);
    cot_free(last_seen);
    if (status == COT_OK && merged > 0)
        cot_log_warn("%u slots held an expert that their rank has already: merged", merged);
    return status;
}

static cot_status_t name_model(const place_model_t *model, place_plan_t *plan)
{
    if (model == NULL) return COT_OK;
    COT_TRY(place_model_check(model, plan->experts, 0, plan->layers, plan->layer_index));
    plan->model_name = cot_strdup(model->name);
    plan->config_sha256 = cot_strdup(model->sha256);
    return plan->model_name != NULL && plan->config_sha256 != NULL
               ? COT_OK
               : cot_fail(COT_ERR_NO_MEMORY, "no memory for the model's name");
}

static cot_status_t make_plan(const place_slots_t *slots, const place_foreign_shape_t *shape, place_plan_t **plan_out)
{
    place_plan_t *plan = cot_calloc(1, sizeof(*plan));
    if (plan == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a plan");
    cot_status_t status = fill_plan(slots, shape, plan);
    if (status == COT_OK) status = name_model(shape->model, plan);
    if (status != COT_OK) {
        place_plan_destroy(plan);
        return status;
    }
    *plan_out = plan;
    return COT_OK;
}

cot_status_t place_foreign_load(place_foreign_t format, const char *path, const place_foreign_shape_t *shape,
                                place_plan_t **plan_out)
{
    static cot_status_t (*const READERS[])(const char *, place_slots_t *) = {
        [PLACE_FOREIGN_TRTLLM] = place_foreign_read_trtllm,
        [PLACE_FOREIGN_ASCEND] = place_foreign_read_ascend,
        [PLACE_FOREIGN_PHY2LOG] = place_foreign_read_phy2log,
    };
    place_slots_t slots = {.ranks = shape->ranks};
    cot_status_t status = READERS[format](path, &slots);
    if (status == COT_OK) {
        status = make_plan(&slots, shape, plan_out);
        if (status != COT_OK) cot_fail_in(status, "%s", path);
    }
    cot_buffer_free(&slots.layer);
    cot_buffer_free(&slots.count);
    cot_buffer_free(&slots.expert);
    return status;
}

/* ---- writing ---- */

/* Every rank of every layer with as many slots as the fullest has: [layers, ranks, width]. Owns `expert`. */
typedef struct {
    uint32_t layers, ranks, width;
    const uint32_t *layer_index;
    int64_t *expert;
} table_t;

static cot_status_t fill_table(const place_plan_t *plan, table_t *table, uint64_t *repeated_out)
{
    size_t lists = (size_t)plan->layers * plan->ranks;
    *table = (table_t){.layers = plan->layers, .ranks = plan->ranks, .layer_index = plan->layer_index};
    for (size_t list = 0; list < lists; list++) {
        uint32_t held = plan->slot_begin[list + 1] - plan->slot_begin[list];
        if (held > table->width) table->width = held;
        if (held == 0)
            return cot_fail(COT_ERR_UNSUPPORTED,
                            "layer %u: rank %zu holds no expert, and this format gives every rank as many slots",
                            plan->layer_index[list / plan->ranks], list % plan->ranks);
    }
    table->expert = cot_calloc(lists * table->width, sizeof(*table->expert));
    if (table->expert == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for %zu slots", lists * table->width);
    for (size_t list = 0; list < lists; list++) {
        uint32_t begin = plan->slot_begin[list], held = plan->slot_begin[list + 1] - begin;
        for (uint32_t slot = 0; slot < table->width; slot++)
            table->expert[list * table->width + slot] = plan->slot_expert[begin + slot % held];
        *repeated_out += table->width - held;
    }
    return COT_OK;
}

static cot_status_t print_list(cot_buffer_t *out, const int64_t *expert, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        COT_TRY(cot_buffer_printf(out, i > 0 ? ", %lld" : "[%lld", (long long)expert[i]));
    return cot_buffer_printf(out, "]");
}

static cot_status_t print_trtllm(const table_t *table, cot_buffer_t *out)
{
    uint32_t slots = table->ranks * table->width;
    COT_TRY(cot_buffer_printf(out, "initial_global_assignments:\n"));
    for (uint32_t l = 0; l < table->layers; l++) {
        COT_TRY(cot_buffer_printf(out, "  %u: ", table->layer_index[l]));
        COT_TRY(print_list(out, table->expert + (size_t)l * slots, slots));
        COT_TRY(cot_buffer_printf(out, "\n"));
    }
    return cot_buffer_printf(out, "layer_updates_per_iter: 0\nnum_slots: %u\n", slots);
}

static cot_status_t print_ascend(const table_t *table, cot_buffer_t *out)
{
    COT_TRY(cot_buffer_printf(out, "{\"moe_layer_count\": %u,\n \"layer_list\": [", table->layers));
    const int64_t *expert = table->expert;
    for (uint32_t l = 0; l < table->layers; l++) {
        COT_TRY(cot_buffer_printf(out, "%s\n  {\"layer_id\": %u, \"device_count\": %u, \"device_list\": [",
                                  l > 0 ? "," : "", l, table->ranks));
        for (uint32_t rank = 0; rank < table->ranks; rank++, expert += table->width) {
            COT_TRY(
                cot_buffer_printf(out, "%s\n   {\"device_id\": %u, \"device_expert\": ", rank > 0 ? "," : "", rank));
            COT_TRY(print_list(out, expert, table->width));
            COT_TRY(cot_buffer_printf(out, "}"));
        }
        COT_TRY(cot_buffer_printf(out, "]}"));
    }
    return cot_buffer_printf(out, "]}\n");
}

static cot_status_t save_text(place_foreign_t format, const char *path, const table_t *table)
{
    cot_buffer_t text = {0};
    cot_status_t status = format == PLACE_FOREIGN_TRTLLM ? print_trtllm(table, &text) : print_ascend(table, &text);
    if (status == COT_OK) status = cot_file_write(path, text.data, text.size);
    cot_buffer_free(&text);
    return status;
}

cot_status_t place_foreign_save(place_foreign_t format, const char *path, const place_plan_t *plan)
{
    table_t table = {0};
    uint64_t repeated = 0;
    cot_status_t status = fill_table(plan, &table, &repeated);
    if (status == COT_OK && repeated > 0)
        cot_log_warn("%llu slots hold an expert that their rank has already: the format wants %u slots on every rank",
                     (unsigned long long)repeated, table.width);
    if (status == COT_OK && format == PLACE_FOREIGN_PHY2LOG)
        status = place_npy_save(path, table.expert, 2, (uint64_t[]){table.layers, (uint64_t)table.ranks * table.width});
    else if (status == COT_OK)
        status = save_text(format, path, &table);
    cot_free(table.expert);
    return status;
}
