#!/usr/bin/env bash
# Installs what is missing, builds everything with warnings as errors, and runs every test.
#   deploy/test.sh [PRESET] [ctest arguments]     PRESET: debug (default), asan, tsan
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/guard.sh

preset=debug
case "${1-}" in debug|asan|tsan) preset=$1; shift ;; esac

build() {
    cmake --preset "$preset" && cmake --build --preset "$preset"
}

guard_run ./deploy/install.sh deploy/packages.txt deploy/packages-test.txt
log=build/$preset.log
mkdir -p build
if ! guard_run build </dev/null >"$log" 2>&1; then
    grep -E 'error|warning|FAILED|CMake Error' -A 5 "$log" | tail -n 60 >&2
    echo "coterie: the build failed; the whole log is $log" >&2
    exit 1
fi
guard_run ctest --test-dir "build/$preset" -j 2 --output-on-failure --no-tests=error "$@" </dev/null
