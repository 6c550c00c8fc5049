#include "placement/solve/report_page.h"

#include "base/file.h"

#include <string.h>

/* Colours of the maps: o0 … o7 from well under the mean to far over it (blue, neutral, orange), s0 … s7 from nothing to
 * the most (one hue). Both run from quiet to loud in light and in dark. */
static const char STYLE[] =
    ":root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--panel:#f6f8fa;"
    "--mark:#0b5cad;--second:#b3500b;"
    "--o0:#2b6cb0;--o1:#7fb0de;--o2:#c9dff2;--o3:#eceff2;--o4:#fbe0bd;--o5:#f2a65a;--o6:#d9661f;--o7:#96360b;"
    "--s0:#eef1f4;--s1:#d5e3f3;--s2:#b2cde9;--s3:#87b0da;--s4:#5b92c8;--s5:#3674b1;--s6:#1b5694;--s7:#0b3a6e}"
    "@media(prefers-color-scheme:dark){:root{--paper:#0f1419;--ink:#e6e9ec;--soft:#9aa5b1;--line:#333d47;"
    "--panel:#182028;--mark:#6cb2ff;--second:#ffa657;"
    "--o0:#5ea3e6;--o1:#3573b3;--o2:#24496e;--o3:#2a323a;--o4:#6b4218;--o5:#a95f17;--o6:#e08a2e;--o7:#ffd08a;"
    "--s0:#1e262e;--s1:#1d3650;--s2:#1f4a73;--s3:#245f97;--s4:#2f78bb;--s5:#4f96d8;--s6:#86bbec;--s7:#cfe6fb}}"
    "*{box-sizing:border-box}"
    "body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}"
    "main{max-width:72rem;margin:0 auto;padding:1rem}"
    "h1{font-size:1.5rem;line-height:1.2;margin:.5rem 0;overflow-wrap:anywhere}h2{font-size:1.15rem;margin:2rem 0 "
    ".5rem}"
    "h3{font-size:1rem;margin:0 0 .5rem}p{margin:.25rem 0 .75rem}"
    ".soft{color:var(--soft);overflow-wrap:anywhere}"
    ".facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(9rem,100%),1fr));gap:.75rem;margin:1rem 0;"
    "padding:0}.facts>div{background:var(--panel);border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem;"
    "min-width:0}dt{color:var(--soft);font-size:.85rem}dd{margin:0;overflow-wrap:anywhere}"
    "dd b{font-size:1.2rem;font-variant-numeric:tabular-nums;font-weight:600}dd small{display:block;color:var(--soft)}"
    ".scroll{overflow-x:auto;max-width:100%;border:1px solid var(--line);border-radius:.5rem}"
    ".scroll:focus-visible,summary:focus-visible{outline:2px solid var(--mark);outline-offset:2px}"
    "table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}caption{position:absolute;width:1px;"
    "height:1px;overflow:hidden;clip-path:inset(50%)}"
    "th,td{padding:.3rem .7rem;text-align:right;white-space:nowrap;border-top:1px solid var(--line)}"
    "thead th{border-top:0;background:var(--panel);font-size:.85rem;color:var(--soft);font-weight:600}"
    "th:first-child,.t{text-align:left}tbody th{font-weight:500}"
    "tr.chosen{background:var(--panel);box-shadow:inset 3px 0 var(--mark)}tr.chosen th{font-weight:700}"
    ".pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(20rem,100%),1fr));gap:1.25rem}"
    ".pair>*{min-width:0}.pair h2{margin-top:.75rem}figure{margin:0}"
    ".plot{display:grid;grid-template-columns:auto minmax(0,1fr);gap:.25rem .4rem;font-size:.75rem;color:var(--soft)}"
    ".plot .y{display:flex;flex-direction:column;justify-content:space-between;text-align:right}"
    ".plot .x{grid-column:2;display:flex;justify-content:space-between}"
    ".plot svg{display:block;width:100%;height:clamp(12rem,45vw,22rem);border:1px solid var(--line)}"
    ".key{display:flex;flex-wrap:wrap;gap:.2rem .8rem;margin:.5rem 0;padding:0;list-style:none;font-size:.8rem}"
    ".key li{display:flex;align-items:center;gap:.35rem}"
    ".key i{width:1rem;height:1rem;border:1px solid var(--line);border-radius:2px;flex:none}.key i.l{height:0;"
    "border-width:2px 0 0;border-radius:0}"
    "details{margin:.5rem 0}summary{cursor:pointer;color:var(--mark)}"
    "svg path.node{fill:none;stroke:var(--ink);stroke-width:1.5;vector-effect:non-scaling-stroke;opacity:.55}"
    "svg path.a,svg path.b,svg path.g{fill:none;vector-effect:non-scaling-stroke;stroke-width:2}"
    "svg path.a{stroke:var(--mark)}svg path.b{stroke:var(--second);stroke-dasharray:6 4}"
    "svg path.g{stroke:var(--line);stroke-width:1}"
    ".o0{fill:var(--o0);background:var(--o0)}.o1{fill:var(--o1);background:var(--o1)}"
    ".o2{fill:var(--o2);background:var(--o2)}.o3{fill:var(--o3);background:var(--o3)}"
    ".o4{fill:var(--o4);background:var(--o4)}.o5{fill:var(--o5);background:var(--o5)}"
    ".o6{fill:var(--o6);background:var(--o6)}.o7{fill:var(--o7);background:var(--o7)}"
    ".s0{fill:var(--s0);background:var(--s0)}.s1{fill:var(--s1);background:var(--s1)}"
    ".s2{fill:var(--s2);background:var(--s2)}.s3{fill:var(--s3);background:var(--s3)}"
    ".s4{fill:var(--s4);background:var(--s4)}.s5{fill:var(--s5);background:var(--s5)}"
    ".s6{fill:var(--s6);background:var(--s6)}.s7{fill:var(--s7);background:var(--s7)}"
    "@media print{details>*{display:block}.scroll{overflow:visible}}";

/* Length of the UTF-8 sequence at `text`, 0 if it is none. */
static size_t sequence(const unsigned char *text)
{
    size_t length = text[0] < 0x80                       ? 1
                    : text[0] >= 0xc2 && text[0] < 0xe0  ? 2
                    : text[0] >= 0xe0 && text[0] < 0xf0  ? 3
                    : text[0] >= 0xf0 && text[0] <= 0xf4 ? 4
                                                         : 0;
    for (size_t i = 1; i < length; i++)
        if ((text[i] & 0xc0) != 0x80) return 0;
    bool bad = (text[0] == 0xe0 && text[1] < 0xa0) || (text[0] == 0xed && text[1] > 0x9f) ||
               (text[0] == 0xf0 && text[1] < 0x90) || (text[0] == 0xf4 && text[1] > 0x8f);
    return bad ? 0 : length;
}

cot_status_t solve_page_text(cot_buffer_t *out, const char *text)
{
    for (const unsigned char *at = (const unsigned char *)text; *at != '\0';) {
        size_t length = sequence(at);
        const char *entity = *at == '&'    ? "&amp;"
                             : *at == '<'  ? "&lt;"
                             : *at == '>'  ? "&gt;"
                             : *at == '"'  ? "&quot;"
                             : *at == '\'' ? "&#39;"
                                           : NULL;
        bool control = length == 1 && (*at < 0x20 || *at == 0x7f) && *at != '\n' && *at != '\t';
        if (length == 0 || control || (length == 2 && at[0] == 0xc2 && at[1] < 0xa0)) entity = "\xef\xbf\xbd";
        if (entity != NULL)
            COT_TRY(cot_buffer_append(out, entity, strlen(entity)));
        else
            COT_TRY(cot_buffer_append(out, at, length));
        at += length > 0 ? length : 1;
    }
    return COT_OK;
}

const char *solve_report_bytes(double bytes, char out[32])
{
    static const char *const UNITS[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    size_t unit = 0;
    while (bytes >= 999.5 && unit + 1 < sizeof(UNITS) / sizeof(*UNITS)) {
        bytes /= 1000;
        unit++;
    }
    snprintf(out, 32,
             bytes < 10 && unit > 0    ? "%.2f %s"
             : bytes < 100 && unit > 0 ? "%.1f %s"
                                       : "%.0f %s",
             bytes, UNITS[unit]);
    return out;
}

static cot_status_t element(cot_buffer_t *out, const char *open, const char *text, const char *close)
{
    if (text == NULL) return COT_OK;
    COT_TRY(cot_buffer_printf(out, "%s", open));
    COT_TRY(solve_page_text(out, text));
    return cot_buffer_printf(out, "%s", close);
}

static cot_status_t facts(const solve_report_t *report, cot_buffer_t *out)
{
    if (report->fact_count == 0) return COT_OK;
    COT_TRY(cot_buffer_printf(out, "<dl class=facts>\n"));
    for (uint32_t i = 0; i < report->fact_count; i++) {
        COT_TRY(element(out, "<div><dt>", report->facts[i].label, "</dt>"));
        COT_TRY(element(out, "<dd><b>", report->facts[i].value, "</b>"));
        COT_TRY(element(out, "<small>", report->facts[i].note, "</small>"));
        COT_TRY(cot_buffer_printf(out, "</dd></div>\n"));
    }
    return cot_buffer_printf(out, "</dl>\n");
}

/* Columns of words stand left, columns of figures right. */
static bool has_words(const solve_report_table_t *table, uint32_t column)
{
    for (uint32_t r = 0; r < table->rows; r++) {
        const char *cell = table->cells[(size_t)r * table->columns + column];
        if (cell != NULL && cell[0] != '\0' && strchr("0123456789+-.<", cell[0]) == NULL) return true;
    }
    return false;
}

static cot_status_t table(const solve_report_table_t *table, cot_buffer_t *out)
{
    COT_TRY(cot_buffer_printf(out, "<section>"));
    COT_TRY(element(out, "<h2>", table->title, "</h2>\n"));
    COT_TRY(element(out, "<p class=soft>", table->note, "</p>\n"));
    COT_TRY(element(out, "<div class=scroll role=region tabindex=0 aria-label=\"", table->title, "\">"));
    COT_TRY(element(out, "<table><caption>", table->title, "</caption><thead><tr>"));
    for (uint32_t c = 0; c < table->columns; c++)
        COT_TRY(
            element(out, has_words(table, c) ? "<th scope=col class=t>" : "<th scope=col>", table->head[c], "</th>"));
    COT_TRY(cot_buffer_printf(out, "</tr></thead><tbody>\n"));
    for (uint32_t r = 0; r < table->rows; r++) {
        COT_TRY(cot_buffer_printf(out, r == table->chosen ? "<tr class=chosen>" : "<tr>"));
        for (uint32_t c = 0; c < table->columns; c++) {
            const char *cell = table->cells[(size_t)r * table->columns + c];
            const char *open = c == 0 ? "<th scope=row>" : has_words(table, c) ? "<td class=t>" : "<td>";
            COT_TRY(element(out, open, cell != NULL ? cell : "", c == 0 ? "</th>" : "</td>"));
        }
        COT_TRY(cot_buffer_printf(out, "</tr>\n"));
    }
    return cot_buffer_printf(out, "</tbody></table></div></section>\n");
}

cot_status_t solve_report_print(const solve_report_t *report, cot_buffer_t *out)
{
    COT_TRY(cot_buffer_printf(out, "<!DOCTYPE html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n"
                                   "<meta name=viewport content=\"width=device-width,initial-scale=1\">\n"
                                   "<meta name=generator content=\"coterie-plan " COTERIE_VERSION "\">\n"
                                   "<link rel=icon href=\"data:,\">\n"));
    COT_TRY(element(out, "<title>", report->title, "</title>\n"));
    COT_TRY(cot_buffer_printf(out, "<style>%s</style>\n</head>\n<body>\n<main>\n", STYLE));
    COT_TRY(element(out, "<h1>", report->title, "</h1>\n"));
    COT_TRY(element(out, "<p class=soft>", report->subtitle, "</p>\n"));
    COT_TRY(facts(report, out));
    for (uint32_t i = 0; i < report->table_count; i++) {
        bool narrow = report->tables[i].narrow;
        if (narrow && (i == 0 || !report->tables[i - 1].narrow)) COT_TRY(cot_buffer_printf(out, "<div class=pair>\n"));
        COT_TRY(table(&report->tables[i], out));
        bool last = i + 1 == report->table_count || !report->tables[i + 1].narrow;
        if (narrow && last) COT_TRY(cot_buffer_printf(out, "</div>\n"));
        if (i == 0 && report->progress != NULL) COT_TRY(solve_page_progress(report->progress, out));
    }
    if (report->table_count == 0 && report->progress != NULL) COT_TRY(solve_page_progress(report->progress, out));
    if (report->map_count > 0) COT_TRY(solve_page_maps(report, out));
    return cot_buffer_printf(out, "</main>\n</body>\n</html>\n");
}

cot_status_t solve_report_save(const solve_report_t *report, const char *path)
{
    cot_buffer_t text = {0};
    cot_status_t status = solve_report_print(report, &text);
    if (status == COT_OK) status = cot_file_write(path, text.data, text.size);
    cot_buffer_free(&text);
    return status;
}
