#include "client/command_int.h"
#include "client/commands.h"

#include "base/log.h"

#include <stdio.h>

static cot_status_t drain(const cot_settings_t *settings, coterie_client_t *client)
{
    int64_t timeout_ms = cot_settings_int(settings, COT_SET_TIMEOUT);
    uint32_t unfinished = 0;
    COT_TRY((cot_status_t)coterie_client_drain(client, timeout_ms, &unfinished));
    bool json = cot_settings_switch(settings, COT_SET_JSON);
    if (!json) cot_log_info("the server drains: %u requests are unfinished", unfinished);
    COT_TRY((cot_status_t)coterie_client_wait_end(client, timeout_ms));
    if (json)
        printf("{\"unfinished_at_drain\": %u, \"ended\": true}\n", unfinished);
    else
        cot_log_info("the server has ended");
    return COT_OK;
}

int client_drain_command(const cot_settings_t *settings)
{
    coterie_client_t *client = NULL;
    cot_status_t status = client_check_arguments(settings, 0, "no argument");
    if (status == COT_OK) status = client_connect(settings, &client);
    if (status == COT_OK) status = drain(settings, client);
    coterie_client_close(client);
    return client_exit(status);
}
