#!/usr/bin/env bash
# Memory comes from base/memory.h alone; nothing blocks inside MPI but its start and end; no library ends the process; no
# state that changes stands outside base/ but behind a handle.
set -u
cd "$(dirname "$0")/../.."
bad=0
sources=$(git ls-files '*.c' '*.h' '*.cu' '*.cuh' ':!tests' ':!tools' ':!demo')

# In the files left after leaving out those named, no line matches PATTERN (but those that match EXCEPT).
none_in() {
    local pattern=$1 except=$2 left_out=$3 why=$4
    echo "$sources" | grep -vE "$left_out" | xargs grep -HnE "$pattern" | grep -vE "$except" || return
    echo "$why"
    bad=1
}

# client/ is a library of its own, which shares no allocator with its users.
none_in '(^|[^_a-zA-Z.>])(malloc|calloc|realloc|free|strdup|strndup|asprintf|vasprintf|aligned_alloc|posix_memalign) ?\(' '^$' \
    '^base/memory\.c|^client/' "use base/memory.h"
none_in '\bMPI_[A-Z][A-Za-z_]*\(' \
    'MPI_(I[a-z]+|Test|Init_thread|Finalize|Abort|Cancel|Request_free|Get_count|Error_string|Comm_(rank|size|set_errhandler))\(' \
    '^$' "these calls may block: start with an I… call, poll with MPI_Test until a deadline"
none_in '(^|[^_a-zA-Z>.])(exit|abort)\(' '^$' '^client/example/' "a library returns a status"
none_in '^ *(static|_Thread_local)[^(]*(;|=)' '\bconst(expr)?\b' '^base/' "put what changes into a struct that a handle leads to"
exit $bad
