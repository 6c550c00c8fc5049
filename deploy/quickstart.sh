#!/usr/bin/env bash
# From a fresh clone to generated text: installs what is missing, builds, serves the demo model with one coordinator and
# two CPU workers, streams a continuation of a prompt to standard output, and stops everything again.
# Only the generated text goes to standard output.
set -euo pipefail
cd "$(dirname "$0")/.."

run_dir=$(mktemp -d)
server=
generator=

finish() {
    local status=$?
    trap - EXIT INT TERM
    [ -n "$generator" ] && kill -INT "$generator" 2>/dev/null
    if [ -n "$server" ]; then
        kill -TERM "$server" 2>/dev/null || true
        for _ in $(seq 80); do
            kill -0 "$server" 2>/dev/null || break
            sleep 0.05
        done
        kill -KILL "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$run_dir"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

# The build runs as a child that Ctrl-C can reach while bash waits for it.
./deploy/build.sh </dev/null >&2 &
wait $!

socket=$run_dir/coterie.sock
./deploy/run.sh -n 3 serve demo/model --listen "unix:$socket" </dev/null >&2 &
server=$!

prompt=${1:-"/* Returns the number of bytes that were written to the buffer, or a negative error code. */
static int "}
./build/bin/coterie generate --connect "unix:$socket" --max-tokens 200 --ignore-eos --seed 1 --timeout 120000 -- "$prompt" &
generator=$!
wait "$generator"
generator=
echo
