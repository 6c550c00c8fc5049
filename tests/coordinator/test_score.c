/* `score` over fake workers: lines in, lines out, in order; bad lines; logits; giving up. */
#include "base/json.h"
#include "base/log.h"
#include "base/safetensors.h"
#include "coordinator/score.h"
#include "coordinator/score_input.h"
#include "coordinator/score_line.h"
#include "tests/coordinator/world.h"

#include <fcntl.h>
#include <math.h>

typedef struct {
    world_t world;
    char folder[256], in[300], out[300], logits[300], report[300];
    FILE *report_stream;
    coord_score_config_t config;
} bench_t;

static void bench_start(bench_t *bench, const char *input, size_t bytes)
{
    world_init(&bench->world);
    bench->world.config.vocab = 100;
    bench->world.config.max_context = 200;
    bench->world.config.max_step_tokens = 16;
    bench->world.config.max_waiting = 3;
    bench->world.config.max_sequences = 2;
    world_start(&bench->world);
    temporary_make(bench->folder);
    snprintf(bench->in, sizeof(bench->in), "%s/in.jsonl", bench->folder);
    snprintf(bench->out, sizeof(bench->out), "%s/out.jsonl", bench->folder);
    snprintf(bench->logits, sizeof(bench->logits), "%s/logits.safetensors", bench->folder);
    snprintf(bench->report, sizeof(bench->report), "%s/report", bench->folder);
    temporary_write(bench->in, input, bytes);
    bench->report_stream = fopen(bench->report, "w+");
    bench->config = (coord_score_config_t){.engine = bench->world.engine,
                                           .vocab = 100,
                                           .in = bench->in,
                                           .out = bench->out,
                                           .report = bench->report_stream};
}

/* Nothing but the given files may be left: no temporary one. */
static void bench_finish(bench_t *bench, int files)
{
    char command[400];
    snprintf(command, sizeof(command), "test $(ls -A '%s' | wc -l) -eq %d", bench->folder, files);
    if (system(command) != 0) fail_msg("%s does not hold %d files", bench->folder, files);
    fclose(bench->report_stream);
    temporary_remove(bench->folder);
    world_finish(&bench->world);
}

/* Line `number` has tokens fake_mix(number, i) % 100. */
static void add_line(cot_buffer_t *input, uint32_t number, uint32_t tokens)
{
    for (uint32_t i = 0; i < tokens; i++)
        assert_ok(cot_buffer_printf(input, "%s%u", i > 0 ? ", " : "{\"id\": 1, \"tokens\": [",
                                    (uint32_t)(fake_mix(number, i) % 100)));
    assert_ok(cot_buffer_printf(input, "]}\n"));
}

static void check_line(const json_t *line, uint32_t number, uint32_t tokens, double *sum, uint32_t *scored)
{
    const json_t *ids = json_object_get(line, "tokens"), *logprobs = json_object_get(line, "logprobs"),
                 *top1 = json_object_get(line, "top1");
    assert_int_equal(json_object_size(line), 3);
    assert_int_equal(json_array_size(ids), tokens);
    assert_int_equal(json_array_size(logprobs), tokens);
    assert_int_equal(json_array_size(top1), tokens);
    assert_true(json_is_null(json_array_get(logprobs, 0)));
    uint64_t state = FAKE_BEGIN;
    for (uint32_t i = 0; i < tokens; i++) {
        int32_t id = (int32_t)(fake_mix(number, i) % 100);
        assert_int_equal(json_integer_value(json_array_get(ids, i)), id);
        if (i > 0) {
            assert_true(json_is_real(json_array_get(logprobs, i)));
            float logprob = (float)json_real_value(json_array_get(logprobs, i));
            assert_true(logprob == fake_logprob(state, id));
            *sum += (double)logprob;
            (*scored)++;
        }
        state = fake_next(state, id);
        assert_int_equal(json_integer_value(json_array_get(top1, i)), fake_top(state, 100, 0));
    }
}

/* The output file as an array of its lines. */
static json_t *read_output(const bench_t *bench)
{
    char *text = NULL, *rest = NULL;
    size_t bytes = 0;
    assert_ok(cot_file_read(bench->out, 1 << 24, &text, &bytes));
    json_t *lines = json_array();
    for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        json_t *root = NULL;
        assert_ok(cot_json_load_bytes(line, strlen(line), bench->out, &root));
        json_array_append_new(lines, root);
    }
    cot_free(text);
    return lines;
}

static void check_report(bench_t *bench, double sum, uint32_t scored)
{
    char line[200] = "", wanted[200];
    rewind(bench->report_stream);
    if (fgets(line, sizeof(line), bench->report_stream) == NULL) fail_msg("no report");
    snprintf(wanted, sizeof(wanted), "perplexity %.9g over %u tokens\n", exp(-sum / scored), scored);
    assert_string_equal(line, wanted);
}

static void test_lines_in_order(void **state)
{
    (void)state;
    bench_t bench;
    cot_buffer_t input = {0};
    for (uint32_t i = 0; i < 300; i++) add_line(&input, i, 1 + (uint32_t)(fake_mix(i, 5) % 200));
    input.size--; /* no newline at the end */
    bench_start(&bench, (const char *)input.data, input.size);
    assert_ok(coord_score(&bench.config));
    json_t *lines = read_output(&bench);
    assert_int_equal(json_array_size(lines), 300);
    double sum = 0;
    uint32_t scored = 0;
    for (uint32_t i = 0; i < 300; i++)
        check_line(json_array_get(lines, i), i, 1 + (uint32_t)(fake_mix(i, 5) % 200), &sum, &scored);
    json_decref(lines);
    check_report(&bench, sum, scored);
    bench_finish(&bench, 3);
    cot_buffer_free(&input);
}

static const char *const bad_lines[][2] = {
    {"{\"tokens\":[1,2,100]}", "\"tokens\"[2] is 100: ids go from 0 to 99"},
    {"{\"tokens\":[-1]}", "\"tokens\"[0] is -1"},
    {"{\"tokens\":[1.5]}", "\"tokens\"[0] is no integer"},
    {"{\"tokens\":[true]}", "no integer"},
    {"{\"tokens\":[99999999999]}", "99999999999"},
    {"{\"tokens\":[]}", "empty"},
    {"{\"tokens\":7}", "no array"},
    {"{\"text\":\"a\"}", "no tokenizer.json"},
    {"{\"text\":[1]}", "no string"},
    {"{\"text\":\"a\",\"tokens\":[1]}", "not both"},
    {"{\"prompt\":\"a\"}", "either"},
    {"{}", "either"},
    {"[1,2]", "no JSON object"},
    {"{\"tokens\":[1,2", "the line"},
    {"{\"tokens\":[1],\"tokens\":[2]}", "duplicate"},
    {"\xff\xfe", "the line"},
    {"", "the line"},
};

static void test_bad_lines(void **state)
{
    (void)state;
    bench_t bench;
    enum { BAD = sizeof(bad_lines) / sizeof(*bad_lines) };
    static char text[65536];
    size_t size = 0;
    cot_buffer_t line = {0};
    for (uint32_t i = 0; i < BAD; i++) {
        cot_buffer_clear(&line);
        add_line(&line, i, 10);
        size += (size_t)snprintf(text + size, sizeof(text) - size, "%.*s%s\n", (int)line.size, (const char *)line.data,
                                 bad_lines[i][0]);
    }
    cot_buffer_clear(&line);
    add_line(&line, BAD, 201); /* over the context */
    size += (size_t)snprintf(text + size, sizeof(text) - size, "%.*s", (int)line.size, (const char *)line.data);
    cot_buffer_free(&line);
    bench_start(&bench, text, size);
    assert_fails(coord_score(&bench.config), COT_ERR_PARTIAL, "18 of 35 lines");
    json_t *lines = read_output(&bench);
    assert_int_equal(json_array_size(lines), BAD * 2 + 1);
    double sum = 0;
    uint32_t scored = 0;
    for (uint32_t i = 0; i < BAD; i++) {
        check_line(json_array_get(lines, i * 2), i, 10, &sum, &scored);
        const char *error = json_string_value(json_object_get(json_array_get(lines, i * 2 + 1), "error"));
        if (error == NULL || strstr(error, bad_lines[i][1]) == NULL)
            fail_msg("line %s: %s", bad_lines[i][0], error != NULL ? error : "no error");
    }
    const char *error = json_string_value(json_object_get(json_array_get(lines, BAD * 2), "error"));
    assert_non_null(strstr(error, "201 tokens"));
    json_decref(lines);
    check_report(&bench, sum, scored);
    bench_finish(&bench, 3);
}

static void test_nothing_to_score(void **state)
{
    (void)state;
    bench_t bench;
    bench_start(&bench, "", 0);
    assert_ok(coord_score(&bench.config));
    char line[100] = "";
    rewind(bench.report_stream);
    assert_non_null(fgets(line, sizeof(line), bench.report_stream));
    assert_string_equal(line, "perplexity nan over 0 tokens\n");
    bench_finish(&bench, 3);
}

static void test_logits(void **state)
{
    (void)state;
    bench_t bench;
    static char text[20000];
    size_t size = 0;
    cot_buffer_t line = {0};
    for (uint32_t i = 0; i < 12; i++) {
        cot_buffer_clear(&line);
        add_line(&line, i, 1 + i * 9);
        size += (size_t)snprintf(text + size, sizeof(text) - size, "%.*s%s", (int)line.size, (const char *)line.data,
                                 i == 4 ? "{}\n" : "");
    }
    cot_buffer_free(&line);
    bench_start(&bench, text, size);
    bench.config.logits = bench.logits;
    assert_fails(coord_score(&bench.config), COT_ERR_PARTIAL, "1 of 13");
    cot_safetensors_t *file = NULL;
    assert_ok(cot_safetensors_open(bench.logits, &file));
    assert_int_equal(cot_safetensors_count(file), 12);
    assert_null(cot_safetensors_find(file, "5")); /* the bad line */
    for (uint32_t i = 0; i < 12; i++) {
        char name[8];
        snprintf(name, sizeof(name), "%u", i > 4 ? i + 1 : i);
        const cot_tensor_t *tensor = cot_safetensors_find(file, name);
        assert_non_null(tensor);
        assert_int_equal(tensor->dtype, COT_DTYPE_F32);
        assert_int_equal(tensor->dims, 2);
        assert_int_equal(tensor->shape[0], 1 + i * 9);
        assert_int_equal(tensor->shape[1], 100);
        uint64_t at = FAKE_BEGIN;
        for (uint32_t row = 0; row < 1 + i * 9; row++) {
            at = fake_next(at, (int32_t)(fake_mix(i, row) % 100));
            for (int32_t v = 0; v < 100; v++) {
                float logit;
                memcpy(&logit, (const float *)tensor->data + row * 100 + (uint32_t)v, sizeof(logit));
                assert_true(logit == fake_logit(at, v));
            }
        }
    }
    cot_safetensors_close(file);
    bench_finish(&bench, 4);
}

static void test_files_that_are_not_there(void **state)
{
    (void)state;
    bench_t bench;
    bench_start(&bench, "{}\n", 3);
    coord_score_config_t config = bench.config;
    config.in = "/nowhere/in.jsonl";
    assert_fails(coord_score(&config), COT_ERR_NOT_FOUND, "/nowhere/in.jsonl");
    config = bench.config;
    config.in = "";
    assert_fails(coord_score(&config), COT_ERR_INVALID, "--in");
    config = bench.config;
    config.out = NULL;
    assert_fails(coord_score(&config), COT_ERR_INVALID, "--out");
    config = bench.config;
    config.out = "/nowhere/out.jsonl";
    assert_int_not_equal(coord_score(&config), COT_OK);
    config = bench.config;
    config.logits = "/nowhere/logits";
    assert_int_not_equal(coord_score(&config), COT_OK);
    bench_finish(&bench, 2);
}

static void test_stopped(void **state)
{
    (void)state;
    bench_t bench;
    static char text[40000];
    size_t size = 0;
    for (uint32_t i = 0; i < 1000; i++)
        size += (size_t)snprintf(text + size, sizeof(text) - size, "{\"tokens\":[1,2,3]}\n");
    bench_start(&bench, text, size);
    bench.config.logits = bench.logits;
    atomic_bool stop;
    atomic_init(&stop, true);
    bench.config.stop = &stop;
    assert_fails(coord_score(&bench.config), COT_ERR_CANCELLED, "interrupted");
    bench_finish(&bench, 2); /* in and report: no output, nothing half-written */
}

static void test_dead_worker(void **state)
{
    (void)state;
    bench_t bench;
    bench_start(&bench, "{\"tokens\":[1,2,3]}\n", 19);
    fake_fleet_allow(bench.world.fleet, 0);
    coord_engine_config_t config = bench.world.config;
    config.step_timeout_ms = 100;
    coord_engine_destroy(bench.world.engine);
    assert_ok(coord_engine_create(&config, &bench.world.engine));
    bench.config.engine = bench.world.engine;
    assert_fails(coord_score(&bench.config), COT_ERR_TIMEOUT, "rank 1");
    bench_finish(&bench, 2);
}

/* ---- reading ---- */

static void test_input(void **state)
{
    (void)state;
    int ends[2];
    const char *line = NULL;
    size_t bytes = 0;
    coord_input_found_t found;
    assert_int_equal(pipe(ends), 0);
    coord_input_t input = {.path = "pipe", .fd = ends[0], .line_bytes = 10};

    assert_ok(coord_input_next(&input, &found, &line, &bytes));
    assert_int_equal(found, COORD_INPUT_LATER);
    assert_int_equal(write(ends[1], "ab\n\nlonger", 10), 10);
    assert_ok(coord_input_next(&input, &found, &line, &bytes));
    assert_int_equal(found, COORD_INPUT_LINE);
    assert_memory_equal(line, "ab", bytes = 2);
    assert_ok(coord_input_next(&input, &found, &line, &bytes));
    assert_int_equal(found, COORD_INPUT_LINE);
    assert_int_equal(bytes, 0);
    assert_ok(coord_input_next(&input, &found, &line, &bytes));
    assert_int_equal(found, COORD_INPUT_LATER);
    assert_int_equal(write(ends[1], " than ten", 9), 9);
    assert_ok(coord_input_next(&input, &found, &line, &bytes));
    assert_int_equal(found, COORD_INPUT_LATER);
    assert_int_equal(write(ends[1], " bytes\n0123456789\n01234567890\nend", 33), 33);
    assert_ok(coord_input_next(&input, &found, &line, &bytes));
    assert_int_equal(found, COORD_INPUT_TOO_LONG);
    assert_ok(coord_input_next(&input, &found, &line, &bytes));
    assert_int_equal(found, COORD_INPUT_LINE);
    assert_int_equal(bytes, 10);
    assert_ok(coord_input_next(&input, &found, &line, &bytes));
    assert_int_equal(found, COORD_INPUT_TOO_LONG);
    assert_ok(coord_input_next(&input, &found, &line, &bytes));
    assert_int_equal(found, COORD_INPUT_LATER);
    close(ends[1]);
    assert_ok(coord_input_next(&input, &found, &line, &bytes));
    assert_int_equal(found, COORD_INPUT_LINE);
    assert_int_equal(bytes, 3);
    assert_memory_equal(line, "end", 3);
    for (int i = 0; i < 2; i++) {
        assert_ok(coord_input_next(&input, &found, &line, &bytes));
        assert_int_equal(found, COORD_INPUT_END);
    }
    coord_input_close(&input);
}

/* Text becomes the tokens that the tokenizer gives with its special tokens; an id past the model's is refused. */
static void test_text(void **state)
{
    (void)state;
    model_tokenizer_t *tokenizer = NULL;
    cot_buffer_t tokens = {0}, wanted = {0}, plain = {0};
    assert_ok(model_tokenizer_load(COTERIE_SOURCE_DIR "/tests/fixtures/tokenizer/llama2", &tokenizer));
    uint32_t vocab = model_tokenizer_size(tokenizer);
    const char *line = "{\"text\": \"one \\u0000 two\"}";
    assert_ok(model_tokenizer_encode(tokenizer, "one \0 two", 9, true, &wanted));
    assert_ok(model_tokenizer_encode(tokenizer, "one \0 two", 9, false, &plain));
    assert_true(wanted.size > plain.size);
    assert_ok(coord_input_parse(line, strlen(line), tokenizer, vocab, &tokens));
    assert_int_equal(tokens.size, wanted.size);
    assert_memory_equal(tokens.data, wanted.data, wanted.size);
    assert_fails(coord_input_parse(line, strlen(line), tokenizer, 3, &tokens), COT_ERR_MISMATCH,
                 "the tokenizer gives id");
    cot_buffer_free(&tokens);
    cot_buffer_free(&wanted);
    cot_buffer_free(&plain);
    model_tokenizer_destroy(tokenizer);
}

/* The file ends within a line that is too long. */
static void test_input_ends_too_long(void **state)
{
    (void)state;
    int ends[2];
    const char *line = NULL;
    size_t bytes = 0;
    coord_input_found_t found;
    assert_int_equal(pipe(ends), 0);
    coord_input_t input = {.path = "pipe", .fd = ends[0], .line_bytes = 10};
    assert_int_equal(write(ends[1], "longer than ten bytes", 21), 21);
    assert_ok(coord_input_next(&input, &found, &line, &bytes));
    assert_int_equal(found, COORD_INPUT_LATER);
    close(ends[1]);
    assert_ok(coord_input_next(&input, &found, &line, &bytes));
    assert_int_equal(found, COORD_INPUT_TOO_LONG);
    assert_ok(coord_input_next(&input, &found, &line, &bytes));
    assert_int_equal(found, COORD_INPUT_END);
    coord_input_close(&input);
}

static cot_status_t score_standard_input(bench_t *bench)
{
    int before = dup(STDIN_FILENO), file = open(bench->in, O_RDONLY);
    dup2(file, STDIN_FILENO);
    close(file);
    bench->config.in = "-";
    cot_status_t status = coord_score(&bench->config);
    dup2(before, STDIN_FILENO);
    close(before);
    return status;
}

static void test_standard_input(void **state)
{
    (void)state;
    bench_t bench;
    bench_start(&bench, "{\"tokens\":[1]}\n", 15);
    assert_ok(score_standard_input(&bench));
    bench_finish(&bench, 3);
}

static void *stop_later(void *stop)
{
    usleep(1000000); /* as mpirun does */
    atomic_store((atomic_bool *)stop, true);
    return NULL;
}

/* Standard input ended because the job is being ended: what came until then must not pass for the whole. */
static void test_standard_input_is_cut(void **state)
{
    (void)state;
    bench_t bench;
    pthread_t thread;
    atomic_bool stop;
    bench_start(&bench, "{\"tokens\":[1]}\n", 15);
    atomic_init(&stop, false);
    bench.config.stop = &stop;
    assert_int_equal(pthread_create(&thread, NULL, stop_later, &stop), 0);
    assert_fails(score_standard_input(&bench), COT_ERR_CANCELLED, "interrupted");
    pthread_join(thread, NULL);
    bench_finish(&bench, 2);
}

/* ---- writing ---- */

static void test_floats_read_back(void **state)
{
    (void)state;
    const float odd[] = {0.0f,          -0.0f, -1.0f, 16777216.0f, -3.4028235e38f, 1e-45f, 1.17549435e-38f,
                         -0.100000001f, NAN,   1e10f, INFINITY};
    enum { ODD = sizeof(odd) / sizeof(*odd), COUNT = 2000 };
    static float logprob[COUNT];
    static int32_t ids[COUNT];
    for (uint32_t i = 1; i < COUNT; i++) {
        uint32_t bits = (uint32_t)fake_mix(i, 3);
        memcpy(&logprob[i], &bits, sizeof(bits));
        if (i <= ODD) logprob[i] = odd[i - 1];
    }
    const coord_line_t line = {.count = COUNT, .token = ids, .top1 = ids, .logprob = logprob};
    cot_buffer_t text = {0};
    json_t *root = NULL;
    assert_ok(coord_line_print(&line, &text));
    assert_ok(cot_json_load_bytes((const char *)text.data, text.size, "the line", &root));
    for (uint32_t i = 1; i < COUNT; i++) {
        const json_t *value = json_array_get(json_object_get(root, "logprobs"), i);
        if (!isfinite(logprob[i])) {
            assert_true(json_is_null(value));
            continue;
        }
        assert_true(json_is_real(value));
        float back = (float)json_real_value(value);
        assert_memory_equal(&back, &logprob[i], sizeof(back));
    }
    json_decref(root);
    cot_buffer_free(&text);
}

/* Every allocation until the first step is on its way fails once: no output, no leak. The workers hold their answers
 * back, so that no allocation of theirs is the one that fails; without a failure that ends in a timeout. */
static void test_out_of_memory(void **state)
{
    (void)state;
    cot_status_t status = COT_ERR_NO_MEMORY;
    for (int64_t allowed = 0; status == COT_ERR_NO_MEMORY; allowed++) {
        bench_t bench;
        bench_start(&bench, "{\"tokens\":[1,2,3]}\n{\"tokens\":[1,2,3,4]}\n", 40);
        fake_fleet_allow(bench.world.fleet, 0);
        coord_engine_destroy(bench.world.engine);
        bench.world.config.step_timeout_ms = 50;
        assert_ok(coord_engine_create(&bench.world.config, &bench.world.engine));
        bench.config.engine = bench.world.engine;
        bench.config.logits = bench.logits;
        cot_memory_fail_after(allowed);
        status = coord_score(&bench.config);
        cot_memory_fail_after(-1);
        bench_finish(&bench, 2);
        if (status != COT_ERR_NO_MEMORY) assert_true(allowed > 20);
    }
    assert_int_equal(status, COT_ERR_TIMEOUT);
}

int main(void)
{
    cot_json_setup();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_in_order),
        cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_nothing_to_score),
        cmocka_unit_test(test_logits),
        cmocka_unit_test(test_files_that_are_not_there),
        cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_dead_worker),
        cmocka_unit_test(test_input),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_input_ends_too_long),
        cmocka_unit_test(test_standard_input),
        cmocka_unit_test(test_standard_input_is_cut),
        cmocka_unit_test(test_floats_read_back),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
