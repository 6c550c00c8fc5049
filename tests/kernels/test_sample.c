/* Sampling against a brute-force oracle: the whole vocabulary sorted, every rule applied as its definition says. */
#include "kernels/kern_int.h"
#include "tests/kernels/world.h"

#include <math.h>

enum { MOST = 4096 };

/* Known answers of the Random123 distribution. */
static void philox(void **state)
{
    (void)state;
    const struct {
        uint32_t counter[4], key[2], want[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
        uint32_t out[4];
        kern_philox(known[i].counter, known[i].key, out);
        assert_memory_equal(out, known[i].want, sizeof(out));
    }
}

/* ---- the oracle ---- */

typedef struct {
    double value; /* NaN as minus infinity */
    int32_t id;
} candidate_t;

static int compare(const void *a, const void *b)
{
    const candidate_t *left = a, *right = b;
    if (left->value != right->value) return left->value > right->value ? -1 : 1;
    return left->id < right->id ? -1 : 1;
}

static double clean(float logit)
{
    return isnan(logit) ? -INFINITY : logit;
}

static double weight_of(double value, double max, double temperature)
{
    return value == max ? 1 : exp((value - max) / temperature);
}

static void sorted(const kern_draw_t *draw, uint32_t vocab, bool penalise, candidate_t *out)
{
    for (uint32_t i = 0; i < vocab; i++) {
        float logit = draw->logits[i];
        bool seen = false;
        for (uint32_t h = 0; h < draw->history_tokens; h++) seen |= draw->history[h] == (int32_t)i;
        if (penalise && seen) logit = logit < 0 ? logit * draw->repetition_penalty : logit / draw->repetition_penalty;
        out[i] = (candidate_t){clean(logit), (int32_t)i};
    }
    qsort(out, vocab, sizeof(*out), compare);
}

static int32_t oracle_token(const kern_draw_t *draw, uint32_t vocab)
{
    candidate_t list[MOST];
    sorted(draw, vocab, true, list);
    if (draw->temperature == 0) return list[0].id;
    uint32_t count = draw->top_k > 0 && draw->top_k < vocab ? draw->top_k : vocab, kept = 0;
    double total = 0, before = 0, kept_sum = 0, sum = 0, max = list[0].value, weight[MOST];
    for (uint32_t i = 0; i < count; i++) total += weight[i] = weight_of(list[i].value, max, draw->temperature);
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0 && draw->top_p < 1 && before >= (double)draw->top_p * total) break;
        if (i > 0 && weight[i] < (double)draw->min_p) break;
        before += weight[i];
        kept = i + 1;
    }
    for (uint32_t i = 0; i < kept; i++) kept_sum += weight[i];
    uint32_t bits[4];
    kern_philox((uint32_t[4]){draw->position}, (uint32_t[2]){(uint32_t)draw->seed, (uint32_t)(draw->seed >> 32)}, bits);
    double target = ldexp((double)(((uint64_t)bits[0] << 32 | bits[1]) >> 11), -53) * kept_sum;
    for (uint32_t i = 0; i < kept; i++) {
        sum += weight[i];
        if (sum > target) return list[i].id;
    }
    return list[kept - 1].id;
}

static double oracle_logprob(const kern_draw_t *draw, uint32_t vocab, int32_t token)
{
    candidate_t list[MOST];
    sorted(draw, vocab, false, list);
    double sum = 0, value = clean(draw->logits[token]);
    for (uint32_t i = 0; i < vocab; i++) sum += weight_of(list[i].value, list[0].value, 1);
    return (value == list[0].value ? 0 : value - list[0].value) - log(sum);
}

static void assert_logprob(double got, double want)
{
    if (isinf(want))
        assert_true(got == want);
    else /* float, and a sum of at most 4096 terms in double in another order */
        assert_true(fabs(got - want) <= fabs(want) * 0x1p-23 + 1e-11);
}

static void check(const kern_draw_t *draw, uint32_t vocab)
{
    kern_drawn_t drawn;
    char *scratch = cot_alloc_aligned(kern_sample_scratch_bytes(vocab));
    kern_sample_one(draw, vocab, scratch, &drawn);
    cot_free(scratch);
    assert_int_equal(drawn.token, draw->forced >= 0 ? draw->forced : oracle_token(draw, vocab));
    assert_logprob(drawn.logprob, oracle_logprob(draw, vocab, drawn.token));
    candidate_t list[MOST];
    sorted(draw, vocab, false, list);
    uint32_t wanted = draw->top_logprobs > 0 ? draw->top_logprobs : 1;
    for (uint32_t i = 0; i < wanted; i++) {
        assert_int_equal(drawn.top_token[i], i < vocab ? list[i].id : -1);
        if (i < vocab)
            assert_logprob(drawn.top_logprob[i], oracle_logprob(draw, vocab, list[i].id));
        else
            assert_true(isinf(drawn.top_logprob[i]));
    }
}

/* Logits on a coarse grid, so that ties are many, with now and then a NaN or an infinity. */
static void fill(uint64_t *random, float *logits, uint32_t vocab, bool odd)
{
    for (uint32_t i = 0; i < vocab; i++) {
        logits[i] = (float)(int)(world_next(random) % 64 - 40) * 0.25f;
        uint64_t dice = world_next(random) % 64;
        if (odd && dice == 0) logits[i] = NAN;
        if (odd && dice == 1) logits[i] = -INFINITY;
        if (odd && dice == 2 && vocab % 2 == 0) logits[i] = INFINITY;
    }
}

static void against_oracle(void **state)
{
    (void)state;
    static const uint32_t VOCABS[] = {1, 2, 7, 131, 1000, MOST};
    static const float TEMPERATURES[] = {0, 0.2f, 1, 3}, TOP_PS[] = {1, 0.9f, 0.3f, 0}, MIN_PS[] = {0, 0.05f, 1};
    uint64_t random = 5;
    float logits[MOST];
    int32_t history[40];
    for (int i = 0; i < 4000; i++) {
        uint32_t vocab = VOCABS[i < 400 ? world_next(&random) % 6 : world_next(&random) % 4];
        uint32_t top_ks[] = {0, 1, 5, vocab - 1, vocab, vocab + 1};
        fill(&random, logits, vocab, i % 3 == 0);
        for (int h = 0; h < 40; h++)
            history[h] = (int32_t)(world_next(&random) % (vocab + 3)) - 1; /* some out of range */
        kern_draw_t draw = {.logits = logits,
                            .temperature = TEMPERATURES[world_next(&random) % 4],
                            .top_p = TOP_PS[world_next(&random) % 4],
                            .min_p = MIN_PS[world_next(&random) % 3],
                            .repetition_penalty = i % 2 ? 1.0f : 1.3f,
                            .top_k = top_ks[world_next(&random) % 6],
                            .seed = world_next(&random),
                            .position = (uint32_t)world_next(&random),
                            .history = history,
                            .history_tokens = (uint32_t)(world_next(&random) % 41),
                            .top_logprobs = (uint32_t)(world_next(&random) % 21),
                            .forced = i % 10 == 9 ? (int32_t)(world_next(&random) % vocab) : -1};
        check(&draw, vocab);
    }
}

/* All logits NaN, all minus infinity, one infinity: a valid token each time. */
static void hopeless(void **state)
{
    (void)state;
    const float nothing[3][4] = {
        {NAN, NAN, NAN, NAN}, {-INFINITY, -INFINITY, -INFINITY, -INFINITY}, {-INFINITY, INFINITY, NAN, 3}};
    for (int i = 0; i < 3; i++)
        for (uint32_t position = 0; position < 50; position++) {
            kern_draw_t draw = {.logits = nothing[i],
                                .temperature = (float)(position % 2),
                                .top_p = 1,
                                .repetition_penalty = 1,
                                .position = position,
                                .top_logprobs = 20,
                                .forced = -1};
            check(&draw, 4);
        }
}

/* 30,000 draws from {1/2, 1/4, 1/8, 1/8}: each count within five standard deviations. A draw depends on seed and
 * position alone. */
static void shares(void **state)
{
    (void)state;
    enum { DRAWS = 30000 };
    const float logits[4] = {0, -logf(2), -logf(4), -logf(4)};
    const double want[4] = {0.5, 0.25, 0.125, 0.125};
    uint32_t count[4] = {0};
    uint32_t scratch[16];
    for (uint32_t i = 0; i < DRAWS; i++) {
        kern_draw_t draw = {.logits = logits, .temperature = 1, .top_p = 1, .repetition_penalty = 1, .forced = -1};
        kern_drawn_t drawn, again;
        draw.seed = i / 1000;
        draw.position = i % 1000;
        kern_sample_one(&draw, 4, scratch, &drawn);
        kern_sample_one(&draw, 4, scratch, &again);
        assert_int_equal(drawn.token, again.token);
        count[drawn.token]++;
    }
    for (int t = 0; t < 4; t++) {
        double deviation = sqrt(DRAWS * want[t] * (1 - want[t]));
        assert_true(fabs(count[t] - DRAWS * want[t]) <= 5 * deviation);
    }
}

/* The stage itself: both backends, any number of threads, more draws than threads. */
static void stage(void **state)
{
    (void)state;
    enum { ROWS = 23 };
    world_t world;
    world_create(&SHAPES[0], KERN_BF16, 0, &world);
    const uint32_t vocab = SHAPES[0].vocab;
    float *logits = world_floats(&world.random, (size_t)ROWS * vocab, 4);
    kern_draw_t draw[ROWS];
    for (uint32_t i = 0; i < ROWS; i++)
        draw[i] = (kern_draw_t){.logits = logits + (size_t)i * vocab,
                                .temperature = (float)(i % 3),
                                .top_p = 0.95f,
                                .repetition_penalty = 1,
                                .seed = i,
                                .position = 100 + i,
                                .top_logprobs = 3,
                                .forced = -1};
    kern_drawn_t want[ROWS], got[ROWS];
    kern_config_t config = world_config(&world, KERN_F32);
    kern_t *kern;
    assert_ok(kern_ref.create(&config, &kern));
    memset(want, 0, sizeof(want));
    assert_ok(kern_ref.sample(kern, &(kern_sample_args_t){.rows = ROWS, .draw = draw, .drawn = want}));
    kern_ref.destroy(kern);
    for (unsigned threads = 1; threads <= 3; threads++) {
        assert_ok(cot_pool_create(threads, &config.pool));
        assert_ok(kern_cpu.create(&config, &kern));
        memset(got, 0, sizeof(got));
        assert_ok(kern_cpu.sample(kern, &(kern_sample_args_t){.rows = ROWS, .draw = draw, .drawn = got}));
        assert_memory_equal(got, want, sizeof(got));
        kern_cpu.destroy(kern);
        cot_pool_destroy(config.pool);
    }
    cot_free(logits);
    world_destroy(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox), cmocka_unit_test(against_oracle), cmocka_unit_test(hopeless),
        cmocka_unit_test(shares), cmocka_unit_test(stage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
