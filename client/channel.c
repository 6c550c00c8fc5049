#include "client/client_int.h"

#include "base/memory.h"
#include "proto/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { READ_BYTES = 64 << 10, RETRY_MS = 20 };

/* ---- waiting ---- */

static cot_status_t fail_timeout(const client_channel_t *channel)
{
    return cot_fail(COT_ERR_TIMEOUT, "%s did not answer before the deadline; --timeout sets it", channel->address);
}

static int poll_ms(cot_deadline_t deadline)
{
    if (deadline == COT_NEVER) return -1;
    int64_t left_ms = cot_deadline_left_ms(deadline);
    return left_ms > 3600000 ? 3600000 : (int)left_ms + 1;
}

static cot_status_t wait_for(client_channel_t *channel, short events, cot_deadline_t deadline, bool may_cancel)
{
    for (;;) {
        if (may_cancel && atomic_load(&channel->cancelled)) return cot_fail(COT_ERR_CANCELLED, "cancelled");
        if (cot_deadline_passed(deadline)) return fail_timeout(channel);
        struct pollfd fds[2] = {{.fd = channel->fd, .events = events}, {.fd = channel->wake, .events = POLLIN}};
        int ready = poll(fds, may_cancel ? 2 : 1, poll_ms(deadline));
        if (ready < 0 && errno != EINTR) return cot_fail(COT_ERR_IO, "poll: %s", strerror(errno));
        if (ready > 0 && fds[0].revents != 0) return COT_OK;
    }
}

/* ---- bytes ---- */

static cot_status_t fail_lost(const client_channel_t *channel, int error)
{
    return cot_fail(COT_ERR_PEER_LOST, "the connection to %s is lost: %s", channel->address,
                    error != 0 ? strerror(error) : "the server closed it");
}

cot_status_t client_socket_send(client_channel_t *channel, const void *bytes, size_t count, cot_deadline_t deadline)
{
    const uint8_t *next = bytes;
    while (count > 0) {
        ssize_t sent = send(channel->fd, next, count, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0) {
            next += sent;
            count -= (size_t)sent;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            COT_TRY(wait_for(channel, POLLOUT, deadline, false));
        } else if (errno != EINTR) {
            return fail_lost(channel, errno);
        }
    }
    return COT_OK;
}

cot_status_t client_socket_receive(client_channel_t *channel, void *bytes, size_t *count, cot_deadline_t deadline,
                                   bool may_cancel)
{
    for (;;) {
        ssize_t got = recv(channel->fd, bytes, *count, MSG_DONTWAIT);
        if (got == 0) return fail_lost(channel, 0);
        if (got > 0) {
            *count = (size_t)got;
            return COT_OK;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            COT_TRY(wait_for(channel, POLLIN, deadline, may_cancel));
        else if (errno != EINTR)
            return fail_lost(channel, errno);
    }
}

/* ---- frames ---- */

cot_status_t client_channel_send(client_channel_t *channel, const Coterie__Envelope *envelope, cot_deadline_t deadline)
{
    if (channel->broken) return fail_lost(channel, 0);
    cot_buffer_clear(&channel->out);
    COT_TRY(rpc_frame_append(envelope, &channel->out));
    if (channel->out.size - RPC_FRAME_HEAD_BYTES > RPC_REQUEST_FRAME_BYTES)
        return cot_fail(COT_ERR_LIMIT, "a request of %zu bytes: a server takes at most %u; shorten the prompt",
                        channel->out.size, RPC_REQUEST_FRAME_BYTES);
    cot_status_t status = channel->ssl != NULL
                              ? client_tls_send(channel, channel->out.data, channel->out.size, deadline)
                              : client_socket_send(channel, channel->out.data, channel->out.size, deadline);
    /* What did not leave whole may have been answered: the server's reason is better than the socket's. */
    if (status != COT_OK && status != COT_ERR_PEER_LOST) channel->broken = true;
    return status == COT_ERR_PEER_LOST ? COT_OK : status;
}

static cot_status_t receive_more(client_channel_t *channel, cot_deadline_t deadline, bool may_cancel)
{
    size_t before = channel->in.size, count = READ_BYTES;
    COT_TRY(cot_buffer_reserve(&channel->in, before + count));
    uint8_t *space = channel->in.data + before;
    COT_TRY(channel->ssl != NULL ? client_tls_receive(channel, space, &count, deadline, may_cancel)
                                 : client_socket_receive(channel, space, &count, deadline, may_cancel));
    channel->in.size += count;
    return COT_OK;
}

static cot_status_t receive_frame(client_channel_t *channel, cot_deadline_t deadline, bool may_cancel,
                                  Coterie__Envelope **envelope_out)
{
    size_t bytes = 0;
    for (;;) {
        COT_TRY(rpc_frame_bytes(channel->in.data, channel->in.size, RPC_REPLY_FRAME_BYTES, &bytes));
        if (bytes > 0 && channel->in.size >= bytes) break;
        COT_TRY(receive_more(channel, deadline, may_cancel));
    }
    COT_TRY(rpc_envelope_unpack(channel->in.data + RPC_FRAME_HEAD_BYTES, bytes - RPC_FRAME_HEAD_BYTES, envelope_out));
    cot_buffer_consume(&channel->in, bytes);
    return COT_OK;
}

cot_status_t client_channel_receive(client_channel_t *channel, cot_deadline_t deadline, bool may_cancel,
                                    Coterie__Envelope **envelope_out)
{
    if (channel->broken) return fail_lost(channel, 0);
    /* Seen here, too: a stream that never runs dry never waits. */
    if (may_cancel && atomic_load(&channel->cancelled)) return cot_fail(COT_ERR_CANCELLED, "cancelled");
    if (cot_deadline_passed(deadline)) return fail_timeout(channel);
    cot_status_t status = receive_frame(channel, deadline, may_cancel, envelope_out);
    if (status != COT_OK && status != COT_ERR_CANCELLED && status != COT_ERR_TIMEOUT) channel->broken = true;
    return status;
}

/* ---- connecting ---- */

static cot_status_t fail_connect(const client_channel_t *channel, int error)
{
    if (error == ENOENT || error == ECONNREFUSED)
        return cot_fail(COT_ERR_PEER_LOST, "no server listens at %s: start one with `coterie serve`, or give --connect",
                        channel->address);
    return cot_fail(COT_ERR_PEER_LOST, "cannot connect to %s: %s", channel->address, strerror(error));
}

/* Waits for the outcome of a connect that did not finish at once; *error_out: errno, or 0. */
static cot_status_t finish_connect(client_channel_t *channel, cot_deadline_t deadline, int *error_out)
{
    COT_TRY(wait_for(channel, POLLOUT, deadline, false));
    socklen_t bytes = sizeof(*error_out);
    if (getsockopt(channel->fd, SOL_SOCKET, SO_ERROR, error_out, &bytes) != 0) *error_out = errno;
    return COT_OK;
}

static cot_status_t connect_one(client_channel_t *channel, const struct sockaddr *name, socklen_t bytes,
                                cot_deadline_t deadline, int *error_out)
{
    channel->fd = socket(name->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (channel->fd < 0) return cot_fail(COT_ERR_IO, "cannot make a socket: %s", strerror(errno));
    for (;;) {
        *error_out = connect(channel->fd, name, bytes) == 0 ? 0 : errno;
        if (*error_out == EINPROGRESS) return finish_connect(channel, deadline, error_out);
        if (*error_out != EAGAIN && *error_out != EINTR) return COT_OK;
        if (cot_deadline_passed(deadline)) return fail_timeout(channel);
        poll(NULL, 0, RETRY_MS); /* a Unix socket whose queue is full */
    }
}

/* Under /tmp anybody could have put a socket of that name. */
static cot_status_t check_owner(const client_channel_t *channel)
{
    struct ucred peer;
    socklen_t bytes = sizeof(peer);
    if (getsockopt(channel->fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) != 0)
        return cot_fail(COT_ERR_IO, "%s: cannot see who listens there: %s", channel->address, strerror(errno));
    if (peer.uid == getuid() || peer.uid == 0) return COT_OK;
    return cot_fail(COT_ERR_AUTH, "%s belongs to another user (%u): give --connect if you mean that server",
                    channel->address, (unsigned)peer.uid);
}

static cot_status_t connect_local(client_channel_t *channel, const rpc_address_t *address, cot_deadline_t deadline)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    memcpy(name.sun_path, address->path, sizeof(name.sun_path));
    int error = 0;
    COT_TRY(connect_one(channel, (const struct sockaddr *)&name, sizeof(name), deadline, &error));
    if (error != 0) return fail_connect(channel, error);
    return address->by_default ? check_owner(channel) : COT_OK;
}

static cot_status_t connect_tcp(client_channel_t *channel, const rpc_address_t *address, cot_deadline_t deadline)
{
    struct addrinfo *found = NULL, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    int failed = getaddrinfo(address->host, address->port, &hints, &found);
    if (failed != 0)
        return cot_fail(COT_ERR_PEER_LOST, "there is no host \"%s\": %s", address->host, gai_strerror(failed));
    cot_status_t status = COT_OK;
    int error = EHOSTUNREACH;
    for (const struct addrinfo *one = found; one != NULL && error != 0 && status == COT_OK; one = one->ai_next) {
        if (channel->fd >= 0) close(channel->fd);
        status = connect_one(channel, one->ai_addr, one->ai_addrlen, deadline, &error);
    }
    freeaddrinfo(found);
    COT_TRY(status);
    if (error != 0) return fail_connect(channel, error);
    int on = 1;
    setsockopt(channel->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(channel->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    return COT_OK;
}

static cot_status_t open_all(client_channel_t *channel, const char *text, const char *tls_ca, cot_deadline_t deadline)
{
    rpc_address_t address;
    COT_TRY(rpc_address_parse(text, &address));
    rpc_address_print(&address, channel->address);
    channel->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (channel->wake < 0) return cot_fail(COT_ERR_IO, "cannot make an eventfd: %s", strerror(errno));
    COT_TRY(address.local ? connect_local(channel, &address, deadline) : connect_tcp(channel, &address, deadline));
    return tls_ca != NULL ? client_tls_open(channel, &address, tls_ca, deadline) : COT_OK;
}

cot_status_t client_channel_open(client_channel_t *channel, const char *address, const char *tls_ca,
                                 cot_deadline_t deadline)
{
    *channel = (client_channel_t){.fd = -1, .wake = -1};
    cot_status_t status = open_all(channel, address, tls_ca, deadline);
    if (status != COT_OK) client_channel_close(channel);
    return status;
}

void client_channel_close(client_channel_t *channel)
{
    client_tls_close(channel);
    if (channel->fd >= 0) close(channel->fd);
    if (channel->wake >= 0) close(channel->wake);
    channel->fd = channel->wake = -1;
    cot_buffer_free(&channel->in);
    cot_buffer_free(&channel->out);
}
