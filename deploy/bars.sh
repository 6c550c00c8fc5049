#!/usr/bin/env bash
# The planner's bars: known instances, a time limit each, and the value that must be reached. Outside .ci/run, because it
# takes minutes and wants both cores to itself. Instances of 128 experts (3 MB each) are not in the repository: name
# their folder in PLAN_INSTANCES, or those rows are skipped with a line.
# usage: deploy/bars.sh [folder of coterie-plan, default build/bin]
set -u
cd "$(dirname "$0")/.."
plan=${1:-build/bin}/coterie-plan
[ -x "$plan" ] || { echo "$plan is missing: run deploy/build.sh first"; exit 1; }
fixtures=tests/fixtures/placement
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
bad=0

number() { sed -nE "s/.*\"$2\": ([0-9.e+-]+).*/\1/p" "$1"; }

# bar INSTANCE CLUSTER OBJECTIVE SECONDS MOST [PROOF]: the value must be at most MOST (crossings: percent of all that
# could cross at the dearest cost; weighted: millions).
bar() {
    local instance=$1 cluster=$2 objective=$3 seconds=$4 most=$5 proof=${6:-} trace=$fixtures/$1.trace.safetensors far=1
    [ -f "$trace" ] || trace=${PLAN_INSTANCES:-/nonexistent}/$1.trace.safetensors
    if [ ! -f "$trace" ]; then
        echo "skipped: $instance is not here (PLAN_INSTANCES)"
        return
    fi
    [ "$cluster" = two-by-eight ] && far=8
    if ! "$plan" "$trace" --cluster "$fixtures/$cluster.cluster.json" --objective "$objective" --time-limit "$seconds" \
        --out "$out/plan.json" --json >"$out/result" 2>"$out/log"; then
        cat "$out/log"
        echo "FAILED: $instance $objective"
        bad=1
        return
    fi
    awk -v name="$instance $objective" -v value="$(number "$out/result" value)" -v far=$far -v most="$most" \
        -v all="$(number "$out/result" transitions)" -v took="$(number "$out/result" seconds)" -v limit="$seconds" \
        -v percent="$([ "$objective" = crossings ] && echo 1 || echo 0)" -v proof="$proof" -v line="$(cat "$out/result")" '
        BEGIN {
            shown = percent ? 100 * value / (far * all) : value / 1e6
            good = shown <= most && took <= limit * 1.05 + 0.1 && (proof == "" || index(line, "\"proof\": \"" proof "\""))
            printf "%s: %s %.4f (at most %.4f) in %.2f s of %s s\n", good ? "ok" : "FAILED", name, shown, most, took, limit
            exit !good
        }' || bad=1
}

bar t4x8.s flat4 crossings 1 46.985 dp
bar t8x8g4.s flat4 crossings 1 48.197 dp
bar mix4.p flat4 crossings 1 37.504 dp
bar mix4.s flat4 crossings 1 49.742 dp
bar olm8.p8 flat8 crossings 1 52.494
bar qw16.p8 two-by-eight crossings 1 33.269
bar olm8.s8 flat8 crossings 20 68.95
bar olm8.s1 flat8 crossings 20 44.50
bar qw16.s1 two-by-eight crossings 60 26.50
bar mix4.s flat4 weighted 20 21.6205 dp
bar olm8.p8 flat8 weighted 20 158.266
bar olm8.s8 flat8 weighted 20 172.033
bar qw16.p8 two-by-eight weighted 20 1134.064
# The report opens in a browser without errors and fits a phone (skipped with a line where there is no Chromium).
"$plan" "$fixtures/olm8.p8.trace.safetensors" --cluster "$fixtures/flat8.cluster.json" --objective crossings --time-limit 1 \
    --out "$out/plan.json" --report "$out/report.html" >"$out/log" 2>&1 || { cat "$out/log"; bad=1; }
tests/placement/solve/page.sh "$out/report.html"
case $? in 0|77) ;; *) echo "FAILED: the report's page"; bad=1 ;; esac
exit $bad
