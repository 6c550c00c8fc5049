/* The fabric inside one process: each rank is a thread, a message is a copy in a queue. For tests. */
#include "comm/link.h"

#include "base/memory.h"

#include <pthread.h>
#include <string.h>

typedef struct parcel {
    struct parcel *next;
    size_t count;
    uint8_t bytes[];
} parcel_t;

typedef struct {
    parcel_t *first, **end;
} queue_t;

typedef struct {
    pthread_mutex_t mutex;
    uint32_t ranks, open;
    queue_t *queue;      /* [from, to, tag] */
    int64_t *sends_left; /* [rank] messages until the fault; negative: none */
    comm_fault_t *fault; /* [rank] */
} fabric_t;

static queue_t *queue_of(fabric_t *fabric, uint32_t from, uint32_t to, comm_tag_t tag)
{
    return &fabric->queue[((size_t)from * fabric->ranks + to) * COMM_TAG_COUNT + tag];
}

/* Whether the fault hook swallows this rank's message. */
static bool swallowed(fabric_t *fabric, uint32_t rank)
{
    if (fabric->sends_left[rank] < 0) return false;
    if (fabric->sends_left[rank] > 0) {
        fabric->sends_left[rank]--;
        return false;
    }
    if (fabric->fault[rank] == COMM_FAULT_DROP_ONE) fabric->sends_left[rank] = -1;
    return true;
}

static cot_status_t local_send(comm_link_t *link, uint32_t peer, comm_tag_t tag, const void *bytes, size_t count,
                               comm_op_t *op)
{
    fabric_t *fabric = link->fabric;
    parcel_t *parcel = cot_alloc(sizeof(*parcel) + count);
    if (parcel == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a message of %zu bytes", count);
    parcel->next = NULL;
    parcel->count = count;
    if (count > 0) memcpy(parcel->bytes, bytes, count);

    pthread_mutex_lock(&fabric->mutex);
    bool lost = swallowed(fabric, link->rank);
    queue_t *queue = queue_of(fabric, link->rank, peer, tag);
    if (!lost) {
        *queue->end = parcel;
        queue->end = &parcel->next;
    }
    pthread_mutex_unlock(&fabric->mutex);
    if (lost) cot_free(parcel);
    *op = (comm_op_t){.active = false, .peer = peer, .count = count, .tag = tag};
    return COT_OK;
}

static cot_status_t local_receive(comm_link_t *link, uint32_t peer, comm_tag_t tag, void *bytes, size_t count,
                                  comm_op_t *op)
{
    (void)link;
    *op = (comm_op_t){.active = true, .peer = peer, .bytes = bytes, .count = count, .tag = tag};
    return COT_OK;
}

static parcel_t *take(fabric_t *fabric, queue_t *queue)
{
    pthread_mutex_lock(&fabric->mutex);
    parcel_t *parcel = queue->first;
    if (parcel != NULL) {
        queue->first = parcel->next;
        if (queue->first == NULL) queue->end = &queue->first;
    }
    pthread_mutex_unlock(&fabric->mutex);
    return parcel;
}

static cot_status_t local_test(comm_link_t *link, comm_op_t *op)
{
    if (!op->active) return COT_OK;
    fabric_t *fabric = link->fabric;
    parcel_t *parcel = take(fabric, queue_of(fabric, op->peer, link->rank, op->tag));
    if (parcel == NULL) return COT_OK;
    op->active = false;
    cot_status_t status = COT_OK;
    if (parcel->count > op->count)
        status = cot_fail(COT_ERR_PROTOCOL, "rank %u: %zu bytes came from rank %u where at most %zu were expected",
                          link->rank, parcel->count, op->peer, op->count);
    else if (parcel->count > 0)
        memcpy(op->bytes, parcel->bytes, parcel->count);
    op->count = parcel->count;
    cot_free(parcel);
    return status;
}

static cot_status_t local_probe(comm_link_t *link, comm_tag_t tag, uint32_t *peer, size_t *count_out, bool *found_out)
{
    fabric_t *fabric = link->fabric;
    *found_out = false;
    pthread_mutex_lock(&fabric->mutex);
    for (uint32_t from = 0; from < fabric->ranks && !*found_out; from++) {
        const parcel_t *parcel = queue_of(fabric, from, link->rank, tag)->first;
        if (parcel == NULL || (*peer != COMM_ANYBODY && *peer != from)) continue;
        *peer = from;
        *count_out = parcel->count;
        *found_out = true;
    }
    pthread_mutex_unlock(&fabric->mutex);
    return COT_OK;
}

static void local_cancel(comm_link_t *link, comm_op_t *op)
{
    (void)link;
    op->active = false;
}

static const comm_link_ops_t LOCAL_OPS = {"local", local_send, local_receive, local_test, local_probe, local_cancel};

/* ---- life ---- */

static void destroy_fabric(fabric_t *fabric)
{
    size_t queues = (size_t)fabric->ranks * fabric->ranks * COMM_TAG_COUNT;
    for (size_t q = 0; fabric->queue != NULL && q < queues; q++)
        while (fabric->queue[q].first != NULL) {
            parcel_t *parcel = fabric->queue[q].first;
            fabric->queue[q].first = parcel->next;
            cot_free(parcel);
        }
    pthread_mutex_destroy(&fabric->mutex);
    cot_free(fabric->queue);
    cot_free(fabric->sends_left);
    cot_free(fabric->fault);
    cot_free(fabric);
}

static cot_status_t create_fabric(uint32_t ranks, fabric_t **fabric_out)
{
    fabric_t *fabric = cot_calloc(1, sizeof(*fabric));
    if (fabric == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for a fabric of %u ranks", ranks);
    pthread_mutex_init(&fabric->mutex, NULL);
    fabric->ranks = ranks;
    size_t queues = (size_t)ranks * ranks * COMM_TAG_COUNT;
    fabric->queue = cot_calloc(queues, sizeof(*fabric->queue));
    fabric->sends_left = cot_calloc(ranks, sizeof(*fabric->sends_left));
    fabric->fault = cot_calloc(ranks, sizeof(*fabric->fault));
    if (fabric->queue == NULL || fabric->sends_left == NULL || fabric->fault == NULL) {
        destroy_fabric(fabric);
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for a fabric of %u ranks", ranks);
    }
    for (size_t q = 0; q < queues; q++) fabric->queue[q].end = &fabric->queue[q].first;
    for (uint32_t rank = 0; rank < ranks; rank++) fabric->sends_left[rank] = -1;
    *fabric_out = fabric;
    return COT_OK;
}

cot_status_t comm_local_start(uint32_t ranks, comm_link_t **links)
{
    fabric_t *fabric = NULL;
    COT_TRY(create_fabric(ranks, &fabric));
    for (uint32_t rank = 0; rank < ranks; rank++) links[rank] = NULL;
    for (uint32_t rank = 0; rank < ranks; rank++) {
        comm_link_t *link = cot_calloc(1, sizeof(*link));
        cot_status_t status = link != NULL ? comm_link_init(link, &LOCAL_OPS, rank, ranks)
                                           : cot_fail(COT_ERR_NO_MEMORY, "no memory for a link");
        if (status != COT_OK) {
            cot_free(link);
            if (fabric->open == 0)
                destroy_fabric(fabric);
            else
                comm_local_finish(rank, links);
            return status;
        }
        link->fabric = fabric;
        links[rank] = link;
        fabric->open++;
    }
    return COT_OK;
}

void comm_local_finish(uint32_t ranks, comm_link_t **links)
{
    for (uint32_t rank = 0; rank < ranks; rank++) {
        fabric_t *fabric = links[rank]->fabric;
        comm_link_clear(links[rank]);
        cot_free(links[rank]);
        links[rank] = NULL;
        if (--fabric->open == 0) destroy_fabric(fabric);
    }
}

void comm_local_fault(comm_link_t *link, comm_fault_t fault, int64_t after_sends)
{
    fabric_t *fabric = link->fabric;
    pthread_mutex_lock(&fabric->mutex);
    fabric->fault[link->rank] = fault;
    fabric->sends_left[link->rank] = after_sends;
    pthread_mutex_unlock(&fabric->mutex);
}
