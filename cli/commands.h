/* The table of subcommands. */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include "base/settings.h"

#include <stdint.h>

typedef struct {
    const char *name;
    uint32_t bit;          /* COT_CMD_…: which settings it has; 0: it parses its own arguments */
    const char *arguments; /* for the usage line */
    const char *summary;
    const char *notes; /* for its help page, or NULL */
    int (*run)(const cot_settings_t *settings);
    int (*run_raw)(int argc, char **argv); /* instead of run: gets everything after the command's name */
} cli_command_t;

extern const cli_command_t CLI_COMMANDS[];
extern const uint32_t CLI_COMMAND_COUNT;

void cli_print_help(void);
void cli_print_command_help(const cli_command_t *command, bool all);

/* serve, score and calibrate: one rank of a job under mpirun. */
int cli_serve(int argc, char **argv);
int cli_score(int argc, char **argv);
int cli_calibrate(int argc, char **argv);
/* plan: runs coterie-plan, a program of its own (GPL-3.0-or-later), with the same arguments. */
int cli_plan(int argc, char **argv);

#endif
