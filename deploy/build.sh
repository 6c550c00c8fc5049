#!/usr/bin/env bash
# Installs what is missing and builds the programs into build/bin/ and the client library into build/lib/.
# Progress goes to standard error.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/guard.sh

build() {
    cmake --preset release -DCOTERIE_TESTS=OFF && cmake --build --preset release
}

guard_run ./deploy/install.sh deploy/packages.txt
log=build/build.log
mkdir -p build
if ! guard_run build </dev/null >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    echo "coterie: the build failed; the whole log is $log" >&2
    exit 1
fi
echo "coterie: built build/bin/coterie" >&2
