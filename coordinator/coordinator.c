#include "coordinator/coordinator.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/signals.h"
#include "coordinator/auto_plan.h"
#include "coordinator/calibrate.h"
#include "coordinator/engine.h"
#include "coordinator/fleet.h"
#include "coordinator/score.h"
#include "coordinator/server.h"
#include "kernels/kern.h"
#include "model/config.h"
#include "model/tokenizer.h"
#include "placement/plan.h"
#include "proto/address.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PROGRESS_LINE_MS = 5000 }; /* between two lines about loading */

/* Everything rank 0 holds, in the order in which it comes to be. */
typedef struct {
    comm_link_t *link;
    const cot_settings_t *settings;
    bool serve, measure; /* neither: score */
    model_config_t config;
    const char *name; /* last part of the model's path */
    bool wide;        /* activations in float32 */
    uint32_t max_context;
    model_tokenizer_t *tokenizer; /* NULL: score without one */
    uint32_t layer_index[MODEL_MAX_LAYERS];
    place_plan_need_t need; /* what a plan must be for */
    cot_buffer_t plan_text; /* empty: contiguous */
    coord_fleet_t fleet;
    bool setup_sent;
    place_recorder_t *recorder;
    coord_server_t *server;
    coord_engine_t *engine;
    bool trace_full_said;
} job_t;

/* ---- reading what the command line names ---- */

static cot_status_t check_choice(const job_t *job, cot_setting_t id, const char *flag, const char *const *choices)
{
    const char *value = cot_settings_string(job->settings, id);
    char list[64] = "";
    for (const char *const *choice = choices; *choice != NULL; choice++) {
        if (strcmp(value, *choice) == 0) return COT_OK;
        size_t used = strlen(list);
        snprintf(list + used, sizeof(list) - used, "%s%s", used > 0 ? choice[1] != NULL ? ", " : " or " : "", *choice);
    }
    return cot_fail(COT_ERR_INVALID, "--%s %.60s: give %s", flag, value, list);
}

static cot_status_t check_range(const job_t *job, cot_setting_t id, const char *flag, int64_t least, int64_t most)
{
    int64_t value = cot_settings_int(job->settings, id);
    if (value >= least && value <= most) return COT_OK;
    return cot_fail(COT_ERR_INVALID, "--%s %lld: must be from %lld to %lld", flag, (long long)value, (long long)least,
                    (long long)most);
}

static cot_status_t check_settings(const job_t *job)
{
    COT_TRY(check_choice(job, COT_SET_DTYPE, "dtype", (const char *const[]){"auto", "bfloat16", "float32", NULL}));
    COT_TRY(check_choice(job, COT_SET_LOAD_FORMAT, "load-format", (const char *const[]){"auto", "dummy", NULL}));
    COT_TRY(check_choice(job, COT_SET_BACKEND, "backend", (const char *const[]){"cpu", "ref", NULL}));
    COT_TRY(check_range(job, COT_SET_THREADS, "threads", 0, 1024));
    COT_TRY(check_range(job, COT_SET_MAX_STEP_TOKENS, "max-step-tokens", 1, 65536));
    COT_TRY(check_range(job, COT_SET_MAX_SEQUENCES, "max-sequences", 1, 65536));
    if (cot_settings_int(job->settings, COT_SET_MAX_CONTEXT) != 0) /* a token of prompt and one of output */
        COT_TRY(check_range(job, COT_SET_MAX_CONTEXT, "max-context", 2, 1 << 24));
    COT_TRY(check_range(job, COT_SET_MAX_CONNECTIONS, "max-connections", 1, 65536));
    COT_TRY(check_range(job, COT_SET_MAX_QUEUE, "max-queue", 1, 1 << 20));
    COT_TRY(check_range(job, COT_SET_DRAIN_TIMEOUT, "drain-timeout", 0, 86400000));
    COT_TRY(check_range(job, COT_SET_STEP_TIMEOUT, "step-timeout", 1, 86400000));
    /* The workers wait ten minutes for what follows the planning. */
    COT_TRY(check_range(job, COT_SET_PLAN_TIMEOUT, "plan-timeout", 1, 480000));
    return check_range(job, COT_SET_START_TIMEOUT, "start-timeout", 1, 86400000);
}

static uint32_t moe_layers(const model_config_t *config, uint32_t *layer_index)
{
    uint32_t layers = 0;
    for (uint32_t l = 0; l < config->layers; l++)
        if (config->layer[l].moe) layer_index[layers++] = l;
    return layers;
}

static bool plans_itself(const job_t *job)
{
    return strcmp(cot_settings_string(job->settings, COT_SET_PLAN), "auto") == 0;
}

static cot_status_t read_plan(job_t *job)
{
    const char *path = cot_settings_string(job->settings, COT_SET_PLAN);
    job->need = (place_plan_need_t){.layers = moe_layers(&job->config, job->layer_index),
                                    .experts = job->config.experts,
                                    .ranks = comm_ranks(job->link) - 1,
                                    .layer_index = job->layer_index,
                                    .config_sha256 = job->config.sha256};
    if (plans_itself(job) && !cot_settings_given(job->settings, COT_SET_TRACE))
        return cot_fail(COT_ERR_INVALID, "--plan auto needs --trace FILE: the routing that it plans for");
    if (path[0] == '\0' || plans_itself(job)) return COT_OK;
    place_plan_t *plan = NULL;
    COT_TRY(place_plan_load(path, &plan));
    cot_status_t status = place_plan_check(plan, &job->need);
    if (status != COT_OK) cot_fail_in(status, "%s", path);
    if (status == COT_OK) status = place_plan_print(plan, &job->plan_text);
    place_plan_destroy(plan);
    return status;
}

/* A file that cannot be written is found out now, not after the work. */
static cot_status_t probe_output(const char *path)
{
    cot_output_t probe = {0};
    if (path[0] == '\0') return COT_OK;
    COT_TRY(cot_output_open(path, &probe));
    cot_output_discard(&probe);
    return COT_OK;
}

static cot_status_t check_score_files(const cot_settings_t *settings)
{
    const char *in = cot_settings_string(settings, COT_SET_IN), *out = cot_settings_string(settings, COT_SET_OUT);
    if (in[0] == '\0' || out[0] == '\0')
        return cot_fail(COT_ERR_INVALID, "score needs --in FILE.jsonl (- is standard input) and --out FILE.jsonl");
    if (strcmp(in, "-") != 0 && access(in, R_OK) != 0)
        return cot_fail(errno == ENOENT ? COT_ERR_NOT_FOUND : COT_ERR_IO, "--in %s: %s", in, strerror(errno));
    COT_TRY(probe_output(out));
    return probe_output(cot_settings_string(settings, COT_SET_LOGITS));
}

static cot_status_t start_recorder(job_t *job)
{
    const char *path = cot_settings_string(job->settings, COT_SET_RECORD);
    if (path[0] == '\0') return COT_OK;
    COT_TRY(probe_output(path));

    uint32_t layer_index[MODEL_MAX_LAYERS], layers = moe_layers(&job->config, layer_index);
    return place_recorder_create(&(place_trace_info_t){.model = job->name,
                                                       .config_sha256 = job->config.sha256,
                                                       .experts = job->config.experts,
                                                       .top_k = job->config.top_k,
                                                       .layers = layers,
                                                       .layer_index = layer_index,
                                                       .row_bytes = job->config.hidden * (job->wide ? 4 : 2)},
                                 cot_settings_bytes(job->settings, COT_SET_RECORD_LIMIT), &job->recorder);
}

static void name_model(job_t *job)
{
    const char *directory = cot_settings_argument(job->settings, 0), *slash = strrchr(directory, '/');
    const char *dtype = cot_settings_string(job->settings, COT_SET_DTYPE);
    job->name = slash != NULL && slash[1] != '\0' ? slash + 1 : directory;
    job->wide = strcmp(dtype, "float32") == 0 || (strcmp(dtype, "auto") == 0 && job->config.dtype != COT_DTYPE_BF16);
}

static cot_status_t read_inputs(job_t *job)
{
    const char *directory = cot_settings_argument(job->settings, 0);
    COT_TRY(check_settings(job));
    if (!job->serve) COT_TRY(check_score_files(job->settings));
    COT_TRY(model_config_load(directory, &job->config));
    name_model(job);
    COT_TRY(
        model_config_context(&job->config, cot_settings_int(job->settings, COT_SET_MAX_CONTEXT), &job->max_context));
    COT_TRY(read_plan(job));
    cot_status_t status = model_tokenizer_load(directory, &job->tokenizer);
    if (status == COT_ERR_NOT_FOUND) status = COT_OK; /* token ids can be scored and served without one */
    COT_TRY(status);
    return start_recorder(job);
}

/* ---- start: hello, setup, ready ---- */

/* What happens between two looks at the workers. */
static cot_status_t breathe(job_t *job, cot_backoff_t *backoff)
{
    if (cot_signals_asked() != COT_ASKED_NOTHING) return cot_fail(COT_ERR_CANCELLED, "interrupted while starting");
    if (job->server != NULL) COT_TRY(coord_server_poll(job->server, 0));
    cot_backoff_wait(backoff);
    return COT_OK;
}

/* To clients, who draw a bar, and every few seconds to the log: under mpirun rank 0 has no terminal. */
static void show_progress(job_t *job, cot_deadline_t *next_line)
{
    float progress = coord_fleet_progress(&job->fleet);
    if (job->server != NULL) coord_server_set_progress(job->server, progress);
    if (!cot_deadline_passed(*next_line)) return;
    cot_log_info("loading weights: %.0f %%", (double)progress * 100);
    *next_line = cot_deadline_in_ms(PROGRESS_LINE_MS);
}

static cot_status_t await(job_t *job, rpc_start_kind_t kind, int64_t timeout_ms, const char *what)
{
    cot_deadline_t deadline = cot_deadline_in_ms(timeout_ms), next_line = cot_deadline_in_ms(PROGRESS_LINE_MS);
    cot_backoff_t backoff = {0};
    while (!coord_fleet_all(&job->fleet, kind)) {
        COT_TRY(coord_fleet_poll(&job->fleet));
        if (kind == RPC_START_READY) show_progress(job, &next_line);
        if (cot_deadline_passed(deadline)) {
            char missing[128];
            coord_fleet_missing(&job->fleet, kind, missing, sizeof(missing));
            return cot_fail(COT_ERR_TIMEOUT, "%s: nothing from %s within %lld ms", what, missing,
                            (long long)timeout_ms);
        }
        COT_TRY(breathe(job, &backoff));
    }
    return COT_OK;
}

static cot_status_t run_planner(job_t *job, coord_auto_plan_t *planner)
{
    cot_backoff_t backoff = {0};
    while (!coord_auto_plan_ended(planner)) {
        COT_TRY(coord_fleet_poll(&job->fleet));
        COT_TRY(breathe(job, &backoff));
    }
    return COT_OK;
}

/* --plan auto. Without a plan the job goes on, and says so: it is only told to stop by what also ends a start. */
static cot_status_t plan_placement(job_t *job)
{
    coord_auto_plan_t *planner = NULL;
    if (!plans_itself(job)) return COT_OK;
    cot_status_t status = coord_auto_plan_start(
        &(coord_auto_plan_config_t){.settings = job->settings, .fleet = &job->fleet, .need = &job->need}, &planner);
    cot_status_t waited = status == COT_OK ? run_planner(job, planner) : COT_OK;
    if (status == COT_OK && waited == COT_OK) status = coord_auto_plan_take(planner, &job->plan_text);
    coord_auto_plan_destroy(planner);
    COT_TRY(waited);
    if (status == COT_OK) return COT_OK;
    cot_log_warn("--plan auto: %s; going on with contiguous placement", cot_error_text());
    return job->server != NULL ? coord_server_set_plan(job->server, "contiguous") : COT_OK;
}

static cot_status_t start_workers(job_t *job)
{
    COT_TRY(await(job, RPC_START_HELLO, 60000, "start"));
    COT_TRY(coord_fleet_agree(&job->fleet, job->settings));
    COT_TRY(plan_placement(job));
    job->setup_sent = true;
    COT_TRY(coord_fleet_send_setup(&job->fleet, job->settings, &job->plan_text,
                                   job->measure ? RPC_GO_MEASURE : RPC_GO_RUN));
    COT_TRY(await(job, RPC_START_READY, cot_settings_int(job->settings, COT_SET_START_TIMEOUT), "loading the weights"));
    return coord_fleet_fault(&job->fleet);
}

static cot_status_t start_engine(job_t *job)
{
    uint32_t kv_blocks = UINT32_MAX;
    for (uint32_t w = 0; w < job->fleet.workers; w++)
        if (job->fleet.worker[w].kv_blocks < kv_blocks) kv_blocks = job->fleet.worker[w].kv_blocks;
    const coord_engine_config_t config = {
        .link = job->link,
        .workers = job->fleet.workers,
        .kv_blocks = kv_blocks,
        .max_context = job->max_context,
        .max_step_tokens = (uint32_t)cot_settings_int(job->settings, COT_SET_MAX_STEP_TOKENS),
        .max_sequences = (uint32_t)cot_settings_int(job->settings, COT_SET_MAX_SEQUENCES),
        .max_waiting = job->serve ? (uint32_t)cot_settings_int(job->settings, COT_SET_MAX_QUEUE) : 1024,
        .vocab = job->config.vocab,
        .max_logits_rows = ((uint32_t)64 << 20) / (job->config.vocab * (uint32_t)sizeof(float)) + 1,
        .eos_count = job->config.eos_count,
        .eos = job->config.eos,
        .step_timeout_ms = cot_settings_int(job->settings, COT_SET_STEP_TIMEOUT),
        .recorder = job->recorder,
    };
    return coord_engine_create(&config, &job->engine);
}

/* ---- end ---- */

static void end_workers(job_t *job)
{
    if (!job->setup_sent) {
        coord_turn_away(job->link);
        return;
    }
    cot_buffer_t message = {0};
    const rpc_step_t stop = {.header = {.magic = RPC_STEP_MAGIC, .version = RPC_STEP_VERSION, .kind = RPC_STEP_STOP}};
    cot_status_t status = rpc_step_encode(&stop, &message);
    for (uint32_t rank = 1; rank < comm_ranks(job->link) && status == COT_OK; rank++)
        status = comm_send(job->link, rank, COMM_TAG_STEP, message.data, message.size);
    if (status == COT_OK) status = comm_flush(job->link, cot_deadline_in_ms(5000));
    if (status != COT_OK) cot_log_warn("the workers could not be told to end: %s", cot_error_text());
    cot_buffer_free(&message);
}

void coord_turn_away(comm_link_t *link)
{
    cot_buffer_t message = {0};
    cot_status_t status = rpc_setup_encode(&(rpc_setup_t){.go = RPC_GO_LEAVE, .settings = "", .plan = ""}, &message);
    for (uint32_t rank = 1; rank < comm_ranks(link) && status == COT_OK; rank++)
        status = comm_send(link, rank, COMM_TAG_SETUP, message.data, message.size);
    if (status == COT_OK) status = comm_flush(link, cot_deadline_in_ms(5000));
    cot_buffer_free(&message);
}

static cot_status_t save_trace(job_t *job)
{
    const char *path = cot_settings_string(job->settings, COT_SET_RECORD);
    if (job->recorder == NULL) return COT_OK;
    COT_TRY(place_recorder_save(job->recorder, path));
    cot_log_info("%llu rows of routing written to %s", (unsigned long long)place_recorder_rows(job->recorder), path);
    return COT_OK;
}

static void release(job_t *job)
{
    const char *pid_file = cot_settings_string(job->settings, COT_SET_PID_FILE);
    if (job->server != NULL && pid_file[0] != '\0') unlink(pid_file);
    coord_server_destroy(job->server);
    coord_engine_destroy(job->engine);
    place_recorder_destroy(job->recorder);
    coord_fleet_destroy(&job->fleet);
    cot_buffer_free(&job->plan_text);
    model_tokenizer_destroy(job->tokenizer);
}

/* ---- serving ---- */

/* For whoever wants to send SIGTERM. */
static cot_status_t write_pid(const job_t *job)
{
    const char *path = cot_settings_string(job->settings, COT_SET_PID_FILE);
    if (path[0] == '\0') return COT_OK;
    char text[32];
    int length = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
    cot_output_t output = {0};
    COT_TRY(cot_output_open(path, &output));
    cot_status_t status = cot_output_write(&output, text, (size_t)length);
    if (status == COT_OK) status = cot_output_commit(&output);
    cot_output_discard(&output);
    return status;
}

/* The socket opens before the weights load, so that clients can wait and see how far that is. */
static cot_status_t start_server(job_t *job)
{
    char *token = NULL;
    COT_TRY(rpc_token_read(cot_settings_string(job->settings, COT_SET_TOKEN_FILE),
                           cot_settings_string(job->settings, COT_SET_TOKEN), &token));
    const coord_server_config_t config = {
        .listen = cot_settings_string(job->settings, COT_SET_LISTEN),
        .token = token,
        .tls_cert = cot_settings_string(job->settings, COT_SET_TLS_CERT),
        .tls_key = cot_settings_string(job->settings, COT_SET_TLS_KEY),
        .max_connections = (uint32_t)cot_settings_int(job->settings, COT_SET_MAX_CONNECTIONS),
        .max_prompt_bytes = cot_settings_bytes(job->settings, COT_SET_MAX_PROMPT),
        .max_context = job->max_context,
        .model = &job->config,
        .tokenizer = job->tokenizer,
        .model_name = job->name,
        .dtype = job->wide ? "float32" : "bfloat16",
        .backend = cot_settings_string(job->settings, COT_SET_BACKEND),
        .exchange = "home",
        .plan = cot_settings_string(job->settings, COT_SET_PLAN)[0] != '\0'
                    ? cot_settings_string(job->settings, COT_SET_PLAN)
                    : "contiguous",
        .ranks = job->fleet.workers,
    };
    cot_status_t status = coord_server_create(&config, &job->server);
    cot_free(token);
    if (status != COT_OK) return status;
    cot_log_info("pid %ld listens on %s", (long)getpid(), coord_server_address(job->server));
    return write_pid(job);
}

/* What `coterie status` shows of each rank. */
static void show_ranks(job_t *job)
{
    for (uint32_t w = 0; w < job->fleet.workers; w++) {
        const rpc_start_t *start = &job->fleet.worker[w];
        coord_server_set_rank(job->server, &(coord_server_rank_t){.rank = w + 1,
                                                                  .node = start->node,
                                                                  .threads = start->threads,
                                                                  .isa = kern_isa_name((kern_isa_t)job->fleet.isa),
                                                                  .weight_bytes = start->weight_bytes,
                                                                  .mapped_bytes = start->mapped_bytes,
                                                                  .kv_bytes = start->kv_bytes,
                                                                  .buffer_bytes = start->buffer_bytes});
    }
}

/* One turn: whatever has arrived from workers and clients; sleeps a little when nothing has. */
static cot_status_t turn(job_t *job, cot_backoff_t *backoff)
{
    bool worked = false;
    COT_TRY(coord_engine_poll(job->engine, &worked));
    bool idle = coord_engine_idle(job->engine);
    if (worked) cot_backoff_reset(backoff);
    int sleep_ms = worked ? 0 : cot_backoff_sleep_ms(backoff);
    COT_TRY(coord_server_poll(job->server, idle ? sleep_ms : 0));
    if (!worked && !(idle && sleep_ms > 0)) cot_backoff_wait(backoff);
    return COT_OK;
}

static cot_status_t serve(job_t *job)
{
    cot_backoff_t backoff = {0};
    bool draining = false;
    cot_deadline_t deadline = COT_NEVER;
    COT_TRY(coord_server_attach(job->server, job->engine));
    show_ranks(job);
    cot_log_info("ready: %u workers, context %u tokens", job->fleet.workers, coord_engine_context(job->engine));
    for (;;) {
        COT_TRY(turn(job, &backoff));
        cot_asked_t asked = cot_signals_asked();
        if (asked == COT_ASKED_TO_LEAVE) return cot_fail(COT_ERR_CANCELLED, "told to leave");
        if (asked == COT_ASKED_TO_DRAIN && !draining) coord_server_drain(job->server);
        if (coord_server_draining(job->server) && !draining) {
            draining = true;
            deadline = cot_deadline_in_ms(cot_settings_int(job->settings, COT_SET_DRAIN_TIMEOUT));
            cot_log_info("draining: no new requests, running ones finish");
        }
        if (draining && coord_server_drained(job->server) && coord_engine_idle(job->engine)) return COT_OK;
        if (cot_deadline_passed(deadline)) {
            cot_log_warn("drain: --drain-timeout has passed, the remaining requests are cut off");
            return COT_OK;
        }
    }
}

static cot_status_t score(job_t *job)
{
    return coord_score(&(coord_score_config_t){.engine = job->engine,
                                               .tokenizer = job->tokenizer,
                                               .vocab = job->config.vocab,
                                               .in = cot_settings_string(job->settings, COT_SET_IN),
                                               .out = cot_settings_string(job->settings, COT_SET_OUT),
                                               .logits = cot_settings_string(job->settings, COT_SET_LOGITS),
                                               .report = stdout});
}

/* ---- measuring ---- */

static cot_status_t calibrate(job_t *job)
{
    const char *path = cot_settings_string(job->settings, COT_SET_OUT);
    if (path[0] == '\0') return cot_fail(COT_ERR_INVALID, "calibrate needs --out FILE.cluster.json");
    COT_TRY(check_settings(job));
    COT_TRY(model_config_load(cot_settings_argument(job->settings, 0), &job->config));
    COT_TRY(check_range(job, COT_SET_SLOTS, "slots", 0, job->config.experts));
    name_model(job);
    COT_TRY(probe_output(path));
    COT_TRY(coord_fleet_create(job->link, &job->fleet));
    COT_TRY(start_workers(job));
    return coord_calibrate(&(coord_calibrate_config_t){.fleet = &job->fleet,
                                                       .settings = job->settings,
                                                       .model = &job->config,
                                                       .model_name = job->name,
                                                       .dtype = job->wide ? "float32" : "bfloat16",
                                                       .row_bytes = job->config.hidden * (job->wide ? 4 : 2),
                                                       .report = stdout});
}

/* ---- the whole ---- */

static cot_status_t work(job_t *job)
{
    if (job->measure) return calibrate(job);
    COT_TRY(read_inputs(job));
    COT_TRY(coord_fleet_create(job->link, &job->fleet));
    if (job->serve) COT_TRY(start_server(job));
    COT_TRY(start_workers(job));
    COT_TRY(start_engine(job));
    if (job->serve) COT_TRY(serve(job));
    cot_status_t status = job->serve ? COT_OK : score(job);
    if (status != COT_OK && status != COT_ERR_PARTIAL) return status;
    COT_TRY(save_trace(job));
    return status;
}

cot_status_t coord_main(comm_link_t *link, const cot_settings_t *settings, uint32_t command)
{
    job_t job = {
        .link = link, .settings = settings, .serve = command == COT_CMD_SERVE, .measure = command == COT_CMD_CALIBRATE};
    cot_status_t status = work(&job);
    /* What follows may fail too, but the first sentence is the one to print. */
    char sentence[1024];
    snprintf(sentence, sizeof(sentence), "%s", cot_error_text());
    end_workers(&job);
    release(&job);
    if (status != COT_OK) cot_fail(status, "%s", sentence);
    return status;
}
