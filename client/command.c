#include "client/command_int.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "proto/address.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { BAR_CELLS = 30, LOADING_POLL_MS = 200 };

int client_exit(cot_status_t status)
{
    if (status != COT_OK) cot_log_error("%s", cot_error_text());
    return cot_exit_code(status);
}

cot_status_t client_check_arguments(const cot_settings_t *settings, uint32_t wanted, const char *what)
{
    uint32_t count = cot_settings_arguments(settings);
    if (count == wanted) return COT_OK;
    return cot_fail(COT_ERR_INVALID, "give %s; %u arguments were given", what, count);
}

cot_status_t client_connect(const cot_settings_t *settings, coterie_client_t **client_out)
{
    char *token = NULL;
    COT_TRY(rpc_token_read(cot_settings_string(settings, COT_SET_TOKEN_FILE),
                           cot_settings_string(settings, COT_SET_TOKEN), &token));
    coterie_client_options_t options = COTERIE_CLIENT_OPTIONS_INIT;
    options.address = cot_settings_string(settings, COT_SET_CONNECT);
    options.token = token;
    options.tls_ca = cot_settings_string(settings, COT_SET_TLS_CA);
    cot_status_t status = (cot_status_t)coterie_client_connect(&options, client_out);
    cot_free(token);
    return status;
}

cot_status_t client_await_ready(coterie_client_t *client, const cot_settings_t *settings)
{
    int64_t timeout_ms = cot_settings_int(settings, COT_SET_TIMEOUT);
    cot_deadline_t deadline = cot_deadline_in_ms(timeout_ms);
    client_bar_t bar = {0};
    coterie_client_state_t state = COTERIE_CLIENT_LOADING;
    double progress = 0;
    cot_status_t status;
    for (;;) {
        status = (cot_status_t)coterie_client_health(client, timeout_ms, &state, &progress);
        if (status != COT_OK || state != COTERIE_CLIENT_LOADING) break;
        client_bar_show(&bar, progress);
        if (cot_deadline_passed(deadline))
            status = cot_fail(COT_ERR_TIMEOUT, "the model was still loading at the deadline; --timeout sets it");
        if (status != COT_OK) break;
        poll(NULL, 0, LOADING_POLL_MS);
    }
    client_bar_clear(&bar);
    return status;
}

/* ---- the loading bar ---- */

void client_bar_show(client_bar_t *bar, double progress)
{
    if (!isatty(STDERR_FILENO)) return;
    int done = progress > 0 ? (int)(progress * BAR_CELLS) : 0;
    if (done > BAR_CELLS) done = BAR_CELLS;
    char cells[BAR_CELLS + 1];
    memset(cells, ' ', BAR_CELLS);
    memset(cells, '#', (size_t)done);
    cells[BAR_CELLS] = '\0';
    fprintf(stderr, "\rloading weights [%s] %3.0f %%", cells, progress * 100);
    bar->shown = true;
}

void client_bar_clear(client_bar_t *bar)
{
    if (bar->shown) fprintf(stderr, "\r\033[K");
    bar->shown = false;
}

/* ---- Ctrl-C ---- */

static void interrupted(client_interrupt_t *interrupt)
{
    pthread_mutex_lock(&interrupt->lock);
    if (interrupt->interrupted || interrupt->count == 0) _exit(cot_exit_code(COT_ERR_CANCELLED));
    interrupt->interrupted = true;
    for (uint32_t i = 0; i < interrupt->count; i++) coterie_client_cancel(interrupt->client[i]);
    pthread_mutex_unlock(&interrupt->lock);
}

static void *watch(void *user)
{
    client_interrupt_t *interrupt = user;
    struct pollfd fds[2] = {{.fd = interrupt->signals, .events = POLLIN}, {.fd = interrupt->stop, .events = POLLIN}};
    for (;;) {
        struct signalfd_siginfo info;
        if (poll(fds, 2, -1) < 0) continue;
        if (fds[1].revents != 0) return NULL;
        if (read(interrupt->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) interrupted(interrupt);
    }
}

cot_status_t client_interrupt_start(client_interrupt_t *interrupt, uint32_t capacity)
{
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGTERM);
    *interrupt = (client_interrupt_t){.signals = -1, .stop = -1, .capacity = capacity};
    interrupt->client = cot_calloc(capacity, sizeof(coterie_client_t *));
    if (interrupt->client == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for %u clients", capacity);
    pthread_mutex_init(&interrupt->lock, NULL);
    interrupt->signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    interrupt->stop = eventfd(0, EFD_CLOEXEC);
    pthread_sigmask(SIG_BLOCK, &mask, &interrupt->mask_before);
    int error = interrupt->signals < 0 || interrupt->stop < 0 ? errno : 0;
    if (error == 0) error = pthread_create(&interrupt->thread, NULL, watch, interrupt);
    if (error == 0) return COT_OK;
    pthread_sigmask(SIG_SETMASK, &interrupt->mask_before, NULL);
    if (interrupt->signals >= 0) close(interrupt->signals);
    if (interrupt->stop >= 0) close(interrupt->stop);
    pthread_mutex_destroy(&interrupt->lock);
    cot_free(interrupt->client);
    return cot_fail(COT_ERR_IO, "cannot watch for signals: %s", strerror(error));
}

void client_interrupt_end(client_interrupt_t *interrupt)
{
    uint64_t one = 1;
    if (write(interrupt->stop, &one, sizeof(one)) < 0) cot_log_warn("cannot end the thread that waits for signals");
    pthread_join(interrupt->thread, NULL);
    pthread_sigmask(SIG_SETMASK, &interrupt->mask_before, NULL);
    close(interrupt->signals);
    close(interrupt->stop);
    pthread_mutex_destroy(&interrupt->lock);
    cot_free(interrupt->client);
}

void client_interrupt_attach(client_interrupt_t *interrupt, coterie_client_t *client)
{
    pthread_mutex_lock(&interrupt->lock);
    if (interrupt->count < interrupt->capacity) interrupt->client[interrupt->count++] = client;
    if (interrupt->interrupted) coterie_client_cancel(client);
    pthread_mutex_unlock(&interrupt->lock);
}

void client_interrupt_detach(client_interrupt_t *interrupt, coterie_client_t *client)
{
    pthread_mutex_lock(&interrupt->lock);
    for (uint32_t i = 0; i < interrupt->count; i++)
        if (interrupt->client[i] == client) interrupt->client[i] = interrupt->client[--interrupt->count];
    pthread_mutex_unlock(&interrupt->lock);
}

bool client_interrupted(client_interrupt_t *interrupt)
{
    pthread_mutex_lock(&interrupt->lock);
    bool yes = interrupt->interrupted;
    pthread_mutex_unlock(&interrupt->lock);
    return yes;
}
