/* The client's commands, each in a process of its own, against a server over a scripted engine; and the example. */
#include "base/file.h"
#include "base/json.h"
#include "client/commands.h"
#include "tests/coordinator/server_world.h"

#include <signal.h>
#include <sys/wait.h>

typedef int (*command_t)(const cot_settings_t *settings);

static server_world_t world;
static char out_path[300], err_path[300], connect_flag[320];

static int setup(void **state)
{
    (void)state;
    server_world_init(&world);
    snprintf(out_path, sizeof(out_path), "%s/out", world.folder);
    snprintf(err_path, sizeof(err_path), "%s/err", world.folder);
    snprintf(connect_flag, sizeof(connect_flag), "--connect=%s", world.listen);
    server_world_script(&world, "caf\xc3\xa9 END and more");
    server_world_start(&world);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    server_world_finish(&world);
    return 0;
}

/* This program again, in the role of a command: a fork would inherit the server's locks. */
static pid_t start(const char *role, const char *words)
{
    pid_t pid = fork();
    if (pid > 0) return pid;
    char line[1500];
    snprintf(line, sizeof(line), "exec /proc/%d/exe %s %s %s >%s 2>%s", (int)getppid(), role, connect_flag, words,
             out_path, err_path);
    execl("/bin/sh", "sh", "-c", line, (char *)NULL);
    _exit(99);
}

static int end(pid_t pid)
{
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int run(const char *role, const char *words)
{
    return end(start(role, words));
}

static void assert_file(const char *path, const char *words)
{
    char *text = NULL;
    size_t bytes = 0;
    assert_ok(cot_file_read(path, 1 << 20, &text, &bytes));
    if (strstr(text, words) == NULL) fail_msg("no \"%s\" in: %s", words, text);
    cot_free(text);
}

static json_t *read_json(void)
{
    char *text = NULL;
    size_t bytes = 0;
    json_t *root = NULL;
    assert_ok(cot_file_read(out_path, 1 << 20, &text, &bytes));
    assert_ok(cot_json_load_bytes(text, bytes, "output", &root));
    cot_free(text);
    return root;
}

static const char *string_of(const json_t *root, const char *key)
{
    const char *text = json_string_value(json_object_get(root, key));
    return text != NULL ? text : "(none)";
}

static void generate_streams(void **state)
{
    (void)state;
    char *text = NULL;
    size_t bytes = 0;
    assert_int_equal(run("generate", "--max-tokens 8 -- hi"), 0);
    assert_ok(cot_file_read(out_path, 1000, &text, &bytes));
    assert_string_equal(text, "caf\xc3\xa9 EN"); /* nothing but the text */
    cot_free(text);
    assert_file(err_path, "finish: length; 2 prompt tokens, 8 generated");
    char input[300], words[400];
    snprintf(input, sizeof(input), "%s/in", world.folder);
    snprintf(words, sizeof(words), "--max-tokens 2 - <%s", input);
    temporary_write(input, "h\0i", 3);
    assert_int_equal(run("generate", words), 0);
    assert_file(err_path, "3 prompt tokens"); /* U+0000 is text */
    temporary_write(input, "h\xffi", 3);
    assert_int_equal(run("generate", words), 2);
    assert_file(err_path, "UTF-8");
    assert_int_equal(run("generate", "- </dev/null"), 2);
    assert_file(err_path, "the prompt is empty");
}

static void generate_for_programs(void **state)
{
    (void)state;
    assert_int_equal(run("generate", "--json --stop END --logprobs 2 --seed 5 -- hi"), 0);
    json_t *root = read_json();
    assert_string_equal(string_of(root, "text"), "caf\xc3\xa9 ");
    assert_string_equal(string_of(root, "finish_reason"), "stop");
    assert_int_equal(json_array_size(json_object_get(root, "tokens")), 9);
    assert_int_equal(json_array_size(json_object_get(root, "logprobs")), 9);
    assert_int_equal(json_array_size(json_object_get(root, "top_logprobs")), 9);
    assert_int_equal(json_integer_value(json_object_get(root, "seed")), 5);
    assert_true(json_is_null(json_object_get(root, "error")));
    json_decref(root);
    assert_int_equal(run("generate", "--json --temperature -1 -- hi"), 2);
    root = read_json();
    assert_non_null(strstr(string_of(root, "error"), "temperature"));
    json_decref(root);
}

static void mistakes_have_their_exit_status(void **state)
{
    (void)state;
    assert_int_equal(run("generate", ""), 2);
    assert_file(err_path, "one prompt");
    assert_int_equal(run("generate", "--connect unix:/nonexistent.sock -- hi"), 6);
    assert_file(err_path, "coterie serve");
    assert_int_equal(run("status", "--connect nonsense"), 2);
    assert_int_equal(run("status", "--tls-ca /nonexistent.pem"), 4);
    assert_int_equal(run("bench", "--requests 0"), 2);
    assert_file(err_path, "--requests 0");
    assert_int_equal(run("bench", "--in /nonexistent.jsonl"), 4);
}

static void ctrl_c_cancels_on_the_server(void **state)
{
    (void)state;
    server_world_hold(&world, true);
    pid_t pid = start("generate", "-- hi");
    server_world_await_live(&world, 1);
    kill(pid, SIGINT);
    assert_int_equal(end(pid), 130);
    server_world_await_live(&world, 0);
    server_world_hold(&world, false);
}

static void status_is_text_or_json(void **state)
{
    (void)state;
    assert_int_equal(run("status", ""), 0);
    assert_file(out_path, "ok: fake, coterie");
    assert_file(out_path, "881");
    assert_int_equal(run("status", "--json"), 0);
    json_t *root = read_json();
    assert_string_equal(string_of(root, "state"), "ok");
    json_decref(root);
}

static void bench_measures(void **state)
{
    (void)state;
    assert_int_equal(run("bench", "--json --requests 12 --concurrency 5 --max-tokens 6 --prompt-tokens 9"), 0);
    json_t *root = read_json();
    assert_int_equal(json_integer_value(json_object_get(root, "completed")), 12);
    assert_int_equal(json_integer_value(json_object_get(root, "total_input_tokens")), 108);
    assert_int_equal(json_integer_value(json_object_get(root, "total_output_tokens")), 72);
    assert_true(json_number_value(json_object_get(root, "mean_itl_ms")) > 0);
    assert_true(json_number_value(json_object_get(root, "p99_e2el_ms")) >=
                json_number_value(json_object_get(root, "median_ttft_ms")));
    json_decref(root);
    assert_int_equal(run("bench", "--json --requests 2 --max-tokens 1"), 0);
    root = read_json();
    assert_true(json_is_null(json_object_get(root, "mean_tpot_ms")));
    assert_true(json_is_null(json_object_get(root, "mean_itl_ms")));
    json_decref(root);
    server_world_lock(&world);
    world.engine.max_requests = 0;
    server_world_unlock(&world);
    assert_int_equal(run("bench", "--requests 3 --max-tokens 1"), 7);
    assert_file(err_path, "3 requests failed");
    assert_file(err_path, "busy");
    server_world_lock(&world);
    world.engine.max_requests = FAKE_ENGINE_REQUESTS;
    server_world_unlock(&world);
}

static void the_example_works(void **state)
{
    (void)state;
    char line[1000];
    snprintf(line, sizeof(line), "'" COTERIE_BINARY_DIR "/tests/client_example' '%s' hi >%s 2>%s", world.listen,
             out_path, err_path);
    assert_int_equal(WEXITSTATUS(system(line)), 0);
    assert_file(out_path, "caf\xc3\xa9 END and more");
    assert_file(err_path, "finish: length");
}

static void drain_waits_for_the_end(void **state)
{
    (void)state;
    pid_t pid = start("drain", "--timeout 10000");
    for (bool draining = false; !draining; usleep(1000)) {
        server_world_lock(&world);
        draining = coord_server_draining(world.server);
        server_world_unlock(&world);
    }
    usleep(20000);
    assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
    server_world_stop(&world);
    assert_int_equal(end(pid), 0);
    assert_file(err_path, "has ended");
}

static int play(const char *role, int argc, char **argv)
{
    static const struct {
        const char *name;
        uint32_t bit;
        command_t run;
    } ROLES[] = {{"generate", COT_CMD_GENERATE, client_generate_command},
                 {"status", COT_CMD_STATUS, client_status_command},
                 {"bench", COT_CMD_BENCH, client_bench_command},
                 {"drain", COT_CMD_DRAIN, client_drain_command}};
    for (size_t i = 0; i < sizeof(ROLES) / sizeof(*ROLES); i++) {
        cot_settings_t *settings = NULL;
        if (strcmp(role, ROLES[i].name) != 0) continue;
        if (cot_settings_parse(ROLES[i].bit, argc, argv, &settings) != COT_OK) return 98;
        int code = ROLES[i].run(settings);
        cot_settings_destroy(settings);
        return cot_memory_live_blocks() == 0 ? code : 97;
    }
    return 99;
}

int main(int argc, char **argv)
{
    cot_json_setup();
    if (argc > 1) return play(argv[1], argc - 2, argv + 2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generate_streams),
        cmocka_unit_test(generate_for_programs),
        cmocka_unit_test(mistakes_have_their_exit_status),
        cmocka_unit_test(ctrl_c_cancels_on_the_server),
        cmocka_unit_test(status_is_text_or_json),
        cmocka_unit_test(bench_measures),
        cmocka_unit_test(the_example_works),
        cmocka_unit_test(drain_waits_for_the_end),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
