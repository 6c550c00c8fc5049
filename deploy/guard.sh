# Sourced by the scripts beside it. Whatever they start runs in a process group of its own, so that Ctrl-C, or a signal to
# the script alone, ends all of it: SIGTERM first, SIGKILL after three seconds, exit status 130. A script that runs another
# guarded one sets guard_patience (twentieths of a second) higher, so that the inner one is done first.

guard_groups=()
guard_patience=60

# Starts a command in the background in its own process group; its pid is in guard_pid.
guard_start() {
    set -m
    "$@" &
    guard_pid=$!
    set +m
    guard_groups+=("$guard_pid")
}

# Waits for it; gives its exit status.
guard_wait() {
    local status=0
    wait "$1" || status=$?
    return "$status"
}

guard_run() {
    guard_start "$@"
    guard_wait "$guard_pid"
}

guard_alive() {
    local group
    for group in "${guard_groups[@]}"; do
        kill -0 -- "-$group" 2>/dev/null && return 0
    done
    return 1
}

# Ends all that is still running.
guard_end() {
    local group
    for group in "${guard_groups[@]}"; do kill -TERM -- "-$group" 2>/dev/null || true; done
    for _ in $(seq "$guard_patience"); do
        guard_alive || break
        sleep 0.05
    done
    for group in "${guard_groups[@]}"; do kill -KILL -- "-$group" 2>/dev/null || true; done
    guard_groups=()
    return 0
}

guard_interrupted() {
    trap '' INT TERM
    guard_end
    exit 130
}
trap guard_interrupted INT TERM
