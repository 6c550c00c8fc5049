/* `coterie convert IN OUT`: a plan to another program's placement file, or back. */
#ifndef PLACE_CONVERT_COMMAND_H
#define PLACE_CONVERT_COMMAND_H

#include "base/settings.h"

/* Returns the process's exit code. */
int place_convert_command(const cot_settings_t *settings);

#endif
