#include "client/command_int.h"
#include "client/commands.h"

#include "base/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- values of the status object; "-" for what is not known ---- */

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "-";
}

typedef struct {
    char text[32];
} cell_t;

static cell_t count_of(const json_t *object, const char *key)
{
    cell_t cell = {"-"};
    const json_t *value = json_object_get(object, key);
    if (json_is_integer(value))
        snprintf(cell.text, sizeof(cell.text), "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    return cell;
}

static cell_t number_of(const json_t *object, const char *key, int decimals)
{
    cell_t cell = {"-"};
    const json_t *value = json_object_get(object, key);
    if (json_is_number(value)) snprintf(cell.text, sizeof(cell.text), "%.*f", decimals, json_number_value(value));
    return cell;
}

static cell_t bytes_of(const json_t *object, const char *key)
{
    static const char *const UNITS[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    cell_t cell = {"-"};
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value)) return cell;
    double bytes = json_number_value(value);
    int unit = 0;
    for (; bytes >= 1024 && unit < 4; unit++) bytes /= 1024;
    snprintf(cell.text, sizeof(cell.text), unit > 0 ? "%.1f %s" : "%.0f %s", bytes, UNITS[unit]);
    return cell;
}

/* ---- text ---- */

static void print_ranks(const json_t *ranks)
{
    if (json_array_size(ranks) == 0) return;
    printf("\n%4s %4s %-12s %7s %8s %7s %10s %10s %10s %10s %9s %8s\n", "rank", "node", "isa", "threads", "step",
           "age s", "weights", "mapped", "kv", "buffers", "compute", "wait ms");
    size_t i;
    json_t *rank;
    json_array_foreach(ranks, i, rank) printf(
        "%4s %4s %-12s %7s %8s %7s %10s %10s %10s %10s %9s %8s\n", count_of(rank, "rank").text,
        count_of(rank, "node").text, text_of(rank, "isa"), count_of(rank, "threads").text, count_of(rank, "step").text,
        number_of(rank, "age_seconds", 1).text, bytes_of(rank, "weight_bytes").text,
        bytes_of(rank, "mapped_bytes").text, bytes_of(rank, "kv_bytes").text, bytes_of(rank, "buffer_bytes").text,
        number_of(rank, "compute_ms", 2).text, number_of(rank, "wait_ms", 2).text);
}

static void print_state(const json_t *status)
{
    const char *state = text_of(status, "state");
    printf("%s", state);
    if (strcmp(state, "loading") == 0)
        printf(" (%.0f %%)", json_number_value(json_object_get(status, "progress")) * 100);
    printf(": %s, coterie %s, up %s s\n", text_of(status, "model"), text_of(status, "version"),
           number_of(status, "uptime_seconds", 0).text);
}

static cot_status_t print_text(const char *text)
{
    json_t *status = NULL;
    COT_TRY(cot_json_load_bytes(text, strlen(text), "the server's status", &status));
    print_state(status);
    printf("mode       %s, backend %s, exchange %s, plan %s\n", text_of(status, "dtype"), text_of(status, "backend"),
           text_of(status, "exchange"), text_of(status, "plan"));
    printf("requests   %s running, %s waiting, %s finished, %s preempted; %s connections\n",
           count_of(status, "running").text, count_of(status, "waiting").text,
           count_of(status, "requests_finished").text, count_of(status, "preemptions").text,
           count_of(status, "connections").text);
    printf("tokens     %s a second; %s generated, %s prefilled\n", number_of(status, "tokens_per_second", 1).text,
           count_of(status, "tokens_generated").text, count_of(status, "tokens_prefilled").text);
    printf("steps      %s, %s ms each\n", count_of(status, "step").text, number_of(status, "step_ms", 2).text);
    printf("KV blocks  %s of %s in use; context %s\n", count_of(status, "kv_blocks_used").text,
           count_of(status, "kv_blocks").text, count_of(status, "max_context").text);
    print_ranks(json_object_get(status, "ranks"));
    json_decref(status);
    return COT_OK;
}

int client_status_command(const cot_settings_t *settings)
{
    coterie_client_t *client = NULL;
    char *json = NULL;
    cot_status_t status = client_check_arguments(settings, 0, "no argument");
    if (status == COT_OK) status = client_connect(settings, &client);
    if (status == COT_OK)
        status = (cot_status_t)coterie_client_status(client, cot_settings_int(settings, COT_SET_TIMEOUT), &json);
    if (status == COT_OK && cot_settings_switch(settings, COT_SET_JSON))
        puts(json);
    else if (status == COT_OK)
        status = print_text(json);
    coterie_client_free(json);
    coterie_client_close(client);
    return client_exit(status);
}
