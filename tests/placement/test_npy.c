/* Against files that NumPy wrote (tools/fixtures/make_imports.py): element [l][e] of load-*.npy is (4l + e + 100l) %
 * 120, of the others 4l + e + 100l. */
#include "tests/temporary.h"

#include "placement/npy.h"

#define FIXTURES COTERIE_SOURCE_DIR "/tests/fixtures/imports/"

static const int64_t LOAD[] = {1, 2, 3, 94, 40, 30, 20, 10, 97, 0, 1, 2};

static char folder[256], path[300];

static int make_folder(void **state)
{
    (void)state;
    temporary_make(folder);
    snprintf(path, sizeof(path), "%s/a.npy", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    temporary_remove(folder);
    return 0;
}

static place_npy_t open_fixture(const char *name)
{
    char file[300];
    place_npy_t npy;
    snprintf(file, sizeof(file), FIXTURES "%s", name);
    assert_ok(place_npy_open(file, &npy));
    return npy;
}

static void assert_load(const char *name)
{
    place_npy_t npy = open_fixture(name);
    assert_int_equal(npy.dims, 2);
    assert_int_equal(npy.shape[0], 3);
    assert_int_equal(npy.shape[1], 4);
    for (uint64_t i = 0; i < 12; i++) {
        int64_t value = -1;
        assert_ok(place_npy_integer(&npy, i, &value));
        assert_int_equal(value, LOAD[i]);
    }
    place_npy_close(&npy);
}

static void every_type_reads_as_numpy_does(void **state)
{
    (void)state;
    static const char *const TYPES[] = {"i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"};
    for (size_t t = 0; t < sizeof(TYPES) / sizeof(*TYPES); t++) {
        char name[32];
        snprintf(name, sizeof(name), "load-%s.npy", TYPES[t]);
        assert_load(name);
    }
}

static void every_version_and_order_reads_the_same(void **state)
{
    (void)state;
    assert_load("load-v2.npy");
    assert_load("load-v3.npy");
    assert_load("load-fortran.npy");
    place_npy_t rows = open_fixture("steps.npy"), columns = open_fixture("steps-fortran.npy");
    assert_true(columns.fortran_order);
    for (uint64_t i = 0; i < 24; i++) {
        int64_t left = 0, right = -1;
        assert_ok(place_npy_integer(&rows, i, &left));
        assert_ok(place_npy_integer(&columns, i, &right));
        assert_int_equal(left, right);
    }
    place_npy_close(&rows);
    place_npy_close(&columns);
}

static void refuses_fixture(const char *name, cot_status_t status, const char *words)
{
    char file[300];
    place_npy_t npy;
    snprintf(file, sizeof(file), FIXTURES "%s", name);
    assert_fails(place_npy_open(file, &npy), status, words);
}

static void other_types_are_refused_by_name(void **state)
{
    (void)state;
    refuses_fixture("big-endian.npy", COT_ERR_UNSUPPORTED, "'>i4'");
    refuses_fixture("complex.npy", COT_ERR_UNSUPPORTED, "'<c16'");
    refuses_fixture("records.npy", COT_ERR_UNSUPPORTED, "records");
    place_npy_t npy;
    assert_fails(place_npy_open("/nonexistent", &npy), COT_ERR_NOT_FOUND, "/nonexistent");
}

static void numbers_that_are_not_whole_are_refused_with_their_offset(void **state)
{
    (void)state;
    int64_t value = 0;
    place_npy_t npy = open_fixture("half.npy");
    assert_fails(place_npy_integer(&npy, 2, &value), COT_ERR_FORMAT, "byte 144"); /* 128 + 2 x 8 */
    place_npy_close(&npy);
    npy = open_fixture("huge.npy");
    assert_fails(place_npy_integer(&npy, 1, &value), COT_ERR_FORMAT, "byte 136");
    place_npy_close(&npy);
}

/* A version 1 file of this header and so many bytes of numbers. */
static void refuses(const char *header, size_t data, const char *words)
{
    char bytes[600] = "\x93NUMPY\x01";
    size_t length = strlen(header);
    place_npy_t npy;
    bytes[8] = (char)length;
    memcpy(bytes + 10, header, length);
    temporary_write(path, bytes, 10 + length + data);
    cot_status_t status = place_npy_open(path, &npy);
    if (status == COT_OK || strstr(cot_error_text(), words) == NULL)
        fail_msg("%s: wanted \"%s\", got %s", header, words, status == COT_OK ? "OK" : cot_error_text());
}

static void bad_headers_are_refused(void **state)
{
    (void)state;
#define HEAD(shape) "{'descr': '<i4', 'fortran_order': False, 'shape': " shape "}"
    refuses(HEAD("(3,)"), 11, "11 bytes follow");
    refuses(HEAD("(3,)"), 13, "13 bytes follow");
    refuses(HEAD("(3 4)"), 12, "a comma");
    refuses(HEAD("(-3,)"), 12, "a size");
    refuses(HEAD("3"), 12, "a shape in parentheses");
    refuses(HEAD("(1, 1, 1, 1, 1)"), 4, "more than 4 dimensions");
    refuses(HEAD("(99999999999999999999,)"), 4, "that a file can have");
    refuses(HEAD("(4294967296, 4294967296)"), 4, "that a file can have");
    refuses(HEAD("(4611686018427387904,)"), 4, "its shape takes");
    refuses(HEAD("(1,)") "x", 3, "its shape takes 1 numbers"); /* what follows the dictionary is skipped */
    refuses("{'descr': '<i4', 'shape': (1,)}", 4, "lacks");
    refuses("{'descr': '<i4', 'fortran_order': 0, 'shape': (1,)}", 4, "True or False");
    refuses("{'colour': 3}", 4, "descr, fortran_order or shape");
    refuses("{'descr': '<i3', 'fortran_order': False, 'shape': (1,)}", 4, "'<i3'");
    refuses("{'descr': '<f2', 'fortran_order': False, 'shape': (1,)}", 2, "'<f2'");
    refuses("{'descr", 4, "a key in quotes");
    refuses("", 0, "{");
#undef HEAD
    place_npy_t npy;
    temporary_write(path, "\x93NUMPY\x09\x00\x01\x00{", 11);
    assert_fails(place_npy_open(path, &npy), COT_ERR_UNSUPPORTED, "version 9");
    temporary_write(path, "\x93NUMPY\x01\x00\xff\xff{", 11);
    assert_fails(place_npy_open(path, &npy), COT_ERR_FORMAT, "cut short");
    temporary_write(path, "\x93NUMPY\x02\x00\x01\x00", 10);
    assert_fails(place_npy_open(path, &npy), COT_ERR_FORMAT, "cut short");
    temporary_write(path, "hello, world", 12);
    assert_fails(place_npy_open(path, &npy), COT_ERR_FORMAT, "does not begin");
}

/* Byte for byte what NumPy wrote. */
static void writes_what_numpy_writes(void **state)
{
    (void)state;
    place_npy_t npy = open_fixture("phy2log.npy");
    int64_t values[32];
    for (uint64_t i = 0; i < 32; i++) assert_ok(place_npy_integer(&npy, i, &values[i]));
    assert_ok(place_npy_save(path, values, npy.dims, npy.shape));
    cot_map_t written;
    assert_ok(cot_map_open(path, &written));
    assert_int_equal(written.bytes, npy.map.bytes);
    assert_memory_equal(written.data, npy.map.data, npy.map.bytes);
    cot_map_close(&written);
    place_npy_close(&npy);

    assert_ok(place_npy_save(path, values, 1, (uint64_t[]){5}));
    assert_ok(place_npy_open(path, &npy));
    assert_int_equal(npy.dims, 1);
    assert_int_equal(npy.shape[0], 5);
    place_npy_close(&npy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_reads_as_numpy_does),
        cmocka_unit_test(every_version_and_order_reads_the_same),
        cmocka_unit_test(other_types_are_refused_by_name),
        cmocka_unit_test(numbers_that_are_not_whole_are_refused_with_their_offset),
        cmocka_unit_test(bad_headers_are_refused),
        cmocka_unit_test(writes_what_numpy_writes),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
