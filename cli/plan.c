#include "base/log.h"
#include "base/memory.h"
#include "base/program.h"
#include "cli/commands.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

int cli_plan(int argc, char **argv)
{
    char path[PATH_MAX];
    cot_status_t status = cot_program_beside("coterie-plan", path, sizeof(path));
    char **arguments = cot_calloc((size_t)argc + 2, sizeof(*arguments));
    if (status == COT_OK && arguments == NULL) status = cot_fail(COT_ERR_NO_MEMORY, "no memory for the arguments");
    if (status == COT_OK) {
        arguments[0] = path;
        memcpy(arguments + 1, argv, (size_t)argc * sizeof(*argv));
        execv(path, arguments);
        status = cot_fail(COT_ERR_NOT_FOUND, "cannot run %s: %s", path, strerror(errno));
    }
    cot_log_error("%s", cot_error_text());
    cot_free(arguments);
    return cot_exit_code(status);
}
