/* Heat maps: each rank's load by layer, and the traffic of each link. Cells of one colour are one path, so a map of 58
 * layers and 64 ranks is some 40 KB. */
#include "placement/solve/report_page.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

#define BUCKETS 8U

/* A map to draw: values, or blocks of neighbours' largest where there are too many. */
typedef struct {
    uint32_t rows, columns;         /* as drawn */
    uint32_t row_step, column_step; /* neighbours in a cell */
    double *value;                  /* [rows, columns] NAN: no cell */
    const double *edge;             /* [BUCKETS - 1] ascending: where the next colour begins */
    char scale;                     /* 'o' or 's' */
    const char *name, *row_word, *column_word;
    const uint32_t *row_label; /* [rows of the whole] or NULL: 0, 1, … */
    const char *what;          /* of the numbers: a column head */
    const solve_report_t *report;
    bool nodes_down; /* nodes part the rows too */
} map_t;

static uint32_t bucket(const map_t *map, double value)
{
    uint32_t at = 0;
    while (at + 1 < BUCKETS && value >= map->edge[at]) at++;
    return at;
}

static uint32_t step_for(uint32_t count)
{
    return (count + SOLVE_REPORT_CELLS - 1) / SOLVE_REPORT_CELLS;
}

static cot_status_t map_take(map_t *map, uint32_t rows, uint32_t columns)
{
    map->row_step = step_for(rows);
    map->column_step = step_for(columns);
    map->rows = (rows + map->row_step - 1) / map->row_step;
    map->columns = (columns + map->column_step - 1) / map->column_step;
    size_t cells = (size_t)map->rows * map->columns;
    map->value = cot_calloc(cells, sizeof(*map->value));
    if (map->value == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a map of %zu cells", cells);
    for (size_t i = 0; i < cells; i++) map->value[i] = NAN;
    return COT_OK;
}

static void map_put(map_t *map, uint32_t row, uint32_t column, double value)
{
    double *cell = &map->value[(size_t)(row / map->row_step) * map->columns + column / map->column_step];
    *cell = isnan(*cell) ? value : fmax(*cell, value);
}

static cot_status_t cells_of(const map_t *map, uint32_t wanted, cot_buffer_t *out)
{
    bool any = false;
    for (uint32_t r = 0; r < map->rows; r++) {
        const double *row = map->value + (size_t)r * map->columns;
        for (uint32_t c = 0; c < map->columns;) {
            uint32_t end = c;
            while (end < map->columns && !isnan(row[end]) && bucket(map, row[end]) == wanted) end++;
            if (end > c) {
                if (!any) COT_TRY(cot_buffer_printf(out, "<path class=%c%u d=\"", map->scale, wanted));
                COT_TRY(cot_buffer_printf(out, "M%u %uh%uv1h-%uz", c, r, end - c, end - c));
                any = true;
            }
            c = end > c ? end : c + 1;
        }
    }
    return any ? cot_buffer_printf(out, "\"/>\n") : COT_OK;
}

/* Lines between the ranks of different nodes. */
static cot_status_t node_lines(const map_t *map, cot_buffer_t *out)
{
    const place_cluster_t *cluster = map->report->cluster;
    if (cluster == NULL || cluster->nodes < 2 || map->column_step > 1) return COT_OK;
    COT_TRY(cot_buffer_printf(out, "<path class=node d=\""));
    for (uint32_t r = 1; r < cluster->ranks; r++) {
        if (cluster->rank[r].node == cluster->rank[r - 1].node) continue;
        COT_TRY(cot_buffer_printf(out, "M%u 0V%u", r, map->rows));
        if (map->nodes_down) COT_TRY(cot_buffer_printf(out, "M0 %uH%u", r, map->columns));
    }
    return cot_buffer_printf(out, "\"/>\n");
}

static uint32_t row_label(const map_t *map, uint32_t row)
{
    uint32_t first = row * map->row_step;
    return map->row_label != NULL ? map->row_label[first] : first;
}

static cot_status_t picture(const map_t *map, cot_buffer_t *out)
{
    double largest = 0;
    uint32_t at = 0, cells = map->rows * map->columns;
    for (uint32_t i = 0; i < cells; i++)
        if (!isnan(map->value[i]) && map->value[i] > largest) {
            largest = map->value[i];
            at = i;
        }
    COT_TRY(cot_buffer_printf(out, "<figure><h3>"));
    COT_TRY(solve_page_text(out, map->name));
    COT_TRY(cot_buffer_printf(out,
                              "</h3><div class=plot><div class=y><span>%s %u</span><span>%u</span></div>\n"
                              "<svg viewBox=\"0 0 %u %u\" preserveAspectRatio=none shape-rendering=crispEdges "
                              "role=img aria-label=\"",
                              map->row_word, row_label(map, 0), row_label(map, map->rows - 1), map->columns,
                              map->rows));
    COT_TRY(solve_page_text(out, map->name));
    COT_TRY(cot_buffer_printf(out, ": %s, largest %.3g at %s %u, %s %u\">\n", map->what, largest, map->row_word,
                              row_label(map, at / map->columns), map->column_word,
                              at % map->columns * map->column_step));
    for (uint32_t b = 0; b < BUCKETS; b++) COT_TRY(cells_of(map, b, out));
    COT_TRY(node_lines(map, out));
    return cot_buffer_printf(out, "</svg>\n<div class=x><span>%s 0</span><span>%u</span></div></div>\n",
                             map->column_word, (map->columns - 1) * map->column_step);
}

static cot_status_t numbers(const map_t *map, cot_buffer_t *out)
{
    COT_TRY(cot_buffer_printf(out, "<details><summary>These numbers as a table</summary><div class=scroll role=region "
                                   "tabindex=0 aria-label=\"Numbers: "));
    COT_TRY(solve_page_text(out, map->name));
    COT_TRY(cot_buffer_printf(out, "\"><table><caption>"));
    COT_TRY(solve_page_text(out, map->name));
    COT_TRY(cot_buffer_printf(out, ": %s</caption><thead><tr><th scope=col>%s \\ %s</th>", map->what, map->row_word,
                              map->column_word));
    for (uint32_t c = 0; c < map->columns; c++)
        COT_TRY(cot_buffer_printf(out, "<th scope=col>%u", c * map->column_step));
    COT_TRY(cot_buffer_printf(out, "<tbody>\n"));
    for (uint32_t r = 0; r < map->rows; r++) {
        COT_TRY(cot_buffer_printf(out, "<tr><th scope=row>%u", row_label(map, r)));
        for (uint32_t c = 0; c < map->columns; c++) {
            double value = map->value[(size_t)r * map->columns + c];
            COT_TRY(isnan(value) ? cot_buffer_printf(out, "<td>") : cot_buffer_printf(out, "<td>%.3g", value));
        }
        COT_TRY(cot_buffer_printf(out, "\n"));
    }
    COT_TRY(cot_buffer_printf(out, "</table></div>"));
    if (map->row_step > 1 || map->column_step > 1)
        COT_TRY(cot_buffer_printf(out, "<p class=soft>A cell stands for %u x %u of them and shows the largest.</p>",
                                  map->row_step, map->column_step));
    return cot_buffer_printf(out, "</details></figure>\n");
}

static cot_status_t draw(const map_t *map, cot_buffer_t *out)
{
    COT_TRY(picture(map, out));
    return numbers(map, out);
}

static cot_status_t key(char scale, const double *edge, cot_buffer_t *out)
{
    COT_TRY(cot_buffer_printf(out, "<ul class=key aria-label=\"Colours\">"));
    for (uint32_t b = 0; b < BUCKETS; b++) {
        COT_TRY(cot_buffer_printf(out, "<li><i class=%c%u></i>", scale, b));
        if (b == 0)
            COT_TRY(cot_buffer_printf(out, "under %.3g", edge[0]));
        else if (b + 1 == BUCKETS)
            COT_TRY(cot_buffer_printf(out, "%.3g and over", edge[b - 1]));
        else
            COT_TRY(cot_buffer_printf(out, "%.3g to %.3g", edge[b - 1], edge[b]));
        COT_TRY(cot_buffer_printf(out, "</li>"));
    }
    return cot_buffer_printf(out, "</ul>\n");
}

/* ---- loads ---- */

/* Time of each rank over what it were if the layer's work were spread by speed. */
static void put_loads(map_t *map, const solve_detail_t *detail)
{
    const place_cluster_t *cluster = map->report->cluster;
    double speeds = 0;
    for (uint32_t r = 0; r < detail->ranks; r++) speeds += cluster->rank[r].relative_speed;
    for (uint32_t l = 0; l < detail->layers; l++) {
        const int64_t *load = detail->load + (size_t)l * detail->ranks;
        double sum = 0;
        for (uint32_t r = 0; r < detail->ranks; r++) sum += (double)load[r];
        for (uint32_t r = 0; r < detail->ranks; r++)
            map_put(map, l, r, sum > 0 ? (double)load[r] / cluster->rank[r].relative_speed * speeds / sum : 0);
    }
}

static cot_status_t loads(const solve_report_t *report, cot_buffer_t *out)
{
    static const double EDGES[BUCKETS - 1] = {0.6, 0.8, 0.95, 1.05, 1.2, 1.5, 2};
    COT_TRY(cot_buffer_printf(out,
                              "<h2>Load by rank and layer</h2>\n<p class=soft>1 is a rank's fair share of its "
                              "layer's rows, by speed. A layer lasts as long as its most loaded rank.%s</p>\n",
                              report->cluster->nodes > 1 ? " Lines part the nodes." : ""));
    COT_TRY(key('o', EDGES, out));
    COT_TRY(cot_buffer_printf(out, "<div class=pair>\n"));
    for (uint32_t i = 0; i < report->map_count; i++) {
        const solve_detail_t *detail = report->maps[i].detail;
        map_t map = {.edge = EDGES,
                     .scale = 'o',
                     .name = report->maps[i].name,
                     .row_word = "layer",
                     .column_word = "rank",
                     .row_label = report->layer_index,
                     .what = "load over the fair share",
                     .report = report};
        cot_status_t status = map_take(&map, detail->layers, detail->ranks);
        if (status == COT_OK) put_loads(&map, detail);
        if (status == COT_OK) status = draw(&map, out);
        cot_free(map.value);
        COT_TRY(status);
    }
    return cot_buffer_printf(out, "</div>\n");
}

/* ---- traffic ---- */

static const int64_t *matrix_of(const solve_report_t *report, const solve_detail_t *detail)
{
    return report->transitions ? detail->flow : detail->traffic;
}

/* Off the diagonal: what stays on a rank crosses no link. */
static double largest_traffic(const solve_report_t *report)
{
    int64_t largest = 0;
    for (uint32_t i = 0; i < report->map_count; i++) {
        const solve_detail_t *detail = report->maps[i].detail;
        const int64_t *matrix = matrix_of(report, detail);
        for (size_t link = 0; link < (size_t)detail->ranks * detail->ranks; link++)
            if (link / detail->ranks != link % detail->ranks && matrix[link] > largest) largest = matrix[link];
    }
    return (double)largest / 1000;
}

/* "MB", "1e3 rows": the unit of a matrix whose largest entry is `largest` rows, and how many rows it is. */
static double unit_of(const solve_report_t *report, double largest, char out[32])
{
    static const char *const PREFIX[] = {"", "k", "M", "G", "T", "P"};
    bool bytes = report->row_bytes > 0 && !report->transitions;
    double unit = bytes ? report->row_bytes : 1;
    uint32_t prefix = (uint32_t)fmin(5, fmax(0, floor(log10(largest * unit) / 3)));
    const char *what = report->transitions ? "transitions" : "rows";
    if (bytes)
        snprintf(out, 32, "%sB", PREFIX[prefix]);
    else if (prefix > 0)
        snprintf(out, 32, "1e%u %s", prefix * 3, what);
    else
        snprintf(out, 32, "%s", what);
    return pow(1000, prefix) / unit;
}

static cot_status_t traffic_map(const solve_report_t *report, const solve_report_map_t *shown, map_t *map, double unit)
{
    const solve_detail_t *detail = shown->detail;
    map->name = shown->name;
    COT_TRY(map_take(map, detail->ranks, detail->ranks));
    for (uint32_t a = 0; a < detail->ranks; a++)
        for (uint32_t b = 0; b < detail->ranks; b++)
            if (a != b)
                map_put(map, a, b, (double)matrix_of(report, detail)[(size_t)a * detail->ranks + b] / 1000 / unit);
    return COT_OK;
}

static cot_status_t traffic(const solve_report_t *report, cot_buffer_t *out)
{
    double largest = largest_traffic(report), edges[BUCKETS - 1];
    if (largest <= 0) return COT_OK;
    char name[32], what[64];
    double unit = unit_of(report, largest, name);
    for (uint32_t b = 0; b + 1 < BUCKETS; b++) edges[b] = largest / unit * (b + 1) / BUCKETS;
    snprintf(what, sizeof(what), "%s from rank to rank", name);
    COT_TRY(cot_buffer_printf(out,
                              "<h2>%s between ranks</h2>\n<p class=soft>Of all layers and the whole trace, in %s: "
                              "senders down, receivers across, one scale for all.%s</p>\n",
                              report->transitions ? "Transitions" : "Traffic", name,
                              report->transitions ? " From an expert to the next layer's experts." : ""));
    COT_TRY(key('s', edges, out));
    COT_TRY(cot_buffer_printf(out, "<div class=pair>\n"));
    for (uint32_t i = 0; i < report->map_count; i++) {
        map_t map = {.edge = edges,
                     .scale = 's',
                     .row_word = "from",
                     .column_word = "to",
                     .what = what,
                     .report = report,
                     .nodes_down = true};
        cot_status_t status = traffic_map(report, &report->maps[i], &map, unit);
        if (status == COT_OK) status = draw(&map, out);
        cot_free(map.value);
        COT_TRY(status);
    }
    return cot_buffer_printf(out, "</div>\n");
}

cot_status_t solve_page_maps(const solve_report_t *report, cot_buffer_t *out)
{
    COT_TRY(loads(report, out));
    return traffic(report, out);
}
