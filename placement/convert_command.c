#include "placement/convert_command.h"

#include "base/log.h"
#include "placement/foreign.h"
#include "placement/shape_options.h"

#include <string.h>

static bool is_plan(const char *path)
{
    static const char ENDING[] = ".plan.json";
    size_t length = strlen(path), ending = sizeof(ENDING) - 1;
    return length >= ending && strcmp(path + length - ending, ENDING) == 0;
}

/* A plan that is given out must be of the stated shape, too. */
static cot_status_t check_plan(const place_plan_t *plan, const place_foreign_shape_t *shape)
{
    if (shape->model != NULL)
        COT_TRY(place_model_check(shape->model, plan->experts, 0, plan->layers, plan->layer_index));
    const place_plan_need_t need = {.layers = shape->layers != 0 ? shape->layers : plan->layers,
                                    .experts = shape->experts != 0 ? shape->experts : plan->experts,
                                    .ranks = shape->ranks != 0 ? shape->ranks : plan->ranks,
                                    .layer_index = shape->layers != 0 ? shape->layer_index : plan->layer_index};
    return place_plan_check(plan, &need);
}

static cot_status_t convert(const cot_settings_t *settings, const place_foreign_shape_t *shape)
{
    const char *in = cot_settings_argument(settings, 0), *out = cot_settings_argument(settings, 1);
    const char *name = cot_settings_string(settings, COT_SET_FORMAT);
    place_foreign_t format;
    place_plan_t *plan = NULL;
    bool outward = is_plan(in);
    if (outward == is_plan(out))
        return cot_fail(COT_ERR_INVALID, "one of the two files must be a plan, with a name that ends in .plan.json");
    COT_TRY(place_foreign_format(name, outward ? out : in, &format));
    COT_TRY(outward ? place_plan_load(in, &plan) : place_foreign_load(format, in, shape, &plan));
    cot_status_t status = outward ? check_plan(plan, shape) : COT_OK;
    if (status != COT_OK) cot_fail_in(status, "%s", in);
    if (status == COT_OK) status = outward ? place_foreign_save(format, out, plan) : place_plan_save(plan, out);
    place_plan_destroy(plan);
    return status;
}

static cot_status_t run(const cot_settings_t *settings)
{
    place_shape_t shape = {0};
    int64_t ranks = cot_settings_int(settings, COT_SET_RANKS);
    if (cot_settings_arguments(settings) != 2)
        return cot_fail(COT_ERR_INVALID, "usage: coterie convert IN OUT, one of them a plan (*.plan.json)");
    if (ranks > 65536) return cot_fail(COT_ERR_INVALID, "--ranks must be at most 65536");
    COT_TRY(place_shape_load(settings, &shape));
    const place_foreign_shape_t stated = {.ranks = (uint32_t)ranks,
                                          .experts = shape.experts,
                                          .layers = shape.layers,
                                          .layer_index = shape.layer_index,
                                          .model = shape.model};
    cot_status_t status = convert(settings, &stated);
    place_shape_free(&shape);
    return status;
}

int place_convert_command(const cot_settings_t *settings)
{
    cot_status_t status = run(settings);
    if (status != COT_OK) cot_log_error("%s", cot_error_text());
    return cot_exit_code(status);
}
