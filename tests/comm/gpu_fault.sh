#!/usr/bin/env bash
# A peer that stops or dies in the middle of captured exchanges: the first rank must end within its deadline (2 s) and 2 s
# more, and its last word must name the rank, the layer and the step. Needs two GPUs.
#   tests/comm/gpu_fault.sh LAB MODEL
set -u
lab=$1 model=$2 bad=0
out=$(mktemp)
trap 'pkill -KILL -f "^$lab exchange-loop" 2>/dev/null; rm -f "$out"' EXIT
root=()
[ "$(id -u)" -eq 0 ] && root=(--allow-run-as-root)

# One case: SIGNAL, TRANSPORT.
try() {
    timeout 40 mpirun -q "${root[@]}" --enable-recovery --oversubscribe --bind-to none -n 2 \
        "$lab" exchange-loop --model "$model" --rows 30 --only "$2" >"$out" 2>&1 &
    local job=$! victim first waited=0
    sleep 5
    mapfile -t ranks < <(pgrep -f "^$lab exchange-loop" | sort -n)
    [ "${#ranks[@]}" -eq 2 ] || { echo "FAILED: $1 $2: ${#ranks[@]} ranks run"; cat "$out"; bad=1; return; }
    first=${ranks[0]} victim=${ranks[1]}
    kill "-$1" "$victim"
    while kill -0 "$first" 2>/dev/null && [ "$(ps -o stat= -p "$first")" != Z ] && [ "$waited" -lt 60 ]; do
        sleep 0.1
        waited=$((waited + 1))
    done
    kill -KILL "$victim" 2>/dev/null
    pkill -KILL -f "^$lab exchange-loop" 2>/dev/null
    wait "$job" 2>/dev/null
    if [ "$waited" -le 40 ] && grep -Eq 'rank [01] layer [0-9]+ step [0-9]+: ' "$out"; then
        echo "ok: $1 $2: ended after $((waited / 10)).$((waited % 10)) s: $(grep -Eo 'rank [01] layer [0-9]+ step [0-9]+: .*' "$out" | head -n 1)"
    else
        echo "FAILED: $1 $2: after $((waited / 10)).$((waited % 10)) s:"
        cat "$out"
        bad=1
    fi
}

for signal in STOP KILL; do
    for transport in window nccl; do try "$signal" "$transport"; done
done
exit $bad
