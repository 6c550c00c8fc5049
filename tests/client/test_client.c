/* libcoterie-client against a server over a scripted engine. */
#include "base/clock.h"
#include "base/json.h"
#include "client/coterie_client.h"
#include "tests/coordinator/server_world.h"

/* What an answer brought. */
typedef struct {
    cot_buffer_t text, tokens, logprobs;
    uint32_t deltas, tops, loadings;
    uint32_t cancel_after;         /* deltas; 0: never */
    coterie_client_t *slow_client; /* takes its time, and then cancels */
    double progress;
    coterie_client_result_t result;
} answer_t;

static int on_delta(void *user, const coterie_client_delta_t *delta)
{
    answer_t *answer = user;
    answer->deltas++;
    assert_ok(cot_buffer_append(&answer->text, delta->text, delta->text_bytes));
    assert_ok(cot_buffer_append(&answer->tokens, delta->tokens, delta->count * sizeof(int32_t)));
    assert_ok(cot_buffer_append(&answer->logprobs, delta->logprobs, delta->count * sizeof(float)));
    for (uint32_t i = 0; delta->tops != NULL && i < delta->count; i++) answer->tops += delta->tops[i].count;
    if (answer->slow_client != NULL) usleep(3000);
    if (answer->slow_client != NULL && answer->deltas == 30) coterie_client_cancel(answer->slow_client);
    return answer->deltas == answer->cancel_after;
}

static void on_loading(void *user, double progress)
{
    answer_t *answer = user;
    answer->loadings++;
    answer->progress = progress;
}

static void answer_free(answer_t *answer)
{
    cot_buffer_free(&answer->text);
    cot_buffer_free(&answer->tokens);
    cot_buffer_free(&answer->logprobs);
    *answer = (answer_t){0};
}

static coterie_client_request_t ask(const char *text, uint32_t max_tokens)
{
    coterie_client_request_t request;
    coterie_client_request_init(&request);
    request.text = text;
    request.text_bytes = strlen(text);
    request.set = COTERIE_CLIENT_MAX_TOKENS;
    request.max_tokens = max_tokens;
    request.timeout_ms = 10000;
    request.on_delta = on_delta;
    request.on_loading = on_loading;
    return request;
}

static int generate(coterie_client_t *client, coterie_client_request_t *request, answer_t *answer)
{
    request->user = answer;
    answer->result.size = sizeof(answer->result);
    return coterie_client_generate(client, request, &answer->result);
}

static coterie_client_t *connect_to(const server_world_t *world)
{
    coterie_client_options_t options = COTERIE_CLIENT_OPTIONS_INIT;
    coterie_client_t *client = NULL;
    options.address = world->address;
    options.token = world->config.token;
    assert_ok((cot_status_t)coterie_client_connect(&options, &client));
    return client;
}

static void assert_text(const answer_t *answer, const char *wanted)
{
    if (answer->text.size != strlen(wanted) || memcmp(answer->text.data, wanted, answer->text.size) != 0)
        fail_msg("\"%.*s\", wanted \"%s\"", (int)answer->text.size, (const char *)answer->text.data, wanted);
}

/* ---- answers ---- */

static void text_streams(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    server_world_start(&world);
    coterie_client_t *client = connect_to(&world);
    assert_string_equal(coterie_client_model(client), "fake");
    assert_int_equal(coterie_client_vocabulary(client), 1251);
    assert_non_null(strstr(coterie_client_server(client), "coterie"));
    answer_t answer = {0};
    coterie_client_request_t request = ask("hi", 10);
    request.logprobs = 2;
    assert_ok((cot_status_t)generate(client, &request, &answer));
    assert_text(&answer, "abcdefghab");
    assert_int_equal(answer.deltas, 10);
    assert_int_equal(answer.tops, 20);
    assert_int_equal(answer.result.finish, COTERIE_CLIENT_FINISH_LENGTH);
    assert_int_equal(answer.result.prompt_tokens, 2);
    assert_int_equal(answer.result.generated_tokens, 10);
    for (uint32_t i = 0; i < 10; i++)
        assert_true(((const float *)(const void *)answer.logprobs.data)[i] == fake_engine_logprob(i));
    answer_free(&answer);

    request.at_once = 1; /* the same in one piece, on the same connection */
    assert_ok((cot_status_t)generate(client, &request, &answer));
    assert_text(&answer, "abcdefghab");
    assert_int_equal(answer.deltas, 1);
    assert_int_equal(answer.tops, 20);
    answer_free(&answer);
    coterie_client_close(client);
    server_world_finish(&world);
}

static void the_end_of_text_ends_it(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    server_world_script(&world, "one\001two");
    server_world_start(&world);
    coterie_client_t *client = connect_to(&world);
    answer_t answer = {0};
    coterie_client_request_t request = ask("hi", 7);
    assert_ok((cot_status_t)generate(client, &request, &answer));
    assert_text(&answer, "one");
    assert_int_equal(answer.result.finish, COTERIE_CLIENT_FINISH_EOS);
    assert_int_equal(answer.tokens.size / sizeof(int32_t), 4);
    answer_free(&answer);
    request.ignore_eos = 1;
    assert_ok((cot_status_t)generate(client, &request, &answer));
    assert_text(&answer, "onetwo");
    assert_int_equal(answer.result.finish, COTERIE_CLIENT_FINISH_LENGTH);
    answer_free(&answer);
    coterie_client_close(client);
    server_world_finish(&world);
}

static void what_is_not_given_is_the_models(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    server_world_start(&world);
    coterie_client_t *client = connect_to(&world);
    answer_t answer = {0};
    coterie_client_request_t request = ask("hi", 1);
    assert_ok((cot_status_t)generate(client, &request, &answer));
    const coord_sampling_t *used = &world.engine.last_sampling;
    assert_true(used->temperature == 0.5f && used->top_p == 0.75f && used->repetition_penalty == 1.25f);
    assert_int_equal(used->top_k, 11);
    uint64_t seed = answer.result.seed;
    assert_true(used->seed == seed); /* drawn by the server, and told */
    assert_true(seed < (uint64_t)1 << 53);
    answer_free(&answer);
    assert_ok((cot_status_t)generate(client, &request, &answer));
    assert_true(answer.result.seed != seed);
    answer_free(&answer);

    request.set |= COTERIE_CLIENT_TEMPERATURE | COTERIE_CLIENT_SEED | COTERIE_CLIENT_TOP_K | COTERIE_CLIENT_MIN_P;
    request.temperature = 0;
    request.seed = UINT64_MAX;
    request.top_k = 3;
    request.min_p = 0.125f;
    assert_ok((cot_status_t)generate(client, &request, &answer));
    assert_true(used->temperature == 0 && used->top_p == 0.75f && used->min_p == 0.125f);
    assert_int_equal(used->top_k, 3);
    assert_true(used->seed == UINT64_MAX && answer.result.seed == UINT64_MAX);
    answer_free(&answer);
    coterie_client_close(client);
    server_world_finish(&world);
}

static void stop_texts_cut_across_tokens(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    server_world_script(&world, "to EN the END of it"); /* a token for each byte */
    server_world_start(&world);
    coterie_client_t *client = connect_to(&world);
    static const char *const STOPS[] = {"nowhere", "END"};
    answer_t answer = {0};
    coterie_client_request_t request = ask("hi", 30);
    request.stops = STOPS;
    request.stop_count = 2;
    assert_ok((cot_status_t)generate(client, &request, &answer));
    assert_text(&answer, "to EN the ");
    assert_int_equal(answer.result.finish, COTERIE_CLIENT_FINISH_STOP);
    assert_int_equal(answer.result.generated_tokens, 13);
    answer_free(&answer);
    request.max_tokens = 5; /* what was held back comes at the end */
    assert_ok((cot_status_t)generate(client, &request, &answer));
    assert_text(&answer, "to EN");
    assert_int_equal(answer.result.finish, COTERIE_CLIENT_FINISH_LENGTH);
    answer_free(&answer);
    coterie_client_close(client);
    server_world_finish(&world);
}

/* An answer broken off after any number of tokens and resumed gives the same text, the same tokens, the same end. */
static void resume_goes_on_as_if_nothing_had_happened(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    server_world_script(&world, "caf\xc3\xa9 EN \xe2\x82\xac"
                                "END");
    server_world_start(&world);
    coterie_client_t *client = connect_to(&world);
    static const char *const STOPS[] = {"END"};
    enum { TOKENS = 15 };
    int32_t ids[TOKENS];
    for (uint32_t max_tokens = 12; max_tokens <= 16; max_tokens += 2) {
        coterie_client_request_t request = ask("hi", max_tokens);
        request.stops = STOPS;
        request.stop_count = 1;
        answer_t whole = {0};
        assert_ok((cot_status_t)generate(client, &request, &whole));
        size_t count = whole.tokens.size / sizeof(int32_t);
        assert_true(count <= TOKENS);
        memcpy(ids, whole.tokens.data, whole.tokens.size);
        for (uint32_t cut = 1; cut < count; cut++) {
            answer_t first = {.cancel_after = cut}, rest = {0};
            assert_int_equal(generate(client, &request, &first), COTERIE_CLIENT_CANCELLED);
            request.resume = ids;
            request.resume_count = cut;
            assert_ok((cot_status_t)generate(client, &request, &rest));
            request.resume_count = 0;
            assert_ok(cot_buffer_append(&first.text, rest.text.data, rest.text.size));
            assert_ok(cot_buffer_append(&first.tokens, rest.tokens.data, rest.tokens.size));
            assert_int_equal(first.text.size, whole.text.size);
            assert_memory_equal(first.text.data, whole.text.data, whole.text.size);
            assert_int_equal(first.tokens.size, whole.tokens.size);
            assert_memory_equal(first.tokens.data, whole.tokens.data, whole.tokens.size);
            assert_int_equal(rest.result.finish, whole.result.finish);
            assert_int_equal(rest.result.generated_tokens, whole.result.generated_tokens);
            answer_free(&first);
            answer_free(&rest);
        }
        answer_free(&whole);
    }
    coterie_client_close(client);
    server_world_finish(&world);
}

static void a_whole_answer_resumed_is_over_at_once(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    server_world_start(&world);
    coterie_client_t *client = connect_to(&world);
    static const int32_t ENDED[] = {67, SERVER_EOS};
    answer_t answer = {0};
    coterie_client_request_t request = ask("hi", 10);
    request.resume = ENDED;
    request.resume_count = 2;
    assert_ok((cot_status_t)generate(client, &request, &answer));
    assert_int_equal(answer.result.finish, COTERIE_CLIENT_FINISH_EOS);
    assert_int_equal(answer.deltas, 0);
    assert_int_equal(world.engine.submitted, 0);
    answer_free(&answer);
    request.ignore_eos = 1;
    request.max_tokens = 2;
    assert_ok((cot_status_t)generate(client, &request, &answer));
    assert_int_equal(answer.result.finish, COTERIE_CLIENT_FINISH_LENGTH);
    answer_free(&answer);
    coterie_client_close(client);
    server_world_finish(&world);
}

/* ---- refusals ---- */

static void bad_requests_cost_only_themselves(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    server_world_start(&world);
    coterie_client_t *client = connect_to(&world);
    answer_t answer = {0};
    coterie_client_request_t request = ask("hi", 3);
    request.set |= COTERIE_CLIENT_TEMPERATURE;
    request.temperature = -1;
    assert_fails((cot_status_t)generate(client, &request, &answer), COT_ERR_INVALID, "temperature -1");
    request = ask("hi", 0);
    assert_fails((cot_status_t)generate(client, &request, &answer), COT_ERR_INVALID, "max_tokens");
    request = ask("", 3);
    assert_fails((cot_status_t)generate(client, &request, &answer), COT_ERR_INVALID, "empty");
    request = ask("\xff", 3);
    assert_fails((cot_status_t)generate(client, &request, &answer), COT_ERR_INVALID, "UTF-8");
    static const int32_t OUTSIDE[] = {5, 4711};
    request.tokens = OUTSIDE;
    request.token_count = 2;
    assert_fails((cot_status_t)generate(client, &request, &answer), COT_ERR_INVALID, "either");
    request.text = NULL;
    assert_fails((cot_status_t)generate(client, &request, &answer), COT_ERR_INVALID, "4711");
    char longest[1002];
    memset(longest, 'x', sizeof(longest));
    longest[1001] = '\0';
    request = ask(longest, 3);
    assert_fails((cot_status_t)generate(client, &request, &answer), COT_ERR_LIMIT, "--max-prompt");
    request = ask("hi", 3);
    request.stops = (const char *const[]){""};
    request.stop_count = 1;
    assert_fails((cot_status_t)generate(client, &request, &answer), COT_ERR_INVALID, "stop");
    request = ask("hi", 3);
    assert_ok((cot_status_t)generate(client, &request, &answer));
    assert_text(&answer, "abc");
    answer_free(&answer);
    request.size = 8;
    assert_fails((cot_status_t)generate(client, &request, &answer), COT_ERR_INVALID, "size");
    coterie_client_close(client);
    server_world_finish(&world);
}

static void without_a_tokenizer_ids_do(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    world.config.tokenizer = NULL;
    server_world_start(&world);
    coterie_client_t *client = connect_to(&world);
    answer_t answer = {0};
    coterie_client_request_t request = ask("hi", 3);
    assert_fails((cot_status_t)generate(client, &request, &answer), COT_ERR_UNSUPPORTED, "tokenizer.json");
    static const int32_t IDS[] = {5};
    request.text = NULL;
    request.tokens = IDS;
    request.token_count = 1;
    assert_ok((cot_status_t)generate(client, &request, &answer));
    assert_int_equal(answer.text.size, 0);
    assert_int_equal(answer.tokens.size, 3 * sizeof(int32_t));
    answer_free(&answer);
    coterie_client_close(client);
    server_world_finish(&world);
}

static void no_server_is_said_plainly(void **state)
{
    (void)state;
    coterie_client_options_t options = COTERIE_CLIENT_OPTIONS_INIT;
    coterie_client_t *client = NULL;
    options.address = "unix:/nonexistent.sock";
    assert_fails((cot_status_t)coterie_client_connect(&options, &client), COT_ERR_PEER_LOST, "coterie serve");
    options.address = "127.0.0.1:1";
    assert_fails((cot_status_t)coterie_client_connect(&options, &client), COT_ERR_PEER_LOST, "coterie serve");
    options.address = "nonsense";
    assert_fails((cot_status_t)coterie_client_connect(&options, &client), COT_ERR_INVALID, "HOST:PORT");
    options.size = 8;
    assert_fails((cot_status_t)coterie_client_connect(&options, &client), COT_ERR_INVALID, "OPTIONS_INIT");
    coterie_client_close(NULL);

    server_world_t world;
    server_world_init(&world);
    world.config.token = "right";
    server_world_start(&world);
    options = (coterie_client_options_t)COTERIE_CLIENT_OPTIONS_INIT;
    options.address = world.address;
    assert_fails((cot_status_t)coterie_client_connect(&options, &client), COT_ERR_AUTH, "access token");
    options.token = "wrong";
    assert_fails((cot_status_t)coterie_client_connect(&options, &client), COT_ERR_AUTH, "is wrong");
    assert_null(client);
    server_world_finish(&world);
}

static void no_memory_leaves_nothing(void **state)
{
    (void)state;
    coterie_client_options_t options = COTERIE_CLIENT_OPTIONS_INIT;
    coterie_client_t *client = NULL;
    options.address = "unix:/nonexistent.sock";
    size_t live = cot_memory_live_blocks();
    cot_memory_fail_after(0);
    assert_fails((cot_status_t)coterie_client_connect(&options, &client), COT_ERR_NO_MEMORY, "memory");
    cot_memory_fail_after(-1);
    assert_int_equal(cot_memory_live_blocks(), live);

    /* Over a live connection some of these fail on the server instead: either way an error, and nothing is left. */
    server_world_t world;
    server_world_init(&world);
    server_world_start(&world);
    options.address = world.address;
    options.timeout_ms = 2000;
    int status = COTERIE_CLIENT_NO_MEMORY;
    for (int64_t allowed = 1; status != COTERIE_CLIENT_OK; allowed++) {
        assert_true(allowed < 100);
        cot_memory_fail_after(allowed);
        status = coterie_client_connect(&options, &client);
        cot_memory_fail_after(-1);
        if (status != COTERIE_CLIENT_OK) assert_null(client);
    }
    coterie_client_close(client);
    server_world_finish(&world);
}

/* ---- ends ---- */

static void *cancel_later(void *user)
{
    usleep(50000);
    coterie_client_cancel(user);
    return NULL;
}

static void cancelling_from_another_thread(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    world.engine.hold = true;
    server_world_start(&world);
    coterie_client_t *client = connect_to(&world);
    pthread_t thread;
    answer_t answer = {0};
    coterie_client_request_t request = ask("hi", 3);
    assert_int_equal(pthread_create(&thread, NULL, cancel_later, client), 0);
    assert_int_equal(generate(client, &request, &answer), COTERIE_CLIENT_CANCELLED);
    pthread_join(thread, NULL);
    assert_int_equal(answer.result.finish, COTERIE_CLIENT_FINISH_CANCELLED);
    server_world_await_live(&world, 0);
    coterie_client_cancel(client); /* before the next call: it does not run at all, or is cancelled at once */
    assert_int_equal(generate(client, &request, &answer), COTERIE_CLIENT_CANCELLED);
    server_world_hold(&world, false);
    assert_ok((cot_status_t)generate(client, &request, &answer));
    assert_text(&answer, "abc");
    answer_free(&answer);
    coterie_client_close(client);
    server_world_finish(&world);
}

/* The answer comes faster than it is read, so that the client never waits. */
static void cancelling_a_flood(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    server_world_start(&world);
    coterie_client_t *client = connect_to(&world);
    answer_t answer = {.slow_client = client};
    coterie_client_request_t request = ask("hi", 90000);
    assert_int_equal(generate(client, &request, &answer), COTERIE_CLIENT_CANCELLED);
    assert_true(answer.deltas < 100);
    server_world_await_live(&world, 0);
    answer_free(&answer);
    coterie_client_close(client);
    server_world_finish(&world);
}

static void deadlines_end_calls(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    world.engine.hold = true;
    server_world_start(&world);
    coterie_client_t *client = connect_to(&world);
    answer_t answer = {0};
    coterie_client_request_t request = ask("hi", 3);
    request.timeout_ms = 40;
    assert_fails((cot_status_t)generate(client, &request, &answer), COT_ERR_TIMEOUT, "deadline");
    server_world_await_live(&world, 0); /* cancelled on the server, too */
    server_world_hold(&world, false);
    request.timeout_ms = 5000;
    assert_ok((cot_status_t)generate(client, &request, &answer));
    assert_text(&answer, "abc");
    answer_free(&answer);
    coterie_client_close(client);
    server_world_finish(&world);
}

static void *attach_later(void *user)
{
    usleep(300000);
    server_world_attach(user);
    return NULL;
}

static void a_loading_server_is_waited_for(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    world.loading = true;
    server_world_start(&world);
    server_world_lock(&world);
    coord_server_set_progress(world.server, 0.5f);
    server_world_unlock(&world);
    coterie_client_t *client = connect_to(&world);
    coterie_client_state_t server_state = COTERIE_CLIENT_READY;
    double progress = 0;
    assert_ok((cot_status_t)coterie_client_health(client, 1000, &server_state, &progress));
    assert_int_equal(server_state, COTERIE_CLIENT_LOADING);
    assert_true(progress == 0.5);
    answer_t answer = {0};
    coterie_client_request_t request = ask("hi", 3);
    request.timeout_ms = 50;
    assert_fails((cot_status_t)generate(client, &request, &answer), COT_ERR_TIMEOUT, "loading");
    request.timeout_ms = 5000;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, attach_later, &world), 0);
    assert_ok((cot_status_t)generate(client, &request, &answer));
    pthread_join(thread, NULL);
    assert_true(answer.loadings > 0);
    assert_true(answer.progress == 0.5);
    assert_text(&answer, "abc");
    answer_free(&answer);
    coterie_client_close(client);
    server_world_finish(&world);
}

static void a_server_that_dies_is_noticed(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    world.engine.hold = true;
    server_world_start(&world);
    coterie_client_t *client = connect_to(&world);
    server_world_stop(&world);
    answer_t answer = {0};
    coterie_client_request_t request = ask("hi", 3);
    assert_fails((cot_status_t)generate(client, &request, &answer), COT_ERR_PEER_LOST, "lost");
    assert_fails((cot_status_t)generate(client, &request, &answer), COT_ERR_PEER_LOST, "lost");
    coterie_client_close(client);
    server_world_finish(&world);
}

static void status_and_drain(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    server_world_start(&world);
    server_world_lock(&world);
    coord_server_set_rank(world.server, &(coord_server_rank_t){.rank = 1, .threads = 4, .isa = "avx2"});
    server_world_unlock(&world);
    coterie_client_t *client = connect_to(&world);
    char *text = NULL;
    json_t *status = NULL;
    assert_ok((cot_status_t)coterie_client_status(client, 1000, &text));
    assert_ok(cot_json_load_bytes(text, strlen(text), "status", &status));
    assert_string_equal(json_string_value(json_object_get(status, "state")), "ok");
    assert_int_equal(json_integer_value(json_object_get(status, "step")), 881);
    assert_true(json_is_null(json_object_get(status, "plan"))); /* unknown, not empty */
    const json_t *rank = json_array_get(json_object_get(status, "ranks"), 0);
    assert_true(json_real_value(json_object_get(rank, "compute_ms")) == 1.5);
    assert_string_equal(json_string_value(json_object_get(rank, "isa")), "avx2");
    json_decref(status);
    coterie_client_free(text);

    uint32_t unfinished = 9;
    assert_ok((cot_status_t)coterie_client_drain(client, 1000, &unfinished));
    assert_int_equal(unfinished, 0);
    assert_fails((cot_status_t)coterie_client_wait_end(client, 30), COT_ERR_TIMEOUT, "");
    answer_t answer = {0};
    coterie_client_request_t request = ask("hi", 3);
    assert_fails((cot_status_t)generate(client, &request, &answer), COT_ERR_BUSY, "about to end");
    server_world_stop(&world);
    assert_ok((cot_status_t)coterie_client_wait_end(client, 1000));
    coterie_client_close(client);
    server_world_finish(&world);
}

int main(void)
{
    cot_json_setup();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_streams),
        cmocka_unit_test(the_end_of_text_ends_it),
        cmocka_unit_test(what_is_not_given_is_the_models),
        cmocka_unit_test(stop_texts_cut_across_tokens),
        cmocka_unit_test(resume_goes_on_as_if_nothing_had_happened),
        cmocka_unit_test(a_whole_answer_resumed_is_over_at_once),
        cmocka_unit_test(bad_requests_cost_only_themselves),
        cmocka_unit_test(without_a_tokenizer_ids_do),
        cmocka_unit_test(no_server_is_said_plainly),
        cmocka_unit_test(no_memory_leaves_nothing),
        cmocka_unit_test(cancelling_from_another_thread),
        cmocka_unit_test(cancelling_a_flood),
        cmocka_unit_test(deadlines_end_calls),
        cmocka_unit_test(a_loading_server_is_waited_for),
        cmocka_unit_test(a_server_that_dies_is_noticed),
        cmocka_unit_test(status_and_drain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
