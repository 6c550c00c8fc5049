#!/usr/bin/env bash
# Checks and measures the GPU part on a machine with GPUs, CUDA, MPI and CMake, but maybe no package registry: the C
# libraries it lacks come from build/bundle, which deploy/bundle.sh packs elsewhere.
#   deploy/gpu-test.sh [--check | --time] [--model DIR] [--stages A,B,…] [--json FILE]
# All stages run on one GPU; the exchange, the layer and the bits also on all GPUs, one rank each. Exit status 1 if a
# result is wrong. build/cuda/bin/coterie-lab is built first if it is missing.
set -uo pipefail
cd "$(dirname "$0")/.."
. deploy/guard.sh

what=() model=tests/fixtures/shapes/qwen3-30b-a3b stages= json=()
while [ $# -gt 0 ]; do
    case "$1" in
        --check|--time) what=("$1"); shift ;;
        --model) model=${2-}; shift 2 || exit 2 ;;
        --stages) stages=${2-}; shift 2 || exit 2 ;;
        --json) json=(--json "${2-}"); shift 2 || exit 2 ;;
        -h|--help) sed -n '2,6s/^# //p' "$0"; exit 0 ;;
        *) echo "deploy/gpu-test.sh: unknown option $1; see --help" >&2; exit 2 ;;
    esac
done

gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU')
[ "$gpus" -gt 0 ] || { echo "deploy/gpu-test.sh: no NVIDIA GPU here (nvidia-smi -L lists none)" >&2; exit 2; }
bundle=$PWD/build/bundle/usr/lib/$(uname -m)-linux-gnu
[ -d "$bundle" ] && export PKG_CONFIG_PATH=$bundle/pkgconfig LD_LIBRARY_PATH=$bundle${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} \
    PATH=$PWD/build/bundle/usr/bin:$PATH

lab=build/cuda/bin/coterie-lab
build() {
    cmake --preset cuda -DCOTERIE_TESTS=OFF && cmake --build --preset cuda
}
if [ ! -x "$lab" ]; then
    mkdir -p build
    guard_run build >build/cuda.log 2>&1 || { tail -n 40 build/cuda.log >&2; echo "coterie: the build failed: build/cuda.log" >&2; exit 1; }
fi

export NCCL_NVLS_ENABLE=0 # multicast stays off
bad=0
one() { guard_run timeout 900 "$lab" "$1" --model "$model" "${what[@]}" "${json[@]}" || { echo "FAILED: $1 on one GPU"; bad=1; }; }
all() {
    local root=()
    [ "$(id -u)" -eq 0 ] && root=(--allow-run-as-root)
    guard_run timeout 900 mpirun -q "${root[@]}" --oversubscribe --bind-to none -n "$gpus" "$lab" "$1" --model "$model" \
        "${what[@]}" "${json[@]}" || { echo "FAILED: $1 on $gpus GPUs"; bad=1; }
}

for stage in $(tr ',' ' ' <<<"${stages:-blocks,limits,experts,dense,attention,attn_in,attn_out,route,sort,combine,sample,layer,bits}"); do
    case "$stage" in exchange) ;; *) one "$stage" ;; esac
done
[ "$gpus" -gt 1 ] && for stage in exchange layer bits; do
    case ",${stages:-$stage}," in *",$stage,"*) all "$stage" ;; esac
done
if [ "$gpus" -gt 1 ] && [ -z "$stages" ] && [ "${what[*]-}" != --time ]; then
    guard_run timeout 240 tests/comm/gpu_fault.sh "$lab" "$model" || { echo "FAILED: a peer that stops or dies"; bad=1; }
fi
exit $bad
