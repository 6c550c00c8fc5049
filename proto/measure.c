#include "proto/measure.h"

#include "proto/step.h"

#include <string.h>

static cot_status_t take(const void *bytes, size_t count, void *record, size_t record_bytes)
{
    uint32_t header[2];
    if (count != record_bytes)
        return cot_fail(COT_ERR_PROTOCOL, "a message of %zu bytes where a measurement has %zu", count, record_bytes);
    memcpy(record, bytes, count);
    memcpy(header, bytes, sizeof(header));
    if (header[0] == RPC_STEP_MAGIC && header[1] == RPC_STEP_VERSION) return COT_OK;
    return cot_fail(COT_ERR_PROTOCOL, "a measurement begins with %08x, version %u: all ranks must run one build",
                    header[0], header[1]);
}

cot_status_t rpc_measure_decode(const void *bytes, size_t count, rpc_measure_t *measure_out)
{
    rpc_measure_t measure;
    COT_TRY(take(bytes, count, &measure, sizeof(measure)));
    if (measure.kind < RPC_MEASURE_EXPERTS || measure.kind > RPC_MEASURE_RATE)
        return cot_fail(COT_ERR_PROTOCOL, "a measurement of the unknown kind %u", measure.kind);
    *measure_out = measure;
    return COT_OK;
}

cot_status_t rpc_measured_decode(const void *bytes, size_t count, rpc_measured_t *measured_out)
{
    rpc_measured_t measured;
    COT_TRY(take(bytes, count, &measured, sizeof(measured)));
    if (measured.ns < 0 || (measured.units == 0) != (measured.ns == 0))
        return cot_fail(COT_ERR_PROTOCOL, "rank %u measured %lld ns for %llu units", measured.rank,
                        (long long)measured.ns, (unsigned long long)measured.units);
    measured.text[sizeof(measured.text) - 1] = '\0';
    *measured_out = measured;
    return COT_OK;
}
