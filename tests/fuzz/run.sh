#!/usr/bin/env bash
# Fuzzes every target, or those named, for SECONDS each:  tests/fuzz/run.sh SECONDS [NAME…]
# Starts from tests/fuzz/corpus/NAME; what it finds new goes to build/fuzz/corpus/NAME, an input that fails to
# build/fuzz/failed/. Copy such an input to tests/fuzz/corpus/NAME when it is mended: the tests then replay it.
set -euo pipefail
cd "$(dirname "$0")/../.."
. deploy/guard.sh

seconds=${1-}
case "$seconds" in ''|*[!0-9]*) echo "tests/fuzz/run.sh: say for how many seconds" >&2; exit 2 ;; esac
shift
command -v clang >/dev/null || { echo "tests/fuzz/run.sh: needs clang and its compiler-rt" >&2; exit 5; }

build() {
    cmake --preset fuzz && cmake --build --preset fuzz
}
mkdir -p build/fuzz/failed
guard_run build </dev/null >build/fuzz/build.log 2>&1 || { tail -n 40 build/fuzz/build.log >&2; exit 1; }

names=("$@")
if [ ${#names[@]} -eq 0 ]; then
    for source in tests/fuzz/fuzz_*.c; do name=${source##*/fuzz_}; names+=("${name%.c}"); done
fi
failed=()
for name in "${names[@]}"; do
    mkdir -p "build/fuzz/corpus/$name"
    log=build/fuzz/$name.log
    guard_run "build/fuzz/tests/fuzz_$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -artifact_prefix="build/fuzz/failed/$name-" "build/fuzz/corpus/$name" "tests/fuzz/corpus/$name" \
        </dev/null >"$log" 2>&1 || failed+=("$name")
    echo "$name: $(grep -E '^Done|SUMMARY|^stat' "$log" | tail -n 1)"
done
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]} (build/fuzz/NAME.log, build/fuzz/failed/)" >&2; exit 1; }
