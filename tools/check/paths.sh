#!/usr/bin/env bash
# Files that README.md and docs/ name exist.
set -u
cd "$(dirname "$0")/../.."
bad=0
for page in README.md docs/*.md; do
    for path in $(grep -oE '\b(base|proto|model|comm|kernels|placement|worker|client|coordinator|cli|deploy|tests|tools|demo|docs)/[A-Za-z0-9_./-]*[A-Za-z0-9_/]' "$page" | sort -u); do
        [ -e "$path" ] || compgen -G "$path*" >/dev/null || { echo "$page names $path, which is not there"; bad=1; }
    done
done
exit $bad
