/* Activated experts, drift, moves and the whole comparison, against recounts and figures done by hand. */
#include "tests/placement/solve/world.h"

#include "base/file.h"
#include "base/json.h"
#include "placement/solve/compare.h"

#include <math.h>

static const char CLUSTER[] =
    "{\"format\": \"coterie.cluster/1\", \"ranks\": [{\"count\": 2, \"node\": 0, \"slots\": 4}, "
    "{\"count\": 2, \"node\": 1, \"slots\": 4}], \"links\": {\"same_node\": {\"latency_us\": "
    "2, \"gigabytes_per_s\": 4}, \"cross_node\": {\"latency_us\": 9, \"gigabytes_per_s\": "
    "0.5, \"crossing_cost\": 8}}}";

typedef struct {
    char folder[256], trace[300], other[300], cluster[300], plan[300], model[300], report[300];
    world_t world, second;
} fixture_t;

static void write_text(const char *path, const char *text)
{
    temporary_write(path, text, strlen(text));
}

static int make(void **state)
{
    static fixture_t at;
    at = (fixture_t){.world = {.layers = 3, .experts = 8, .ranks = 4, .top_k = 2, .tokens = 80, .random = 1},
                     .second = {.layers = 3, .experts = 8, .ranks = 4, .top_k = 2, .tokens = 48, .random = 99}};
    temporary_make(at.folder);
    snprintf(at.trace, sizeof(at.trace), "%s/fit.trace.safetensors", at.folder);
    snprintf(at.other, sizeof(at.other), "%s/held.trace.safetensors", at.folder);
    snprintf(at.cluster, sizeof(at.cluster), "%s/c.cluster.json", at.folder);
    snprintf(at.plan, sizeof(at.plan), "%s/p.plan.json", at.folder);
    snprintf(at.report, sizeof(at.report), "%s/r.html", at.folder);
    snprintf(at.model, sizeof(at.model), "%s/config.json", at.folder);
    write_text(at.cluster, CLUSTER);
    world_make(&at.world, at.trace, CLUSTER);
    world_make(&at.second, at.other, CLUSTER);
    *state = &at;
    return 0;
}

static int unmake(void **state)
{
    fixture_t *at = *state;
    world_free(&at->world);
    world_free(&at->second);
    temporary_remove(at->folder);
    return 0;
}

static solve_case_t case_of(const world_t *world, bool tokens)
{
    return (solve_case_t){.stats = world->stats,
                          .cluster = world->cluster,
                          .trace = tokens ? &world->trace : NULL,
                          .traces = tokens,
                          .step_tokens = 16};
}

/* ---- activated experts ---- */

/* Row t is request t / 4, position t % 4: windows take all first positions, then all second ones, … */
static void windows_run_across_requests(void **state)
{
    fixture_t *at = *state;
    world_t *w = &at->world;
    place_plan_t *plan = world_plan(w, 3);
    uint64_t all = 0, largest = 0;
    for (uint32_t window = 0; window < 5; window++)
        for (uint32_t l = 0; l < 3; l++) {
            bool seen[4][8] = {{false}};
            uint32_t active[4] = {0}, most = 0;
            for (uint32_t i = 0; i < 16; i++) {
                uint32_t rank = window * 16 + i, position = rank / 20, request = rank % 20;
                for (uint32_t k = 0; k < 2; k++) {
                    uint32_t e = world_expert(w, request * 4 + position, l, k);
                    seen[place_plan_rank(plan, l, e, request % 4)][e] = true;
                }
            }
            for (uint32_t r = 0; r < 4; r++) {
                for (uint32_t e = 0; e < 8; e++) active[r] += seen[r][e];
                all += active[r];
                most = active[r] > most ? active[r] : most;
            }
            largest += most;
        }
    solve_case_t judged = case_of(w, true);
    solve_active_t active;
    assert_ok(solve_active_count(&judged, plan, &active));
    assert_int_equal(active.steps, 5);
    assert_true(fabs(active.mean - (double)all / (4 * 15)) < 1e-12);
    assert_true(fabs(active.largest - (double)largest / 15) < 1e-12);
    place_plan_destroy(plan);
}

static void a_short_trace_is_one_window(void **state)
{
    fixture_t *at = *state;
    place_plan_t *plan = world_plan(&at->world, 0);
    solve_case_t judged = case_of(&at->world, true);
    solve_active_t active;
    judged.step_tokens = 1000;
    assert_ok(solve_active_count(&judged, plan, &active));
    assert_int_equal(active.steps, 1);
    assert_true(active.mean > 1.5 && active.mean <= 2); /* nearly all 8 experts on 4 ranks */
    place_plan_destroy(plan);
}

static void counts_give_the_expectation(void **state)
{
    fixture_t *at = *state;
    place_plan_t *plan = world_plan(&at->world, 0);
    double sum = 0;
    for (uint32_t i = 0; i < 3 * 8; i++) sum += 1 - pow(1 - (double)at->world.stats->load[i] / 80, 16);
    solve_case_t judged = case_of(&at->world, false);
    solve_active_t active;
    assert_ok(solve_active_count(&judged, plan, &active));
    assert_int_equal(active.steps, 0);
    assert_true(fabs(active.mean - sum / 12) < 1e-9);
    at->world.stats->top_k = 0;
    assert_fails(solve_active_count(&judged, plan, &active), COT_ERR_UNSUPPORTED, "top_k");
    place_plan_destroy(plan);
}

/* ---- drift ---- */

static void drift_by_hand(void **state)
{
    (void)state;
    /* One layer, 4 experts on 2 ranks: shares 0.4 0.1 0.3 0.2 against 0.1 0.4 0.3 0.2. */
    uint32_t layer[] = {0};
    int64_t a[] = {40, 10, 30, 20}, b[] = {20, 80, 60, 40};
    place_stats_t old = {.layers = 1, .experts = 4, .top_k = 1, .load = a, .layer_index = layer};
    place_stats_t now = old;
    now.load = b;
    place_plan_t *plan = NULL;
    assert_ok(place_plan_contiguous(1, layer, 4, 2, &plan));
    solve_case_t fitted = {.stats = &old}, live = {.stats = &now};
    solve_drift_t drift;
    assert_ok(solve_drift(&fitted, &live, plan, &drift));
    assert_true(fabs(drift.experts - 0.3) < 1e-12);
    assert_true(fabs(drift.ranks) < 1e-12); /* both swapped experts stand on rank 0 */
    assert_false(drift.by_requests);
    /* Pooled shares 0.2 0.3 0.3 0.2; variances a (1 - a) (1/100 + 1/200). */
    double noise = 2 * sqrt(0.16 * 0.015 / (2 * acos(-1))) + 2 * sqrt(0.21 * 0.015 / (2 * acos(-1)));
    assert_true(fabs(drift.noise - noise) < 1e-12);
    now.experts = 3;
    assert_fails(solve_drift(&fitted, &live, plan, &drift), COT_ERR_MISMATCH, "one model");
    place_plan_destroy(plan);
}

/* Split in two by request, the parts of one routing differ by about the noise that is foretold. */
static void noise_is_what_halves_differ_by(void **state)
{
    fixture_t *at = *state;
    double apart = 0, noise = 0;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        world_t one = {.layers = 3, .experts = 8, .ranks = 4, .top_k = 2, .tokens = 120, .random = seed * 77};
        world_t two = one;
        two.random = seed * 91 + 5;
        char first[300], second[300];
        snprintf(first, sizeof(first), "%s/1.trace.safetensors", at->folder);
        snprintf(second, sizeof(second), "%s/2.trace.safetensors", at->folder);
        world_make(&one, first, CLUSTER);
        world_make(&two, second, CLUSTER);
        place_plan_t *plan = world_plan(&one, 0);
        solve_case_t fitted = case_of(&one, true), live = case_of(&two, true);
        solve_drift_t drift;
        assert_ok(solve_drift(&fitted, &live, plan, &drift));
        assert_true(drift.by_requests);
        apart += drift.experts / 12;
        noise += drift.noise / 12;
        place_plan_destroy(plan);
        world_free(&one);
        world_free(&two);
    }
    assert_true(fabs(apart - noise) < 0.2 * noise);
}

/* ---- moves ---- */

static void moves_take_the_fastest_link(void **state)
{
    fixture_t *at = *state;
    uint32_t layer[] = {0};
    place_plan_t *from = NULL, *to = NULL;
    const char *old = "{\"format\": \"coterie.plan/1\", \"ranks\": 4, \"layers\": "
                      "[{\"layer\": 0, \"ranks\": [[0], [1], [0], [2]]}]}";
    const char *new = "{\"format\": \"coterie.plan/1\", \"ranks\": 4, \"layers\": "
                      "[{\"layer\": 0, \"ranks\": [[0], [0, 1], [2], [1, 2]]}]}";
    (void)layer;
    assert_ok(place_plan_parse(old, strlen(old), "old", &from));
    assert_ok(place_plan_parse(new, strlen(new), "new", &to));
    solve_moves_t moves;
    solve_moves_count(at->world.cluster, from, to, 4000, &moves);
    /* 0 to rank 1 from rank 0 (4 GB/s: 1000 ns), 2 to rank 2 from rank 3 (1000 ns), 1 to rank 3 from rank 1 (0.5:
     * 8000). */
    assert_int_equal(moves.copies, 3);
    assert_int_equal(moves.experts, 6);
    assert_int_equal(moves.bytes, 12000);
    assert_int_equal(moves.ns, 8000);
    solve_moves_count(at->world.cluster, from, to, 0, &moves);
    assert_int_equal(moves.ns, -1);
    solve_moves_count(at->world.cluster, from, from, 0, &moves);
    assert_int_equal(moves.copies, 0);
    assert_int_equal(moves.ns, 0);
    place_plan_destroy(from);
    place_plan_destroy(to);
}

/* ---- links ---- */

static void links_have_names(void **state)
{
    fixture_t *at = *state;
    solve_links_t links;
    solve_links_find(at->world.cluster, &links);
    assert_int_equal(links.count, 2);
    assert_string_equal(links.name[solve_links_group(&links, 0, 1)], "same_node");
    assert_string_equal(links.name[solve_links_group(&links, 2, 1)], "cross_node");
    int64_t value[16], sums[SOLVE_LINKS_MOST];
    for (int i = 0; i < 16; i++) value[i] = 1 << i;
    solve_links_sum(&links, value, sums);
    assert_int_equal(sums[solve_links_group(&links, 0, 1)], (1 << 1) + (1 << 4) + (1 << 11) + (1 << 14));
    assert_int_equal(sums[0] + sums[1], 0xffff - (1 << 0) - (1 << 5) - (1 << 10) - (1 << 15));
    const char *flat =
        "{\"format\": \"coterie.cluster/1\", \"ranks\": [{\"count\": 3}], \"links\": {\"matrix\": "
        "{\"latency_us\": [[0, 1, 2], [1, 0, 2], [2, 2, 0]], \"gigabytes_per_s\": [[1, 5, 5], [5, 1, 5], "
        "[5, 5, 1]]}}}";
    place_cluster_t *cluster = NULL;
    assert_ok(place_cluster_parse(flat, strlen(flat), "flat", &cluster));
    solve_links_find(cluster, &links);
    assert_int_equal(links.count, 2);
    assert_string_equal(links.name[solve_links_group(&links, 0, 2)], "2 us, 5 GB/s");
    place_cluster_destroy(cluster);
}

/* ---- the comparison ---- */

static cot_status_t compare(const fixture_t *at, const char *const *more, solve_compare_t *compare_out,
                            cot_settings_t **settings_out)
{
    char *argv[24] = {(char *)(uintptr_t)at->plan,
                      "--fitted",
                      (char *)(uintptr_t)at->trace,
                      "--cluster",
                      (char *)(uintptr_t)at->cluster,
                      "--work",
                      "1"};
    int argc = 7;
    for (; more != NULL && *more != NULL; more++) argv[argc++] = (char *)(uintptr_t)*more;
    *settings_out = NULL;
    COT_TRY(cot_settings_parse(COT_CMD_PLAN_EVALUATE, argc, argv, settings_out));
    return solve_compare(*settings_out, compare_out);
}

static void save_plan(fixture_t *at)
{
    place_plan_t *plan = NULL;
    assert_ok(place_plan_contiguous(3, at->world.stats->layer_index, 8, 4, &plan));
    for (uint32_t i = 0; i < 24; i++) plan->slot_expert[i] = (plan->slot_expert[i] * 3 + 1) % 8;
    assert_ok(place_plan_save(plan, at->plan));
    place_plan_destroy(plan);
}

static void every_figure_is_the_judges(void **state)
{
    fixture_t *at = *state;
    save_plan(at);
    const char *const more[] = {"--trace", at->other, at->trace, "--step-tokens", "16", NULL};
    solve_compare_t c = {0};
    cot_settings_t *settings;
    assert_ok(compare(at, more, &c, &settings));
    assert_int_equal(c.columns, 4);
    static const char *const NAMES[] = {"fitted", "held", "fit", "all held-out"};
    for (uint32_t i = 0; i < 4; i++) assert_string_equal(c.column[i].name, NAMES[i]);
    assert_string_equal(c.row[0].name, "contiguous");
    assert_string_equal(c.row[c.rows - 1].name, "plan");
    assert_int_equal(c.column[0].problem->objective, SOLVE_CROSSINGS); /* no --model: no step time */

    solve_case_t judged = case_of(&at->second, true);
    judged.row_bytes = 1000;
    solve_figures_t figures;
    solve_detail_t detail;
    assert_ok(solve_judge(&judged, c.plan, &figures, &detail));
    const solve_cell_t *cell = &c.row[c.rows - 1].cell[1];
    assert_int_equal(cell->figures.crossings, figures.crossings);
    assert_int_equal(cell->value, figures.crossings * 1000);
    assert_int_equal(cell->figures.copies, SOLVE_COPIES_TOKENS);
    int64_t near = detail.traffic[1] + detail.traffic[4] + detail.traffic[11] + detail.traffic[14];
    assert_int_equal(cell->rows[solve_links_group(&c.links, 0, 1)], near);
    assert_int_equal(cell->rows[0] + cell->rows[1], figures.exchanged);
    /* The fitted trace has not drifted from itself; planning anew by crossings saves no known time. */
    assert_true(c.drift[2].experts < 1e-12 && c.drift[1].experts > 0);
    assert_true(c.replan[1].done && isnan(c.replan[1].pays_after) && c.replan[1].loss >= 0);
    solve_detail_free(&detail);
    solve_compare_free(&c);
    cot_settings_destroy(settings);
}

static const char CONFIG[] = "{\"architectures\": [\"MixtralForCausalLM\"], \"model_type\": \"mixtral\", "
                             "\"hidden_size\": 500, \"intermediate_size\": 100, \"num_hidden_layers\": 12, "
                             "\"num_local_experts\": 8, \"num_experts_per_tok\": 2, \"torch_dtype\": \"bfloat16\"}";

/* Trace layers 1, 2, 4 are no Mixtral's, so the sizes come from metadata: here they are put into the stats' stead by a
 * cluster that was calibrated. */
static void planning_anew_pays_after_the_moves(void **state)
{
    fixture_t *at = *state;
    save_plan(at);
    char calibrated[700];
    snprintf(calibrated, sizeof(calibrated), "{\"expert_ns_per_row\": 700, %s", CLUSTER + 1);
    write_text(at->cluster, calibrated);
    const char *const more[] = {"--trace", at->other, "--step-tokens", "16", NULL};
    solve_compare_t c = {0};
    cot_settings_t *settings;
    assert_ok(compare(at, more, &c, &settings));
    assert_int_equal(c.column[0].problem->objective, SOLVE_STEP_TIME);
    const solve_replan_t *replan = &c.replan[1];
    const solve_cell_t *old = &c.row[c.rows - 1].cell[1];
    assert_true(replan->done);
    double saved = (double)(old->figures.step_ns - replan->cell.figures.step_ns) / (double)old->figures.steps;
    assert_true(fabs(replan->saved_ns - saved) < 1e-9);
    assert_true(replan->cell.value <= old->value);                        /* the search began with the plan */
    assert_true(isnan(replan->pays_after) == (replan->moves.copies > 0)); /* bytes of an expert unknown */
    solve_compare_free(&c);
    cot_settings_destroy(settings);
}

static void text_json_and_page_hold_all(void **state)
{
    fixture_t *at = *state;
    save_plan(at);
    const char *const more[] = {"--trace", at->other, "--step-tokens", "16", NULL};
    solve_compare_t c = {0};
    cot_settings_t *settings;
    assert_ok(compare(at, more, &c, &settings));
    cot_buffer_t text = {0}, json = {0};
    assert_ok(solve_compare_text(&c, &text));
    assert_ok(cot_buffer_append(&text, "", 1));
    static const char *const WORDS[] = {"objective crossings",
                                        "held: 48 tokens, held out, copies to a rank counted by tokens",
                                        "cross_node (kB of a token)", "activated experts", "drift from the fitted"};
    for (size_t i = 0; i < sizeof(WORDS) / sizeof(*WORDS); i++) assert_non_null(strstr((char *)text.data, WORDS[i]));
    assert_ok(solve_compare_json(&c, &json));
    json_t *root = NULL;
    assert_ok(cot_json_load_bytes((char *)json.data, json.size, "json", &root));
    assert_int_equal(json_array_size(json_object_get(root, "columns")), 2);
    assert_int_equal(json_array_size(json_object_get(root, "placements")), c.rows);
    const json_t *cell = json_array_get(
        json_object_get(json_array_get(json_object_get(root, "placements"), c.rows - 1), "columns"), 1);
    assert_int_equal(json_integer_value(json_object_get(cell, "crossings")),
                     c.row[c.rows - 1].cell[1].figures.crossings);
    assert_true(json_real_value(json_object_get(json_object_get(cell, "bytes_by_link"), "cross_node")) > 0);
    assert_true(json_is_null(json_object_get(cell, "step_us")));
    assert_string_equal(json_string_value(json_object_get(cell, "copies")), "tokens");
    const json_t *drift = json_array_get(json_object_get(root, "drift"), 0);
    assert_true(json_real_value(json_object_get(drift, "noise")) > 0);
    assert_true(json_is_null(json_object_get(json_object_get(drift, "replan"), "pays_after_steps")));
    json_decref(root);
    assert_ok(solve_compare_report(&c, at->report));
    char *page = NULL;
    size_t bytes = 0;
    assert_ok(cot_file_read(at->report, 1U << 22, &page, &bytes));
    assert_non_null(strstr(page, "Drift from the fitted traces"));
    assert_non_null(strstr(page, "plan, on held"));
    cot_free(page);
    cot_buffer_free(&text);
    cot_buffer_free(&json);
    solve_compare_free(&c);
    cot_settings_destroy(settings);
}

static void refuses(fixture_t *at, const char *const *more, cot_status_t status, const char *words)
{
    solve_compare_t c = {0};
    cot_settings_t *settings = NULL;
    assert_fails(compare(at, more, &c, &settings), status, words);
    cot_settings_destroy(settings);
}

static void unfit_inputs_are_refused(void **state)
{
    fixture_t *at = *state;
    refuses(at, NULL, COT_ERR_NOT_FOUND, "p.plan.json");
    save_plan(at);
    refuses(at, (const char *const[]){"--objective", "step_time", NULL}, COT_ERR_UNSUPPORTED, "--model");
    refuses(at, (const char *const[]){"--trace", at->other, "--time-limit", "0", NULL}, COT_ERR_INVALID,
            "--time-limit");
    refuses(at, (const char *const[]){"--trace", at->plan, NULL}, COT_ERR_FORMAT, "p.plan.json");
    refuses(at, (const char *const[]){"--json", "another", NULL}, COT_ERR_INVALID, "one plan");
    write_text(at->model, CONFIG);
    refuses(at, (const char *const[]){"--model", at->model, NULL}, COT_ERR_MISMATCH, "layers");
    write_text(at->plan, "{\"format\": \"coterie.plan/1\", \"ranks\": 2, \"layers\": "
                         "[{\"layer\": 1, \"ranks\": [[0], [1]]}]}");
    refuses(at, NULL, COT_ERR_MISMATCH, "places 2 experts");
    char *argv[] = {at->plan};
    cot_settings_t *settings = NULL;
    solve_compare_t c = {0};
    assert_ok(cot_settings_parse(COT_CMD_PLAN_EVALUATE, 1, argv, &settings));
    assert_fails(solve_compare(settings, &c), COT_ERR_INVALID, "--fitted is missing");
    cot_settings_destroy(settings);
}

int main(void)
{
    cot_json_setup();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(windows_run_across_requests, make, unmake),
        cmocka_unit_test_setup_teardown(a_short_trace_is_one_window, make, unmake),
        cmocka_unit_test_setup_teardown(counts_give_the_expectation, make, unmake),
        cmocka_unit_test(drift_by_hand),
        cmocka_unit_test_setup_teardown(noise_is_what_halves_differ_by, make, unmake),
        cmocka_unit_test_setup_teardown(moves_take_the_fastest_link, make, unmake),
        cmocka_unit_test_setup_teardown(links_have_names, make, unmake),
        cmocka_unit_test_setup_teardown(every_figure_is_the_judges, make, unmake),
        cmocka_unit_test_setup_teardown(planning_anew_pays_after_the_moves, make, unmake),
        cmocka_unit_test_setup_teardown(text_json_and_page_hold_all, make, unmake),
        cmocka_unit_test_setup_teardown(unfit_inputs_are_refused, make, unmake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
