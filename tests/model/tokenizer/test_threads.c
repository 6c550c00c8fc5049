/* One tokenizer, several threads: it is immutable, so each gets what a lone thread gets. */
#include "tests/model/tokenizer/fixtures.h"

#include <pthread.h>

#define THREADS 4
#define STRINGS 300

typedef struct {
    const model_tokenizer_t *tokenizer;
    const json_t *strings;
    cot_buffer_t ids;
    cot_status_t status;
} job_t;

static void *encode_all(void *argument)
{
    job_t *job = argument;
    for (size_t i = 0; i < STRINGS && job->status == COT_OK; i++) {
        const json_t *string = json_array_get(job->strings, i);
        job->status = model_tokenizer_encode(job->tokenizer, json_string_value(string), json_string_length(string),
                                             true, &job->ids);
    }
    cot_buffer_t text = {0};
    if (job->status == COT_OK)
        job->status = model_tokenizer_decode(job->tokenizer, (const int32_t *)(const void *)job->ids.data,
                                             (uint32_t)(job->ids.size / sizeof(int32_t)), false, &text);
    cot_buffer_free(&text);
    return NULL;
}

static void test_threads_share_a_tokenizer(void **state)
{
    (void)state;
    json_t *strings = load_strings();
    model_tokenizer_t *tokenizer = load_family("qwen35");
    job_t jobs[THREADS];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        jobs[i] = (job_t){.tokenizer = tokenizer, .strings = strings};
        assert_int_equal(pthread_create(&threads[i], NULL, encode_all, &jobs[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(jobs[i].status, COT_OK);
        assert_int_equal(jobs[i].ids.size, jobs[0].ids.size);
        assert_memory_equal(jobs[i].ids.data, jobs[0].ids.data, jobs[0].ids.size);
    }
    for (int i = 0; i < THREADS; i++) cot_buffer_free(&jobs[i].ids);
    model_tokenizer_destroy(tokenizer);
    json_decref(strings);
}

int main(void)
{
    cot_json_setup();
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_threads_share_a_tokenizer)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
