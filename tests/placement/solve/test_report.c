/* The report's text. What a browser makes of it is tests/placement/solve/page.sh's. */
#include "tests/placement/solve/report_sample.h"

static char *print(const solve_report_t *report, cot_buffer_t *out)
{
    assert_ok(solve_report_print(report, out));
    assert_ok(cot_buffer_append(out, "", 1));
    return (char *)out->data;
}

static uint32_t count(const char *text, const char *words)
{
    uint32_t found = 0;
    for (const char *at = strstr(text, words); at != NULL; at = strstr(at + 1, words)) found++;
    return found;
}

static void text_from_files_is_escaped(void **state)
{
    (void)state;
    sample_t sample;
    sample_make(&sample, 4, 8, 2);
    cot_buffer_t out = {0};
    const char *page = print(&sample.report, &out);
    assert_int_equal(count(page, "<script"), 0);
    assert_null(strstr(page, "alert('x')"));
    assert_non_null(strstr(page, "m&lt;/title&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;"
                                 "\xef\xbf\xbd\xef\xbf\xbd"));
    assert_int_equal(count(page, "<title>"), 1);
    assert_non_null(strstr(page, "&amp;amp;"));
    for (const unsigned char *at = (const unsigned char *)page; *at != '\0'; at++)
        assert_true((*at >= 0x20 && *at != 0x7f && *at != 0xff) || *at == '\n');
    cot_buffer_free(&out);
    sample_free(&sample);
}

static void nothing_comes_from_elsewhere(void **state)
{
    (void)state;
    sample_t sample;
    sample_make(&sample, 4, 8, 2);
    sample.report.title = "t";
    cot_buffer_t out = {0};
    const char *page = print(&sample.report, &out);
    assert_int_equal(count(page, "://"), 0);
    assert_int_equal(count(page, "@import") + count(page, "url(") + count(page, "src="), 0);
    assert_int_equal(count(page, "href="), 1); /* an empty icon, so that no browser asks for one */
    cot_buffer_free(&out);
    sample_free(&sample);
}

/* Two maps of each kind; each has a text alternative and its numbers. */
static void pictures_have_words_and_numbers(void **state)
{
    (void)state;
    sample_t sample;
    sample_make(&sample, 3, 4, 2);
    cot_buffer_t out = {0};
    const char *page = print(&sample.report, &out);
    assert_int_equal(count(page, "<svg "), 5);
    assert_int_equal(count(page, "role=img aria-label=\""), 5);
    assert_int_equal(count(page, "<details>"), 5);
    assert_int_equal(count(page, "<caption>"), 7);
    assert_non_null(strstr(page, "layer 3</span><span>5</span>"));
    assert_non_null(strstr(page, "MB from rank to rank"));
    assert_non_null(strstr(page, "Before: contiguous: load over the fair share, largest "));
    assert_non_null(strstr(page, "The best plan went from 9.8e+06 to "));
    assert_int_equal(count(page, "<tr class=chosen>"), 2);
    cot_buffer_free(&out);
    sample_free(&sample);
}

/* Colours and numbers by hand: ranks alike, loads 1, 1, 4 of 6: shares 0.5, 0.5, 2; the last bucket begins at 2. */
static void cells_have_their_colour(void **state)
{
    (void)state;
    sample_t sample;
    sample_make(&sample, 1, 3, 1);
    sample.report.progress = NULL;
    sample.report.map_count = 1;
    sample.report.row_bytes = 0;
    const int64_t load[] = {1, 1, 4}, traffic[] = {9, 8000, 1000, 0, 9, 3000, 0, 0, 9};
    memcpy(sample.before.load, load, sizeof(load));
    memcpy(sample.before.traffic, traffic, sizeof(traffic));
    cot_buffer_t out = {0};
    const char *page = print(&sample.report, &out);
    assert_non_null(strstr(page, "<path class=o0 d=\"M0 0h2v1h-2z\"/>\n<path class=o7 d=\"M2 0h1v1h-1z\"/>"));
    assert_non_null(strstr(page, "<td>0.5<td>0.5<td>2\n"));
    /* 8 rows at most: buckets of one row; the diagonal has no cell. */
    assert_non_null(strstr(page, "<path class=s7 d=\"M1 0h1v1h-1z\"/>"));
    assert_non_null(strstr(page, "<path class=s3 d=\"M2 1h1v1h-1z\"/>"));
    assert_non_null(strstr(page, "<tr><th scope=row>0<td><td>8<td>1\n"));
    cot_buffer_free(&out);
    sample_free(&sample);
}

static void large_clusters_stay_small_pages(void **state)
{
    (void)state;
    const struct {
        uint32_t layers, ranks, nodes;
        size_t bytes;
    } shapes[] = {{58, 64, 8, 600000}, {300, 1000, 10, 1500000}};
    for (size_t i = 0; i < 2; i++) {
        sample_t sample;
        sample_make(&sample, shapes[i].layers, shapes[i].ranks, shapes[i].nodes);
        cot_buffer_t out = {0};
        const char *page = print(&sample.report, &out);
        assert_true(out.size > 100000 && out.size < shapes[i].bytes);
        assert_int_equal(count(page, "shows the largest") > 0, i == 1);
        cot_buffer_free(&out);
        sample_free(&sample);
    }
}

static void curves_of_many_points_keep_the_last(void **state)
{
    (void)state;
    sample_t sample;
    sample_make(&sample, 1, 2, 1);
    sample.report.map_count = 0;
    cot_buffer_t out = {0};
    const char *page = print(&sample.report, &out);
    char last[64];
    snprintf(last, sizeof(last), "<td>%.3f</td><td>%.10g</td>", sample.incumbent[899].seconds,
             sample.incumbent[899].value);
    assert_int_equal(count(page, last), 1);
    assert_true(count(page, "best plan</th>") <= 301);
    assert_int_equal(count(page, "lower bound</th>"), 40);
    cot_buffer_free(&out);
    sample_free(&sample);
}

static void an_empty_report_is_a_page(void **state)
{
    (void)state;
    const solve_report_t report = {.title = "nothing"};
    cot_buffer_t out = {0};
    const char *page = print(&report, &out);
    assert_non_null(strstr(page, "<h1>nothing</h1>"));
    assert_int_equal(count(page, "<svg") + count(page, "<table"), 0);
    cot_buffer_free(&out);
}

static void bytes_are_named(void **state)
{
    (void)state;
    char out[32];
    assert_string_equal(solve_report_bytes(0, out), "0 B");
    assert_string_equal(solve_report_bytes(999, out), "999 B");
    assert_string_equal(solve_report_bytes(1234, out), "1.23 kB");
    assert_string_equal(solve_report_bytes(45.6e6, out), "45.6 MB");
    assert_string_equal(solve_report_bytes(789e9, out), "789 GB");
}

static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    sample_t sample;
    sample_make(&sample, 2, 4, 2);
    size_t live = cot_memory_live_blocks();
    for (int64_t allowed = 0;; allowed++) {
        cot_buffer_t out = {0};
        cot_memory_fail_after(allowed);
        cot_status_t status = solve_report_print(&sample.report, &out);
        cot_memory_fail_after(-1);
        cot_buffer_free(&out);
        assert_int_equal(cot_memory_live_blocks(), live);
        if (status == COT_OK) break;
        assert_true(allowed < 1000);
    }
    sample_free(&sample);
}

int main(int argc, char **argv)
{
    cot_json_setup();
    if (argc == 6 && strcmp(argv[1], "page") == 0) { /* page FILE LAYERS RANKS NODES: a sample for a browser */
        static sample_t sample;
        sample_make(&sample, (uint32_t)atoi(argv[3]), (uint32_t)atoi(argv[4]), (uint32_t)atoi(argv[5]));
        int failed = solve_report_save(&sample.report, argv[2]) != COT_OK;
        if (failed) fprintf(stderr, "%s\n", cot_error_text());
        sample_free(&sample);
        return failed;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_from_files_is_escaped),          cmocka_unit_test(nothing_comes_from_elsewhere),
        cmocka_unit_test(pictures_have_words_and_numbers),     cmocka_unit_test(cells_have_their_colour),
        cmocka_unit_test(large_clusters_stay_small_pages),     cmocka_unit_test(curves_of_many_points_keep_the_last),
        cmocka_unit_test(an_empty_report_is_a_page),           cmocka_unit_test(bytes_are_named),
        cmocka_unit_test(every_failed_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
