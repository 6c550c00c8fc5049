/* The lines of a text file, one after the other, read through a mapping. */
#ifndef PLACE_LINES_H
#define PLACE_LINES_H

#include "base/file.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Owns the mapping; `text` of a line stays valid until close. */
typedef struct {
    cot_map_t map;
    size_t at;
    uint32_t number;  /* of the current line, from 1 */
    const char *text; /* without its line end; no NUL follows */
    size_t bytes;
} place_lines_t;

cot_status_t place_lines_open(const char *path, place_lines_t *lines_out);
bool place_lines_next(place_lines_t *lines); /* false: there is no further line */
void place_lines_close(place_lines_t *lines);

#endif
