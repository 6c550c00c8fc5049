#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { ERROR_TEXT_BYTES = 1024 };

static _Thread_local char error_text[ERROR_TEXT_BYTES];

const char *cot_status_text(cot_status_t status)
{
    switch (status) {
#define X(name, value, exit_code, text) \
    case COT_##name: return text;
        COT_STATUS_MAP(X)
#undef X
    }
    return "unknown status";
}

int cot_exit_code(cot_status_t status)
{
    switch (status) {
#define X(name, value, exit_code, text) \
    case COT_##name: return exit_code;
        COT_STATUS_MAP(X)
#undef X
    }
    return 1;
}

cot_status_t cot_fail(cot_status_t status, const char *format, ...)
{
    /* Through a second buffer: an argument may be the old text itself. */
    char text[ERROR_TEXT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    memcpy(error_text, text, sizeof(text));
    return status;
}

cot_status_t cot_fail_in(cot_status_t status, const char *format, ...)
{
    char text[ERROR_TEXT_BYTES];
    va_list args;
    va_start(args, format);
    int used = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (used > 0 && (size_t)used < sizeof(text)) snprintf(text + used, sizeof(text) - (size_t)used, ": %s", error_text);
    memcpy(error_text, text, sizeof(text));
    return status;
}

const char *cot_error_text(void)
{
    return error_text;
}
