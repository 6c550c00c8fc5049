#include "tests/kernels/world.h"

#include <math.h>

const shape_t SHAPES[] = {
    {"wide", 256, 16, 2, 64, 200, 16, 4, 100, 40, KERN_QK_NORM_HEAD, 0, true, false, false},
    {"even", 32, 4, 2, 16, 131, 4, 2, 48, 0, KERN_QK_NORM_HEAD, 0, true, false, false},
    {"one expert", 40, 3, 1, 24, 33, 1, 1, 17, 5, KERN_QK_NORM_NONE, 0, true, false, false},
    {"all experts", 64, 8, 8, 8, 47, 5, 5, 33, 0, KERN_QK_NORM_FULL, 0.5f, false, false, false},
    {"biases, shared", 33, 20, 2, 10, 70, 7, 3, 40, 0, KERN_QK_NORM_NONE, 0, false, true, true},
};
/* The thread sanitizer, forty times slower, looks for races, and those depend neither on the shape nor on the
 * instruction set: the first shape and the best set will do. */
#ifdef __SANITIZE_THREAD__
enum { ONLY_BEST = 1 };
const uint32_t SHAPES_COUNT = 1;
#else
enum { ONLY_BEST = 0 };
const uint32_t SHAPES_COUNT = sizeof(SHAPES) / sizeof(*SHAPES);
#endif

bool isa_here(kern_isa_t isa)
{
    if (ONLY_BEST && isa != kern_isa_best()) return false;
    if (kern_isa_present(isa)) return true;
    print_message("%s: this CPU lacks it, skipped\n", kern_isa_name(isa));
    return false;
}

uint64_t world_next(uint64_t *random)
{
    uint64_t z = (*random += 0x9e3779b97f4a7c15U);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

float *world_floats(uint64_t *random, size_t count, float scale)
{
    float *out = cot_alloc_aligned(count * sizeof(*out) + 1);
    assert_non_null(out);
    for (size_t i = 0; i < count; i++) out[i] = scale * ((float)(world_next(random) >> 40) * 0x1p-23f - 1.0f);
    return out;
}

/* ---- weights ---- */

static char *take(world_t *world, size_t bytes)
{
    char *at = world->memory + world->used + world->offset;
    world->used += (bytes + 63) / 64 * 64 + 64;
    assert_true(world->used <= world->capacity);
    return at;
}

static char *matrix(world_t *world, size_t rows, size_t cols)
{
    char *out = take(world, rows * cols * kern_dtype_bytes(world->dtype));
    float scale = 2.0f / sqrtf((float)cols);
    for (size_t i = 0; i < rows * cols; i++) {
        float value = scale * ((float)(world_next(&world->random) >> 40) * 0x1p-23f - 1.0f);
        uint16_t bits = kern_float_to_bf16(value);
        value = kern_bf16_to_float(bits);
        if (world->dtype == KERN_BF16)
            memcpy(out + i * sizeof(bits), &bits, sizeof(bits));
        else
            memcpy(out + i * sizeof(value), &value, sizeof(value));
    }
    return out;
}

/* Around `middle`; vectors are widened at load, so they are always aligned floats. */
static float *vector(world_t *world, size_t count, float middle)
{
    float *out = (float *)(void *)(take(world, count * sizeof(float)) - world->offset);
    for (size_t i = 0; i < count; i++)
        out[i] = middle + 0.25f * ((float)(world_next(&world->random) >> 40) * 0x1p-23f - 1.0f);
    return out;
}

static void make_layer(world_t *world, uint32_t l)
{
    const shape_t *s = world->shape;
    const size_t q_width = (size_t)s->heads * s->head_dim, kv_width = (size_t)s->kv_heads * s->head_dim;
    const bool full = s->qk_norm == KERN_QK_NORM_FULL;
    world->layer[l].q = matrix(world, q_width, s->hidden);
    world->layer[l].k = matrix(world, kv_width, s->hidden);
    world->layer[l].v = matrix(world, kv_width, s->hidden);
    world->layer[l].o = matrix(world, s->hidden, q_width);
    world->layer[l].input_norm = vector(world, s->hidden, 1);
    world->layer[l].post_norm = vector(world, s->hidden, 1);
    if (s->qk_norm != KERN_QK_NORM_NONE) {
        world->layer[l].q_norm = vector(world, full ? q_width : s->head_dim, 1);
        world->layer[l].k_norm = vector(world, full ? kv_width : s->head_dim, 1);
    }
    if (s->biases) {
        world->layer[l].q_bias = vector(world, q_width, 0);
        world->layer[l].k_bias = vector(world, kv_width, 0);
        world->layer[l].v_bias = vector(world, kv_width, 0);
        world->layer[l].o_bias = vector(world, s->hidden, 0);
    }
    world->layer[l].router = matrix(world, s->experts, s->hidden);
    world->layer[l].shared_gate = matrix(world, 1, s->hidden);
    for (uint32_t e = 0; e <= s->experts; e++) { /* the last is the shared expert */
        world->layer[l].gate[e] = matrix(world, s->width, s->hidden);
        world->layer[l].up[e] = matrix(world, s->width, s->hidden);
        world->layer[l].down[e] = matrix(world, s->hidden, s->width);
    }
}

void world_create(const shape_t *shape, kern_dtype_t dtype, size_t offset, world_t *world_out)
{
    *world_out = (world_t){.shape = shape, .dtype = dtype, .offset = offset, .capacity = 32U << 20, .random = 7};
    world_out->memory = cot_alloc_aligned(world_out->capacity);
    assert_non_null(world_out->memory);
    for (uint32_t l = 0; l < WORLD_LAYERS; l++) make_layer(world_out, l);
    world_out->embed = matrix(world_out, shape->vocab, shape->hidden);
    world_out->lm_head = matrix(world_out, shape->vocab, shape->hidden);
    world_out->final_norm = vector(world_out, shape->hidden, 1);
    for (uint32_t i = 0; i < shape->head_dim / 2; i++) world_out->inv_freq[i] = pow(10000, -2.0 * i / shape->head_dim);
}

void world_destroy(world_t *world)
{
    cot_free(world->memory);
}

kern_config_t world_config(const world_t *world, kern_dtype_t act)
{
    const shape_t *s = world->shape;
    return (kern_config_t){.act = act,
                           .isa = KERN_ISA_SCALAR,
                           .hidden = s->hidden,
                           .heads = s->heads,
                           .kv_heads = s->kv_heads,
                           .head_dim = s->head_dim,
                           .vocab = s->vocab,
                           .experts = s->experts,
                           .top_k = s->top_k,
                           .max_width = s->width,
                           .max_rows = 128,
                           .max_assignments = 128 * s->top_k,
                           .max_context = 512,
                           .norm_eps = 1e-6f,
                           .clip_qkv = s->clip,
                           .norm_topk = s->norm_topk,
                           .qk_norm = s->qk_norm,
                           .inv_freq = world->inv_freq,
                           .rope_factor = 1};
}

/* ---- session ---- */

static void weigh(session_t *session, const char *data, uint32_t rows, uint32_t cols, kern_matrix_t *out)
{
    assert_ok(session->ops->matrix_create(session->kern, data, session->world->dtype, rows, cols, out));
}

static void weigh_ffn(session_t *session, uint32_t l, uint32_t e, kern_ffn_weights_t *out)
{
    const shape_t *s = session->world->shape;
    weigh(session, session->world->layer[l].gate[e], s->width, s->hidden, &out->gate);
    weigh(session, session->world->layer[l].up[e], s->width, s->hidden, &out->up);
    weigh(session, session->world->layer[l].down[e], s->hidden, s->width, &out->down);
}

static void weigh_layer(session_t *session, uint32_t l)
{
    const world_t *world = session->world;
    const shape_t *s = world->shape;
    const uint32_t q_width = s->heads * s->head_dim, kv_width = s->kv_heads * s->head_dim;
    kern_attn_weights_t *attn = &session->layer[l].attn;
    *attn = (kern_attn_weights_t){.input_norm = world->layer[l].input_norm,
                                  .post_norm = world->layer[l].post_norm,
                                  .q_norm = world->layer[l].q_norm,
                                  .k_norm = world->layer[l].k_norm,
                                  .q_bias = world->layer[l].q_bias,
                                  .k_bias = world->layer[l].k_bias,
                                  .v_bias = world->layer[l].v_bias,
                                  .o_bias = world->layer[l].o_bias,
                                  .window = l == 0 ? s->window : 0};
    weigh(session, world->layer[l].q, q_width, s->hidden, &attn->q);
    weigh(session, world->layer[l].k, kv_width, s->hidden, &attn->k);
    weigh(session, world->layer[l].v, kv_width, s->hidden, &attn->v);
    weigh(session, world->layer[l].o, s->hidden, q_width, &attn->o);
    weigh(session, world->layer[l].router, s->experts, s->hidden, &session->layer[l].router);
    weigh(session, world->layer[l].shared_gate, 1, s->hidden, &session->layer[l].shared_gate);
    for (uint32_t e = 0; e < s->experts; e++) weigh_ffn(session, l, e, &session->layer[l].expert[e]);
    weigh_ffn(session, l, s->experts, &session->layer[l].shared);
}

static void *room(session_t *session, size_t bytes)
{
    void *memory = session->ops->alloc(session->kern, bytes);
    assert_non_null(memory);
    return memory;
}

void session_create(const world_t *world, const kern_ops_t *ops, const kern_config_t *config, session_t *session_out)
{
    session_t *session = session_out;
    const shape_t *s = world->shape;
    *session = (session_t){.world = world, .ops = ops, .config = *config};
    assert_ok(ops->create(config, &session->kern));
    const size_t act = kern_dtype_bytes(config->act), rows = config->max_rows, pairs = config->max_assignments;
    for (uint32_t l = 0; l < WORLD_LAYERS; l++) {
        size_t bytes = SESSION_BLOCKS * ops->kv_block_bytes(session->kern);
        weigh_layer(session, l);
        session->layer[l].kv = (kern_kv_t){.data = room(session, bytes), .blocks = SESSION_BLOCKS};
        memset(session->layer[l].kv.data, 0xff, bytes);
    }
    weigh(session, world->embed, s->vocab, s->hidden, &session->embed);
    weigh(session, world->lm_head, s->vocab, s->hidden, &session->lm_head);
    session->x = room(session, rows * s->hidden * sizeof(float));
    session->logits = room(session, rows * s->vocab * sizeof(float));
    session->weight = room(session, rows * s->top_k * sizeof(float));
    session->expert = room(session, rows * s->top_k * sizeof(int32_t));
    session->scale = room(session, rows * sizeof(float));
    session->row = room(session, pairs * sizeof(uint32_t));
    session->order = room(session, pairs * sizeof(uint32_t));
    session->slot_begin = room(session, (s->experts + 1) * sizeof(uint32_t));
    session->q = room(session, rows * s->heads * s->head_dim * act);
    session->attn = room(session, rows * s->heads * s->head_dim * act);
    session->normed = room(session, rows * s->hidden * act);
    session->y = room(session, pairs * s->hidden * act);
    session->shared = room(session, rows * s->hidden * act);
}

static void drop_ffn(session_t *session, kern_ffn_weights_t *ffn)
{
    session->ops->matrix_destroy(session->kern, &ffn->gate);
    session->ops->matrix_destroy(session->kern, &ffn->up);
    session->ops->matrix_destroy(session->kern, &ffn->down);
}

void session_destroy(session_t *session)
{
    const kern_ops_t *ops = session->ops;
    for (uint32_t l = 0; l < WORLD_LAYERS; l++) {
        kern_matrix_t *matrices[] = {&session->layer[l].attn.q, &session->layer[l].attn.k,
                                     &session->layer[l].attn.v, &session->layer[l].attn.o,
                                     &session->layer[l].router, &session->layer[l].shared_gate};
        for (size_t i = 0; i < sizeof(matrices) / sizeof(*matrices); i++)
            ops->matrix_destroy(session->kern, matrices[i]);
        for (uint32_t e = 0; e < session->config.experts; e++) drop_ffn(session, &session->layer[l].expert[e]);
        drop_ffn(session, &session->layer[l].shared);
        ops->free(session->kern, session->layer[l].kv.data);
    }
    ops->matrix_destroy(session->kern, &session->embed);
    ops->matrix_destroy(session->kern, &session->lm_head);
    void *memory[] = {session->x,      session->logits, session->weight,     session->expert, session->scale,
                      session->row,    session->order,  session->slot_begin, session->q,      session->attn,
                      session->normed, session->y,      session->shared};
    for (size_t i = 0; i < sizeof(memory) / sizeof(*memory); i++) ops->free(session->kern, memory[i]);
    ops->destroy(session->kern);
}

static void feed_forward(session_t *session, uint32_t l, uint32_t rows)
{
    const kern_ops_t *ops = session->ops;
    const shape_t *s = session->world->shape;
    assert_ok(ops->route(session->kern, &(kern_route_args_t){.gate = &session->layer[l].router,
                                                             .rows = rows,
                                                             .normed = session->normed,
                                                             .expert = session->expert,
                                                             .weight = session->weight}));
    for (uint32_t a = 0; a < rows * s->top_k; a++) session->row[a] = a / s->top_k;
    assert_ok(ops->sort(session->kern, &(kern_sort_args_t){.assignments = rows * s->top_k,
                                                           .slots = s->experts,
                                                           .slot = session->expert,
                                                           .order = session->order,
                                                           .slot_begin = session->slot_begin}));
    assert_ok(ops->experts(session->kern, &(kern_experts_args_t){.expert = session->layer[l].expert,
                                                                 .slots = s->experts,
                                                                 .assignments = rows * s->top_k,
                                                                 .x = session->normed,
                                                                 .row = session->row,
                                                                 .order = session->order,
                                                                 .slot_begin = session->slot_begin,
                                                                 .y = session->y}));
    if (s->shared)
        assert_ok(ops->mlp(session->kern, &(kern_mlp_args_t){.ffn = &session->layer[l].shared,
                                                             .gate = &session->layer[l].shared_gate,
                                                             .rows = rows,
                                                             .normed = session->normed,
                                                             .y = session->shared,
                                                             .scale = session->scale}));
    assert_ok(ops->combine(session->kern, &(kern_combine_args_t){.rows = rows,
                                                                 .top_k = s->top_k,
                                                                 .weight = session->weight,
                                                                 .y = session->y,
                                                                 .shared = s->shared ? session->shared : NULL,
                                                                 .scale = session->scale,
                                                                 .x = session->x}));
}

void session_step(session_t *session, const kern_run_t *run, uint32_t runs, uint32_t rows, const int32_t *tokens)
{
    const kern_ops_t *ops = session->ops;
    uint32_t row[128];
    assert_true(rows <= 128);
    for (uint32_t r = 0; r < rows; r++) row[r] = r;
    assert_ok(
        ops->embed(session->kern,
                   &(kern_embed_args_t){.table = &session->embed, .rows = rows, .tokens = tokens, .x = session->x}));
    for (uint32_t l = 0; l < WORLD_LAYERS; l++) {
        kern_attn_weights_t *attn = &session->layer[l].attn;
        assert_ok(ops->attn_in(session->kern, &(kern_attn_in_args_t){.weights = attn,
                                                                     .rows = rows,
                                                                     .runs = runs,
                                                                     .run = run,
                                                                     .x = session->x,
                                                                     .q = session->q,
                                                                     .kv = &session->layer[l].kv}));
        assert_ok(ops->attention(session->kern, &(kern_attention_args_t){.weights = attn,
                                                                         .rows = rows,
                                                                         .runs = runs,
                                                                         .run = run,
                                                                         .q = session->q,
                                                                         .kv = &session->layer[l].kv,
                                                                         .out = session->attn}));
        assert_ok(ops->attn_out(
            session->kern,
            &(kern_attn_out_args_t){
                .weights = attn, .rows = rows, .attn = session->attn, .x = session->x, .normed = session->normed}));
        feed_forward(session, l, rows);
    }
    assert_ok(ops->head(session->kern, &(kern_head_args_t){.norm = session->world->final_norm,
                                                           .lm_head = &session->lm_head,
                                                           .rows = rows,
                                                           .row = row,
                                                           .x = session->x,
                                                           .logits = session->logits}));
}
