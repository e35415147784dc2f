#!/usr/bin/env bash
# Build a collection with a Slurm job array: plan once, write shares anywhere in any order, merge when all are done.
#   bash launch/build_slurm.sh --config FILE --shares N [--set KEY=VALUE ...] [-- SBATCH_OPTION ...]
#   bash launch/build_slurm.sh --config configs/build/sen12ms.yaml --shares 40 \
#       --set input=/archive/raw --set output=/scratch/shards/sen12ms -- --partition=cpu --cpus-per-task=8 --mem=16G
# Run it on a login node, in an environment that has shard-builder; the nodes need the same environment and paths.
# A share that a node loses is run again by itself (--requeue), or with this very command: what is there is kept.
set -euo pipefail
fail() { printf 'error: %s\n' "$*" >&2; exit 2; }

config="" shares="" settings=()
while [ $# -gt 0 ]; do
    case $1 in
        --config | --shares | --set) [ $# -ge 2 ] || fail "$1 needs a value" ;;&
        --config) config=$2; shift 2 ;;
        --shares) shares=$2; shift 2 ;;
        --set) settings+=(--set "$2"); shift 2 ;;
        --) shift; break ;;
        -h | --help) sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) fail "unknown option $1; known: --config FILE, --shares N, --set KEY=VALUE, and options of sbatch after --" ;;
    esac
done
[ -f "$config" ] || fail "--config: found no file '$config'"
[[ $shares =~ ^[1-9][0-9]*$ ]] || fail "--shares: found '$shares', expected how many tasks the job array has"
command -v sbatch >/dev/null || fail "found no sbatch here; run this where jobs are submitted"
command -v shard-builder >/dev/null || fail "found no shard-builder; activate the environment that has it"

# Quoted for the shell that runs the job.
build=$(printf '%q ' --config "$(realpath "$config")" "${settings[@]}")
name=shards-$(basename "$config" .yaml)

submit() { sbatch --parsable --job-name="$name" --chdir="$PWD" --requeue "$@"; }

plan=$(submit "$@" --wrap "shard-builder plan --save $build")
array=$(submit "$@" --dependency="afterok:${plan%%;*}" --array="0-$((shares - 1))" \
    --wrap "shard-builder build --task \$SLURM_ARRAY_TASK_ID/$shares --set workers=\${SLURM_CPUS_PER_TASK:-1} $build")
merge=$(submit "$@" --dependency="afterok:${array%%;*}" --wrap "shard-builder merge $build")

cat <<EOF
Submitted: plan ${plan%%;*}, shares ${array%%;*}_[0-$((shares - 1))], merge ${merge%%;*}.
How far it is:   shard-builder status $build
EOF
