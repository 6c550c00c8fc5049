#!/usr/bin/env bash
# Packs the C libraries of deploy/packages-bundle.txt for a machine that has CUDA, MPI, a compiler and CMake but no
# package registry: downloads the Debian packages, unpacks them into PREFIX (default build/bundle) without installing
# anything, and makes their pkg-config files point there. Copy the tree to the machine with PREFIX in it, under any path;
# deploy/gpu-test.sh finds it.
#   deploy/bundle.sh [PREFIX]
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/guard.sh

prefix=${1:-build/bundle}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A package of another release may bear another number at its end: libamd2, libamd3.
available() {
    local name=$1 stem found
    if apt-cache show "$name" >/dev/null 2>&1; then echo "$name"; return; fi
    stem=$(sed -E 's/[0-9]+(t64)?$//' <<<"$name")
    found=$(apt-cache pkgnames "$stem" | grep -E "^${stem}[0-9]+(t64)?$" | sort -V | tail -n 1)
    [ -n "$found" ] || { echo "coterie: no package $name here; apt-get update, or mend deploy/packages-bundle.txt" >&2; return 1; }
    echo "$found"
}

packages=()
for name in $(sed 's/#.*//' deploy/packages-bundle.txt); do packages+=("$(available "$name")"); done
chmod 755 "$work" # apt downloads as a user of its own
(cd "$work" && guard_run apt-get -qq download "${packages[@]}") </dev/null >&2

rm -rf "$prefix"
mkdir -p "$prefix"
for package in "$work"/*.deb; do dpkg-deb -x "$package" "$prefix"; done
rm -rf "$prefix/usr/share/doc" "$prefix/usr/share/man" "$prefix/usr/share/locale"
# Relative to each file, so that the prefix may lie anywhere.
find "$prefix" -name '*.pc' -exec sed -i -E \
    -e 's#^prefix=.*#prefix=${pcfiledir}/../../..#' -e 's#=/usr/(include|lib)#=${prefix}/\1#' {} +
echo "coterie: packed ${#packages[@]} packages into $prefix ($(du -sh "$prefix" | cut -f1))" >&2
