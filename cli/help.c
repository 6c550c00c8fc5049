#include "cli/commands.h"

#include "base/log.h"

#include <stdio.h>

void cli_print_help(void)
{
    printf("coterie %s: expert-parallel serving of mixture-of-experts models\n\nusage: coterie COMMAND …\n\n",
           COTERIE_VERSION);
    for (uint32_t i = 0; i < CLI_COMMAND_COUNT; i++)
        printf("  %-9s %s\n", CLI_COMMANDS[i].name, CLI_COMMANDS[i].summary);
    printf("\ncoterie COMMAND --help lists its flags. Each is also a variable: --max-context\n"
           "is COTERIE_MAX_CONTEXT; a flag wins.\n\n"
           "exit status: 0 done; 1 internal fault; 2 wrong usage; 3 some input lines were\n"
           "refused; 4 a file is missing or unfit; 5 out of memory, space, or an address in\n"
           "use; 6 a rank or the server is gone or late; 7 the server refused (busy, not\n"
           "authorised); 130 interrupted\n");
}

void cli_print_command_help(const cli_command_t *command, bool all)
{
    cot_buffer_t flags = {0};
    uint32_t hidden = 0;
    if (cot_settings_help(command->bit, all, &flags, &hidden) != COT_OK) {
        cot_log_error("%s", cot_error_text());
        return;
    }
    const char *space = command->arguments[0] != '\0' ? " " : "";
    printf("usage: coterie %s%s%s [flags]\n%s\n", command->name, space, command->arguments, command->summary);
    if (command->notes != NULL) printf("\n%s\n", command->notes);
    printf("\n%.*s", (int)flags.size, (const char *)flags.data);
    if (hidden > 0) printf("  %-23s these, and %u more that few need\n", "--help-all", hidden);
    cot_buffer_free(&flags);
}
