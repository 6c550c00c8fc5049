#include "base/settings.h"

#include "base/memory.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

typedef enum { KIND_STRING, KIND_INT, KIND_NUMBER, KIND_SWITCH, KIND_BYTES, KIND_LIST } kind_t;

typedef struct {
    const char *name;
    kind_t kind;
    const char *fallback, *unit;
    uint32_t commands;
    const char *help;
} row_t;

static const row_t TABLE[COT_SET_COUNT] = {
#define X(id, name, kind, fallback, unit, commands, help) {name, KIND_##kind, fallback, unit, commands, help},
    COT_SETTINGS_MAP(X)
#undef X
};

#define PREFIX "COTERIE_"
#define VALUE_MAX ((size_t)1 << 20)

struct cot_settings {
    char *value[COT_SET_COUNT]; /* NULL: the default; of a list each word with its NUL, then an empty one */
    char **argument;
    uint32_t arguments;
};

static const char *const COMMAND_NAMES[] = {"serve",       "score",   "generate", "status", "bench",
                                            "tokenize",    "trace",   "drain",    "plan",   "plan evaluate",
                                            "plan verify", "convert", "calibrate"};

/* ---- names ---- */

/* Edit distance of two short names, for "did you mean". */
static size_t distance(const char *a, const char *b)
{
    size_t row[64], length = strlen(b);
    if (length >= sizeof(row) / sizeof(*row)) return SIZE_MAX;
    for (size_t j = 0; j <= length; j++) row[j] = j;
    for (size_t i = 1; a[i - 1] != '\0'; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= length; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[length];
}

static const char *nearest(const char *name, uint32_t command)
{
    const char *best = NULL;
    size_t least = SIZE_MAX;
    for (int id = 0; id < COT_SET_COUNT; id++) {
        size_t far = distance(name, TABLE[id].name);
        if (!(TABLE[id].commands & command) || far >= least) continue;
        least = far;
        best = TABLE[id].name;
    }
    return best;
}

static int find_flag(const char *name, size_t length)
{
    for (int id = 0; id < COT_SET_COUNT; id++)
        if (strlen(TABLE[id].name) == length && strncmp(TABLE[id].name, name, length) == 0) return id;
    return -1;
}

/* "max-context" becomes "COTERIE_MAX_CONTEXT". */
static void variable_name(int id, char *out, size_t bytes)
{
    snprintf(out, bytes, PREFIX "%s", TABLE[id].name);
    for (char *c = out; *c != '\0'; c++) *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
}

/* ---- values ---- */

static bool parse_int(const char *text, int64_t *out)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || value < 0) return false;
    *out = value;
    return true;
}

static bool parse_number(const char *text, double *out)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value)) return false;
    *out = value;
    return true;
}

static bool parse_bytes(const char *text, uint64_t *out)
{
    static const struct {
        const char *suffix;
        double factor;
    } UNITS[] = {{"", 1},
                 {"K", 1024.0},
                 {"KiB", 1024.0},
                 {"M", 1048576.0},
                 {"MiB", 1048576.0},
                 {"G", 1073741824.0},
                 {"GiB", 1073741824.0},
                 {"T", 1099511627776.0},
                 {"TiB", 1099511627776.0}};
    char *end;
    double value = strtod(text, &end);
    if (end == text || !(value >= 0)) return false;
    for (size_t i = 0; i < sizeof(UNITS) / sizeof(*UNITS); i++) {
        if (strcmp(end, UNITS[i].suffix) != 0 || value * UNITS[i].factor >= 9.2e18) continue;
        *out = (uint64_t)(value * UNITS[i].factor);
        return true;
    }
    return false;
}

static bool parse_switch(const char *text, bool *out)
{
    *out = strcmp(text, "true") == 0 || strcmp(text, "1") == 0;
    return *out || strcmp(text, "false") == 0 || strcmp(text, "0") == 0;
}

static cot_status_t check_value(int id, const char *shown, const char *text)
{
    int64_t integer;
    double number;
    uint64_t bytes;
    bool on;
    switch (TABLE[id].kind) {
    case KIND_STRING:
    case KIND_LIST: return COT_OK;
    case KIND_INT:
        if (parse_int(text, &integer)) return COT_OK;
        return cot_fail(COT_ERR_INVALID, "%s \"%.60s\": give a whole number, 0 or more", shown, text);
    case KIND_NUMBER:
        if (parse_number(text, &number)) return COT_OK;
        return cot_fail(COT_ERR_INVALID, "%s \"%.60s\": give a number", shown, text);
    case KIND_BYTES:
        if (parse_bytes(text, &bytes)) return COT_OK;
        return cot_fail(COT_ERR_INVALID, "%s \"%.60s\": give bytes, such as 512M or 4GiB", shown, text);
    default:
        if (parse_switch(text, &on)) return COT_OK;
        return cot_fail(COT_ERR_INVALID, "%s \"%.60s\": give true or false", shown, text);
    }
}

/* Bytes of a list's words, without the empty one that ends them. */
static size_t list_bytes(const char *value)
{
    size_t used = 0;
    while (value != NULL && value[used] != '\0') used += strlen(value + used) + 1;
    return used;
}

/* Sets `text`, or with `more` adds it to a list. */
static cot_status_t put(cot_settings_t *settings, int id, const char *shown, const char *text, bool more)
{
    size_t used = more ? list_bytes(settings->value[id]) : 0, length = strlen(text);
    if (more && length == 0) return cot_fail(COT_ERR_INVALID, "%s: an empty name", shown);
    if (used > VALUE_MAX || length > VALUE_MAX) return cot_fail(COT_ERR_INVALID, "%s: the value is too long", shown);
    COT_TRY(check_value(id, shown, text));
    char *copy = cot_calloc(used + length + 2, 1);
    if (copy == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for %s", shown);
    if (used > 0) memcpy(copy, settings->value[id], used);
    memcpy(copy + used, text, length);
    cot_free(settings->value[id]);
    settings->value[id] = copy;
    return COT_OK;
}

static cot_status_t set(cot_settings_t *settings, int id, const char *shown, const char *text)
{
    return put(settings, id, shown, text, false);
}

/* ---- environment and command line ---- */

static cot_status_t read_variable(cot_settings_t *settings, uint32_t command, const char *entry)
{
    const char *equals = strchr(entry, '=');
    size_t length = equals != NULL ? (size_t)(equals - entry) : 0;
    char wanted[96], name[96];
    if (length == 0) return COT_OK;
    if (length >= sizeof(name)) length = sizeof(name) - 1; /* longer than any of ours */
    snprintf(name, sizeof(name), "%.*s", (int)length, entry);
    for (int id = 0; id < COT_SET_COUNT; id++) {
        variable_name(id, wanted, sizeof(wanted));
        if (strcmp(wanted, name) != 0) continue;
        /* commands 0: a setting that exists as a variable only, for every command. */
        if (TABLE[id].commands != 0 && !(TABLE[id].commands & command)) return COT_OK;
        return set(settings, id, name, equals + 1);
    }
    char guess[96];
    for (size_t i = 0; i <= length; i++) guess[i] = name[i] == '_' ? '-' : (char)tolower((unsigned char)name[i]);
    const char *near = nearest(guess + strlen(PREFIX), ~0U);
    variable_name(find_flag(near, strlen(near)), wanted, sizeof(wanted));
    return cot_fail(COT_ERR_INVALID, "there is no setting behind the variable %s; did you mean %s?", name, wanted);
}

static cot_status_t read_environment(cot_settings_t *settings, uint32_t command)
{
    for (char **entry = environ; *entry != NULL; entry++)
        if (strncmp(*entry, PREFIX, strlen(PREFIX)) == 0) COT_TRY(read_variable(settings, command, *entry));
    return COT_OK;
}

static cot_status_t fail_foreign(int id)
{
    for (size_t c = 0; c < sizeof(COMMAND_NAMES) / sizeof(*COMMAND_NAMES); c++)
        if (TABLE[id].commands & (1U << c))
            return cot_fail(COT_ERR_INVALID, "--%s is a flag of `coterie %s`, not of this command", TABLE[id].name,
                            COMMAND_NAMES[c]);
    return cot_fail(COT_ERR_INVALID, "--%s is no flag; use its variable", TABLE[id].name);
}

/* All words up to the next flag, added to those that the flag had before. */
static cot_status_t read_list(cot_settings_t *settings, int id, int argc, char **argv, int *taken_out)
{
    for (*taken_out = 1; *taken_out < argc && strncmp(argv[*taken_out], "--", 2) != 0; ++*taken_out)
        COT_TRY(put(settings, id, argv[0], argv[*taken_out], true));
    if (*taken_out == 1) return cot_fail(COT_ERR_INVALID, "%s needs a value: %s", argv[0], TABLE[id].help);
    return COT_OK;
}

/* Reads the flag at argv[0] and tells how many words it took. */
static cot_status_t read_flag(cot_settings_t *settings, uint32_t command, int argc, char **argv, int *taken_out)
{
    const char *name = argv[0] + 2, *equals = strchr(name, '=');
    size_t length = equals != NULL ? (size_t)(equals - name) : strlen(name);
    int id = find_flag(name, length);
    if (id < 0) {
        char unknown[64];
        snprintf(unknown, sizeof(unknown), "%.*s", (int)(length < sizeof(unknown) ? length : sizeof(unknown)), name);
        return cot_fail(COT_ERR_INVALID, "there is no flag --%s; did you mean --%s?", unknown,
                        nearest(unknown, command));
    }
    if (!(TABLE[id].commands & command)) return fail_foreign(id);
    char shown[96];
    snprintf(shown, sizeof(shown), "--%s", TABLE[id].name);
    *taken_out = 1;
    bool list = TABLE[id].kind == KIND_LIST && command & COT_CMD_LISTS;
    if (equals != NULL) return put(settings, id, shown, equals + 1, list);
    if (TABLE[id].kind == KIND_SWITCH) return set(settings, id, shown, "true");
    if (argc < 2) return cot_fail(COT_ERR_INVALID, "%s needs a value: %s", shown, TABLE[id].help);
    if (list) return read_list(settings, id, argc, argv, taken_out);
    *taken_out = 2;
    return set(settings, id, shown, argv[1]);
}

static cot_status_t add_argument(cot_settings_t *settings, const char *text)
{
    if (settings->arguments == COT_ARGUMENTS_MAX)
        return cot_fail(COT_ERR_INVALID, "more than %d arguments", COT_ARGUMENTS_MAX);
    char *copy = cot_strdup(text);
    if (copy == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the arguments");
    settings->argument[settings->arguments++] = copy;
    return COT_OK;
}

static cot_status_t read_words(cot_settings_t *settings, uint32_t command, int argc, char **argv)
{
    bool flags = true;
    for (int i = 0; i < argc;) {
        int taken = 1;
        if (flags && strcmp(argv[i], "--") == 0)
            flags = false;
        else if (flags && strncmp(argv[i], "--", 2) == 0)
            COT_TRY(read_flag(settings, command, argc - i, argv + i, &taken));
        else if (flags && argv[i][0] == '-' && argv[i][1] != '\0')
            return cot_fail(COT_ERR_INVALID, "there is no flag %.40s: flags begin with --", argv[i]);
        else
            COT_TRY(add_argument(settings, argv[i]));
        i += taken;
    }
    return COT_OK;
}

static cot_status_t create(cot_settings_t **settings_out)
{
    cot_settings_t *settings = cot_calloc(1, sizeof(*settings));
    if (settings != NULL) settings->argument = cot_calloc(COT_ARGUMENTS_MAX, sizeof(*settings->argument));
    if (settings == NULL || settings->argument == NULL) {
        cot_free(settings);
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for the settings");
    }
    *settings_out = settings;
    return COT_OK;
}

void cot_settings_destroy(cot_settings_t *settings)
{
    if (settings == NULL) return;
    for (int id = 0; id < COT_SET_COUNT; id++) cot_free(settings->value[id]);
    for (uint32_t i = 0; i < settings->arguments; i++) cot_free(settings->argument[i]);
    cot_free(settings->argument);
    cot_free(settings);
}

cot_status_t cot_settings_parse(uint32_t command, int argc, char **argv, cot_settings_t **settings_out)
{
    cot_settings_t *settings = NULL;
    COT_TRY(create(&settings));
    cot_status_t status = read_environment(settings, command);
    if (status == COT_OK) status = read_words(settings, command, argc, argv);
    if (status != COT_OK) {
        cot_settings_destroy(settings);
        return status;
    }
    *settings_out = settings;
    return COT_OK;
}

/* ---- reading ---- */

uint32_t cot_settings_arguments(const cot_settings_t *settings)
{
    return settings->arguments;
}

const char *cot_settings_argument(const cot_settings_t *settings, uint32_t index)
{
    return settings->argument[index];
}

bool cot_settings_given(const cot_settings_t *settings, cot_setting_t id)
{
    return settings->value[id] != NULL;
}

const char *cot_settings_string(const cot_settings_t *settings, cot_setting_t id)
{
    return settings->value[id] != NULL ? settings->value[id] : TABLE[id].fallback;
}

const char *cot_settings_list(const cot_settings_t *settings, cot_setting_t id, uint32_t index)
{
    const char *word = settings->value[id];
    while (word != NULL && word[0] != '\0' && index-- > 0) word += strlen(word) + 1;
    return word != NULL && word[0] != '\0' ? word : NULL;
}

bool cot_settings_switch(const cot_settings_t *settings, cot_setting_t id)
{
    bool on = false;
    parse_switch(cot_settings_string(settings, id), &on);
    return on;
}

int64_t cot_settings_int(const cot_settings_t *settings, cot_setting_t id)
{
    int64_t value = 0;
    parse_int(cot_settings_string(settings, id), &value);
    return value;
}

double cot_settings_number(const cot_settings_t *settings, cot_setting_t id)
{
    double value = 0;
    parse_number(cot_settings_string(settings, id), &value);
    return value;
}

uint64_t cot_settings_bytes(const cot_settings_t *settings, cot_setting_t id)
{
    uint64_t value = 0;
    parse_bytes(cot_settings_string(settings, id), &value);
    return value;
}

/* ---- to the other ranks: NUL-terminated "name=value" words, then "=argument" words ---- */

static cot_status_t pack_word(cot_buffer_t *out, const char *name, const char *value)
{
    COT_TRY(cot_buffer_append(out, name, strlen(name)));
    COT_TRY(cot_buffer_append(out, "=", 1));
    return cot_buffer_append(out, value, strlen(value) + 1);
}

cot_status_t cot_settings_pack(const cot_settings_t *settings, cot_buffer_t *out)
{
    for (int id = 0; id < COT_SET_COUNT; id++)
        if (settings->value[id] != NULL && id != COT_SET_TOKEN) /* the token is rank 0's alone */
            COT_TRY(pack_word(out, TABLE[id].name, settings->value[id]));
    for (uint32_t i = 0; i < settings->arguments; i++) COT_TRY(pack_word(out, "", settings->argument[i]));
    return COT_OK;
}

static cot_status_t unpack_word(cot_settings_t *settings, const char *word)
{
    const char *equals = strchr(word, '=');
    if (equals == NULL) return cot_fail(COT_ERR_PROTOCOL, "rank 0 sent a setting without a value");
    if (equals == word) return add_argument(settings, word + 1);
    int id = find_flag(word, (size_t)(equals - word));
    if (id < 0)
        return cot_fail(COT_ERR_PROTOCOL, "rank 0 sent the unknown setting %.60s: all ranks must run one version",
                        word);
    return set(settings, id, TABLE[id].name, equals + 1);
}

cot_status_t cot_settings_unpack(const void *bytes, size_t count, cot_settings_t **settings_out)
{
    const char *word = bytes, *end = count > 0 ? word + count : word; /* bytes may be NULL, with 0 of them */
    if (count > 0 && end[-1] != '\0') return cot_fail(COT_ERR_PROTOCOL, "rank 0's settings end in mid-word");
    cot_settings_t *settings = NULL;
    COT_TRY(create(&settings));
    cot_status_t status = COT_OK;
    for (; word < end && status == COT_OK; word += strlen(word) + 1) status = unpack_word(settings, word);
    if (status != COT_OK) {
        cot_settings_destroy(settings);
        return status;
    }
    *settings_out = settings;
    return COT_OK;
}

/* ---- help ---- */

cot_status_t cot_settings_help(uint32_t command, bool all, cot_buffer_t *out, uint32_t *hidden_out)
{
    static const char *const KIND_WORDS[] = {"TEXT", "N", "X", "", "SIZE", "TEXT"};
    *hidden_out = 0;
    for (int id = 0; id < COT_SET_COUNT; id++) {
        const row_t *row = &TABLE[id];
        if (!(row->commands & command)) continue;
        if (row->commands & COT_RARE && !all) {
            ++*hidden_out;
            continue;
        }
        char flag[64];
        bool text = row->kind == KIND_STRING || row->kind == KIND_LIST;
        const char *word = text && row->unit[0] != '\0' ? row->unit : KIND_WORDS[row->kind];
        bool list = row->kind == KIND_LIST && command & COT_CMD_LISTS;
        snprintf(flag, sizeof(flag), "--%s %s%s", row->name, word, list ? "…" : "");
        COT_TRY(cot_buffer_printf(out, "  %-23s %s", flag, row->help));
        if (row->fallback[0] != '\0' && row->kind != KIND_SWITCH)
            COT_TRY(cot_buffer_printf(out, " [%s%s%s]", row->fallback, row->kind == KIND_INT && row->unit[0] ? " " : "",
                                      row->kind == KIND_INT ? row->unit : ""));
        COT_TRY(cot_buffer_printf(out, "\n"));
    }
    return COT_OK;
}
