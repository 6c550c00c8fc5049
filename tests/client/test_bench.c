/* The figures of `coterie bench`: known answers, and nothing invented where nothing was measured. */
#include "base/json.h"
#include "client/bench_prompts.h"
#include "client/bench_stats.h"
#include "tests/temporary.h"

#include <math.h>

/* The samples are small integers and halves: all sums are exact, the interpolations are within a rounding. */
static void assert_near(double value, double wanted)
{
    if (!(fabs(value - wanted) <= 1e-12 * fabs(wanted))) fail_msg("%.17g, wanted %.17g", value, wanted);
}

static void summaries_are_numpys(void **state)
{
    (void)state;
    double sample[] = {4, 1, 3, 2};
    client_summary_t summary = client_summarise(sample, 4);
    assert_near(summary.mean, 2.5);
    assert_near(summary.median, 2.5);
    assert_near(summary.std, sqrt(1.25));
    assert_near(summary.p90, 3.7);
    assert_near(summary.p95, 3.85);
    assert_near(summary.p99, 3.97);
    double alone[] = {7};
    summary = client_summarise(alone, 1);
    assert_near(summary.median, 7);
    assert_near(summary.p99, 7);
    assert_true(isnan(summary.std)); /* one sample has no spread */
    summary = client_summarise(NULL, 0);
    assert_true(isnan(summary.mean) && isnan(summary.p90));
}

static json_t *print(client_samples_t *samples)
{
    cot_buffer_t text = {0};
    json_t *root = NULL;
    assert_ok(client_samples_print(samples, true, &text));
    assert_ok(cot_json_load_bytes((const char *)text.data, text.size, "figures", &root));
    cot_buffer_free(&text);
    return root;
}

static void what_was_not_measured_is_null(void **state)
{
    (void)state;
    client_samples_t none = {.failed = 3, .seconds = 2};
    json_t *root = print(&none);
    static const char *const NAMES[] = {"request_throughput", "output_throughput", "mean_ttft_ms", "p99_itl_ms",
                                        "median_tpot_ms",     "std_e2el_ms",       "p90_e2el_ms",  "p95_ttft_ms"};
    for (size_t i = 0; i < sizeof(NAMES) / sizeof(*NAMES); i++)
        assert_true(json_is_null(json_object_get(root, NAMES[i])));
    assert_int_equal(json_integer_value(json_object_get(root, "failed")), 3);
    json_decref(root);
    cot_buffer_t text = {0};
    assert_ok(client_samples_print(&none, false, &text));
    assert_ok(cot_buffer_append(&text, "", 1));
    assert_non_null(strstr((const char *)text.data, " -\n"));
    assert_null(strstr((const char *)text.data, " 0.0"));
    assert_null(strstr((const char *)text.data, "nan"));
    cot_buffer_free(&text);
}

static void throughput_is_over_the_whole_run(void **state)
{
    (void)state;
    client_samples_t samples = {0}, part = {.completed = 4, .input_tokens = 40, .output_tokens = 24};
    for (int i = 0; i < 4; i++) {
        assert_ok(client_samples_add(&part.ttft, 10));
        assert_ok(client_samples_add(&part.e2el, 50 + i));
    }
    assert_ok(client_samples_join(&samples, &part));
    samples.seconds = 2;
    json_t *root = print(&samples);
    assert_near(json_number_value(json_object_get(root, "request_throughput")), 2);
    assert_near(json_number_value(json_object_get(root, "output_throughput")), 12);
    assert_near(json_number_value(json_object_get(root, "total_token_throughput")), 32);
    assert_near(json_number_value(json_object_get(root, "mean_ttft_ms")), 10);
    assert_near(json_number_value(json_object_get(root, "median_e2el_ms")), 51.5);
    assert_near(json_number_value(json_object_get(root, "std_ttft_ms")), 0); /* measured, and none */
    json_decref(root);
    client_samples_free(&samples);
    client_samples_free(&part);
}

static void prompts_of_a_file(void **state)
{
    (void)state;
    static const char LINES[] = "{\"text\": \"one\"}\n\n{\"tokens\": [1, 2, 3]}\n{\"text\": \"\\u0000x\"}";
    static const struct {
        const char *line, *words;
        cot_status_t status;
    } WRONG[] = {{"{\"text\": \"\"}", "line 1", COT_ERR_FORMAT},
                 {"{\"text\": \"a\"}\n{\"tokens\": [\"a\"]}", "line 2", COT_ERR_FORMAT},
                 {"{\"tokens\": [-1]}", "token ids", COT_ERR_FORMAT},
                 {"not JSON", "line 1", COT_ERR_FORMAT},
                 {"\n \n", "no prompt", COT_ERR_FORMAT}};
    char folder[256], path[300];
    temporary_make(folder);
    snprintf(path, sizeof(path), "%s/prompts.jsonl", folder);
    temporary_write(path, LINES, sizeof(LINES) - 1);
    client_prompts_t prompts = {0};
    assert_ok(client_prompts_read(&prompts, path));
    assert_int_equal(prompts.count, 3);
    assert_true(client_prompts_get(&prompts, 0)->is_text);
    assert_int_equal(client_prompts_get(&prompts, 1)->count, 3);
    assert_int_equal(client_prompts_get(&prompts, 2)->begin, 3);
    assert_int_equal(client_prompts_get(&prompts, 2)->count, 2);
    assert_memory_equal(prompts.text.data, "one\0x", 5);
    client_prompts_free(&prompts);
    for (size_t i = 0; i < sizeof(WRONG) / sizeof(*WRONG); i++) {
        prompts = (client_prompts_t){0};
        temporary_write(path, WRONG[i].line, strlen(WRONG[i].line));
        assert_fails(client_prompts_read(&prompts, path), WRONG[i].status, WRONG[i].words);
        client_prompts_free(&prompts);
    }
    prompts = (client_prompts_t){0};
    assert_fails(client_prompts_read(&prompts, "/nonexistent"), COT_ERR_NOT_FOUND, "/nonexistent");
    temporary_remove(folder);
}

static void made_up_prompts_repeat(void **state)
{
    (void)state;
    client_prompts_t one = {0}, two = {0}, other = {0};
    assert_ok(client_prompts_make(&one, 3, 50, 100, 7));
    assert_ok(client_prompts_make(&two, 3, 50, 100, 7));
    assert_ok(client_prompts_make(&other, 3, 50, 100, 8));
    assert_int_equal(one.ids.size, 150 * sizeof(int32_t));
    assert_memory_equal(one.ids.data, two.ids.data, one.ids.size);
    assert_memory_not_equal(one.ids.data, other.ids.data, one.ids.size);
    assert_memory_not_equal(one.ids.data, one.ids.data + 200, 200);
    for (uint32_t i = 0; i < 150; i++) {
        int32_t id = ((const int32_t *)(const void *)one.ids.data)[i];
        assert_true(id >= 0 && id < 100);
    }
    client_prompts_free(&one);
    client_prompts_free(&two);
    client_prompts_free(&other);
}

int main(void)
{
    cot_json_setup();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(summaries_are_numpys),
        cmocka_unit_test(what_was_not_measured_is_null),
        cmocka_unit_test(throughput_is_over_the_whole_run),
        cmocka_unit_test(prompts_of_a_file),
        cmocka_unit_test(made_up_prompts_repeat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
