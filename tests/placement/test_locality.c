/* SRP and SCH against a brute force that follows the definitions word by word, on small random traces. */
#include "tests/temporary.h"

#include "base/json.h"
#include "placement/locality.h"

#include <math.h>

enum { LAYERS = 2, EXPERTS = 7, TOP_K = 2, REQUESTS = 3, ROWS = 300 };
static const uint32_t SIZES[] = PLACE_WINDOW_SIZES;
static const uint32_t LENGTH[REQUESTS] = {20, 270, 10}; /* one is longer than the largest window */

static char folder[256], path[300];
static int16_t routes[ROWS][LAYERS][TOP_K];

static int make_folder(void **state)
{
    (void)state;
    temporary_make(folder);
    snprintf(path, sizeof(path), "%s/a.trace.safetensors", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    temporary_remove(folder);
    return 0;
}

static uint64_t random_state;

static uint32_t below(uint32_t limit)
{
    random_state = random_state * 6364136223846793005U + 1442695040888963407U;
    return (uint32_t)(random_state >> 33) % limit;
}

/* A token keeps each of its predecessor's experts with a chance of `keep` in 10. */
static void draw_routes(uint64_t seed, uint32_t keep)
{
    random_state = seed;
    for (uint32_t t = 0; t < ROWS; t++)
        for (uint32_t l = 0; l < LAYERS; l++)
            for (uint32_t k = 0; k < TOP_K; k++) {
                bool twice;
                routes[t][l][k] = t > 0 && below(10) < keep ? routes[t - 1][l][k] : (int16_t)below(EXPERTS);
                do {
                    twice = k > 0 && routes[t][l][0] == routes[t][l][k];
                    if (twice) routes[t][l][k] = (int16_t)below(EXPERTS);
                } while (twice);
            }
}

static place_trace_t *write_trace(bool requests)
{
    cot_safetensors_writer_t *writer = NULL;
    int32_t request[ROWS], position[ROWS];
    for (int32_t r = 0, row = 0; r < REQUESTS; r++)
        for (int32_t p = 0; p < (int32_t)LENGTH[r]; p++, row++) {
            request[row] = r;
            position[row] = p;
        }
    assert_ok(cot_safetensors_writer_create(path, &writer));
    assert_ok(cot_safetensors_writer_metadata(writer, "format", "coterie.trace/1"));
    assert_ok(cot_safetensors_writer_metadata(writer, "experts", "7"));
    assert_ok(cot_safetensors_writer_declare(writer, "experts", COT_DTYPE_I16, 3, (uint64_t[]){ROWS, LAYERS, TOP_K}));
    if (requests) {
        assert_ok(cot_safetensors_writer_declare(writer, "request", COT_DTYPE_I32, 1, (uint64_t[]){ROWS}));
        assert_ok(cot_safetensors_writer_declare(writer, "position", COT_DTYPE_I32, 1, (uint64_t[]){ROWS}));
    }
    assert_ok(cot_safetensors_writer_write(writer, routes, sizeof(routes)));
    if (requests) {
        assert_ok(cot_safetensors_writer_write(writer, request, sizeof(request)));
        assert_ok(cot_safetensors_writer_write(writer, position, sizeof(position)));
    }
    assert_ok(cot_safetensors_writer_commit(writer));
    cot_safetensors_writer_destroy(writer);
    place_trace_t *trace = NULL;
    assert_ok(place_trace_open(path, &trace));
    return trace;
}

/* ---- the definitions ---- */

static bool uses(uint32_t row, uint32_t layer, uint32_t expert)
{
    for (uint32_t k = 0; k < TOP_K; k++)
        if (routes[row][layer][k] == (int16_t)expert) return true;
    return false;
}

/* f(e, p, m). */
static uint32_t activations(uint32_t begin, uint32_t m, uint32_t layer, uint32_t expert)
{
    uint32_t f = 0;
    for (uint32_t row = begin; row < begin + m; row++) f += uses(row, layer, expert);
    return f;
}

/* F1 of one common threshold over the layers [first, last), and the mean number chosen in a window over top_k. */
static double f1_of(uint32_t a, uint32_t m, uint32_t first, uint32_t last, double *size_out)
{
    double above = 0, below_line = 0, chosen = 0, windows = 0;
    for (uint32_t r = 0, base = 0; r < REQUESTS; base += LENGTH[r++])
        for (uint32_t p = 0; p + m <= LENGTH[r]; p++)
            for (uint32_t l = first; l < last; l++) {
                windows++;
                for (uint32_t e = 0; e < EXPERTS; e++) {
                    uint32_t f = activations(base + p, m, l, e);
                    if (f >= a) above += 2 * f, below_line += m, chosen++;
                    below_line += f;
                }
            }
    *size_out = windows > 0 ? chosen / windows / TOP_K : 0;
    return windows > 0 ? above / below_line : 0;
}

/* First version: the 2 x top_k most active experts of each window. */
static double static_hits(uint32_t m, uint32_t first, uint32_t last)
{
    double hits = 0, all = 0;
    for (uint32_t r = 0, base = 0; r < REQUESTS; base += LENGTH[r++])
        for (uint32_t p = 0; p + m <= LENGTH[r]; p++)
            for (uint32_t l = first; l < last; l++) {
                bool taken[EXPERTS] = {false};
                for (uint32_t c = 0; c < PLACE_CACHE_RATIO * TOP_K; c++) {
                    uint32_t best = EXPERTS;
                    for (uint32_t e = 0; e < EXPERTS; e++)
                        if (!taken[e] &&
                            (best == EXPERTS || activations(base + p, m, l, e) > activations(base + p, m, l, best)))
                            best = e;
                    taken[best] = true;
                    hits += activations(base + p, m, l, best);
                }
                all += m * TOP_K;
            }
    return all > 0 ? hits / all : 0;
}

/* Published version: a set of experts, asked and filled token by token. */
static double cache_hits(uint32_t m, uint32_t first, uint32_t last)
{
    double hits = 0, all = 0;
    for (uint32_t l = first; l < last; l++)
        for (uint32_t r = 0, base = 0; r < REQUESTS; base += LENGTH[r++]) {
            bool in[EXPERTS] = {false};
            uint32_t last_use[EXPERTS] = {0}, size = 0;
            for (uint32_t t = 0; t < LENGTH[r]; t++) {
                bool was[EXPERTS];
                memcpy(was, in, sizeof(in));
                for (uint32_t k = 0; k < TOP_K; k++) last_use[routes[base + t][l][k]] = t + 1;
                for (uint32_t k = 0; k < TOP_K; k++, all++) {
                    uint32_t e = (uint32_t)routes[base + t][l][k];
                    hits += was[e] || size < PLACE_CACHE_RATIO * TOP_K;
                    if (was[e]) continue;
                    if (size == PLACE_CACHE_RATIO * TOP_K) {
                        uint32_t victim = EXPERTS, fewest = UINT32_MAX, rest = LENGTH[r] - t - 1;
                        for (uint32_t v = 0; v < EXPERTS; v++) {
                            if (!in[v] || uses(base + t, l, v)) continue;
                            uint32_t f = activations(base + t + 1, m < rest ? m : rest, l, v);
                            if (f < fewest || (f == fewest && last_use[v] < last_use[victim])) victim = v, fewest = f;
                        }
                        in[victim] = false;
                        size--;
                    }
                    in[e] = true;
                    size++;
                }
            }
        }
    return hits / all;
}

static void near(double got, double wanted, const char *what, uint32_t m)
{
    if (!(fabs(got - wanted) < 1e-12)) fail_msg("%s at m = %u: %.15f, wanted %.15f", what, m, got, wanted);
}

static void compare(const place_locality_t *found, uint32_t m, uint32_t first, uint32_t last)
{
    double best = 0, size = 0;
    for (uint32_t a = 0; a <= m; a++) {
        double at = 0, f1 = f1_of(a, m, first, last, &at);
        if (f1 >= best - 1e-12) { /* of equal thresholds the largest, as the walk down from m finds it */
            best = f1 > best ? f1 : best;
            size = at;
        }
    }
    near(found->srp, best, "srp", m);
    near(found->size_ratio, size, "size ratio", m);
    near(found->sch_window, static_hits(m, first, last), "sch_window", m);
    near(found->sch, cache_hits(m, first, last), "sch", m);
}

static void figures_are_those_of_the_definitions(void **state)
{
    (void)state;
    for (uint32_t keep = 0; keep <= 9; keep += 3) {
        place_locality_t layer[LAYERS][PLACE_WINDOWS], model[PLACE_WINDOWS];
        place_locality_sample_t sample;
        draw_routes(keep + 1, keep);
        place_trace_t *trace = write_trace(true);
        assert_ok(place_trace_locality(trace, layer[0], model, &sample));
        assert_int_equal(sample.runs, REQUESTS);
        assert_int_equal(sample.looked_at, REQUESTS);
        for (uint32_t w = 0; w < PLACE_WINDOWS; w++) {
            for (uint32_t l = 0; l < LAYERS; l++) compare(&layer[l][w], SIZES[w], l, l + 1);
            compare(&model[w], SIZES[w], 0, LAYERS);
        }
        place_trace_close(trace);
    }
}

/* Every token alike: the first window's choice is right for ever. */
static void constant_routing_is_perfectly_local(void **state)
{
    (void)state;
    place_locality_t layer[LAYERS][PLACE_WINDOWS], model[PLACE_WINDOWS];
    place_locality_sample_t sample;
    for (uint32_t t = 0; t < ROWS; t++)
        for (uint32_t l = 0; l < LAYERS; l++)
            for (int16_t k = 0; k < TOP_K; k++) routes[t][l][k] = k;
    place_trace_t *trace = write_trace(true);
    assert_ok(place_trace_locality(trace, layer[0], model, &sample));
    for (uint32_t w = 0; w < PLACE_WINDOWS; w++) {
        near(model[w].srp, 1, "srp", SIZES[w]);
        near(model[w].size_ratio, 1, "size ratio", SIZES[w]);
        near(model[w].sch, 1, "sch", SIZES[w]);
    }
    assert_int_equal(model[3].windows, LAYERS * (270 - 256 + 1));
    place_trace_close(trace);
}

static void rows_without_requests_have_no_locality(void **state)
{
    (void)state;
    place_locality_t layer[LAYERS][PLACE_WINDOWS], model[PLACE_WINDOWS];
    place_locality_sample_t sample;
    draw_routes(1, 0);
    place_trace_t *trace = write_trace(false);
    assert_fails(place_trace_locality(trace, layer[0], model, &sample), COT_ERR_UNSUPPORTED, "requests");
    place_trace_close(trace);
}

int main(void)
{
    cot_json_setup();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_are_those_of_the_definitions),
        cmocka_unit_test(constant_routing_is_perfectly_local),
        cmocka_unit_test(rows_without_requests_have_no_locality),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
