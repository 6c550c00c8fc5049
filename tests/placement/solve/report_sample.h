/* Made-up reports for the tests of the page: every part of it, any shape, and names that try to break out. */
#ifndef TESTS_PLACEMENT_SOLVE_REPORT_SAMPLE_H
#define TESTS_PLACEMENT_SOLVE_REPORT_SAMPLE_H

#include "tests/temporary.h"

#include "base/json.h"
#include "placement/solve/report.h"

#include <math.h>

#define SAMPLE_HOSTILE "m</title><script>alert('x')</script>&\"\x01\xff"

typedef struct {
    uint32_t layers, ranks, nodes;
    place_cluster_t *cluster;
    uint32_t *layer_index;
    solve_detail_t before, after;
    solve_report_point_t incumbent[900], bound[40];
    solve_report_progress_t progress;
    solve_report_map_t maps[2];
    solve_report_table_t tables[2];
    solve_report_fact_t facts[6];
    solve_report_t report;
} sample_t;

static inline void sample_cluster(sample_t *at)
{
    char text[4096];
    size_t used = (size_t)snprintf(text, sizeof(text), "{\"format\": \"coterie.cluster/1\", \"ranks\": [");
    for (uint32_t n = 0; n < at->nodes; n++)
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s{\"count\": %u, \"node\": %u}", n > 0 ? ", " : "",
                                 at->ranks / at->nodes, n);
    snprintf(text + used, sizeof(text) - used,
             "], \"links\": {\"same_node\": {\"gigabytes_per_s\": 300}, \"cross_node\": {\"gigabytes_per_s\": 40}}}");
    assert_ok(place_cluster_parse(text, strlen(text), "cluster", &at->cluster));
}

static inline void sample_detail(const sample_t *at, solve_detail_t *detail, double spread)
{
    size_t ranks = at->ranks;
    detail->layers = at->layers;
    detail->ranks = at->ranks;
    detail->load = cot_calloc(at->layers * ranks, sizeof(*detail->load));
    detail->traffic = cot_calloc(ranks * ranks, sizeof(*detail->traffic));
    assert_true(detail->load != NULL && detail->traffic != NULL);
    for (size_t i = 0; i < at->layers * ranks; i++)
        detail->load[i] = (int64_t)(1e5 * (1 + spread * sin((double)i * 0.7) + spread * spread * cos((double)(i * i))));
    for (size_t a = 0; a < ranks; a++)
        for (size_t b = 0; b < ranks; b++) {
            bool near = at->cluster->rank[a].node == at->cluster->rank[b].node;
            if (a != b)
                detail->traffic[a * ranks + b] = (int64_t)(1e7 * (near ? 3 : 1) *
                                                           (1 + spread * sin((double)(a * 7 + b))));
        }
}

static inline void sample_make(sample_t *at, uint32_t layers, uint32_t ranks, uint32_t nodes)
{
    static const char *const HEAD[] = {"solver", "crossings", "gap", "largest load", "seconds", "proof"};
    static const char *const CELLS[] = {
        "contiguous", "9,804,331", "46.1 %", "1.62",
        "0.00",       "-",         "lpt",    "9,790,112",
        "46.0 %",     "1.01",      "0.01",   "-",
        "eplb",       "9,792,640", "46.0 %", "1.01",
        "0.01",       "-",         "ilp",    NULL,
        NULL,         NULL,        "5.00",   "no model: 1,081,344 nonzeros are over the limit of 200,000",
        "portfolio",  "5,721,004", "7.7 %",  "1.19",
        "20.0",       "dual"};
    static const char *const HEAD2[] = {"placement", "fitted", "held-out", SAMPLE_HOSTILE};
    static const char *const CELLS2[] = {"plan", "1.23", "1.31", "<b>", "lpt", "1.52", "1.55", "&amp;"};
    *at = (sample_t){.layers = layers, .ranks = ranks, .nodes = nodes};
    sample_cluster(at);
    at->layer_index = cot_calloc(layers, sizeof(*at->layer_index));
    assert_non_null(at->layer_index);
    for (uint32_t l = 0; l < layers; l++) at->layer_index[l] = l + 3;
    sample_detail(at, &at->before, 0.55);
    sample_detail(at, &at->after, 0.12);
    for (uint32_t i = 0; i < 900; i++)
        at->incumbent[i] = (solve_report_point_t){0.02 * i, 9.8e6 - 4.1e6 * (1 - exp(-0.01 * i))};
    for (uint32_t i = 0; i < 40; i++)
        at->bound[i] = (solve_report_point_t){0.5 * i, 5.28e6 * (1 - exp(-0.4 * (i + 1)))};
    at->progress = (solve_report_progress_t){at->incumbent, at->bound, 900, 40, 20, "crossings"};
    at->maps[0] = (solve_report_map_t){"Before: contiguous", &at->before};
    at->maps[1] = (solve_report_map_t){"After: the plan", &at->after};
    at->tables[0] = (solve_report_table_t){"All solvers", "Judged by one evaluator.", 6, 5, 4, false, HEAD, CELLS};
    at->tables[1] = (solve_report_table_t){"Held out", NULL, 4, 2, 0, true, HEAD2, CELLS2};
    const solve_report_fact_t facts[6] = {{"crossings", "5,721,004", "41.7 % fewer than contiguous"},
                                          {"lower bound", "5,280,771", "proof: dual"},
                                          {"gap", "7.7 %", "the bound's weakness and what is unknown, together"},
                                          {"largest rank load", "1.19", "of its layer's mean; contiguous 1.62"},
                                          {"step time", "1.83 ms", NULL},
                                          {"model", SAMPLE_HOSTILE, NULL}};
    memcpy(at->facts, facts, sizeof(facts));
    at->report = (solve_report_t){.title = "Expert placement: " SAMPLE_HOSTILE,
                                  .subtitle = "synthetic, on a made-up cluster",
                                  .facts = at->facts,
                                  .fact_count = 6,
                                  .tables = at->tables,
                                  .table_count = 2,
                                  .progress = &at->progress,
                                  .maps = at->maps,
                                  .map_count = 2,
                                  .cluster = at->cluster,
                                  .layer_index = at->layer_index,
                                  .row_bytes = 14336};
}

static inline void sample_free(sample_t *at)
{
    place_cluster_destroy(at->cluster);
    cot_free(at->layer_index);
    solve_detail_free(&at->before);
    solve_detail_free(&at->after);
}

#endif
