/* Dispatch and combine over a link. Both directions of one exchange:
 *
 *   COUNTS  to every other member: how many rows and assignments follow, which step and layer they are of, and for each
 * row its number of assignments, for each assignment its expert. Always sent, so that everybody knows everything. ROWS
 * the rows, one copy each, in the order of the source's tokens. Only if there are any. RETURN  the outputs of the
 * assignments, in the same order. Only if there are any.
 *
 * Messages of one (peer, tag) keep their order and every member makes the same calls, so a message of the next exchange
 * cannot be taken for one of this; the step and layer in COUNTS prove it. All buffers hold the worst case. */
#include "comm/link.h"

#include "base/memory.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    uint64_t step;
    uint32_t layer, sequence; /* `sequence` counts the group's exchanges */
    uint32_t rows, assignments;
} counts_t;

/* One other member, or ourselves. */
typedef struct {
    counts_t sent, got;
    uint8_t *counts_out,
        *counts_in;     /* counts_t, then u32 [rows] assignments of each row, then i32 [assignments] experts */
    uint8_t *rows_out;  /* packed rows; unused when all rows go */
    uint32_t *slot_out; /* [assignments] token * top_k + k of each assignment sent */
    uint8_t *back_in;   /* outputs that come home; into the group's shared space */
    uint32_t first_row, first_assignment; /* of what came from it, among all that arrived */
} member_t;

typedef enum { COUNTS_IN, COUNTS_OUT, ROWS_IN, ROWS_OUT, KINDS } kind_t;

struct comm_group {
    comm_group_config_t config;
    uint32_t me; /* our index in the group */
    uint64_t step;
    uint32_t layer, sequence;
    uint32_t tokens;  /* of the last dispatch */
    member_t *member; /* [ranks] */
    comm_op_t *op;    /* [KINDS, ranks] */
    uint8_t *rows_in; /* [ranks * max_tokens, row_bytes] */
    uint8_t *back_in; /* [max_tokens * top_k, row_bytes] */
    uint32_t *row;    /* [ranks * max_tokens * top_k] */
    int32_t *expert;
    uint32_t *stamp; /* [ranks] last token + 1 packed for the member */
    uint8_t *space;  /* the members' buffers */
    size_t buffer_bytes;
    comm_traffic_t traffic;
};

static size_t counts_max(const comm_group_config_t *config)
{
    return sizeof(counts_t) + (size_t)config->max_tokens * (1 + config->top_k) * sizeof(uint32_t);
}

/* ---- life ---- */

void comm_group_destroy(comm_group_t *group)
{
    if (group == NULL) return;
    for (uint32_t i = 0; group->op != NULL && i < KINDS * group->config.ranks; i++)
        if (group->op[i].active) group->config.link->ops->cancel(group->config.link, &group->op[i]);
    void *buffers[] = {group->member, group->op,     group->rows_in, group->back_in,
                       group->row,    group->expert, group->stamp,   group->space};
    for (size_t i = 0; i < sizeof(buffers) / sizeof(*buffers); i++) cot_free(buffers[i]);
    cot_free(group);
}

/* Takes zeroed memory and adds it to the figure. */
static void *take(comm_group_t *group, size_t count, size_t bytes)
{
    group->buffer_bytes += count * bytes;
    return cot_calloc(count, bytes);
}

static bool take_buffers(comm_group_t *group)
{
    const comm_group_config_t *config = &group->config;
    size_t pairs = (size_t)config->max_tokens * config->top_k, ranks = config->ranks;
    size_t row_space = (config->max_tokens * config->row_bytes + 63) / 64 * 64;
    size_t counts_space = (counts_max(config) + 63) / 64 * 64, slot_space = (pairs * sizeof(uint32_t) + 63) / 64 * 64;
    size_t member_space = 2 * counts_space + row_space + slot_space;
    group->member = take(group, ranks, sizeof(*group->member));
    group->op = take(group, KINDS * ranks, sizeof(*group->op));
    group->rows_in = take(group, ranks * config->max_tokens, config->row_bytes);
    group->back_in = take(group, pairs, config->row_bytes);
    group->row = take(group, ranks * pairs, sizeof(*group->row));
    group->expert = take(group, ranks * pairs, sizeof(*group->expert));
    group->stamp = take(group, ranks, sizeof(*group->stamp));
    group->space = take(group, ranks, member_space);
    if (group->member == NULL || group->op == NULL || group->rows_in == NULL || group->back_in == NULL ||
        group->row == NULL || group->expert == NULL || group->stamp == NULL || group->space == NULL)
        return false;
    for (uint32_t m = 0; m < ranks; m++) {
        uint8_t *space = group->space + m * member_space;
        group->member[m] = (member_t){.counts_out = space,
                                      .counts_in = space + counts_space,
                                      .rows_out = space + 2 * counts_space,
                                      .slot_out = (uint32_t *)(void *)(space + 2 * counts_space + row_space)};
    }
    return true;
}

cot_status_t comm_group_create(const comm_group_config_t *config, comm_group_t **group_out)
{
    uint32_t rank = comm_rank(config->link);
    if (rank < config->first || rank - config->first >= config->ranks || config->max_tokens == 0 || config->top_k == 0)
        return cot_fail(COT_ERR_INTERNAL, "rank %u cannot make a group of %u ranks from %u on", rank, config->ranks,
                        config->first);
    if ((double)config->max_tokens * config->top_k * (double)config->row_bytes > (double)COMM_MESSAGE_BYTES_MAX)
        return cot_fail(COT_ERR_LIMIT,
                        "%u rows of %zu bytes to %u experts are over one message; lower --max-step-tokens",
                        config->max_tokens, config->row_bytes, config->top_k);
    comm_group_t *group = cot_calloc(1, sizeof(*group));
    if (group == NULL) return cot_fail(COT_ERR_NO_MEMORY, "no memory for the exchange");
    group->config = *config;
    group->me = rank - config->first;
    if (!take_buffers(group)) {
        size_t bytes = group->buffer_bytes;
        comm_group_destroy(group);
        return cot_fail(COT_ERR_NO_MEMORY, "no memory for the exchange's buffers (%zu bytes): lower --max-step-tokens",
                        bytes);
    }
    *group_out = group;
    return COT_OK;
}

size_t comm_group_buffer_bytes(const comm_group_t *group)
{
    return group->buffer_bytes;
}

void comm_group_locate(comm_group_t *group, uint64_t step, uint32_t layer)
{
    group->step = step;
    group->layer = layer;
}

void comm_group_traffic(const comm_group_t *group, comm_traffic_t *traffic_out)
{
    *traffic_out = group->traffic;
}

/* ---- waiting ---- */

static comm_op_t *op_of(comm_group_t *group, kind_t kind, uint32_t member)
{
    return &group->op[(size_t)kind * group->config.ranks + member];
}

/* The last word: who has answered, who has not. */
static cot_status_t fail_late(comm_group_t *group, const char *what)
{
    char silent[160] = "";
    size_t used = 0;
    uint32_t answered = 0;
    for (uint32_t m = 0; m < group->config.ranks; m++) {
        bool waits = false;
        for (int kind = 0; kind < KINDS; kind++) waits |= op_of(group, (kind_t)kind, m)->active;
        if (!waits)
            answered += m != group->me;
        else if (used + 16 < sizeof(silent))
            used += (size_t)snprintf(silent + used, sizeof(silent) - used, used > 0 ? ", %u" : "rank %u",
                                     group->config.first + m);
    }
    return cot_fail(COT_ERR_TIMEOUT,
                    "rank %u layer %u step %llu: %s timed out after %lld ms, %u of %u peers answered "
                    "(silent: %s)",
                    group->config.first + group->me, group->layer, (unsigned long long)group->step, what,
                    (long long)group->config.timeout_ms, answered, group->config.ranks - 1, silent);
}

/* Until every transfer of the kinds from..to is done. */
static cot_status_t await(comm_group_t *group, kind_t from, kind_t to, cot_deadline_t deadline, const char *what)
{
    comm_link_t *link = group->config.link;
    cot_backoff_t backoff = {0};
    int64_t began_ns = cot_now_ns();
    for (;;) {
        bool waits = false;
        for (uint32_t i = (uint32_t)from * group->config.ranks; i < ((uint32_t)to + 1) * group->config.ranks; i++) {
            COT_TRY(link->ops->test(link, &group->op[i]));
            waits |= group->op[i].active;
        }
        if (!waits) break;
        COT_TRY(comm_link_progress(link));
        if (cot_deadline_passed(deadline)) return fail_late(group, what);
        COT_TRY(comm_link_pause(link, &backoff));
    }
    group->traffic.wait_ns += cot_now_ns() - began_ns;
    return COT_OK;
}

static cot_status_t post_send(comm_group_t *group, uint32_t member, comm_tag_t tag, const void *bytes, size_t count,
                              kind_t kind)
{
    comm_link_t *link = group->config.link;
    uint32_t peer = group->config.first + member;
    if (comm_node(link, peer) != comm_node(link, comm_rank(link))) group->traffic.off_node_bytes += count;
    return link->ops->send(link, peer, tag, bytes, count, op_of(group, kind, member));
}

static cot_status_t post_receive(comm_group_t *group, uint32_t member, comm_tag_t tag, void *bytes, size_t count,
                                 kind_t kind)
{
    comm_link_t *link = group->config.link;
    return link->ops->receive(link, group->config.first + member, tag, bytes, count, op_of(group, kind, member));
}

/* ---- dispatch: what leaves ---- */

static uint32_t *row_counts(uint8_t *counts)
{
    return (uint32_t *)(void *)(counts + sizeof(counts_t));
}

static void pack_assignment(comm_group_t *group, uint32_t m, uint32_t token, uint32_t k,
                            const comm_dispatch_args_t *args)
{
    member_t *member = &group->member[m];
    if (group->stamp[m] != token + 1) { /* the token's first expert there: one copy of the row */
        group->stamp[m] = token + 1;
        row_counts(member->counts_out)[member->sent.rows] = 0;
        if (m != group->me)
            memcpy(member->rows_out + member->sent.rows * group->config.row_bytes,
                   (const uint8_t *)args->rows + token * group->config.row_bytes, group->config.row_bytes);
        member->sent.rows++;
    }
    row_counts(member->counts_out)[member->sent.rows - 1]++;
    member->slot_out[member->sent.assignments++] = token * group->config.top_k + k;
}

/* Experts follow the row counts, whose number is known only when all tokens have been seen. */
static void finish_counts(member_t *member, const comm_dispatch_args_t *args)
{
    int32_t *experts = (int32_t *)(void *)(row_counts(member->counts_out) + member->sent.rows);
    for (uint32_t a = 0; a < member->sent.assignments; a++) experts[a] = args->expert[member->slot_out[a]];
    memcpy(member->counts_out, &member->sent, sizeof(member->sent));
}

static cot_status_t pack(comm_group_t *group, const comm_dispatch_args_t *args)
{
    uint32_t top_k = group->config.top_k;
    memset(group->stamp, 0, group->config.ranks * sizeof(*group->stamp));
    for (uint32_t m = 0; m < group->config.ranks; m++)
        group->member[m].sent = (counts_t){.step = group->step, .layer = group->layer, .sequence = group->sequence};
    for (uint32_t token = 0; token < args->tokens; token++)
        for (uint32_t k = 0; k < top_k; k++) {
            size_t at = (size_t)token * top_k + k;
            if (args->expert[at] < 0) continue;
            if (args->rank[at] < 0 || (uint32_t)args->rank[at] >= group->config.ranks)
                return cot_fail(COT_ERR_INTERNAL, "token %u is sent to member %d of %u", token, args->rank[at],
                                group->config.ranks);
            pack_assignment(group, (uint32_t)args->rank[at], token, k, args);
        }
    for (uint32_t m = 0; m < group->config.ranks; m++) finish_counts(&group->member[m], args);
    return COT_OK;
}

static size_t counts_bytes(const counts_t *counts)
{
    return sizeof(*counts) + ((size_t)counts->rows + counts->assignments) * sizeof(uint32_t);
}

static cot_status_t post_all(comm_group_t *group)
{
    for (uint32_t m = 0; m < group->config.ranks; m++)
        if (m != group->me)
            COT_TRY(post_receive(group, m, COMM_TAG_COUNTS, group->member[m].counts_in, counts_max(&group->config),
                                 COUNTS_IN));
    for (uint32_t m = 0; m < group->config.ranks; m++) {
        member_t *member = &group->member[m];
        if (m == group->me) continue;
        size_t rows_bytes = member->sent.rows * group->config.row_bytes;
        COT_TRY(post_send(group, m, COMM_TAG_COUNTS, member->counts_out, counts_bytes(&member->sent), COUNTS_OUT));
        if (rows_bytes > 0) COT_TRY(post_send(group, m, COMM_TAG_ROWS, member->rows_out, rows_bytes, ROWS_OUT));
        group->traffic.dispatch_bytes += counts_bytes(&member->sent) + rows_bytes;
        group->traffic.dispatch_rows += member->sent.rows;
        group->traffic.assignments += member->sent.assignments;
    }
    return COT_OK;
}

/* ---- dispatch: what arrives ---- */

/* Reads and checks one member's COUNTS message. */
static cot_status_t read_counts(comm_group_t *group, uint32_t m)
{
    member_t *member = &group->member[m];
    size_t bytes = op_of(group, COUNTS_IN, m)->count;
    uint32_t rank = group->config.first + m, us = group->config.first + group->me;
    if (bytes < sizeof(counts_t))
        return cot_fail(COT_ERR_PROTOCOL, "rank %u: rank %u sent %zu bytes of counts", us, rank, bytes);
    memcpy(&member->got, member->counts_in, sizeof(member->got));
    const counts_t *got = &member->got;
    if (got->step != group->step || got->layer != group->layer || got->sequence != group->sequence)
        return cot_fail(COT_ERR_PROTOCOL,
                        "rank %u layer %u step %llu exchange %u: rank %u is at layer %u step %llu exchange %u", us,
                        group->layer, (unsigned long long)group->step, group->sequence, rank, got->layer,
                        (unsigned long long)got->step, got->sequence);
    uint64_t sum = 0;
    if (got->rows <= group->config.max_tokens && got->assignments <= group->config.max_tokens * group->config.top_k &&
        bytes == counts_bytes(got))
        for (uint32_t row = 0; row < got->rows; row++) sum += row_counts(member->counts_in)[row];
    if (sum != got->assignments || bytes != counts_bytes(got))
        return cot_fail(COT_ERR_PROTOCOL, "rank %u layer %u step %llu: the counts of rank %u do not add up", us,
                        group->layer, (unsigned long long)group->step, rank);
    return COT_OK;
}

/* Where each member's rows lie among all that arrive, and which row and expert each assignment has. */
static void lay_out(comm_group_t *group, comm_received_t *received)
{
    *received = (comm_received_t){.data = group->rows_in, .row = group->row, .expert = group->expert};
    for (uint32_t m = 0; m < group->config.ranks; m++) {
        member_t *member = &group->member[m];
        const uint8_t *counts = m == group->me ? member->counts_out : member->counts_in;
        const uint32_t *per_row = (const uint32_t *)(const void *)(counts + sizeof(counts_t));
        if (m == group->me) member->got = member->sent;
        member->first_row = received->rows;
        member->first_assignment = received->assignments;
        memcpy(group->expert + received->assignments, per_row + member->got.rows,
               member->got.assignments * sizeof(*group->expert));
        for (uint32_t row = 0; row < member->got.rows; row++)
            for (uint32_t i = 0; i < per_row[row]; i++) group->row[received->assignments++] = received->rows + row;
        received->rows += member->got.rows;
    }
}

/* Our own rows do not cross the fabric. */
static void copy_own_rows(comm_group_t *group, const comm_dispatch_args_t *args)
{
    const member_t *own = &group->member[group->me];
    size_t row_bytes = group->config.row_bytes;
    uint8_t *out = group->rows_in + own->first_row * row_bytes;
    uint32_t last = UINT32_MAX;
    for (uint32_t a = 0; a < own->sent.assignments; a++) {
        uint32_t token = own->slot_out[a] / group->config.top_k;
        if (token == last) continue;
        memcpy(out, (const uint8_t *)args->rows + token * row_bytes, row_bytes);
        out += row_bytes;
        last = token;
    }
}

cot_status_t comm_dispatch(comm_group_t *group, const comm_dispatch_args_t *args, comm_received_t *received_out)
{
    const comm_group_config_t *config = &group->config;
    cot_deadline_t deadline = cot_deadline_in_ms(config->timeout_ms);
    if (args->tokens > config->max_tokens)
        return cot_fail(COT_ERR_INTERNAL, "%u tokens to dispatch, at most %u fit", args->tokens, config->max_tokens);
    group->sequence++;
    group->tokens = args->tokens;
    COT_TRY(pack(group, args));
    COT_TRY(post_all(group));
    COT_TRY(await(group, COUNTS_IN, COUNTS_IN, deadline, "dispatch"));
    for (uint32_t m = 0; m < config->ranks; m++)
        if (m != group->me) COT_TRY(read_counts(group, m));

    comm_received_t received;
    lay_out(group, &received);
    for (uint32_t m = 0; m < config->ranks; m++) {
        const member_t *member = &group->member[m];
        if (m != group->me && member->got.rows > 0)
            COT_TRY(post_receive(group, m, COMM_TAG_ROWS, group->rows_in + member->first_row * config->row_bytes,
                                 member->got.rows * config->row_bytes, ROWS_IN));
    }
    copy_own_rows(group, args);
    COT_TRY(await(group, COUNTS_IN, ROWS_OUT, deadline, "dispatch"));
    *received_out = received;
    return COT_OK;
}

/* ---- combine ---- */

/* Outputs of the assignments that member m computed for us, into their (token, k) slots. */
static void scatter_home(const comm_group_t *group, const member_t *member, const uint8_t *outputs, uint8_t *home)
{
    size_t row_bytes = group->config.row_bytes;
    for (uint32_t a = 0; a < member->sent.assignments; a++)
        memcpy(home + member->slot_out[a] * row_bytes, outputs + a * row_bytes, row_bytes);
}

cot_status_t comm_combine(comm_group_t *group, const void *outputs, void *home)
{
    const comm_group_config_t *config = &group->config;
    cot_deadline_t deadline = cot_deadline_in_ms(config->timeout_ms);
    uint8_t *space = group->back_in;
    for (uint32_t m = 0; m < config->ranks; m++) {
        member_t *member = &group->member[m];
        size_t bytes = member->sent.assignments * config->row_bytes;
        if (m == group->me || bytes == 0) continue;
        member->back_in = space;
        space += bytes;
        COT_TRY(post_receive(group, m, COMM_TAG_RETURN, member->back_in, bytes, ROWS_IN));
    }
    for (uint32_t m = 0; m < config->ranks; m++) {
        const member_t *member = &group->member[m];
        size_t bytes = member->got.assignments * config->row_bytes;
        if (m == group->me || bytes == 0) continue;
        const uint8_t *from = (const uint8_t *)outputs + member->first_assignment * config->row_bytes;
        COT_TRY(post_send(group, m, COMM_TAG_RETURN, from, bytes, ROWS_OUT));
        group->traffic.combine_bytes += bytes;
    }
    const member_t *own = &group->member[group->me];
    scatter_home(group, own, (const uint8_t *)outputs + own->first_assignment * config->row_bytes, home);
    COT_TRY(await(group, ROWS_IN, ROWS_OUT, deadline, "combine"));
    for (uint32_t m = 0; m < config->ranks; m++)
        if (m != group->me) scatter_home(group, &group->member[m], group->member[m].back_in, home);
    return COT_OK;
}
