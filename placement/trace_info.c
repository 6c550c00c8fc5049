#include "placement/trace_info.h"

#include "base/buffer.h"
#include "base/memory.h"
#include "placement/locality.h"
#include "placement/stats.h"
#include "placement/strength.h"

#include <stdio.h>
#include <string.h>

static const uint32_t WINDOW_SIZES[PLACE_WINDOWS] = PLACE_WINDOW_SIZES;

/* Everything that is printed. Owns what it points to. */
typedef struct {
    place_trace_t *trace;
    place_stats_t *stats;
    uint64_t longest_repeat, repeated_rows;
    place_strength_t *transition, *coactivation; /* [layers - 1], [layers]; NULL: the trace does not hold them */
    place_locality_t *locality;                  /* [layers, PLACE_WINDOWS]; NULL: the trace does not hold requests */
    place_locality_t model_locality[PLACE_WINDOWS];
    place_locality_sample_t sample;
} figures_t;

static void free_figures(figures_t *figures)
{
    place_trace_close(figures->trace);
    place_stats_destroy(figures->stats);
    cot_free(figures->transition);
    cot_free(figures->coactivation);
    cot_free(figures->locality);
}

static cot_status_t measure_strengths(figures_t *figures)
{
    const place_stats_t *stats = figures->stats;
    size_t plane = (size_t)stats->experts * stats->experts;
    double *work = cot_calloc(2 * (size_t)stats->experts, sizeof(*work));
    figures->transition = stats->transition != NULL ? cot_calloc(stats->layers, sizeof(*figures->transition)) : NULL;
    figures->coactivation = stats->coactivation != NULL ? cot_calloc(stats->layers, sizeof(*figures->coactivation))
                                                        : NULL;
    bool memory = work != NULL && (figures->transition != NULL) == (stats->transition != NULL) &&
                  (figures->coactivation != NULL) == (stats->coactivation != NULL);
    for (uint32_t l = 0; memory && l < stats->layers; l++) {
        if (stats->transition != NULL && l + 1 < stats->layers)
            figures->transition[l] = place_strength_transition(stats->transition + l * plane, stats->experts, work);
        if (stats->coactivation != NULL)
            figures->coactivation[l] = place_strength_coactivation(stats->coactivation + l * plane, stats->experts,
                                                                   work);
    }
    cot_free(work);
    return memory ? COT_OK : cot_fail(COT_ERR_NO_MEMORY, "no memory for the figures of %u layers", stats->layers);
}

static cot_status_t measure_locality(figures_t *figures)
{
    size_t cells = (size_t)figures->stats->layers * PLACE_WINDOWS;
    figures->locality = cot_calloc(cells, sizeof(*figures->locality));
    if (figures->locality == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the locality figures");
    cot_status_t status = place_trace_locality(figures->trace, figures->locality, figures->model_locality,
                                               &figures->sample);
    if (status != COT_ERR_UNSUPPORTED) return status;
    cot_free(figures->locality);
    figures->locality = NULL;
    return COT_OK;
}

static cot_status_t measure(const char *path, figures_t *figures)
{
    COT_TRY(place_trace_open(path, &figures->trace));
    COT_TRY(place_stats_load(&path, 1, &figures->stats));
    place_trace_repeats(figures->trace, &figures->longest_repeat, &figures->repeated_rows);
    COT_TRY(measure_strengths(figures));
    return measure_locality(figures);
}

typedef struct {
    int64_t assignments, hottest_load;
    uint32_t hottest;
    double imbalance, balancedness;
} load_t;

static load_t load_of(const figures_t *figures, uint32_t layer)
{
    const int64_t *load = figures->stats->load + (size_t)layer * figures->stats->experts;
    load_t found = {.imbalance = place_imbalance(load, figures->stats->experts)};
    for (uint32_t e = 0; e < figures->stats->experts; e++) {
        found.assignments += load[e];
        if (load[e] > load[found.hottest]) found.hottest = e;
    }
    found.hottest_load = load[found.hottest];
    found.balancedness = 1 / (1 + found.imbalance);
    return found;
}

/* NULL where the trace does not say. */
static const place_strength_t *transition_of(const figures_t *figures, uint32_t layer)
{
    return figures->transition != NULL && layer + 1 < figures->stats->layers ? &figures->transition[layer] : NULL;
}

static const place_strength_t *coactivation_of(const figures_t *figures, uint32_t layer)
{
    return figures->coactivation != NULL ? &figures->coactivation[layer] : NULL;
}

/* ---- text ---- */

static void print_strength(const place_strength_t *strength)
{
    if (strength != NULL)
        printf("  %5.3f (%5.3f)", strength->strength, strength->chance);
    else
        printf("  %5s        ", "-");
}

static void print_layers(const figures_t *figures)
{
    const place_stats_t *stats = figures->stats;
    printf("\nlayer  assignments  imbalance  balancedness    transition  co-activation  hottest expert\n");
    for (uint32_t l = 0; l < stats->layers; l++) {
        load_t load = load_of(figures, l);
        printf("%5u  %11lld  %9.3f  %12.3f", stats->layer_index[l], (long long)load.assignments, load.imbalance,
               load.balancedness);
        print_strength(transition_of(figures, l));
        print_strength(coactivation_of(figures, l));
        printf("  %u (%lld)\n", load.hottest, (long long)load.hottest_load);
    }
    printf(
        "\ntransition to the next layer, co-activation within the layer: share above independence (in brackets what\n"
        "chance shows in that many)\n");
}

static void print_locality(const figures_t *figures)
{
    if (figures->locality == NULL) return;
    printf("\nlocality of %llu of %llu runs of tokens, cache of %d x top_k experts (arXiv 2505.16056)\n"
           "window    SRP  segment size    SCH  SCH of a static cache\n",
           (unsigned long long)figures->sample.looked_at, (unsigned long long)figures->sample.runs, PLACE_CACHE_RATIO);
    for (uint32_t w = 0; w < PLACE_WINDOWS; w++) {
        const place_locality_t *found = &figures->model_locality[w];
        printf("%6u  ", WINDOW_SIZES[w]);
        if (found->windows > 0)
            printf("%5.3f  %12.3f  %5.3f  %21.3f\n", found->srp, found->size_ratio, found->sch, found->sch_window);
        else
            printf("%5s  %12s  %5.3f  %21s\n", "-", "-", found->sch, "-");
    }
}

static void print_text(const figures_t *figures)
{
    const place_stats_t *stats = figures->stats;
    bool rows = place_trace_kind(figures->trace) == PLACE_TRACE_TOKENS;
    printf("model    %s\nkind     %s\n", stats->model[0] != '\0' ? stats->model : "-", rows ? "tokens" : "counts");
    if (stats->tokens > 0) printf("tokens   %llu\n", (unsigned long long)stats->tokens);
    printf("layers   %u\nexperts  %u\n", stats->layers, stats->experts);
    if (stats->top_k > 0) printf("top_k    %u\n", stats->top_k);
    print_layers(figures);
    print_locality(figures);
    if (figures->longest_repeat >= PLACE_REPEAT_ROWS)
        printf("\nwarning: %llu of %llu rows lie in runs of %d or more identical rows (the longest: %llu): "
               "did an engine's warm-up get in?\n",
               (unsigned long long)figures->repeated_rows, (unsigned long long)stats->tokens, PLACE_REPEAT_ROWS,
               (unsigned long long)figures->longest_repeat);
}

/* ---- JSON ---- */

static cot_status_t put_strength(cot_buffer_t *out, const char *name, const place_strength_t *strength)
{
    if (strength == NULL) return cot_buffer_printf(out, ", \"%s_strength\": null, \"%s_chance\": null", name, name);
    return cot_buffer_printf(out, ", \"%s_strength\": %.6f, \"%s_chance\": %.6f", name, strength->strength, name,
                             strength->chance);
}

static cot_status_t put_locality(cot_buffer_t *out, const place_locality_t *locality)
{
    if (locality == NULL) return cot_buffer_printf(out, ", \"locality\": null");
    for (uint32_t w = 0; w < PLACE_WINDOWS; w++) {
        const place_locality_t *found = &locality[w];
        COT_TRY(cot_buffer_printf(out, "%s{\"window\": %u, \"windows\": %llu, \"sch\": %.6f",
                                  w > 0 ? ", " : ", \"locality\": [", WINDOW_SIZES[w],
                                  (unsigned long long)found->windows, found->sch));
        if (found->windows > 0)
            COT_TRY(cot_buffer_printf(out, ", \"srp\": %.6f, \"segment_size\": %.6f, \"sch_static\": %.6f}", found->srp,
                                      found->size_ratio, found->sch_window));
        else
            COT_TRY(cot_buffer_printf(out, ", \"srp\": null, \"segment_size\": null, \"sch_static\": null}"));
    }
    return cot_buffer_printf(out, "]");
}

static cot_status_t put_layer(cot_buffer_t *out, const figures_t *figures, uint32_t l)
{
    const place_stats_t *stats = figures->stats;
    load_t load = load_of(figures, l);
    COT_TRY(cot_buffer_printf(out,
                              "%s{\"layer\": %u, \"assignments\": %lld, \"imbalance\": %.6f, \"balancedness\": %.6f, "
                              "\"hottest\": %u, \"hottest_load\": %lld",
                              l > 0 ? ",\n  " : "", stats->layer_index[l], (long long)load.assignments, load.imbalance,
                              load.balancedness, load.hottest, (long long)load.hottest_load));
    COT_TRY(put_strength(out, "transition", transition_of(figures, l)));
    COT_TRY(put_strength(out, "coactivation", coactivation_of(figures, l)));
    const place_locality_t *locality = figures->locality;
    COT_TRY(put_locality(out, locality != NULL ? locality + (size_t)l * PLACE_WINDOWS : NULL));
    return cot_buffer_printf(out, "}");
}

static cot_status_t put_figures(cot_buffer_t *out, const figures_t *figures)
{
    const place_stats_t *stats = figures->stats;
    bool rows = place_trace_kind(figures->trace) == PLACE_TRACE_TOKENS;
    COT_TRY(cot_buffer_printf(out, "{\"model\": "));
    COT_TRY(cot_buffer_json_string(out, stats->model, strlen(stats->model)));
    COT_TRY(cot_buffer_printf(out, ", \"kind\": \"%s\", \"tokens\": ", rows ? "tokens" : "counts"));
    COT_TRY(stats->tokens > 0 ? cot_buffer_printf(out, "%llu", (unsigned long long)stats->tokens)
                              : cot_buffer_printf(out, "null"));
    COT_TRY(cot_buffer_printf(
        out, ", \"experts\": %u, \"top_k\": %u, \"longest_repeat\": %llu, \"repeated_rows\": %llu", stats->experts,
        stats->top_k, (unsigned long long)figures->longest_repeat, (unsigned long long)figures->repeated_rows));
    COT_TRY(cot_buffer_printf(out, ", \"runs\": %llu, \"runs_looked_at\": %llu",
                              (unsigned long long)figures->sample.runs, (unsigned long long)figures->sample.looked_at));
    COT_TRY(put_locality(out, figures->locality != NULL ? figures->model_locality : NULL));
    COT_TRY(cot_buffer_printf(out, ",\n \"layers\": [\n  "));
    for (uint32_t l = 0; l < stats->layers; l++) COT_TRY(put_layer(out, figures, l));
    return cot_buffer_printf(out, "]}\n");
}

static cot_status_t print_json(const figures_t *figures)
{
    cot_buffer_t out = {0};
    cot_status_t status = put_figures(&out, figures);
    if (status == COT_OK) printf("%.*s", (int)out.size, (const char *)out.data);
    cot_buffer_free(&out);
    return status;
}

cot_status_t place_trace_info_print(const char *path, bool json)
{
    figures_t figures = {0};
    cot_status_t status = measure(path, &figures);
    if (status == COT_OK && json) status = print_json(&figures);
    if (status == COT_OK && !json) print_text(&figures);
    free_figures(&figures);
    return status;
}
