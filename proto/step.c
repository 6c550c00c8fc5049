#include "proto/step.h"

#include <stddef.h>
#include <string.h>

/* ---- cutting a message into parts, in order, without running past its end ---- */

typedef struct {
    const uint8_t *at;
    size_t left;
} cursor_t;

/* The next `count` records of `bytes` each. The parts of a message are ordered by falling alignment. */
static cot_status_t cut(cursor_t *cursor, uint64_t count, size_t bytes, const void **part_out)
{
    if (count > cursor->left / bytes)
        return cot_fail(COT_ERR_PROTOCOL, "a message is %llu records of %zu bytes too short",
                        (unsigned long long)(count - cursor->left / bytes), bytes);
    *part_out = cursor->at;
    cursor->at += count * bytes;
    cursor->left -= count * bytes;
    return COT_OK;
}

static cot_status_t cut_header(cursor_t *cursor, void *header, size_t bytes)
{
    const void *part = NULL;
    COT_TRY(cut(cursor, 1, bytes, &part));
    memcpy(header, part, bytes);
    return COT_OK;
}

static cot_status_t check_end(const cursor_t *cursor)
{
    if (cursor->left == 0) return COT_OK;
    return cot_fail(COT_ERR_PROTOCOL, "a message has %zu bytes too many", cursor->left);
}

static cot_status_t check_version(uint32_t magic, uint32_t version)
{
    if (magic != RPC_STEP_MAGIC)
        return cot_fail(COT_ERR_PROTOCOL, "a message begins with %08x: not one of ours", magic);
    if (version != RPC_STEP_VERSION)
        return cot_fail(COT_ERR_PROTOCOL, "a message of version %u came to version %u: all ranks must run one build",
                        version, RPC_STEP_VERSION);
    return COT_OK;
}

/* ---- steps ---- */

cot_status_t rpc_step_encode(const rpc_step_t *step, cot_buffer_t *out)
{
    const rpc_step_header_t *header = &step->header;
    COT_TRY(cot_buffer_append(out, header, sizeof(*header)));
    COT_TRY(cot_buffer_append(out, step->run, header->runs * sizeof(*step->run)));
    COT_TRY(cot_buffer_append(out, step->token, header->tokens * sizeof(*step->token)));
    return cot_buffer_append(out, step->block, header->blocks * sizeof(*step->block));
}

static cot_status_t check_run(const rpc_step_header_t *header, const rpc_run_t *run)
{
    uint64_t blocks = ((uint64_t)run->position + run->rows + 15) / 16;
    if (run->rows == 0 || run->token_begin > header->tokens || run->rows > header->tokens - run->token_begin ||
        run->block_begin > header->blocks || blocks > header->blocks - run->block_begin)
        return cot_fail(COT_ERR_PROTOCOL, "step %llu: the run of sequence %llu points outside the message",
                        (unsigned long long)header->step, (unsigned long long)run->sequence);
    return COT_OK;
}

cot_status_t rpc_step_decode(const void *bytes, size_t count, rpc_step_t *step_out)
{
    rpc_step_t step;
    cursor_t cursor = {bytes, count};
    COT_TRY(cut_header(&cursor, &step.header, sizeof(step.header)));
    COT_TRY(check_version(step.header.magic, step.header.version));
    if (step.header.kind != RPC_STEP_RUN && step.header.kind != RPC_STEP_STOP)
        return cot_fail(COT_ERR_PROTOCOL, "a step of the unknown kind %u", step.header.kind);
    COT_TRY(cut(&cursor, step.header.runs, sizeof(*step.run), (const void **)&step.run));
    COT_TRY(cut(&cursor, step.header.tokens, sizeof(*step.token), (const void **)&step.token));
    COT_TRY(cut(&cursor, step.header.blocks, sizeof(*step.block), (const void **)&step.block));
    COT_TRY(check_end(&cursor));
    for (uint32_t r = 0; r < step.header.runs; r++) COT_TRY(check_run(&step.header, &step.run[r]));
    *step_out = step;
    return COT_OK;
}

/* ---- results ---- */

cot_status_t rpc_result_encode(const rpc_result_t *result, cot_buffer_t *out)
{
    const rpc_result_header_t *header = &result->header;
    size_t routes = (size_t)header->routed * header->route_width;
    COT_TRY(cot_buffer_append(out, header, sizeof(*header)));
    COT_TRY(cot_buffer_append(out, result->drawn, header->drawn * sizeof(*result->drawn)));
    COT_TRY(cot_buffer_append(out, result->routed, header->routed * sizeof(*result->routed)));
    COT_TRY(
        cot_buffer_append(out, result->logits, (size_t)header->logits_rows * header->vocab * sizeof(*result->logits)));
    COT_TRY(cot_buffer_append(out, result->experts, routes * sizeof(*result->experts)));
    COT_TRY(cot_buffer_append(out, result->weights, routes * sizeof(*result->weights)));
    return cot_buffer_append(out, result->text, header->text_bytes);
}

cot_status_t rpc_result_decode(const void *bytes, size_t count, rpc_result_t *result_out)
{
    rpc_result_t result;
    cursor_t cursor = {bytes, count};
    COT_TRY(cut_header(&cursor, &result.header, sizeof(result.header)));
    const rpc_result_header_t *header = &result.header;
    COT_TRY(check_version(header->magic, header->version));
    uint64_t routes = (uint64_t)header->routed * header->route_width;
    uint64_t logits = (uint64_t)header->logits_rows * header->vocab;
    COT_TRY(cut(&cursor, header->drawn, sizeof(*result.drawn), (const void **)&result.drawn));
    COT_TRY(cut(&cursor, header->routed, sizeof(*result.routed), (const void **)&result.routed));
    COT_TRY(cut(&cursor, logits, sizeof(*result.logits), (const void **)&result.logits));
    COT_TRY(cut(&cursor, routes, sizeof(*result.experts), (const void **)&result.experts));
    COT_TRY(cut(&cursor, routes, sizeof(*result.weights), (const void **)&result.weights));
    COT_TRY(cut(&cursor, header->text_bytes, 1, (const void **)&result.text));
    COT_TRY(check_end(&cursor));
    for (uint32_t d = 0; d < header->drawn; d++)
        if (result.drawn[d].tops > RPC_TOP_LOGPROBS)
            return cot_fail(COT_ERR_PROTOCOL, "step %llu: rank %u sent %u likeliest tokens, at most %d fit",
                            (unsigned long long)header->step, header->rank, result.drawn[d].tops, RPC_TOP_LOGPROBS);
    *result_out = result;
    return COT_OK;
}

/* ---- start ---- */

cot_status_t rpc_start_decode(const void *bytes, size_t count, rpc_start_t *start_out)
{
    rpc_start_t start;
    cursor_t cursor = {bytes, count};
    COT_TRY(cut_header(&cursor, &start, sizeof(start)));
    COT_TRY(check_end(&cursor));
    COT_TRY(check_version(start.magic, start.version));
    if (start.kind < RPC_START_HELLO || start.kind > RPC_START_READY)
        return cot_fail(COT_ERR_PROTOCOL, "a start message of the unknown kind %u", start.kind);
    start.text[sizeof(start.text) - 1] = '\0';
    *start_out = start;
    return COT_OK;
}

typedef struct {
    uint32_t magic, version, isa, go;
    uint64_t settings_bytes, plan_bytes;
} setup_header_t;

cot_status_t rpc_setup_encode(const rpc_setup_t *setup, cot_buffer_t *out)
{
    const setup_header_t header = {RPC_STEP_MAGIC, RPC_STEP_VERSION,      setup->isa,
                                   setup->go,      setup->settings_bytes, setup->plan_bytes};
    COT_TRY(cot_buffer_append(out, &header, sizeof(header)));
    COT_TRY(cot_buffer_append(out, setup->settings, setup->settings_bytes));
    return cot_buffer_append(out, setup->plan, setup->plan_bytes);
}

cot_status_t rpc_setup_decode(const void *bytes, size_t count, rpc_setup_t *setup_out)
{
    setup_header_t header;
    cursor_t cursor = {bytes, count};
    COT_TRY(cut_header(&cursor, &header, sizeof(header)));
    COT_TRY(check_version(header.magic, header.version));
    rpc_setup_t setup = {
        .settings_bytes = header.settings_bytes, .plan_bytes = header.plan_bytes, .isa = header.isa, .go = header.go};
    COT_TRY(cut(&cursor, header.settings_bytes, 1, &setup.settings));
    COT_TRY(cut(&cursor, header.plan_bytes, 1, (const void **)&setup.plan));
    COT_TRY(check_end(&cursor));
    *setup_out = setup;
    return COT_OK;
}
