/* Frames, addresses and access tokens: what passes comes back the same, what does not is refused in bounded memory. */
#include "proto/address.h"
#include "proto/framing.h"
#include "proto/limits.h"
#include "tests/temporary.h"

#include <arpa/inet.h>
#include <netinet/in.h>

static void the_length_is_big_endian(void **state)
{
    (void)state;
    static const uint8_t HEAD[] = {0x00, 0x01, 0x02, 0x03};
    size_t bytes = 1;
    for (size_t count = 0; count < 4; count++) {
        assert_ok(rpc_frame_bytes(HEAD, count, 1 << 20, &bytes));
        assert_int_equal(bytes, 0);
    }
    assert_ok(rpc_frame_bytes(HEAD, 4, 0x010203, &bytes));
    assert_int_equal(bytes, 4 + 0x010203);
    assert_fails(rpc_frame_bytes(HEAD, 4, 0x010202, &bytes), COT_ERR_PROTOCOL, "66051");
    assert_fails(rpc_frame_bytes("\0\0\0\0", 4, 100, &bytes), COT_ERR_PROTOCOL, "empty");
    assert_fails(rpc_frame_bytes("\xff\xff\xff\xff", 4, RPC_REPLY_FRAME_BYTES, &bytes), COT_ERR_PROTOCOL, "4294967295");
}

static void a_request_comes_back(void **state)
{
    (void)state;
    int32_t tokens[] = {0, 1, 2147483647, -1};
    uint8_t stop[] = {'a', 0, 'b'};
    ProtobufCBinaryData stops[] = {{.len = 3, .data = stop}, {.len = 1, .data = stop}};
    Coterie__Sampling sampling = COTERIE__SAMPLING__INIT;
    Coterie__Generate generate = COTERIE__GENERATE__INIT;
    Coterie__Envelope envelope = COTERIE__ENVELOPE__INIT, *back = NULL;
    sampling.has_temperature = 1;
    sampling.temperature = 0.1f;
    generate.sampling = &sampling;
    generate.n_tokens = 4;
    generate.tokens = tokens;
    generate.n_stop = 2;
    generate.stop = stops;
    envelope.has_id = 1;
    envelope.id = UINT64_MAX;
    envelope.body_case = COTERIE__ENVELOPE__BODY_GENERATE;
    envelope.generate = &generate;
    cot_buffer_t frame = {0};
    size_t bytes = 0, live = cot_memory_live_blocks();
    assert_ok(rpc_frame_append(&envelope, &frame));
    assert_ok(rpc_frame_bytes(frame.data, frame.size, RPC_REQUEST_FRAME_BYTES, &bytes));
    assert_int_equal(bytes, frame.size);
    assert_ok(rpc_envelope_unpack(frame.data + 4, frame.size - 4, &back));
    assert_true(back->id == UINT64_MAX);
    assert_int_equal(back->generate->n_tokens, 4);
    assert_memory_equal(back->generate->tokens, tokens, sizeof(tokens));
    assert_int_equal(back->generate->stop[0].len, 3);
    assert_memory_equal(back->generate->stop[0].data, stop, 3);
    assert_true(back->generate->sampling->temperature == 0.1f);
    assert_false(back->generate->sampling->has_top_p);
    assert_true(back->generate->add_special);
    rpc_envelope_free(back);
    rpc_envelope_free(NULL);
    assert_int_equal(cot_memory_live_blocks(), live + 1); /* the frame */

    /* Cut short anywhere it is refused, or, where a field ends, another message; never read past. */
    for (size_t cut = 0; cut + 4 < frame.size; cut++) {
        uint8_t *copy = cot_alloc(cut);
        memcpy(copy, frame.data + 4, cut);
        if (rpc_envelope_unpack(copy, cut, &back) == COT_OK) rpc_envelope_free(back);
        cot_free(copy);
    }
    cot_buffer_free(&frame);
}

/* 1 MiB of "one more stop text of no bytes", which takes 2 bytes each on the wire and 16 and more in memory. */
static void memory_is_bounded_by_the_frame(void **state)
{
    (void)state;
    enum { BYTES = 1 << 20 };
    cot_buffer_t frame = {0};
    void *space = NULL;
    assert_ok(cot_buffer_append(&frame, "\x1a\xfc\xff\x3f", 4)); /* Generate of 2^20 - 4 bytes */
    assert_ok(cot_buffer_extend(&frame, BYTES - 4, &space));
    for (size_t i = 0; i < BYTES - 4; i += 2) ((uint8_t *)space)[i] = 0x32; /* stop, 0 bytes */
    size_t before = cot_memory_live_bytes();
    Coterie__Envelope *envelope = NULL;
    cot_status_t status = rpc_envelope_unpack(frame.data, frame.size, &envelope);
    assert_true(cot_memory_peak_bytes() - before < (size_t)40 * BYTES);
    if (status == COT_OK) rpc_envelope_free(envelope);
    assert_int_equal(cot_memory_live_bytes(), before);
    cot_buffer_free(&frame);
}

static void statuses_cross_as_codes(void **state)
{
    (void)state;
#define X(name, value, exit_code, text) \
    if ((value) != 0) assert_int_equal(rpc_status_of(rpc_code_of((cot_status_t)(value))), (value));
    COT_STATUS_MAP(X)
#undef X
    assert_int_equal(rpc_status_of(COTERIE__CODE__LOADING), COT_ERR_BUSY);
    assert_int_equal(rpc_status_of(COTERIE__CODE__DRAINING), COT_ERR_BUSY);
    assert_int_equal(rpc_status_of(COTERIE__CODE__UNKNOWN), COT_ERR_INTERNAL);
    assert_int_equal(rpc_status_of((Coterie__Code)4711), COT_ERR_INTERNAL);
}

static void addresses(void **state)
{
    (void)state;
    static const char *const SAME[] = {"unix:/a/b.sock", "localhost:1", "10.0.0.1:65535", "[::1]:80", "[fe80::1]:443"};
    char text[RPC_ADDRESS_TEXT_BYTES];
    rpc_address_t address;
    for (size_t i = 0; i < sizeof(SAME) / sizeof(*SAME); i++) {
        assert_ok(rpc_address_parse(SAME[i], &address));
        rpc_address_print(&address, text);
        assert_string_equal(text, SAME[i]);
        assert_false(address.by_default);
    }
    setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
    assert_ok(rpc_address_parse("", &address));
    assert_string_equal(address.path, "/run/user/7/coterie.sock");
    assert_true(address.by_default && address.local);
    unsetenv("XDG_RUNTIME_DIR");
    assert_ok(rpc_address_parse(NULL, &address));
    snprintf(text, sizeof(text), "/tmp/coterie-%u.sock", (unsigned)getuid());
    assert_string_equal(address.path, text);
}

static void loopback(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool loopback;
    } CASES[] = {{"127.0.0.1", true}, {"127.8.9.1", true}, {"128.0.0.1", false},       {"0.0.0.0", false},
                 {"::1", true},       {"::", false},       {"::ffff:127.0.0.1", true}, {"::ffff:10.0.0.1", false}};
    for (size_t i = 0; i < sizeof(CASES) / sizeof(*CASES); i++) {
        struct sockaddr_in v4 = {.sin_family = AF_INET};
        struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
        bool is_v4 = inet_pton(AF_INET, CASES[i].text, &v4.sin_addr) == 1;
        if (!is_v4) assert_int_equal(inet_pton(AF_INET6, CASES[i].text, &v6.sin6_addr), 1);
        assert_int_equal(rpc_is_loopback(is_v4 ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6), CASES[i].loopback);
    }
}

static void tokens_from_files_and_variables(void **state)
{
    (void)state;
    char folder[256], path[300], *token = NULL;
    temporary_make(folder);
    snprintf(path, sizeof(path), "%s/token", folder);
    temporary_write(path, "secret\r\nmore", 12);
    assert_ok(rpc_token_read(path, "variable", &token));
    assert_string_equal(token, "secret");
    assert_true(rpc_token_equal(token, "secret", 6));
    assert_false(rpc_token_equal(token, "secreT", 6));
    assert_false(rpc_token_equal(token, "secretsecret", 12));
    assert_false(rpc_token_equal(token, "secre", 5));
    assert_false(rpc_token_equal(token, "", 0));
    cot_free(token);
    token = NULL;
    assert_ok(rpc_token_read("", "variable", &token));
    assert_string_equal(token, "variable");
    cot_free(token);
    token = NULL;
    assert_ok(rpc_token_read(NULL, "", &token));
    assert_null(token);
    temporary_write(path, "\n", 1);
    assert_fails(rpc_token_read(path, NULL, &token), COT_ERR_INVALID, "empty");
    assert_fails(rpc_token_read("/nonexistent", NULL, &token), COT_ERR_NOT_FOUND, "/nonexistent");
    temporary_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_length_is_big_endian),
        cmocka_unit_test(a_request_comes_back),
        cmocka_unit_test(memory_is_bounded_by_the_frame),
        cmocka_unit_test(statuses_cross_as_codes),
        cmocka_unit_test(addresses),
        cmocka_unit_test(loopback),
        cmocka_unit_test(tokens_from_files_and_variables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
