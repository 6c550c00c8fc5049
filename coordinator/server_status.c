#include "base/log.h"
#include "base/memory.h"
#include "coordinator/server_int.h"

/* An optional field of a protobuf-c message. */
#define SET(message, field, value)  \
    do {                            \
        (message)->has_##field = 1; \
        (message)->field = (value); \
    } while (0)

static Coterie__State state_of(const coord_server_t *server)
{
    if (server->draining) return COTERIE__STATE__STATE_DRAINING;
    return server->engine == NULL ? COTERIE__STATE__STATE_LOADING : COTERIE__STATE__STATE_OK;
}

void coord_send_health(coord_connection_t *connection, uint64_t id)
{
    Coterie__Health health = COTERIE__HEALTH__INIT;
    Coterie__Envelope envelope = COTERIE__ENVELOPE__INIT;
    SET(&health, state, state_of(connection->server));
    SET(&health, progress, connection->server->progress);
    SET(&envelope, id, id);
    envelope.body_case = COTERIE__ENVELOPE__BODY_HEALTH;
    envelope.health = &health;
    coord_send(connection, &envelope);
}

void coord_send_draining(coord_connection_t *connection, uint64_t id)
{
    Coterie__Draining draining = COTERIE__DRAINING__INIT;
    Coterie__Envelope envelope = COTERIE__ENVELOPE__INIT;
    coord_engine_stats_t stats = {0};
    if (connection->server->engine != NULL) coord_engine_stats(connection->server->engine, &stats);
    SET(&draining, waiting, stats.waiting);
    SET(&draining, running, stats.running);
    SET(&envelope, id, id);
    envelope.body_case = COTERIE__ENVELOPE__BODY_DRAINING;
    envelope.draining = &draining;
    coord_send(connection, &envelope);
}

static void fill_rank(const coord_server_t *server, const coord_server_rank_t *rank, Coterie__RankStatus *status)
{
    coterie__rank_status__init(status);
    SET(status, rank, rank->rank);
    SET(status, node, rank->node);
    SET(status, threads, rank->threads);
    status->isa = (char *)rank->isa;
    SET(status, weight_bytes, rank->weight_bytes);
    SET(status, mapped_bytes, rank->mapped_bytes);
    SET(status, kv_bytes, rank->kv_bytes);
    SET(status, buffer_bytes, rank->buffer_bytes);
    if (server->engine == NULL || rank->rank == 0) return;
    coord_worker_stats_t stats = {0};
    coord_engine_worker_stats(server->engine, rank->rank - 1, &stats);
    SET(status, step, stats.step);
    SET(status, age_seconds, stats.seconds_since_result);
    SET(status, assignments, stats.assignments);
    SET(status, dispatch_bytes, stats.dispatch_bytes);
    SET(status, combine_bytes, stats.combine_bytes);
    SET(status, compute_ns, stats.compute_ns);
    SET(status, wait_ns, stats.wait_ns);
}

static void fill_engine(const coord_server_t *server, Coterie__Status *status)
{
    coord_engine_stats_t stats = {0};
    coord_engine_stats(server->engine, &stats);
    SET(status, waiting, stats.waiting);
    SET(status, running, stats.running);
    SET(status, kv_blocks_used, stats.kv_blocks_used);
    SET(status, kv_blocks, stats.kv_blocks);
    SET(status, step, stats.steps);
    SET(status, step_ms, stats.step_ms);
    SET(status, tokens_per_second, stats.tokens_per_second);
    SET(status, tokens_generated, stats.tokens_drawn);
    SET(status, tokens_prefilled, stats.tokens_prefilled);
    SET(status, requests_finished, stats.requests_finished);
    SET(status, preemptions, stats.preemptions);
}

static void fill_server(const coord_server_t *server, Coterie__Status *status)
{
    const coord_server_config_t *config = &server->config;
    SET(status, state, state_of(server));
    SET(status, progress, server->progress);
    SET(status, uptime_seconds, (double)(cot_now_ns() - server->created_ns) * 1e-9);
    SET(status, max_context, config->max_context);
    SET(status, connections, server->connection_count);
    status->version = (char *)COTERIE_VERSION;
    status->model = (char *)config->model_name;
    status->dtype = (char *)config->dtype;
    status->backend = (char *)config->backend;
    status->exchange = (char *)config->exchange;
    status->plan = (char *)config->plan;
}

void coord_send_status(coord_connection_t *connection, uint64_t id)
{
    const coord_server_t *server = connection->server;
    Coterie__Status status = COTERIE__STATUS__INIT;
    Coterie__Envelope envelope = COTERIE__ENVELOPE__INIT;
    Coterie__RankStatus *rank = cot_calloc(server->ranks, sizeof(*rank) + sizeof(rank));
    if (rank == NULL) {
        coord_send_error(connection, id, COTERIE__CODE__NO_MEMORY, "the server has no memory for its status");
        return;
    }
    status.n_ranks = server->ranks;
    status.ranks = (Coterie__RankStatus **)(void *)(rank + server->ranks);
    for (uint32_t i = 0; i < server->ranks; i++) {
        fill_rank(server, &server->rank[i], &rank[i]);
        status.ranks[i] = &rank[i];
    }
    fill_server(server, &status);
    if (server->engine != NULL) fill_engine(server, &status);
    SET(&envelope, id, id);
    envelope.body_case = COTERIE__ENVELOPE__BODY_STATUS;
    envelope.status = &status;
    coord_send(connection, &envelope);
    cot_free(rank);
}
