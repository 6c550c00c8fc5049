/* `coterie trace info | import | merge | split`: routing traces looked at and made. */
#ifndef PLACE_TRACE_COMMAND_H
#define PLACE_TRACE_COMMAND_H

#include "base/settings.h"

/* Returns the process's exit code. */
int place_trace_command(const cot_settings_t *settings);

#endif
