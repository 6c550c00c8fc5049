/* DESIGN.md promises 1 and 2 through the whole program: scores and traces are the same bytes under every placement,
 * worker count, step size, thread count and amount of KV memory. */
#include "tests/cli/job.h"

#include "base/buffer.h"
#include "model/config.h"
#include "placement/plan.h"

enum { LINES = 6 };

static model_config_t config;
static uint32_t moe_layer[MODEL_MAX_LAYERS], moe_layers;
static char model[400];

static void choose_model(const char *name)
{
    snprintf(model, sizeof(model), COTERIE_SOURCE_DIR "/tests/fixtures/models/%s", name);
    assert_ok(model_config_load(model, &config));
    moe_layers = 0;
    for (uint32_t l = 0; l < config.layers; l++)
        if (config.layer[l].moe) moe_layer[moe_layers++] = l;
}

/* A small generator of our own: the tests' plans and prompts are the same everywhere. */
static uint32_t draw(uint32_t *state)
{
    *state = *state * 1664525U + 1013904223U;
    return *state >> 8;
}

static void write_prompts(void)
{
    static const uint32_t lengths[LINES] = {1, 2, 17, 33, 64, 90};
    cot_buffer_t text = {0};
    uint32_t state = 7;
    for (int line = 0; line < LINES; line++) {
        assert_ok(cot_buffer_printf(&text, "{\"tokens\": ["));
        for (uint32_t i = 0; i < lengths[line]; i++)
            assert_ok(cot_buffer_printf(&text, i > 0 ? ", %u" : "%u", draw(&state) % config.vocab));
        assert_ok(cot_buffer_printf(&text, "]}\n"));
    }
    temporary_write(job_path("in.jsonl"), text.data, text.size);
    cot_buffer_free(&text);
}

typedef enum { REVERSED, SHUFFLED, REPLICATED, ALL_ON_LAST } shape_t;

/* Whether `rank` holds `expert` under a plan of this shape. */
static bool holds(shape_t shape, uint32_t layer, uint32_t expert, uint32_t rank, uint32_t ranks)
{
    uint32_t state = 31 * layer + expert;
    switch (shape) {
    case REVERSED: return rank == ranks - 1 - expert * ranks / config.experts;
    case SHUFFLED: return rank == draw(&state) % ranks;
    case REPLICATED: return rank == expert % ranks || (rank + expert) % 2 == 0;
    default: return rank == ranks - 1;
    }
}

static void write_plan(shape_t shape, uint32_t ranks)
{
    cot_buffer_t text = {0};
    assert_ok(cot_buffer_printf(&text, "{\"format\": \"coterie.plan/1\", \"ranks\": %u, \"layers\": [", ranks));
    for (uint32_t l = 0; l < moe_layers; l++) {
        assert_ok(cot_buffer_printf(&text, "%s{\"layer\": %u, \"ranks\": [", l > 0 ? ", " : "", moe_layer[l]));
        for (uint32_t rank = 0; rank < ranks; rank++) {
            const char *comma = "";
            assert_ok(cot_buffer_printf(&text, rank > 0 ? ", [" : "["));
            for (uint32_t expert = 0; expert < config.experts; expert++) {
                if (!holds(shape, l, expert, rank, ranks)) continue;
                assert_ok(cot_buffer_printf(&text, "%s%u", comma, expert));
                comma = ", ";
            }
            assert_ok(cot_buffer_printf(&text, "]"));
        }
        assert_ok(cot_buffer_printf(&text, "]}"));
    }
    assert_ok(cot_buffer_printf(&text, "]}\n"));
    temporary_write(job_path("p.plan.json"), text.data, text.size);
    cot_buffer_free(&text);
}

static void score(const char *stem, uint32_t workers, const char *flags)
{
    int code = job_run("$RUN -n %u score %s --in $DIR/in.jsonl --out $DIR/%s.jsonl --record $DIR/%s.trace.safetensors "
                       "--max-context 128 --kv-memory 4M %s > $DIR/%s.stdout",
                       workers + 1, model, stem, stem, flags, stem);
    if (code != 0) job_stderr_has("\001");
    assert_int_equal(code, 0);
}

static void score_same(uint32_t workers, const char *flags)
{
    print_message("%u workers %s\n", workers, flags);
    score("other", workers, flags);
    job_assert_same("first.jsonl", "other.jsonl");
    job_assert_same("first.trace.safetensors", "other.trace.safetensors");
    job_assert_same("first.stdout", "other.stdout");
}

static void check_model(const char *name)
{
    choose_model(name);
    write_prompts();
    score("first", 1, "");
    for (uint32_t workers = 2; workers <= 4; workers++) score_same(workers, "");
    for (shape_t shape = REVERSED; shape <= ALL_ON_LAST; shape++)
        for (uint32_t workers = 1; workers <= 4; workers += shape == SHUFFLED ? 1 : 2) {
            write_plan(shape, workers);
            score_same(workers, "--plan $DIR/p.plan.json");
        }
    score_same(2, "--max-step-tokens 1");
    score_same(2, "--max-step-tokens 7 --threads 3");
    score_same(1, "--max-sequences 1");
}

static void an_ordinary_model(void **state)
{
    (void)state;
    char names[64][64];
    uint32_t models = job_models(names, 64);
    for (uint32_t m = 0; m < models; m++)
        if (strstr(names[m], "qwen3") != NULL) {
            check_model(names[m]);
            return;
        }
    fail_msg("no qwen3 fixture");
}

/* Families differ in attention and routing; two workers and a shuffled plan against one worker. */
static void every_family(void **state)
{
    (void)state;
    char names[64][64];
    uint32_t models = job_models(names, 64);
    for (uint32_t m = 0; m < models; m++) {
        print_message("%s: ", names[m]);
        choose_model(names[m]);
        write_prompts();
        score("first", 1, "");
        write_plan(SHUFFLED, 3);
        score_same(3, "--plan $DIR/p.plan.json --max-step-tokens 11");
    }
}

/* Made-up weights are the same on any worker count, and others with another seed. */
static void dummy_weights(void **state)
{
    (void)state;
    choose_model("mixtral");
    write_prompts();
    score("first", 1, "--load-format dummy --seed 5 --dtype bfloat16");
    score_same(3, "--load-format dummy --seed 5 --dtype bfloat16");
    score("other", 3, "--load-format dummy --seed 6 --dtype bfloat16");
    assert_int_not_equal(job_run("cmp -s $DIR/first.jsonl $DIR/other.jsonl"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(an_ordinary_model), cmocka_unit_test(every_family),
                                       cmocka_unit_test(dummy_weights)};
    return cmocka_run_group_tests(tests, job_setup, job_teardown);
}
