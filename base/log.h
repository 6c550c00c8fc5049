/* Log lines on stderr: lower-case, searchable, one write(2) each: "coterie: rank 3 layer 12: …". Control characters,
 * which a file or a peer may have slipped into a name, are shown as "?". */
#ifndef COT_LOG_H
#define COT_LOG_H

#include <stdbool.h>

typedef enum { COT_LOG_ERROR, COT_LOG_WARN, COT_LOG_INFO, COT_LOG_DEBUG } cot_log_level_t;

void cot_log_set_level(cot_log_level_t level);
bool cot_log_level_parse(const char *name, cot_log_level_t *level_out);
/* Lines of this process start with "coterie: rank N: " from now on; negative: "coterie: ". */
void cot_log_set_rank(int rank);

__attribute__((format(printf, 2, 3))) void cot_log_at(cot_log_level_t level, const char *format, ...);

#define cot_log_error(...) cot_log_at(COT_LOG_ERROR, __VA_ARGS__)
#define cot_log_warn(...) cot_log_at(COT_LOG_WARN, __VA_ARGS__)
#define cot_log_info(...) cot_log_at(COT_LOG_INFO, __VA_ARGS__)
#define cot_log_debug(...) cot_log_at(COT_LOG_DEBUG, __VA_ARGS__)

/* Warnings and errors logged so far: tests fail on an unexpected one. */
unsigned cot_log_warning_count(void);

#endif
