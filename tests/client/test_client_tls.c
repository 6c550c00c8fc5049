/* TLS between libcoterie-client and the server. */
#include "client/coterie_client.h"
#include "tests/client/certificate.h"
#include "tests/coordinator/server_world.h"

static char folder[256], cert[300], key[300], other_cert[300], other_key[300];

static int setup(void **state)
{
    (void)state;
    temporary_make(folder);
    snprintf(cert, sizeof(cert), "%s/cert.pem", folder);
    snprintf(key, sizeof(key), "%s/key.pem", folder);
    snprintf(other_cert, sizeof(other_cert), "%s/other-cert.pem", folder);
    snprintf(other_key, sizeof(other_key), "%s/other-key.pem", folder);
    certificate_make(cert, key);
    certificate_make(other_cert, other_key);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    temporary_remove(folder);
    return 0;
}

static void start(server_world_t *world, const char *listen)
{
    server_world_init(world);
    snprintf(world->listen, sizeof(world->listen), "%s", listen);
    world->config.tls_cert = cert;
    world->config.tls_key = key;
    world->config.token = "secret";
    server_world_start(world);
}

static int append(void *user, const coterie_client_delta_t *delta)
{
    assert_ok(cot_buffer_append(user, delta->text, delta->text_bytes));
    return 0;
}

static cot_status_t connect_with(const server_world_t *world, const char *ca, coterie_client_t **client_out)
{
    coterie_client_options_t options = COTERIE_CLIENT_OPTIONS_INIT;
    options.address = world->address;
    options.token = "secret";
    options.tls_ca = ca;
    options.timeout_ms = 5000;
    return (cot_status_t)coterie_client_connect(&options, client_out);
}

static void generate(coterie_client_t *client, uint32_t count)
{
    cot_buffer_t text = {0};
    static char prompt[900];
    memset(prompt, 'x', sizeof(prompt));
    coterie_client_request_t request;
    coterie_client_request_init(&request);
    request.text = prompt;
    request.text_bytes = sizeof(prompt);
    request.set = COTERIE_CLIENT_MAX_TOKENS;
    request.max_tokens = count;
    request.timeout_ms = 20000;
    request.on_delta = append;
    request.user = &text;
    assert_ok((cot_status_t)coterie_client_generate(client, &request, NULL));
    assert_int_equal(text.size, count);
    assert_memory_equal(text.data, "abcdefghabcd", 12);
    request.at_once = 1; /* longer than one TLS record */
    request.logprobs = 2;
    assert_ok((cot_status_t)coterie_client_generate(client, &request, NULL));
    assert_int_equal(text.size, 2 * count);
    cot_buffer_free(&text);
}

static void round_trip(void **state)
{
    (void)state;
    static const char *const LISTEN[] = {"127.0.0.1:0", "0.0.0.0:0"};
    for (size_t i = 0; i < 2; i++) {
        server_world_t world;
        start(&world, LISTEN[i]);
        coterie_client_t *client = NULL;
        char address[300];
        snprintf(address, sizeof(address), "127.0.0.1%s", strrchr(world.address, ':'));
        world.address = address;
        assert_ok(connect_with(&world, cert, &client));
        generate(client, 800);
        coterie_client_close(client);
        server_world_finish(&world);
    }
}

static void over_a_unix_socket(void **state)
{
    (void)state;
    server_world_t world;
    char listen[300];
    snprintf(listen, sizeof(listen), "unix:%s/s.sock", folder);
    start(&world, listen);
    coterie_client_t *client = NULL;
    assert_ok(connect_with(&world, cert, &client));
    generate(client, 20);
    coterie_client_close(client);
    server_world_finish(&world);
}

static void wrong_certificates(void **state)
{
    (void)state;
    server_world_t world;
    start(&world, "127.0.0.1:0");
    coterie_client_t *client = NULL;
    assert_fails(connect_with(&world, other_cert, &client), COT_ERR_AUTH, "not trusted");
    assert_fails(connect_with(&world, "/nonexistent.pem", &client), COT_ERR_NOT_FOUND, "/nonexistent.pem");
    assert_fails(connect_with(&world, key, &client), COT_ERR_FORMAT, "no certificate");
    server_world_finish(&world);
    /* The certificate is for localhost and 127.0.0.1 alone. */
    start(&world, "127.0.0.2:0");
    assert_fails(connect_with(&world, cert, &client), COT_ERR_AUTH, "not trusted");
    assert_null(client);
    server_world_finish(&world);
}

static void plain_meets_tls(void **state)
{
    (void)state;
    server_world_t world;
    start(&world, "127.0.0.1:0");
    coterie_client_t *client = NULL;
    cot_status_t status = connect_with(&world, NULL, &client);
    assert_true(status == COT_ERR_PEER_LOST || status == COT_ERR_PROTOCOL);
    assert_ok(connect_with(&world, cert, &client)); /* others go on */
    coterie_client_close(client);
    server_world_finish(&world);

    server_world_init(&world);
    server_world_start(&world);
    assert_fails(connect_with(&world, cert, &client), COT_ERR_PROTOCOL, "speak TLS");
    server_world_finish(&world);
}

static void a_key_that_does_not_fit(void **state)
{
    (void)state;
    coord_server_t *server = NULL;
    static const model_config_t MODEL = {.vocab = 10};
    coord_server_config_t config = {.listen = "127.0.0.1:0", .model = &MODEL, .tls_cert = cert, .tls_key = other_key};
    assert_fails(coord_server_create(&config, &server), COT_ERR_FORMAT, "other-key.pem");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(over_a_unix_socket),
        cmocka_unit_test(wrong_certificates),
        cmocka_unit_test(plain_meets_tls),
        cmocka_unit_test(a_key_that_does_not_fit),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
