/* Promise 2 of the design, to the bit and for every instruction set: a row's logits depend neither on the other rows of
 * a step, nor on threads, chunking, prefill or decode, which KV blocks it was given, nor on how its weights are
 * aligned.
 *
 * Three sequences of 70, 33 and 5 tokens. The base: all in one step, one thread. Every variant must give the same
 * logits at every position. */
#include "tests/kernels/world.h"

enum { SEQUENCES = 3, MOST = 70, ROWS = 108, VARIANT_BLOCKS = (MOST + 15) / 16 };
static const uint32_t LENGTH[SEQUENCES] = {70, 33, 5};

static int32_t token_at(const shape_t *shape, uint32_t sequence, uint32_t position)
{
    return (int32_t)((sequence * 37 + position * 11 + position * position) % shape->vocab);
}

typedef struct {
    const char *name;
    uint32_t chunk[SEQUENCES]; /* most tokens of a step, by sequence */
    bool alone;                /* one sequence after the other */
    bool reversed;             /* later sequences in the first rows, KV blocks from the end */
} variant_t;

/* The first is the base; with several threads only the first THREADED run: which steps there are and how threads share
 * one are independent questions. */
enum { THREADED = 2 };
static const variant_t VARIANTS[] = {
    {"whole", {128, 128, 128}, false, false}, {"mixed", {1, 7, 3}, false, true},
    {"alone", {128, 128, 128}, true, false},  {"decoded alone", {1, 1, 1}, true, true},
    {"chunks of 7", {7, 7, 7}, false, true},  {"chunks of 64", {64, 64, 64}, true, false},
};

/* Runs all sequences to their end; logits [sequence][position][vocab]. */
static void run_variant(session_t *session, const variant_t *variant, float *logits)
{
    const shape_t *shape = session->world->shape;
    uint32_t done[SEQUENCES] = {0}, blocks[SEQUENCES][VARIANT_BLOCKS];
    for (uint32_t s = 0; s < SEQUENCES; s++)
        for (uint32_t b = 0; b < VARIANT_BLOCKS; b++)
            blocks[s][b] = variant->reversed ? SESSION_BLOCKS - 1 - (b * SEQUENCES + s) : s * VARIANT_BLOCKS + b;
    for (;;) {
        kern_run_t run[SEQUENCES];
        uint32_t runs = 0, rows = 0, of[SEQUENCES];
        int32_t tokens[ROWS];
        for (uint32_t i = 0; i < SEQUENCES; i++) {
            uint32_t s = variant->reversed ? SEQUENCES - 1 - i : i;
            uint32_t left = LENGTH[s] - done[s], count = left < variant->chunk[s] ? left : variant->chunk[s];
            if (count == 0 || (variant->alone && runs > 0)) continue;
            of[runs] = s;
            run[runs++] = (kern_run_t){.row = rows, .rows = count, .position = done[s], .blocks = blocks[s]};
            for (uint32_t t = 0; t < count; t++) tokens[rows++] = token_at(shape, s, done[s] + t);
            done[s] += count;
        }
        if (runs == 0) return;
        session_step(session, run, runs, rows, tokens);
        for (uint32_t r = 0; r < runs; r++)
            memcpy(logits + ((size_t)of[r] * MOST + run[r].position) * shape->vocab,
                   session->logits + (size_t)run[r].row * shape->vocab, run[r].rows * shape->vocab * sizeof(float));
    }
}

static void assert_same(const shape_t *shape, const float *got, const float *want, const char *what)
{
    for (uint32_t s = 0; s < SEQUENCES; s++)
        for (uint32_t p = 0; p < LENGTH[s]; p++) {
            size_t at = ((size_t)s * MOST + p) * shape->vocab;
            if (memcmp(got + at, want + at, shape->vocab * sizeof(float)) == 0) continue;
            fail_msg("%s, shape %s: sequence %u position %u differs: %a, base %a", what, shape->name, s, p,
                     (double)got[at], (double)want[at]);
        }
}

/* One world with its weights `offset` bytes off, on `threads` threads, in all variants. */
static void run_against(const shape_t *shape, const kern_config_t *like, kern_dtype_t dtype, size_t offset,
                        const float *base, float *logits)
{
    world_t world;
    session_t session;
    world_create(shape, dtype, offset, &world);
    kern_config_t config = world_config(&world, like->act);
    config.isa = like->isa;
    config.pool = like->pool;
    session_create(&world, &kern_cpu, &config, &session);
    const uint32_t variants = cot_pool_threads(like->pool) > 1 ? THREADED : sizeof(VARIANTS) / sizeof(*VARIANTS);
    for (uint32_t v = 0; v < variants; v++) {
        const variant_t *variant = &VARIANTS[v];
        char what[128];
        snprintf(what, sizeof(what), "%s act %s weights %s +%zu, %u threads, %s", kern_isa_name(like->isa),
                 like->act == KERN_BF16 ? "bf16" : "f32", dtype == KERN_BF16 ? "bf16" : "f32", offset,
                 cot_pool_threads(like->pool), variant->name);
        run_variant(&session, variant, logits);
        assert_same(shape, logits, base, what);
    }
    session_destroy(&session);
    world_destroy(&world);
}

static void check_shape(const shape_t *shape, kern_isa_t isa, kern_dtype_t act)
{
    const size_t count = (size_t)SEQUENCES * MOST * shape->vocab;
    float *base = cot_calloc(count, sizeof(*base)), *logits = cot_calloc(count, sizeof(*logits));
    assert_true(base != NULL && logits != NULL);
    world_t world;
    session_t session;
    world_create(shape, KERN_BF16, 0, &world);
    kern_config_t config = world_config(&world, act);
    config.isa = isa;
    session_create(&world, &kern_cpu, &config, &session);
    run_variant(&session, &VARIANTS[0], base);
    session_destroy(&session);
    world_destroy(&world);
    for (size_t i = 0; i < (size_t)LENGTH[0] * shape->vocab; i++) assert_true(base[i] == base[i]); /* no NaN */

    for (unsigned threads = 1; threads <= 3; threads++) {
        assert_ok(cot_pool_create(threads, &config.pool));
        /* Weights stored as float32 hold the same numbers: with bf16 activations they are rounded back to the same
         * bits, and widened bf16 ones are them. */
        run_against(shape, &config, threads == 2 ? KERN_F32 : KERN_BF16, threads, base, logits);
        cot_pool_destroy(config.pool);
    }
    cot_free(base);
    cot_free(logits);
}

static void same_bits(void **state)
{
    (void)state;
    for (int isa = 0; isa < KERN_ISA_COUNT; isa++) {
        if (!isa_here((kern_isa_t)isa)) continue;
        for (uint32_t s = 0; s < SHAPES_COUNT; s++) {
            check_shape(&SHAPES[s], (kern_isa_t)isa, KERN_BF16);
            check_shape(&SHAPES[s], (kern_isa_t)isa, KERN_F32);
        }
    }
    assert_int_equal(cot_memory_live_blocks(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_bits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
