/* Every setting of every command stands in one table (base/settings_table.h). Flags, COTERIE_* variables, help pages
 * and what rank 0 sends to the other ranks are all made from it; an unknown flag or variable is refused. */
#ifndef COT_SETTINGS_H
#define COT_SETTINGS_H

#include "base/buffer.h"
#include "base/settings_table.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum {
#define X(id, name, kind, fallback, unit, commands, help) COT_SET_##id,
    COT_SETTINGS_MAP(X)
#undef X
        COT_SET_COUNT
} cot_setting_t;

#define COT_ARGUMENTS_MAX 256

/* One command line, parsed. Owns its strings. Immutable after parsing: any thread may read. */
typedef struct cot_settings cot_settings_t;

/* `argv` without the command's own name. Flags: --name VALUE, --name=VALUE, and --name alone for switches; "--" ends
 * them; everything else is an argument. A flag wins over its variable. COT_ERR_INVALID says what is wrong and what the
 * nearest name is. */
cot_status_t cot_settings_parse(uint32_t command, int argc, char **argv, cot_settings_t **settings_out);
void cot_settings_destroy(cot_settings_t *settings);

uint32_t cot_settings_arguments(const cot_settings_t *settings);
const char *cot_settings_argument(const cot_settings_t *settings, uint32_t index);

bool cot_settings_given(const cot_settings_t *settings, cot_setting_t id); /* by flag or variable, not by default */
const char *cot_settings_string(const cot_settings_t *settings, cot_setting_t id); /* "" when unset */
/* Words of a list in the order given; NULL past the last. In COT_CMD_LISTS such a flag takes all words up to the next
 * flag and may be repeated; elsewhere it is one word, and cot_settings_string has it. */
const char *cot_settings_list(const cot_settings_t *settings, cot_setting_t id, uint32_t index);
bool cot_settings_switch(const cot_settings_t *settings, cot_setting_t id);
int64_t cot_settings_int(const cot_settings_t *settings, cot_setting_t id); /* checked at parse */
double cot_settings_number(const cot_settings_t *settings, cot_setting_t id);
uint64_t cot_settings_bytes(const cot_settings_t *settings, cot_setting_t id); /* "512M", "4GiB"; 0 for auto */

/* Rank 0 sends its settings to all. */
cot_status_t cot_settings_pack(const cot_settings_t *settings, cot_buffer_t *out);
cot_status_t cot_settings_unpack(const void *bytes, size_t count, cot_settings_t **settings_out);

/* The flags of `command` as aligned text for a help page; those that few need only if `all`. *hidden_out: how many of
 * them were left out. */
cot_status_t cot_settings_help(uint32_t command, bool all, cot_buffer_t *out, uint32_t *hidden_out);

#endif
