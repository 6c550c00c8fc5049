/* coterie-plan verify: a plan's value and bound, computed anew from the trace and the certificate. */
#include "placement/solve/commands.h"

#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "placement/solve/check.h"
#include "placement/solve/evaluate.h"
#include "placement/solve/inputs.h"
#include "placement/solve/progress.h"
#include "placement/solve/traffic_bound.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Values and bounds stand in files as decimals of doubles. */
#define ROUNDING 1e-9

typedef struct {
    const cot_settings_t *settings;
    const char *path, *proof;
    double stated_value, stated_bound;
    place_plan_t *plan;
    solve_inputs_t inputs;
    solve_problem_t *problem;
    solve_certificate_t *certificate;
    int64_t value, bound; /* as computed here */
} verify_t;

static cot_status_t load_inputs(verify_t *v)
{
    const char *traces[COT_ARGUMENTS_MAX];
    uint32_t count = 0;
    for (const char *path;
         count < COT_ARGUMENTS_MAX && (path = cot_settings_list(v->settings, COT_SET_TRACE, count)) != NULL;)
        traces[count++] = path;
    if (count == 0) return cot_fail(COT_ERR_INVALID, "--trace is missing: which traces was the plan made from?");
    COT_TRY(solve_inputs_load(v->settings, traces, count, &v->inputs));
    return COT_OK;
}

/* What was to be small, as the plan says; flags given here must not differ from it. */
static cot_status_t read_objective(verify_t *v)
{
    const json_t *notes = v->plan->extra != NULL ? json_object_get(v->plan->extra, "objective") : NULL;
    const char *name = "", *exchange = v->plan->exchange != NULL ? v->plan->exchange : "home";
    uint64_t step_tokens = v->inputs.config.step_tokens;
    if (!json_is_object(notes))
        return cot_fail(COT_ERR_FORMAT, "%s states no objective: there is nothing to verify", v->path);
    COT_TRY(cot_json_get_string(notes, "name", &name));
    COT_TRY(cot_json_get_string(notes, "proof", &v->proof));
    COT_TRY(cot_json_get_double(notes, "value", &v->stated_value));
    COT_TRY(cot_json_get_double(notes, "bound", &v->stated_bound));
    COT_TRY(cot_json_get_double(notes, "lambda", &v->inputs.config.lambda));
    COT_TRY(cot_json_get_bool(notes, "decode", &v->inputs.config.decode));
    COT_TRY(cot_json_get_uint(notes, "step_tokens", INT64_MAX, &step_tokens));
    v->inputs.config.step_tokens = step_tokens;
    bool known = false;
    for (int i = SOLVE_CROSSINGS; i <= SOLVE_STEP_TIME; i++) {
        if (strcmp(name, solve_objective_name((solve_objective_t)i)) != 0) continue;
        v->inputs.config.objective = (solve_objective_t)i;
        known = true;
    }
    if (!known) return cot_fail(COT_ERR_FORMAT, "%s: there is no objective \"%.40s\"", v->path, name);
    for (int i = SOLVE_HOME; i <= SOLVE_COHERENT; i++)
        if (strcmp(exchange, solve_exchange_name((solve_exchange_t)i)) == 0)
            v->inputs.config.exchange = (solve_exchange_t)i;
    return COT_OK;
}

void solve_certificate_path(const char *plan, const char *given, char *path_out, size_t bytes)
{
    size_t stem = strlen(plan);
    static const char *const ENDINGS[] = {".plan.json", ".json"};
    for (size_t i = 0; i < sizeof(ENDINGS) / sizeof(*ENDINGS); i++) {
        size_t ending = strlen(ENDINGS[i]);
        if (strlen(plan) > ending && strcmp(plan + strlen(plan) - ending, ENDINGS[i]) == 0) {
            stem = strlen(plan) - ending;
            break;
        }
    }
    if (given[0] != '\0')
        snprintf(path_out, bytes, "%s", given);
    else
        snprintf(path_out, bytes, "%.*s.cert.safetensors", (int)stem, plan);
}

static cot_status_t check_value(verify_t *v)
{
    solve_figures_t figures;
    COT_TRY(solve_evaluate(v->problem, v->plan, &figures));
    v->value = figures.value;
    double value = solve_natural(v->problem, v->value);
    if (fabs(value - v->stated_value) <= ROUNDING * (1 + fabs(value))) return COT_OK;
    return cot_fail(COT_ERR_MISMATCH,
                    "%s states %s %.9g, but with these traces and this cluster it is %.9g: one of them is not what the "
                    "plan was made from",
                    v->path, solve_objective_name(v->problem->objective), v->stated_value, value);
}

/* The bound: crossings by the certificate's duals, loads and exchanges by their formulas. */
static cot_status_t compute_bound(verify_t *v)
{
    const solve_problem_t *p = v->problem;
    int64_t crossings = 0, balance = 0, traffic = 0;
    if (p->objective == SOLVE_CROSSINGS || p->objective == SOLVE_WEIGHTED) {
        char path[4096];
        solve_certificate_path(v->path, cot_settings_string(v->settings, COT_SET_CERTIFICATE), path, sizeof(path));
        COT_TRY(solve_certificate_load(path, &v->certificate));
        cot_status_t status = solve_check_crossings(v->certificate, p->stats, p->cluster, p->slots, &crossings);
        if (status != COT_OK) return cot_fail_in(status, "%s", path);
    }
    if (p->load_weight != 0) COT_TRY(solve_check_loads(p, &balance));
    for (uint32_t l = 0; p->objective == SOLVE_STEP_TIME && l < p->layers; l++) {
        int64_t layer = 0;
        COT_TRY(solve_traffic_bound(p, l, &layer));
        traffic += layer;
    }
    v->bound = crossings * SOLVE_UNIT + traffic + p->load_weight * (balance / SOLVE_UNIT) +
               p->load_weight * (balance % SOLVE_UNIT) / SOLVE_UNIT;
    return COT_OK;
}

static bool checkable(const verify_t *v)
{
    return strcmp(v->proof, "dual") == 0 || strcmp(v->proof, "load") == 0;
}

static cot_status_t check_bound(verify_t *v)
{
    COT_TRY(compute_bound(v));
    if (v->bound > v->value)
        return cot_fail(COT_ERR_INTERNAL, "the certificate proves more than %s's own value: please report this",
                        v->path);
    double bound = solve_natural(v->problem, v->bound);
    if (!checkable(v) || v->stated_bound <= bound + ROUNDING * (1 + fabs(bound))) return COT_OK;
    return cot_fail(COT_ERR_MISMATCH, "%s states that nothing is below %.9g, but what is proved is %.9g", v->path,
                    v->stated_bound, bound);
}

static void print(const verify_t *v)
{
    const solve_problem_t *p = v->problem;
    double value = solve_natural(p, v->value), bound = solve_natural(p, v->bound);
    double gap = value > 0 ? (value - bound) / value : 0;
    if (cot_settings_switch(v->settings, COT_SET_JSON)) {
        printf("{\"objective\": \"%s\", \"unit\": \"%s\", \"value\": %.17g, \"bound\": %.17g, \"gap\": %.6f, "
               "\"stated_bound\": %.17g, \"proof\": \"%s\", \"rechecked\": %s}\n",
               solve_objective_name(p->objective), solve_unit(p), value, bound, gap, v->stated_bound, v->proof,
               checkable(v) ? "true" : "false");
        return;
    }
    printf("%s %.9g %s, as stated\n", solve_objective_name(p->objective), value, solve_unit(p));
    if (checkable(v))
        printf("nothing is below %.9g: gap %.2f %% (%s, checked)\n", bound, 100 * gap, v->proof);
    else
        printf(
            "stated as proved by %s down to %.9g, which is not re-checkable; what is checked: nothing is below %.9g, "
            "gap %.2f %%\n",
            v->proof, v->stated_bound, bound, 100 * gap);
}

static cot_status_t verify(verify_t *v)
{
    if (cot_settings_arguments(v->settings) != 1)
        return cot_fail(COT_ERR_INVALID, "give one plan: coterie plan verify PLAN --trace FILE… --cluster FILE");
    v->path = cot_settings_argument(v->settings, 0);
    v->proof = "";
    COT_TRY(place_plan_load(v->path, &v->plan));
    COT_TRY(load_inputs(v));
    COT_TRY(read_objective(v));
    COT_TRY(solve_problem_create(&v->inputs.config, &v->problem));
    COT_TRY(check_value(v));
    COT_TRY(check_bound(v));
    print(v);
    return COT_OK;
}

int solve_verify_command(const cot_settings_t *settings)
{
    verify_t v = {.settings = settings};
    cot_status_t status = verify(&v);
    solve_certificate_destroy(v.certificate);
    solve_problem_destroy(v.problem);
    solve_inputs_free(&v.inputs);
    place_plan_destroy(v.plan);
    if (status != COT_OK) cot_log_error("%s", cot_error_text());
    return cot_exit_code(status);
}
