#include "base/json.h"
#include "base/log.h"
#include "cli/commands.h"
#include "client/commands.h"
#include "model/tokenize_command.h"
#include "placement/convert_command.h"
#include "placement/trace_command.h"

#include <stdio.h>
#include <string.h>

const cli_command_t CLI_COMMANDS[] = {
    {"serve", COT_CMD_SERVE, "MODEL_DIR", "serve a model: one coordinator rank and at least one worker",
     "Run under mpirun, or by deploy/run.sh. `coterie drain`, or SIGTERM to rank 0,\n"
     "ends it when all requests are done. Unless told otherwise it listens on\n"
     "unix:$XDG_RUNTIME_DIR/coterie.sock, or unix:/tmp/coterie-UID.sock.",
     NULL, cli_serve},
    {"score", COT_CMD_SCORE, "MODEL_DIR --in FILE --out FILE", "log-probabilities of given texts, offline",
     "Run under mpirun, or by deploy/run.sh. In: lines {\"text\": \"…\"} or\n"
     "{\"tokens\": [...]}; out: lines with tokens, logprobs and top1.",
     NULL, cli_score},
    {"generate", COT_CMD_GENERATE, "PROMPT | -", "generate text through a running server",
     "The prompt is sent raw: no chat template is applied. `-` reads standard input.\n"
     "Ctrl-C cancels the request on the server.",
     client_generate_command, NULL},
    {"status", COT_CMD_STATUS, "", "what a running server is doing", NULL, client_status_command, NULL},
    {"bench", COT_CMD_BENCH, "", "load a running server and report latencies", NULL, client_bench_command, NULL},
    {"drain", COT_CMD_DRAIN, "", "let a running server finish its requests and end", NULL, client_drain_command, NULL},
    {"tokenize", COT_CMD_TOKENIZE, "MODEL_DIR --in FILE --out FILE", "text to token ids, offline",
     "In: lines {\"text\": \"…\"}; out: lines {\"ids\": [...], \"text\": \"…\"}. Of the\n"
     "model it reads tokenizer.json alone.",
     model_tokenize_command, NULL},
    {"trace", COT_CMD_TRACE, "info|import|merge|split FILE…", "look at routing traces, make them of other files",
     "info FILE; import FILE --out TRACE (formats csv, jsonl, exflow, counts);\n"
     "merge TRACE… --out TRACE; split TRACE --out NAME, by request, into\n"
     "NAME.fitted.trace.safetensors and NAME.held-out.trace.safetensors.",
     place_trace_command, NULL},
    {"convert", COT_CMD_CONVERT, "IN OUT", "a plan to or from another program's placement file",
     "IN or OUT is a plan (*.plan.json); the other a TensorRT-LLM EPLB configuration\n"
     "(trtllm, *.yaml), a vllm-ascend expert map (ascend, *.json) or an EPLB phy2log\n"
     "array (phy2log, *.npy).",
     place_convert_command, NULL},
    {"calibrate", COT_CMD_CALIBRATE, "MODEL_DIR --out FILE", "measure this machine for `coterie plan`",
     "Run under mpirun, on the hosts and with the number of ranks that will serve.\n"
     "Times the expert stage at several row counts, and the links within and between\n"
     "nodes, one pair alone and all at once; writes a cluster file.",
     NULL, cli_calibrate},
    {"plan", 0, "…", "plan expert placement from traces (coterie-plan)", NULL, NULL, cli_plan},
};
const uint32_t CLI_COMMAND_COUNT = sizeof(CLI_COMMANDS) / sizeof(*CLI_COMMANDS);

static const cli_command_t *find(const char *name)
{
    for (uint32_t i = 0; i < CLI_COMMAND_COUNT; i++)
        if (strcmp(CLI_COMMANDS[i].name, name) == 0) return &CLI_COMMANDS[i];
    return NULL;
}

static bool has_word(const char *word, int argc, char **argv)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], word) == 0) return true;
    return false;
}

static int run(const cli_command_t *command, int argc, char **argv)
{
    if (command->run_raw != NULL) return command->run_raw(argc, argv);
    cot_settings_t *settings = NULL;
    cot_status_t status = cot_settings_parse(command->bit, argc, argv, &settings);
    cot_log_level_t level = COT_LOG_INFO;
    if (status == COT_OK && !cot_log_level_parse(cot_settings_string(settings, COT_SET_LOG_LEVEL), &level))
        status = cot_fail(COT_ERR_INVALID, "--log-level must be error, warn, info or debug");
    if (status != COT_OK) {
        cot_log_error("%s (coterie %s --help lists the flags)", cot_error_text(), command->name);
        cot_settings_destroy(settings);
        return cot_exit_code(status);
    }
    cot_log_set_level(level);
    int code = command->run(settings);
    cot_settings_destroy(settings);
    return code;
}

int main(int argc, char **argv)
{
    cot_json_setup();
    static const char *const HELP[] = {"--help", "--help-all", "-h", "help"};
    for (size_t i = 0; i < sizeof(HELP) / sizeof(*HELP); i++)
        if (argc < 2 || strcmp(argv[1], HELP[i]) == 0) {
            cli_print_help();
            return argc < 2 ? cot_exit_code(COT_ERR_INVALID) : 0;
        }
    if (strcmp(argv[1], "--version") == 0) {
        printf("coterie %s\n", COTERIE_VERSION);
        return 0;
    }
    const cli_command_t *command = find(argv[1]);
    if (command == NULL) {
        cot_log_error("there is no command \"%.40s\"; coterie --help lists them", argv[1]);
        return cot_exit_code(COT_ERR_INVALID);
    }
    bool all = has_word("--help-all", argc - 2, argv + 2);
    if (command->bit != 0 && (all || has_word("--help", argc - 2, argv + 2) || has_word("-h", argc - 2, argv + 2))) {
        cli_print_command_help(command, all);
        return 0;
    }
    return run(command, argc - 2, argv + 2);
}
