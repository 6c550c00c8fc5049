/* Messages between the ranks of a job, and the expert-parallel exchange built on them.
 *
 * A link is one rank's end of the fabric that carries host memory: MPI between processes, or threads of one process
 * (tests). No call blocks in the fabric: waits poll with a back-off, have a deadline, and name what they waited for.
 *
 * Threads: one thread per link at a time. */
#ifndef COMM_H
#define COMM_H

#include "base/clock.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct comm_link comm_link_t;

/* ---- life ---- */

/* MPI_Init and a private communicator. Call before any thread starts. `abort` on a fatal error: see comm_mpi_abort. */
cot_status_t comm_mpi_start(int *argc, char ***argv, comm_link_t **link_out);
/* Waits (with a deadline) until all ranks come here, then finalises MPI. */
void comm_mpi_finish(comm_link_t *link, int64_t timeout_ms);
/* Last resort: ends all ranks of the job with `exit_code`. Does not return. */
__attribute__((noreturn)) void comm_mpi_abort(int exit_code);
/* Whether this process was started by mpirun or srun (its environment says so), without touching MPI. */
bool comm_launched(int *ranks_out);

/* A fabric of `ranks` links inside this process; links[i] is rank i's end. For tests. */
cot_status_t comm_local_start(uint32_t ranks, comm_link_t **links);
void comm_local_finish(uint32_t ranks, comm_link_t **links);
/* From the rank's n-th message on (after `after_sends` more): loses that one, or all that follow, as a dead rank would.
 */
typedef enum { COMM_FAULT_DROP_ONE, COMM_FAULT_DIE } comm_fault_t;
void comm_local_fault(comm_link_t *link, comm_fault_t fault, int64_t after_sends);

uint32_t comm_rank(const comm_link_t *link);
uint32_t comm_ranks(const comm_link_t *link);
uint32_t comm_node_rank(const comm_link_t *link); /* among the ranks of this host */
uint32_t comm_node_ranks(const comm_link_t *link);
uint32_t comm_node(const comm_link_t *link, uint32_t rank); /* host index of any rank, in order of lowest rank */

/* ---- control messages: whole, in order for each (peer, tag) ---- */

typedef enum {
    COMM_TAG_SETUP,
    COMM_TAG_STEP,
    COMM_TAG_RESULT,
    COMM_TAG_COUNTS,
    COMM_TAG_ROWS,
    COMM_TAG_RETURN,
    COMM_TAG_NODE, /* among the workers of a node, while they start */
    COMM_TAG_COUNT
} comm_tag_t;

typedef struct {
    uint32_t peer;
    const void *bytes; /* valid until the next comm_poll or comm_receive of the same tag on this link */
    size_t count;
} comm_message_t;

#define COMM_MESSAGE_BYTES_MAX ((size_t)1 << 30)

/* Copies the message and returns at once; what is queued for a peer is bounded (COT_ERR_BUSY beyond 1 GiB). */
cot_status_t comm_send(comm_link_t *link, uint32_t peer, comm_tag_t tag, const void *bytes, size_t count);
/* Moves sends on and takes one arrived message of `tag`, from any peer. Never waits. */
cot_status_t comm_poll(comm_link_t *link, comm_tag_t tag, comm_message_t *message_out, bool *found_out);
/* Waits for one message of `tag` from `peer`. COT_ERR_TIMEOUT names `what`, the peer and the time. */
cot_status_t comm_receive(comm_link_t *link, uint32_t peer, comm_tag_t tag, cot_deadline_t deadline, const char *what,
                          comm_message_t *message_out);
/* Waits until everything queued has left. */
cot_status_t comm_flush(comm_link_t *link, cot_deadline_t deadline);
/* Set by a signal handler or another thread: every wait on this link ends with COT_ERR_CANCELLED. */
void comm_interrupt(comm_link_t *link);

/* ---- the expert-parallel exchange, among the worker ranks ---- */

/* Group: the ranks [first, first + ranks) of the link. Owns its buffers, all taken at create. Calls on a group are
 * collective: every member makes the same sequence of dispatch and combine. */
typedef struct comm_group comm_group_t;

typedef struct {
    comm_link_t *link; /* borrowed */
    uint32_t first, ranks;
    size_t row_bytes;    /* bytes of one row, both ways */
    uint32_t max_tokens; /* most home tokens of a rank in a step */
    uint32_t top_k;
    int64_t timeout_ms; /* of one dispatch or one combine */
} comm_group_config_t;

cot_status_t comm_group_create(const comm_group_config_t *config, comm_group_t **group_out);
void comm_group_destroy(comm_group_t *group);
size_t comm_group_buffer_bytes(const comm_group_t *group);

/* Where we are, for the last word of a wait: "rank 3 layer 12 step 881: dispatch timed out after …". */
void comm_group_locate(comm_group_t *group, uint64_t step, uint32_t layer);

typedef struct {
    uint32_t tokens;       /* home tokens of this rank: may be 0 */
    const void *rows;      /* [tokens, row_bytes] */
    const int32_t *expert; /* [tokens, top_k] logical expert; negative: no assignment */
    const int32_t *rank;   /* [tokens, top_k] group member that computes it */
} comm_dispatch_args_t;

/* What arrived. Borrowed from the group until its next dispatch. Order: source member, then token, then k: the same
 * under every placement for the rows of one expert. */
typedef struct {
    uint32_t rows, assignments;
    const void *data;      /* [rows, row_bytes] one copy of a row per source token */
    const uint32_t *row;   /* [assignments] index into rows */
    const int32_t *expert; /* [assignments] */
} comm_received_t;

/* Exact counts first, then one copy of a row for each destination member. */
cot_status_t comm_dispatch(comm_group_t *group, const comm_dispatch_args_t *args, comm_received_t *received_out);

/* outputs [assignments, row_bytes], in the order of the last comm_received_t, go home:
 * home [tokens, top_k, row_bytes]; slots without an assignment stay as they are. */
cot_status_t comm_combine(comm_group_t *group, const void *outputs, void *home);

/* Bytes and rows that left this rank for other ranks since create. */
typedef struct {
    uint64_t dispatch_bytes, combine_bytes, dispatch_rows, assignments, off_node_bytes;
    int64_t wait_ns;
} comm_traffic_t;
void comm_group_traffic(const comm_group_t *group, comm_traffic_t *traffic_out);

#endif
