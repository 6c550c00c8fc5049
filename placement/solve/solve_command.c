/* coterie-plan solve: traces in, plan out. */
#include "placement/solve/commands.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/signals.h"
#include "base/threads.h"
#include "placement/solve/certificate.h"
#include "placement/solve/evaluate.h"
#include "placement/solve/inputs.h"
#include "placement/solve/progress.h"
#include "placement/solve/proof.h"
#include "placement/solve/solve_report.h"
#include "placement/solve/solvers.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define SECONDS_MAX 1e7
#define WIDE_GAP 0.02

/* One run of the command, from the inputs to the judged answer. */
typedef struct {
    const cot_settings_t *settings;
    int64_t began_ns;
    const char *traces[COT_ARGUMENTS_MAX];
    uint32_t trace_count;
    solve_inputs_t inputs;
    solve_problem_t *problem;
    const solve_solver_t *solver;
    solve_context_t context;
    place_plan_t *start;
    solve_progress_t *progress;
    solve_answer_t answer;
    solve_figures_t figures;
    solve_proof_t *finder; /* of the bound */
    solve_bound_t *proved;
    int64_t bound;
    const char *proof;
} run_t;

static void free_run(run_t *run)
{
    solve_proof_destroy(run->finder); /* it tells the progress */
    solve_bound_destroy(run->proved);
    solve_progress_destroy(run->progress);
    place_plan_destroy(run->start);
    place_plan_destroy(run->answer.plan);
    solve_problem_destroy(run->problem);
    solve_inputs_free(&run->inputs);
}

/* ---- before ---- */

static cot_status_t read_limits(run_t *run)
{
    const cot_settings_t *settings = run->settings;
    double seconds = cot_settings_number(settings, COT_SET_TIME_LIMIT);
    if (!(seconds > 0 && seconds <= SECONDS_MAX))
        return cot_fail(COT_ERR_INVALID, "--time-limit must be above 0 and at most %.0f seconds", SECONDS_MAX);
    uint64_t threads = (uint64_t)cot_settings_int(settings, COT_SET_THREADS);
    if (threads > 1024) return cot_fail(COT_ERR_INVALID, "--threads must be at most 1024");
    run->context.seed = (uint64_t)cot_settings_int(settings, COT_SET_SEED);
    run->context.threads = threads > 0 ? (uint32_t)threads : cot_usable_cores(1);
    run->context.work = (uint64_t)cot_settings_int(settings, COT_SET_WORK);
    run->context.max_moves = (uint64_t)cot_settings_int(settings, COT_SET_MAX_MOVES);
    run->context.deadline = COT_NEVER;
    if (run->context.work == 0 || cot_settings_given(settings, COT_SET_TIME_LIMIT))
        run->context.deadline = run->began_ns + llround(seconds * 1e9);
    if (run->context.max_moves > 0 && !cot_settings_given(settings, COT_SET_FROM))
        return cot_fail(COT_ERR_INVALID, "--max-moves counts moves away from a plan: give it with --from");
    return COT_OK;
}

static cot_status_t read_arguments(run_t *run)
{
    const cot_settings_t *settings = run->settings;
    run->trace_count = cot_settings_arguments(settings);
    if (run->trace_count == 0)
        return cot_fail(COT_ERR_INVALID, "give at least one trace: coterie plan TRACE… --cluster FILE --out FILE");
    for (uint32_t i = 0; i < run->trace_count; i++) run->traces[i] = cot_settings_argument(settings, i);
    if (cot_settings_string(settings, COT_SET_OUT)[0] == '\0')
        return cot_fail(COT_ERR_INVALID, "--out is missing: where shall the plan go?");
    const char *solver = cot_settings_string(settings, COT_SET_SOLVER);
    run->solver = solve_find_solver(solver);
    if (run->solver == NULL)
        return cot_fail(COT_ERR_INVALID, "--solver \"%.40s\": there is no such solver; coterie plan --help lists them",
                        solver);
    return read_limits(run);
}

static cot_status_t load_start(run_t *run)
{
    const char *path = cot_settings_string(run->settings, COT_SET_FROM);
    if (path[0] == '\0') return COT_OK;
    COT_TRY(place_plan_load(path, &run->start));
    const place_plan_need_t need = {.layers = run->problem->layers,
                                    .experts = run->problem->experts,
                                    .ranks = run->problem->ranks,
                                    .layer_index = run->problem->stats->layer_index};
    cot_status_t status = place_plan_check(run->start, &need);
    if (status != COT_OK) return cot_fail_in(status, "%s", path);
    run->context.start = run->start;
    return COT_OK;
}

/* ---- after ---- */

static cot_status_t add_notes(run_t *run, double seconds)
{
    const solve_problem_t *p = run->problem;
    double value = solve_natural(p, run->figures.value), bound = solve_natural(p, run->bound);
    json_t *traces = json_array();
    json_t *extra = json_pack("{s:{s:s, s:f, s:s, s:f, s:f, s:s}, s:{s:s, s:I, s:I, s:f, s:s}, s:O}", "objective",
                              "name", solve_objective_name(p->objective), "value", value, "unit", solve_unit(p),
                              "bound", bound, "gap", value > 0 ? (value - bound) / value : 0.0, "proof", run->proof,
                              "made_by", "solver", run->solver->name, "seed", (json_int_t)run->context.seed, "work",
                              (json_int_t)run->answer.work, "seconds", seconds, "version", COTERIE_VERSION, "traces",
                              traces);
    json_t *objective = json_object_get(extra, "objective"); /* with what verify needs to compute it again */
    if (p->objective == SOLVE_WEIGHTED) json_object_set_new(objective, "lambda", json_real(run->inputs.config.lambda));
    if (p->objective == SOLVE_STEP_TIME || p->decode) {
        json_object_set_new(objective, "step_tokens", json_integer((json_int_t)p->step_tokens));
        json_object_set_new(objective, "decode", json_boolean(p->decode));
    }
    if (run->answer.note[0] != '\0')
        json_object_set_new(json_object_get(extra, "made_by"), "note", json_string(run->answer.note));
    json_decref(traces);
    if (extra == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the plan's notes");
    json_decref(run->answer.plan->extra);
    run->answer.plan->extra = extra;
    for (uint32_t i = 0; i < run->trace_count; i++) {
        cot_map_t map;
        char hex[65];
        COT_TRY(cot_map_open(run->traces[i], &map));
        cot_sha256_hex(map.data, map.bytes, hex);
        cot_map_close(&map);
        if (json_array_append_new(traces, json_pack("{s:s}", "sha256", hex)) != 0)
            return cot_fail(COT_ERR_NO_MEMORY, "no memory for the plan's notes");
    }
    return COT_OK;
}

static cot_status_t name_plan(run_t *run)
{
    place_plan_t *plan = run->answer.plan;
    const place_stats_t *stats = run->inputs.stats;
    plan->exchange = cot_strdup(solve_exchange_name(run->problem->exchange));
    if (stats->model[0] != '\0') plan->model_name = cot_strdup(stats->model);
    if (stats->config_sha256[0] != '\0') plan->config_sha256 = cot_strdup(stats->config_sha256);
    bool whole = plan->exchange != NULL && (stats->model[0] == '\0' || plan->model_name != NULL) &&
                 (stats->config_sha256[0] == '\0' || plan->config_sha256 != NULL);
    return whole ? COT_OK : cot_fail(COT_ERR_NO_MEMORY, "no memory for the plan's names");
}

static void print_result(const run_t *run, double seconds)
{
    const solve_problem_t *p = run->problem;
    const solve_figures_t *figures = &run->figures;
    double value = solve_natural(p, figures->value), bound = solve_natural(p, run->bound);
    double gap = value > 0 ? (value - bound) / value : 0;
    if (cot_settings_switch(run->settings, COT_SET_JSON)) {
        printf(
            "{\"objective\": \"%s\", \"value\": %.17g, \"unit\": \"%s\", \"bound\": %.17g, \"gap\": %.6f, \"proof\": "
            "\"%s\", \"solver\": \"%s\", \"seed\": %llu, \"work\": %llu, \"seconds\": %.3f, \"crossings\": %lld, "
            "\"transitions\": %lld, \"balance\": %.3f, \"largest_load\": %.6f}\n",
            solve_objective_name(p->objective), value, solve_unit(p), bound, gap, run->proof, run->solver->name,
            (unsigned long long)run->context.seed, (unsigned long long)run->answer.work, seconds,
            (long long)figures->crossings, (long long)figures->transitions, (double)figures->balance / SOLVE_UNIT,
            figures->largest_load);
        return;
    }
    printf("%s %.6g %s; nothing is below %.6g (%s): gap %.2f %%\n", solve_objective_name(p->objective), value,
           solve_unit(p), bound, run->proof, 100 * gap);
    if (gap > WIDE_GAP)
        printf(
            "the gap is how far the bound is from the plan: how much of it is the bound's weakness and how much could "
            "still be gained is unknown\n");
    if (run->answer.note[0] != '\0') printf("%s: %s\n", run->solver->name, run->answer.note);
    printf("%s, seed %llu, work %llu, %.2f s; %s\n", run->solver->name, (unsigned long long)run->context.seed,
           (unsigned long long)run->answer.work, seconds, cot_settings_string(run->settings, COT_SET_OUT));
}

/* ---- the whole ---- */

static cot_status_t prepare(run_t *run)
{
    COT_TRY(read_arguments(run));
    COT_TRY(solve_inputs_load(run->settings, run->traces, run->trace_count, &run->inputs));
    COT_TRY(solve_problem_create(&run->inputs.config, &run->problem));
    COT_TRY(load_start(run));
    const solve_progress_config_t config = {.problem = run->problem,
                                            .began_ns = run->began_ns,
                                            .deadline = run->context.deadline,
                                            .quiet = cot_settings_switch(run->settings, COT_SET_JSON)};
    COT_TRY(solve_progress_create(&config, &run->progress));
    run->context.better = solve_progress_better;
    run->context.user = run->progress;
    run->context.stop = cot_signals_install_stop();
    return COT_OK;
}

/* The bound is sought beside the search; a tenth of the time is left for what comes after. */
static cot_status_t start_proof(run_t *run)
{
    cot_deadline_t deadline = run->context.deadline;
    if (deadline != COT_NEVER) deadline -= (deadline - run->began_ns) / 10;
    const solve_proof_config_t config = {
        .problem = run->problem, .deadline = deadline, .better = solve_progress_bound, .user = run->progress};
    return solve_proof_start(&config, &run->finder);
}

/* Whoever proved the plan optimal needs no bound; else it is waited for, but for no longer than the plan. */
static cot_status_t end_proof(run_t *run)
{
    bool proved = run->answer.proved != SOLVE_NOT_PROVED;
    COT_TRY(solve_proof_finish(run->finder, proved || solve_context_over(&run->context), &run->proved));
    run->bound = run->proved->value;
    run->proof = run->proved->dual ? "dual" : "load";
    if (!proved) return COT_OK;
    run->bound = run->figures.value;
    run->proof = run->answer.proved == SOLVE_PROVED_DP ? "dp" : "exhaustive";
    return COT_OK;
}

static cot_status_t save_certificate(const run_t *run)
{
    char path[4096];
    solve_certificate_path(cot_settings_string(run->settings, COT_SET_OUT),
                           cot_settings_string(run->settings, COT_SET_CERTIFICATE), path, sizeof(path));
    return solve_certificate_save(run->proved, solve_objective_name(run->problem->objective), path);
}

/* After the plan is safe: the other solvers take their time. */
static cot_status_t save_report(const run_t *run, double seconds)
{
    const char *path = cot_settings_string(run->settings, COT_SET_REPORT);
    if (path[0] == '\0') return COT_OK;
    const solve_solved_t solved = {.problem = run->problem,
                                   .inputs = &run->inputs,
                                   .solver = run->solver,
                                   .plan = run->answer.plan,
                                   .bound = run->bound,
                                   .proof = run->proof,
                                   .seconds = seconds,
                                   .progress = run->progress,
                                   .stop = run->context.stop};
    return solve_report_solved(&solved, path);
}

static cot_status_t solve(run_t *run)
{
    COT_TRY(prepare(run));
    COT_TRY(start_proof(run));
    cot_status_t status = run->solver->solve(run->problem, &run->context, &run->answer);
    COT_TRY(status);
    COT_TRY(solve_evaluate(run->problem, run->answer.plan, &run->figures));
    COT_TRY(end_proof(run));
    solve_progress_end(run->progress);
    double seconds = (double)(cot_now_ns() - run->began_ns) / 1e9;
    COT_TRY(name_plan(run));
    COT_TRY(add_notes(run, seconds));
    COT_TRY(place_plan_save(run->answer.plan, cot_settings_string(run->settings, COT_SET_OUT)));
    COT_TRY(save_certificate(run));
    print_result(run, seconds);
    return save_report(run, seconds);
}

int solve_command(const cot_settings_t *settings)
{
    run_t run = {.settings = settings, .began_ns = cot_now_ns()};
    cot_status_t status = solve(&run);
    free_run(&run);
    if (status != COT_OK) cot_log_error("%s", cot_error_text());
    return cot_exit_code(status);
}
