#!/usr/bin/env bash
# Every header compiles alone, as C.
set -u
cd "$(dirname "$0")/../.."
bad=0
generated=$(find build -path '*generated/proto/coterie.pb-c.h' 2>/dev/null | head -n 1)
for header in $(git ls-files '*.h'); do
    case "$header" in kernels/cpu/prims_body.h|kernels/cpu/vec.h|kernels/cpu/vec_*.h) continue ;; esac # included once for each instruction set
    cc -std=gnu17 -D_GNU_SOURCE -DCOTERIE_VERSION='""' -DCOTERIE_SOURCE_DIR='""' -DCOTERIE_BINARY_DIR='""' -I. -Iclient \
        ${generated:+-I"${generated%/proto/coterie.pb-c.h}"} -Wall -Wextra -Werror -Wno-unused-function -fsyntax-only \
        -x c "$header" || bad=1
done
exit $bad
