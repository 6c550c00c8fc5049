#!/usr/bin/env bash
# From a fresh clone to generated text: installs what is missing, builds, serves the demo model with one coordinator and
# two CPU workers, streams a continuation of a prompt to standard output, and stops everything again.
#   deploy/quickstart.sh [PROMPT]
# Only the generated text goes to standard output.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/guard.sh
guard_patience=80

run_dir=$(mktemp -d)
trap 'guard_end; rm -rf "$run_dir"' EXIT

guard_run ./deploy/build.sh </dev/null >&2

socket=$run_dir/coterie.sock
guard_start ./deploy/run.sh -n 3 serve demo/model --listen "unix:$socket" --pid-file "$run_dir/pid" </dev/null >&2
server=$guard_pid
for _ in $(seq 600); do
    [ -S "$socket" ] && break
    kill -0 "$server" 2>/dev/null || break
    sleep 0.05
done

prompt=${1:-"/* Returns the number of bytes that were written to the buffer, or a negative error code. */
static int "}
guard_run ./build/bin/coterie generate --connect "unix:$socket" --max-tokens 200 --ignore-eos --seed 1 \
    --timeout 120000 -- "$prompt" </dev/null
echo

./build/bin/coterie drain --connect "unix:$socket" </dev/null >&2
guard_wait "$server"
