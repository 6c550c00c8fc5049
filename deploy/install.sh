#!/usr/bin/env bash
# Installs those Debian packages of the given lists that are missing. Asks nothing; does nothing if none is missing.
set -euo pipefail

missing=()
for package in $(sed 's/#.*//' "$@"); do
    [ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null)" = "ii " ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=(env DEBIAN_FRONTEND=noninteractive)
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "coterie: install as root: ${missing[*]}" >&2; exit 5; }
    as_root=(sudo env DEBIAN_FRONTEND=noninteractive)
fi
echo "coterie: installing ${missing[*]}" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() {
    "${as_root[@]}" dpkg --configure -a && # whatever an interrupted run left behind
        "${as_root[@]}" apt-get update &&
        "${as_root[@]}" apt-get install -y --no-install-recommends "${missing[@]}"
}
if ! install </dev/null >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "coterie: apt-get could not install: ${missing[*]}" >&2
    exit 5
fi
