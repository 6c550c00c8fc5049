#!/usr/bin/env bash
# Arrows go down only (docs/design.md): a folder includes itself and the folders named for it, nothing else. MPI stays in
# comm/, CUDA in kernels/ and comm/ (elsewhere only its stream handle), GLPK and all that is GPL in placement/solve/.
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

# In the files of FOLDERS, no line matches PATTERN (but those that match EXCEPT).
none_in() {
    local pattern=$1 except=$2 why=$3
    shift 3
    git ls-files "$@" | xargs grep -HnE "$pattern" | grep -vE "$except" && complain "$why"
}

for file in $(git ls-files '*.c' '*.h' '*.cu' '*.cuh'); do
    folder=${file%%/*}
    [ -n "${may[$folder]+set}" ] || continue
    for include in $(sed -nE 's/^ *# *include *"([^"]*)".*/\1/p' "$file"); do
        to=${include%%/*}
        case "$include" in
            coterie_client.h) continue ;;
            placement/solve/*) case "$file" in placement/solve/*) ;; *) complain "$file includes $include, which is GPL" ;; esac ;;
        esac
        [ "$to" = "$folder" ] && continue
        case "$file:$to" in kernels/lab/*:model | kernels/lab/*:comm) continue ;; esac # the lab is a program above the folders
        case " ${may[$folder]} " in *" $to "*) ;; *) complain "$file includes $include: $folder/ may not use $to/" ;; esac
    done
done

sources=('*.c' '*.h' '*.cu' '*.cuh' ':!tests' ':!tools')
none_in '\bMPI_[A-Z]|# *include *<mpi\.h>' '^$' "MPI belongs to comm/" "${sources[@]}" ':!comm'
none_in '\b(cuda|nccl|cublas)[A-Z][A-Za-z]*|# *include *<(cuda|nccl|cublas)' 'cudaStream_t' \
    "CUDA belongs to kernels/ and comm/" "${sources[@]}" ':!kernels' ':!comm'
none_in '# *include *<glpk\.h>|\bglp_' '^$' "GLPK belongs to placement/solve/" "${sources[@]}" ':!placement/solve'
exit $bad
