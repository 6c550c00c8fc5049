#include "cli/commands.h"

#include "base/log.h"

#include <stdio.h>

void cli_print_help(void)
{
    printf("coterie %s: expert-parallel serving of mixture-of-experts models\n\nusage: coterie COMMAND …\n\n",
           COTERIE_VERSION);
    for (uint32_t i = 0; i < CLI_COMMAND_COUNT; i++)
        printf("  %-9s %s\n", CLI_COMMANDS[i].name, CLI_COMMANDS[i].summary);
    printf(
        "\ncoterie COMMAND --help lists a command's flags. Each flag is also a variable: --max-context is\n"
        "COTERIE_MAX_CONTEXT; a flag wins.\n\n"
        "exit status: 0 done; 1 internal fault; 2 wrong usage; 3 some input lines were refused; 4 a file is missing\n"
        "or unfit; 5 out of memory, space, or an address in use; 6 a rank or the server is gone or late; 7 the server\n"
        "refused (busy, not authorised); 130 interrupted\n");
}

void cli_print_command_help(const cli_command_t *command)
{
    cot_buffer_t flags = {0};
    if (cot_settings_help(command->bit, &flags) != COT_OK) {
        cot_log_error("%s", cot_error_text());
        return;
    }
    printf("usage: coterie %s %s [flags]\n%s\n", command->name, command->arguments, command->summary);
    if (command->notes != NULL) printf("\n%s\n", command->notes);
    printf("\n%.*s", (int)flags.size, (const char *)flags.data);
    cot_buffer_free(&flags);
}
