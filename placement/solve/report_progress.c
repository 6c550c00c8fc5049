/* The search's progress: two step curves, and their numbers. */
#include "placement/solve/report_page.h"

#include <math.h>

#define WIDTH 1000.0
#define HEIGHT 400.0
#define POINTS_MOST 300U /* of a curve and of the table; the last is always among them */

/* Every n-th point, and the last. */
static uint32_t next_point(uint32_t at, uint32_t count)
{
    uint32_t stride = (count + POINTS_MOST - 1) / POINTS_MOST, next = at + stride;
    return at + 1 < count && next >= count ? count - 1 : next;
}

typedef struct {
    double low, high, seconds;
} frame_t;

static void include(frame_t *frame, const solve_report_point_t *points, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        frame->low = fmin(frame->low, points[i].value);
        frame->high = fmax(frame->high, points[i].value);
        frame->seconds = fmax(frame->seconds, points[i].seconds);
    }
}

static double across(const frame_t *frame, double seconds)
{
    return WIDTH * seconds / frame->seconds;
}

static double down(const frame_t *frame, double value)
{
    return HEIGHT * (0.97 - 0.94 * (value - frame->low) / (frame->high - frame->low));
}

static cot_status_t curve(cot_buffer_t *out, const frame_t *frame, const solve_report_point_t *points, uint32_t count,
                          char style)
{
    if (count == 0) return COT_OK;
    COT_TRY(cot_buffer_printf(out, "<path class=%c d=\"M%.1f %.1f", style, across(frame, points[0].seconds),
                              down(frame, points[0].value)));
    for (uint32_t i = next_point(0, count); i < count; i = next_point(i, count))
        COT_TRY(cot_buffer_printf(out, "H%.1fV%.1f", across(frame, points[i].seconds), down(frame, points[i].value)));
    return cot_buffer_printf(out, "H%.1f\"/>\n", WIDTH);
}

static cot_status_t rows(cot_buffer_t *out, const solve_report_point_t *points, uint32_t count, const char *what)
{
    for (uint32_t i = 0; i < count; i = next_point(i, count))
        COT_TRY(cot_buffer_printf(out, "<tr><th scope=row class=t>%s</th><td>%.3f</td><td>%.10g</td></tr>\n", what,
                                  points[i].seconds, points[i].value));
    return COT_OK;
}

static cot_status_t numbers(const solve_report_progress_t *progress, cot_buffer_t *out)
{
    COT_TRY(cot_buffer_printf(out, "<details><summary>The numbers of this curve</summary><div class=scroll "
                                   "role=region tabindex=0 aria-label=\"Progress in numbers\"><table><caption>Progress "
                                   "in numbers</caption><thead><tr><th scope=col class=t>curve</th><th scope=col>"
                                   "seconds</th><th scope=col>"));
    COT_TRY(solve_page_text(out, progress->unit));
    COT_TRY(cot_buffer_printf(out, "</th></tr></thead><tbody>\n"));
    COT_TRY(rows(out, progress->incumbent, progress->incumbents, "best plan"));
    COT_TRY(rows(out, progress->bound, progress->bounds, "lower bound"));
    return cot_buffer_printf(out, "</tbody></table></div></details>\n");
}

static cot_status_t picture(const solve_report_progress_t *progress, const frame_t *frame, cot_buffer_t *out)
{
    const solve_report_point_t *best = &progress->incumbent[progress->incumbents - 1];
    COT_TRY(cot_buffer_printf(out,
                              "<figure><div class=plot><div class=y><span>%.4g</span><span>%.4g</span></div>\n"
                              "<svg viewBox=\"0 0 %.0f %.0f\" preserveAspectRatio=none role=img "
                              "aria-label=\"The best plan went from %.6g to %.6g in %.2f seconds",
                              frame->high, frame->low, WIDTH, HEIGHT, progress->incumbent[0].value, best->value,
                              best->seconds));
    if (progress->bounds > 0)
        COT_TRY(cot_buffer_printf(out, "; the lower bound is %.6g", progress->bound[progress->bounds - 1].value));
    COT_TRY(cot_buffer_printf(out, "\">\n<path class=g d=\"M0 %.0fH%.0fM0 %.0fH%.0fM0 %.0fH%.0f\"/>\n", HEIGHT / 4,
                              WIDTH, HEIGHT / 2, WIDTH, HEIGHT * 3 / 4, WIDTH));
    COT_TRY(curve(out, frame, progress->bound, progress->bounds, 'b'));
    COT_TRY(curve(out, frame, progress->incumbent, progress->incumbents, 'a'));
    COT_TRY(cot_buffer_printf(out,
                              "</svg>\n<div class=x><span>0 s</span><span>%.3g s</span></div></div>\n"
                              "<ul class=key><li><i class=l style=\"border-color:var(--mark)\"></i>best plan</li>",
                              frame->seconds));
    if (progress->bounds > 0)
        COT_TRY(cot_buffer_printf(out, "<li><i class=l style=\"border-color:var(--second);border-top-style:dashed\">"
                                       "</i>lower bound: no plan is better</li>"));
    return cot_buffer_printf(out, "</ul></figure>\n");
}

cot_status_t solve_page_progress(const solve_report_progress_t *progress, cot_buffer_t *out)
{
    if (progress->incumbents == 0) return COT_OK;
    double first = progress->incumbent[0].value;
    frame_t frame = {first, first, fmax(progress->seconds, 1e-3)};
    include(&frame, progress->incumbent, progress->incumbents);
    include(&frame, progress->bound, progress->bounds);
    if (!(frame.high > frame.low)) frame.high = frame.low + fmax(fabs(frame.low) * 0.01, 1);
    COT_TRY(cot_buffer_printf(out, "<h2>The search</h2>\n<p class=soft>Objective over time, in "));
    COT_TRY(solve_page_text(out, progress->unit));
    COT_TRY(cot_buffer_printf(out, "; lower is better.</p>\n"));
    COT_TRY(picture(progress, &frame, out));
    return numbers(progress, out);
}
