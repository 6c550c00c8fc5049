/* The client's commands. Each returns the exit code of docs/operations.md; what went wrong stands on stderr. */
#ifndef CLIENT_COMMANDS_H
#define CLIENT_COMMANDS_H

#include "base/settings.h"

int client_generate_command(const cot_settings_t *settings);
int client_status_command(const cot_settings_t *settings);
int client_bench_command(const cot_settings_t *settings);
int client_drain_command(const cot_settings_t *settings);

#endif
