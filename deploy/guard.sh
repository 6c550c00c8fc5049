# Sourced by the scripts beside it. Whatever they start runs in a process group of its own, so that Ctrl-C, or a signal to
# the script alone, ends all of it: SIGTERM, once more half way, SIGKILL after guard_patience twentieths of a second; exit
# status 130. A script that runs another guarded one has more patience than that one, which is then done first.

guard_groups=()
guard_patience=50

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

guard_signal() {
    local group
    for group in "${guard_groups[@]}"; do kill "-$1" -- "-$group" 2>/dev/null || true; done
}

# Ends all that is still running. To deploy/run.sh the second SIGTERM means: do not wait for requests.
guard_end() {
    local tick
    guard_signal TERM
    for ((tick = 1; tick <= guard_patience; tick++)); do
        guard_alive || break
        [ "$tick" -ne $((guard_patience / 2)) ] || guard_signal TERM
        sleep 0.05
    done
    guard_signal KILL
    guard_groups=()
}

guard_interrupted() {
    trap '' INT TERM HUP
    guard_end
    exit 130
}
trap guard_interrupted INT TERM HUP
