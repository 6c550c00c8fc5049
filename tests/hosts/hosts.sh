#!/usr/bin/env bash
# Runs a command on the first of several hosts that exist only while it runs:
#   tests/hosts/hosts.sh [-n HOSTS] [-w WORKERS] [--rate RATE] COMMAND…
# HOSTS (2) hosts named host0, host1, …, with room for WORKERS (2) worker ranks each and for the coordinator on host0.
# Open MPI's variables are set so that deploy/run.sh (or mpirun) in COMMAND spreads its ranks over them: ranks of one
# host share memory, hosts talk TCP over a link of RATE (tc's notation, 100mbit; default: as fast as it goes).
# COMMAND and what it starts may call back:
#   $HOSTS --on HOST COMMAND…     run it there
#   $HOSTS --set-rate RATE        shape what every host sends; "none": no limit
#   $HOSTS --bytes                bytes that have left the hosts so far, all together
#
# A host is a network and a UTS namespace: Open MPI takes ranks with one host name for one node. All of it, the bridge,
# the hosts file, /dev/shm and every process, lives in namespaces of this script's own and goes with them, even at
# SIGKILL; nothing of the machine's own network or files is touched. Exit status 77, with a line that says so, where
# namespaces cannot be made.
set -u

self=$(readlink -f "$0")

fail() { echo "hosts.sh: $*" >&2; exit 2; }

# ---- inside: one host ----

on_host() {
    local host=$1
    shift
    [ -e "$HOSTS_DIR/net/$host" ] || fail "there is no host \"$host\""
    exec nsenter --net="$HOSTS_DIR/net/$host" --uts="$HOSTS_DIR/uts/$host" "$@"
}

all_hosts() { ls "$HOSTS_DIR/net"; }

set_rate() {
    local host
    for host in $(all_hosts); do
        (on_host "$host" tc qdisc del dev eth0 root) 2>/dev/null
        [ "$1" = none ] && continue
        (on_host "$host" tc qdisc add dev eth0 root tbf rate "$1" burst 32k limit 4m) || fail "no rate \"$1\""
    done
}

count_bytes() {
    local host sum=0
    for host in $(all_hosts); do
        sum=$((sum + $(on_host "$host" awk '$1 == "eth0:" { print $10 }' /proc/thread-self/net/dev)))
    done
    echo "$sum"
}

case "${1-}" in
    --on|--set-rate|--bytes) [ -n "${HOSTS_DIR-}" ] || fail "$1 is for a command that runs on a test host" ;;
esac
case "${1-}" in
    --on) shift; host=${1-}; shift; on_host "$host" "$@" ;;
    --rsh) shift; host=${1-}; shift; on_host "$host" sh -c "$*" ;; # as mpirun calls ssh
    --set-rate) set_rate "${2-}"; exit ;;
    --bytes) count_bytes; exit ;;
esac

# ---- inside: making the hosts; our own network namespace is the switch ----

make_host() {
    local index=$1 host=host$1
    touch "$HOSTS_DIR/net/$host" "$HOSTS_DIR/uts/$host"
    unshare --net="$HOSTS_DIR/net/$host" --uts="$HOSTS_DIR/uts/$host" hostname "$host" &&
        ip link add "port$index" type veth peer name eth0 netns "$HOSTS_DIR/net/$host" &&
        ip link set "port$index" master switch up &&
        (on_host "$host" ip address add "10.0.0.$((index + 1))/24" dev eth0) &&
        (on_host "$host" sh -c 'echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6' || true) &&
        (on_host "$host" ip link set eth0 up) &&
        (on_host "$host" ip link set lo up)
}

make_hosts() {
    local hosts=$1 workers=$2 index
    # Shared memory of other jobs may have the names of ours; and all we write goes when we go.
    mount -t tmpfs tmpfs /dev/shm && mkdir -p "$HOSTS_DIR"/{net,uts,tmp} || return
    ip link add switch type bridge && ip link set switch up || return
    echo "127.0.0.1 localhost" >"$HOSTS_DIR/hosts"
    for ((index = 0; index < hosts; index++)); do
        make_host "$index" || return
        echo "10.0.0.$((index + 1)) host$index" >>"$HOSTS_DIR/hosts"
        echo "host$index slots=$((workers + (index == 0)))" >>"$HOSTS_DIR/hostfile"
    done
    mount --bind "$HOSTS_DIR/hosts" /etc/hosts
}

if [ "${1-}" = --inside ]; then
    hosts=$2 workers=$3 rate=$4
    shift 4
    export HOSTS_DIR=/dev/shm/hosts
    problem=$(make_hosts "$hosts" "$workers" 2>&1) || { echo "skipped: no test hosts: ${problem##*$'\n'}" >&2; exit 77; }
    [ "$rate" = none ] || set_rate "$rate"
    export HOSTS=$self TMPDIR=$HOSTS_DIR/tmp
    export OMPI_MCA_orte_default_hostfile=$HOSTS_DIR/hostfile OMPI_MCA_plm_rsh_agent="$self --rsh"
    export OMPI_MCA_btl=self,vader,tcp OMPI_MCA_btl_tcp_if_include=eth0 OMPI_MCA_oob_tcp_if_include=eth0
    (on_host host0 "$@")
    exit
fi

# ---- outside ----

hosts=2 workers=2 rate=none
while [ $# -gt 0 ]; do
    case "$1" in
        -n) hosts=${2-}; shift 2 || exit 2 ;;
        -w) workers=${2-}; shift 2 || exit 2 ;;
        --rate) rate=${2-}; shift 2 || exit 2 ;;
        -h|--help) sed -n '2,17s/^# \{0,1\}//p' "$self"; exit 0 ;;
        --) shift; break ;;
        -*) fail "unknown flag $1; --help lists them" ;;
        *) break ;;
    esac
done
case "$hosts$workers" in ''|*[!0-9]*) fail "-n and -w need numbers" ;; esac
[ "$hosts" -ge 1 ] && [ "$hosts" -le 64 ] || fail "-n $hosts: from 1 to 64 hosts"
[ $# -gt 0 ] || fail "say what to run; --help explains"

for tool in ip tc nsenter setpriv; do
    command -v "$tool" >/dev/null || { echo "skipped: no test hosts: $tool is not installed" >&2; exit 77; }
done
kinds=(--net --mount --uts --ipc --pid --fork --kill-child --mount-proc)
[ "$(id -u)" -eq 0 ] || kinds+=(--user --map-root-user)
problem=$(unshare "${kinds[@]}" true 2>&1) || { echo "skipped: no test hosts: $problem" >&2; exit 77; }

# All inside dies with the first process there, that one with unshare, and unshare with this script.
setpriv --pdeathsig KILL unshare "${kinds[@]}" "$self" --inside "$hosts" "$workers" "$rate" "$@" <&0 &
job=$!
trap 'kill -KILL "$job" 2>/dev/null; wait "$job" 2>/dev/null; exit 130' INT TERM HUP
wait "$job"
