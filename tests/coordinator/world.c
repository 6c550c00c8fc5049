#include "tests/coordinator/world.h"

#include "base/log.h"

void world_init(world_t *world)
{
    static const int32_t eos[] = {7};
    memset(world, 0, sizeof(*world));
    world->fake = (fake_config_t){.workers = 2, .route_width = 4};
    world->config = (coord_engine_config_t){.kv_blocks = 512,
                                            .max_context = WORLD_TOKENS,
                                            .max_step_tokens = 64,
                                            .max_sequences = 16,
                                            .max_waiting = 1024,
                                            .vocab = 1000,
                                            .max_logits_rows = 64,
                                            .eos_count = 1,
                                            .eos = eos,
                                            .step_timeout_ms = 20000};
}

void world_start(world_t *world)
{
    world->live_blocks = cot_memory_live_blocks();
    world->warnings = cot_log_warning_count();
    fake_config_t *fake = &world->fake;
    fake->vocab = world->config.vocab;
    fake->slots = world->config.max_sequences;
    fake->kv_blocks = world->config.kv_blocks;
    fake->max_context = world->config.max_context;
    fake->max_step_tokens = world->config.max_step_tokens;
    fake->max_logits_rows = world->config.max_logits_rows;
    if (world->record_bytes > 0)
        assert_ok(place_recorder_create(&(place_trace_info_t){.model = "fake",
                                                              .config_sha256 = "",
                                                              .experts = FAKE_EXPERTS,
                                                              .top_k = 2,
                                                              .layers = 2,
                                                              .layer_index = (const uint32_t[]){0, 3},
                                                              .row_bytes = 64},
                                        world->record_bytes, &world->config.recorder));
    world->fleet = fake_fleet_start(fake);
    world->config.link = fake_fleet_link(world->fleet);
    world->config.workers = fake->workers;
    assert_ok(coord_engine_create(&world->config, &world->engine));
}

void world_finish(world_t *world)
{
    coord_engine_destroy(world->engine);
    fake_fleet_finish(world->fleet);
    place_recorder_destroy(world->config.recorder);
    assert_int_equal(cot_memory_live_blocks(), world->live_blocks);
    assert_int_equal(cot_log_warning_count(), world->warnings);
}

void world_poll(world_t *world, int times)
{
    for (int i = 0; i < times; i++) {
        bool worked = false;
        assert_ok(coord_engine_poll(world->engine, &worked));
    }
}

void world_run(world_t *world)
{
    cot_deadline_t deadline = cot_deadline_in_ms(60000);
    while (!coord_engine_idle(world->engine)) {
        world_poll(world, 1);
        if (cot_deadline_passed(deadline)) fail_msg("the engine is still busy after 60 s");
    }
}

/* ---- requests ---- */

static bool on_token(void *user, const coord_token_t *token)
{
    talk_t *talk = user;
    if (token->position != talk->submit.count + talk->count) fail_msg("a token at position %u", token->position);
    assert_int_equal(talk->finished, 0);
    assert_int_equal(token->tops, talk->submit.sampling.top_logprobs);
    assert_null(token->logits);
    talk->token[talk->count] = token->token;
    talk->logprob[talk->count++] = token->logprob;
    if (talk->count == talk->cancel_after) {
        coord_engine_cancel(talk->world->engine, talk->request);
        if (talk->cancels != NULL && talk->cancels->request != NULL)
            coord_engine_cancel(talk->world->engine, talk->cancels->request);
    }
    return talk->count != talk->stop_after;
}

static void on_scored(void *user, const coord_token_t *token)
{
    talk_t *talk = user;
    if (token->position != talk->count) fail_msg("row %u scored after %u", token->position, talk->count);
    assert_int_equal(talk->finished, 0);
    assert_int_equal(token->logits != NULL, talk->submit.want_logits);
    talk->token[talk->count] = token->token;
    talk->logprob[talk->count++] = token->logprob;
    for (uint32_t v = 0; token->logits != NULL && v < talk->world->config.vocab; v++)
        talk->logits_sum += (uint64_t)(token->logits[v] * 7.0f) * (v + 1);
}

static void on_finished(void *user, coord_finish_t finish, const char *error)
{
    talk_t *talk = user;
    talk->finish = finish;
    talk->finished++;
    talk->request = NULL;
    if (error != NULL) snprintf(talk->error, sizeof(talk->error), "%s", error);
}

void talk_init(talk_t *talk, world_t *world, uint32_t number, uint32_t prompt, uint32_t max_tokens)
{
    static const coord_events_t events = {.token = on_token, .scored = on_scored, .finished = on_finished};
    memset(talk, 0, sizeof(*talk));
    talk->world = world;
    for (uint32_t i = 0; i < prompt && i < WORLD_TOKENS; i++)
        talk->prompt[i] = (int32_t)(fake_mix(number, i) % world->config.vocab);
    talk->submit = (coord_submit_t){
        .tokens = talk->prompt,
        .count = prompt,
        .max_tokens = max_tokens,
        .score = max_tokens == 0,
        .trace_request = number,
        .prompt_count = prompt,
        .sampling = {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .seed = number},
        .events = &events,
        .user = talk,
    };
}

cot_status_t talk_submit(talk_t *talk)
{
    return coord_engine_submit(talk->world->engine, &talk->submit, &talk->request);
}

/* ---- alone ---- */

static void check_scored(const talk_t *talk)
{
    uint32_t vocab = talk->world->config.vocab;
    uint64_t state = FAKE_BEGIN, logits_sum = 0;
    for (uint32_t i = 0; i < talk->count; i++) {
        state = fake_next(state, talk->prompt[i]);
        float logprob = i + 1 < talk->submit.count ? fake_logprob(state, talk->prompt[i + 1]) : 0;
        if (talk->token[i] != fake_top(state, vocab, 0) || talk->logprob[i] != logprob)
            fail_msg("request %u: row %u is scored wrong", talk->submit.trace_request, i);
        for (uint32_t v = 0; talk->submit.want_logits && v < vocab; v++)
            logits_sum += (uint64_t)(fake_logit(state, (int32_t)v) * 7.0f) * (v + 1);
    }
    assert_int_equal(talk->logits_sum, logits_sum);
    if (talk->finish == COORD_FINISH_CANCELLED) return;
    assert_int_equal(talk->finish, COORD_FINISH_LENGTH);
    assert_int_equal(talk->count, talk->submit.count);
}

/* How the request must end after `count` tokens, NONE: it goes on. */
static coord_finish_t end_alone(const talk_t *talk, uint32_t count, int32_t last)
{
    const coord_engine_config_t *config = &talk->world->config;
    uint32_t context = config->kv_blocks * 16 < config->max_context ? config->kv_blocks * 16 : config->max_context;
    if (count == talk->cancel_after) return COORD_FINISH_CANCELLED;
    if (!talk->submit.ignore_eos && config->eos_count > 0 && last == config->eos[0]) return COORD_FINISH_EOS;
    if (count == talk->stop_after) return COORD_FINISH_STOP;
    if (count == talk->submit.max_tokens || talk->submit.count + count == context) return COORD_FINISH_LENGTH;
    return COORD_FINISH_NONE;
}

static void check_drawn(const talk_t *talk)
{
    const coord_sampling_t *sampling = &talk->submit.sampling;
    uint64_t state = FAKE_BEGIN;
    for (uint32_t i = 0; i < talk->submit.count; i++) state = fake_next(state, talk->prompt[i]);
    for (uint32_t i = 0;; i++) {
        if (i == talk->count && talk->finish == COORD_FINISH_CANCELLED) return;
        int32_t token = fake_draw(state, talk->world->config.vocab, sampling->temperature, sampling->seed,
                                  talk->submit.count + i);
        if (i == talk->count || talk->token[i] != token || talk->logprob[i] != fake_logprob(state, token))
            fail_msg("request %u: token %u of %u is wrong", talk->submit.trace_request, i, talk->count);
        coord_finish_t finish = end_alone(talk, i + 1, token);
        if (finish != COORD_FINISH_NONE) {
            assert_int_equal(talk->finish, finish);
            assert_int_equal(talk->count, i + 1);
            return;
        }
        state = fake_next(state, token);
    }
}

void talk_check(const talk_t *talk)
{
    assert_int_equal(talk->finished, 1);
    assert_null(talk->request);
    assert_string_equal(talk->error, "");
    if (talk->submit.score)
        check_scored(talk);
    else
        check_drawn(talk);
}
