#include "cli/commands.h"

#include "base/log.h"
#include "base/memory.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The planner stands beside this program. */
static bool planner_path(char *path, size_t bytes)
{
    char self[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (length <= 0) return false;
    self[length] = '\0';
    char *slash = strrchr(self, '/');
    if (slash == NULL) return false;
    *slash = '\0';
    return snprintf(path, bytes, "%s/coterie-plan", self) < (int)bytes;
}

int cli_plan(int argc, char **argv)
{
    char path[PATH_MAX];
    char **arguments = cot_calloc((size_t)argc + 2, sizeof(*arguments));
    if (arguments == NULL || !planner_path(path, sizeof(path))) {
        cot_log_error("cannot find out where coterie-plan is");
        cot_free(arguments);
        return 1;
    }
    arguments[0] = path;
    memcpy(arguments + 1, argv, (size_t)argc * sizeof(*argv));
    execv(path, arguments);
    cot_log_error("cannot run %s: %s; build it with deploy/build.sh", path, strerror(errno));
    cot_free(arguments);
    return cot_exit_code(COT_ERR_NOT_FOUND);
}
