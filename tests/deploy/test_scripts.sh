#!/usr/bin/env bash
# The scripts of deploy/: what they refuse, what they start mpirun with, and that a signal leaves nothing running. Programs
# of this test's own stand in for mpirun and coterie.
set -u
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
unset "${!COTERIE_@}"

check() {
    if [ "$2" = "$3" ]; then return; fi
    echo "$1: \"$2\", wanted \"$3\""
    bad=1
}

# Runs a command; its status and output are compared with STATUS and PATTERN.
refused() {
    local status=0 said wanted=$1 words=$2
    shift 2
    said=$("$@" 2>&1 </dev/null) || status=$?
    check "$* (status)" "$status" "$wanted"
    case "$said" in *"$words"*) ;; *) check "$*" "$said" "… $words …" ;; esac
}

refused 2 "needs a number of ranks" ./deploy/run.sh -n x serve model
refused 2 "say what to run" ./deploy/run.sh -n 3
refused 4 "run deploy/build.sh first" ./deploy/run.sh --program "$work/absent" serve model
refused 0 "Runs \`coterie serve\`," ./deploy/run.sh --help
refused 2 "say for how many seconds" ./tests/fuzz/run.sh
refused 0 "" ./deploy/install.sh /dev/null

# mpirun: writes down its words, then stands for the job until its rank 0 ends.
mkdir "$work/bin"
cat >"$work/bin/mpirun" <<'END'
#!/usr/bin/env bash
printf '%s\n' "$@" >"$TEST_WORK/words"
while [ $# -gt 0 ]; do [ "$1" = --pid-file ] && pid_file=$2; shift; done
[ -n "${pid_file-}" ] || exit 3
bash -c 'trap "echo drained >$0/rank0; exit 0" TERM; echo $$ >"$1"; while :; do sleep 0.02; done' "$TEST_WORK" "$pid_file"
END
printf '#!/bin/sh\n' >"$work/bin/coterie"
chmod +x "$work/bin/"*
export TEST_WORK=$work

start_job() {
    rm -f "$work/words" "$work/rank0"
    PATH=$work/bin:$PATH env --default-signal=INT,HUP "$@" </dev/null >/dev/null 2>&1 &
    job=$!
}
await() {
    for _ in $(seq 200); do
        [ -s "$1" ] && return
        sleep 0.02
    done
    check "$1" "absent" "there"
}
has_word() {
    grep -qxF -- "$1" "$work/words" || check "mpirun's words" "$(tr '\n' ' ' <"$work/words")" "… $1 …"
}

sleep 60 &
stranger=$!
for signal in INT TERM; do
    echo "$stranger" >"$work/pid" # of a job long gone, whose pid is somebody else's now
    COTERIE_THREADS=2 start_job ./deploy/run.sh -n 4 --program "$work/bin/coterie" serve model --pid-file "$work/pid"
    await "$work/words"
    await "$work/pid"
    kill -"$signal" "$job"
    wait "$job"
    check "run.sh after SIG$signal" "$?" 0
    await "$work/rank0"
    for word in -n 4 --oversubscribe -x COTERIE_THREADS serve model; do has_word "$word"; done
done
kill "$stranger" || check "a stranger with the pid of an old job" "ended" "runs"

# A guarded script whose command starts others and ignores what it can: all are gone, the status is 130.
cat >"$work/guarded" <<'END'
. deploy/guard.sh
guard_patience=6
busy() {
    bash -c 'trap "" INT TERM; echo $$ >>"$TEST_WORK/pids"; while :; do sleep 0.05; done' &
    bash -c 'echo $$ >>"$TEST_WORK/pids"; sleep 100'
}
guard_run busy
END
cat >"$work/nested" <<'END'
. deploy/guard.sh
guard_patience=20
guard_run bash "$TEST_WORK/guarded"
END
for script in guarded nested; do
    for signal in INT TERM HUP; do
        rm -f "$work/pids"
        start_job bash "$work/$script"
        for _ in $(seq 200); do
            [ "$(wc -l 2>/dev/null <"$work/pids")" = 2 ] && break
            sleep 0.02
        done
        kill -"$signal" "$job"
        wait "$job"
        check "a $script script after SIG$signal" "$?" 130
        sleep 0.1
        for pid in $(cat "$work/pids"); do
            case "$(ps -o stat= -p "$pid")" in ''|Z*) ;; *) check "process $pid" "runs" "gone"; kill -KILL "$pid" ;; esac
        done
    done
done

# Its status is the command's.
check "a guarded failure" "$(. deploy/guard.sh; guard_run bash -c 'exit 7'; echo $?)" 7

[ "$bad" -eq 0 ] && echo "all as wanted"
exit "$bad"
