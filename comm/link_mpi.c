/* The fabric between processes: MPI point-to-point messages. Only MPI_Init and MPI_Finalize may block. */
#include "comm/link.h"

#include "base/log.h"
#include "base/memory.h"

#include <mpi.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NAME_BYTES = 256, START_TIMEOUT_MS = 60000 };

static cot_status_t fail_mpi(const comm_link_t *link, int code, const char *doing, uint32_t peer)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    return cot_fail(COT_ERR_PEER_LOST, "rank %u: MPI cannot %s rank %u: %s", link->rank, doing, peer, text);
}

/* A request fits into an op's handle. */
static MPI_Request load_request(const comm_op_t *op)
{
    MPI_Request request;
    memcpy(&request, op->handle, sizeof(request));
    return request;
}

static void store_request(comm_op_t *op, MPI_Request request)
{
    _Static_assert(sizeof(request) <= sizeof(op->handle), "an MPI request does not fit");
    memcpy(op->handle, &request, sizeof(request));
}

static cot_status_t mpi_send(comm_link_t *link, uint32_t peer, comm_tag_t tag, const void *bytes, size_t count,
                             comm_op_t *op)
{
    MPI_Request request;
    if (count > COMM_MESSAGE_BYTES_MAX)
        return cot_fail(COT_ERR_LIMIT, "a message of %zu bytes to rank %u is over the limit", count, peer);
    int code = MPI_Isend(bytes, (int)count, MPI_BYTE, (int)peer, (int)tag, MPI_COMM_WORLD, &request);
    if (code != MPI_SUCCESS) return fail_mpi(link, code, "send to", peer);
    *op = (comm_op_t){.active = true, .peer = peer, .count = count, .tag = tag};
    store_request(op, request);
    return COT_OK;
}

static cot_status_t mpi_receive(comm_link_t *link, uint32_t peer, comm_tag_t tag, void *bytes, size_t count,
                                comm_op_t *op)
{
    MPI_Request request;
    if (count > COMM_MESSAGE_BYTES_MAX)
        return cot_fail(COT_ERR_LIMIT, "a message of %zu bytes from rank %u is over the limit", count, peer);
    int code = MPI_Irecv(bytes, (int)count, MPI_BYTE, (int)peer, (int)tag, MPI_COMM_WORLD, &request);
    if (code != MPI_SUCCESS) return fail_mpi(link, code, "receive from", peer);
    *op = (comm_op_t){.active = true, .peer = peer, .bytes = bytes, .count = count, .tag = tag};
    store_request(op, request);
    return COT_OK;
}

static cot_status_t mpi_test(comm_link_t *link, comm_op_t *op)
{
    if (!op->active) return COT_OK;
    MPI_Request request = load_request(op);
    MPI_Status status;
    int done = 0, bytes = 0;
    int code = MPI_Test(&request, &done, &status);
    store_request(op, request);
    if (code != MPI_SUCCESS) {
        op->active = false;
        return fail_mpi(link, code, "talk to", op->peer);
    }
    if (!done) return COT_OK;
    op->active = false;
    if (op->bytes == NULL) return COT_OK;
    MPI_Get_count(&status, MPI_BYTE, &bytes);
    op->count = (size_t)bytes;
    return COT_OK;
}

static cot_status_t mpi_probe(comm_link_t *link, comm_tag_t tag, uint32_t *peer, size_t *count_out, bool *found_out)
{
    MPI_Status status;
    int found = 0, bytes = 0;
    int source = *peer == COMM_ANYBODY ? MPI_ANY_SOURCE : (int)*peer;
    int code = MPI_Iprobe(source, (int)tag, MPI_COMM_WORLD, &found, &status);
    if (code != MPI_SUCCESS) return fail_mpi(link, code, "look for messages at", link->rank);
    *found_out = found != 0;
    if (!found) return COT_OK;
    MPI_Get_count(&status, MPI_BYTE, &bytes);
    *peer = (uint32_t)status.MPI_SOURCE;
    *count_out = (size_t)bytes;
    return COT_OK;
}

static void mpi_cancel(comm_link_t *link, comm_op_t *op)
{
    (void)link;
    MPI_Request request = load_request(op);
    MPI_Cancel(&request);
    MPI_Request_free(&request);
    op->active = false;
}

static const comm_link_ops_t MPI_OPS = {"mpi", mpi_send, mpi_receive, mpi_test, mpi_probe, mpi_cancel};

/* ---- which ranks share a host ---- */

static cot_status_t send_names(comm_link_t *link, char (*names)[NAME_BYTES])
{
    for (uint32_t from = 1; from < link->ranks; from++) {
        comm_message_t message;
        COT_TRY(
            comm_receive(link, from, COMM_TAG_COUNTS, cot_deadline_in_ms(START_TIMEOUT_MS), "a host name", &message));
        if (message.count != NAME_BYTES) return cot_fail(COT_ERR_PROTOCOL, "rank %u sent no host name", from);
        memcpy(names[from], message.bytes, NAME_BYTES);
    }
    for (uint32_t rank = 0, nodes = 0; rank < link->ranks; rank++) {
        uint32_t same = 0;
        while (same < rank && strcmp(names[same], names[rank]) != 0) same++;
        link->node[rank] = same < rank ? link->node[same] : nodes++;
    }
    for (uint32_t to = 1; to < link->ranks; to++)
        COT_TRY(comm_send(link, to, COMM_TAG_COUNTS, link->node, link->ranks * sizeof(*link->node)));
    return comm_flush(link, cot_deadline_in_ms(START_TIMEOUT_MS));
}

static cot_status_t learn_nodes(comm_link_t *link)
{
    char name[NAME_BYTES] = "";
    gethostname(name, sizeof(name) - 1);
    if (link->rank == 0) {
        char(*names)[NAME_BYTES] = cot_calloc(link->ranks, sizeof(*names));
        if (names == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for %u host names", link->ranks);
        memcpy(names[0], name, NAME_BYTES);
        cot_status_t status = send_names(link, names);
        cot_free(names);
        return status;
    }
    comm_message_t message;
    COT_TRY(comm_send(link, 0, COMM_TAG_COUNTS, name, sizeof(name)));
    COT_TRY(
        comm_receive(link, 0, COMM_TAG_COUNTS, cot_deadline_in_ms(START_TIMEOUT_MS), "the table of hosts", &message));
    if (message.count != link->ranks * sizeof(*link->node))
        return cot_fail(COT_ERR_PROTOCOL, "rank 0 sent no table of hosts");
    memcpy(link->node, message.bytes, message.count);
    return COT_OK;
}

/* ---- life ---- */

bool comm_launched(int *ranks_out)
{
    static const char *const SIZES[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_SIZE", "SLURM_NTASKS"};
    for (size_t i = 0; i < sizeof(SIZES) / sizeof(*SIZES); i++) {
        const char *size = getenv(SIZES[i]);
        if (size == NULL) continue;
        *ranks_out = atoi(size);
        return true;
    }
    return false;
}

cot_status_t comm_mpi_start(int *argc, char ***argv, comm_link_t **link_out)
{
    int provided, rank, ranks;
    comm_link_t *link = cot_calloc(1, sizeof(*link));
    if (link == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the link");
    if (MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
        cot_free(link);
        return cot_fail(COT_ERR_PEER_LOST, "MPI does not start: run under mpirun");
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    cot_status_t status = comm_link_init(link, &MPI_OPS, (uint32_t)rank, (uint32_t)ranks);
    if (status == COT_OK) status = learn_nodes(link);
    if (status != COT_OK) {
        cot_log_error("%s", cot_error_text());
        comm_mpi_abort(cot_exit_code(status));
    }
    *link_out = link;
    return COT_OK;
}

/* A barrier that can give up. */
static bool all_came(int64_t timeout_ms)
{
    MPI_Request request;
    cot_backoff_t backoff = {0};
    cot_deadline_t deadline = cot_deadline_in_ms(timeout_ms);
    int done = 0;
    if (MPI_Ibarrier(MPI_COMM_WORLD, &request) != MPI_SUCCESS) return false;
    while (MPI_Test(&request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && !done) {
        if (cot_deadline_passed(deadline)) return false;
        cot_backoff_wait(&backoff);
    }
    return done != 0;
}

void comm_mpi_finish(comm_link_t *link, int64_t timeout_ms)
{
    cot_status_t status = comm_flush(link, cot_deadline_in_ms(timeout_ms));
    if (status != COT_OK || !all_came(timeout_ms)) {
        cot_log_error("rank %u: not all ranks came to the end within %lld ms", link->rank, (long long)timeout_ms);
        comm_mpi_abort(cot_exit_code(COT_ERR_TIMEOUT));
    }
    comm_link_clear(link);
    cot_free(link);
    MPI_Finalize();
}

__attribute__((noreturn)) void comm_mpi_abort(int exit_code)
{
    MPI_Abort(MPI_COMM_WORLD, exit_code);
    _exit(exit_code);
}
