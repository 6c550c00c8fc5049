#!/usr/bin/env bash
# The installed library as a stranger's program meets it: cmake --install to some place, pkg-config, the example.
#   tests/client/test_install.sh BUILD_DIR COMPILER
set -euo pipefail
build=$1 compiler=$2
example=$(dirname "$0")/../../client/example/example.c
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake --install "$build" --prefix "$work/prefix" >"$work/log" || { cat "$work/log"; exit 1; }
pc=$(find "$work/prefix" -name coterie-client.pc)
export PKG_CONFIG_PATH=${pc%/*}
libdir=$(pkg-config --variable=libdir coterie-client)

# Links, loads, and says how it is called.
try() {
    local status=0
    env LD_LIBRARY_PATH="$libdir" "$1" >"$work/said" 2>&1 || status=$?
    [ "$status" -eq 2 ] && grep -q "usage: example" "$work/said" || { echo "$1: status $status"; cat "$work/said"; exit 1; }
}

# shellcheck disable=SC2046  # pkg-config's answer is words
"$compiler" -Wall -Werror -o "$work/shared" "$example" $(pkg-config --cflags --libs coterie-client)
try "$work/shared"
rm "$libdir"/libcoterie-client.so*
# shellcheck disable=SC2046
"$compiler" -Wall -Werror -o "$work/static" "$example" $(pkg-config --static --cflags --libs coterie-client)
try "$work/static"
"$work/prefix/bin/coterie" --version | grep -q '^coterie [0-9]'
echo "all as wanted"
