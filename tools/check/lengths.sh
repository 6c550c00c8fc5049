#!/usr/bin/env bash
# Functions of at most 100 lines (kernels 120), files of at most 800, at most six parameters.
set -u
cd "$(dirname "$0")/../.."
command -v ctags >/dev/null || { echo "universal-ctags is missing: run deploy/install.sh deploy/packages-test.txt"; exit 1; }

bad=0
files=$(git ls-files '*.c' '*.h' '*.cu' '*.cuh' | grep -v -e '_unicode_table\.h$')
while read -r lines file; do
    [ "$file" = total ] && continue
    [ "$lines" -gt 800 ] && { echo "$file: $lines lines, at most 800"; bad=1; }
done < <(wc -l $files)

# name, file, first line, last line, signature
while IFS=$'\t' read -r name file first last signature; do
    limit=100
    case "$file" in kernels/*) limit=120 ;; esac
    length=$((last - first + 1))
    [ "$length" -gt "$limit" ] && { echo "$file:$first: $name has $length lines, at most $limit"; bad=1; }
    commas=${signature//[^,]/}
    [ "${#commas}" -gt 5 ] && { echo "$file:$first: $name has $((${#commas} + 1)) parameters, at most 6"; bad=1; }
done < <(ctags -x --c-kinds=f --fields=+neS --_xformat=$'%N\t%F\t%n\t%e\t%S' $files 2>/dev/null)
exit $bad
