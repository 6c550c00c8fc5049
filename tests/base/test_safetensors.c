/* The safetensors container: what is written reads back, and files that lie are refused by name. */
#include "base/json.h"
#include "base/safetensors.h"
#include "tests/temporary.h"

static char folder[256], path[320];

static int make_folder(void **state)
{
    (void)state;
    temporary_make(folder);
    snprintf(path, sizeof(path), "%s/t.safetensors", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    temporary_remove(folder);
    return 0;
}

/* A file of this header and `data_bytes` bytes 0, 1, 2, …. */
static void write_raw(const char *header, size_t data_bytes)
{
    char bytes[4096];
    uint64_t length = strlen(header);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, header, length);
    for (size_t i = 0; i < data_bytes; i++) bytes[8 + length + i] = (char)i;
    temporary_write(path, bytes, 8 + length + data_bytes);
}

static cot_status_t write_example(const char *to)
{
    static const float f[6] = {1, 2, 3, 4, 5, 6};
    static const uint8_t u[3] = {7, 8, 9};
    cot_safetensors_writer_t *writer = NULL;
    COT_TRY(cot_safetensors_writer_create(to, &writer));
    cot_status_t status = cot_safetensors_writer_metadata(writer, "format", "test \"1\"");
    if (status == COT_OK) status = cot_safetensors_writer_metadata(writer, "kind", "é");
    if (status == COT_OK) status = cot_safetensors_writer_declare(writer, "z", COT_DTYPE_U8, 1, (uint64_t[]){3});
    if (status == COT_OK) status = cot_safetensors_writer_declare(writer, "a", COT_DTYPE_F32, 2, (uint64_t[]){2, 3});
    if (status == COT_OK) status = cot_safetensors_writer_declare(writer, "none", COT_DTYPE_I64, 1, (uint64_t[]){0});
    if (status == COT_OK) status = cot_safetensors_writer_declare(writer, "one", COT_DTYPE_U8, 0, NULL);
    if (status == COT_OK) status = cot_safetensors_writer_write(writer, u, sizeof(u));
    if (status == COT_OK) status = cot_safetensors_writer_write(writer, f, 10); /* in any pieces */
    if (status == COT_OK) status = cot_safetensors_writer_write(writer, (const char *)f + 10, sizeof(f) - 10);
    if (status == COT_OK) status = cot_safetensors_writer_write(writer, u, 1);
    if (status == COT_OK) status = cot_safetensors_writer_commit(writer);
    cot_safetensors_writer_destroy(writer);
    return status;
}

static void what_is_written_reads_back(void **state)
{
    (void)state;
    assert_ok(write_example(path));
    cot_safetensors_t *file = NULL;
    assert_ok(cot_safetensors_open(path, &file));
    assert_int_equal(cot_safetensors_count(file), 4);
    static const char *const names[] = {"a", "none", "one", "z"}; /* in order of their names */
    for (uint32_t i = 0; i < 4; i++) {
        assert_string_equal(cot_safetensors_at(file, i)->name, names[i]);
        assert_ptr_equal(cot_safetensors_find(file, names[i]), cot_safetensors_at(file, i));
    }
    const cot_tensor_t *a = cot_safetensors_find(file, "a");
    assert_true(a->dtype == COT_DTYPE_F32 && a->dims == 2 && a->shape[0] == 2 && a->shape[1] == 3 && a->bytes == 24);
    float values[6];
    memcpy(values, a->data, sizeof(values)); /* behind three bytes of "z": not aligned */
    for (int i = 0; i < 6; i++) assert_float_equal(values[i], (float)(i + 1), 0);
    assert_memory_equal(cot_safetensors_find(file, "z")->data, "\x07\x08\x09", 3);
    assert_int_equal(cot_safetensors_find(file, "none")->bytes, 0);
    assert_true(cot_safetensors_find(file, "one")->dims == 0 && cot_safetensors_find(file, "one")->bytes == 1);
    assert_null(cot_safetensors_find(file, "b"));
    assert_null(cot_safetensors_find(file, "__metadata__"));
    assert_string_equal(cot_safetensors_metadata(file, "format"), "test \"1\"");
    assert_string_equal(cot_safetensors_metadata(file, "kind"), "é");
    assert_null(cot_safetensors_metadata(file, "absent"));
    cot_safetensors_close(file);
}

static void equal_inputs_give_equal_bytes(void **state)
{
    (void)state;
    char again[320];
    snprintf(again, sizeof(again), "%s/again", folder);
    assert_ok(write_example(path));
    assert_ok(write_example(again));
    cot_map_t a = {0}, b = {0};
    assert_ok(cot_map_open(path, &a));
    assert_ok(cot_map_open(again, &b));
    assert_int_equal(a.bytes, b.bytes);
    assert_memory_equal(a.data, b.data, a.bytes);
    uint64_t length;
    memcpy(&length, a.data, 8);
    assert_int_equal(length % 8, 0);
    cot_map_close(&a);
    cot_map_close(&b);
}

static void empty_files_are_whole(void **state)
{
    (void)state;
    cot_safetensors_writer_t *writer = NULL;
    assert_ok(cot_safetensors_writer_create(path, &writer));
    assert_ok(cot_safetensors_writer_commit(writer));
    cot_safetensors_writer_destroy(writer);
    cot_safetensors_t *file = NULL;
    assert_ok(cot_safetensors_open(path, &file));
    assert_int_equal(cot_safetensors_count(file), 0);
    assert_null(cot_safetensors_find(file, "a"));
    assert_null(cot_safetensors_metadata(file, "a"));
    cot_safetensors_close(file);
    cot_safetensors_close(NULL);
}

static void the_writer_counts_its_bytes(void **state)
{
    (void)state;
    cot_safetensors_writer_t *writer = NULL;
    assert_ok(cot_safetensors_writer_create(path, &writer));
    assert_ok(cot_safetensors_writer_declare(writer, "a", COT_DTYPE_F32, 1, (uint64_t[]){2}));
    const uint64_t huge[] = {UINT64_MAX / 2, 3};
    assert_fails(cot_safetensors_writer_declare(writer, "h", COT_DTYPE_U8, 2, huge), COT_ERR_LIMIT, "larger than any");
    cot_safetensors_writer_destroy(writer);

    assert_ok(cot_safetensors_writer_create(path, &writer));
    assert_ok(cot_safetensors_writer_declare(writer, "a", COT_DTYPE_F32, 1, (uint64_t[]){2}));
    assert_ok(cot_safetensors_writer_write(writer, "1234", 4));
    assert_fails(cot_safetensors_writer_metadata(writer, "k", "v"), COT_ERR_INTERNAL, "after the first byte");
    assert_fails(cot_safetensors_writer_declare(writer, "b", COT_DTYPE_U8, 0, NULL), COT_ERR_INTERNAL, "\"b\"");
    assert_fails(cot_safetensors_writer_commit(writer), COT_ERR_INTERNAL, "4 of 8 declared");
    assert_fails(cot_safetensors_writer_write(writer, "12345", 5), COT_ERR_INTERNAL, "more tensor bytes");
    cot_safetensors_writer_destroy(writer);
    cot_safetensors_writer_destroy(NULL);
    assert_int_equal(access(path, F_OK), -1);
}

typedef struct {
    const char *header;
    size_t data_bytes;
    cot_status_t status;
    const char *words;
} bad_t;

static void files_that_lie_are_refused(void **state)
{
    (void)state;
    static const bad_t cases[] = {
        {"[]", 0, COT_ERR_FORMAT, "no JSON object"},
        {"{\"a\":", 0, COT_ERR_FORMAT, "header: line 1"},
        {"{\"a\":1}", 0, COT_ERR_UNSUPPORTED, "\"a\" has the dtype \"?\""},
        {"{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, COT_ERR_UNSUPPORTED,
         "tensor \"a\" has the dtype \"F8_E4M3\""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 4, COT_ERR_FORMAT, "\"shape\" must be"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, COT_ERR_FORMAT, "\"shape\" must be"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,1]}}", 1, COT_ERR_FORMAT, "at most 4"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, COT_ERR_FORMAT, "no whole number"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, COT_ERR_FORMAT, "no whole number"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}", 4, COT_ERR_FORMAT,
         "larger than any file"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, COT_ERR_FORMAT, "\"data_offsets\""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, COT_ERR_FORMAT, "\"data_offsets\""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 8, COT_ERR_FORMAT, "\"data_offsets\""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, COT_ERR_FORMAT, "\"data_offsets\""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, COT_ERR_FORMAT, "\"data_offsets\""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8, COT_ERR_FORMAT,
         "its shape takes 4 bytes, its offsets hold 8"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 5, COT_ERR_FORMAT,
         "tensor \"a\" ends 3 bytes past the end of the file: it is cut short"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[3,7]}}",
         8, COT_ERR_FORMAT, "tensors \"a\" and \"b\" overlap"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
         "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
         2, COT_ERR_FORMAT, "duplicate"},
        {"{\"__metadata__\":[]}", 0, COT_ERR_FORMAT, "\"__metadata__\" must be an object"},
        {"{\"__metadata__\":{\"n\":1}}", 0, COT_ERR_FORMAT, "\"n\" must be a string"},
    };
    size_t live = cot_memory_live_blocks();
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        cot_safetensors_t *file = NULL;
        write_raw(cases[i].header, cases[i].data_bytes);
        assert_fails(cot_safetensors_open(path, &file), cases[i].status, cases[i].words);
        assert_non_null(strstr(cot_error_text(), "t.safetensors: "));
        assert_null(file);
        assert_int_equal(cot_memory_live_blocks(), live);
    }
}

static void a_header_longer_than_its_file_is_refused(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {3, 1000, (uint64_t)1 << 40, UINT64_MAX - 7, UINT64_MAX};
    cot_safetensors_t *file = NULL;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        char bytes[10] = {0};
        memcpy(bytes, &lengths[i], 8);
        memcpy(bytes + 8, "{}", 2);
        temporary_write(path, bytes, sizeof(bytes));
        assert_fails(cot_safetensors_open(path, &file), COT_ERR_FORMAT, "states a header of");
    }
    const uint64_t too_long = ((uint64_t)100 << 20) + 1; /* in a file that is long enough, though it takes no space */
    temporary_write(path, &too_long, 8);
    assert_int_equal(truncate(path, (off_t)200 << 20), 0);
    assert_fails(cot_safetensors_open(path, &file), COT_ERR_FORMAT, "states a header of 104857601 bytes");
    temporary_write(path, "1234567", 7);
    assert_fails(cot_safetensors_open(path, &file), COT_ERR_FORMAT, "is 7 bytes long");
    temporary_write(path, "", 0);
    assert_fails(cot_safetensors_open(path, &file), COT_ERR_FORMAT, "is 0 bytes long");
    assert_fails(cot_safetensors_open("/no/such", &file), COT_ERR_NOT_FOUND, "/no/such");
    assert_null(file);
}

/* Every file that is cut short, and every file with one bit turned, opens to views inside it or is refused. */
static void damaged_files_never_lead_outside(void **state)
{
    (void)state;
    assert_ok(write_example(path));
    char *bytes = NULL;
    size_t count = 0;
    assert_ok(cot_file_read(path, 4096, &bytes, &count));
    unsigned refused = 0;
    for (size_t damage = 0; damage < count * 9; damage++) {
        size_t kept = damage < count ? damage : count;
        size_t bit = damage - count;
        if (damage >= count) bytes[bit / 8] ^= (char)(1 << bit % 8);
        temporary_write(path, bytes, kept);
        if (damage >= count) bytes[bit / 8] ^= (char)(1 << bit % 8);
        cot_safetensors_t *file = NULL;
        if (cot_safetensors_open(path, &file) != COT_OK) {
            refused++;
            continue;
        }
        unsigned sum = 0;
        for (uint32_t i = 0; i < cot_safetensors_count(file); i++) {
            const cot_tensor_t *tensor = cot_safetensors_at(file, i);
            for (size_t b = 0; b < tensor->bytes; b++) sum += ((const uint8_t *)tensor->data)[b];
        }
        assert_true(sum < 1000000);
        cot_safetensors_close(file);
    }
    assert_true(refused >= count);
    cot_free(bytes);
}

static void no_memory_is_said_and_nothing_stays(void **state)
{
    (void)state;
    assert_ok(write_example(path));
    size_t live = cot_memory_live_blocks();
    cot_safetensors_t *file = NULL;
    cot_status_t status = COT_ERR_NO_MEMORY;
    for (int n = 0; status != COT_OK && n < 1000; n++) {
        cot_memory_fail_after(n);
        status = cot_safetensors_open(path, &file);
        cot_memory_fail_after(-1);
        if (status == COT_OK) break;
        assert_int_equal(status, COT_ERR_NO_MEMORY);
        assert_null(file);
        assert_int_equal(cot_memory_live_blocks(), live);
    }
    cot_safetensors_close(file);
    int n = 0;
    do {
        cot_memory_fail_after(n++);
        status = write_example(path);
        cot_memory_fail_after(-1);
        assert_true(status == COT_OK || status == COT_ERR_NO_MEMORY);
        assert_int_equal(cot_memory_live_blocks(), live);
    } while (status != COT_OK && n < 1000);
    assert_in_range(n, 5, 999);
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(what_is_written_reads_back),
        IN_FOLDER(equal_inputs_give_equal_bytes),
        IN_FOLDER(empty_files_are_whole),
        IN_FOLDER(the_writer_counts_its_bytes),
        IN_FOLDER(files_that_lie_are_refused),
        IN_FOLDER(a_header_longer_than_its_file_is_refused),
        IN_FOLDER(damaged_files_never_lead_outside),
        IN_FOLDER(no_memory_is_said_and_nothing_stays),
    };
    cot_json_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
