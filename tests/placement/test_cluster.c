#include "tests/temporary.h"

#include "base/json.h"
#include "placement/cluster.h"

static place_cluster_t *parse(const char *text)
{
    place_cluster_t *cluster = NULL;
    assert_ok(place_cluster_parse(text, strlen(text), "text", &cluster));
    return cluster;
}

static void refuses(const char *text, const char *words)
{
    place_cluster_t *cluster = NULL;
    assert_fails(place_cluster_parse(text, strlen(text), "text", &cluster), COT_ERR_FORMAT, words);
    assert_null(cluster);
}

#define HEAD "{\"format\": \"coterie.cluster/1\", "
#define SAME "\"same_node\": {\"latency_us\": 3.0, \"gigabytes_per_s\": 370.0, \"crossing_cost\": 1}"
#define CROSS "\"cross_node\": {\"latency_us\": 12.0, \"gigabytes_per_s\": 45.0, \"crossing_cost\": 8}"
#define TWO_NODES "\"ranks\": [{\"count\": 2, \"node\": 7}, {\"node\": 3, \"relative_speed\": 0.5}], "

static void tiers_join_ranks_by_node(void **state)
{
    (void)state;
    place_cluster_t *cluster = parse(HEAD TWO_NODES "\"links\": {" SAME ", " CROSS "}}");
    assert_int_equal(cluster->ranks, 3);
    assert_int_equal(cluster->nodes, 2);
    assert_int_equal(cluster->rank[0].node, 0); /* numbered in order of appearance */
    assert_int_equal(cluster->rank[2].node, 1);
    assert_true(cluster->rank[2].relative_speed == 0.5);
    assert_int_equal(place_cluster_link(cluster, 0, 1)->crossing_cost, 1);
    assert_int_equal(place_cluster_link(cluster, 1, 2)->crossing_cost, 8);
    assert_true(place_cluster_link(cluster, 2, 0)->gigabytes_per_s == 45);
    assert_int_equal(place_cluster_link(cluster, 1, 1)->tier, 0);
    assert_int_equal(cluster->tiers, 3);
    place_cluster_destroy(cluster);
}

#define MATRIX(latency, rate, cost)                                                       \
    HEAD "\"ranks\": [{\"count\": 2}], \"links\": {\"matrix\": {\"latency_us\": " latency \
         ", \"gigabytes_per_s\": " rate ", \"crossing_cost\": " cost "}}}"

static void a_matrix_gives_each_link(void **state)
{
    (void)state;
    place_cluster_t *cluster = parse(MATRIX("[[0, 1.5], [2, 0]]", "[[0, 10], [20, 0]]", "[[0, 3], [4, 0]]"));
    assert_true(place_cluster_link(cluster, 0, 1)->latency_us == 1.5);
    assert_true(place_cluster_link(cluster, 1, 0)->gigabytes_per_s == 20);
    assert_int_equal(place_cluster_link(cluster, 1, 0)->crossing_cost, 4);
    assert_int_equal(cluster->tiers, 3);
    place_cluster_destroy(cluster);
}

static void bad_clusters_are_refused(void **state)
{
    (void)state;
    refuses("{}", "coterie.cluster/1");
    refuses(HEAD "\"ranks\": []}", "\"ranks\" must be a list");
    refuses(HEAD "\"ranks\": [3]}", "entry 0 of \"ranks\" must be an object");
    refuses(HEAD "\"ranks\": [{\"count\": 0}]}", "\"count\" is 0");
    refuses(HEAD "\"ranks\": [{\"slots\": -1}]}", "\"slots\"");
    refuses(HEAD "\"ranks\": [{\"relative_speed\": 0}]}", "\"relative_speed\"");
    refuses(HEAD "\"ranks\": [{\"relative_speed\": -2}]}", "\"relative_speed\"");
    refuses(HEAD "\"ranks\": [{\"count\": 2}]}", "\"links\" must be an object");
    place_cluster_t *cluster = NULL;
    const char *many = HEAD "\"ranks\": [{\"count\": 1000}, {\"count\": 1000}], \"links\": {" SAME "}}";
    assert_fails(place_cluster_parse(many, strlen(many), "text", &cluster), COT_ERR_LIMIT, "more than 1024 ranks");
    assert_fails(place_cluster_load("/nonexistent", &cluster), COT_ERR_NOT_FOUND, "/nonexistent");
}

static void rates_that_are_no_numbers_are_refused(void **state)
{
    (void)state;
    refuses(HEAD TWO_NODES "\"links\": {\"same_node\": {\"gigabytes_per_s\": NaN}, " CROSS "}}", "NaN");
    refuses(HEAD TWO_NODES "\"links\": {\"same_node\": {\"gigabytes_per_s\": Infinity}, " CROSS "}}", "Infinity");
    refuses(HEAD TWO_NODES "\"links\": {\"same_node\": {\"gigabytes_per_s\": 1e999}, " CROSS "}}", "overflow");
    refuses(HEAD TWO_NODES "\"links\": {\"same_node\": {\"gigabytes_per_s\": \"NaN\"}, " CROSS "}}",
            "\"gigabytes_per_s\" must be");
    refuses(HEAD TWO_NODES "\"links\": {" CROSS ", \"same_node\": {\"latency_us\": -1, \"gigabytes_per_s\": 1}}}",
            "\"latency_us\" must be from 0");
    refuses(MATRIX("[[0, 1], [1, 0]]", "[[0, null], [1, 0]]", "[[0, 1], [1, 0]]"), "lists of 2 numbers");
    refuses(MATRIX("[[0, 1], [1, 0]]", "[[0, 1], [1, 0]]", "[[0, 1.5], [1, 0]]"), "\"crossing_cost\" must be");
    refuses(MATRIX("[[0, 1], [1, 0]]", "[[0, 1], [1, 0]]", "[[0, -1], [1, 0]]"), "\"crossing_cost\" must be");
}

static void a_rank_that_cannot_be_reached_is_refused(void **state)
{
    (void)state;
    refuses(HEAD TWO_NODES "\"links\": {" SAME "}}", "\"cross_node\" is missing");
    refuses(HEAD TWO_NODES "\"links\": {" CROSS "}}", "\"same_node\" is missing");
    refuses(HEAD TWO_NODES "\"links\": {" SAME ", \"cross_node\": {\"gigabytes_per_s\": 0}}}",
            "a rank without a link cannot take part");
    refuses(MATRIX("[[0, 1], [1, 0]]", "[[0, 5], [0, 0]]", "[[0, 1], [1, 0]]"), "the link from rank 1 to rank 0");
    refuses(MATRIX("[[0, 1], [1, 0]]", "[[0, 5]]", "[[0, 1], [1, 0]]"), "must be 2 lists of 2 numbers");
}

static void slots_come_from_what_is_known(void **state)
{
    (void)state;
    uint32_t slots[4];
    place_cluster_t *cluster = parse(HEAD "\"ranks\": [{\"slots\": 5}, {\"memory_bytes\": 1000}, {}], \"links\": {" SAME
                                          "}}");
    /* Experts of 40 bytes in 4 layers: 1000 bytes hold 6 slots a layer; what nothing is known of holds 8 / 3 rounded
     * up. */
    assert_ok(place_cluster_slots(cluster, 8, 4, 40, slots));
    assert_int_equal(slots[0], 5);
    assert_int_equal(slots[1], 6);
    assert_int_equal(slots[2], 3);
    assert_ok(place_cluster_slots(cluster, 4, 4, 40, slots)); /* never more than experts */
    assert_int_equal(slots[0], 4);
    place_cluster_destroy(cluster);
}

static void too_little_memory_is_refused(void **state)
{
    (void)state;
    uint32_t slots[4];
    place_cluster_t *cluster = parse(HEAD "\"ranks\": [{\"count\": 2, \"memory_bytes\": 1000}], \"links\": {" SAME
                                          "}}");
    assert_fails(place_cluster_slots(cluster, 8, 4, 100, slots), COT_ERR_LIMIT,
                 "8 experts do not fit: the ranks have 4 slots");
    place_cluster_destroy(cluster);
    cluster = parse(HEAD "\"ranks\": [{\"slots\": 9, \"memory_bytes\": 1000}]}");
    assert_fails(place_cluster_slots(cluster, 8, 4, 40, slots), COT_ERR_LIMIT,
                 "rank 0: 9 slots of 40 bytes in 4 layers");
    place_cluster_destroy(cluster);
    cluster = parse(HEAD "\"ranks\": [{\"slots\": 3}, {\"slots\": 3}], \"links\": {" SAME "}}");
    assert_fails(place_cluster_slots(cluster, 8, 4, 0, slots), COT_ERR_LIMIT, "the ranks have 6 slots");
    place_cluster_destroy(cluster);
}

static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    const char *text = HEAD TWO_NODES "\"links\": {" SAME ", " CROSS "}}";
    place_cluster_t *cluster = NULL;
    assert_survives_allocations(place_cluster_parse(text, strlen(text), "text", &cluster),
                                (place_cluster_destroy(cluster), cluster = NULL));
}

int main(void)
{
    cot_json_setup();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiers_join_ranks_by_node),
        cmocka_unit_test(a_matrix_gives_each_link),
        cmocka_unit_test(bad_clusters_are_refused),
        cmocka_unit_test(rates_that_are_no_numbers_are_refused),
        cmocka_unit_test(a_rank_that_cannot_be_reached_is_refused),
        cmocka_unit_test(slots_come_from_what_is_known),
        cmocka_unit_test(too_little_memory_is_refused),
        cmocka_unit_test(every_failed_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
