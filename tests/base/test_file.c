/* Files: mapped, read, and written so that they appear whole or not at all. */
#include "base/file.h"
#include "tests/temporary.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <signal.h>

static char folder[256];

static const char *in_folder(const char *name)
{
    static char path[4][320];
    static int next;
    next = (next + 1) % 4;
    snprintf(path[next], sizeof(path[next]), "%s/%s", folder, name);
    return path[next];
}

static int make_folder(void **state)
{
    (void)state;
    temporary_make(folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    temporary_remove(folder);
    return 0;
}

static int files_in_folder(void)
{
    int files = 0;
    DIR *directory = opendir(folder);
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory))
        files += entry->d_name[0] != '.';
    closedir(directory);
    return files;
}

static void expect_content(const char *path, const char *wanted)
{
    char *text = NULL;
    size_t bytes = 0;
    assert_ok(cot_file_read(path, 1000, &text, &bytes));
    assert_string_equal(text, wanted);
    assert_int_equal(bytes, strlen(wanted));
    cot_free(text);
}

static cot_status_t write_file(const char *path, const char *text)
{
    return cot_file_write(path, text, strlen(text));
}

static void a_mapping_shows_the_bytes(void **state)
{
    (void)state;
    cot_map_t map = {0};
    temporary_write(in_folder("a"), "some bytes", 10);
    assert_ok(cot_map_open(in_folder("a"), &map));
    assert_int_equal(map.bytes, 10);
    assert_memory_equal(map.data, "some bytes", 10);
    cot_map_close(&map);
    assert_null(map.data);
    temporary_write(in_folder("empty"), "", 0);
    assert_ok(cot_map_open(in_folder("empty"), &map));
    assert_true(map.data == NULL && map.bytes == 0);
    cot_map_close(&map);
}

static void what_cannot_be_read_is_named(void **state)
{
    (void)state;
    cot_map_t map = {0};
    char *text = NULL;
    size_t bytes = 0;
    assert_fails(cot_map_open(in_folder("absent"), &map), COT_ERR_NOT_FOUND, "/absent: cannot open it: No such");
    assert_fails(cot_map_open(folder, &map), COT_ERR_FORMAT, "not a regular file");
    assert_fails(cot_file_read(in_folder("absent"), 10, &text, &bytes), COT_ERR_NOT_FOUND, "/absent");
    assert_fails(cot_file_read("/dev/zero", 10, &text, &bytes), COT_ERR_FORMAT, "/dev/zero: is not a regular file");
    assert_int_equal(mkfifo(in_folder("pipe"), 0600), 0);
    assert_fails(cot_map_open(in_folder("pipe"), &map), COT_ERR_FORMAT, "not a regular file"); /* and does not block */
    temporary_write(in_folder("long"), "0123456789", 10);
    assert_fails(cot_file_read(in_folder("long"), 9, &text, &bytes), COT_ERR_LIMIT, "is 10 bytes, at most 9");
    cot_memory_fail_after(0);
    assert_fails(cot_file_read(in_folder("long"), 10, &text, &bytes), COT_ERR_NO_MEMORY, "10 bytes");
    cot_memory_fail_after(-1);
    assert_null(text);
}

static void a_file_appears_when_it_is_whole(void **state)
{
    (void)state;
    const char *path = in_folder("out");
    assert_ok(write_file(path, "old"));
    cot_output_t output = {0};
    assert_ok(cot_output_open(path, &output));
    assert_ok(cot_output_write(&output, "new", 3));
    assert_ok(cot_output_write(&output, NULL, 0));
    expect_content(path, "old");
    assert_int_equal(files_in_folder(), 2);
    assert_ok(cot_output_commit(&output));
    cot_output_discard(&output); /* after a commit: nothing */
    expect_content(path, "new");
    assert_int_equal(files_in_folder(), 1);
}

static void a_discarded_file_leaves_nothing(void **state)
{
    (void)state;
    cot_output_t output = {0};
    assert_ok(cot_output_open(in_folder("out"), &output));
    assert_ok(cot_output_write(&output, "new", 3));
    cot_output_discard(&output);
    cot_output_discard(&output);
    assert_int_equal(files_in_folder(), 0);
}

static void a_place_that_cannot_be_written_is_named(void **state)
{
    (void)state;
    cot_output_t output = {0};
    assert_fails(cot_output_open(in_folder("no/such"), &output), COT_ERR_NOT_FOUND, "/no/such.tmp.");
    assert_fails(cot_output_open(folder, &output), COT_ERR_INVALID, "is a directory; name a file");
    assert_fails(cot_output_open("/proc/nothing", &output), COT_ERR_NOT_FOUND, "/proc/nothing");
    assert_null(output.stream);
    size_t live = cot_memory_live_blocks();
    for (int n = 0; n < 2; n++) {
        cot_memory_fail_after(n);
        assert_fails(cot_output_open(in_folder("out"), &output), COT_ERR_NO_MEMORY, "no memory");
        cot_memory_fail_after(-1);
        assert_int_equal(cot_memory_live_blocks(), live);
    }
}

/* The system refuses to let a file grow beyond 4 KiB, as a full disk would. */
static void a_full_disk_keeps_the_old_file(void **state)
{
    (void)state;
    const char *path = in_folder("out");
    assert_ok(write_file(path, "old"));
    pid_t child = fork();
    if (child == 0) {
        static char much[100000];
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){4096, 4096});
        signal(SIGXFSZ, SIG_IGN);
        memset(much, 'x', sizeof(much) - 1);
        _exit(write_file(path, much) == COT_ERR_IO && strstr(cot_error_text(), "File too large") != NULL ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    expect_content(path, "old");
    assert_int_equal(files_in_folder(), 1);
}

static void devices_and_pipes_stay_what_they_are(void **state)
{
    (void)state;
    struct stat info;
    assert_ok(write_file("/dev/null", "gone"));
    assert_int_equal(stat("/dev/null", &info), 0);
    assert_true(S_ISCHR(info.st_mode));

    assert_int_equal(mkfifo(in_folder("pipe"), 0600), 0);
    int reader = open(in_folder("pipe"), O_RDONLY | O_NONBLOCK);
    assert_ok(write_file(in_folder("pipe"), "through"));
    char text[16] = {0};
    assert_int_equal(read(reader, text, sizeof(text)), 7);
    close(reader);
    assert_string_equal(text, "through");
    assert_int_equal(files_in_folder(), 1);
}

static void a_link_stays_a_link(void **state)
{
    (void)state;
    temporary_write(in_folder("file"), "old", 3);
    assert_int_equal(symlink("file", in_folder("link")), 0);
    assert_ok(write_file(in_folder("link"), "new"));
    expect_content(in_folder("file"), "new");
    struct stat info;
    assert_int_equal(lstat(in_folder("link"), &info), 0);
    assert_true(S_ISLNK(info.st_mode));
}

static void paths_are_joined(void **state)
{
    (void)state;
    static const char *const cases[][3] = {{"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"/", "b", "/b"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char *path = cot_path_join(cases[i][0], cases[i][1]);
        assert_string_equal(path, cases[i][2]);
        cot_free(path);
    }
    cot_memory_fail_after(0);
    assert_null(cot_path_join("a", "b"));
    cot_memory_fail_after(-1);
}

/* The examples of FIPS 180-2. */
static void digests_are_those_of_the_standard(void **state)
{
    (void)state;
    char hex[65];
    cot_sha256_hex("abc", 3, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    cot_sha256_hex("", 0, hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(a_mapping_shows_the_bytes),
        IN_FOLDER(what_cannot_be_read_is_named),
        IN_FOLDER(a_file_appears_when_it_is_whole),
        IN_FOLDER(a_discarded_file_leaves_nothing),
        IN_FOLDER(a_place_that_cannot_be_written_is_named),
        IN_FOLDER(a_full_disk_keeps_the_old_file),
        IN_FOLDER(devices_and_pipes_stay_what_they_are),
        IN_FOLDER(a_link_stays_a_link),
        cmocka_unit_test(paths_are_joined),
        cmocka_unit_test(digests_are_those_of_the_standard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
