/* What the parts of the report share. */
#ifndef SOLVE_REPORT_PAGE_H
#define SOLVE_REPORT_PAGE_H

#include "placement/solve/report.h"

/* `text` for element content or a quoted attribute; what is not UTF-8, and control characters, become U+FFFD. */
cot_status_t solve_page_text(cot_buffer_t *out, const char *text);
cot_status_t solve_page_progress(const solve_report_progress_t *progress, cot_buffer_t *out);
/* Heat maps of load by layer and rank, and of traffic by link, each with its numbers. */
cot_status_t solve_page_maps(const solve_report_t *report, cot_buffer_t *out);

#endif
