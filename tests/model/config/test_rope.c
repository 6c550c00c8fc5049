/* Inverse frequencies against transformers 5.23 (Qwen3MoeRotaryEmbedding, hidden 64, 4 heads of 16 dimensions, context
 * 40960). transformers computes them in float32, each from a power and a quotient: a few units of 2^-24, under 1e-6. */
#include "tests/model/model_dir.h"

#include <math.h>

static char directory[256];
static model_config_t config;

/* The qwen3 fixture with other sizes and `rope` (keys of config.json) instead of its own rope_parameters. */
static void load(const char *rope)
{
    char patch[1000];
    snprintf(patch, sizeof(patch), "{\"hidden_size\": 64, \"max_position_embeddings\": 40960, %s}", rope);
    bool own = strstr(rope, "rope_parameters") != NULL;
    model_dir_config("qwen3", patch, own ? NULL : "rope_parameters", directory);
    assert_ok(model_config_load(directory, &config));
}

static void matches(const double want[8], double factor, uint32_t context)
{
    for (int i = 0; i < 8; i++)
        if (!(fabs(config.inv_freq[i] / want[i] - 1) < 1e-6))
            fail_msg("frequency %d is %.9g, transformers has %.9g", i, config.inv_freq[i], want[i]);
    if (!(fabs(config.rope_factor / factor - 1) < 1e-12))
        fail_msg("factor %.17g, not %.17g", config.rope_factor, factor);
    assert_int_equal(config.max_context, context);
}

static void plain(void **state)
{
    (void)state;
    const double want[8] = {1.0,
                            0.17782793939113617,
                            0.03162277862429619,
                            0.005623413249850273,
                            0.0010000000474974513,
                            0.00017782794020604342,
                            3.162277425872162e-05,
                            5.62341347176698e-06};
    load("\"rope_theta\": 1000000.0, \"rope_scaling\": null");
    matches(want, 1, 40960);
    load("\"rope_parameters\": {\"rope_theta\": 1000000.0, \"rope_type\": \"default\"}");
    matches(want, 1, 40960);
    load("\"rope_theta\": 5.0, \"rope_parameters\": {\"rope_theta\": 1000000, \"partial_rotary_factor\": 1.0}");
    matches(want, 1, 40960);
}

static void linear(void **state)
{
    (void)state;
    const double want[8] = {0.4000000059604645,   0.12649109959602356,   0.03999999910593033,   0.012649111449718475,
                            0.003999999724328518, 0.0012649111449718475, 0.0004000000189989805, 0.0001264911115868017};
    load("\"rope_theta\": 10000.0, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.5}");
    matches(want, 1, 40960);
}

/* As Qwen3's model cards switch it on: max_position_embeddings stays, the context becomes 4 x 32768. */
static void yarn_of_the_model_card(void **state)
{
    (void)state;
    const double want[8] = {1.0,
                            0.17782793939113617,
                            0.03162277862429619,
                            0.004217559937387705,
                            0.0005000000237487257,
                            4.4456985051510856e-05,
                            7.905693564680405e-06,
                            1.405853367941745e-06};
    load("\"rope_theta\": 1000000.0, \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4.0, "
         "\"original_max_position_embeddings\": 32768}");
    matches(want, 1.138629436111989, 131072);
}

static void yarn_with_betas_not_truncated(void **state)
{
    (void)state;
    const double want[8] = {1.0,
                            0.12053398787975311,
                            0.012500000186264515,
                            0.0039528473280370235,
                            0.0012499999720603228,
                            0.00039528473280370235,
                            0.0001250000059371814,
                            3.9528473280370235e-05};
    load("\"rope_parameters\": {\"rope_type\": \"yarn\", \"rope_theta\": 10000.0, \"factor\": 8.0, "
         "\"original_max_position_embeddings\": 64, \"beta_fast\": 16, \"beta_slow\": 2, \"truncate\": false}");
    matches(want, 1.2079441541679836, 40960);
}

static void yarn_with_mscale(void **state)
{
    (void)state;
    const double want[8] = {1.0,
                            0.3162277638912201,
                            0.10000000149011612,
                            0.023914724588394165,
                            0.005124999675899744,
                            0.0008498621755279601,
                            2.499999936844688e-05,
                            7.905694474175107e-06};
    load("\"rope_parameters\": {\"rope_type\": \"yarn\", \"rope_theta\": 10000.0, \"factor\": 40.0, "
         "\"original_max_position_embeddings\": 4096, \"mscale\": 0.707, \"mscale_all_dim\": 1.1}");
    matches(want, 0.8968734092501967, 163840);
}

static void yarn_with_attention_factor(void **state)
{
    (void)state;
    const double want[8] = {1.0,
                            0.2569350600242615,
                            0.0625,
                            0.013834965415298939,
                            0.0024999999441206455,
                            0.0007905694656074047,
                            0.0002500000118743628,
                            7.905694656074047e-05};
    load("\"rope_parameters\": {\"rope_type\": \"yarn\", \"rope_theta\": 10000.0, \"factor\": 4.0, "
         "\"original_max_position_embeddings\": 512, \"attention_factor\": 1.25}");
    matches(want, 1.25, 40960);
}

/* "factor": null: the ratio of the two contexts. */
static void yarn_without_a_factor(void **state)
{
    (void)state;
    const double want[8] = {1.0,
                            0.3162277638912201,
                            0.10000000149011612,
                            0.02450765296816826,
                            0.005499999970197678,
                            0.0010277403052896261,
                            9.999999747378752e-05,
                            3.162277789670043e-05};
    load("\"rope_parameters\": {\"rope_type\": \"yarn\", \"rope_theta\": 10000.0, \"factor\": null, "
         "\"original_max_position_embeddings\": 4096}");
    matches(want, 1.2302585092994045, 40960);
}

static void yarn_without_an_original_context(void **state)
{
    (void)state;
    const double want[8] = {1.0,
                            0.3162277638912201,
                            0.10000000149011612,
                            0.03162277862429619,
                            0.009999999776482582,
                            0.002569350879639387,
                            0.0006250000442378223,
                            0.00013834965648129582};
    load("\"rope_parameters\": {\"rope_type\": \"yarn\", \"rope_theta\": 10000.0, \"factor\": 4.0}");
    matches(want, 1.138629436111989, 163840);
}

static void refuses(const char *patch, cot_status_t status, const char *words)
{
    model_dir_config("qwen3", patch, NULL, directory);
    assert_fails(model_config_load(directory, &config), status, words);
}

static void others_are_refused(void **state)
{
    (void)state;
    refuses("{\"rope_parameters\": {\"rope_type\": \"llama3\", \"factor\": 8}}", COT_ERR_UNSUPPORTED, "llama3");
    refuses("{\"rope_parameters\": {\"rope_type\": \"dynamic\", \"factor\": 8}}", COT_ERR_UNSUPPORTED, "dynamic");
    refuses("{\"rope_parameters\": {\"rope_type\": \"longrope\", \"short_factor\": [1]}}", COT_ERR_UNSUPPORTED,
            "short_factor");
    refuses("{\"rope_parameters\": {\"rope_type\": \"default\", \"mrope_section\": [1, 2]}}", COT_ERR_UNSUPPORTED,
            "mrope_section");
    refuses("{\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"default\"}}}", COT_ERR_UNSUPPORTED,
            "full_attention");
    refuses("{\"rope_parameters\": {\"partial_rotary_factor\": 0.5}}", COT_ERR_UNSUPPORTED, "partial_rotary_factor");
    refuses("{\"partial_rotary_factor\": 0.5}", COT_ERR_UNSUPPORTED, "partial_rotary_factor");
    refuses("{\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}}", COT_ERR_FORMAT, "both given");
    refuses("{\"rope_parameters\": {\"rope_type\": \"linear\"}}", COT_ERR_FORMAT, "factor");
    refuses("{\"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 0.5}}", COT_ERR_FORMAT, "factor");
    refuses("{\"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 2, \"beta_fast\": -1}}", COT_ERR_FORMAT,
            "out of range");
    refuses("{\"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 2, \"attention_factor\": 0}}", COT_ERR_FORMAT,
            "out of range");
    refuses("{\"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": \"2\"}}", COT_ERR_FORMAT, "factor");
    refuses("{\"rope_parameters\": {\"rope_theta\": 0}}", COT_ERR_FORMAT, "rope_theta");
    refuses("{\"rope_parameters\": 7}", COT_ERR_FORMAT, "must be an object");
}

static int set_up(void **state)
{
    (void)state;
    cot_json_setup();
    temporary_make(directory);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    temporary_remove(directory);
    return cot_memory_live_blocks() == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain),
        cmocka_unit_test(linear),
        cmocka_unit_test(yarn_of_the_model_card),
        cmocka_unit_test(yarn_with_betas_not_truncated),
        cmocka_unit_test(yarn_with_mscale),
        cmocka_unit_test(yarn_with_attention_factor),
        cmocka_unit_test(yarn_without_a_factor),
        cmocka_unit_test(yarn_without_an_original_context),
        cmocka_unit_test(others_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
