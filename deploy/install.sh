#!/usr/bin/env bash
# Installs those Debian packages of the given lists that are missing. Asks nothing; does nothing if none is missing.
set -euo pipefail

missing=()
for package in $(sed 's/#.*//' "$@"); do
    [ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null)" = "ii " ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "coterie: install as root: ${missing[*]}" >&2; exit 5; }
    as_root=(sudo)
fi
echo "coterie: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { "${as_root[@]}" apt-get update && "${as_root[@]}" apt-get install -y --no-install-recommends "${missing[@]}"; } \
    </dev/null >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "coterie: apt-get could not install: ${missing[*]}" >&2
    exit 5
fi
