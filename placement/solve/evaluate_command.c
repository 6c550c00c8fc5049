/* coterie-plan evaluate: what a plan gains on traffic that it was made for and on traffic that it was not. */
#include "placement/solve/commands.h"

#include "base/log.h"
#include "placement/solve/compare.h"

#include <stdio.h>

static cot_status_t evaluate(const cot_settings_t *settings, solve_compare_t *compare, cot_buffer_t *out)
{
    COT_TRY(solve_compare(settings, compare));
    bool json = cot_settings_switch(settings, COT_SET_JSON);
    COT_TRY(json ? solve_compare_json(compare, out) : solve_compare_text(compare, out));
    const char *report = cot_settings_string(settings, COT_SET_REPORT);
    if (report[0] != '\0') COT_TRY(solve_compare_report(compare, report));
    bool written = fwrite(out->data, 1, out->size, stdout) == out->size && fflush(stdout) == 0;
    return written ? COT_OK : cot_fail(COT_ERR_IO, "the figures could not be written to standard output");
}

int solve_evaluate_command(const cot_settings_t *settings)
{
    solve_compare_t compare = {0};
    cot_buffer_t out = {0};
    cot_status_t status = evaluate(settings, &compare, &out);
    solve_compare_free(&compare);
    cot_buffer_free(&out);
    if (status != COT_OK) cot_log_error("%s", cot_error_text());
    return cot_exit_code(status);
}
