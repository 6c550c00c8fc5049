#!/usr/bin/env bash
# Formatted by clang-format 14 with .clang-format.
set -u
cd "$(dirname "$0")/../.."
tool=$(command -v clang-format-14 || command -v clang-format) || { echo "clang-format 14 is missing"; exit 1; }
"$tool" --version | grep -q 'version 14\.' || { echo "$tool is not version 14, which the files are formatted with"; exit 1; }
git ls-files '*.c' '*.h' | grep -v -e '_unicode_table\.h$' | xargs "$tool" --dry-run -Werror
