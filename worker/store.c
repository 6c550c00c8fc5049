#include "worker/store.h"

#include "base/log.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct worker_store {
    comm_link_t *link; /* NULL: private */
    uint8_t *data;
    uint64_t bytes;
    int fd;
};

/* To the first worker: how far the sender came. From it: whether all came, and where the file is. */
typedef struct {
    uint64_t bytes;
    uint32_t failed;
    int32_t pid, fd;
    uint32_t reserved;
} word_t;

/* ---- the workers of this node ---- */

static bool is_here(const comm_link_t *link, uint32_t rank)
{
    return comm_node(link, rank) == comm_node(link, comm_rank(link));
}

static uint32_t first_here(const comm_link_t *link)
{
    uint32_t rank = 1; /* rank 0 is no worker */
    while (!is_here(link, rank)) rank++;
    return rank;
}

static cot_status_t hear(comm_link_t *link, uint32_t rank, cot_deadline_t deadline, word_t *word_out)
{
    comm_message_t message;
    COT_TRY(comm_receive(link, rank, COMM_TAG_NODE, deadline, "a word about the node's weights", &message));
    if (message.count != sizeof(*word_out))
        return cot_fail(COT_ERR_PROTOCOL, "rank %u: rank %u sent %zu bytes about the node's weights", comm_rank(link),
                        rank, message.count);
    memcpy(word_out, message.bytes, sizeof(*word_out));
    return COT_OK;
}

static cot_status_t tell_others(comm_link_t *link, const word_t *word)
{
    for (uint32_t rank = comm_rank(link) + 1; rank < comm_ranks(link); rank++)
        if (is_here(link, rank)) COT_TRY(comm_send(link, rank, COMM_TAG_NODE, word, sizeof(*word)));
    return COT_OK;
}

/* The first worker hears all others; COT_ERR_CANCELLED if one of them failed. */
static cot_status_t hear_others(comm_link_t *link, uint64_t bytes, cot_deadline_t deadline)
{
    uint32_t failed = 0;
    for (uint32_t rank = comm_rank(link) + 1; rank < comm_ranks(link); rank++) {
        word_t word;
        if (!is_here(link, rank)) continue;
        COT_TRY(hear(link, rank, deadline, &word));
        if (word.failed) failed = rank;
        if (!word.failed && word.bytes != bytes)
            return cot_fail(COT_ERR_PROTOCOL, "rank %u wants to share %llu bytes of weights, rank %u %llu",
                            comm_rank(link), (unsigned long long)bytes, rank, (unsigned long long)word.bytes);
    }
    return failed == 0 ? COT_OK : cot_fail(COT_ERR_CANCELLED, "rank %u could not load its weights", failed);
}

/* `status` is ours. Gives the status of all, and what the first worker said. */
static cot_status_t meet(comm_link_t *link, cot_status_t status, word_t *word, cot_deadline_t deadline)
{
    uint32_t first = first_here(link);
    word->failed = status != COT_OK;
    if (comm_rank(link) != first) {
        COT_TRY(comm_send(link, first, COMM_TAG_NODE, word, sizeof(*word)));
        if (status != COT_OK) return status;
        COT_TRY(hear(link, first, deadline, word));
        return word->failed ? cot_fail(COT_ERR_CANCELLED, "rank %u could not share the node's weights", first) : COT_OK;
    }
    if (status == COT_OK) status = hear_others(link, word->bytes, deadline);
    word->failed = status != COT_OK;
    cot_status_t told = tell_others(link, word);
    return status != COT_OK ? status : told;
}

void worker_store_give_up(comm_link_t *link)
{
    const word_t word = {.failed = 1};
    uint32_t first = first_here(link);
    /* Whoever does not hear it still has a deadline. */
    if (comm_rank(link) == first)
        COT_IGNORE(tell_others(link, &word));
    else
        COT_IGNORE(comm_send(link, first, COMM_TAG_NODE, &word, sizeof(word)));
}

/* ---- the memory ---- */

static cot_status_t map(worker_store_t *store, int flags)
{
    void *data = mmap(NULL, store->bytes, PROT_READ | PROT_WRITE, flags, store->fd, 0);
    if (data == MAP_FAILED)
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for %llu bytes of weights: %s", (unsigned long long)store->bytes,
                        strerror(errno));
    store->data = data;
    return COT_OK;
}

static cot_status_t make_file(worker_store_t *store)
{
    store->fd = memfd_create("coterie-weights", MFD_CLOEXEC);
    if (store->fd < 0 || ftruncate(store->fd, (off_t)store->bytes) != 0)
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for %llu bytes of weights: %s", (unsigned long long)store->bytes,
                        strerror(errno));
    return map(store, MAP_SHARED);
}

static cot_status_t open_file(worker_store_t *store, const word_t *word)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", word->pid, word->fd);
    store->fd = open(path, O_RDWR | O_CLOEXEC);
    if (store->fd < 0)
        return cot_fail(COT_ERR_IO,
                        "the weights of rank %u cannot be shared (%s: %s): do the ranks of this node run as "
                        "different users, or in different containers?",
                        first_here(store->link), path, strerror(errno));
    return map(store, MAP_SHARED);
}

static cot_status_t open_shared(worker_store_t *store, cot_deadline_t deadline)
{
    word_t word = {.bytes = store->bytes};
    cot_status_t status = COT_OK;
    bool first = comm_rank(store->link) == first_here(store->link);
    if (first) {
        status = make_file(store);
        word.pid = getpid();
        word.fd = store->fd;
    }
    COT_TRY(meet(store->link, status, &word, deadline));
    if (!first) status = open_file(store, &word);
    /* Only when all have it open may the first one go on, and perhaps close it. */
    word.bytes = store->bytes;
    return meet(store->link, status, &word, deadline);
}

cot_status_t worker_store_open(comm_link_t *link, uint64_t bytes, cot_deadline_t deadline, worker_store_t **store_out)
{
    worker_store_t *store = cot_calloc(1, sizeof(*store));
    if (store == NULL) {
        if (link != NULL) worker_store_give_up(link);
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for the weights");
    }
    *store = (worker_store_t){.link = link, .bytes = bytes, .fd = -1};
    cot_status_t status = link != NULL ? open_shared(store, deadline) : map(store, MAP_PRIVATE | MAP_ANONYMOUS);
    if (status != COT_OK) {
        worker_store_close(store);
        return status;
    }
    *store_out = store;
    return COT_OK;
}

void *worker_store_at(worker_store_t *store, uint64_t offset)
{
    return store->data + offset;
}

cot_status_t worker_store_seal(worker_store_t *store, cot_status_t status, cot_deadline_t deadline)
{
    word_t word = {.bytes = store->bytes};
    COT_TRY(store->link != NULL ? meet(store->link, status, &word, deadline) : status);
    if (mprotect(store->data, store->bytes, PROT_READ) == 0) return COT_OK;
    return cot_fail(COT_ERR_INTERNAL, "the weights cannot be made read-only: %s", strerror(errno));
}

void worker_store_close(worker_store_t *store)
{
    if (store == NULL) return;
    if (store->data != NULL) munmap(store->data, store->bytes);
    if (store->fd >= 0) close(store->fd);
    cot_free(store);
}
