#!/usr/bin/env bash
# page.sh PAGE.html…: opens each report in headless Chromium, on a phone and on a desk, light and dark, all its tables
# unfolded, and checks that it renders, says nothing on the console, asks for nothing, has no horizontal overflow, and
# that its text stands out from its background. Exit 77 with a line where there is no Chromium.
set -uo pipefail
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) ||
    { echo "skipped: there is no Chromium here to open the report" >&2; exit 77; }
[ $# -gt 0 ] || { echo "usage: page.sh PAGE.html…" >&2; exit 2; }
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
# The copies, not the report, carry this: it measures the page and tells the frame around it.
cat > "$scratch/probe.html" <<'PROBE'
<script>
addEventListener("load", () => {
    document.querySelectorAll("details").forEach(d => d.open = true);
    const light = c => { const v = c.match(/[\d.]+/g).slice(0, 3).map(x => x / 255)
        .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4); return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
    const paper = getComputedStyle(document.body).backgroundColor;
    const contrast = e => { const a = light(getComputedStyle(e).color), b = light(paper);
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); };
    const texts = [...document.querySelectorAll("h1,h2,p,th,td,dd,dt,summary,li,span")];
    const box = e => e.getBoundingClientRect(), svgs = [...document.querySelectorAll("svg")];
    const empty = svgs.filter(e => box(e).width < 100 || box(e).height < 100 || !e.getAttribute("aria-label"));
    const wide = [...document.querySelectorAll("main *")].filter(e => !e.closest(".scroll,svg,caption") &&
        box(e).right > document.documentElement.clientWidth + 0.5);
    parent.postMessage([
        "width=" + document.documentElement.clientWidth, "scroll=" + document.documentElement.scrollWidth,
        "wide=" + wide.length, "pictures=" + svgs.length, "empty=" + empty.length,
        "contrast=" + Math.min(...texts.map(contrast)).toFixed(2), "paper=" + paper.replace(/ /g, ""),
        "requests=" + performance.getEntriesByType("resource").length, "end"].join(" "), "*");
});
</script>
PROBE

bad=0
complain() { echo "page.sh: $1" >&2; bad=1; }
value() { sed -nE "s/.*data-probe=\"[^\"]*\b$1=([^ \"]*).*/\1/p" "$scratch/dom" | head -n 1; }

# open FILE WIDTH SCHEME (0 dark, 1 light): the figures of one rendering.
open_page() {
    timeout 60 "$browser" --headless --hide-scrollbars --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
        --user-data-dir="$scratch/profile" --enable-logging=stderr --blink-settings=preferredColorScheme="$3" \
        --window-size="$2,900" --virtual-time-budget=5000 --dump-dom "file://$1" > "$scratch/dom" 2> "$scratch/log"
}

for page in "$@"; do
    [ -s "$page" ] || { complain "$page is missing or empty"; continue; }
    cat "$page" "$scratch/probe.html" > "$scratch/page.html"
    papers=""
    for width in 360 1280; do
        for scheme in 1 0; do
            # Chromium's window has a least width of its own: a frame is as narrow as it is told to be.
            printf '<!DOCTYPE html><body style="margin:0"><script>onmessage = e =>
document.documentElement.setAttribute("data-probe", e.data);</script>
<iframe style="border:0;width:%spx;height:4000px" src=page.html></iframe>' "$width" > "$scratch/frame.html"
            open_page "$scratch/frame.html" "$width" "$scheme" || complain "$page: Chromium failed at $width px"
            where="$page at $width px, $([ "$scheme" = 0 ] && echo dark || echo light)"
            grep -q 'CONSOLE' "$scratch/log" && complain "$where: $(grep -m1 CONSOLE "$scratch/log")"
            [ "$(value width)" = "$width" ] || { complain "$where: did not render ($(value width))"; continue; }
            [ "$(value scroll)" -le "$width" ] && [ "$(value wide)" = 0 ] || complain "$where: overflows to $(value scroll) px, $(value wide) elements"
            [ "$(value empty)" = 0 ] || complain "$where: $(value empty) pictures are empty or without words"
            [ "$(value requests)" = 0 ] || complain "$where: it asks for $(value requests) other files"
            awk -v c="$(value contrast)" 'BEGIN { exit !(c >= 4.5) }' || complain "$where: contrast of text is $(value contrast), below 4.5"
            papers="$papers $(value paper)"
            echo "$where: $(value pictures) pictures, contrast $(value contrast), no overflow"
        done
    done
    [ "$(tr ' ' '\n' <<< "$papers" | sort -u | grep -c rgb)" = 2 ] || complain "$page: light and dark look alike ($papers)"
done
exit $bad
