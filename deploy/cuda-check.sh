#!/usr/bin/env bash
# Compiles all CUDA code for every architecture that it has a form for, with warnings as errors, and runs what of
# coterie-lab needs no GPU. Skipped, with a line, where there is no nvcc.
set -uo pipefail
cd "$(dirname "$0")/.."
. deploy/guard.sh

command -v nvcc >/dev/null || { echo "skipped: no nvcc here, the CUDA code was not compiled"; exit 0; }
build() {
    cmake --preset cuda -DCOTERIE_TESTS=OFF && cmake --build --preset cuda
}
mkdir -p build
if ! guard_run build </dev/null >build/cuda.log 2>&1; then
    grep -E 'error|warning|FAILED|CMake Error' -A 5 build/cuda.log | tail -n 60 >&2
    echo "coterie: the build failed; the whole log is build/cuda.log" >&2
    exit 1
fi

lab=build/cuda/bin/coterie-lab model=tests/fixtures/shapes/qwen3-30b-a3b bad=0
# expect STATUS TEXT ARGUMENT…: the lab ends with that status and says that.
expect() {
    local status=$1 text=$2 said code=0
    shift 2
    said=$("$lab" "$@" 2>&1 </dev/null) || code=$?
    if [ "$code" -ne "$status" ] || ! grep -q -- "$text" <<<"$said"; then
        echo "FAILED: coterie-lab $*: status $code, expected $status and '$text': $said"
        bad=1
    fi
}
expect 0 'stages:' --help
expect 2 'stages:' # no stage
expect 2 'no stage' nonsense --model "$model"
expect 2 'unknown option' limits --model "$model" --nonsense 1
expect 4 'no such model' limits --model /nowhere
[ "$bad" -eq 0 ] && echo "coterie-lab built for $(sed -n 's/^COTERIE_CUDA_TARGETS:[A-Z]*=//p' build/cuda/CMakeCache.txt)"
exit $bad
