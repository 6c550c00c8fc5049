/* `score` against Hugging Face transformers in float32: every log-probability of every row, for every fixture.
 * Bars: float32 1e-4; bfloat16 2e-2, and the same likeliest token wherever the reference's margin exceeds that. */
#include "tests/cli/job.h"

#include "base/buffer.h"
#include "base/json.h"
#include "base/safetensors.h"

#include <math.h>

static const uint32_t LENGTHS[] = {1, 2, 31, 97};
enum { LENGTH_COUNT = 4, MODELS_MAX = 64 };

static void write_input(const cot_safetensors_t *expected)
{
    cot_buffer_t text = {0};
    for (int n = 0; n < LENGTH_COUNT; n++) {
        char name[32];
        snprintf(name, sizeof(name), "tokens_%u", LENGTHS[n]);
        const cot_tensor_t *tokens = cot_safetensors_find(expected, name);
        assert_non_null(tokens);
        assert_ok(cot_buffer_printf(&text, "{\"tokens\": ["));
        for (uint32_t i = 0; i < LENGTHS[n]; i++) {
            int32_t id;
            memcpy(&id, (const char *)tokens->data + i * sizeof(id), sizeof(id));
            assert_ok(cot_buffer_printf(&text, i > 0 ? ", %d" : "%d", id));
        }
        assert_ok(cot_buffer_printf(&text, "]}\n"));
    }
    temporary_write(job_path("in.jsonl"), text.data, text.size);
    cot_buffer_free(&text);
}

static float at(const cot_tensor_t *tensor, uint64_t index)
{
    float value;
    memcpy(&value, (const char *)tensor->data + index * sizeof(value), sizeof(value));
    return value;
}

static double log_sum(const cot_tensor_t *tensor, uint64_t row, uint64_t vocab)
{
    double largest = -INFINITY, sum = 0;
    for (uint64_t v = 0; v < vocab; v++) largest = fmax(largest, at(tensor, row * vocab + v));
    for (uint64_t v = 0; v < vocab; v++) sum += exp(at(tensor, row * vocab + v) - largest);
    return largest + log(sum);
}

/* Largest difference of a row's log-probabilities; *flipped_out: our likeliest token is another although the margin is
 * larger than `bar`. */
static double compare_row(const cot_tensor_t *want, const cot_tensor_t *got, uint64_t row, double bar,
                          bool *flipped_out)
{
    uint64_t vocab = want->shape[1], best = 0, ours = 0;
    double want_sum = log_sum(want, row, vocab), got_sum = log_sum(got, row, vocab), worst = 0, second = -INFINITY;
    for (uint64_t v = 0; v < vocab; v++) {
        double difference = fabs((at(want, row * vocab + v) - want_sum) - (at(got, row * vocab + v) - got_sum));
        if (!(difference <= worst)) worst = difference; /* a NaN is the worst */
        if (at(want, row * vocab + v) > at(want, row * vocab + best)) best = v;
        if (at(got, row * vocab + v) > at(got, row * vocab + ours)) ours = v;
    }
    for (uint64_t v = 0; v < vocab; v++)
        if (v != best) second = fmax(second, at(want, row * vocab + v));
    *flipped_out = ours != best && at(want, row * vocab + best) - second > bar;
    return worst;
}

static double compare_all(const cot_safetensors_t *expected, double bar, const char *what)
{
    cot_safetensors_t *logits = NULL;
    assert_ok(cot_safetensors_open(job_path("logits.safetensors"), &logits));
    double worst = 0;
    for (int n = 0; n < LENGTH_COUNT; n++) {
        char name[32], number[8];
        snprintf(name, sizeof(name), "logits_%u", LENGTHS[n]);
        snprintf(number, sizeof(number), "%d", n);
        const cot_tensor_t *want = cot_safetensors_find(expected, name), *got = cot_safetensors_find(logits, number);
        assert_non_null(want);
        assert_non_null(got);
        assert_int_equal(got->dtype, COT_DTYPE_F32);
        assert_int_equal(got->shape[0], LENGTHS[n]);
        assert_int_equal(got->shape[1], want->shape[1]);
        for (uint64_t row = 0; row < LENGTHS[n]; row++) {
            bool flipped = false;
            double difference = compare_row(want, got, row, bar, &flipped);
            if (!(difference <= worst)) worst = difference;
            if (!flipped) continue;
            print_message("%s: prompt %u row %u: another likeliest token\n", what, LENGTHS[n], (unsigned)row);
            worst = INFINITY;
        }
    }
    cot_safetensors_close(logits);
    print_message("%-24s largest difference %.2g of %.2g\n", what, worst, bar);
    return worst;
}

static bool compare_model(const char *model, const char *dtype, double bar)
{
    char path[400], what[96];
    snprintf(path, sizeof(path), COTERIE_SOURCE_DIR "/tests/fixtures/models/%s/expected.safetensors", model);
    snprintf(what, sizeof(what), "%s %s", model, dtype);
    cot_safetensors_t *expected = NULL;
    assert_ok(cot_safetensors_open(path, &expected));
    write_input(expected);
    int code = job_run(
        "$RUN -n 3 score $SOURCE/tests/fixtures/models/%s --dtype %s --in $DIR/in.jsonl --out $DIR/out.jsonl "
        "--logits $DIR/logits.safetensors --max-step-tokens 40 --max-context 128 --kv-memory 4M > /dev/null",
        model, dtype);
    if (code != 0) job_stderr_has("\001");
    assert_int_equal(code, 0);
    bool under = compare_all(expected, bar, what) <= bar;
    cot_safetensors_close(expected);
    return under;
}

static void every_model(const char *dtype, double bar)
{
    char names[MODELS_MAX][64];
    uint32_t models = job_models(names, MODELS_MAX);
    assert_true(models > 0);
    uint32_t over = 0;
    for (uint32_t m = 0; m < models; m++) over += !compare_model(names[m], dtype, bar);
    assert_int_equal(over, 0);
}

static void float32_matches(void **state)
{
    (void)state;
    every_model("float32", 1e-4);
}

static void bfloat16_matches(void **state)
{
    (void)state;
    every_model("bfloat16", 2e-2);
}

/* The next line of a file of JSON lines; NULL at its end. */
static json_t *next_line(char **rest)
{
    char *line = *rest, *end = strchr(line, '\n');
    if (end == NULL) return NULL;
    *rest = end + 1;
    json_t *root = NULL;
    assert_ok(cot_json_load_bytes(line, (size_t)(end - line), "a line", &root));
    return root;
}

static double compare_line(const json_t *want, const json_t *got)
{
    const json_t *ours = json_object_get(got, "logprobs"), *theirs = json_object_get(want, "logprobs");
    assert_int_equal(json_array_size(ours), json_array_size(theirs));
    assert_true(json_equal(json_object_get(got, "top1"), json_object_get(want, "top1")));
    double worst = 0;
    for (size_t i = 1; i < json_array_size(ours); i++)
        worst = fmax(worst,
                     fabs(json_number_value(json_array_get(ours, i)) - json_number_value(json_array_get(theirs, i))));
    return worst;
}

/* The model that ships, on held-out text: every log-probability, and the likeliest token everywhere. */
static void the_demo_model_matches(void **state)
{
    (void)state;
    assert_int_equal(
        job_run("$RUN -n 3 score $SOURCE/demo/model --dtype float32 --in $SOURCE/demo/reference/prompts.jsonl "
                "--out $DIR/out.jsonl > /dev/null && cp $SOURCE/demo/reference/score.jsonl $DIR/want.jsonl"),
        0);
    char *got = job_read("out.jsonl", NULL), *want = job_read("want.jsonl", NULL), *got_rest = got, *want_rest = want;
    double worst = 0;
    for (json_t *line; (line = next_line(&want_rest)) != NULL;) {
        json_t *ours = next_line(&got_rest);
        assert_non_null(ours);
        worst = fmax(worst, compare_line(line, ours));
        json_decref(line);
        json_decref(ours);
    }
    print_message("demo float32: largest difference %.2g of 1e-4\n", worst);
    assert_true(worst > 0 && worst <= 1e-4);
    cot_free(got);
    cot_free(want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(float32_matches), cmocka_unit_test(bfloat16_matches),
                                       cmocka_unit_test(the_demo_model_matches)};
    return cmocka_run_group_tests(tests, job_setup, job_teardown);
}
