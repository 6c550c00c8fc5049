/* Dispatch and combine between threads as ranks. The world: a token's row holds its global number, an expert's output
 * is row x 100 + expert, so what must come home is known. */
#include "tests/temporary.h"

#include "comm/comm.h"

#include <pthread.h>

enum { MAX_RANKS = 5, TOKENS = 7, TOP_K = 3, EXPERTS = 10, WIDTH = 5, STEPS = 60 };

typedef enum { SPREAD, ALL_TO_ONE, NOTHING, FEW_EXPERTS, PATTERNS } pattern_t;

typedef struct {
    comm_link_t *link;
    pattern_t pattern;
    uint32_t wrong;
    cot_status_t status;
    char sentence[256];
} member_t;

static int32_t expert_of(pattern_t pattern, uint32_t step, uint32_t token, uint32_t k)
{
    if (pattern == NOTHING || (step % 5 == 0 && k == 1)) return -1;
    return (int32_t)((token * 3 + k + step) % (pattern == FEW_EXPERTS ? 2 : EXPERTS));
}

static int32_t row_of(uint32_t rank, uint32_t token)
{
    return (int32_t)(rank * 1000 + token);
}

/* Rows arrive by source rank, then token; assignments likewise, then k. */
static uint32_t count_disorder(const comm_received_t *received)
{
    const int32_t *rows = received->data;
    uint32_t wrong = 0;
    for (uint32_t r = 1; r < received->rows; r++) wrong += rows[(r - 1) * WIDTH] >= rows[r * WIDTH];
    for (uint32_t a = 1; a < received->assignments; a++) wrong += received->row[a - 1] > received->row[a];
    return wrong;
}

static cot_status_t exchange_once(member_t *member, comm_group_t *group, uint32_t step)
{
    uint32_t me = comm_rank(member->link), ranks = comm_ranks(member->link),
             tokens = (step * 7 + me * 3) % (TOKENS + 1);
    int32_t rows[TOKENS * WIDTH], expert[TOKENS * TOP_K], rank[TOKENS * TOP_K], home[TOKENS * TOP_K * WIDTH];
    static const int32_t unset = -1;
    for (uint32_t t = 0; t < tokens; t++) {
        for (uint32_t w = 0; w < WIDTH; w++) rows[t * WIDTH + w] = row_of(me, t);
        for (uint32_t k = 0; k < TOP_K; k++) {
            expert[t * TOP_K + k] = expert_of(member->pattern, step, t, k);
            rank[t * TOP_K + k] = member->pattern == ALL_TO_ONE ? 0 : abs(expert[t * TOP_K + k]) % (int32_t)ranks;
        }
    }
    for (size_t i = 0; i < sizeof(home) / sizeof(*home); i++) home[i] = unset;
    comm_group_locate(group, step, 3);
    comm_received_t received;
    COT_TRY(comm_dispatch(
        group, &(comm_dispatch_args_t){.tokens = tokens, .rows = rows, .expert = expert, .rank = rank}, &received));
    member->wrong += count_disorder(&received);
    int32_t outputs[MAX_RANKS * TOKENS * TOP_K * WIDTH];
    for (uint32_t a = 0; a < received.assignments; a++)
        for (uint32_t w = 0; w < WIDTH; w++)
            outputs[a * WIDTH + w] = ((const int32_t *)received.data)[received.row[a] * WIDTH + w] * 100 +
                                     received.expert[a];
    COT_TRY(comm_combine(group, outputs, home));
    for (uint32_t i = 0; i < tokens * TOP_K; i++)
        for (uint32_t w = 0; w < WIDTH; w++)
            member->wrong += home[i * WIDTH + w] != (expert[i] < 0 ? unset : row_of(me, i / TOP_K) * 100 + expert[i]);
    return COT_OK;
}

static void *run_member(void *argument)
{
    member_t *member = argument;
    comm_group_t *group = NULL;
    member->status = comm_group_create(&(comm_group_config_t){.link = member->link,
                                                              .ranks = comm_ranks(member->link),
                                                              .row_bytes = WIDTH * sizeof(int32_t),
                                                              .max_tokens = TOKENS,
                                                              .top_k = TOP_K,
                                                              .timeout_ms = 500},
                                       &group);
    for (uint32_t step = 0; step < STEPS && member->status == COT_OK; step++)
        member->status = exchange_once(member, group, step);
    snprintf(member->sentence, sizeof(member->sentence), "%s", cot_error_text());
    comm_group_destroy(group);
    return NULL;
}

static void run_world(uint32_t ranks, pattern_t pattern, member_t *member, comm_link_t **link)
{
    pthread_t thread[MAX_RANKS];
    for (uint32_t r = 0; r < ranks; r++) {
        member[r] = (member_t){.link = link[r], .pattern = pattern};
        assert_int_equal(pthread_create(&thread[r], NULL, run_member, &member[r]), 0);
    }
    for (uint32_t r = 0; r < ranks; r++) pthread_join(thread[r], NULL);
}

static void every_row_comes_home(void **state)
{
    (void)state;
    for (uint32_t ranks = 1; ranks <= MAX_RANKS; ranks++)
        for (pattern_t pattern = SPREAD; pattern < PATTERNS; pattern++) {
            comm_link_t *link[MAX_RANKS];
            member_t member[MAX_RANKS];
            print_message("%u ranks, pattern %d\n", ranks, (int)pattern);
            assert_ok(comm_local_start(ranks, link));
            run_world(ranks, pattern, member, link);
            for (uint32_t r = 0; r < ranks; r++) {
                if (member[r].status != COT_OK) fail_msg("rank %u: %s", r, member[r].sentence);
                assert_int_equal(member[r].wrong, 0);
            }
            comm_local_finish(ranks, link);
        }
    assert_int_equal(cot_memory_live_blocks(), 0);
}

/* Rank 1 dies after ten messages: the others end within their deadline and name it. */
static void a_dead_rank_is_named(void **state)
{
    (void)state;
    comm_link_t *link[3];
    member_t member[3];
    assert_ok(comm_local_start(3, link));
    comm_local_fault(link[1], COMM_FAULT_DIE, 10);
    int64_t began_ns = cot_now_ns();
    run_world(3, SPREAD, member, link);
    assert_true(cot_now_ns() - began_ns < 5 * INT64_C(1000000000));
    for (uint32_t r = 0; r < 3; r += 2) {
        assert_int_equal(member[r].status, COT_ERR_TIMEOUT);
        assert_non_null(strstr(member[r].sentence, "timed out after 500 ms"));
        assert_non_null(strstr(member[r].sentence, "rank 1"));
    }
    comm_local_finish(3, link);
}

static void control_messages_keep_their_order(void **state)
{
    (void)state;
    comm_link_t *link[3];
    comm_message_t message;
    bool found = true;
    assert_ok(comm_local_start(3, link));
    assert_ok(comm_poll(link[0], COMM_TAG_SETUP, &message, &found));
    assert_false(found);
    for (uint32_t i = 0; i < 5; i++) assert_ok(comm_send(link[1], 0, COMM_TAG_SETUP, &i, sizeof(i)));
    assert_ok(comm_send(link[2], 0, COMM_TAG_SETUP, "", 0));
    /* A wait for rank 2 leaves rank 1's messages alone. */
    assert_ok(comm_receive(link[0], 2, COMM_TAG_SETUP, cot_deadline_in_ms(1000), "a word", &message));
    assert_int_equal(message.count, 0);
    for (uint32_t i = 0; i < 5; i++) {
        assert_ok(comm_poll(link[0], COMM_TAG_SETUP, &message, &found));
        assert_true(found);
        assert_int_equal(message.peer, 1);
        assert_memory_equal(message.bytes, &i, sizeof(i));
    }
    assert_fails(comm_receive(link[0], 2, COMM_TAG_SETUP, cot_deadline_in_ms(20), "a word", &message), COT_ERR_TIMEOUT,
                 "a word from rank 2");
    comm_interrupt(link[0]);
    assert_fails(comm_receive(link[0], 2, COMM_TAG_SETUP, cot_deadline_in_ms(9000), "a word", &message),
                 COT_ERR_CANCELLED, "interrupted");
    comm_local_finish(3, link);
}

/* A rank alone sends nothing; two experts of a token share one copy of its row. */
static void a_rank_alone_sends_nothing(void **state)
{
    (void)state;
    comm_link_t *link[1];
    comm_group_t *group = NULL;
    comm_traffic_t traffic;
    assert_ok(comm_local_start(1, link));
    assert_ok(comm_group_create(
        &(comm_group_config_t){
            .link = link[0], .ranks = 1, .row_bytes = 8, .max_tokens = 4, .top_k = 2, .timeout_ms = 100},
        &group));
    const int64_t rows[2] = {5, 6};
    const int32_t expert[4] = {0, 1, 2, 3}, rank[4] = {0};
    comm_received_t received;
    assert_ok(comm_dispatch(group, &(comm_dispatch_args_t){.tokens = 2, .rows = rows, .expert = expert, .rank = rank},
                            &received));
    assert_int_equal(received.rows, 2);
    assert_int_equal(received.assignments, 4);
    comm_group_traffic(group, &traffic);
    assert_int_equal(traffic.dispatch_bytes, 0); /* our own rows do not leave */
    comm_group_destroy(group);
    comm_local_finish(1, link);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_comes_home),
        cmocka_unit_test(a_dead_rank_is_named),
        cmocka_unit_test(control_messages_keep_their_order),
        cmocka_unit_test(a_rank_alone_sends_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
