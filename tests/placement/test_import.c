#include "tests/temporary.h"

#include "base/half.h"
#include "base/json.h"
#include "placement/import.h"
#include "placement/stats.h"
#include "placement/trace_write.h"

#define FIXTURES COTERIE_SOURCE_DIR "/tests/fixtures/imports/"

static char folder[256], in[300], out[300];

static int make_folder(void **state)
{
    (void)state;
    temporary_make(folder);
    snprintf(in, sizeof(in), "%s/in", folder);
    snprintf(out, sizeof(out), "%s/out.trace.safetensors", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    temporary_remove(folder);
    return 0;
}

static const place_import_t NOTHING = {0};

static cot_status_t import_text(place_import_format_t format, const char *text, const place_import_t *options)
{
    temporary_write(in, text, strlen(text));
    return place_import(format, in, options, out);
}

static place_stats_t *load_out(void)
{
    const char *paths[] = {out};
    place_stats_t *stats = NULL;
    assert_ok(place_stats_load(paths, 1, &stats));
    return stats;
}

static place_trace_t *open_out(void)
{
    place_trace_t *trace = NULL;
    assert_ok(place_trace_open(out, &trace));
    return trace;
}

/* ---- CSV ---- */

static void refuses_csv(const char *text, const place_import_t *options, cot_status_t status, const char *words)
{
    assert_fails(import_text(PLACE_IMPORT_CSV, text, options), status, words);
}

static void csv_with_and_without_a_header(void **state)
{
    (void)state;
    static const char *const TEXTS[] = {
        "3,0,5\n3,2,1\n9,1,6\n", "layer,expert,count\r\n3,0,5\r\n3,2,1\r\n9,1,6\r\n",
        "\xef\xbb\xbf"
        "count, expert ,layer\n5,0,3\n\n6,1,9\n1,2,3",
        "\"layer\",\"note\",\"expert\",\"count\"\n3,\"a, b\",0,5\n3,\"a, b\",2,1\n9,\"a, "
        "b\",\"1\",6\n"};
    const int64_t load[] = {5, 0, 1, 0, 6, 0};
    for (size_t t = 0; t < sizeof(TEXTS) / sizeof(*TEXTS); t++) {
        assert_ok(import_text(PLACE_IMPORT_CSV, TEXTS[t], &NOTHING));
        place_stats_t *stats = load_out();
        assert_int_equal(stats->layers, 2);
        assert_int_equal(stats->layer_index[0], 3);
        assert_int_equal(stats->layer_index[1], 9);
        assert_int_equal(stats->experts, 3); /* the highest expert + 1 */
        assert_int_equal(stats->tokens, 0);
        assert_memory_equal(stats->load, load, sizeof(load));
        place_stats_destroy(stats);
    }
}

static const char DOMAINS[] = "model,topk,domain,layer,expert,count\n"
                              "A,2,book,0,0,6\nA,2,book,0,1,4\nA,2,c4,0,0,3\nA,2,c4,0,1,9\nB,1,c4,0,0,7\n";

static void csv_of_several_models_and_domains(void **state)
{
    (void)state;
    place_import_t options = {.where = "domain=c4,model=A", .experts = 4, .tokens = 6};
    assert_ok(import_text(PLACE_IMPORT_CSV, DOMAINS, &options));
    place_stats_t *stats = load_out();
    const int64_t load[] = {3, 9, 0, 0};
    assert_memory_equal(stats->load, load, sizeof(load));
    assert_int_equal(stats->top_k, 2);
    assert_int_equal(stats->tokens, 6);
    assert_string_equal(stats->model, "A");
    place_stats_destroy(stats);

    refuses_csv(DOMAINS, &NOTHING, COT_ERR_FORMAT, "line 4: column \"domain\" is \"c4\" here and \"book\" before");
    options = (place_import_t){.where = "domain=c4"};
    refuses_csv(DOMAINS, &options, COT_ERR_FORMAT, "line 6: column \"model\"");
    options = (place_import_t){.where = "domain=wiki"};
    refuses_csv(DOMAINS, &options, COT_ERR_FORMAT, "that --where takes");
    options = (place_import_t){.where = "colour=red"};
    refuses_csv(DOMAINS, &options, COT_ERR_INVALID, "no column \"colour\"");
    options = (place_import_t){.where = "domain"};
    refuses_csv(DOMAINS, &options, COT_ERR_INVALID, "column=value");
    options = (place_import_t){.where = "domain=c4,model=A", .tokens = 7};
    refuses_csv(DOMAINS, &options, COT_ERR_FORMAT, "k x the stated tokens");
    options = (place_import_t){.where = "domain=c4,model=A", .top_k = 3};
    refuses_csv(DOMAINS, &options, COT_ERR_MISMATCH, "2 experts a token, where 3");
}

static void bad_csv_is_refused_with_its_line(void **state)
{
    (void)state;
    place_import_t options = {.experts = 4};
    refuses_csv("", &NOTHING, COT_ERR_FORMAT, "empty");
    refuses_csv("layer,expert,count\n", &NOTHING, COT_ERR_FORMAT, "empty");
    refuses_csv("0,0,0\n", &NOTHING, COT_ERR_FORMAT, "counts no token");
    refuses_csv("0,0,5\n0,1,-2\n", &NOTHING, COT_ERR_FORMAT, "line 2: the count is \"-2\"");
    refuses_csv("0,0,5\n0,1,99999999999999999999\n", &NOTHING, COT_ERR_FORMAT, "line 2: the count");
    refuses_csv("0,0,5\n0,1,9223372036854775807\n", &NOTHING, COT_ERR_FORMAT, "line 2: the count");
    refuses_csv("0,0,5\n0,1,2.5\n", &NOTHING, COT_ERR_FORMAT, "line 2: the count is \"2.5\"");
    refuses_csv("0,0,5\n0,1\n", &NOTHING, COT_ERR_FORMAT, "line 2: has 2 columns");
    refuses_csv("0,0,5\n0,0,6\n", &NOTHING, COT_ERR_FORMAT, "line 2: layer 0 expert 0 was counted in line 1");
    refuses_csv("0,0,5\n5000,0,6\n", &NOTHING, COT_ERR_FORMAT, "line 2: the layer");
    refuses_csv("0,0,5\n0,4,6\n", &options, COT_ERR_FORMAT, "line 2: the expert is \"4\"");
    refuses_csv("0,0,5\n1,0,9\n", &NOTHING, COT_ERR_FORMAT, "differ by");
    refuses_csv("a,b,c\n0,0,5\n", &NOTHING, COT_ERR_FORMAT, "must name the columns");
    refuses_csv("0,0,5,7\n", &NOTHING, COT_ERR_FORMAT, "no header");
    refuses_csv("0,\"0,5\n", &NOTHING, COT_ERR_FORMAT, "not closed");
    refuses_csv("0,\"0\"1,5\n", &NOTHING, COT_ERR_FORMAT, "closing quote");
    options = (place_import_t){.tokens = 5};
    refuses_csv("0,0,5\n", &options, COT_ERR_INVALID, "--top-k");
    options = (place_import_t){.layers = 1, .layer_index = (const uint32_t[]){1}};
    refuses_csv("0,0,5\n", &options, COT_ERR_MISMATCH, "holds layer 0, where layer 1");
    assert_fails(place_import(PLACE_IMPORT_CSV, "/nonexistent", &NOTHING, out), COT_ERR_NOT_FOUND, "/nonexistent");
}

/* ---- arrays ---- */

static void counts_of_arrays(void **state)
{
    (void)state;
    const int64_t load[] = {1, 2, 3, 94, 40, 30, 20, 10, 97, 0, 1, 2};
    static const char *const FILES[] = {FIXTURES "load-i8.npy", FIXTURES "load-f4.npy", FIXTURES "steps.npy",
                                        FIXTURES "steps-fortran.npy"};
    for (size_t f = 0; f < 4; f++) {
        const place_import_t options = {
            .top_k = 2, .tokens = f < 2 ? 50 : 150, .layers = 3, .layer_index = (const uint32_t[]){1, 2, 5}};
        assert_ok(place_import(PLACE_IMPORT_COUNTS, FILES[f], &options, out));
        place_stats_t *stats = load_out();
        assert_int_equal(stats->layer_index[2], 5);
        assert_int_equal(stats->top_k, 2);
        for (int i = 0; i < 12; i++) assert_int_equal(stats->load[i], load[i] * (f < 2 ? 1 : 3));
        place_stats_destroy(stats);
    }
}

static void refuses_array(place_import_format_t format, const char *name, const place_import_t *options,
                          cot_status_t status, const char *words)
{
    char file[300];
    snprintf(file, sizeof(file), FIXTURES "%s", name);
    assert_fails(place_import(format, file, options, out), status, words);
    assert_non_null(strstr(cot_error_text(), file));
}

static void bad_counts_are_refused(void **state)
{
    (void)state;
    place_import_t options = {.experts = 5};
    refuses_array(PLACE_IMPORT_COUNTS, "load-i8.npy", &options, COT_ERR_MISMATCH, "4 experts a layer, where 5");
    options = (place_import_t){.layers = 2, .layer_index = (const uint32_t[]){1, 2}};
    refuses_array(PLACE_IMPORT_COUNTS, "load-i8.npy", &options, COT_ERR_MISMATCH, "3 layers, where 2");
    options = (place_import_t){.tokens = 99, .top_k = 1};
    refuses_array(PLACE_IMPORT_COUNTS, "load-i8.npy", &options, COT_ERR_FORMAT, "stated tokens");
    refuses_array(PLACE_IMPORT_COUNTS, "negative.npy", &NOTHING, COT_ERR_FORMAT, "a count of -1");
    refuses_array(PLACE_IMPORT_COUNTS, "huge.npy", &NOTHING, COT_ERR_FORMAT, "byte 128");
    refuses_array(PLACE_IMPORT_COUNTS, "half.npy", &NOTHING, COT_ERR_FORMAT, "byte 128");
    refuses_array(PLACE_IMPORT_COUNTS, "empty.npy", &NOTHING, COT_ERR_FORMAT, "0 layers");
    refuses_array(PLACE_IMPORT_COUNTS, "big-endian.npy", &NOTHING, COT_ERR_UNSUPPORTED, "'>i4'");
    refuses_array(PLACE_IMPORT_EXFLOW, "steps.npy", &NOTHING, COT_ERR_FORMAT, "[tokens, layers]");
}

/* 5 tokens, 3 layers, 4 experts: token t takes expert (t + layer) % 4. */
static void exflow_arrays(void **state)
{
    (void)state;
    place_import_t options = {.experts = 4, .request_tokens = 2, .tokens = 5};
    assert_ok(place_import(PLACE_IMPORT_EXFLOW, FIXTURES "exflow.npy", &options, out));
    place_trace_t *trace = open_out();
    assert_int_equal(place_trace_tokens(trace), 5);
    assert_int_equal(place_trace_info(trace)->top_k, 1);
    for (uint32_t t = 0; t < 5; t++) {
        assert_int_equal(place_trace_where(trace, t).request, t / 2);
        assert_int_equal(place_trace_where(trace, t).position, t % 2);
        assert_int_equal(place_trace_where(trace, t).token_id, -1);
        for (uint32_t l = 0; l < 3; l++) assert_int_equal(place_trace_expert(trace, t, l, 0), (t + l) % 4);
    }
    place_trace_close(trace);

    options = (place_import_t){.experts = 4};
    assert_ok(place_import(PLACE_IMPORT_EXFLOW, FIXTURES "exflow.npy", &options, out));
    trace = open_out();
    assert_int_equal(place_trace_where(trace, 3).request, -1);
    place_trace_close(trace);

    refuses_array(PLACE_IMPORT_EXFLOW, "exflow.npy", &NOTHING, COT_ERR_INVALID, "--experts");
    options.experts = 5;
    refuses_array(PLACE_IMPORT_EXFLOW, "exflow.npy", &options, COT_ERR_FORMAT,
                  "row 2: id 8 is none of the 5 experts of layer 2, whose ids go from 10 to 14");
    options = (place_import_t){.experts = 4, .tokens = 6};
    refuses_array(PLACE_IMPORT_EXFLOW, "exflow.npy", &options, COT_ERR_FORMAT, "5 tokens, where 6");
    refuses_array(PLACE_IMPORT_EXFLOW, "empty.npy", &options, COT_ERR_FORMAT, "empty");
}

/* ---- JSONL ---- */

static void refuses_jsonl(const char *text, const char *words)
{
    assert_fails(import_text(PLACE_IMPORT_JSONL, text, &NOTHING), COT_ERR_FORMAT, words);
}

/* The same two requests in three forms: one token a line, one request a line, one (token, layer) a line. */
static const char BY_TOKEN[] =
    "{\"type\": \"meta\", \"model\": \"m\", \"experts\": 6, \"top_k\": 2, \"layers\": [1, 4], \"tokens\": 3}\n"
    "{\"request\": 8, \"position\": 1, \"experts\": [[4, 5], [0, 2]], \"gate_weights\": [[0.75, 0.25], [0.5, 0.5]]}\n"
    "{\"request\": 3, \"experts\": [[1, 0], [5, 3]], \"gate_weights\": [[1, 0], [0.5, 0.125]]}\n\n"
    "{\"request\": 8, \"position\": 0, \"experts\": [[2, 3], [4, 1]], \"gate_weights\": [[0.5, 0.5], [0.25, 0.25]]}\n";
static const char BY_REQUEST[] =
    "{\"type\": \"meta\", \"num_experts\": 6, \"layers_logged\": [1, 4]}\n"
    "{\"request\": 8, \"routed_experts\": [[[2, 3], [4, 1]], [[4, 5], [0, 2]]], \"gate_weights\": "
    "[[[0.5, 0.5], [0.25, 0.25]], [[0.75, 0.25], [0.5, 0.5]]]}\n"
    "{\"request\": 3, \"experts\": [[[1, 0], [5, 3]]], \"gate_weights\": [[[1, 0], [0.5, 0.125]]]}\n";
static const char BY_ROUTE[] =
    "{\"type\": \"meta\", \"model_id\": \"m\", \"experts\": 6, \"layers\": [1, 4]}\n"
    "{\"type\": \"route\", \"req_id\": 8, \"token_idx\": 0, \"layer\": 1, \"topk_ids\": [2, 3], \"topk_weights\": "
    "[0.5, 0.5]}\n"
    "{\"type\": \"route\", \"req_id\": 8, \"token_idx\": 1, \"layer\": 1, \"topk_ids\": [4, 5], \"topk_weights\": "
    "[0.75, 0.25]}\n"
    "{\"type\": \"route\", \"req_id\": 8, \"token_idx\": 0, \"layer\": 4, \"topk_ids\": [4, 1], \"topk_weights\": "
    "[0.25, 0.25]}\n"
    "{\"type\": \"route\", \"req_id\": 8, \"token_idx\": 1, \"layer\": 4, \"topk_ids\": [0, 2], \"topk_weights\": "
    "[0.5, 0.5]}\n"
    "{\"type\": \"route\", \"req_id\": 3, \"token_idx\": 0, \"layer\": 4, \"topk_ids\": [5, 3], \"topk_weights\": "
    "[0.5, 0.125]}\n"
    "{\"type\": \"route\", \"req_id\": 3, \"token_idx\": 0, \"layer\": 1, \"topk_ids\": [1, 0], \"topk_weights\": "
    "[1, 0]}\n";

static void jsonl_in_three_forms(void **state)
{
    (void)state;
    static const char *const TEXTS[] = {BY_TOKEN, BY_REQUEST, BY_ROUTE};
    const int16_t experts[] = {1, 0, 5, 3, 2, 3, 4, 1, 4, 5, 0, 2};
    const float weights[] = {1, 0, 0.5f, 0.125f, 0.5f, 0.5f, 0.25f, 0.25f, 0.75f, 0.25f, 0.5f, 0.5f};
    const int32_t request[] = {3, 8, 8}, position[] = {0, 0, 1};
    for (size_t t = 0; t < 3; t++) {
        assert_ok(import_text(PLACE_IMPORT_JSONL, TEXTS[t], &NOTHING));
        place_trace_t *trace = open_out();
        place_rows_t rows = place_trace_rows(trace);
        assert_int_equal(rows.rows, 3);
        assert_int_equal(place_trace_info(trace)->experts, 6);
        assert_int_equal(place_trace_info(trace)->layer_index[1], 4);
        assert_memory_equal(rows.column[PLACE_COLUMN_EXPERTS], experts, sizeof(experts));
        assert_memory_equal(rows.column[PLACE_COLUMN_REQUEST], request, sizeof(request));
        assert_memory_equal(rows.column[PLACE_COLUMN_POSITION], position, sizeof(position));
        assert_null(rows.column[PLACE_COLUMN_TOKEN_ID]);
        for (size_t i = 0; i < 12; i++) {
            uint16_t half;
            memcpy(&half, (const char *)rows.column[PLACE_COLUMN_GATE_WEIGHTS] + 2 * i, sizeof(half));
            assert_true(cot_half_to_float(half) == weights[i]);
        }
        place_trace_close(trace);
    }
}

static void jsonl_with_named_requests_phases_and_ids(void **state)
{
    (void)state;
    const char *text = "{\"request\": \"cmpl-b\", \"experts\": [[[0]], [[1]], [[2]]], \"token_ids\": [7, 8, 9], "
                       "\"phase\": [\"prefill\", \"prefill\", \"decode\"]}\n"
                       "{\"request\": \"cmpl-a\", \"experts\": [[1]], \"token_id\": 5, \"phase\": 0}\n"
                       "{\"request\": \"cmpl-b\", \"experts\": [[2]], \"token_id\": 6, \"phase\": 1}\n";
    assert_ok(import_text(PLACE_IMPORT_JSONL, text, &NOTHING));
    place_trace_t *trace = open_out();
    const int32_t ids[] = {7, 8, 9, 6, 5}, phases[] = {0, 0, 1, 1, 0};
    assert_int_equal(place_trace_tokens(trace), 5);
    assert_int_equal(place_trace_info(trace)->experts, 3); /* the highest id + 1, with a warning */
    for (uint32_t row = 0; row < 5; row++) {
        place_trace_where_t where = place_trace_where(trace, row);
        assert_int_equal(where.request, row < 4 ? 0 : 1); /* numbered as they appear */
        assert_int_equal(where.position, row % 4);
        assert_int_equal(where.token_id, ids[row]);
        assert_int_equal(where.phase, phases[row]);
    }
    place_trace_close(trace);

    assert_ok(
        import_text(PLACE_IMPORT_JSONL, "{\"experts\": [[0, 1]]}\n{\"experts\": [[[1, 2]], [[2, 0]]]}\n", &NOTHING));
    trace = open_out();
    assert_int_equal(place_trace_tokens(trace), 3);
    assert_int_equal(place_trace_where(trace, 2).request, -1);
    assert_int_equal(place_trace_expert(trace, 2, 0, 0), 2); /* in the file's order */
    place_trace_close(trace);
}

static void bad_jsonl_is_refused_with_its_line(void **state)
{
    (void)state;
#define META "{\"type\": \"meta\", \"experts\": 4, \"layers\": 2}\n"
#define ROUTE(position, layer, ids)                                                            \
    "{\"type\": \"route\", \"req_id\": 0, \"token_idx\": " position ", \"layer\": " layer ", " \
    "\"topk_ids\": " ids "}\n"
    refuses_jsonl("", "empty");
    refuses_jsonl(META, "empty");
    refuses_jsonl("{\"experts\": [[0]]}\n{\"exp", "line 2: ");
    refuses_jsonl("[1]\n", "line 1: is not a JSON object");
    refuses_jsonl("{\"type\": \"token\"}\n", "line 1: \"experts\" must be");
    refuses_jsonl("{\"type\": \"speech\"}\n", "\"speech\"");
    refuses_jsonl(META "{\"experts\": [[4], [0]]}\n", "line 2: an expert must be an integer from 0 to 3");
    refuses_jsonl(META "{\"experts\": [[-1], [0]]}\n", "line 2: an expert");
    refuses_jsonl(META "{\"experts\": [[1.5], [0]]}\n", "line 2: an expert");
    refuses_jsonl(META "{\"experts\": [[1]]}\n", "line 2: 1 layers of a token, where each has 2");
    refuses_jsonl(META "{\"experts\": [[1, 2], [3]]}\n", "line 2: 1 experts of a token in a layer, where each has 2");
    refuses_jsonl(META "{\"experts\": [[1, 1], [3, 2]]}\n", "line 2: expert 1 stands twice");
    refuses_jsonl(META "{\"experts\": [[1], [2]]}\n{\"request\": 1, \"experts\": [[1], [2]]}\n",
                  "line 3: has a \"request\"");
    refuses_jsonl("{\"request\": 1, \"position\": 5, \"experts\": [[0]]}\n{\"request\": 2, \"experts\": [[0]]}\n"
                  "{\"request\": 1, \"position\": 5, \"experts\": [[1]]}\n",
                  "line 3: position 5 of its request was given in line 1 already");
    refuses_jsonl("{\"request\": 1, \"experts\": [[0]]}\n{\"request\": \"1\", \"experts\": [[0]]}\n",
                  "line 2: \"request\"");
    refuses_jsonl("{\"request\": -1, \"experts\": [[0]]}\n", "\"request\" must be");
    refuses_jsonl("{\"position\": 1, \"experts\": [[0]]}\n", "needs a \"request\"");
    refuses_jsonl("{\"request\": 1, \"position\": 4294967296, \"experts\": [[0]]}\n", "\"position\" must be");
    refuses_jsonl("{\"experts\": [[0]], \"gate_weights\": [[0.5, 0.5]]}\n", "weights do not have the shape");
    refuses_jsonl("{\"experts\": [[0]], \"gate_weights\": [[\"a\"]]}\n", "a weight must be a number");
    refuses_jsonl("{\"experts\": [[0]], \"phase\": 2}\n", "\"phase\" (prefill or decode)");
    refuses_jsonl("{\"experts\": [[[0]], [[1]]], \"token_ids\": [1]}\n", "not as many token ids");
    refuses_jsonl("{\"type\": \"meta\", \"tokens\": 3}\n{\"experts\": [[0]]}\n", "states 3 tokens, the lines hold 1");
    refuses_jsonl(META META, "stands once");
    refuses_jsonl("{\"type\": \"meta\", \"layers\": [2, 1]}\n", "must ascend");
    refuses_jsonl("{\"type\": \"meta\", \"layers\": 0}\n", "\"layers\" must be a number");
    refuses_jsonl(ROUTE("0", "0", "[1]"), "need a \"meta\" line");
    refuses_jsonl(META ROUTE("0", "7", "[1]"), "line 2: layer 7 is none of the 2");
    refuses_jsonl(META ROUTE("0", "0", "[1]") ROUTE("0", "0", "[1]"), "line 3: position 0 of its request was given");
    refuses_jsonl(META ROUTE("0", "0", "[1]") ROUTE("1", "0", "[1]") ROUTE("1", "1", "[1]"),
                  "line 2: its token lacks layer 1");
    refuses_jsonl(META ROUTE("0", "1", "[1]"), "line 2: its token lacks layer 0");
    refuses_jsonl(META ROUTE("0", "0", "[1]"), "line 2: its token lacks layer 1");
    refuses_jsonl(META "{\"type\": \"route\", \"layer\": 0, \"topk_ids\": [1]}\n", "needs \"req_id\"");
    place_import_t options = {.experts = 8};
    assert_fails(import_text(PLACE_IMPORT_JSONL, META, &options), COT_ERR_MISMATCH, "4 experts, where 8");
    options = (place_import_t){.tokens = 2};
    assert_fails(import_text(PLACE_IMPORT_JSONL, "{\"experts\": [[0]]}\n", &options), COT_ERR_FORMAT,
                 "1 tokens, where 2");
    options = (place_import_t){.top_k = 2};
    assert_fails(import_text(PLACE_IMPORT_JSONL, "{\"experts\": [[0]]}\n", &options), COT_ERR_MISMATCH, "where 2");
}

/* ---- with a model ---- */

static void a_model_gives_shape_and_must_agree(void **state)
{
    (void)state;
    const char *config = "{\"num_experts\": 6, \"num_experts_per_tok\": 2, \"hidden_size\": 8, "
                         "\"intermediate_size\": 8, \"num_hidden_layers\": 5, \"decoder_sparse_step\": 2}";
    place_model_t *model = NULL;
    assert_ok(place_model_parse(config, strlen(config), &model));
    place_import_t options = {.model = model};
    assert_ok(import_text(PLACE_IMPORT_JSONL, "{\"experts\": [[0, 1], [2, 3]]}\n", &options));
    place_trace_t *trace = open_out();
    assert_int_equal(place_trace_info(trace)->experts, 6);
    assert_int_equal(place_trace_info(trace)->layer_index[1], 3);
    assert_string_equal(place_trace_info(trace)->config_sha256, model->sha256);
    place_trace_close(trace);

    assert_fails(import_text(PLACE_IMPORT_JSONL, BY_TOKEN, &options), COT_ERR_MISMATCH, "holds layer 4, where layer 3");
    assert_fails(import_text(PLACE_IMPORT_JSONL, "{\"experts\": [[0], [2]]}\n", &options), COT_ERR_MISMATCH,
                 "1 experts a token");
    assert_fails(import_text(PLACE_IMPORT_JSONL, "{\"experts\": [[0, 6], [2, 1]]}\n", &options), COT_ERR_FORMAT,
                 "from 0 to 5");
    refuses_csv("1,0,5\n", &options, COT_ERR_MISMATCH, "1 layers, where 2");
    refuses_array(PLACE_IMPORT_COUNTS, "load-i8.npy", &options, COT_ERR_MISMATCH, "4 experts a layer, where 6");
    options.experts = 4;
    refuses_csv("1,0,5\n3,0,5\n", &options, COT_ERR_MISMATCH, "4 experts a layer, the model has 6");
    place_model_destroy(model);
}

static void formats_are_told_by_name_and_ending(void **state)
{
    (void)state;
    place_import_format_t format = PLACE_IMPORT_COUNTS;
    assert_ok(place_import_format("", "a/b.csv", &format));
    assert_int_equal(format, PLACE_IMPORT_CSV);
    assert_ok(place_import_format("", "b.jsonl", &format));
    assert_int_equal(format, PLACE_IMPORT_JSONL);
    assert_ok(place_import_format("exflow", "b.csv", &format));
    assert_int_equal(format, PLACE_IMPORT_EXFLOW);
    assert_fails(place_import_format("", "b.npy", &format), COT_ERR_INVALID, "--format");
    assert_fails(place_import_format("xml", "b.npy", &format), COT_ERR_INVALID, "\"xml\"");
}

static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    static const struct {
        place_import_format_t format;
        const char *text;
    } CASES[] = {{PLACE_IMPORT_CSV, DOMAINS}, {PLACE_IMPORT_JSONL, BY_TOKEN}, {PLACE_IMPORT_JSONL, BY_ROUTE}};
    const place_import_t options = {.where = "domain=book"};
    for (size_t c = 0; c < 3; c++) assert_survives_allocations(import_text(CASES[c].format, CASES[c].text, &options), );
}

int main(void)
{
    cot_json_setup();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(csv_with_and_without_a_header),
        cmocka_unit_test(csv_of_several_models_and_domains),
        cmocka_unit_test(bad_csv_is_refused_with_its_line),
        cmocka_unit_test(counts_of_arrays),
        cmocka_unit_test(bad_counts_are_refused),
        cmocka_unit_test(exflow_arrays),
        cmocka_unit_test(jsonl_in_three_forms),
        cmocka_unit_test(jsonl_with_named_requests_phases_and_ids),
        cmocka_unit_test(bad_jsonl_is_refused_with_its_line),
        cmocka_unit_test(a_model_gives_shape_and_must_agree),
        cmocka_unit_test(formats_are_told_by_name_and_ending),
        cmocka_unit_test(every_failed_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
