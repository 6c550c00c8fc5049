/* The evaluator against a slow recount, token by token and home by home, on tiny random worlds: the same integers. */
#include "tests/placement/solve/world.h"

#include "base/json.h"
#include "placement/solve/evaluate.h"

#include <math.h>

#define RANKS 4

/* Four unequal ranks on two nodes; every link has figures of its own. */
static const char CLUSTER[] =
    "{\"format\": \"coterie.cluster/1\", \"ranks\": [{\"node\": 0}, {\"node\": 0, \"relative_speed\": 0.5}, "
    "{\"node\": 1, \"relative_speed\": 2}, {\"node\": 1}], \"links\": {\"matrix\": {"
    "\"latency_us\": [[0, 1, 5, 6], [2, 0, 7, 8], [9, 10, 0, 3], [11, 12, 4, 0]], "
    "\"gigabytes_per_s\": [[1, 30, 1.5, 2], [40, 1, 2.5, 3], [1.25, 3.5, 1, 50], [0.75, 4, 60, 1]], "
    "\"crossing_cost\": [[0, 1, 7, 8], [2, 0, 9, 10], [11, 12, 0, 3], [13, 14, 4, 0]]}}}";

typedef struct {
    char folder[256], path[300];
    world_t world;
    place_plan_t *plan;
    solve_case_t judged;
} fixture_t;

static void make(fixture_t *at, uint32_t layers, uint32_t top_k, uint64_t seed, uint32_t rarity)
{
    *at = (fixture_t){
        .world = {.layers = layers, .experts = 7, .ranks = RANKS, .top_k = top_k, .tokens = 61, .random = seed}};
    temporary_make(at->folder);
    snprintf(at->path, sizeof(at->path), "%s/t.trace.safetensors", at->folder);
    world_make(&at->world, at->path, CLUSTER);
    at->plan = world_plan(&at->world, rarity);
    at->judged = (solve_case_t){.stats = at->world.stats,
                                .cluster = at->world.cluster,
                                .row_bytes = 1000,
                                .expert_ns = 812.5,
                                .step_tokens = 16};
}

static void unmake(fixture_t *at)
{
    place_plan_destroy(at->plan);
    world_free(&at->world);
    temporary_remove(at->folder);
}

static solve_figures_t judge(const fixture_t *at)
{
    solve_figures_t figures = {0};
    assert_ok(solve_judge(&at->judged, at->plan, &figures, NULL));
    return figures;
}

static uint32_t serve(const fixture_t *at, uint32_t layer, uint32_t expert, uint32_t home)
{
    return place_plan_rank(at->plan, layer, expert, home);
}

static const place_link_t *link_of(const fixture_t *at, uint32_t a, uint32_t b)
{
    return place_cluster_link(at->world.cluster, a, b);
}

/* ---- crossings and balance ---- */

/* Sums over all tokens, homes and pairs of choices; the second layer's copy is chosen from where the first one is. */
static double recount_crossings(const fixture_t *at, uint32_t layer)
{
    const world_t *w = &at->world;
    double sum = 0;
    for (uint32_t t = 0; t < w->tokens; t++)
        for (uint32_t h = 0; h < w->ranks; h++)
            for (uint32_t i = 0; i < w->top_k; i++)
                for (uint32_t j = 0; j < w->top_k; j++) {
                    uint32_t a = serve(at, layer, world_expert(w, t, layer, i), h);
                    uint32_t b = serve(at, layer + 1, world_expert(w, t, layer + 1, j), a);
                    sum += a != b ? (double)link_of(at, a, b)->crossing_cost : 0;
                }
    return sum / w->ranks;
}

static void crossings_are_the_plain_count(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        fixture_t at;
        make(&at, 4, 1 + (uint32_t)seed % 3, seed, 0);
        double sum = 0;
        for (uint32_t l = 0; l + 1 < 4; l++) sum += recount_crossings(&at, l);
        solve_figures_t figures;
        solve_detail_t detail;
        assert_ok(solve_judge(&at.judged, at.plan, &figures, &detail));
        assert_int_equal(figures.crossings, (int64_t)sum);
        int64_t flow = 0;
        for (uint32_t link = 0; link < RANKS * RANKS; link++)
            flow += detail.flow[link] * (link / RANKS == link % RANKS ? 0 : at.world.cluster->link[link].crossing_cost);
        assert_int_equal(flow, figures.crossings * 1000);
        solve_detail_free(&detail);
        assert_int_equal(figures.transitions, 61 * 3 * at.world.top_k * at.world.top_k);
        unmake(&at);
    }
}

/* Over one boundary the chain is no approximation, and quarters are whole numbers of 2^-20. */
static void replicas_cross_as_their_homes_say(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        fixture_t at;
        make(&at, 2, 2, seed, 3);
        assert_int_equal(judge(&at).crossings, (int64_t)floor(recount_crossings(&at, 0) + 0.5));
        unmake(&at);
    }
}

/* The chain in doubles, from the definition: shares of each expert's tokens by rank, layer after layer. */
static double chain(const fixture_t *at)
{
    const world_t *w = &at->world;
    double share[7][RANKS] = {{0}}, cost = 0;
    for (uint32_t e = 0; e < w->experts; e++)
        for (uint32_t h = 0; h < RANKS; h++) share[e][serve(at, 0, e, h)] += 1.0 / RANKS;
    for (uint32_t l = 0; l + 1 < w->layers; l++) {
        double next[7][RANKS] = {{0}}, all[7] = {0};
        for (uint32_t t = 0; t < w->tokens; t++)
            for (uint32_t i = 0; i < w->top_k * w->top_k; i++)
                for (uint32_t a = 0; a < RANKS; a++) {
                    uint32_t e = world_expert(w, t, l, i / w->top_k), f = world_expert(w, t, l + 1, i % w->top_k);
                    uint32_t b = serve(at, l + 1, f, a);
                    cost += a != b ? share[e][a] * (double)link_of(at, a, b)->crossing_cost : 0;
                    next[f][b] += share[e][a];
                    all[f] += share[e][a];
                }
        for (uint32_t e = 0; e < w->experts; e++)
            for (uint32_t r = 0; r < RANKS; r++) share[e][r] = all[e] > 0 ? next[e][r] / all[e] : 0;
    }
    return cost;
}

static void shares_flow_along_the_chain(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        fixture_t at;
        make(&at, 5, 2, seed, 2);
        double expected = chain(&at);
        assert_true(fabs((double)judge(&at).crossings - expected) <= 0.5 + expected * 5 * 4e-6);
        unmake(&at);
    }
}

static int64_t recount_load(const fixture_t *at, uint32_t layer, uint32_t rank)
{
    int64_t load = 0;
    for (uint32_t t = 0; t < at->world.tokens; t++)
        for (uint32_t h = 0; h < RANKS; h++)
            for (uint32_t k = 0; k < at->world.top_k; k++)
                load += serve(at, layer, world_expert(&at->world, t, layer, k), h) == rank;
    return load;
}

static void loads_and_balance(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        fixture_t at;
        make(&at, 3, 2, seed, seed % 2 == 0 ? 2 : 0);
        solve_figures_t figures;
        solve_detail_t detail;
        assert_ok(solve_judge(&at.judged, at.plan, &figures, &detail));
        const int64_t slowness[RANKS] = {1000, 2000, 500, 1000};
        int64_t balance = 0, heaviest = 0;
        for (uint32_t l = 0; l < 3; l++) {
            int64_t worst = 0;
            for (uint32_t r = 0; r < RANKS; r++) {
                int64_t load = recount_load(&at, l, r);
                assert_int_equal(detail.load[l * RANKS + r], load);
                if (load * slowness[r] > worst) worst = load * slowness[r];
                if (load > heaviest) heaviest = load;
            }
            balance += worst;
        }
        assert_int_equal(figures.balance, balance / RANKS);
        assert_true(fabs(figures.largest_load - (double)heaviest / (61 * 2)) < 1e-12);
        solve_detail_free(&detail);
        unmake(&at);
    }
}

/* ---- step time ---- */

typedef struct {
    int64_t rows[RANKS][RANKS];
} matrix_t;

static int64_t up(__int128 a, __int128 b)
{
    return (int64_t)((a + b - 1) / b);
}

/* Largest over ranks and directions of 4 steps' dearest latency and the rows' time; 61 tokens are 4 steps of 16. */
static int64_t time_of(const fixture_t *at, const matrix_t *m, int64_t unit)
{
    __int128 longest = 0;
    for (uint32_t r = 0; r < RANKS; r++)
        for (int send = 0; send < 2; send++) {
            __int128 sum = 0;
            int64_t latency = 0;
            for (uint32_t p = 0; p < RANKS; p++) {
                int64_t rows = send ? m->rows[r][p] : m->rows[p][r];
                if (p == r || rows == 0) continue;
                const place_link_t *link = send ? link_of(at, r, p) : link_of(at, p, r);
                sum += (__int128)rows * llround(1e6 / link->gigabytes_per_s);
                if (llround(link->latency_us * 1e6) > latency) latency = llround(link->latency_us * 1e6);
            }
            sum += (__int128)4 * latency * unit;
            if (sum > longest) longest = sum;
        }
    return up(longest, (__int128)unit * 1000);
}

static int64_t compute_of(const fixture_t *at, uint32_t layer)
{
    const int64_t row_ps[RANKS] = {812500, 1625000, 406250, 812500};
    __int128 longest = 0;
    for (uint32_t r = 0; r < RANKS; r++) {
        __int128 time = (__int128)recount_load(at, layer, r) * row_ps[r];
        if (time > longest) longest = time;
    }
    return up(longest, (__int128)RANKS * 1000);
}

static void add_home_token(const fixture_t *at, uint32_t layer, uint32_t token, matrix_t *dispatch, matrix_t *back)
{
    for (uint32_t h = 0; h < RANKS; h++)
        for (uint32_t d = 0; d < RANKS; d++) {
            int64_t here = 0;
            for (uint32_t k = 0; k < at->world.top_k; k++)
                here += serve(at, layer, world_expert(&at->world, token, layer, k), h) == d;
            dispatch->rows[h][d] += here > 0;
            back->rows[d][h] += here;
        }
}

static int64_t total(const matrix_t *m)
{
    int64_t sum = 0;
    for (uint32_t a = 0; a < RANKS; a++)
        for (uint32_t b = 0; b < RANKS; b++) sum += a != b ? m->rows[a][b] : 0;
    return sum;
}

static void home_token_by_token(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        fixture_t at;
        make(&at, 3, 1 + (uint32_t)seed % 3, seed, seed % 2 == 0 ? 2 : 0);
        at.judged.trace = &at.world.trace;
        at.judged.traces = 1;
        int64_t exchange = 0, compute = 0, rows = 0;
        for (uint32_t l = 0; l < 3; l++) {
            matrix_t dispatch = {0}, back = {0};
            for (uint32_t t = 0; t < at.world.tokens; t++) add_home_token(&at, l, t, &dispatch, &back);
            exchange += time_of(&at, &dispatch, RANKS) + time_of(&at, &back, RANKS);
            compute += compute_of(&at, l);
            rows += total(&dispatch) + total(&back);
        }
        solve_figures_t figures = judge(&at);
        assert_int_equal(figures.copies, SOLVE_COPIES_TOKENS);
        assert_int_equal(figures.steps, 4);
        assert_int_equal(figures.exchange_ns, exchange);
        assert_int_equal(figures.compute_ns, compute);
        assert_int_equal(figures.step_ns, exchange + compute);
        assert_int_equal(figures.exchanged, rows * (1000 / RANKS));
        unmake(&at);
    }
}

/* Copies to each destination from the counts alone: with coactivation Kwerel's bound, without it every expert's. */
static void home_from_counts(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        bool pairs = seed % 2 == 0;
        fixture_t at;
        make(&at, 2, 3, seed, seed > 4 ? 2 : 0);
        int64_t exchange = 0;
        for (uint32_t l = 0; l < 2; l++) {
            matrix_t exact = {0}, back = {0}, bound = {0};
            for (uint32_t t = 0; t < at.world.tokens; t++) add_home_token(&at, l, t, &exact, &back);
            for (uint32_t h = 0; h < RANKS; h++)
                for (uint32_t d = 0; d < RANKS; d++) {
                    int64_t single = 0, twice = 0, experts = 0;
                    for (uint32_t e = 0; e < 7; e++) experts += serve(&at, l, e, h) == d;
                    for (uint32_t t = 0; t < at.world.tokens; t++) {
                        int64_t here = 0;
                        for (uint32_t k = 0; k < 3; k++)
                            here += serve(&at, l, world_expert(&at.world, t, l, k), h) == d;
                        single += here;
                        twice += here * (here - 1) / 2;
                    }
                    int64_t most = experts < 3 ? experts : 3, copies = single;
                    if (pairs && most > 0) copies -= 2 * twice / most;
                    if (copies > 61) copies = 61;
                    bound.rows[h][d] = copies;
                    assert_true(copies >= exact.rows[h][d]);
                }
            exchange += time_of(&at, &bound, RANKS) + time_of(&at, &back, RANKS);
        }
        if (!pairs) {
            cot_free(at.world.stats->coactivation);
            at.world.stats->coactivation = NULL;
        }
        solve_figures_t figures = judge(&at);
        assert_int_equal(figures.copies, pairs ? SOLVE_COPIES_PAIRS : SOLVE_COPIES_DUPLICATES);
        assert_int_equal(figures.exchange_ns, exchange);
        unmake(&at);
    }
}

static void shuffle_token_by_token(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        fixture_t at;
        make(&at, 2, 2, seed, seed > 4 ? 2 : 0);
        at.judged.exchange = SOLVE_SHUFFLE;
        at.judged.trace = seed % 2 == 0 ? &at.world.trace : NULL;
        at.judged.traces = 1;
        int64_t exchange = 0;
        for (uint32_t l = 0; l < 2; l++) {
            matrix_t out = {0}, back = {0}, constant;
            for (uint32_t a = 0; a < RANKS * RANKS; a++) constant.rows[a / RANKS][a % RANKS] = 61;
            for (uint32_t i = 0; i < 61 * 2 * RANKS; i++) { /* token, the choice it sits with, from which home */
                uint32_t t = i / (2 * RANKS), k = i / RANKS % 2, visited = 0;
                uint32_t a = serve(&at, l, world_expert(&at.world, t, l, k), i % RANKS);
                for (uint32_t j = 0; j < 2; j++) {
                    uint32_t b = serve(&at, l, world_expert(&at.world, t, l, j), a);
                    bool copy = at.judged.trace == NULL || (visited & 1U << b) == 0;
                    visited |= 1U << b;
                    out.rows[a][b] += copy;
                    back.rows[b][a]++;
                }
            }
            exchange += 2 * time_of(&at, &constant, RANKS) + time_of(&at, &out, 2 * RANKS) +
                        time_of(&at, &back, 2 * RANKS);
        }
        assert_int_equal(judge(&at).exchange_ns, exchange);
        unmake(&at);
    }
}

/* Layer 0 comes from the homes; then from each of the layer's k experts to the next's; gathered at each of the k. */
static void coherent_token_by_token(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        uint32_t k = seed > 4 ? 2 : 1;
        fixture_t at;
        make(&at, 3, k, seed, 0);
        at.judged.exchange = SOLVE_COHERENT;
        at.judged.trace = seed % 2 == 0 ? &at.world.trace : NULL;
        at.judged.traces = 1;
        int64_t exchange = 0;
        for (uint32_t l = 0; l < 3; l++) {
            matrix_t out = {0}, gather = {0};
            for (uint32_t i = 0; i < 61 * k * RANKS; i++) {
                uint32_t t = i / (k * RANKS), h = i % RANKS, from = i / RANKS % k, visited = 0;
                uint32_t a = l == 0 ? h : serve(&at, l - 1, world_expert(&at.world, t, l - 1, from), 0);
                for (uint32_t j = 0; j < k; j++) {
                    uint32_t b = serve(&at, l, world_expert(&at.world, t, l, j), 0);
                    bool copy = at.judged.trace == NULL || (visited & 1U << b) == 0;
                    visited |= 1U << b;
                    out.rows[a][b] += copy;
                    gather.rows[b][serve(&at, l, world_expert(&at.world, t, l, from), 0)]++;
                }
            }
            exchange += time_of(&at, &out, (int64_t)k * RANKS) + (k > 1 ? time_of(&at, &gather, 2 * RANKS) : 0);
        }
        assert_int_equal(judge(&at).exchange_ns, exchange);
        unmake(&at);
    }
}

static void decode_weighs_activated_experts(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        fixture_t at;
        make(&at, 2, 2, seed, seed > 2 ? 2 : 0);
        at.judged.decode = true;
        const double speed[RANKS] = {1, 0.5, 2, 1};
        double compute = 0, balance = 0;
        for (uint32_t l = 0; l < 2; l++) {
            double longest = 0; /* activations / speed */
            for (uint32_t r = 0; r < RANKS; r++) {
                double active = 0;
                for (uint32_t e = 0; e < 7; e++) {
                    double homes = 0, load = (double)at.world.stats->load[l * 7 + e];
                    for (uint32_t h = 0; h < RANKS; h++) homes += serve(&at, l, e, h) == r;
                    active += 4 * (1 - pow(1 - load * homes / RANKS / 61, 16));
                }
                longest = fmax(longest, active / speed[r]);
            }
            compute += longest * 812.5;
            balance += longest;
        }
        /* Each of 7 experts is rounded to a thousandth of an activation, each of 2 layers to a nanosecond. */
        solve_figures_t figures = judge(&at);
        assert_true(fabs((double)figures.compute_ns - compute) <= 2 * (7 * 0.0005 * 812.5 / 0.5 + 1));
        assert_true(fabs((double)figures.balance / 1000 - balance) <= 2 * (7 * 0.0005 / 0.5) + 0.001);
        unmake(&at);
    }
}

/* ---- by a problem's objective ---- */

static int64_t value_of(const fixture_t *at, solve_objective_t objective, bool decode)
{
    solve_problem_config_t config = {.stats = at->world.stats,
                                     .cluster = at->world.cluster,
                                     .objective = objective,
                                     .decode = decode,
                                     .lambda = 0.5,
                                     .row_bytes = 1000,
                                     .expert_ns_per_row = 812.5,
                                     .expert_ns_per_touch = 812.5,
                                     .step_tokens = 16};
    solve_problem_t *problem = NULL;
    solve_figures_t figures = {0};
    assert_ok(solve_problem_create(&config, &problem));
    for (uint32_t r = 0; r < RANKS; r++) problem->slots[r] = 7;
    assert_ok(solve_evaluate(problem, at->plan, &figures));
    solve_problem_destroy(problem);
    return figures.value;
}

static void objectives_in_thousandths(void **state)
{
    (void)state;
    fixture_t at;
    make(&at, 3, 2, 5, 3);
    for (int decode = 0; decode < 2; decode++) {
        at.judged.decode = decode;
        solve_figures_t figures = judge(&at);
        assert_int_equal(value_of(&at, SOLVE_CROSSINGS, decode), figures.crossings * 1000);
        assert_int_equal(value_of(&at, SOLVE_BALANCE, decode), figures.balance);
        /* lambda x top_k x ranks = 0.5 x 2 x 4 */
        assert_int_equal(value_of(&at, SOLVE_WEIGHTED, decode), figures.crossings * 1000 + 4 * figures.balance);
        assert_int_equal(value_of(&at, SOLVE_STEP_TIME, decode), figures.step_ns * 1000);
    }
    unmake(&at);
}

/* ---- what cannot be judged ---- */

static void unfit_inputs_are_refused(void **state)
{
    (void)state;
    fixture_t at;
    make(&at, 2, 2, 1, 0);
    solve_figures_t figures;
    const uint32_t slots[RANKS] = {1, 1, 1, 1};
    at.judged.slots = slots;
    assert_fails(solve_judge(&at.judged, at.plan, &figures, NULL), COT_ERR_LIMIT, "in 1 slots");
    at.judged.slots = NULL;
    place_plan_t *other = NULL, *mine = at.plan;
    assert_ok(place_plan_contiguous(2, at.world.stats->layer_index, 7, 3, &other));
    at.plan = other;
    assert_fails(solve_judge(&at.judged, at.plan, &figures, NULL), COT_ERR_MISMATCH, "3 ranks");
    place_plan_destroy(other);
    assert_ok(place_plan_contiguous(2, at.world.stats->layer_index, 8, RANKS, &other));
    at.plan = other;
    assert_fails(solve_judge(&at.judged, at.plan, &figures, NULL), COT_ERR_MISMATCH, "8 experts");
    place_plan_destroy(other);
    at.plan = mine;
    at.judged.step_tokens = 0;
    assert_fails(solve_judge(&at.judged, at.plan, &figures, NULL), COT_ERR_INVALID, "--step-tokens");
    at.judged.step_tokens = 16;
    at.world.stats->load[3] = INT64_MAX / 8;
    assert_fails(solve_judge(&at.judged, at.plan, &figures, NULL), COT_ERR_LIMIT, "too large");
    unmake(&at);
}

static void what_counts_cannot_tell(void **state)
{
    (void)state;
    fixture_t at;
    make(&at, 2, 2, 1, 0);
    cot_free(at.world.stats->coactivation);
    at.world.stats->coactivation = NULL;
    solve_figures_t figures;
    at.judged.exchange = SOLVE_SHUFFLE;
    assert_fails(solve_judge(&at.judged, at.plan, &figures, NULL), COT_ERR_UNSUPPORTED, "co-activation");
    at.judged.exchange = SOLVE_COHERENT;
    assert_fails(solve_judge(&at.judged, at.plan, &figures, NULL), COT_ERR_UNSUPPORTED, "co-activation");
    at.judged.expert_ns = 0; /* no step time asked: the rest is still told */
    assert_ok(solve_judge(&at.judged, at.plan, &figures, NULL));
    assert_int_equal(figures.step_ns, -1);
    assert_int_equal(figures.exchanged, -1);
    assert_true(figures.crossings > 0);
    unmake(&at);
}

static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    fixture_t at;
    make(&at, 2, 2, 1, 2);
    size_t live = cot_memory_live_blocks();
    for (int64_t allowed = 0;; allowed++) {
        solve_figures_t figures;
        solve_detail_t detail = {0};
        cot_memory_fail_after(allowed);
        cot_status_t status = solve_judge(&at.judged, at.plan, &figures, &detail);
        cot_memory_fail_after(-1);
        solve_detail_free(&detail);
        assert_int_equal(cot_memory_live_blocks(), live);
        if (status == COT_OK) break;
        assert_true(allowed < 1000);
    }
    unmake(&at);
}

int main(void)
{
    cot_json_setup();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crossings_are_the_plain_count),
        cmocka_unit_test(replicas_cross_as_their_homes_say),
        cmocka_unit_test(shares_flow_along_the_chain),
        cmocka_unit_test(loads_and_balance),
        cmocka_unit_test(home_token_by_token),
        cmocka_unit_test(home_from_counts),
        cmocka_unit_test(shuffle_token_by_token),
        cmocka_unit_test(coherent_token_by_token),
        cmocka_unit_test(decode_weighs_activated_experts),
        cmocka_unit_test(objectives_in_thousandths),
        cmocka_unit_test(unfit_inputs_are_refused),
        cmocka_unit_test(what_counts_cannot_tell),
        cmocka_unit_test(every_failed_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
