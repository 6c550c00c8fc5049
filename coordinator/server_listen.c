#include "coordinator/server_int.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BACKLOG = 128 };

/* ---- Unix sockets ---- */

static struct sockaddr_un local_address(const rpc_address_t *address)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    memcpy(name.sun_path, address->path, sizeof(name.sun_path));
    return name;
}

static cot_status_t fail_in_use(const rpc_address_t *address)
{
    char text[RPC_ADDRESS_TEXT_BYTES];
    rpc_address_print(address, text);
    return cot_fail(COT_ERR_IN_USE, "%s is in use: another server listens there; stop it or give another --listen",
                    text);
}

/* Removes a socket file that nobody listens behind. */
static cot_status_t remove_stale(const rpc_address_t *address)
{
    struct stat file;
    if (lstat(address->path, &file) != 0) return COT_OK;
    if (!S_ISSOCK(file.st_mode))
        return cot_fail(COT_ERR_IN_USE, "%s exists and is no socket: give another --listen", address->path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return cot_fail(COT_ERR_IO, "cannot make a socket: %s", strerror(errno));
    struct sockaddr_un name = local_address(address);
    int error = connect(fd, (struct sockaddr *)&name, sizeof(name)) == 0 ? 0 : errno;
    close(fd);
    if (error != ECONNREFUSED) return fail_in_use(address); /* EAGAIN: its queue is full, so it lives */
    if (unlink(address->path) == 0 || errno == ENOENT) return COT_OK;
    return cot_fail(COT_ERR_IO, "cannot remove the socket file %s that a dead server left: %s", address->path,
                    strerror(errno));
}

static cot_status_t listen_local(coord_listener_t *listener)
{
    const rpc_address_t *address = &listener->address;
    COT_TRY(remove_stale(address));
    listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener->fd < 0) return cot_fail(COT_ERR_IO, "cannot make a socket: %s", strerror(errno));
    struct sockaddr_un name = local_address(address);
    mode_t mask = umask(0177); /* mode 0600 from the first moment */
    int failed = bind(listener->fd, (struct sockaddr *)&name, sizeof(name));
    int error = errno;
    umask(mask);
    if (failed && error == EADDRINUSE) return fail_in_use(address);
    if (failed)
        return cot_fail(COT_ERR_IO, "cannot listen at unix:%s: %s; give another --listen", address->path,
                        strerror(error));
    struct stat file;
    if (lstat(address->path, &file) == 0) {
        listener->device = file.st_dev;
        listener->inode = file.st_ino;
    }
    if (listen(listener->fd, BACKLOG) == 0) return COT_OK;
    return cot_fail(COT_ERR_IO, "cannot listen at unix:%s: %s", address->path, strerror(errno));
}

/* ---- TCP ---- */

static cot_status_t bind_one(coord_listener_t *listener, const struct addrinfo *found, bool guarded)
{
    char text[RPC_ADDRESS_TEXT_BYTES];
    rpc_address_print(&listener->address, text);
    if (!guarded && !rpc_is_loopback(found->ai_addr))
        return cot_fail(COT_ERR_INVALID,
                        "--listen %s is beyond this machine: that needs an access token (--token-file) and TLS "
                        "(--tls-cert, --tls-key)",
                        text);
    listener->fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener->fd < 0) return cot_fail(COT_ERR_IO, "%s: cannot make a socket: %s", text, strerror(errno));
    int on = 1;
    setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(listener->fd, found->ai_addr, found->ai_addrlen) == 0 && listen(listener->fd, BACKLOG) == 0) return COT_OK;
    if (errno == EADDRINUSE) return fail_in_use(&listener->address);
    return cot_fail(COT_ERR_IO, "cannot listen at %s: %s; give another --listen", text, strerror(errno));
}

static void note_port(coord_listener_t *listener)
{
    struct sockaddr_storage bound;
    socklen_t bytes = sizeof(bound);
    if (getsockname(listener->fd, (struct sockaddr *)&bound, &bytes) != 0) return;
    getnameinfo((struct sockaddr *)&bound, bytes, NULL, 0, listener->address.port, sizeof(listener->address.port),
                NI_NUMERICSERV);
}

static cot_status_t listen_tcp(coord_listener_t *listener, bool guarded)
{
    const rpc_address_t *address = &listener->address;
    struct addrinfo *found = NULL, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    int error = getaddrinfo(address->host, address->port, &hints, &found);
    if (error != 0)
        return cot_fail(COT_ERR_INVALID, "--listen: there is no host \"%s\": %s", address->host, gai_strerror(error));
    cot_status_t status = COT_ERR_IO;
    for (struct addrinfo *one = found; one != NULL && status == COT_ERR_IO; one = one->ai_next) {
        if (listener->fd >= 0) close(listener->fd);
        listener->fd = -1;
        status = bind_one(listener, one, guarded);
    }
    freeaddrinfo(found);
    if (status == COT_OK) note_port(listener);
    return status;
}

cot_status_t coord_listen(const char *text, bool guarded, coord_listener_t *listener_out)
{
    coord_listener_t listener = {.fd = -1};
    COT_TRY(rpc_address_parse(text, &listener.address));
    cot_status_t status = listener.address.local ? listen_local(&listener) : listen_tcp(&listener, guarded);
    if (status != COT_OK) {
        coord_unlisten(&listener);
        return status;
    }
    *listener_out = listener;
    return COT_OK;
}

void coord_unlisten(coord_listener_t *listener)
{
    if (listener->fd >= 0) close(listener->fd);
    listener->fd = -1;
    struct stat file;
    if (listener->inode != 0 && lstat(listener->address.path, &file) == 0 && file.st_dev == listener->device &&
        file.st_ino == listener->inode)
        unlink(listener->address.path);
    listener->inode = 0;
}

/* ---- TLS ---- */

static cot_status_t fail_tls(const char *file, const char *what)
{
    char reason[256] = "no reason given";
    unsigned long code = ERR_get_error();
    if (code != 0) ERR_error_string_n(code, reason, sizeof(reason));
    ERR_clear_error();
    return cot_fail(access(file, R_OK) == 0 ? COT_ERR_FORMAT : COT_ERR_NOT_FOUND, "%s: %s: %s", file, what,
                    access(file, R_OK) == 0 ? reason : strerror(errno));
}

/* A key behind a passphrase is refused: nobody is there to type it. */
static int no_passphrase(char *out, int bytes, int writing, void *user)
{
    (void)out;
    (void)bytes;
    (void)writing;
    (void)user;
    return 0;
}

cot_status_t coord_tls_create(const char *cert, const char *key, SSL_CTX **tls_out)
{
    SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
    if (tls == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for TLS");
    SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
    SSL_CTX_set_options(tls, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_default_passwd_cb(tls, no_passphrase);
    cot_status_t status = COT_OK;
    if (SSL_CTX_use_certificate_chain_file(tls, cert) != 1)
        status = fail_tls(cert, "cannot use this certificate (--tls-cert, PEM)");
    else if (SSL_CTX_use_PrivateKey_file(tls, key, SSL_FILETYPE_PEM) != 1)
        status = fail_tls(key, "cannot use this private key (--tls-key, PEM)");
    else if (SSL_CTX_check_private_key(tls) != 1)
        status = fail_tls(key, "is not the key of the certificate");
    if (status != COT_OK) {
        SSL_CTX_free(tls);
        return status;
    }
    *tls_out = tls;
    return COT_OK;
}
