/* What the stages stand on: instruction sets by name, create and its refusals, weights, sorting, top-k, exp2. */
#include "kernels/cpu/prims.h"
#include "kernels/kern_int.h"
#include "tests/kernels/world.h"

#include <math.h>

static void names(void **state)
{
    (void)state;
    kern_isa_t isa = KERN_ISA_COUNT;
    assert_true(kern_isa_parse("avx512_bf16", &isa));
    assert_int_equal(isa, KERN_ISA_AVX512_BF16);
    assert_string_equal(kern_isa_name(KERN_ISA_SCALAR), "scalar");
    assert_false(kern_isa_parse("sse", &isa));
    assert_false(kern_isa_parse("", &isa));
    assert_true(kern_isa_present(KERN_ISA_SCALAR));
    assert_true(kern_isa_present(kern_isa_best()));
}

static void bf16(void **state)
{
    (void)state;
    assert_int_equal(kern_float_to_bf16(1.0f), 0x3f80);
    assert_int_equal(kern_float_to_bf16(0x1.01p0f), 0x3f80);     /* a tie goes to even */
    assert_int_equal(kern_float_to_bf16(0x1.03p0f), 0x3f82);     /* so does this one, upwards */
    assert_int_equal(kern_float_to_bf16(0x1.010002p0f), 0x3f81); /* just above the tie */
    assert_int_equal(kern_float_to_bf16(-INFINITY), 0xff80);
    assert_int_equal(kern_float_to_bf16(0x1.fffffep127f), 0x7f80); /* overflows */
    assert_true(isnan(kern_bf16_to_float(kern_float_to_bf16(NAN))));
    assert_int_equal(kern_float_to_bf16(-0.0f), 0x8000);
}

static void refusals(void **state)
{
    (void)state;
    const kern_ops_t *backends[] = {&kern_ref, &kern_cpu};
    world_t world;
    world_create(&SHAPES[1], KERN_BF16, 0, &world);
    for (int b = 0; b < 2; b++) {
        kern_t *kern = NULL;
        kern_config_t config = world_config(&world, KERN_BF16);
        config.head_dim = 15;
        assert_fails(backends[b]->create(&config, &kern), COT_ERR_INVALID, "head_dim 15");
        config.head_dim = KERN_MAX_HEAD_DIM + 2;
        assert_fails(backends[b]->create(&config, &kern), COT_ERR_INVALID, "at most 512");
        config = world_config(&world, KERN_BF16);
        config.kv_heads = 3;
        assert_fails(backends[b]->create(&config, &kern), COT_ERR_INVALID, "4 heads cannot share 3");
        config = world_config(&world, KERN_BF16);
        config.top_k = 5;
        assert_fails(backends[b]->create(&config, &kern), COT_ERR_INVALID, "top_k 5 of 4");
        config = world_config(&world, KERN_BF16);
        config.vocab = 0;
        assert_fails(backends[b]->create(&config, &kern), COT_ERR_INVALID, "is 0");
        assert_null(kern);
        backends[b]->destroy(NULL);
    }
    kern_t *kern = NULL;
    kern_config_t config = world_config(&world, KERN_BF16);
    config.isa = KERN_ISA_COUNT;
    assert_fails(kern_cpu.create(&config, &kern), COT_ERR_UNSUPPORTED, "lacks that");
    for (int isa = 0; isa < KERN_ISA_COUNT; isa++) {
        if (kern_isa_present((kern_isa_t)isa)) continue;
        config.isa = (kern_isa_t)isa;
        assert_fails(kern_cpu.create(&config, &kern), COT_ERR_UNSUPPORTED, kern_isa_name((kern_isa_t)isa));
    }
    world_destroy(&world);
}

static void out_of_memory(void **state)
{
    (void)state;
    const kern_ops_t *backends[] = {&kern_ref, &kern_cpu};
    world_t world;
    world_create(&SHAPES[1], KERN_F32, 0, &world);
    const kern_config_t config = world_config(&world, KERN_BF16);
    const size_t blocks = cot_memory_live_blocks();
    for (int b = 0; b < 2; b++) {
        kern_t *kern = NULL;
        int64_t allowed = 0;
        for (;;) {
            cot_memory_fail_after(allowed);
            cot_status_t status = backends[b]->create(&config, &kern);
            cot_memory_fail_after(-1);
            if (status == COT_OK) break;
            assert_int_equal(status, COT_ERR_NO_MEMORY);
            assert_null(kern);
            assert_int_equal(cot_memory_live_blocks(), blocks);
            allowed++;
        }
        assert_true(allowed > 2);
        assert_true(backends[b]->scratch_bytes(kern) > 0);
        kern_matrix_t matrix = {0};
        cot_memory_fail_after(0);
        assert_fails(backends[b]->matrix_create(kern, world.embed, KERN_F32, 4, 4, &matrix), COT_ERR_NO_MEMORY,
                     "4 x 4");
        cot_memory_fail_after(0);
        assert_null(backends[b]->alloc(kern, 64));
        cot_memory_fail_after(-1);
        assert_null(matrix.data);
        backends[b]->destroy(kern);
    }
    world_destroy(&world);
    assert_int_equal(cot_memory_live_blocks(), 0);
}

/* Borrowed where products can read it as it lies, converted where activations are bf16 and the weight is not. */
static void weights(void **state)
{
    (void)state;
    world_t world;
    world_create(&SHAPES[1], KERN_BF16, 0, &world);
    const float floats[6] = {1, -2, 0x1.01p0f, 0, 3, 4};
    const uint16_t halves[6] = {0x3f80, 0xc000, 0x3f80, 0, 0x4040, 0x4080};
    for (int act = 0; act < 2; act++) {
        kern_config_t config = world_config(&world, (kern_dtype_t)act);
        kern_t *kern;
        kern_matrix_t matrix;
        assert_ok(kern_cpu.create(&config, &kern));
        assert_ok(kern_cpu.matrix_create(kern, halves, KERN_BF16, 2, 3, &matrix));
        assert_ptr_equal(matrix.data, halves);
        assert_null(matrix.owned);
        kern_cpu.matrix_destroy(kern, &matrix);
        assert_ok(kern_cpu.matrix_create(kern, floats, KERN_F32, 2, 3, &matrix));
        if (act == KERN_BF16) {
            assert_memory_equal(matrix.data, halves, sizeof(halves));
            assert_non_null(matrix.owned);
        } else {
            assert_ptr_equal(matrix.data, floats);
        }
        kern_cpu.matrix_destroy(kern, &matrix);
        assert_null(matrix.data);
        kern_cpu.matrix_destroy(kern, &matrix); /* again: nothing to free */
        char *memory = kern_cpu.alloc(kern, 100);
        for (int i = 0; i < 100; i++) assert_int_equal(memory[i], 0);
        kern_cpu.free(kern, memory);
        kern_cpu.destroy(kern);
    }
    world_destroy(&world);
}

static void sorting(void **state)
{
    (void)state;
    const int32_t slot[8] = {2, 0, 2, 3, 0, 0, 2, 3};
    const uint32_t want_order[8] = {1, 4, 5, 0, 2, 6, 3, 7}, want_begin[6] = {0, 3, 3, 6, 8, 8};
    uint32_t order[8], begin[6];
    kern_sort_args_t args = {.assignments = 8, .slots = 5, .slot = slot, .order = order, .slot_begin = begin};
    assert_ok(kern_sort(NULL, &args));
    assert_memory_equal(order, want_order, sizeof(order));
    assert_memory_equal(begin, want_begin, sizeof(begin));
    /* Padding is left out, wherever it stands; the rest of `order` is not written. */
    const int32_t padded[8] = {-1, 4, 0, -1, 4, 0, 1, -1};
    const uint32_t want_padded[8] = {2, 5, 6, 1, 4, 77, 77, 77}, want_padded_begin[6] = {0, 2, 3, 3, 3, 5};
    for (int i = 0; i < 8; i++) order[i] = 77;
    args.slot = padded;
    assert_ok(kern_sort(NULL, &args));
    assert_memory_equal(order, want_padded, sizeof(order));
    assert_memory_equal(begin, want_padded_begin, sizeof(begin));
    args.assignments = 1;
    assert_ok(kern_sort(NULL, &args));
    for (int i = 0; i < 6; i++) assert_int_equal(begin[i], 0);
    args.assignments = 0;
    assert_ok(kern_sort(NULL, &args));
    for (int i = 0; i < 6; i++) assert_int_equal(begin[i], 0);
    args.slots = 0;
    assert_ok(kern_sort(NULL, &args));
    assert_int_equal(begin[0], 0);
}

static void top_k(void **state)
{
    (void)state;
    int32_t expert[6];
    const float tied[6] = {1, 3, 2, 3, 2, 3};
    kern_top_k(tied, 6, 4, expert);
    assert_memory_equal(expert, ((int32_t[]){1, 3, 5, 2}), 4 * sizeof(*expert));
    const float odd[6] = {NAN, -INFINITY, NAN, INFINITY, -1, NAN};
    kern_top_k(odd, 6, 6, expert);
    assert_memory_equal(expert, ((int32_t[]){3, 4, 0, 1, 2, 5}), 6 * sizeof(*expert));
    const float none[6] = {NAN, NAN, NAN, NAN, NAN, NAN};
    kern_top_k(none, 6, 3, expert);
    assert_memory_equal(expert, ((int32_t[]){0, 1, 2}), 3 * sizeof(*expert));
    const float zeros[3] = {-0.0f, 0.0f, -0.0f};
    kern_top_k(zeros, 3, 3, expert);
    assert_memory_equal(expert, ((int32_t[]){0, 1, 2}), 3 * sizeof(*expert));
}

/* A row of NaN among good ones: valid distinct experts for it, unchanged ones for the others. */
static void nan_row(void **state)
{
    (void)state;
    enum { ROWS = 9, BAD = 4 };
    for (int isa = 0; isa < KERN_ISA_COUNT; isa++) {
        if (!isa_here((kern_isa_t)isa)) continue;
        const shape_t *shape = &SHAPES[4]; /* 7 experts, top 3 */
        world_t world;
        session_t session;
        world_create(shape, KERN_BF16, 1, &world);
        kern_config_t config = world_config(&world, KERN_F32);
        config.isa = (kern_isa_t)isa;
        session_create(&world, &kern_cpu, &config, &session);
        float *rows = world_floats(&world.random, (size_t)ROWS * shape->hidden, 1);
        memcpy(session.normed, rows, (size_t)ROWS * shape->hidden * sizeof(float));
        int32_t expert[2][ROWS * 3];
        float weight[2][ROWS * 3];
        for (int pass = 0; pass < 2; pass++) {
            if (pass == 1)
                for (uint32_t i = 0; i < shape->hidden; i++) ((float *)session.normed)[BAD * shape->hidden + i] = NAN;
            const kern_route_args_t args = {.gate = &session.layer[0].router,
                                            .rows = ROWS,
                                            .normed = session.normed,
                                            .expert = expert[pass],
                                            .weight = weight[pass]};
            assert_ok(kern_cpu.route(session.kern, &args));
        }
        for (int t = 0; t < ROWS; t++) {
            const int32_t *chosen = expert[1] + t * 3;
            for (int k = 0; k < 3; k++) assert_in_range(chosen[k], 0, shape->experts - 1);
            assert_true(chosen[0] != chosen[1] && chosen[1] != chosen[2] && chosen[0] != chosen[2]);
            if (t == BAD) continue;
            assert_memory_equal(expert[0] + t * 3, chosen, 3 * sizeof(int32_t));
            assert_memory_equal(weight[0] + t * 3, weight[1] + t * 3, 3 * sizeof(float));
        }
        cot_free(rows);
        session_destroy(&session);
        world_destroy(&world);
    }
}

static const kern_prims_t *prims_of(int isa)
{
    switch (isa) {
#if defined(__x86_64__)
    case KERN_ISA_AVX2: return &kern_prims_avx2;
    case KERN_ISA_AVX512: return &kern_prims_avx512;
    case KERN_ISA_AVX512_BF16: return &kern_prims_avx512_bf16;
#endif
    default: return &kern_prims_scalar;
    }
}

/* Within 4e-7 of 2^x where the result is a normal number, and the same bits wherever in an array x stands. */
static void exp2_everywhere(void **state)
{
    (void)state;
    enum { COUNT = 4099 };
    float *x = cot_alloc_aligned(COUNT * sizeof(*x)), *y = cot_alloc_aligned((COUNT + 16) * sizeof(*y));
    for (int i = 0; i < COUNT; i++) x[i] = -126.0f + 253.5f * (float)i / COUNT;
    for (int isa = 0; isa < KERN_ISA_COUNT; isa++) {
        if (!isa_here((kern_isa_t)isa)) continue;
        const kern_prims_t *prims = prims_of(isa);
        float first[COUNT];
        for (uint32_t shift = 0; shift < 17; shift += 4) {
            memcpy(y + shift, x, COUNT * sizeof(*x));
            prims->exp2(y + shift, COUNT - shift);
            if (shift == 0) memcpy(first, y, sizeof(first));
            assert_memory_equal(first, y + shift, (COUNT - shift) * sizeof(*y));
        }
        for (int i = 0; i < COUNT; i++) {
            double want = exp2(x[i]);
            assert_true(fabs(first[i] - want) <= 4e-7 * want);
        }
        float edge[] = {0, -0.0f, 1, -1, 127.6f, INFINITY, -127, -INFINITY, -1e30f, NAN};
        prims->exp2(edge, 10);
        assert_true(edge[0] == 1 && edge[1] == 1 && edge[2] == 2 && edge[3] == 0.5f);
        assert_true(isinf(edge[4]) && isinf(edge[5]) && edge[6] == 0 && edge[7] == 0 && edge[8] == 0 && isnan(edge[9]));
    }
    cot_free(x);
    cot_free(y);
}

/* Rounding, widening and narrowing are kern_float_to_bf16's, bit by bit, for every upper half of a float. */
static void rounds_like_bf16(void **state)
{
    (void)state;
    enum { COUNT = 65536 * 4 };
    const uint32_t lower[4] = {0, 0x7fff, 0x8000, 0x8001};
    float *in = cot_alloc_aligned(COUNT * sizeof(*in)), *out = cot_alloc_aligned(COUNT * sizeof(*out));
    uint16_t *narrow = cot_alloc_aligned(COUNT * sizeof(*narrow));
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t bits = i / 4 << 16 | lower[i % 4];
        memcpy(&in[i], &bits, sizeof(bits));
    }
    for (int isa = 0; isa < KERN_ISA_COUNT; isa++) {
        if (!isa_here((kern_isa_t)isa)) continue;
        const kern_prims_t *prims = prims_of(isa);
        prims->pack(in, COUNT - 3, KERN_FORM_BF16, narrow);
        for (uint32_t i = 0; i < COUNT - 3; i++)
            if (narrow[i] != kern_float_to_bf16(in[i])) fail_msg("%a: 0x%x", (double)in[i], narrow[i]);
        prims->pack(in, COUNT - 3, KERN_FORM_ROUNDED, out);
        float *widened = cot_alloc_aligned(COUNT * sizeof(*widened));
        prims->widen(narrow, COUNT - 3, widened);
        assert_memory_equal(out, widened, (COUNT - 3) * sizeof(*out));
        cot_free(widened);
    }
    cot_free(in);
    cot_free(out);
    cot_free(narrow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),           cmocka_unit_test(bf16),
        cmocka_unit_test(refusals),        cmocka_unit_test(out_of_memory),
        cmocka_unit_test(weights),         cmocka_unit_test(sorting),
        cmocka_unit_test(top_k),           cmocka_unit_test(nan_row),
        cmocka_unit_test(exp2_everywhere), cmocka_unit_test(rounds_like_bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
