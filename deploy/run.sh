#!/usr/bin/env bash
# Runs `coterie serve`, `coterie score` or `coterie calibrate` under mpirun with the options it needs:
#   deploy/run.sh [-n RANKS] [--hostfile FILE] [--program PATH] [--mpi "OPTIONS"] serve|score|calibrate MODEL_DIR [flags]
# RANKS counts the coordinator: 3 is one coordinator and two workers (the default). Ctrl-C and SIGTERM let requests
# finish (`serve`) and end the job; a second one ends it at once.
set -u

here=$(cd "$(dirname "$0")/.." && pwd)
program=$here/build/bin/coterie
ranks=3
options=()
while [ $# -gt 0 ]; do
    case "$1" in
        -n) ranks=${2-}; shift 2 || exit 2 ;;
        --hostfile) options+=(--hostfile "${2-}"); shift 2 || exit 2 ;;
        --program) program=${2-}; shift 2 || exit 2 ;;
        --mpi) read -r -a more <<<"${2-}"; options+=("${more[@]}"); shift 2 || exit 2 ;;
        -h|--help) sed -n '2,6s/^# //p' "$0"; exit 0 ;;
        *) break ;;
    esac
done
case "$ranks" in ''|*[!0-9]*) echo "deploy/run.sh: -n needs a number of ranks" >&2; exit 2 ;; esac
[ $# -gt 0 ] || { echo "deploy/run.sh: say what to run: serve MODEL_DIR or score MODEL_DIR …" >&2; exit 2; }
[ -x "$program" ] || { echo "deploy/run.sh: $program is missing: run deploy/build.sh first" >&2; exit 4; }

options+=(-q --oversubscribe --bind-to none -n "$ranks")
[ "$(id -u)" -eq 0 ] && options+=(--allow-run-as-root)
for name in $(compgen -e COTERIE_); do options+=(-x "$name"); done
# Shared memory without process_vm_readv where the kernel forbids that call to processes like ours.
if [ "$(cat /proc/sys/kernel/yama/ptrace_scope 2>/dev/null || echo 1)" != 0 ]; then
    options+=(--mca btl_vader_single_copy_mechanism none)
fi

# Rank 0 writes its pid: SIGTERM to it drains, where mpirun would give its ranks one second.
pid_file=${COTERIE_PID_FILE-}
own_pid_file=
if [ "$1" = serve ]; then
    words=("$@")
    for ((i = 0; i < ${#words[@]}; i++)); do
        case "${words[i]}" in
            --pid-file) pid_file=${words[i + 1]-} ;;
            --pid-file=*) pid_file=${words[i]#*=} ;;
        esac
    done
    if [ -z "$pid_file" ]; then
        own_pid_file=$(mktemp -u "${TMPDIR:-/tmp}/coterie-pid.XXXXXX")
        pid_file=$own_pid_file
        set -- "$@" --pid-file "$pid_file"
    fi
    [ -f "$pid_file" ] && rm -f "$pid_file" # of a job before: that pid may be anybody's now
else
    pid_file=
fi

# Only `score --in -` reads standard input.
input=/dev/null
case " $* " in *" --in - "*|*" --in=- "*) input=/dev/stdin ;; esac

# In a process group of its own: a Ctrl-C at the terminal comes to this script alone.
set -m
mpirun "${options[@]}" "$program" "$@" <"$input" &
job=$!
set +m

asked=0
end() {
    asked=$((asked + 1))
    if [ "$asked" -eq 1 ] && [ -n "$pid_file" ] && [ -s "$pid_file" ] && kill -TERM "$(cat "$pid_file")" 2>/dev/null; then
        return
    fi
    kill -TERM "$job" 2>/dev/null
}
trap end INT TERM HUP

wait "$job"
status=$?
while kill -0 "$job" 2>/dev/null; do # a signal interrupted the wait
    wait "$job"
    status=$?
done
[ -n "$own_pid_file" ] && rm -f "$own_pid_file"
[ "$asked" -gt 0 ] && [ "$status" -ne 0 ] && status=130
exit "$status"
