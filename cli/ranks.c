#include "base/log.h"
#include "base/memory.h"
#include "base/signals.h"
#include "cli/commands.h"
#include "comm/comm.h"
#include "coordinator/coordinator.h"
#include "worker/worker.h"

#include <string.h>
#include <unistd.h>

enum { FINISH_TIMEOUT_MS = 10000 };

/* Rank 0: its command line is the job's. */
static cot_status_t coordinate(comm_link_t *link, uint32_t command, int argc, char **argv)
{
    cot_settings_t *settings = NULL;
    cot_status_t status = cot_settings_parse(command, argc, argv, &settings);
    cot_log_level_t level = COT_LOG_INFO;
    if (status == COT_OK && !cot_log_level_parse(cot_settings_string(settings, COT_SET_LOG_LEVEL), &level))
        status = cot_fail(COT_ERR_INVALID, "--log-level must be error, warn, info or debug");
    if (status == COT_OK && cot_settings_arguments(settings) != 1)
        status = cot_fail(COT_ERR_INVALID, "give one model directory; %u were given", cot_settings_arguments(settings));
    if (status == COT_OK) {
        cot_log_set_level(level);
        status = coord_main(link, settings, command);
    } else {
        coord_turn_away(link);
    }
    cot_settings_destroy(settings);
    return status;
}

/* What went wrong is printed once, by rank 0, unless the ranks have lost each other. */
static cot_status_t run_rank(comm_link_t *link, uint32_t command, int argc, char **argv)
{
    if (comm_rank(link) != 0) {
        cot_signals_install_exit();
        return worker_main(link);
    }
    cot_signals_install();
    cot_status_t status = coordinate(link, command, argc, argv);
    if (status != COT_OK) cot_log_error("%s", cot_error_text());
    return status;
}

static bool is_peer_fault(cot_status_t status)
{
    return status == COT_ERR_PEER_LOST || status == COT_ERR_TIMEOUT || status == COT_ERR_PROTOCOL;
}

/* Rank 0's status is the job's: workers that gave up at start leave with 0, or mpirun would report one of theirs. */
static int run_job(uint32_t command, const char *name, int argc, char **argv)
{
    int ranks = 0;
    if (!comm_launched(&ranks) || ranks < 2) {
        cot_log_error("`coterie %s` needs a coordinator and at least one worker: start it with mpirun -n 2 or more "
                      "(deploy/run.sh %s …)",
                      name, name);
        return cot_exit_code(COT_ERR_INVALID);
    }
    comm_link_t *link = NULL;
    cot_status_t status = comm_mpi_start(&argc, &argv, &link);
    if (status != COT_OK) {
        cot_log_error("%s", cot_error_text());
        return cot_exit_code(status);
    }
    uint32_t rank = comm_rank(link);
    cot_log_set_rank((int)rank);
    status = run_rank(link, command, argc, argv);
    if (cot_signals_asked() == COT_ASKED_TO_LEAVE) _exit(cot_exit_code(COT_ERR_CANCELLED));
    if (is_peer_fault(status)) {
        if (rank != 0) cot_log_error("%s", cot_error_text());
        comm_mpi_abort(cot_exit_code(status));
    }
    comm_mpi_finish(link, FINISH_TIMEOUT_MS);
    if (cot_memory_live_blocks() != 0)
        cot_log_warn("%zu bytes in %zu blocks were not given back", cot_memory_live_bytes(), cot_memory_live_blocks());
    return rank == 0 ? cot_exit_code(status) : 0;
}

int cli_serve(int argc, char **argv)
{
    return run_job(COT_CMD_SERVE, "serve", argc, argv);
}

int cli_score(int argc, char **argv)
{
    return run_job(COT_CMD_SCORE, "score", argc, argv);
}

int cli_calibrate(int argc, char **argv)
{
    return run_job(COT_CMD_CALIBRATE, "calibrate", argc, argv);
}
