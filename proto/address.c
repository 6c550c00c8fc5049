#include "proto/address.h"

#include "base/file.h"
#include "base/memory.h"
#include "proto/limits.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static cot_status_t set_path(rpc_address_t *address, const char *path)
{
    address->local = true;
    if (path[0] == '\0') return cot_fail(COT_ERR_INVALID, "the address \"unix:\" lacks a path");
    if (strlen(path) >= sizeof(address->path))
        return cot_fail(COT_ERR_INVALID, "unix:%s: a socket's path holds at most %zu bytes, this has %zu", path,
                        sizeof(address->path) - 1, strlen(path));
    memcpy(address->path, path, strlen(path) + 1);
    return COT_OK;
}

static cot_status_t set_default(rpc_address_t *address)
{
    char path[512];
    const char *folder = getenv("XDG_RUNTIME_DIR");
    if (folder != NULL && folder[0] != '\0')
        snprintf(path, sizeof(path), "%s/coterie.sock", folder);
    else
        snprintf(path, sizeof(path), "/tmp/coterie-%u.sock", (unsigned)getuid());
    address->by_default = true;
    return set_path(address, path);
}

static bool is_port(const char *text)
{
    size_t digits = strspn(text, "0123456789");
    return digits > 0 && digits <= 5 && text[digits] == '\0' && strtol(text, NULL, 10) <= 65535;
}

static cot_status_t set_host_port(rpc_address_t *address, const char *text)
{
    const char *colon = strrchr(text, ':'), *host = text;
    size_t length = colon != NULL ? (size_t)(colon - text) : 0;
    bool brackets = length >= 2 && host[0] == '[' && host[length - 1] == ']';
    if (brackets) {
        host++;
        length -= 2;
    }
    bool several = length > 0 && memchr(host, ':', length) != NULL;
    if (colon == NULL || !is_port(colon + 1) || length == 0 || length >= sizeof(address->host) ||
        (several && !brackets))
        return cot_fail(COT_ERR_INVALID, "\"%.200s\" is no address: give unix:PATH, HOST:PORT or [IPV6]:PORT", text);
    memcpy(address->host, host, length);
    snprintf(address->port, sizeof(address->port), "%s", colon + 1);
    return COT_OK;
}

cot_status_t rpc_address_parse(const char *text, rpc_address_t *address_out)
{
    rpc_address_t address = {0};
    if (text == NULL || text[0] == '\0')
        COT_TRY(set_default(&address));
    else if (strncmp(text, "unix:", 5) == 0)
        COT_TRY(set_path(&address, text + 5));
    else
        COT_TRY(set_host_port(&address, text));
    *address_out = address;
    return COT_OK;
}

void rpc_address_print(const rpc_address_t *address, char text[RPC_ADDRESS_TEXT_BYTES])
{
    bool ipv6 = strchr(address->host, ':') != NULL;
    if (address->local)
        snprintf(text, RPC_ADDRESS_TEXT_BYTES, "unix:%s", address->path);
    else
        snprintf(text, RPC_ADDRESS_TEXT_BYTES, ipv6 ? "[%s]:%s" : "%s:%s", address->host, address->port);
}

bool rpc_is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
        return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    }
    if (address->sa_family != AF_INET6) return false;
    const struct in6_addr *v6 = &((const struct sockaddr_in6 *)address)->sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(v6) || (IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == 127);
}

/* ---- the access token ---- */

static cot_status_t check_token(const char *token, const char *where)
{
    if (token[0] == '\0') return cot_fail(COT_ERR_INVALID, "%s: the access token is empty", where);
    if (strlen(token) <= RPC_MAX_TOKEN_BYTES) return COT_OK;
    return cot_fail(COT_ERR_INVALID, "%s: the access token is longer than %u bytes", where, RPC_MAX_TOKEN_BYTES);
}

cot_status_t rpc_token_read(const char *file, const char *variable, char **token_out)
{
    char *token = NULL;
    const char *where = "COTERIE_TOKEN";
    if (file != NULL && file[0] != '\0') {
        size_t bytes;
        COT_TRY(cot_file_read(file, (size_t)64 << 10, &token, &bytes));
        token[strcspn(token, "\r\n")] = '\0';
        where = file;
    } else if (variable != NULL && variable[0] != '\0') {
        token = cot_strdup(variable);
        if (token == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the access token");
    }
    cot_status_t status = token != NULL ? check_token(token, where) : COT_OK;
    if (status != COT_OK) {
        cot_free(token);
        return status;
    }
    *token_out = token;
    return COT_OK;
}

bool rpc_token_equal(const char *token, const void *given, size_t given_bytes)
{
    const uint8_t *bytes = given;
    size_t length = strlen(token);
    volatile uint8_t difference = length != given_bytes;
    for (size_t i = 0; i < given_bytes; i++)
        difference = (uint8_t)(difference | (bytes[i] ^ (uint8_t)token[length > 0 ? i % length : 0]));
    return difference == 0;
}
