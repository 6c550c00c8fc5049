/* The RPC server against clients made by hand: what they may do wrong costs themselves alone. */
#include "base/clock.h"
#include "proto/limits.h"
#include "tests/coordinator/server_world.h"

#include <sys/socket.h>

static void assert_text(const cot_buffer_t *text, const char *wanted)
{
    assert_int_equal(text->size, strlen(wanted));
    assert_memory_equal(text->data, wanted, text->size);
}

/* The server still answers others. */
static void assert_alive(const server_world_t *world)
{
    int fd = raw_admitted(world);
    cot_buffer_t text = {0};
    raw_generate(fd, 1, 3);
    assert_int_equal(raw_collect(fd, 1, &text), COTERIE__FINISH__LENGTH);
    assert_text(&text, "abc");
    cot_buffer_free(&text);
    close(fd);
}

/* ---- Hello and frames ---- */

static void hello_comes_first(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    world.config.token = "open sesame";
    server_world_start(&world);

    int fd = raw_connect(&world);
    raw_simple(fd, 1, COTERIE__ENVELOPE__BODY_HEALTH_REQUEST);
    raw_expect_error(fd, 0, COTERIE__CODE__PROTOCOL, "Hello");
    raw_expect_end(fd);

    fd = raw_connect(&world);
    raw_hello(fd, RPC_PROTOCOL_VERSION + 1, "open sesame");
    raw_expect_error(fd, 0, COTERIE__CODE__PROTOCOL, "version");
    raw_expect_end(fd);

    static const char *const WRONG[] = {"open sesamE", "open", "open sesame!", "open sesameopen sesame", ""};
    for (size_t i = 0; i < sizeof(WRONG) / sizeof(*WRONG); i++) {
        fd = raw_connect(&world);
        raw_hello(fd, RPC_PROTOCOL_VERSION, WRONG[i]);
        raw_expect_error(fd, 0, COTERIE__CODE__AUTH, "--token-file");
        raw_expect_end(fd);
    }
    fd = raw_connect(&world);
    raw_hello(fd, RPC_PROTOCOL_VERSION, NULL);
    raw_expect_error(fd, 0, COTERIE__CODE__AUTH, "wants an access token");
    raw_expect_end(fd);

    fd = raw_admitted(&world);
    raw_hello(fd, RPC_PROTOCOL_VERSION, "open sesame"); /* once is enough; it has no id either */
    raw_expect_error(fd, 0, COTERIE__CODE__PROTOCOL, "id");
    raw_expect_end(fd);
    assert_alive(&world);
    server_world_finish(&world);
}

static void garbage_ends_one_connection(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    server_world_start(&world);
    int witness = raw_admitted(&world);

    int fd = raw_connect(&world);
    raw_send(fd, "GET / HTTP/1.1\r\n\r\n", 18);
    raw_expect_error(fd, 0, COTERIE__CODE__PROTOCOL, "does not speak Coterie's protocol");
    raw_expect_end(fd);

    fd = raw_admitted(&world);
    raw_send(fd, "\0\0\0\5\xff\xff\xff\xff\xff", 9);
    raw_expect_error(fd, 0, COTERIE__CODE__PROTOCOL, "holds no message");
    raw_expect_end(fd);

    fd = raw_admitted(&world);
    raw_send(fd, "\0\0\0\0", 4);
    raw_expect_error(fd, 0, COTERIE__CODE__PROTOCOL, "empty frame");
    raw_expect_end(fd);

    fd = raw_admitted(&world);
    raw_send(fd, "\0\0\0\2\x08\x01", 6); /* an id and no body */
    raw_expect_error(fd, 0, COTERIE__CODE__PROTOCOL, "does not know");
    raw_expect_end(fd);

    fd = raw_admitted(&world);
    raw_simple(fd, 0, COTERIE__ENVELOPE__BODY_HEALTH_REQUEST);
    raw_expect_error(fd, 0, COTERIE__CODE__PROTOCOL, "id");
    raw_expect_end(fd);

    char noise[5000];
    for (size_t i = 0; i < sizeof(noise); i++) noise[i] = (char)(i * 37 + (i >> 3));
    fd = raw_connect(&world);
    raw_send(fd, noise, sizeof(noise));
    close(fd);

    raw_simple(witness, 7, COTERIE__ENVELOPE__BODY_HEALTH_REQUEST);
    Coterie__Envelope *answer = raw_receive(witness);
    assert_non_null(answer);
    assert_int_equal(answer->body_case, COTERIE__ENVELOPE__BODY_HEALTH);
    assert_int_equal(answer->id, 7);
    assert_int_equal(answer->health->state, COTERIE__STATE__STATE_OK);
    rpc_envelope_free(answer);
    close(witness);
    assert_alive(&world);
    server_world_finish(&world);
}

static void long_frames_are_refused(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    server_world_start(&world);
    static const uint8_t BEFORE[] = {0, 0, 0x20, 1}; /* 8 KiB and one */
    int fd = raw_connect(&world);
    raw_send(fd, BEFORE, sizeof(BEFORE));
    raw_expect_error(fd, 0, COTERIE__CODE__PROTOCOL, "over the limit of 8192");
    raw_expect_end(fd);
    fd = raw_admitted(&world);
    static const uint8_t AFTER[] = {0, 0x10, 0x03, 0xe9}; /* 1 MiB + 1001: prompts are at most 1000 here */
    raw_send(fd, AFTER, sizeof(AFTER));
    raw_expect_error(fd, 0, COTERIE__CODE__PROTOCOL, "over the limit of 1049576");
    raw_expect_end(fd);
    assert_alive(&world);
    server_world_finish(&world);
}

static void frames_may_come_in_pieces(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    server_world_start(&world);
    int fd = raw_connect(&world);
    static const uint8_t HELLO[] = {0, 0, 0, 4, 0x12, 2, 8, 1};
    static const uint8_t TWO[] = {0, 0, 0, 4, 8, 5, 0x32, 0, 0, 0, 0, 4, 8, 6, 0x32, 0}; /* HealthRequest 5 and 6 */
    for (size_t i = 0; i < sizeof(HELLO); i++) {
        raw_send(fd, &HELLO[i], 1);
        usleep(1500);
    }
    raw_send(fd, TWO, sizeof(TWO));
    for (uint64_t id = 0; id < 7; id += id == 0 ? 5 : 1) {
        Coterie__Envelope *answer = raw_receive(fd);
        assert_non_null(answer);
        assert_int_equal(answer->id, id);
        rpc_envelope_free(answer);
    }
    close(fd);
    server_world_finish(&world);
}

static void a_silent_client_is_let_go(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    world.config.handshake_timeout_ms = 30;
    server_world_start(&world);
    int idle = raw_admitted(&world); /* after Hello it may be silent for as long as it likes */
    int fd = raw_connect(&world);
    raw_expect_error(fd, 0, COTERIE__CODE__TIMEOUT, "no Hello");
    raw_expect_end(fd);
    usleep(50000);
    raw_generate(idle, 1, 1);
    cot_buffer_t text = {0};
    raw_collect(idle, 1, &text);
    cot_buffer_free(&text);
    close(idle);
    server_world_finish(&world);
}

/* ---- bounds ---- */

static void too_many_are_told_busy(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    world.config.max_connections = 2;
    world.engine.max_requests = 1;
    world.engine.hold = true;
    server_world_start(&world);
    int first = raw_admitted(&world), second = raw_admitted(&world);
    int third = raw_connect(&world);
    raw_hello(third, RPC_PROTOCOL_VERSION, NULL);
    raw_expect_error(third, 0, COTERIE__CODE__BUSY, "--max-connections");
    raw_expect_end(third);

    raw_generate(first, 1, 4);
    server_world_await_live(&world, 1);
    raw_generate(second, 9, 4);
    raw_expect_error(second, 9, COTERIE__CODE__BUSY, "busy");
    server_world_hold(&world, false);
    cot_buffer_t text = {0};
    assert_int_equal(raw_collect(first, 1, &text), COTERIE__FINISH__LENGTH);
    assert_text(&text, "abcd");
    raw_generate(second, 10, 2); /* the refusal cost that request alone */
    cot_buffer_clear(&text);
    assert_int_equal(raw_collect(second, 10, &text), COTERIE__FINISH__LENGTH);
    cot_buffer_free(&text);
    close(first);
    close(second);
    server_world_finish(&world);
}

static void one_client_has_bounded_calls(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    world.engine.hold = true;
    server_world_start(&world);
    int fd = raw_admitted(&world);
    raw_generate(fd, 5, 4);
    raw_generate(fd, 5, 4);
    Coterie__Envelope *first = raw_receive(fd); /* the seed of the first */
    assert_int_equal(first->body_case, COTERIE__ENVELOPE__BODY_DELTA);
    assert_true(first->delta->has_seed);
    assert_int_equal(first->delta->usage->prompt_tokens, 2); /* "h", "i" */
    rpc_envelope_free(first);
    raw_expect_error(fd, 0, COTERIE__CODE__PROTOCOL, "open one");
    raw_expect_end(fd);
    server_world_await_live(&world, 0);
    server_world_finish(&world);
}

static void a_slow_reader_is_cut_off(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    world.config.max_output_bytes = 20000;
    char page[2001];
    memset(page, 'x', sizeof(page) - 1);
    page[sizeof(page) - 1] = '\0';
    server_world_script(&world, page);
    server_world_start(&world);
    int slow = raw_admitted(&world), least = 1024;
    setsockopt(slow, SOL_SOCKET, SO_RCVBUF, &least, sizeof(least));
    /* Whoever asks and asks and never reads. */
    for (uint64_t id = 1; id < 60; id++) raw_generate(slow, id, 90000);
    server_world_await_live(&world, 59);
    server_world_await_live(&world, 0);
    close(slow);
    int fd = raw_admitted(&world);
    cot_buffer_t text = {0};
    raw_generate(fd, 1, 50);
    assert_int_equal(raw_collect(fd, 1, &text), COTERIE__FINISH__LENGTH);
    assert_int_equal(text.size, 50);
    cot_buffer_free(&text);
    close(fd);
    server_world_finish(&world);
}

/* ---- requests ---- */

static void two_clients_interleave(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    server_world_start(&world);
    int one = raw_admitted(&world), two = raw_admitted(&world);
    cot_buffer_t text[3] = {0};
    raw_generate(one, 1, 20);
    raw_generate(two, 1, 8);
    raw_generate(one, 2, 300);
    assert_int_equal(raw_collect(two, 1, &text[0]), COTERIE__FINISH__LENGTH);
    assert_int_equal(raw_collect(one, 1, &text[1]), COTERIE__FINISH__LENGTH);
    raw_simple(one, 2, COTERIE__ENVELOPE__BODY_CANCEL);
    raw_collect(one, 2, &text[2]);
    assert_text(&text[0], "abcdefgh");
    assert_text(&text[1], "abcdefghabcdefghabcd");
    for (int i = 0; i < 3; i++) cot_buffer_free(&text[i]);
    close(one);
    close(two);
    server_world_finish(&world);
}

static void cancelling_frees_the_request(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    world.engine.hold = true;
    server_world_start(&world);
    int fd = raw_admitted(&world);
    cot_buffer_t text = {0};
    raw_generate(fd, 3, 1000);
    server_world_await_live(&world, 1);
    raw_simple(fd, 4, COTERIE__ENVELOPE__BODY_CANCEL); /* no such call: over already, for all the server knows */
    raw_simple(fd, 3, COTERIE__ENVELOPE__BODY_CANCEL);
    assert_int_equal(raw_collect(fd, 3, &text), COTERIE__FINISH__CANCELLED_BY_CLIENT);
    server_world_await_live(&world, 0);
    assert_int_equal(world.engine.cancelled, 1);
    cot_buffer_free(&text);
    close(fd);
    server_world_finish(&world);
}

static void a_client_that_vanishes_frees_its_requests(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    world.engine.hold = true;
    server_world_start(&world);
    int fd = raw_admitted(&world);
    for (uint64_t id = 1; id <= 5; id++) raw_generate(fd, id, 1000);
    server_world_await_live(&world, 5);
    close(fd);
    server_world_await_live(&world, 0);
    server_world_hold(&world, false);
    assert_alive(&world);
    server_world_finish(&world);
}

static void a_failed_engine_is_reported(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    world.engine.hold = true;
    server_world_start(&world);
    int fd = raw_admitted(&world);
    raw_generate(fd, 1, 10);
    server_world_await_live(&world, 1);
    server_world_lock(&world);
    world.engine.fail = true;
    server_world_unlock(&world);
    for (;;) {
        Coterie__Envelope *answer = raw_receive(fd);
        assert_non_null(answer);
        bool last = answer->delta->has_finish;
        if (last) {
            assert_int_equal(answer->delta->finish, COTERIE__FINISH__FAILED);
            assert_non_null(strstr(answer->delta->error, "rank 2"));
        }
        rpc_envelope_free(answer);
        if (last) break;
    }
    close(fd);
    server_world_finish(&world);
}

/* Memory runs out at every place in turn; the server says so or hangs up, and goes on. */
static void without_memory_only_the_request_suffers(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    server_world_start(&world);
    for (int64_t allowed = 0; allowed < 60; allowed++) {
        int fd = raw_admitted(&world);
        server_world_lock(&world);
        raw_generate(fd, 1, 4);
        cot_memory_fail_after(allowed);
        server_world_unlock(&world);
        usleep(12000); /* ten turns of the server's thread: the answer has four tokens */
        server_world_lock(&world);
        cot_memory_fail_after(-1);
        server_world_unlock(&world);
        close(fd);
    }
    server_world_await_live(&world, 0);
    assert_alive(&world);
    server_world_finish(&world);
}

/* ---- states ---- */

static void while_loading_clients_are_told_so(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    world.loading = true;
    server_world_start(&world);
    int fd = raw_admitted(&world);
    server_world_lock(&world);
    coord_server_set_progress(world.server, 0.25f);
    server_world_unlock(&world);
    raw_generate(fd, 1, 3);
    raw_expect_error(fd, 1, COTERIE__CODE__LOADING, "25 %");
    raw_simple(fd, 2, COTERIE__ENVELOPE__BODY_STATUS_REQUEST);
    Coterie__Envelope *answer = raw_receive(fd);
    assert_int_equal(answer->status->state, COTERIE__STATE__STATE_LOADING);
    assert_false(answer->status->has_step);
    rpc_envelope_free(answer);
    server_world_attach(&world);
    cot_buffer_t text = {0};
    raw_generate(fd, 3, 3);
    assert_int_equal(raw_collect(fd, 3, &text), COTERIE__FINISH__LENGTH);
    cot_buffer_free(&text);
    close(fd);
    server_world_finish(&world);
}

/* As when --drain-timeout has passed: the client did not ask for it. */
static void a_server_that_ends_is_no_cancellation(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    world.engine.hold = true;
    server_world_start(&world);
    int fd = raw_admitted(&world);
    raw_generate(fd, 1, 5);
    server_world_await_live(&world, 1);
    server_world_stop(&world);
    cot_buffer_t text = {0};
    assert_int_equal(raw_collect(fd, 1, &text), COTERIE__FINISH__FAILED);
    cot_buffer_free(&text);
    close(fd);
    server_world_finish(&world);
}

static void draining_lets_requests_finish(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    world.engine.hold = true;
    server_world_start(&world);
    int fd = raw_admitted(&world), other = raw_admitted(&world);
    raw_generate(fd, 1, 5);
    server_world_await_live(&world, 1);
    raw_simple(other, 8, COTERIE__ENVELOPE__BODY_DRAIN);
    Coterie__Envelope *answer = raw_receive(other);
    assert_int_equal(answer->body_case, COTERIE__ENVELOPE__BODY_DRAINING);
    assert_int_equal(answer->draining->running, 1);
    rpc_envelope_free(answer);
    raw_generate(other, 9, 5);
    raw_expect_error(other, 9, COTERIE__CODE__DRAINING, "no new requests");
    server_world_lock(&world);
    assert_true(coord_server_draining(world.server));
    assert_false(world.drained);
    server_world_unlock(&world);
    server_world_hold(&world, false);
    cot_buffer_t text = {0};
    assert_int_equal(raw_collect(fd, 1, &text), COTERIE__FINISH__LENGTH);
    assert_text(&text, "abcde");
    cot_buffer_free(&text);
    usleep(20000);
    server_world_lock(&world);
    assert_true(world.drained);
    server_world_unlock(&world);
    close(fd);
    close(other);
    server_world_finish(&world);
}

static void the_status_names_the_ranks(void **state)
{
    (void)state;
    server_world_t world;
    server_world_init(&world);
    server_world_start(&world);
    server_world_lock(&world);
    for (uint32_t rank = 1; rank <= 3; rank++) /* the third is one more than was announced */
        coord_server_set_rank(world.server,
                              &(coord_server_rank_t){.rank = rank, .threads = 4, .isa = "avx2", .kv_bytes = 1 << 20});
    server_world_unlock(&world);
    int fd = raw_admitted(&world);
    raw_simple(fd, 2, COTERIE__ENVELOPE__BODY_STATUS_REQUEST);
    Coterie__Envelope *answer = raw_receive(fd);
    const Coterie__Status *status = answer->status;
    assert_int_equal(answer->body_case, COTERIE__ENVELOPE__BODY_STATUS);
    assert_string_equal(status->model, "fake");
    assert_string_equal(status->dtype, "float32");
    assert_null(status->plan);
    assert_int_equal(status->step, 881);
    assert_int_equal(status->n_ranks, 2);
    assert_int_equal(status->ranks[1]->rank, 2);
    assert_int_equal(status->ranks[1]->step, 881);
    assert_string_equal(status->ranks[1]->isa, "avx2");
    assert_int_equal(status->ranks[1]->kv_bytes, 1 << 20);
    rpc_envelope_free(answer);
    close(fd);
    server_world_finish(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hello_comes_first),
        cmocka_unit_test(garbage_ends_one_connection),
        cmocka_unit_test(long_frames_are_refused),
        cmocka_unit_test(frames_may_come_in_pieces),
        cmocka_unit_test(a_silent_client_is_let_go),
        cmocka_unit_test(too_many_are_told_busy),
        cmocka_unit_test(one_client_has_bounded_calls),
        cmocka_unit_test(a_slow_reader_is_cut_off),
        cmocka_unit_test(two_clients_interleave),
        cmocka_unit_test(cancelling_frees_the_request),
        cmocka_unit_test(a_client_that_vanishes_frees_its_requests),
        cmocka_unit_test(a_failed_engine_is_reported),
        cmocka_unit_test(without_memory_only_the_request_suffers),
        cmocka_unit_test(while_loading_clients_are_told_so),
        cmocka_unit_test(a_server_that_ends_is_no_cancellation),
        cmocka_unit_test(draining_lets_requests_finish),
        cmocka_unit_test(the_status_names_the_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
