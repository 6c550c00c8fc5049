#include "kernels/lab/bits_case.h"

#include "base/memory.h"

#include <stdio.h>
#include <string.h>

/* Together 4,096 rows; lengths on both sides of every block, split and tile. */
static const uint32_t LENGTH[] = {600, 1, 37, 130, 64, 257, 1024, 1983};
enum { SEQUENCES = 8, ROWS = 4096, CONTEXT = 2048 };

typedef struct {
    const char *name;
    uint32_t chunk; /* rows of a sequence in a step; 0: whole */
    bool together;  /* all sequences in a step, else one after the other */
    bool graph;
    uint32_t bucket_min;  /* padded up to at least this */
    uint32_t first, last; /* sequences [first, last) */
    uint32_t stop;        /* positions past this are left out; 0: none */
} way_t;

typedef struct {
    lab_stack_t *stack;
    uint32_t me, ranks, hidden;
    float *truth; /* [ROWS, hidden], sequence after sequence */
    float *x, *out;
    bool writing; /* the first way makes the truth */
    uint64_t rows, wrong;
    char first_wrong[96];
} bits_t;

static uint32_t first_row(uint32_t sequence)
{
    uint32_t row = 0;
    for (uint32_t s = 0; s < sequence; s++) row += LENGTH[s];
    return row;
}

static uint32_t bucket_of(uint32_t rows, uint32_t least)
{
    uint32_t bucket = 1;
    while (bucket < rows || bucket < least) bucket *= 2;
    return bucket;
}

static uint32_t rows_left(const way_t *way, uint32_t sequence, uint32_t position)
{
    uint32_t end = way->stop > 0 && way->stop < LENGTH[sequence] ? way->stop : LENGTH[sequence];
    uint32_t left = position < end ? end - position : 0;
    return way->chunk > 0 && left > way->chunk ? way->chunk : left;
}

static void compare(bits_t *bits, uint32_t sequence, uint32_t position, const float *row)
{
    float *truth = bits->truth + ((size_t)first_row(sequence) + position) * bits->hidden;
    const size_t bytes = bits->hidden * sizeof(*row);
    if (bits->writing) {
        memcpy(truth, row, bytes);
        return;
    }
    bits->rows++;
    if (memcmp(truth, row, bytes) == 0) return;
    uint32_t column = 0;
    while (memcmp(&truth[column], &row[column], sizeof(*row)) == 0) column++;
    if (bits->wrong++ == 0)
        snprintf(bits->first_wrong, sizeof(bits->first_wrong), "sequence %u position %u column %u: %a, was %a",
                 sequence, position, column, (double)row[column], (double)truth[column]);
}

/* One step with up to chunk rows of each of the sequences [first, last) from position[] on; this rank has those whose
 * number is its own modulo the ranks. All ranks reckon the same bucket. */
static cot_status_t one_step(bits_t *bits, const way_t *way, const uint32_t range[2], uint32_t *position)
{
    uint32_t rows[COMM_GPU_MAX_RANKS] = {0}, most = 0, spans = 0, own = 0;
    lab_span_t span[SEQUENCES];
    for (uint32_t s = range[0]; s < range[1]; s++) {
        const uint32_t left = rows_left(way, s, position[s]), rank = s % bits->ranks;
        rows[rank] += left;
        if (rows[rank] > most) most = rows[rank];
        if (rank != bits->me || left == 0) continue;
        for (uint32_t i = 0; i < left; i++)
            lab_stack_input(bits->stack, s, position[s] + i, bits->x + (size_t)(own + i) * bits->hidden);
        span[spans++] = (lab_span_t){.sequence = s, .position = position[s], .rows = left};
        own += left;
    }
    const lab_step_t step = {.bucket = bucket_of(most, way->bucket_min), .spans = spans, .span = span};
    COT_TRY(lab_stack_prepare(bits->stack, &step, bits->x));
    COT_TRY(lab_stack_run(bits->stack, way->graph));
    COT_TRY(lab_stack_wait(bits->stack, position[range[0]]));
    COT_TRY(lab_stack_fetch(bits->stack, bits->out));
    const float *row = bits->out;
    for (uint32_t i = 0; i < spans; i++)
        for (uint32_t r = 0; r < span[i].rows; r++, row += bits->hidden)
            compare(bits, span[i].sequence, span[i].position + r, row);
    for (uint32_t s = range[0]; s < range[1]; s++) position[s] += rows_left(way, s, position[s]);
    return COT_OK;
}

static cot_status_t run_way(bits_t *bits, const way_t *way)
{
    const uint32_t last = way->last > 0 ? way->last : SEQUENCES;
    for (uint32_t s = way->first; s < last;) {
        const uint32_t range[2] = {s, way->together ? last : s + 1};
        uint32_t position[SEQUENCES] = {0};
        for (bool more = true; more;) {
            COT_TRY(one_step(bits, way, range, position));
            more = false;
            for (uint32_t i = range[0]; i < range[1]; i++) more |= rows_left(way, i, position[i]) > 0;
        }
        s = range[1];
    }
    return COT_OK;
}

static cot_status_t try_way(bits_t *bits, const way_t *way, const char *where, lab_bits_told_t told, void *user)
{
    char name[128];
    bits->rows = bits->wrong = 0;
    bits->first_wrong[0] = '\0';
    cot_status_t status = run_way(bits, way);
    snprintf(name, sizeof(name), "%s, %s", where, way->name);
    if (status == COT_OK && !bits->writing) told(user, name, bits->rows, bits->wrong, bits->first_wrong);
    return status;
}

static const way_t WHOLE_ALONE = {.name = "each sequence whole and alone"};
static const way_t WAYS[] = {
    {.name = "all together, 4,096 rows", .together = true},
    {.name = "all together, as a graph", .together = true, .graph = true},
    {.name = "chunks of 64 together, as a graph", .chunk = 64, .together = true, .graph = true},
    {.name = "chunks of 7, alone", .chunk = 7, .first = 2, .last = 6},
    {.name = "600 tokens decoded one by one together, as a graph",
     .chunk = 1,
     .together = true,
     .graph = true,
     .stop = 600},
    {.name = "decoded alone", .chunk = 1, .graph = true, .first = 1, .last = 4},
    {.name = "one row padded to 16", .first = 1, .last = 2, .bucket_min = 16},
    {.name = "one row padded to 256", .first = 1, .last = 2, .bucket_min = 256},
    {.name = "37 rows padded to 512", .first = 2, .last = 3, .bucket_min = 512},
    {.name = "decoded in buckets of 32", .chunk = 1, .together = true, .bucket_min = 32, .stop = 70},
    {.name = "decoded in buckets of 256", .chunk = 1, .together = true, .graph = true, .bucket_min = 256, .stop = 20},
};
static const size_t WAY_COUNT = sizeof(WAYS) / sizeof(*WAYS);

/* All ways, or only the first and the decoding one. */
static cot_status_t try_ways(bits_t *bits, const char *where, bool all, lab_bits_told_t told, void *user)
{
    for (size_t w = 0; w < WAY_COUNT; w++)
        if (all || w == 1 || w == 4) COT_TRY(try_way(bits, &WAYS[w], where, told, user));
    return COT_OK;
}

typedef struct {
    const lab_stack_config_t *config;
    bits_t bits;
    lab_bits_told_t told;
    void *user;
    uint64_t wrong;
} job_t;

static void tell(void *user, const char *way, uint64_t rows, uint64_t wrong, const char *first_wrong)
{
    job_t *job = user;
    job->wrong += wrong;
    job->told(job->user, way, rows, wrong, first_wrong);
}

/* A stack of its own for a group, a placement and a transport; `forms`: also with each form forced. */
static cot_status_t with_stack(job_t *job, const lab_stack_config_t *config, const char *where, bool all)
{
    bits_t *bits = &job->bits;
    COT_TRY(lab_stack_create(config, &bits->stack));
    bits->ranks = config->ranks;
    bits->me = comm_rank(config->link) - config->first;
    cot_status_t status = COT_OK;
    if (bits->writing) {
        status = try_way(bits, &WHOLE_ALONE, where, tell, job);
        bits->writing = false;
    }
    if (status == COT_OK) status = try_ways(bits, where, all, tell, job);
    static const struct {
        kern_cuda_form_t form;
        const char *name;
    } FORMS[] = {{KERN_FORM_MMA, "mma.sync forced"}, {KERN_FORM_WGMMA, "wgmma forced"}};
    for (size_t f = 0; all && status == COT_OK && f < 2; f++) {
        if (kern_cuda_force(lab_stack_kern(bits->stack), FORMS[f].form) != COT_OK) continue;
        lab_stack_forget_graphs(bits->stack);
        char name[96];
        snprintf(name, sizeof(name), "%s, %s", where, FORMS[f].name);
        status = try_ways(bits, name, false, tell, job);
    }
    lab_stack_destroy(bits->stack);
    return status;
}

static cot_status_t all_stacks(job_t *job)
{
    static const char *const PLACEMENTS[] = {"contiguous", "reversed", "random"};
    lab_stack_config_t alone = *job->config, group = *job->config;
    alone.first = comm_rank(alone.link);
    alone.ranks = 1;
    job->bits.writing = true;
    char where[96];
    for (int p = 0; p < LAB_PLACEMENTS; p++) {
        alone.placement = (lab_placement_t)p;
        snprintf(where, sizeof(where), "one GPU, %s", PLACEMENTS[p]);
        COT_TRY(with_stack(job, &alone, where, p == LAB_CONTIGUOUS));
    }
    for (int p = 0; group.ranks > 1 && p < LAB_PLACEMENTS; p++)
        for (int t = COMM_GPU_WINDOW; t <= COMM_GPU_NCCL; t++) {
            if (t == COMM_GPU_NCCL && p != LAB_RANDOM) continue;
            group.placement = (lab_placement_t)p;
            group.transport = (comm_gpu_transport_t)t;
            snprintf(where, sizeof(where), "%u GPUs, %s, %s", group.ranks, t == COMM_GPU_WINDOW ? "window" : "nccl",
                     PLACEMENTS[p]);
            COT_TRY(with_stack(job, &group, where, p == LAB_CONTIGUOUS));
        }
    return COT_OK;
}

cot_status_t lab_bits_run(const lab_stack_config_t *config, lab_bits_told_t told, void *user, uint64_t *wrong_out)
{
    lab_stack_config_t sized = *config;
    sized.sequences = SEQUENCES;
    sized.context = CONTEXT;
    sized.max_tokens = ROWS;
    const size_t bytes = (size_t)ROWS * config->hidden * sizeof(float);
    job_t job = {.config = &sized, .told = told, .user = user};
    job.bits.hidden = config->hidden;
    job.bits.truth = cot_alloc(bytes);
    job.bits.x = cot_alloc(bytes);
    job.bits.out = cot_alloc(bytes);
    cot_status_t status = COT_OK;
    if (job.bits.truth == NULL || job.bits.x == NULL || job.bits.out == NULL)
        status = cot_fail(COT_ERR_NO_MEMORY, "no memory to compare rows in");
    if (status == COT_OK) status = all_stacks(&job);
    cot_free(job.bits.truth);
    cot_free(job.bits.x);
    cot_free(job.bits.out);
    *wrong_out += job.wrong;
    return status;
}
