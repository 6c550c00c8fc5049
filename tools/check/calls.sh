#!/usr/bin/env bash
# Memory comes from base/memory.h alone; nothing blocks inside MPI but Init and Finalize.
set -u
cd "$(dirname "$0")/../.."
bad=0
sources=$(git ls-files 'base/*.c' 'proto/*.c' 'model/*.c' 'comm/*.c' 'kernels/*.c' 'placement/*.c' 'worker/*.c' \
    'coordinator/*.c' 'cli/*.c' 'client/*.c')
# client/ is a library of its own, which shares no allocator with its users; GLPK and SSL own theirs.
plain=$(echo "$sources" | grep -v -e '^base/memory.c$' -e '^client/')
grep -nE '(^|[^_a-zA-Z.>])(malloc|calloc|realloc|free|strdup|strndup|aligned_alloc|posix_memalign)\(' $plain && bad=1
grep -nE 'MPI_(Recv|Send|Ssend|Wait|Waitall|Waitany|Barrier|Bcast|Reduce|Allreduce|Gather|Allgather|Alltoall|Alltoallv|Probe|Comm_dup|Comm_split)\(' $sources && bad=1
[ $bad -eq 0 ] || echo "use base/memory.h; poll with MPI_Test and a deadline"
exit $bad
