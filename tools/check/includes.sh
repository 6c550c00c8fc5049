#!/usr/bin/env bash
# Arrows go down only (docs/design.md): a folder includes itself and the folders named for it, nothing else. MPI stays in
# comm/, CUDA in kernels/ and comm/, GLPK in placement/solve/.
set -u
cd "$(dirname "$0")/../.."

declare -A may=(
    [base]=""
    [proto]="base"
    [model]="base proto"
    [comm]="base proto"
    [kernels]="base proto"
    [placement]="base proto"
    [worker]="base proto model comm kernels placement"
    [client]="base proto"
    [coordinator]="base proto model comm kernels placement"
    [cli]="base proto model comm kernels placement worker client coordinator"
)
bad=0
complain() { echo "$1"; bad=1; }

for file in $(git ls-files '*.c' '*.h' '*.cu' '*.cuh'); do
    folder=${file%%/*}
    [ "$folder" = tests ] && continue
    [ -n "${may[$folder]+set}" ] || continue
    for include in $(sed -n 's/^ *# *include "\([^"]*\)".*/\1/p' "$file"); do
        to=${include%%/*}
        [ "$to" = "$folder" ] && continue
        case "$include" in coterie_client.h) continue ;; esac
        case " ${may[$folder]} " in *" $to "*) ;; *) complain "$file includes $include: $folder/ may not use $to/" ;; esac
    done
    case "$folder" in comm) ;; *)
        grep -Hn '#include <mpi.h>' "$file" && complain "$file: MPI belongs to comm/" ;; esac
    case "$folder" in comm|kernels) ;; *)
        grep -HnE '#include <(cuda|nccl|cublas)' "$file" && complain "$file: CUDA belongs to kernels/ and comm/" ;; esac
    case "$file" in placement/solve/*) ;; *)
        grep -Hn '#include <glpk.h>' "$file" && complain "$file: GLPK belongs to placement/solve/" ;; esac
done
exit $bad
