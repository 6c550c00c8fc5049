/* coterie-lab STAGE: runs a stage, or an exchange, at the shapes of a model: fresh random data, reference check, bit
 * check, time, share of the limits measured in the same run. */
#include "kernels/lab/lab.cuh"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

extern "C" {
#include "base/log.h"
}

typedef struct {
    const char *name, *help;
    cot_status_t (*run)(lab_t *lab);
} stage_t;

static const stage_t STAGES[] = {
    {"blocks", "TMA, swizzle, wgmma, mma.sync: each building block alone against the host", lab_stage_blocks},
    {"limits", "read rate by ring size, k16 chains, cuBLASLt at the dense shapes and whether its bits are K-in-order",
     lab_stage_limits},
    {"attention", "paged attention: reference, bits of every form and chunking, decode and prefill times",
     lab_stage_attention},
    {"route", "router logits, top-k and weights: reference, padded and NaN rows, bits, times", lab_stage_route},
    {"sort", "stable counting sort by slot: equal to the reference, times", lab_stage_sort},
    {"rows", "residual, combine, norms: reference, times", lab_stage_rows},
    {"sample", "draws equal the host's; times", lab_stage_sample},
    {"exchange", "dispatch and return between the GPUs of an mpirun, both transports: known rows, then time",
     lab_stage_exchange},
    {"exchange-loop", "exchanges until a peer is gone (--rows SECONDS, default 20): for tests that kill one",
     lab_stage_exchange_loop},
    {"layer", "whole layers as a graph on one GPU or several: decode batches of --rows at 1k context, prefill",
     lab_stage_layer},
    {"bits", "the same rows computed in every way must have the same bits", lab_stage_bits},
    {"experts", "gate/up, SwiGLU and down over rows sorted by expert (--rows: mean rows an expert; 0: eight in all)",
     lab_stage_experts},
    {"product", "QKV, O and the LM head at --rows rows, cold weights, beside cuBLASLt", lab_stage_product},
};

static int usage(FILE *out)
{
    fprintf(out, "coterie-lab STAGE[,STAGE…] --model DIR|config.json [--rows 1,4,16] [--seed N] [--budget SECONDS]\n"
                 "            [--json FILE] [--only TEXT] [--check | --time] [--device N]\n\nstages:\n");
    for (const stage_t &stage : STAGES) fprintf(out, "  %-12s %s\n", stage.name, stage.help);
    fprintf(
        out,
        "\n--rows takes counts at which a stage is run; --only runs cases whose name holds TEXT; --check leaves out\n"
        "the timing, --time the checks. --json appends one line a case. Exit status: 0, or 1 when a result is "
        "wrong.\n");
    return out == stdout ? 0 : 2;
}

static cot_status_t parse_rows(lab_t *lab, const char *text)
{
    for (lab->rows_count = 0; *text != '\0';) {
        char *end;
        unsigned long count = strtoul(text, &end, 10);
        if (end == text || (*end != ',' && *end != '\0') || count > 1U << 20 || lab->rows_count == LAB_MAX_COUNTS)
            return cot_fail(COT_ERR_INVALID, "--rows takes up to %d counts with commas, as in 1,4,16", LAB_MAX_COUNTS);
        lab->rows[lab->rows_count++] = static_cast<uint32_t>(count);
        text = *end == ',' ? end + 1 : end;
    }
    return COT_OK;
}

/* A directory, or a config.json whose directory is meant. */
static cot_status_t load_model(lab_t *lab, const char *path)
{
    char directory[4096];
    struct stat found;
    if (stat(path, &found) != 0) return cot_fail(COT_ERR_NOT_FOUND, "no such model: %s", path);
    snprintf(directory, sizeof(directory), "%s", path);
    char *slash = strrchr(directory, '/');
    if (!S_ISDIR(found.st_mode) && slash != NULL) *slash = '\0';
    return model_config_load(S_ISDIR(found.st_mode) || slash != NULL ? directory : ".", &lab->config);
}

static cot_status_t take_option(lab_t *lab, const char *name, const char *value, int *device)
{
    if (strcmp(name, "--model") == 0) return load_model(lab, value);
    if (strcmp(name, "--rows") == 0) return parse_rows(lab, value);
    if (strcmp(name, "--seed") == 0)
        lab->seed = strtoull(value, NULL, 10);
    else if (strcmp(name, "--budget") == 0)
        lab->budget_seconds = strtod(value, NULL);
    else if (strcmp(name, "--only") == 0)
        lab->only = value;
    else if (strcmp(name, "--device") == 0)
        *device = atoi(value);
    else if (strcmp(name, "--json") == 0) {
        lab->json = fopen(value, "a");
        if (lab->json == NULL) return cot_fail(COT_ERR_IO, "cannot write %s: %m", value);
    } else
        return cot_fail(COT_ERR_INVALID, "unknown option %s: see coterie-lab --help", name);
    return COT_OK;
}

static cot_status_t parse(lab_t *lab, int argc, char **argv, int *device)
{
    lab->seed = 1;
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--check") == 0)
            lab->check_only = true;
        else if (strcmp(argv[i], "--time") == 0)
            lab->timing_only = true;
        else if (i + 1 == argc)
            return cot_fail(COT_ERR_INVALID, "%s wants a value", argv[i]);
        else {
            COT_TRY(take_option(lab, argv[i], argv[i + 1], device));
            i++;
        }
    }
    if (lab->config.hidden == 0) return cot_fail(COT_ERR_INVALID, "--model is missing: see coterie-lab --help");
    lab->random = lab->seed;
    return COT_OK;
}

/* The stage whose name `list` begins with, up to a comma; NULL: there is none. */
static const stage_t *find_stage(const char *list)
{
    const size_t length = strcspn(list, ",");
    for (const stage_t &stage : STAGES)
        if (strlen(stage.name) == length && strncmp(list, stage.name, length) == 0) return &stage;
    cot_fail(COT_ERR_INVALID, "no stage %.*s: see coterie-lab --help", static_cast<int>(length), list);
    return NULL;
}

static const char *after_comma(const char *list)
{
    list += strcspn(list, ",");
    return list + (*list == ',');
}

/* Alone, or a rank of an mpirun whose GPU is that of its number on the host. */
static cot_status_t join(lab_t *lab, int *argc, char ***argv)
{
    int launched = 1, gpus = 0;
    if (!comm_launched(&launched)) {
        lab->ranks = 1;
        return comm_local_start(1, &lab->link);
    }
    COT_TRY(comm_mpi_start(argc, argv, &lab->link));
    lab->rank = comm_rank(lab->link);
    lab->ranks = comm_ranks(lab->link);
    cot_log_set_rank(static_cast<int>(lab->rank));
    KERN_CUDA_TRY(cudaGetDeviceCount(&gpus));
    lab->gpu = static_cast<int>(comm_node_rank(lab->link));
    if (lab->gpu >= gpus)
        return cot_fail(COT_ERR_INVALID, "%d ranks on a host with %d GPUs: start at most one a GPU", lab->gpu + 1,
                        gpus);
    return COT_OK;
}

static cot_status_t run(lab_t *lab, int argc, char **argv)
{
    COT_TRY(join(lab, &argc, &argv));
    for (const char *list = argv[1]; *list != '\0'; list = after_comma(list))
        if (find_stage(list) == NULL) return COT_ERR_INVALID;
    COT_TRY(parse(lab, argc, argv, &lab->gpu));
    KERN_CUDA_TRY(cudaSetDevice(lab->gpu));
    KERN_CUDA_TRY(cudaGetDeviceProperties(&lab->device, lab->gpu));
    KERN_CUDA_TRY(cudaStreamCreateWithFlags(&lab->stream, cudaStreamNonBlocking));
    COT_TRY(lab_watch(lab));
    lab->began = lab_seconds();
    if (lab->rank == 0)
        printf("%u x %s, %d multiprocessors, L2 %.0f MB, seed %llu\n", lab->ranks, lab->device.name,
               lab->device.multiProcessorCount, lab->device.l2CacheSize / 1e6,
               static_cast<unsigned long long>(lab->seed));
    for (const char *list = argv[1]; *list != '\0'; list = after_comma(list)) {
        COT_TRY(find_stage(list)->run(lab));
        KERN_CUDA_TRY(cudaDeviceSynchronize());
        lab_release(lab);
    }
    return COT_OK;
}

/* After a lost peer nothing that waits for it may be called: kernels, NCCL and MPI end with the process. */
static void leave(lab_t *lab, cot_status_t status)
{
    if (status == COT_ERR_PEER_LOST || status == COT_ERR_TIMEOUT) {
        fflush(NULL);
        _exit(cot_exit_code(status));
    }
    if (lab->link == NULL) return;
    int launched;
    if (comm_launched(&launched))
        comm_mpi_finish(lab->link, 5000);
    else
        comm_local_finish(1, &lab->link);
}

int main(int argc, char **argv)
{
    if (argc >= 2 && strcmp(argv[1], "--help") == 0) return usage(stdout);
    if (argc < 2 || argv[1][0] == '-') return usage(stderr);
    lab_t *lab = new lab_t{}; /* stays until the process ends: the watchdog looks at it */
    cot_status_t status = run(lab, argc, argv);
    if (status != COT_OK) fprintf(stderr, "coterie-lab: rank %u: %s\n", lab->rank, cot_error_text());
    if (lab->json != NULL) fclose(lab->json);
    leave(lab, status);
    if (status == COT_OK && lab->failures > 0) {
        printf("%u wrong\n", lab->failures);
        return 1;
    }
    return cot_exit_code(status);
}
