/* Control messages over any fabric: copied, queued within a bound, whole. */
#include "comm/link.h"

#include "base/memory.h"

#include <string.h>

#define OUTGOING_BYTES_MAX ((size_t)1 << 30)

cot_status_t comm_link_init(comm_link_t *link, const comm_link_ops_t *ops, uint32_t rank, uint32_t ranks)
{
    uint32_t *node = cot_calloc(ranks, sizeof(*node));
    if (node == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a link of %u ranks", ranks);
    memset(link, 0, sizeof(*link));
    link->ops = ops;
    link->rank = rank;
    link->ranks = ranks;
    link->node = node;
    link->outgoing_end = &link->outgoing;
    return COT_OK;
}

void comm_link_clear(comm_link_t *link)
{
    while (link->outgoing != NULL) {
        comm_outgoing_t *first = link->outgoing;
        link->outgoing = first->next;
        if (first->op.active) link->ops->cancel(link, &first->op);
        cot_free(first);
    }
    for (int tag = 0; tag < COMM_TAG_COUNT; tag++) {
        if (link->inbox[tag].op.active) link->ops->cancel(link, &link->inbox[tag].op);
        cot_buffer_free(&link->inbox[tag].buffer);
    }
    cot_free(link->node);
}

uint32_t comm_rank(const comm_link_t *link)
{
    return link->rank;
}

uint32_t comm_ranks(const comm_link_t *link)
{
    return link->ranks;
}

uint32_t comm_node(const comm_link_t *link, uint32_t rank)
{
    return link->node[rank];
}

uint32_t comm_node_ranks(const comm_link_t *link)
{
    uint32_t here = 0;
    for (uint32_t rank = 0; rank < link->ranks; rank++) here += link->node[rank] == link->node[link->rank];
    return here;
}

uint32_t comm_node_rank(const comm_link_t *link)
{
    uint32_t before = 0;
    for (uint32_t rank = 0; rank < link->rank; rank++) before += link->node[rank] == link->node[link->rank];
    return before;
}

void comm_interrupt(comm_link_t *link)
{
    atomic_store(&link->interrupted, true);
}

/* ---- sending ---- */

cot_status_t comm_link_progress(comm_link_t *link)
{
    for (comm_outgoing_t **at = &link->outgoing; *at != NULL;) {
        comm_outgoing_t *message = *at;
        COT_TRY(link->ops->test(link, &message->op));
        if (message->op.active) {
            at = &message->next;
            continue;
        }
        *at = message->next;
        if (link->outgoing_end == &message->next) link->outgoing_end = at;
        link->outgoing_bytes -= message->count;
        cot_free(message);
    }
    return COT_OK;
}

cot_status_t comm_link_pause(comm_link_t *link, cot_backoff_t *backoff)
{
    if (atomic_load(&link->interrupted)) return cot_fail(COT_ERR_CANCELLED, "interrupted");
    cot_backoff_wait(backoff);
    return COT_OK;
}

cot_status_t comm_send(comm_link_t *link, uint32_t peer, comm_tag_t tag, const void *bytes, size_t count)
{
    COT_TRY(comm_link_progress(link));
    if (count > COMM_MESSAGE_BYTES_MAX)
        return cot_fail(COT_ERR_LIMIT, "a message of %zu bytes to rank %u is over the limit of %zu", count, peer,
                        COMM_MESSAGE_BYTES_MAX);
    if (count > OUTGOING_BYTES_MAX - link->outgoing_bytes)
        return cot_fail(COT_ERR_BUSY, "rank %u does not take its messages: %zu bytes wait to leave", peer,
                        link->outgoing_bytes);
    comm_outgoing_t *message = cot_alloc(sizeof(*message) + count);
    if (message == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a message of %zu bytes", count);
    *message = (comm_outgoing_t){.count = count};
    if (count > 0) memcpy(message->bytes, bytes, count);
    cot_status_t status = link->ops->send(link, peer, tag, message->bytes, count, &message->op);
    if (status != COT_OK) {
        cot_free(message);
        return status;
    }
    *link->outgoing_end = message;
    link->outgoing_end = &message->next;
    link->outgoing_bytes += count;
    return COT_OK;
}

cot_status_t comm_flush(comm_link_t *link, cot_deadline_t deadline)
{
    cot_backoff_t backoff = {0};
    for (;;) {
        COT_TRY(comm_link_progress(link));
        if (link->outgoing == NULL) return COT_OK;
        if (cot_deadline_passed(deadline))
            return cot_fail(COT_ERR_TIMEOUT, "rank %u: %zu bytes for rank %u did not leave in time", link->rank,
                            link->outgoing_bytes, link->outgoing->op.peer);
        COT_TRY(comm_link_pause(link, &backoff));
    }
}

/* ---- receiving ---- */

/* Begins to receive a message that has been announced. */
static cot_status_t begin_receive(comm_link_t *link, comm_tag_t tag, uint32_t peer, size_t count)
{
    if (count > COMM_MESSAGE_BYTES_MAX)
        return cot_fail(COT_ERR_PROTOCOL, "rank %u sends a message of %zu bytes, over the limit", peer, count);
    cot_buffer_t *buffer = &link->inbox[tag].buffer;
    cot_buffer_clear(buffer);
    COT_TRY(cot_buffer_reserve(buffer, count > 0 ? count : 1));
    buffer->size = count;
    COT_TRY(link->ops->receive(link, peer, tag, buffer->data, count, &link->inbox[tag].op));
    link->inbox[tag].receiving = true;
    return COT_OK;
}

/* Takes one message of `tag` from `peer`, or from COMM_ANYBODY, if one has arrived. */
static cot_status_t take(comm_link_t *link, uint32_t peer, comm_tag_t tag, comm_message_t *message_out, bool *found_out)
{
    *found_out = false;
    COT_TRY(comm_link_progress(link));
    if (!link->inbox[tag].receiving) {
        size_t count = 0;
        bool waits = false;
        COT_TRY(link->ops->probe(link, tag, &peer, &count, &waits));
        if (!waits) return COT_OK;
        COT_TRY(begin_receive(link, tag, peer, count));
    }
    COT_TRY(link->ops->test(link, &link->inbox[tag].op));
    if (link->inbox[tag].op.active) return COT_OK;
    link->inbox[tag].receiving = false;
    *message_out = (comm_message_t){
        .peer = link->inbox[tag].op.peer, .bytes = link->inbox[tag].buffer.data, .count = link->inbox[tag].buffer.size};
    *found_out = true;
    return COT_OK;
}

cot_status_t comm_poll(comm_link_t *link, comm_tag_t tag, comm_message_t *message_out, bool *found_out)
{
    return take(link, COMM_ANYBODY, tag, message_out, found_out);
}

cot_status_t comm_receive(comm_link_t *link, uint32_t peer, comm_tag_t tag, cot_deadline_t deadline, const char *what,
                          comm_message_t *message_out)
{
    cot_backoff_t backoff = {0};
    int64_t began_ns = cot_now_ns();
    for (;;) {
        bool found = false;
        COT_TRY(take(link, peer, tag, message_out, &found));
        if (found && message_out->peer == peer) return COT_OK;
        if (found)
            return cot_fail(COT_ERR_PROTOCOL, "rank %u: waiting for %s from rank %u, rank %u spoke", link->rank, what,
                            peer, message_out->peer);
        if (cot_deadline_passed(deadline))
            return cot_fail(COT_ERR_TIMEOUT, "rank %u: %s from rank %u did not come within %lld ms", link->rank, what,
                            peer, (long long)((cot_now_ns() - began_ns) / 1000000));
        COT_TRY(comm_link_pause(link, &backoff));
    }
}
