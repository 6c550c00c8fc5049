/* `coterie calibrate`: what it writes is a cluster file of this job with figures that a machine can have. */
#include "tests/cli/job.h"

#include "base/json.h"
#include "placement/cluster.h"

#define MODEL "$SOURCE/tests/fixtures/models/qwen3"

static void calibrate(uint32_t workers, const char *flags)
{
    int code = job_run("$RUN -n %u calibrate " MODEL " --out $DIR/c.cluster.json %s > $DIR/report", workers + 1, flags);
    if (code != 0) job_stderr_has("\001");
    assert_int_equal(code, 0);
}

/* Of the machine these tests run on, or any other of this century. */
static void assert_sane(const char *what, double value, double least, double most)
{
    print_message("%s %g\n", what, value);
    if (!(value >= least && value <= most)) fail_msg("%s is %g", what, value);
}

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value)) fail_msg("there is no number \"%s\"", key);
    return json_number_value(value);
}

static void two_workers(void **state)
{
    (void)state;
    calibrate(2, "--dtype float32");
    place_cluster_t *cluster = NULL;
    assert_ok(place_cluster_load(job_path("c.cluster.json"), &cluster));
    assert_int_equal(cluster->ranks, 2);
    assert_int_equal(cluster->nodes, 1);
    for (uint32_t r = 0; r < 2; r++) {
        assert_int_equal(cluster->rank[r].slots, 4); /* of 8 experts */
        assert_sane("memory", (double)cluster->rank[r].memory_bytes, 1e8, 1e14);
        assert_sane("speed", cluster->rank[r].relative_speed, 0.01, 100);
    }
    const place_link_t *link = place_cluster_link(cluster, 0, 1);
    assert_sane("latency", link->latency_us, 0.05, 1e5);
    assert_sane("rate", link->gigabytes_per_s, 1e-4, 1e3);
    assert_int_equal(link->crossing_cost, 1);
    place_cluster_destroy(cluster);

    json_t *root = NULL;
    assert_ok(cot_json_load_file(job_path("c.cluster.json"), 1 << 20, &root));
    assert_sane("expert", number(root, "expert_ns_per_row"), 10, 1e7);
    assert_true(number(root, "row_bytes") == 32 * 4);
    const json_t *links = json_object_get(root, "links"), *copy = json_object_get(links, "same_rank");
    assert_sane("copy", number(copy, "gigabytes_per_s"), 1e-2, 1e4);
    assert_null(json_object_get(links, "cross_node"));
    const char *sha256 = json_string_value(json_object_get(json_object_get(root, "measured_by"), "config_sha256"));
    assert_non_null(sha256);
    assert_int_equal(strlen(sha256), 64);
    json_decref(root);
    assert_int_equal(job_run("grep -q '^rank 2 ' $DIR/report && grep -q '^same_node ' $DIR/report"), 0);
}

/* More workers than experts: some hold none. A backend, slots and memory of the user's choice. */
static void flags_are_heeded(void **state)
{
    (void)state;
    calibrate(9, "--backend ref --dtype bfloat16 --threads 1 --slots 3 --memory 64MiB");
    place_cluster_t *cluster = NULL;
    assert_ok(place_cluster_load(job_path("c.cluster.json"), &cluster));
    assert_int_equal(cluster->ranks, 9);
    assert_int_equal(cluster->rank[8].slots, 3);
    assert_int_equal(cluster->rank[8].memory_bytes, 64 << 20);
    assert_true(cluster->rank[8].relative_speed == 1);
    place_cluster_destroy(cluster);
    assert_int_equal(job_run("grep -q '\"row_bytes\": 64,' $DIR/c.cluster.json && grep -q '\"backend\": \"ref\"' "
                             "$DIR/c.cluster.json"),
                     0);
}

static void one_worker_has_no_links(void **state)
{
    (void)state;
    calibrate(1, "--load-format dummy");
    place_cluster_t *cluster = NULL;
    assert_ok(place_cluster_load(job_path("c.cluster.json"), &cluster));
    assert_int_equal(cluster->ranks, 1);
    place_cluster_destroy(cluster);
}

static void refused(int code, const char *words, const char *command)
{
    unlink(job_path("o"));
    print_message("%s\n", command);
    int got = job_run("%s > $DIR/report", command);
    if (got != code) job_stderr_has("\001");
    assert_int_equal(got, code);
    assert_true(job_stderr_has(words));
    assert_int_equal(access(job_path("o"), F_OK), -1);
}

static void what_is_refused(void **state)
{
    (void)state;
    refused(2, "needs a coordinator", "$PROGRAM calibrate " MODEL " --out $DIR/o");
    refused(2, "--out", "$RUN -n 3 calibrate " MODEL);
    refused(2, "--slots", "$RUN -n 3 calibrate " MODEL " --out $DIR/o --slots 9");
    refused(2, "--isa", "$RUN -n 3 calibrate " MODEL " --out $DIR/o --isa mmx");
    refused(2, "is a flag of", "$RUN -n 3 calibrate " MODEL " --out $DIR/o --kv-memory 3M");
    refused(4, "config.json", "$RUN -n 3 calibrate /nonexistent --out $DIR/o");
    refused(4, "nowhere", "$RUN -n 3 calibrate " MODEL " --out /nonexistent/nowhere/o");
    refused(4, "rank 1",
            "mkdir $DIR/m && cp $SOURCE/tests/fixtures/models/qwen3/config.json $DIR/m && "
            "$RUN -n 3 calibrate $DIR/m --out $DIR/o");
    /* A measurement that takes longer than it may ends the job, with a word. */
    refused(6, "rank ", "$RUN -n 3 calibrate " MODEL " --out $DIR/o --step-timeout 1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(two_workers), cmocka_unit_test(flags_are_heeded),
                                       cmocka_unit_test(one_worker_has_no_links), cmocka_unit_test(what_is_refused)};
    return cmocka_run_group_tests(tests, job_setup, job_teardown);
}
