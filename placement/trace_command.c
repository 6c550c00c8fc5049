#include "placement/trace_command.h"

#include "base/log.h"
#include "placement/import.h"
#include "placement/shape_options.h"
#include "placement/trace_info.h"
#include "placement/trace_sets.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

static cot_status_t need_out(const cot_settings_t *settings, const char **out)
{
    *out = cot_settings_string(settings, COT_SET_OUT);
    return (*out)[0] != '\0' ? COT_OK : cot_fail(COT_ERR_INVALID, "say with --out where the trace is to be written");
}

static cot_status_t run_info(const cot_settings_t *settings)
{
    return place_trace_info_print(cot_settings_argument(settings, 1), cot_settings_switch(settings, COT_SET_JSON));
}

static cot_status_t import_with(const cot_settings_t *settings, const place_shape_t *shape, const char *out)
{
    const char *path = cot_settings_argument(settings, 1);
    int64_t request_tokens = cot_settings_int(settings, COT_SET_REQUEST_TOKENS);
    if (request_tokens > INT32_MAX) return cot_fail(COT_ERR_INVALID, "--request-tokens must be at most %d", INT32_MAX);
    const place_import_t options = {.experts = shape->experts,
                                    .top_k = shape->top_k,
                                    .tokens = (uint64_t)cot_settings_int(settings, COT_SET_TOKENS),
                                    .layers = shape->layers,
                                    .layer_index = shape->layer_index,
                                    .request_tokens = (uint32_t)request_tokens,
                                    .where = cot_settings_string(settings, COT_SET_WHERE),
                                    .model = shape->model};
    place_import_format_t format;
    COT_TRY(place_import_format(cot_settings_string(settings, COT_SET_FORMAT), path, &format));
    return place_import(format, path, &options, out);
}

static cot_status_t run_import(const cot_settings_t *settings)
{
    const char *out = NULL;
    place_shape_t shape = {0};
    COT_TRY(need_out(settings, &out));
    COT_TRY(place_shape_load(settings, &shape));
    cot_status_t status = import_with(settings, &shape, out);
    place_shape_free(&shape);
    return status;
}

static cot_status_t run_merge(const cot_settings_t *settings)
{
    const char *out = NULL, *paths[COT_ARGUMENTS_MAX];
    COT_TRY(need_out(settings, &out));
    uint32_t count = cot_settings_arguments(settings) - 1;
    for (uint32_t i = 0; i < count; i++) paths[i] = cot_settings_argument(settings, i + 1);
    return place_trace_merge(paths, count, out);
}

/* OUT.fitted.trace.safetensors and OUT.held-out.trace.safetensors. */
static cot_status_t run_split(const cot_settings_t *settings)
{
    static const char ENDING[] = ".trace.safetensors";
    char fitted[PATH_MAX], held_out[PATH_MAX];
    const char *out = NULL;
    COT_TRY(need_out(settings, &out));
    size_t length = strlen(out), ending = sizeof(ENDING) - 1;
    if (length > ending && strcmp(out + length - ending, ENDING) == 0) length -= ending;
    if (snprintf(fitted, sizeof(fitted), "%.*s.fitted%s", (int)length, out, ENDING) >= PATH_MAX ||
        snprintf(held_out, sizeof(held_out), "%.*s.held-out%s", (int)length, out, ENDING) >= PATH_MAX)
        return cot_fail(COT_ERR_INVALID, "--out is longer than a path can be");
    const place_split_t split = {.held_out = cot_settings_number(settings, COT_SET_HELD_OUT),
                                 .seed = (uint64_t)cot_settings_int(settings, COT_SET_SEED),
                                 .fitted_path = fitted,
                                 .held_out_path = held_out};
    COT_TRY(place_trace_split(cot_settings_argument(settings, 1), &split));
    cot_log_info("wrote %s and %s", fitted, held_out);
    return COT_OK;
}

static cot_status_t run(const cot_settings_t *settings)
{
    static const struct {
        const char *word, *usage;
        uint32_t most; /* arguments after the word */
        cot_status_t (*run)(const cot_settings_t *settings);
    } WORDS[] = {{"info", "info TRACE [--json]", 1, run_info},
                 {"import", "import FILE --out TRACE", 1, run_import},
                 {"merge", "merge TRACE… --out TRACE", COT_ARGUMENTS_MAX, run_merge},
                 {"split", "split TRACE --out NAME", 1, run_split}};
    uint32_t given = cot_settings_arguments(settings);
    const char *word = given > 0 ? cot_settings_argument(settings, 0) : "";
    for (size_t w = 0; w < sizeof(WORDS) / sizeof(*WORDS); w++) {
        if (strcmp(word, WORDS[w].word) != 0) continue;
        if (given < 2 || given - 1 > WORDS[w].most)
            return cot_fail(COT_ERR_INVALID, "usage: coterie trace %s", WORDS[w].usage);
        return WORDS[w].run(settings);
    }
    return cot_fail(COT_ERR_INVALID, "coterie trace does one of info, import, merge and split, not \"%.40s\"", word);
}

int place_trace_command(const cot_settings_t *settings)
{
    cot_status_t status = run(settings);
    if (status != COT_OK) cot_log_error("%s", cot_error_text());
    return cot_exit_code(status);
}
