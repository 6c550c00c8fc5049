#include "client/client_int.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <unistd.h>

enum { RECORD_BYTES = 16 << 10 };

static cot_status_t fail_tls(const client_channel_t *channel, cot_status_t status, unsigned long code)
{
    char reason[256] = "no reason given";
    if (code != 0) ERR_error_string_n(code, reason, sizeof(reason));
    ERR_clear_error();
    long verified = channel->ssl != NULL ? SSL_get_verify_result(channel->ssl) : X509_V_OK;
    if (verified != X509_V_OK)
        return cot_fail(COT_ERR_AUTH, "the certificate of %s is not trusted: %s; --tls-ca must name its issuer's",
                        channel->address, X509_verify_cert_error_string(verified));
    return cot_fail(status, "TLS with %s failed: %s (does the server speak TLS?)", channel->address, reason);
}

/* Sends what TLS wants to say. */
static cot_status_t flush(client_channel_t *channel, cot_deadline_t deadline)
{
    char bytes[RECORD_BYTES];
    int count;
    while ((count = BIO_read(SSL_get_wbio(channel->ssl), bytes, sizeof(bytes))) > 0)
        COT_TRY(client_socket_send(channel, bytes, (size_t)count, deadline));
    return COT_OK;
}

/* Feeds TLS with what has come. */
static cot_status_t feed(client_channel_t *channel, cot_deadline_t deadline, bool may_cancel)
{
    char bytes[RECORD_BYTES];
    size_t count = sizeof(bytes);
    COT_TRY(flush(channel, deadline));
    COT_TRY(client_socket_receive(channel, bytes, &count, deadline, may_cancel));
    if (BIO_write(SSL_get_rbio(channel->ssl), bytes, (int)count) == (int)count) return COT_OK;
    return cot_fail(COT_ERR_NO_MEMORY, "no memory for TLS");
}

static cot_status_t shake_hands(client_channel_t *channel, cot_deadline_t deadline)
{
    for (;;) {
        ERR_clear_error(); /* what others left would be taken for ours */
        int done = SSL_do_handshake(channel->ssl);
        if (done == 1) return flush(channel, deadline);
        if (SSL_get_error(channel->ssl, done) != SSL_ERROR_WANT_READ) {
            unsigned long code = ERR_get_error();
            (void)flush(channel, deadline); /* the alert that tells the server why */
            return fail_tls(channel, COT_ERR_PROTOCOL, code);
        }
        COT_TRY(feed(channel, deadline, false));
    }
}

/* The certificate must be for the host that was named; behind a Unix socket there is no name. */
static bool expect_host(SSL *ssl, const rpc_address_t *address)
{
    unsigned char binary[sizeof(struct in6_addr)];
    if (address->local) return true;
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    if (inet_pton(AF_INET, address->host, binary) == 1 || inet_pton(AF_INET6, address->host, binary) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(param, address->host) == 1;
    return SSL_set_tlsext_host_name(ssl, address->host) == 1 && SSL_set1_host(ssl, address->host) == 1;
}

cot_status_t client_tls_open(client_channel_t *channel, const rpc_address_t *address, const char *tls_ca,
                             cot_deadline_t deadline)
{
    channel->tls = SSL_CTX_new(TLS_client_method());
    if (channel->tls == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for TLS");
    SSL_CTX_set_min_proto_version(channel->tls, TLS1_2_VERSION);
    SSL_CTX_set_verify(channel->tls, SSL_VERIFY_PEER, NULL);
    if (access(tls_ca, R_OK) != 0) return cot_fail(COT_ERR_NOT_FOUND, "--tls-ca %s: %s", tls_ca, strerror(errno));
    if (SSL_CTX_load_verify_locations(channel->tls, tls_ca, NULL) != 1) {
        ERR_clear_error();
        return cot_fail(COT_ERR_FORMAT, "--tls-ca %s: holds no certificate in PEM form", tls_ca);
    }
    channel->ssl = SSL_new(channel->tls);
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    if (channel->ssl == NULL || in == NULL || out == NULL) {
        BIO_free(in);
        BIO_free(out);
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for TLS");
    }
    BIO_set_mem_eof_return(in, -1); /* empty means wait, not the end */
    SSL_set_bio(channel->ssl, in, out);
    SSL_set_connect_state(channel->ssl);
    if (!expect_host(channel->ssl, address))
        return cot_fail(COT_ERR_INVALID, "no certificate can be for the host \"%s\"", address->host);
    return shake_hands(channel, deadline);
}

void client_tls_close(client_channel_t *channel)
{
    if (channel->ssl != NULL) SSL_free(channel->ssl);
    SSL_CTX_free(channel->tls);
    channel->ssl = NULL;
    channel->tls = NULL;
}

cot_status_t client_tls_send(client_channel_t *channel, const void *bytes, size_t count, cot_deadline_t deadline)
{
    size_t written = 0;
    for (size_t at = 0; at < count; at += written) {
        size_t part = count - at < RECORD_BYTES ? count - at : RECORD_BYTES;
        ERR_clear_error();
        if (SSL_write_ex(channel->ssl, (const uint8_t *)bytes + at, part, &written) != 1)
            return fail_tls(channel, COT_ERR_PEER_LOST, ERR_get_error());
        COT_TRY(flush(channel, deadline));
    }
    return COT_OK;
}

cot_status_t client_tls_receive(client_channel_t *channel, void *bytes, size_t *count, cot_deadline_t deadline,
                                bool may_cancel)
{
    for (;;) {
        size_t got = 0;
        ERR_clear_error();
        int done = SSL_read_ex(channel->ssl, bytes, *count, &got);
        if (done == 1) {
            *count = got;
            return COT_OK;
        }
        int error = SSL_get_error(channel->ssl, done);
        if (error == SSL_ERROR_ZERO_RETURN)
            return cot_fail(COT_ERR_PEER_LOST, "the connection to %s is lost: the server closed it", channel->address);
        if (error != SSL_ERROR_WANT_READ) return fail_tls(channel, COT_ERR_PEER_LOST, ERR_get_error());
        COT_TRY(feed(channel, deadline, may_cancel));
    }
}
