#!/usr/bin/env bash
# What a placement gains in the running engine, and whether the prediction holds: demo/model on two and four test hosts of
# two workers each, links shaped to 400, 100 and 25 Mbit/s.
#   tests/hosts/placement_gain.sh [--folder DIR] [--lines N] [--rates "400 100 25"] [--hosts "2 4"] [--workloads "all german"]
# Records the fitted prompts, plans (contiguous, LPT, the portfolio on step_time and on crossings), scores the held-out
# prompts under each plan, and prints two tables (Markdown) of what was predicted and what was seen. --lines (3): held-out
# lines of each domain in the workload "all"; a workload of one domain takes eight times as many. The whole takes about ten
# minutes. GAIN_LOCK=COMMAND runs before each measured job (flock FILE chrt -r 10, say, on a busy machine). Needs jq. The
# scores must be the same bytes under every plan: if not, exit status 1.
set -euo pipefail

source=$(cd "$(dirname "$0")/../.." && pwd)
program=$source/build/bin/coterie
folder= lines=3 rates="400 100 25" host_counts="2 4" workloads="all german"
while [ $# -gt 0 ]; do
    case "$1" in
        --folder) folder=${2-} ;;
        --lines) lines=${2-} ;;
        --rates) rates=${2-} ;;
        --hosts) host_counts=${2-} ;;
        --workloads) workloads=${2-} ;;
        -h|--help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "placement_gain.sh: unknown flag $1; --help lists them" >&2; exit 2 ;;
    esac
    shift 2
done
[ -x "$program-plan" ] || { echo "placement_gain.sh: $program-plan is missing: run deploy/build.sh" >&2; exit 4; }
command -v jq >/dev/null || { echo "placement_gain.sh: jq is missing" >&2; exit 4; }
"$source/tests/hosts/hosts.sh" true || exit

if [ -z "$folder" ]; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
fi
mkdir -p "$folder"
workers_per_host=2
export source program folder workers_per_host

say() { echo "placement_gain.sh: $*" >&2; }

# ---- prompts and traces ----

# Lines of KIND (fit, heldout) for a workload; "all" takes N of each domain, one domain eight times as many.
prompts() {
    local workload=$1 kind=$2 count=$3 file
    if [ "$workload" != all ]; then
        head -n $((8 * count)) "$source/demo/prompts/$workload.$kind.jsonl"
        return
    fi
    for file in "$source"/demo/prompts/*."$kind".jsonl; do head -n "$count" "$file"; done
}

record() {
    local stem=$1
    # shellcheck disable=SC2086
    ${GAIN_LOCK-} "$source/deploy/run.sh" -n 3 --program "$program" score "$source/demo/model" --in "$stem.jsonl" \
        --out "$stem.scores" --record "$stem.trace.safetensors" --log-level warn >"$stem.report"
}

# ---- clusters and plans ----

# As tc shapes them: ranks of a host share its way out. In a host, shared memory: latencies as calibrated on such machines.
cluster() {
    local hosts=$1 mbit=$2 slots=$3 node ranks=
    for ((node = 0; node < hosts; node++)); do
        ranks+="${ranks:+, }{\"count\": $workers_per_host, \"node\": $node, \"slots\": $slots}"
    done
    cat <<END
{"format": "coterie.cluster/1", "ranks": [$ranks],
 "links": {"same_node": {"latency_us": 20, "gigabytes_per_s": 1, "crossing_cost": 1},
           "cross_node": {"latency_us": 60, "gigabytes_per_s": $(jq -n "$mbit / 8000 / $workers_per_host"), "crossing_cost": 8}},
 "expert_ns_per_row": $expert_ns}
END
}

# Its slots are a contiguous placement's: no replicas.
placements="contiguous lpt planned crossings"
plan() {
    local workload=$1 hosts=$2 mbit=$3 name=$4 solver=portfolio objective=step_time slots
    slots=$((32 / (hosts * workers_per_host)))
    case "$name" in
        contiguous|lpt) solver=$name ;;
        crossings) objective=crossings ;;
    esac
    local stem=$folder/$workload.$hosts.$mbit.$name
    cluster "$hosts" "$mbit" "$slots" >"$stem.cluster.json"
    "$program-plan" "$folder/$workload.fit.trace.safetensors" --cluster "$stem.cluster.json" --out "$stem.plan.json" \
        --solver "$solver" --objective "$objective" --time-limit 3 --model "$source/demo/model" --log-level warn >/dev/null
}

# ---- on the hosts ----

# One scored run under a plan ("-": none); prints seconds and the bytes that left the hosts.
run_once() {
    local in=$1 out=$2 plan=$3 ranks=$4 flags=() before began
    [ "$plan" = - ] || flags=(--plan "$plan")
    before=$("$HOSTS" --bytes)
    began=$EPOCHREALTIME
    "$source/deploy/run.sh" --program "$program" -n "$ranks" score "$source/demo/model" --in "$in" --out "$out" \
        --log-level warn "${flags[@]}" >/dev/null
    echo "$began $EPOCHREALTIME $before $("$HOSTS" --bytes)" | awk '{ print $2 - $1, $4 - $3 }'
}

locked() { ${GAIN_LOCK:-env} bash -euc 'run_once "$@"' run_once "$@"; }

# Start and end by themselves; contiguous with links as fast as they go; then every placement at every rate.
measure() {
    local workload=$1 hosts=$2 mbit name plan figures ranks
    ranks=$((hosts * workers_per_host + 1))
    echo '{"tokens": [1]}' >"$folder/one.jsonl"
    echo "$workload $hosts start - $(locked "$folder/one.jsonl" /dev/null - "$ranks")"
    for mbit in none $rates; do
        "$HOSTS" --set-rate "${mbit/#[0-9]*/${mbit}mbit}"
        for name in $placements; do
            [ "$mbit" != none ] || [ "$name" = contiguous ] || continue
            plan=$folder/$workload.$hosts.${mbit/none/${rates%% *}}.$name.plan.json
            figures=$(locked "$folder/$workload.heldout.jsonl" "$folder/scores" "$plan" "$ranks")
            cmp "$folder/scores" "$folder/$workload.heldout.scores" >&2 || touch "$folder/differ"
            echo "$workload $hosts $mbit $name $figures"
        done
    done
}
export -f run_once locked measure
export rates placements

# ---- the whole ----

expert_ns=1
${GAIN_LOCK-} "$source/tests/hosts/hosts.sh" -n 2 -w "$workers_per_host" "$source/deploy/run.sh" --program "$program" -n 5 \
    calibrate "$source/demo/model" --out "$folder/measured.cluster.json" --log-level warn >"$folder/calibrate"
expert_ns=$(jq .expert_ns_per_row "$folder/measured.cluster.json")
say "an expert takes $expert_ns ns a row here"

rm -f "$folder/differ" "$folder/results"
for workload in $workloads; do
    prompts "$workload" fit 24 >"$folder/$workload.fit.jsonl"
    prompts "$workload" heldout "$lines" >"$folder/$workload.heldout.jsonl"
    say "recording $workload"
    record "$folder/$workload.fit"
    record "$folder/$workload.heldout"
    for hosts in $host_counts; do
        say "planning and measuring $workload on $hosts hosts"
        for mbit in $rates; do
            for name in $placements; do plan "$workload" "$hosts" "$mbit" "$name"; done
        done
        "$source/tests/hosts/hosts.sh" -n "$hosts" -w "$workers_per_host" bash -euc "measure $workload $hosts" >>"$folder/results"
    done
done

# ---- what was predicted, and the tables ----

# Lines "workload hosts mbit name tokens MB-between-nodes compute-s exchange-s largest-load mean-imbalance" of the held-out
# trace: for a plan NAME, and, where told so, for the contiguous and the LPT placement that `evaluate` sets beside it.
predict() {
    local workload=$1 hosts=$2 mbit=$3 name=$4 beside=$5
    local stem=$folder/$workload.$hosts.$mbit.$name
    "$program-plan" evaluate "$stem.plan.json" --fitted "$folder/$workload.fit.trace.safetensors" \
        --trace "$folder/$workload.heldout.trace.safetensors" --cluster "$stem.cluster.json" --model "$source/demo/model" \
        --step-tokens $((256 * hosts * workers_per_host)) --json --log-level warn >"$stem.evaluated.json"
    jq -r --arg place "$workload $hosts $mbit" --arg name "$name" --arg beside "$beside" '
        ([.columns[].held_out] | index(true)) as $at | .columns[$at] as $trace | .placements[] |
        select(.name == "plan" or (.name | inside($beside))) |
        (if .name == "plan" then $name else .name end) as $what | .columns[$at] |
        [$place, $what, $trace.tokens, .bytes_by_link.cross_node / 1e6, .compute_us * $trace.steps / 1e6,
         .exchange_us * $trace.steps / 1e6, .largest_load, .mean_imbalance] | join(" ")' "$stem.evaluated.json"
}

say "judging the plans"
for workload in $workloads; do
    for hosts in $host_counts; do
        for mbit in $rates; do
            predict "$workload" "$hosts" "$mbit" planned "contiguous lpt"
            predict "$workload" "$hosts" "$mbit" crossings none
        done
    done
done >"$folder/predicted"

# Reads both files; a run's bytes and seconds are told without those of a start and end (one row scored).
# shellcheck disable=SC2016
tables='
FNR == NR { key = $1 " " $2 " " $3 " " $4; tokens[key] = $5; mb[key] = $6; compute[key] = $7; exchange[key] = $8
            largest[key] = $9; imbalance[key] = $10; next }
$3 == "start" { start_s[$1 " " $2] = $5; start_b[$1 " " $2] = $6; next }
{ runs[++n] = $0; key = $1 " " $2 " " $3 " " $4
  seconds[key] = $5 - start_s[$1 " " $2]; bytes[key] = ($6 - start_b[$1 " " $2]) / 1e6 }
END {
    print "| prompts | hosts x workers | Mbit/s | placement | MB between hosts: predicted | seen | ratio | largest rank load / mean: worst layer | mean of layers |"
    print "|---|---|---|---|---|---|---|---|---|"
    for (i = 1; i <= n; i++) {
        split(runs[i], f); key = f[1] " " f[2] " " f[3] " " f[4]
        if (f[3] != "none")
            printf "| %s | %d x %d | %s | %s | %.1f | %.1f | %.3f | %.2f | %.2f |\n", f[1], f[2], W, f[3], f[4], mb[key],
                   bytes[key], bytes[key] / mb[key], largest[key], 1 + imbalance[key]
    }
    print ""
    print "| prompts | hosts x workers | Mbit/s | placement | transfer s: predicted | seen | experts s: predicted | tokens/s | of contiguous: predicted | seen |"
    print "|---|---|---|---|---|---|---|---|---|---|"
    for (i = 1; i <= n; i++) {
        split(runs[i], f); key = f[1] " " f[2] " " f[3] " " f[4]
        if (f[3] == "none") continue
        free = f[1] " " f[2] " none " ; base = f[1] " " f[2] " " f[3] " contiguous"
        rest = seconds[free "contiguous"] # all but the transfer, which is next to nothing without a limit
        was = rest + exchange[base]; is = rest + exchange[key] + compute[key] - compute[base]
        printf "| %s | %d x %d | %s | %s | %.2f | %.2f | %.2f | %.0f | %.2f | %.2f |\n", f[1], f[2], W, f[3], f[4], exchange[key],
               seconds[key] - rest, compute[key], tokens[key] / seconds[key], was / is, seconds[base] / seconds[key]
    }
}'
awk -v W="$workers_per_host" "$tables" "$folder/predicted" "$folder/results"
if [ -e "$folder/differ" ]; then
    say "the scores differ between placements"
    exit 1
fi
say "the scores are the same bytes under every placement"
