/* Inside comm/: what a fabric must offer, and the state of one rank's end. */
#ifndef COMM_LINK_H
#define COMM_LINK_H

#include "base/buffer.h"
#include "comm/comm.h"

#include <stdatomic.h>

#define COMM_ANYBODY UINT32_MAX

/* A transfer under way. `handle` is the fabric's own. */
typedef struct {
    bool active;
    uint32_t peer;
    uint64_t handle[2];
    void *bytes; /* of a receive */
    size_t count;
    comm_tag_t tag;
} comm_op_t;

/* None of these waits. A send's bytes must stay until test() has found it done. Messages of one (peer, tag) arrive in
 * the order in which they were sent. */
typedef struct {
    const char *name;
    cot_status_t (*send)(comm_link_t *link, uint32_t peer, comm_tag_t tag, const void *bytes, size_t count,
                         comm_op_t *op);
    cot_status_t (*receive)(comm_link_t *link, uint32_t peer, comm_tag_t tag, void *bytes, size_t count, comm_op_t *op);
    /* Clears op->active once the transfer is done; op->count becomes the bytes that came. */
    cot_status_t (*test)(comm_link_t *link, comm_op_t *op);
    /* Whether a message of `tag` waits to be received: from *peer, or, if that is COMM_ANYBODY, from whom. */
    cot_status_t (*probe)(comm_link_t *link, comm_tag_t tag, uint32_t *peer, size_t *count_out, bool *found_out);
    void (*cancel)(comm_link_t *link, comm_op_t *op); /* its buffer is about to go away */
} comm_link_ops_t;

/* A control message on its way out: a copy of the caller's bytes follows the struct. */
typedef struct comm_outgoing {
    struct comm_outgoing *next;
    comm_op_t op;
    size_t count;
    uint8_t bytes[];
} comm_outgoing_t;

struct comm_link {
    const comm_link_ops_t *ops;
    uint32_t rank, ranks;
    uint32_t *node; /* [ranks] host of each rank */
    atomic_bool interrupted;
    comm_outgoing_t *outgoing; /* oldest first */
    comm_outgoing_t **outgoing_end;
    size_t outgoing_bytes;
    struct {
        cot_buffer_t buffer; /* the message being received, or handed out last */
        comm_op_t op;
        bool receiving;
    } inbox[COMM_TAG_COUNT];
    void *fabric; /* the implementation's */
};

/* Fills the common part; `node` is all zeros. */
cot_status_t comm_link_init(comm_link_t *link, const comm_link_ops_t *ops, uint32_t rank, uint32_t ranks);
void comm_link_clear(comm_link_t *link);

/* Moves control messages on; called by every wait. */
cot_status_t comm_link_progress(comm_link_t *link);
/* Between two looks: COT_ERR_CANCELLED if interrupted, else backs off. */
cot_status_t comm_link_pause(comm_link_t *link, cot_backoff_t *backoff);

#endif
