#include "placement/locality.h"

#include "base/buffer.h"
#include "base/memory.h"

#include <string.h>

#define ROWS_LOOKED_AT ((uint64_t)1 << 20) /* rows x layers */
#define WINDOW_MAX 256U

/* Sums over windows for one layer and window size. */
typedef struct {
    uint64_t windows, hits, uses, window_hits, window_uses;
    uint64_t experts_at[WINDOW_MAX + 1]; /* (window, expert) pairs with f = the index */
} tally_t;

/* One run of consecutive tokens of one layer, and what the walk along it needs. */
typedef struct {
    const place_trace_t *trace;
    uint32_t experts, top_k, layer, window, cache; /* sizes of window and cache */
    uint32_t *active;                              /* [experts] f of the present window */
    uint32_t at[WINDOW_MAX + 1];                   /* experts with f = the index */
    int32_t *next_uses;                            /* [experts] activations in the next `window` tokens */
    uint64_t *used;                                /* [experts] 1 + token of the last use; 0: not in the cache */
    uint32_t *held;                                /* [cache] experts in the cache */
} walk_t;

typedef struct {
    uint64_t begin, end; /* rows */
} run_t;

static void count_token(const walk_t *walk, uint64_t row, int32_t change)
{
    for (uint32_t k = 0; k < walk->top_k; k++)
        walk->next_uses[place_trace_expert(walk->trace, row, walk->layer, k)] += change;
}

/* ---- windows: SRP and the static cache ---- */

static void slide(walk_t *walk, uint64_t row, int change)
{
    for (uint32_t k = 0; k < walk->top_k; k++) {
        uint32_t *active = &walk->active[place_trace_expert(walk->trace, row, walk->layer, k)];
        walk->at[*active]--;
        *active = (uint32_t)((int64_t)*active + change);
        walk->at[*active]++;
    }
}

static uint64_t top_uses(const walk_t *walk)
{
    uint64_t uses = 0, room = walk->cache;
    for (uint32_t f = walk->window; f > 0 && room > 0; f--) {
        uint64_t taken = walk->at[f] < room ? walk->at[f] : room;
        uses += taken * f;
        room -= taken;
    }
    return uses;
}

static void tally_windows(walk_t *walk, run_t run, tally_t *tally)
{
    memset(walk->active, 0, walk->experts * sizeof(*walk->active));
    memset(walk->at, 0, sizeof(walk->at));
    walk->at[0] = walk->experts;
    for (uint64_t row = run.begin; row < run.end; row++) {
        if (row - run.begin >= walk->window) slide(walk, row - walk->window, -1);
        slide(walk, row, 1);
        if (row - run.begin + 1 < walk->window) continue;
        tally->windows++;
        for (uint32_t f = 0; f <= walk->window; f++) tally->experts_at[f] += walk->at[f];
        tally->window_hits += top_uses(walk);
        tally->window_uses += (uint64_t)walk->window * walk->top_k;
    }
}

/* ---- the cache that knows the next tokens ---- */

/* Fewest activations to come, then the longest unused, then the lowest number. */
static bool goes_before(const walk_t *walk, uint32_t a, uint32_t b)
{
    if (walk->next_uses[a] != walk->next_uses[b]) return walk->next_uses[a] < walk->next_uses[b];
    if (walk->used[a] != walk->used[b]) return walk->used[a] < walk->used[b];
    return a < b;
}

/* The place of the expert that goes; none of this token's does. */
static uint32_t find_victim(const walk_t *walk, uint32_t held, uint64_t now)
{
    uint32_t victim = held;
    for (uint32_t i = 0; i < held; i++)
        if (walk->used[walk->held[i]] != now &&
            (victim == held || goes_before(walk, walk->held[i], walk->held[victim])))
            victim = i;
    return victim;
}

/* The token's experts: those in the cache first, then those that must be loaded. */
static void use_cache(walk_t *walk, uint64_t row, uint32_t *held, tally_t *tally)
{
    uint64_t now = row + 1;
    for (uint32_t k = 0; k < walk->top_k; k++) {
        uint64_t *used = &walk->used[place_trace_expert(walk->trace, row, walk->layer, k)];
        tally->hits += *used != 0;
        if (*used != 0) *used = now;
    }
    for (uint32_t k = 0; k < walk->top_k; k++) {
        uint32_t e = place_trace_expert(walk->trace, row, walk->layer, k), place = *held;
        if (walk->used[e] != 0) continue;
        if (*held < walk->cache) {
            tally->hits++;
            ++*held;
        } else {
            place = find_victim(walk, *held, now);
            walk->used[walk->held[place]] = 0;
        }
        walk->held[place] = e;
        walk->used[e] = now;
    }
    tally->uses += walk->top_k;
}

static void tally_cache(walk_t *walk, run_t run, tally_t *tally)
{
    uint32_t held = 0;
    memset(walk->next_uses, 0, walk->experts * sizeof(*walk->next_uses));
    memset(walk->used, 0, walk->experts * sizeof(*walk->used));
    for (uint64_t row = run.begin; row < run.end && row < run.begin + walk->window; row++) count_token(walk, row, 1);
    for (uint64_t row = run.begin; row < run.end; row++) {
        count_token(walk, row, -1);
        if (row + walk->window < run.end) count_token(walk, row + walk->window, 1);
        use_cache(walk, row, &held, tally);
    }
}

/* ---- figures ---- */

static void add_tally(tally_t *sum, const tally_t *tally)
{
    sum->windows += tally->windows;
    sum->hits += tally->hits;
    sum->uses += tally->uses;
    sum->window_hits += tally->window_hits;
    sum->window_uses += tally->window_uses;
    for (uint32_t f = 0; f <= WINDOW_MAX; f++) sum->experts_at[f] += tally->experts_at[f];
}

static double share(uint64_t part, uint64_t all)
{
    return all > 0 ? (double)part / (double)all : 0;
}

/* The best threshold a from m down to 1: chosen pairs are those with f >= a. (a = 0 chooses all experts always, which
 * a = 1 never falls short of.) */
static place_locality_t judge(const tally_t *tally, uint32_t window, uint32_t top_k)
{
    place_locality_t found = {.windows = tally->windows,
                              .sch = share(tally->hits, tally->uses),
                              .sch_window = share(tally->window_hits, tally->window_uses)};
    uint64_t matches = 0, chosen = 0;
    for (uint32_t a = window; a > 0; a--) {
        matches += (uint64_t)a * tally->experts_at[a];
        chosen += tally->experts_at[a];
        double f1 = share(2 * matches, window * chosen + tally->window_uses);
        if (f1 <= found.srp) continue;
        found.srp = f1;
        found.size_ratio = share(chosen, tally->windows * top_k);
    }
    return found;
}

/* ---- the trace ---- */

/* Runs of rows of one request at consecutive positions; every stride-th is kept. */
static cot_status_t find_runs(const place_trace_t *trace, uint64_t stride, cot_buffer_t *runs,
                              place_locality_sample_t *sample)
{
    uint64_t rows = place_trace_tokens(trace);
    run_t run = {0};
    for (uint64_t row = 1; row <= rows; row++) {
        place_trace_where_t before = place_trace_where(trace, row - 1);
        place_trace_where_t now = row < rows ? place_trace_where(trace, row) : (place_trace_where_t){0};
        if (row < rows && now.request == before.request && now.position == (int64_t)before.position + 1) continue;
        run.end = row;
        if (sample->runs++ % stride == 0) {
            sample->looked_at++;
            COT_TRY(cot_buffer_append(runs, &run, sizeof(run)));
        }
        run.begin = row;
    }
    return COT_OK;
}

static void measure_layer(walk_t *walk, const cot_buffer_t *runs, tally_t *tally)
{
    const run_t *run = (const run_t *)(const void *)runs->data;
    for (size_t i = 0; i < runs->size / sizeof(*run); i++) {
        tally_windows(walk, run[i], tally);
        tally_cache(walk, run[i], tally);
    }
}

static cot_status_t measure(walk_t *walk, const cot_buffer_t *runs, place_locality_t *layers_out,
                            place_locality_t *model_out)
{
    static const uint32_t SIZES[PLACE_WINDOWS] = PLACE_WINDOW_SIZES;
    uint32_t layers = place_trace_info(walk->trace)->layers;
    tally_t *tally = cot_alloc(2 * sizeof(*tally));
    if (tally == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the locality figures");
    for (uint32_t w = 0; w < PLACE_WINDOWS; w++) {
        tally[1] = (tally_t){0};
        walk->window = SIZES[w];
        for (walk->layer = 0; walk->layer < layers; walk->layer++) {
            tally[0] = (tally_t){0};
            measure_layer(walk, runs, &tally[0]);
            layers_out[walk->layer * PLACE_WINDOWS + w] = judge(&tally[0], SIZES[w], walk->top_k);
            add_tally(&tally[1], &tally[0]);
        }
        model_out[w] = judge(&tally[1], SIZES[w], walk->top_k);
    }
    cot_free(tally);
    return COT_OK;
}

cot_status_t place_trace_locality(const place_trace_t *trace, place_locality_t *layers_out, place_locality_t *model_out,
                                  place_locality_sample_t *sample_out)
{
    const place_trace_info_t *info = place_trace_info(trace);
    uint64_t rows = place_trace_tokens(trace), cells = rows * info->layers;
    if (rows == 0 || place_trace_where(trace, 0).request < 0 || place_trace_where(trace, 0).position < 0)
        return cot_fail(COT_ERR_UNSUPPORTED, "locality needs rows with their requests and positions");
    uint32_t cache = PLACE_CACHE_RATIO * info->top_k < info->experts ? PLACE_CACHE_RATIO * info->top_k : info->experts;
    walk_t walk = {.trace = trace, .experts = info->experts, .top_k = info->top_k, .cache = cache};
    place_locality_sample_t sample = {0};
    cot_buffer_t runs = {0};
    walk.active = cot_calloc(info->experts, sizeof(*walk.active));
    walk.next_uses = cot_calloc(info->experts, sizeof(*walk.next_uses));
    walk.used = cot_calloc(info->experts, sizeof(*walk.used));
    walk.held = cot_calloc(cache, sizeof(*walk.held));
    cot_status_t status = COT_OK;
    if (walk.active == NULL || walk.next_uses == NULL || walk.used == NULL || walk.held == NULL)
        status = cot_fail(COT_ERR_NO_MEMORY, "no memory for the locality figures");
    if (status == COT_OK) status = find_runs(trace, cells / ROWS_LOOKED_AT + 1, &runs, &sample);
    if (status == COT_OK) status = measure(&walk, &runs, layers_out, model_out);
    if (status == COT_OK) *sample_out = sample;
    cot_buffer_free(&runs);
    cot_free(walk.active);
    cot_free(walk.next_uses);
    cot_free(walk.used);
    cot_free(walk.held);
    return status;
}
