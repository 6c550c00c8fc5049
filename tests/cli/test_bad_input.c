/* What users get wrong: each one sentence, a documented exit status, and nothing left behind. */
#include "tests/cli/job.h"

#define DEMO "$SOURCE/demo/model"

static void refused(int code, const char *words, const char *command)
{
    print_message("%s\n", command);
    int got = job_run("%s > $DIR/stdout", command);
    if (got != code) job_stderr_has("\001");
    assert_int_equal(got, code);
    assert_true(job_stderr_has(words));
}

static void without_mpirun(void **state)
{
    (void)state;
    refused(2, "mpirun", "$PROGRAM serve " DEMO);
    refused(2, "mpirun", "$PROGRAM score " DEMO " --in a --out b");
    refused(2, "at least one worker", "$RUN -n 1 serve " DEMO);
}

static void wrong_words(void **state)
{
    (void)state;
    refused(2, "there is no command", "$PROGRAM frobnicate");
    refused(2, "did you mean --prompt-tokens", "$PROGRAM bench --promt-tokens 3");
    refused(2, "is a flag of `coterie serve`", "$PROGRAM status --kv-memory 3");
    refused(2, "whole number", "$PROGRAM generate --max-tokens many hello");
    refused(2, "COTERIE_KV_MEMORY", "COTERIE_KV_MEMORIES=1 $PROGRAM status");
    refused(2, "model directory", "$RUN -n 2 score --in a --out b");
    refused(2, "did you mean --dtype", "$RUN -n 2 serve " DEMO " --dtpye float32");
    refused(2, "--dtype int4: give auto, bfloat16 or float32", "$RUN -n 2 serve " DEMO " --dtype int4");
    refused(2, "--max-context 1: must be from 2", "$RUN -n 2 serve " DEMO " --max-context 1");
    refused(2, "--isa", "$RUN -n 2 serve " DEMO " --isa mmx");
}

static void unfit_models(void **state)
{
    (void)state;
    job_write("x.jsonl", "{\"tokens\": [1, 2]}\n");
    refused(4, "config.json", "$RUN -n 3 score /nonexistent --in $DIR/x.jsonl --out $DIR/o");
    refused(4, "",
            "mkdir -p $DIR/m && echo '{\"architectures\": [\"LlamaForCausalLM\"]}' > $DIR/m/config.json && "
            "$RUN -n 3 score $DIR/m --in $DIR/x.jsonl --out $DIR/o");
    assert_true(job_stderr_has("LlamaForCausalLM"));
    refused(4, "past the end of the file",
            "rm -rf $DIR/m && cp -r " DEMO " $DIR/m && truncate -s 1000000 $DIR/m/model-00001-of-00002.safetensors && "
            "$RUN -n 3 score $DIR/m --in $DIR/x.jsonl --out $DIR/o");
    refused(4, "model-00002",
            "rm -rf $DIR/m && cp -r " DEMO " $DIR/m && rm $DIR/m/model-00002* && "
            "$RUN -n 3 score $DIR/m --in $DIR/x.jsonl --out $DIR/o");
    refused(4, "merges",
            "rm -rf $DIR/m && cp -r " DEMO
            " $DIR/m && echo '{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}}}' > "
            "$DIR/m/tokenizer.json && $RUN -n 3 score $DIR/m --in $DIR/x.jsonl --out $DIR/o");
    refused(5, "MiB", "$RUN -n 3 score " DEMO " --kv-memory 100T --in $DIR/x.jsonl --out $DIR/o");
    assert_int_equal(access(job_path("o"), F_OK), -1);
}

static void unfit_plans(void **state)
{
    (void)state;
    job_write("x.jsonl", "{\"tokens\": [1, 2]}\n");
    job_write("p.json",
              "{\"format\": \"coterie.plan/1\", \"ranks\": 3, \"layers\": [{\"layer\": 0, \"ranks\": [[0],[1],[2]]}]}");
    refused(4, "3 workers", "$RUN -n 3 score " DEMO " --plan $DIR/p.json --in $DIR/x.jsonl --out $DIR/o");
    job_write("p.json",
              "{\"format\": \"coterie.plan/1\", \"ranks\": 2, \"layers\": [{\"layer\": 0, \"ranks\": [[0,0],[1]]}]}");
    refused(4, "twice", "$RUN -n 3 score " DEMO " --plan $DIR/p.json --in $DIR/x.jsonl --out $DIR/o");
    job_write("p.json",
              "{\"format\": \"coterie.plan/1\", \"ranks\": 2, \"layers\": [{\"layer\": 0, \"ranks\": [[0],[1]]}]}");
    refused(4, "experts", "$RUN -n 3 score " DEMO " --plan $DIR/p.json --in $DIR/x.jsonl --out $DIR/o");
    refused(4, "nonexistent", "$RUN -n 3 score " DEMO " --plan /nonexistent.json --in $DIR/x.jsonl --out $DIR/o");
}

static void unfit_lines(void **state)
{
    (void)state;
    job_write("x.jsonl",
              "{\"tokens\": [1, 2]}\nnonsense\n{\"tokens\": [99999999]}\n{\"tokens\": []}\n{\"text\": \"a\"}\n");
    refused(3, "", "$RUN -n 3 score " DEMO " --in $DIR/x.jsonl --out $DIR/o.jsonl");
    char *text = job_read("o.jsonl", NULL), *rest = text;
    for (int line = 0; line < 5; line++) {
        char *end = strchr(rest, '\n');
        assert_non_null(end);
        *end = '\0';
        assert_int_equal(strstr(rest, "\"error\"") != NULL, line >= 1 && line <= 3);
        rest = end + 1;
    }
    assert_int_equal(*rest, '\0');
    cot_free(text);
    refused(4, "nonexistent", "$RUN -n 3 score " DEMO " --in /nonexistent.jsonl --out $DIR/o");
    refused(4, "nonexistent", "$RUN -n 3 score " DEMO " --in $DIR/x.jsonl --out /nonexistent/o");
    refused(4, "nonexistent", "$RUN -n 3 score " DEMO " --in $DIR/x.jsonl --out $DIR/o --record /nonexistent/t");
    refused(4, "nonexistent", "$RUN -n 3 score " DEMO " --in $DIR/x.jsonl --out $DIR/o --logits /nonexistent/l");
    refused(2, "--in FILE", "$RUN -n 3 score " DEMO " --out $DIR/o");
    job_write("x.jsonl", "{\"tokens\": [1, 2]}\n");
    for (int i = 0; i < 3; i++) {
        static const char *const WORDS[] = {"--out /dev/full", "--out $DIR/o --record /dev/full",
                                            "--out $DIR/o --logits /dev/full"};
        char command[200];
        snprintf(command, sizeof(command), "$RUN -n 3 score " DEMO " --in $DIR/x.jsonl %s", WORDS[i]);
        refused(5, "/dev/full: cannot write it: No space left", command);
    }
}

static void clients_without_a_server(void **state)
{
    (void)state;
    refused(6, "coterie serve", "$PROGRAM generate --connect unix:$DIR/none.sock hello");
    refused(6, "coterie serve", "$PROGRAM status --connect unix:$DIR/none.sock");
    refused(2, "", "$PROGRAM generate --connect nonsense hello");
}

/* Every line at most 80 columns wide; the number of lines. */
static uint32_t count_lines(const char *words)
{
    assert_int_equal(job_run("$PROGRAM %s > $DIR/stdout", words), 0);
    char *text = job_read("stdout", NULL);
    uint32_t lines = 0, columns = 0;
    for (const char *c = text; *c != '\0'; c++) {
        columns = *c == '\n' ? 0 : columns + ((*c & 0xc0) != 0x80); /* a character of UTF-8 is one column */
        lines += *c == '\n';
        if (columns > 80) fail_msg("line %u of `coterie %s` is over 80 columns wide", lines + 1, words);
    }
    cot_free(text);
    return lines;
}

static void help_fits_a_screen(void **state)
{
    (void)state;
    static const char *const COMMANDS[] = {"serve", "score",    "generate", "status",    "bench",
                                           "drain", "tokenize", "trace",    "calibrate", "convert"};
    char words[64];
    assert_in_range(count_lines("--help"), 10, 24);
    for (size_t c = 0; c < sizeof(COMMANDS) / sizeof(*COMMANDS); c++) {
        snprintf(words, sizeof(words), "%s --help", COMMANDS[c]);
        uint32_t lines = count_lines(words);
        assert_in_range(lines, 4, 24);
        strcat(words, "-all");
        assert_true(count_lines(words) >= lines);
    }
    assert_int_equal(job_run("$PROGRAM serve --help-all | grep -q -e --step-timeout"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_mpirun),     cmocka_unit_test(wrong_words), cmocka_unit_test(unfit_models),
        cmocka_unit_test(unfit_plans),        cmocka_unit_test(unfit_lines), cmocka_unit_test(clients_without_a_server),
        cmocka_unit_test(help_fits_a_screen),
    };
    return cmocka_run_group_tests(tests, job_setup, job_teardown);
}
