#include "placement/trace_write.h"

#include "base/memory.h"

#include <string.h>

/* The rows of one request, by position. `routes` holds experts then weights of each row, as 16-bit values. */
typedef struct {
    uint32_t rows, capacity; /* positions 0 … rows-1 have room; not all need be present */
    bool dropped;
    int32_t *token_id;
    uint8_t *phase; /* ABSENT where no row came */
    uint16_t *routes;
} request_rows_t;

#define ABSENT 0xffU
#define MAX_REQUESTS (1U << 26)
#define MAX_POSITION (1U << 24)

struct place_recorder {
    place_trace_info_t info; /* strings and layer_index owned */
    char *model, *config_sha256;
    uint32_t *layer_index;
    uint32_t width; /* layers x top_k */
    uint64_t limit_bytes, held_bytes, rows;
    request_rows_t *requests;
    uint32_t request_count, request_capacity;
};

static size_t row_bytes(const place_recorder_t *recorder)
{
    return sizeof(int32_t) + sizeof(uint8_t) + (size_t)recorder->width * 2 * sizeof(uint16_t);
}

cot_status_t place_recorder_create(const place_trace_info_t *info, uint64_t limit_bytes,
                                   place_recorder_t **recorder_out)
{
    place_recorder_t *recorder = cot_calloc(1, sizeof(*recorder));
    if (recorder == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the routing trace");
    *recorder = (place_recorder_t){.info = *info, .width = info->layers * info->top_k, .limit_bytes = limit_bytes};
    recorder->model = cot_strdup(info->model);
    recorder->config_sha256 = cot_strdup(info->config_sha256);
    recorder->layer_index = cot_calloc(info->layers, sizeof(*recorder->layer_index));
    if (recorder->model == NULL || recorder->config_sha256 == NULL || recorder->layer_index == NULL) {
        place_recorder_destroy(recorder);
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for the routing trace");
    }
    if (info->layers > 0)
        memcpy(recorder->layer_index, info->layer_index, info->layers * sizeof(*recorder->layer_index));
    *recorder_out = recorder;
    return COT_OK;
}

static void free_rows(request_rows_t *request)
{
    cot_free(request->token_id);
    cot_free(request->phase);
    cot_free(request->routes);
    request->token_id = NULL;
    request->phase = NULL;
    request->routes = NULL;
    request->rows = request->capacity = 0;
}

void place_recorder_destroy(place_recorder_t *recorder)
{
    if (recorder == NULL) return;
    for (uint32_t request = 0; request < recorder->request_count; request++) free_rows(&recorder->requests[request]);
    cot_free(recorder->requests);
    cot_free(recorder->model);
    cot_free(recorder->config_sha256);
    cot_free(recorder->layer_index);
    cot_free(recorder);
}

static void forget(place_recorder_t *recorder, request_rows_t *request)
{
    for (uint32_t position = 0; position < request->rows; position++)
        recorder->rows -= request->phase[position] != ABSENT;
    recorder->held_bytes -= (uint64_t)request->capacity * row_bytes(recorder);
    free_rows(request);
    request->dropped = true;
}

void place_recorder_drop(place_recorder_t *recorder, uint32_t request)
{
    if (request < recorder->request_count && !recorder->requests[request].dropped)
        forget(recorder, &recorder->requests[request]);
}

static cot_status_t grow_requests(place_recorder_t *recorder, uint32_t count)
{
    if (count > recorder->request_capacity) {
        uint32_t capacity = recorder->request_capacity * 2 > count ? recorder->request_capacity * 2 : count + 64;
        request_rows_t *requests = cot_realloc(recorder->requests, capacity * sizeof(*requests));
        if (requests == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the trace of %u requests", count);
        recorder->requests = requests;
        recorder->request_capacity = capacity;
    }
    memset(recorder->requests + recorder->request_count, 0,
           (count - recorder->request_count) * sizeof(*recorder->requests));
    recorder->request_count = count;
    return COT_OK;
}

static cot_status_t grow_rows(place_recorder_t *recorder, request_rows_t *request, uint32_t rows)
{
    if (rows > request->capacity) {
        uint32_t capacity = request->capacity * 2 > rows ? request->capacity * 2 : rows + 32;
        int32_t *token_id = cot_realloc(request->token_id, capacity * sizeof(*token_id));
        if (token_id != NULL) request->token_id = token_id;
        uint8_t *phase = cot_realloc(request->phase, capacity * sizeof(*phase));
        if (phase != NULL) request->phase = phase;
        uint16_t *routes = cot_realloc(request->routes, (size_t)capacity * recorder->width * 2 * sizeof(*routes));
        if (routes != NULL) request->routes = routes;
        if (token_id == NULL || phase == NULL || routes == NULL)
            return cot_fail(COT_ERR_NO_MEMORY, "no memory for a trace of %u rows", rows);
        recorder->held_bytes += (uint64_t)(capacity - request->capacity) * row_bytes(recorder);
        request->capacity = capacity;
    }
    if (rows > request->rows) {
        memset(request->phase + request->rows, ABSENT, rows - request->rows);
        request->rows = rows;
    }
    return COT_OK;
}

cot_status_t place_recorder_add(place_recorder_t *recorder, const place_trace_row_t *row)
{
    if (row->request >= MAX_REQUESTS || row->position >= MAX_POSITION)
        return cot_fail(COT_ERR_LIMIT, "request %u position %u is past what a trace holds", row->request,
                        row->position);
    if (row->request >= recorder->request_count) COT_TRY(grow_requests(recorder, row->request + 1));
    request_rows_t *request = &recorder->requests[row->request];
    if (request->dropped) return COT_OK;
    COT_TRY(grow_rows(recorder, request, row->position + 1));
    if (recorder->held_bytes > recorder->limit_bytes) {
        forget(recorder, request);
        return cot_fail(COT_ERR_LIMIT, "the routing trace is full: request %u is left out (raise --record-limit)",
                        row->request);
    }

    recorder->rows += request->phase[row->position] == ABSENT;
    request->phase[row->position] = row->phase;
    request->token_id[row->position] = row->token_id;
    uint16_t *routes = request->routes + (size_t)row->position * recorder->width * 2;
    memcpy(routes, row->experts, recorder->width * sizeof(*routes));
    memcpy(routes + recorder->width, row->weights, recorder->width * sizeof(*routes));
    return COT_OK;
}

uint64_t place_recorder_rows(const place_recorder_t *recorder)
{
    return recorder->rows;
}

uint32_t place_recorder_width(const place_recorder_t *recorder)
{
    return recorder->width;
}

/* ---- saving ---- */

static cot_status_t declare(place_recorder_t *recorder, cot_safetensors_writer_t *writer)
{
    place_trace_info_t info = recorder->info;
    info.model = recorder->model;
    info.config_sha256 = recorder->config_sha256;
    info.layer_index = recorder->layer_index;
    COT_TRY(place_trace_write_metadata(writer, &info, PLACE_TRACE_TOKENS, 0));
    for (int column = 0; column < PLACE_COLUMNS; column++)
        COT_TRY(place_trace_declare_column(writer, &info, (place_column_t)column, recorder->rows));
    return COT_OK;
}

static cot_status_t write_cell(const place_recorder_t *recorder, cot_safetensors_writer_t *writer,
                               place_column_t column, uint32_t number, uint32_t position)
{
    const request_rows_t *request = &recorder->requests[number];
    const uint16_t *routes = request->routes + (size_t)position * recorder->width * 2;
    size_t half = recorder->width * sizeof(*routes);
    switch (column) {
    case PLACE_COLUMN_EXPERTS: return cot_safetensors_writer_write(writer, routes, half);
    case PLACE_COLUMN_GATE_WEIGHTS: return cot_safetensors_writer_write(writer, routes + recorder->width, half);
    case PLACE_COLUMN_TOKEN_ID:
        return cot_safetensors_writer_write(writer, &request->token_id[position], sizeof(int32_t));
    case PLACE_COLUMN_REQUEST: return cot_safetensors_writer_write(writer, &number, sizeof(number));
    case PLACE_COLUMN_POSITION: return cot_safetensors_writer_write(writer, &position, sizeof(position));
    default: return cot_safetensors_writer_write(writer, &request->phase[position], sizeof(uint8_t));
    }
}

static cot_status_t write_column(const place_recorder_t *recorder, cot_safetensors_writer_t *writer,
                                 place_column_t column)
{
    for (uint32_t request = 0; request < recorder->request_count; request++)
        for (uint32_t position = 0; position < recorder->requests[request].rows; position++)
            if (recorder->requests[request].phase[position] != ABSENT)
                COT_TRY(write_cell(recorder, writer, column, request, position));
    return COT_OK;
}

cot_status_t place_recorder_save(place_recorder_t *recorder, const char *path)
{
    cot_safetensors_writer_t *writer = NULL;
    COT_TRY(cot_safetensors_writer_create(path, &writer));
    cot_status_t status = declare(recorder, writer);
    for (int column = 0; column < PLACE_COLUMNS && status == COT_OK; column++)
        status = write_column(recorder, writer, (place_column_t)column);
    if (status == COT_OK) status = cot_safetensors_writer_commit(writer);
    cot_safetensors_writer_destroy(writer);
    return status;
}
