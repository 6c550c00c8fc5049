#include "placement/lines.h"

#include <string.h>

#define BYTE_ORDER_MARK "\xef\xbb\xbf" /* spreadsheet programs write it before UTF-8 */

cot_status_t place_lines_open(const char *path, place_lines_t *lines_out)
{
    place_lines_t lines = {0};
    COT_TRY(cot_map_open(path, &lines.map));
    if (lines.map.bytes >= 3 && memcmp(lines.map.data, BYTE_ORDER_MARK, 3) == 0) lines.at = 3;
    *lines_out = lines;
    return COT_OK;
}

bool place_lines_next(place_lines_t *lines)
{
    if (lines->at >= lines->map.bytes) return false;
    const char *begin = (const char *)lines->map.data + lines->at;
    size_t left = lines->map.bytes - lines->at;
    const char *end = memchr(begin, '\n', left);
    size_t bytes = end != NULL ? (size_t)(end - begin) : left;
    lines->at += end != NULL ? bytes + 1 : bytes;
    if (bytes > 0 && begin[bytes - 1] == '\r') bytes--;
    lines->text = begin;
    lines->bytes = bytes;
    lines->number++;
    return true;
}

void place_lines_close(place_lines_t *lines)
{
    cot_map_close(&lines->map);
}
