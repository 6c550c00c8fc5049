/* `coterie trace info`: what a routing trace holds, in figures. */
#ifndef PLACE_TRACE_INFO_H
#define PLACE_TRACE_INFO_H

#include "base/status.h"

#include <stdbool.h>

/* Prints to standard output, as text or as one JSON object (docs/formats.md has its keys). */
cot_status_t place_trace_info_print(const char *path, bool json);

#endif
