#include "coordinator/auto_plan.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/program.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOG_MAX ((size_t)64 << 20) /* what the planner may print; also bounds the plan */
#define CAUSE_BYTES ((size_t)512)  /* of its last line, for our sentence */
enum { SHARE_FOR_SEARCH = 3 };     /* the search gets a third of the time: reading traces takes some, too */

/* Links of a cluster that nobody has measured: shared memory, and 10 Gbit/s Ethernet. `coterie calibrate` measures. */
static const char DEFAULT_LINKS[] =
    "{\"same_node\": {\"latency_us\": 2, \"gigabytes_per_s\": 5, \"crossing_cost\": 1},\n"
    "           \"cross_node\": {\"latency_us\": 30, \"gigabytes_per_s\": 1.2, \"crossing_cost\": 4}}";

struct coord_auto_plan {
    coord_auto_plan_config_t config;
    cot_program_t program;
    cot_status_t ended; /* how */
    char sentence[CAUSE_BYTES];
    char *folder; /* NULL before it is made */
    char *cluster, *plan, *log;
    int64_t began_ns;
};

/* ---- the cluster as it runs ---- */

static uint32_t workers_on(const coord_fleet_t *fleet, uint32_t node)
{
    uint32_t count = 0;
    for (uint32_t w = 0; w < fleet->workers; w++) count += fleet->worker[w].node == node;
    return count;
}

/* Of a node's memory: its part of what the KV caches leave. 0: nothing is left, or it is not known. */
static uint64_t worker_memory(const coord_fleet_t *fleet, uint32_t worker, uint64_t kv_bytes)
{
    uint64_t share = fleet->worker[worker].node_memory_bytes / workers_on(fleet, fleet->worker[worker].node);
    return share > kv_bytes ? share - kv_bytes : 0;
}

/* Workers that follow each other and are alike share an entry. */
static uint32_t alike(const coord_fleet_t *fleet, uint32_t first)
{
    uint32_t count = 1;
    const rpc_start_t *worker = fleet->worker;
    while (first + count < fleet->workers && worker[first + count].node == worker[first].node &&
           worker[first + count].node_memory_bytes == worker[first].node_memory_bytes)
        count++;
    return count;
}

cot_status_t coord_describe_cluster(const coord_fleet_t *fleet, uint32_t experts, uint64_t kv_bytes, cot_buffer_t *out)
{
    uint32_t slots = (experts + fleet->workers - 1) / fleet->workers, count;
    COT_TRY(cot_buffer_printf(out, "{\"format\": \"coterie.cluster/1\",\n \"ranks\": ["));
    for (uint32_t w = 0; w < fleet->workers; w += count) {
        uint64_t memory = worker_memory(fleet, w, kv_bytes);
        count = alike(fleet, w);
        COT_TRY(cot_buffer_printf(out, "%s{\"count\": %u, \"node\": %u, \"slots\": %u", w > 0 ? ",\n           " : "",
                                  count, fleet->worker[w].node, slots));
        if (memory > 0) COT_TRY(cot_buffer_printf(out, ", \"memory_bytes\": %llu", (unsigned long long)memory));
        COT_TRY(cot_buffer_printf(out, "}"));
    }
    return cot_buffer_printf(out, "],\n \"links\": %s}\n", DEFAULT_LINKS);
}

static void log_lines(const cot_buffer_t *text)
{
    const char *at = (const char *)text->data, *end = at + text->size;
    for (const char *newline; at < end && (newline = memchr(at, '\n', (size_t)(end - at))) != NULL; at = newline + 1)
        cot_log_info("  %.*s", (int)(newline - at), at);
}

/* --cluster, or a description of our own in the folder. */
static cot_status_t write_cluster(coord_auto_plan_t *planner)
{
    const cot_settings_t *settings = planner->config.settings;
    const char *given = cot_settings_string(settings, COT_SET_CLUSTER);
    if (given[0] != '\0') {
        planner->cluster = cot_strdup(given);
        return planner->cluster != NULL ? COT_OK : cot_fail(COT_ERR_NO_MEMORY, "no memory for the cluster's path");
    }
    cot_buffer_t text = {0};
    cot_status_t status = coord_describe_cluster(planner->config.fleet, planner->config.need->experts,
                                                 cot_settings_bytes(settings, COT_SET_KV_MEMORY), &text);
    planner->cluster = cot_path_join(planner->folder, "job.cluster.json");
    if (status == COT_OK && planner->cluster == NULL) status = cot_fail(COT_ERR_NO_MEMORY, "no memory for a path");
    if (status == COT_OK) status = cot_file_write(planner->cluster, text.data, text.size);
    if (status == COT_OK) {
        cot_log_info("--plan auto without --cluster plans for this job, with usual figures for the links:");
        log_lines(&text);
    }
    cot_buffer_free(&text);
    return status;
}

/* ---- the temporary folder ---- */

static cot_status_t make_folder(coord_auto_plan_t *planner)
{
    const char *base = getenv("TMPDIR");
    planner->folder = cot_path_join(base != NULL && base[0] != '\0' ? base : "/tmp", "coterie-plan.XXXXXX");
    if (planner->folder == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a path");
    if (mkdtemp(planner->folder) == NULL) {
        cot_status_t status = cot_fail(COT_ERR_IO, "cannot make %s: %s", planner->folder, strerror(errno));
        cot_free(planner->folder);
        planner->folder = NULL;
        return status;
    }
    planner->plan = cot_path_join(planner->folder, "auto.plan.json");
    planner->log = cot_path_join(planner->folder, "log");
    if (planner->plan == NULL || planner->log == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a path");
    return COT_OK;
}

/* The planner makes files in it, no folders. */
static void remove_folder(const char *folder)
{
    DIR *entries = opendir(folder);
    for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            unlinkat(dirfd(entries), entry->d_name, 0);
    if (entries != NULL) closedir(entries);
    if (rmdir(folder) != 0) cot_log_warn("%s cannot be removed: %s", folder, strerror(errno));
}

/* ---- the planner ---- */

static cot_status_t run_planner(coord_auto_plan_t *planner)
{
    const cot_settings_t *settings = planner->config.settings;
    int64_t timeout_ms = cot_settings_int(settings, COT_SET_PLAN_TIMEOUT);
    char path[PATH_MAX], seconds[32];
    COT_TRY(cot_program_beside("coterie-plan", path, sizeof(path)));
    snprintf(seconds, sizeof(seconds), "%.3f", (double)timeout_ms / 1000 / SHARE_FOR_SEARCH);
    const char *words[] = {path,
                           cot_settings_string(settings, COT_SET_TRACE),
                           "--cluster",
                           planner->cluster,
                           "--out",
                           planner->plan,
                           "--time-limit",
                           seconds,
                           "--model",
                           cot_settings_argument(settings, 0),
                           NULL};
    int log = open(planner->log, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (log < 0) return cot_fail(COT_ERR_IO, "cannot write %s: %s", planner->log, strerror(errno));
    cot_status_t status = cot_program_start(
        &(cot_program_config_t){.path = path,
                                .argv = (char *const *)words,
                                .output = log,
                                .memory_bytes = cot_settings_bytes(settings, COT_SET_PLAN_MEMORY),
                                .file_bytes = LOG_MAX,
                                .timeout_ms = timeout_ms},
        &planner->program);
    close(log);
    return status;
}

cot_status_t coord_auto_plan_start(const coord_auto_plan_config_t *config, coord_auto_plan_t **planner_out)
{
    coord_auto_plan_t *planner = cot_calloc(1, sizeof(*planner));
    if (planner == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the planner");
    planner->config = *config;
    planner->began_ns = cot_now_ns();
    cot_status_t status = make_folder(planner);
    if (status == COT_OK) status = write_cluster(planner);
    if (status == COT_OK) status = run_planner(planner);
    if (status != COT_OK) {
        coord_auto_plan_destroy(planner);
        return status;
    }
    *planner_out = planner;
    return COT_OK;
}

void coord_auto_plan_destroy(coord_auto_plan_t *planner)
{
    if (planner == NULL) return;
    cot_program_kill(&planner->program);
    if (planner->folder != NULL) remove_folder(planner->folder);
    char *const paths[] = {planner->folder, planner->cluster, planner->plan, planner->log};
    for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++) cot_free(paths[i]);
    cot_free(planner);
}

bool coord_auto_plan_ended(coord_auto_plan_t *planner)
{
    if (planner->program.pid == 0) return true;
    if (!cot_program_ended(&planner->program, &planner->ended)) return false;
    if (planner->ended != COT_OK) snprintf(planner->sentence, sizeof(planner->sentence), "%s", cot_error_text());
    return true;
}

/* ---- what it leaves ---- */

/* The last line that the planner printed: its error sentence, if it had one. "" if it said nothing. */
static void last_words(const coord_auto_plan_t *planner, char *words, size_t bytes)
{
    char *text = NULL;
    size_t length = 0;
    words[0] = '\0';
    if (cot_file_read(planner->log, LOG_MAX, &text, &length) != COT_OK) return;
    while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == '\r')) text[--length] = '\0';
    const char *line = text + length;
    while (line > text && line[-1] != '\n' && line[-1] != '\r') line--;
    snprintf(words, bytes, "%s", line);
    cot_free(text);
}

/* "step_time 1834.2 us, at most 2.4 % above the least": what the plan says of itself. */
static void log_success(const coord_auto_plan_t *planner, const place_plan_t *plan)
{
    const json_t *objective = json_object_get(plan->extra, "objective");
    const char *name = json_string_value(json_object_get(objective, "name"));
    double seconds = (double)(cot_now_ns() - planner->began_ns) / 1e9;
    if (name == NULL) {
        cot_log_info("--plan auto: planned in %.1f s", seconds);
        return;
    }
    const char *unit = json_string_value(json_object_get(objective, "unit"));
    cot_log_info("--plan auto: planned in %.1f s: %s %.6g %s, at most %.2f %% above the least possible", seconds, name,
                 json_number_value(json_object_get(objective, "value")), unit != NULL ? unit : "",
                 100 * json_number_value(json_object_get(objective, "gap")));
}

cot_status_t coord_auto_plan_take(coord_auto_plan_t *planner, cot_buffer_t *text_out)
{
    if (planner->ended != COT_OK) {
        char words[CAUSE_BYTES];
        last_words(planner, words, sizeof(words));
        return cot_fail(planner->ended, "coterie-plan: %s%s%s", planner->sentence, words[0] != '\0' ? ": " : "", words);
    }
    place_plan_t *plan = NULL;
    cot_status_t status = place_plan_load(planner->plan, &plan);
    if (status == COT_OK) status = place_plan_check(plan, planner->config.need);
    if (status == COT_OK) status = place_plan_print(plan, text_out);
    if (status == COT_OK)
        log_success(planner, plan);
    else
        cot_buffer_clear(text_out);
    place_plan_destroy(plan);
    return status == COT_OK ? COT_OK : cot_fail_in(status, "what coterie-plan wrote cannot be used");
}
