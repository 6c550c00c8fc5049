/* Where the server may listen and where not; nothing is left behind, whatever fails. */
#include "base/log.h"
#include "tests/coordinator/server_world.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static char folder[256], address[300], path[300];

static int setup(void **state)
{
    (void)state;
    temporary_make(folder);
    snprintf(path, sizeof(path), "%s/s.sock", folder);
    snprintf(address, sizeof(address), "unix:%s", path);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    temporary_remove(folder);
    return 0;
}

static cot_status_t listen_at(const char *where, const char *token, coord_server_t **server_out)
{
    static const model_config_t MODEL = {.vocab = 10};
    const coord_server_config_t config = {.listen = where,
                                          .token = token,
                                          .max_connections = 4,
                                          .max_prompt_bytes = 1000,
                                          .max_context = 100,
                                          .model = &MODEL,
                                          .model_name = "m",
                                          .dtype = "float32",
                                          .backend = "cpu",
                                          .exchange = "home",
                                          .plan = "contiguous",
                                          .ranks = 2};
    return coord_server_create(&config, server_out);
}

static void a_live_socket_is_in_use(void **state)
{
    (void)state;
    coord_server_t *server = NULL, *other = NULL;
    struct stat file;
    assert_ok(listen_at(address, NULL, &server));
    assert_string_equal(coord_server_address(server), address);
    assert_int_equal(stat(path, &file), 0);
    assert_int_equal(file.st_mode & 0777, 0600);
    assert_fails(listen_at(address, NULL, &other), COT_ERR_IN_USE, "in use");
    assert_null(other);
    assert_int_equal(access(path, F_OK), 0);
    coord_server_destroy(server);
    assert_int_equal(access(path, F_OK), -1);
}

static void a_dead_socket_is_replaced(void **state)
{
    (void)state;
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    snprintf(name.sun_path, sizeof(name.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof(name)), 0);
    close(fd); /* the file stays, nobody listens */
    coord_server_t *server = NULL;
    assert_ok(listen_at(address, NULL, &server));
    coord_server_destroy(server);
}

static void other_files_stay(void **state)
{
    (void)state;
    coord_server_t *server = NULL;
    temporary_write(path, "precious", 8);
    assert_fails(listen_at(address, NULL, &server), COT_ERR_IN_USE, "no socket");
    assert_int_equal(access(path, F_OK), 0);
    unlink(path);
    assert_ok(listen_at(address, NULL, &server)); /* a socket file that is not ours any more stays, too */
    unlink(path);
    temporary_write(path, "precious", 8);
    coord_server_destroy(server);
    assert_int_equal(access(path, F_OK), 0);
    unlink(path);
    assert_fails(listen_at("unix:/nonexistent/s.sock", NULL, &server), COT_ERR_IO, "/nonexistent/s.sock");
}

static void a_port_in_use_is_refused(void **state)
{
    (void)state;
    coord_server_t *server = NULL, *other = NULL;
    assert_ok(listen_at("127.0.0.1:0", NULL, &server));
    assert_non_null(strstr(coord_server_address(server), "127.0.0.1:"));
    assert_null(strstr(coord_server_address(server), ":0"));
    assert_fails(listen_at(coord_server_address(server), NULL, &other), COT_ERR_IN_USE, "in use");
    coord_server_destroy(server);
}

static void beyond_this_machine_needs_token_and_tls(void **state)
{
    (void)state;
    coord_server_t *server = NULL;
    assert_fails(listen_at("0.0.0.0:0", NULL, &server), COT_ERR_INVALID, "--token-file");
    assert_fails(listen_at("0.0.0.0:0", "token", &server), COT_ERR_INVALID, "--tls-cert");
    assert_fails(listen_at("[::]:0", "token", &server), COT_ERR_INVALID, "--tls-cert");
}

static void nonsense_is_refused(void **state)
{
    (void)state;
    static const char *const WRONG[] = {"nonsense",       "localhost", "localhost:",      ":80",
                                        "localhost:http", "::1:80",    "localhost:70000", "unix:"};
    coord_server_t *server = NULL;
    for (size_t i = 0; i < sizeof(WRONG) / sizeof(*WRONG); i++)
        assert_fails(listen_at(WRONG[i], NULL, &server), COT_ERR_INVALID, "address");
    char longest[200];
    memset(longest, 'x', sizeof(longest));
    memcpy(longest, "unix:", 5);
    longest[sizeof(longest) - 1] = '\0';
    assert_fails(listen_at(longest, NULL, &server), COT_ERR_INVALID, "at most 107");
    assert_fails(listen_at("no.such.host.invalid:80", NULL, &server), COT_ERR_INVALID, "no.such.host.invalid");
}

static void unfit_certificates(void **state)
{
    (void)state;
    coord_server_t *server = NULL;
    static const model_config_t MODEL = {.vocab = 10};
    char junk[300];
    snprintf(junk, sizeof(junk), "%s/junk.pem", folder);
    temporary_write(junk, "junk", 4);
    coord_server_config_t config = {.listen = address, .model = &MODEL, .tls_cert = "/nonexistent.pem"};
    assert_fails(coord_server_create(&config, &server), COT_ERR_INVALID, "--tls-key");
    config.tls_key = junk;
    assert_fails(coord_server_create(&config, &server), COT_ERR_NOT_FOUND, "/nonexistent.pem");
    config.tls_cert = junk;
    assert_fails(coord_server_create(&config, &server), COT_ERR_FORMAT, "junk.pem");
}

static void no_memory_leaves_nothing(void **state)
{
    (void)state;
    coord_server_t *server = NULL;
    size_t live = cot_memory_live_blocks();
    cot_status_t status;
    int64_t allowed = 0;
    do {
        cot_memory_fail_after(allowed++);
        status = listen_at(address, "token", &server);
        cot_memory_fail_after(-1);
        if (status != COT_OK) {
            assert_int_equal(status, COT_ERR_NO_MEMORY);
            assert_null(server);
            assert_int_equal(cot_memory_live_blocks(), live);
            assert_int_equal(access(path, F_OK), -1);
        }
    } while (status != COT_OK);
    assert_true(allowed > 5);
    coord_server_destroy(server);
    assert_int_equal(cot_memory_live_blocks(), live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_live_socket_is_in_use),
        cmocka_unit_test(a_dead_socket_is_replaced),
        cmocka_unit_test(other_files_stay),
        cmocka_unit_test(a_port_in_use_is_refused),
        cmocka_unit_test(beyond_this_machine_needs_token_and_tls),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(unfit_certificates),
        cmocka_unit_test(no_memory_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
