#include "coordinator/fleet.h"

#include "base/memory.h"
#include "kernels/kern.h"

#include <stdio.h>
#include <string.h>

cot_status_t coord_fleet_create(comm_link_t *link, coord_fleet_t *fleet_out)
{
    uint32_t workers = comm_ranks(link) - 1;
    if (workers > COORD_MAX_WORKERS)
        return cot_fail(COT_ERR_LIMIT, "%u workers: at most %u are supported", workers, COORD_MAX_WORKERS);
    rpc_start_t *table = cot_calloc(workers, sizeof(*table));
    if (table == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for %u workers", workers);
    *fleet_out = (coord_fleet_t){.link = link, .workers = workers, .worker = table};
    return COT_OK;
}

void coord_fleet_destroy(coord_fleet_t *fleet)
{
    cot_free(fleet->worker);
    fleet->worker = NULL;
}

cot_status_t coord_fleet_poll(coord_fleet_t *fleet)
{
    for (;;) {
        comm_message_t message;
        bool found = false;
        COT_TRY(comm_poll(fleet->link, COMM_TAG_SETUP, &message, &found));
        if (!found) return COT_OK;
        rpc_start_t start;
        COT_TRY(rpc_start_decode(message.bytes, message.count, &start));
        if (message.peer == 0 || message.peer > fleet->workers || start.rank != message.peer)
            return cot_fail(COT_ERR_PROTOCOL, "rank %u sent a start message as rank %u", message.peer, start.rank);
        rpc_start_t *worker = &fleet->worker[message.peer - 1];
        uint32_t isa = worker->kind != 0 ? worker->isa : start.isa; /* what HELLO said stays */
        *worker = start;
        worker->isa = isa;
    }
}

/* Kinds are ordered: a worker that is READY has said HELLO. */
bool coord_fleet_all(const coord_fleet_t *fleet, rpc_start_kind_t kind)
{
    for (uint32_t w = 0; w < fleet->workers; w++)
        if (fleet->worker[w].kind < (uint32_t)kind) return false;
    return true;
}

void coord_fleet_missing(const coord_fleet_t *fleet, rpc_start_kind_t kind, char *text, size_t bytes)
{
    size_t used = 0;
    text[0] = '\0';
    for (uint32_t w = 0; w < fleet->workers && used + 16 < bytes; w++)
        if (fleet->worker[w].kind < (uint32_t)kind)
            used += (size_t)snprintf(text + used, bytes - used, used > 0 ? ", %u" : "rank %u", w + 1);
}

float coord_fleet_progress(const coord_fleet_t *fleet)
{
    float slowest = 1;
    for (uint32_t w = 0; w < fleet->workers; w++)
        if (fleet->worker[w].progress < slowest) slowest = fleet->worker[w].progress;
    return slowest;
}

cot_status_t coord_fleet_fault(const coord_fleet_t *fleet)
{
    const rpc_start_t *fault = NULL;
    for (uint32_t w = 0; w < fleet->workers; w++) {
        const rpc_start_t *worker = &fleet->worker[w];
        if (worker->status == 0) continue;
        if (fault == NULL || (fault->status == (uint32_t)-COT_ERR_CANCELLED && worker->status != fault->status))
            fault = worker;
    }
    if (fault == NULL) return COT_OK;
    return cot_fail((cot_status_t) - (int)fault->status, "rank %u: %.*s", (uint32_t)(fault - fleet->worker) + 1,
                    (int)sizeof(fault->text), fault->text);
}

cot_status_t coord_fleet_agree(coord_fleet_t *fleet, const cot_settings_t *settings)
{
    kern_isa_t common = KERN_ISA_COUNT - 1;
    uint32_t least = 1;
    for (uint32_t w = 0; w < fleet->workers; w++)
        if (fleet->worker[w].isa <= (uint32_t)common) {
            common = (kern_isa_t)fleet->worker[w].isa;
            least = w + 1;
        }
    const char *wanted = cot_settings_string(settings, COT_SET_ISA);
    kern_isa_t isa = common;
    if (strcmp(wanted, "auto") != 0 && !kern_isa_parse(wanted, &isa))
        return cot_fail(COT_ERR_INVALID, "--isa %s: use auto, scalar, avx2, avx512 or avx512_bf16", wanted);
    if (isa > common)
        return cot_fail(COT_ERR_UNSUPPORTED, "--isa %s: rank %u has %s at best", wanted, least, kern_isa_name(common));
    fleet->isa = isa;
    return COT_OK;
}

cot_status_t coord_fleet_send_setup(coord_fleet_t *fleet, const cot_settings_t *settings, const cot_buffer_t *plan,
                                    rpc_go_t go)
{
    cot_buffer_t packed = {0}, message = {0};
    cot_status_t status = cot_settings_pack(settings, &packed);
    if (status == COT_OK)
        status = rpc_setup_encode(&(rpc_setup_t){.settings = packed.data,
                                                 .settings_bytes = packed.size,
                                                 .plan = (const char *)plan->data,
                                                 .plan_bytes = plan->size,
                                                 .isa = fleet->isa,
                                                 .go = go},
                                  &message);
    for (uint32_t w = 0; w < fleet->workers && status == COT_OK; w++)
        status = comm_send(fleet->link, w + 1, COMM_TAG_SETUP, message.data, message.size);
    cot_buffer_free(&packed);
    cot_buffer_free(&message);
    return status;
}
