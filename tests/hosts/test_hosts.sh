#!/usr/bin/env bash
# Two hosts give the same bits as one, though rows cross the link between them; and whatever becomes of hosts.sh, nothing
# stays behind.   test_hosts.sh PROGRAM
set -u
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
program=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export source program work

check() {
    local name=$1
    shift
    "$@" && return
    echo "FAILED: $name" >&2
    exit 1
}

"$here/hosts.sh" -n 2 true
[ $? -ne 77 ] || exit 77

for line in $(seq 6); do
    echo "{\"tokens\": [$(seq -s ', ' "$line" "$((20 * line))")]}"
done >"$work/in.jsonl"
score() {
    "$source/deploy/run.sh" --program "$program" -n "$1" score "$source/tests/fixtures/models/qwen3" --in "$work/in.jsonl" \
        --out "$work/$2.jsonl" --record "$work/$2.trace.safetensors" --max-context 128 --kv-memory 4M >"$work/$2.report"
}
on_two_hosts() {
    score 5 two && "$HOSTS" --bytes >"$work/bytes"
}
export -f score on_two_hosts

check "one worker on one host" score 2 one
check "four workers on two hosts" timeout 100 "$here/hosts.sh" -n 2 -w 2 bash -c on_two_hosts
for kind in jsonl trace.safetensors report; do
    check "the same $kind" cmp "$work/one.$kind" "$work/two.$kind"
done
bytes=$(cat "$work/bytes")
check "rows cross the link: $bytes bytes did" test "$bytes" -gt 100000

# The figure of KEY in the tier cross_node of a cluster file.
cross_node() {
    sed -n "s/.*\"cross_node\": {.*\"$1\": \([0-9.e+-]*\).*/\1/p" "$work/two.cluster.json"
}
between() { awk -v x="$1" -v least="$2" -v most="$3" 'BEGIN { exit !(x >= least && x <= most) }'; }
check "two hosts are measured" timeout 100 "$here/hosts.sh" -n 2 -w 2 --rate 100mbit "$source/deploy/run.sh" \
    --program "$program" -n 5 calibrate "$source/tests/fixtures/models/qwen3" --out "$work/two.cluster.json" >"$work/report"
check "node 1 has two ranks" grep -q '"count": [12], "node": 1' "$work/two.cluster.json"
rate=$(cross_node gigabytes_per_s)
# 12.5 MB/s out of each host, which two ranks share.
check "the link's rate: $rate GB/s" between "$rate" 0.003 0.0125

slept=$((100000 + $$))
slept_away() {
    for _ in $(seq 100); do
        pgrep -f "sleep $slept\$" >/dev/null || return 0
        sleep 0.05
    done
    return 1
}
"$here/hosts.sh" bash -c "\$HOSTS --on host1 sleep $slept & sleep $slept" &
script=$!
for _ in $(seq 100); do
    [ "$(pgrep -fc "^sleep $slept\$")" = 2 ] && break
    sleep 0.05
done
check "both hosts sleep" test "$(pgrep -fc "^sleep $slept\$")" = 2
kill -KILL "$script"
wait "$script" 2>/dev/null
check "nothing outlives the script" slept_away

"$here/hosts.sh" bash -c 'exit 5'
check "the command's exit status" test $? = 5
"$here/hosts.sh" --rate fast true 2>/dev/null
check "a wrong rate" test $? = 2
echo "two hosts, $bytes bytes between them: the same bits as one; $rate GB/s for each of two ranks at 100 Mbit/s"
