/* What the commands share: connecting as the settings say, Ctrl-C, the loading bar. */
#ifndef CLIENT_COMMAND_INT_H
#define CLIENT_COMMAND_INT_H

#include "base/settings.h"
#include "base/status.h"
#include "client/coterie_client.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

/* Prints this thread's error sentence unless `status` is OK; returns the exit code. */
int client_exit(cot_status_t status);
/* COT_ERR_INVALID if there are other than `wanted` arguments; `what` names them. */
cot_status_t client_check_arguments(const cot_settings_t *settings, uint32_t wanted, const char *what);
cot_status_t client_connect(const cot_settings_t *settings, coterie_client_t **client_out);
/* Waits while the server loads its model. */
cot_status_t client_await_ready(coterie_client_t *client, const cot_settings_t *settings);

/* A bar on standard error while the server loads, on a terminal only. */
typedef struct {
    bool shown;
} client_bar_t;
void client_bar_show(client_bar_t *bar, double progress);
void client_bar_clear(client_bar_t *bar);

/* SIGINT and SIGTERM cancel what runs on the attached clients; with none attached, or the second time, they end the
 * process with 130. A thread waits for the signals, so that no handler and no global is needed. */
typedef struct {
    pthread_t thread;
    int signals, stop;
    sigset_t mask_before;
    pthread_mutex_t lock;
    coterie_client_t **client; /* [capacity], those attached first */
    uint32_t count, capacity;
    bool interrupted;
} client_interrupt_t;

cot_status_t client_interrupt_start(client_interrupt_t *interrupt, uint32_t capacity);
void client_interrupt_end(client_interrupt_t *interrupt);
void client_interrupt_attach(client_interrupt_t *interrupt, coterie_client_t *client);
void client_interrupt_detach(client_interrupt_t *interrupt, coterie_client_t *client); /* before it is closed */
bool client_interrupted(client_interrupt_t *interrupt);

#endif
