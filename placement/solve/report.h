/* A planning or an evaluation as one HTML page: no network, no script, light and dark, from a phone's width up. Every
 * picture has its numbers beside it as a table. Text from files is escaped. */
#ifndef SOLVE_REPORT_H
#define SOLVE_REPORT_H

#include "base/buffer.h"
#include "placement/solve/evaluate.h"

typedef struct {
    const char *label, *value;
    const char *note; /* small print under the value, or NULL */
} solve_report_fact_t;

/* A table of text: `cells` [rows, columns] in reading order. The first column heads its row; the row `chosen` stands
 * out (rows: none does). */
typedef struct {
    const char *title;
    const char *note; /* a sentence under the title, or NULL */
    uint32_t columns, rows, chosen;
    bool narrow;              /* may stand beside its neighbours */
    const char *const *head;  /* [columns] */
    const char *const *cells; /* [rows, columns]; NULL entries are empty */
} solve_report_table_t;

typedef struct {
    double seconds, value;
} solve_report_point_t;

/* Where a search stood over time; both curves are steps and hold until `seconds`. */
typedef struct {
    const solve_report_point_t *incumbent, *bound; /* in the order of time; bound may be NULL */
    uint32_t incumbents, bounds;
    double seconds;
    const char *unit;
} solve_report_progress_t;

/* One placement's loads and traffic, as solve_judge tells them. */
typedef struct {
    const char *name;
    const solve_detail_t *detail;
} solve_report_map_t;

/* Borrows everything. What is absent (0, NULL) is left out of the page. */
typedef struct {
    const char *title, *subtitle;
    const solve_report_fact_t *facts;
    uint32_t fact_count;
    const solve_report_table_t *tables; /* the table of all solvers first */
    uint32_t table_count;
    const solve_report_progress_t *progress;
    const solve_report_map_t *maps; /* before, after; all of one shape */
    uint32_t map_count;
    const place_cluster_t *cluster; /* with maps */
    const uint32_t *layer_index;    /* [layers] with maps */
    uint32_t row_bytes;             /* traffic in bytes; 0: in rows */
    bool transitions;               /* the maps show transitions between ranks instead of the exchange's traffic */
} solve_report_t;

/* Most cells of a map in either direction: beyond, neighbours are shown as one cell, the largest of them. */
#define SOLVE_REPORT_CELLS 128U

cot_status_t solve_report_print(const solve_report_t *report, cot_buffer_t *out);
cot_status_t solve_report_save(const solve_report_t *report, const char *path);

/* "12.3 MB": decimal units; into `out`, which is returned. */
const char *solve_report_bytes(double bytes, char out[32]);

#endif
