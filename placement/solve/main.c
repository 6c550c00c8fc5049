/* coterie-plan: expert placement from routing traces, with a proven gap.
 * SPDX-License-Identifier: GPL-3.0-or-later (it links GLPK; the rest of the tree is Apache-2.0). */
#include "placement/solve/commands.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "placement/solve/solvers.h"

#include <stdio.h>
#include <string.h>

static const solve_command_t COMMANDS[] = {
    {"solve", COT_CMD_PLAN, "TRACE… --cluster FILE --out FILE", "place the experts by what the traces show",
     "`solve` may be left out. Ctrl-C, or the end of --time-limit, gives the best plan found so far.", solve_command},
    {"evaluate", COT_CMD_PLAN_EVALUATE, "PLAN --fitted TRACE… --trace TRACE… --cluster FILE",
     "what a plan gains, on the traffic it was made from and on other traffic",
     "Beside contiguous, LPT and EPLB (made from the fitted traces); and when planning anew pays.",
     solve_evaluate_command},
    {"verify", COT_CMD_PLAN_VERIFY, "PLAN --trace FILE… --cluster FILE", "check a plan's value and its proof",
     "The bound comes from the certificate beside the plan, summed up anew by code that shares nothing with the "
     "solvers.",
     solve_verify_command},
};
enum { COMMAND_COUNT = sizeof(COMMANDS) / sizeof(*COMMANDS) };

static void print_solvers(void)
{
    printf("\nsolvers (--solver):\n");
    for (uint32_t i = 0; i < SOLVE_SOLVER_COUNT; i++)
        printf("  %-16s %s\n", SOLVE_SOLVERS[i].name, SOLVE_SOLVERS[i].summary);
}

static int print_help(const solve_command_t *command)
{
    cot_buffer_t flags = {0};
    uint32_t hidden = 0;
    if (cot_settings_help(command->bit, true, &flags, &hidden) != COT_OK) {
        cot_log_error("%s", cot_error_text());
        return cot_exit_code(COT_ERR_NO_MEMORY);
    }
    printf("usage: coterie plan %s %s [flags]\n%s\n", command->name, command->arguments, command->summary);
    if (command->notes != NULL) printf("\n%s\n", command->notes);
    printf("\n%.*s", (int)flags.size, (const char *)flags.data);
    cot_buffer_free(&flags);
    if (command->bit == COT_CMD_PLAN) print_solvers();
    for (size_t i = 0; command->bit == COT_CMD_PLAN && i < COMMAND_COUNT; i++)
        if (i > 0) printf("\ncoterie plan %s %s\n  %s\n", COMMANDS[i].name, COMMANDS[i].arguments, COMMANDS[i].summary);
    return 0;
}

static bool asks_help(int argc, char **argv)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return true;
    return false;
}

static int run(const solve_command_t *command, int argc, char **argv)
{
    cot_settings_t *settings = NULL;
    cot_status_t status = cot_settings_parse(command->bit, argc, argv, &settings);
    cot_log_level_t level = COT_LOG_INFO;
    if (status == COT_OK && !cot_log_level_parse(cot_settings_string(settings, COT_SET_LOG_LEVEL), &level))
        status = cot_fail(COT_ERR_INVALID, "--log-level must be error, warn, info or debug");
    if (status != COT_OK) {
        cot_log_error("%s (coterie plan %s --help lists the flags)", cot_error_text(), command->name);
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
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        printf("coterie-plan %s\n", COTERIE_VERSION);
        return 0;
    }
    const solve_command_t *command = &COMMANDS[0];
    int first = 1;
    for (size_t i = 0; argc > 1 && i < COMMAND_COUNT; i++)
        if (strcmp(argv[1], COMMANDS[i].name) == 0) {
            command = &COMMANDS[i];
            first = 2;
        }
    if (asks_help(argc - first, argv + first)) return print_help(command);
    if (argc > first) return run(command, argc - first, argv + first);
    print_help(command);
    return cot_exit_code(COT_ERR_INVALID);
}
