/* The certificate: what is saved proves the same when it is read back and summed up by check.c, and whatever is changed
 * in it, in the plan or in the trace is refused. The command `verify` as a whole. */
#include "tests/placement/solve/world.h"

#include "base/file.h"
#include "base/json.h"
#include "placement/solve/certificate.h"
#include "placement/solve/check.h"

#include <sys/wait.h>

static const char ALIKE[] =
    "{\"format\": \"coterie.cluster/1\", \"ranks\": [{\"count\": 2, \"node\": 0}, {\"count\": 2, "
    "\"node\": 1}], \"links\": {\"same_node\": {\"gigabytes_per_s\": 8, \"crossing_cost\": 1}, "
    "\"cross_node\": {\"gigabytes_per_s\": 3, \"crossing_cost\": 5}}}";
static const char UNEVEN[] =
    "{\"format\": \"coterie.cluster/1\", \"ranks\": [{\"count\": 2, \"node\": 0, \"slots\": 3}, "
    "{\"count\": 2, \"node\": 1, \"slots\": 2, \"relative_speed\": 0.5}], \"links\": "
    "{\"same_node\": {\"gigabytes_per_s\": 8, \"crossing_cost\": 2}, \"cross_node\": "
    "{\"gigabytes_per_s\": 3, \"crossing_cost\": 5}}}";

typedef struct {
    char folder[256], trace[300], certificate[300];
    world_t world;
    solve_problem_t *problem;
    solve_bound_t *bound;
} fixture_t;

static void make(fixture_t *at, const char *cluster, solve_objective_t objective)
{
    *at = (fixture_t){.world = {.layers = 4, .experts = 8, .ranks = 4, .top_k = 2, .tokens = 90, .random = 11}};
    temporary_make(at->folder);
    snprintf(at->trace, sizeof(at->trace), "%s/t.trace.safetensors", at->folder);
    snprintf(at->certificate, sizeof(at->certificate), "%s/p.cert.safetensors", at->folder);
    world_make(&at->world, at->trace, cluster);
    solve_problem_config_t config = {.stats = at->world.stats,
                                     .cluster = at->world.cluster,
                                     .objective = objective,
                                     .lambda = 0.5,
                                     .step_tokens = 16};
    assert_ok(solve_problem_create(&config, &at->problem));
    solve_bound_config_t limits = {.deadline = COT_NEVER};
    assert_ok(solve_bound_create(at->problem, &limits, &at->bound));
}

static void unmake(fixture_t *at)
{
    solve_bound_destroy(at->bound);
    solve_problem_destroy(at->problem);
    world_free(&at->world);
    temporary_remove(at->folder);
}

static cot_status_t check(const fixture_t *at, const solve_certificate_t *certificate, int64_t *crossings)
{
    return solve_check_crossings(certificate, at->world.stats, at->world.cluster, at->problem->slots, crossings);
}

static void round_trip(const char *cluster)
{
    fixture_t at;
    make(&at, cluster, SOLVE_WEIGHTED);
    solve_certificate_t *certificate = NULL;
    int64_t crossings = 0, balance = 0;
    assert_ok(solve_certificate_save(at.bound, "weighted", at.certificate));
    assert_ok(solve_certificate_load(at.certificate, &certificate));
    assert_ok(check(&at, certificate, &crossings));
    assert_int_equal(crossings, at.bound->crossings);
    assert_true(crossings > 0);
    assert_ok(solve_check_loads(at.problem, &balance));
    assert_int_equal(balance, at.bound->balance);
    assert_true(balance > 0);
    solve_certificate_destroy(certificate);
    unmake(&at);
}

static void proves_the_same_when_read_back(void **state)
{
    (void)state;
    round_trip(ALIKE);
    round_trip(UNEVEN);
}

/* Loads by check.c and by load_bound.c, which were written apart, on many problems. */
static void two_sums_of_the_loads_agree(void **state)
{
    (void)state;
    fixture_t at;
    make(&at, UNEVEN, SOLVE_BALANCE);
    for (uint32_t i = 0; i < 300; i++) {
        solve_problem_t other = *at.problem;
        int64_t slowness[4], balance = 0;
        uint32_t slots[4], total = 0;
        for (uint32_t r = 0; r < 4; r++) {
            slowness[r] = 400 + world_draw(&at.world, 3) * 600;
            slots[r] = 2 + world_draw(&at.world, 3) * (i % 2);
            total += slots[r];
        }
        for (uint32_t c = 0; c < 32; c++)
            other.load[c] = world_draw(&at.world, 4) == 0 ? world_draw(&at.world, 300) : world_draw(&at.world, 9);
        other.slowness = slowness;
        other.slots = slots;
        other.free_slots = total - other.experts;
        solve_bound_config_t limits = {.deadline = COT_NEVER};
        solve_bound_t *bound = NULL;
        assert_ok(solve_bound_create(&other, &limits, &bound));
        assert_ok(solve_check_loads(&other, &balance));
        assert_int_equal(balance, bound->balance);
        solve_bound_destroy(bound);
    }
    unmake(&at);
}

/* A dual may be changed and still prove something, but never more than is true: what is too good is refused or worth
 * less. */
static void a_tampered_certificate_proves_no_more(void **state)
{
    (void)state;
    fixture_t at;
    make(&at, ALIKE, SOLVE_CROSSINGS);
    solve_certificate_t *c = NULL;
    int64_t crossings = 0;
    assert_ok(solve_certificate_save(at.bound, "crossings", at.certificate));
    assert_ok(solve_certificate_load(at.certificate, &c));
    bool gram = false;
    for (uint32_t i = 0; i < c->levels; i++) {
        solve_certificate_level_t *level = &c->level[i];
        level->weight++;
        assert_fails(check(&at, c, &crossings), COT_ERR_MISMATCH, "not below the cluster's crossing costs");
        level->weight = -1;
        assert_fails(check(&at, c, &crossings), COT_ERR_MISMATCH, "not below the cluster's crossing costs");
        level->weight = at.bound->level[i].weight;
        gram |= level->gram;
        if (level->gram) continue;
        level->before[3] = -1;
        assert_fails(check(&at, c, &crossings), COT_ERR_MISMATCH, "proves nothing");
        level->before[3] = at.bound->level[i].before[3];
        level->after[5] += 50;
        assert_ok(check(&at, c, &crossings));
        assert_true(crossings <= at.bound->crossings);
        level->after[5] = at.bound->level[i].after[5];
    }
    assert_true(gram); /* two nodes: the chain's bound is the better one */
    for (uint32_t i = 0; i < 32; i++) c->diagonal[i] = c->diagonal[i] * 95 / 100; /* a better bound, if it were one */
    assert_fails(check(&at, c, &crossings), COT_ERR_MISMATCH, "proves nothing");
    for (uint32_t i = 0; i < 32; i++) {
        memcpy(c->diagonal, at.bound->diagonal, 32 * sizeof(*c->diagonal));
        c->diagonal[i] = -5;
        assert_fails(check(&at, c, &crossings), COT_ERR_MISMATCH, "proves nothing");
    }
    memcpy(c->diagonal, at.bound->diagonal, 32 * sizeof(*c->diagonal));
    assert_ok(check(&at, c, &crossings));
    assert_int_equal(crossings, at.bound->crossings);
    c->ranks = 3;
    assert_fails(check(&at, c, &crossings), COT_ERR_MISMATCH, "on 3 ranks");
    solve_certificate_destroy(c);
    unmake(&at);
}

static void what_is_no_certificate_is_refused(void **state)
{
    (void)state;
    fixture_t at;
    make(&at, ALIKE, SOLVE_CROSSINGS);
    solve_certificate_t *c = NULL;
    assert_fails(solve_certificate_load(at.trace, &c), COT_ERR_FORMAT, "this is no certificate");
    assert_fails(solve_certificate_load("/nowhere.cert.safetensors", &c), COT_ERR_NOT_FOUND, "/nowhere");
    at.bound->level[0].group[1] = 4; /* of four ranks 0 … 3 */
    assert_ok(solve_certificate_save(at.bound, "crossings", at.certificate));
    assert_fails(solve_certificate_load(at.certificate, &c), COT_ERR_FORMAT, "a group is not from 0 to 3");
    at.bound->level[0].group[1] = 0;
    assert_null(c);
    at.bound->levels = 0; /* of loads alone: nothing but the shape */
    assert_ok(solve_certificate_save(at.bound, "balance", at.certificate));
    assert_ok(solve_certificate_load(at.certificate, &c));
    int64_t crossings = 1;
    assert_ok(check(&at, c, &crossings));
    assert_int_equal(crossings, 0);
    solve_certificate_destroy(c);
    at.bound->levels = 2;
    unmake(&at);
}

/* ---- the commands ---- */

static int run(const fixture_t *at, const char *arguments, char output[4096])
{
    char command[2048];
    snprintf(command, sizeof(command), "cd '%s' && '%s/bin/coterie-plan' %s 2>&1", at->folder, COTERIE_BINARY_DIR,
             arguments);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    size_t count = fread(output, 1, 4095, pipe);
    output[count] = '\0';
    return WEXITSTATUS(pclose(pipe));
}

static void replace(const fixture_t *at, const char *file, const char *was, const char *is)
{
    char path[400], *text = NULL;
    size_t bytes = 0;
    snprintf(path, sizeof(path), "%s/%s", at->folder, file);
    assert_ok(cot_file_read(path, 1U << 20, &text, &bytes));
    char *found = strstr(text, was), *out = cot_alloc(bytes + 64);
    assert_true(found != NULL && out != NULL);
    int count = snprintf(out, bytes + 64, "%.*s%s%s", (int)(found - text), text, is, found + strlen(was));
    temporary_write(path, out, (size_t)count);
    cot_free(out);
    cot_free(text);
}

static void plans_are_verified(void **state)
{
    (void)state;
    fixture_t at;
    make(&at, ALIKE, SOLVE_CROSSINGS);
    char out[4096], path[400], wish[64];
    snprintf(path, sizeof(path), "%s/c.cluster.json", at.folder);
    temporary_write(path, ALIKE, strlen(ALIKE));
    static const char *const WAYS[] = {"--objective crossings", "--objective balance",
                                       "--objective weighted --lambda 0.3"};
    for (size_t i = 0; i < 3; i++) {
        char arguments[512];
        snprintf(arguments, sizeof(arguments),
                 "t.trace.safetensors --cluster c.cluster.json --out p.plan.json --solver lpt %s", WAYS[i]);
        if (run(&at, arguments, out) != 0) fail_msg("%s", out);
        assert_non_null(
            strstr(out, "how much of it is the bound's weakness and how much could still be gained is unknown"));
        static const char VERIFY[] = "verify p.plan.json --trace t.trace.safetensors --cluster c.cluster.json";
        if (run(&at, VERIFY, out) != 0) fail_msg("%s", out);
        assert_non_null(strstr(out, "checked"));

        /* Another value, another bound, another place of an expert. */
        assert_int_equal(run(&at,
                             "verify p.plan.json --trace t.trace.safetensors --cluster c.cluster.json --certificate "
                             "t.trace.safetensors",
                             out),
                         i == 1 ? 0 : 4);
        replace(&at, "p.plan.json", "\"bound\": ", "\"bound\": 9");
        assert_int_equal(run(&at, VERIFY, out), 4);
        assert_non_null(strstr(out, "but what is proved is"));
        replace(&at, "p.plan.json", "\"bound\": 9", "\"bound\": ");
        replace(&at, "p.plan.json", "\"value\": ", "\"value\": 1");
        assert_int_equal(run(&at, VERIFY, out), 4);
        assert_non_null(strstr(out, "one of them is not what the plan was made from"));
        replace(&at, "p.plan.json", "\"value\": 1", "\"value\": ");

        /* Proved in another way: said to be not re-checkable, and what can be checked is. */
        snprintf(wish, sizeof(wish), "\"proof\": \"%s\"", i == 1 ? "load" : "dual");
        replace(&at, "p.plan.json", wish, "\"proof\": \"dp\"");
        if (run(&at, VERIFY, out) != 0) fail_msg("%s", out);
        assert_non_null(strstr(out, "not re-checkable"));
    }
    unmake(&at);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(proves_the_same_when_read_back),
        cmocka_unit_test(two_sums_of_the_loads_agree),
        cmocka_unit_test(a_tampered_certificate_proves_no_more),
        cmocka_unit_test(what_is_no_certificate_is_refused),
        cmocka_unit_test(plans_are_verified),
    };
    cot_json_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
