/* What coterie-plan can be asked to do; each returns the process's exit code. */
#ifndef SOLVE_COMMANDS_H
#define SOLVE_COMMANDS_H

#include "base/settings.h"

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *name;
    uint32_t bit;          /* COT_CMD_…: which settings it has */
    const char *arguments; /* for the usage line */
    const char *summary;
    const char *notes; /* for its help page, or NULL */
    int (*run)(const cot_settings_t *settings);
} solve_command_t;

int solve_command(const cot_settings_t *settings);          /* [solve] TRACE… --cluster FILE --out FILE */
int solve_evaluate_command(const cot_settings_t *settings); /* evaluate PLAN --fitted … --trace … --cluster FILE */
int solve_verify_command(const cot_settings_t *settings);   /* verify PLAN --trace … --cluster FILE */

/* Where PLAN's certificate is: `given` (--certificate), or else PLAN's name with .cert.safetensors for .plan.json. */
void solve_certificate_path(const char *plan, const char *given, char *path_out, size_t bytes);

#endif
