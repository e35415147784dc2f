#!/usr/bin/env bash
# Build a collection with a Dask cluster of some hosts that you reach by ssh, or of this machine alone.
#   bash launch/build_dask.sh --config FILE [--hosts "HOST ..."] [--workers N] [--set KEY=VALUE ...]
#   bash launch/build_dask.sh --config configs/build/sen12ms.yaml --hosts "node1 node2" --workers 8 \
#       --set input=/archive/raw --set output=/scratch/shards/sen12ms
# N workers per host (default 2). Every host needs the same environment, paths and working directory. With a cluster that
# runs already: shard-builder build --executor dask --scheduler tcp://HOST:8786 ...
set -euo pipefail
fail() { printf 'error: %s\n' "$*" >&2; exit 2; }

config="" hosts="" workers=2 settings=()
while [ $# -gt 0 ]; do
    case $1 in
        --config | --hosts | --workers | --set) [ $# -ge 2 ] || fail "$1 needs a value" ;;&
        --config) config=$2; shift 2 ;;
        --hosts) hosts=$2; shift 2 ;;
        --workers) workers=$2; shift 2 ;;
        --set) settings+=(--set "$2"); shift 2 ;;
        -h | --help) sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) fail "unknown option $1; known: --config FILE, --hosts \"HOST ...\", --workers N, --set KEY=VALUE" ;;
    esac
done
[ -f "$config" ] || fail "--config: found no file '$config'"
[[ $workers =~ ^[1-9][0-9]*$ ]] || fail "--workers: found '$workers', expected a number of processes per host"
command -v dask >/dev/null || fail "found no dask; install it: pip install 'gfm-pipeline[dask]'"

scratch=$(mktemp -d)
pids=()
stop() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$scratch"
}
trap stop EXIT

here=127.0.0.1
if [ -n "$hosts" ]; then here=$(hostname -f); fi
dask scheduler --host "$here" --port 0 --no-dashboard --scheduler-file "$scratch/scheduler.json" \
    >"$scratch/scheduler.log" 2>&1 &
pids+=($!)
for _ in $(seq 300); do
    if [ -s "$scratch/scheduler.json" ]; then break; fi
    kill -0 "${pids[0]}" 2>/dev/null || { cat "$scratch/scheduler.log" >&2; fail "the Dask scheduler did not start"; }
    sleep 0.1
done
address=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["address"])' "$scratch/scheduler.json")

start="dask worker $address --nworkers $workers --nthreads 1 --no-dashboard"
if [ -z "$hosts" ]; then
    $start --local-directory "$scratch" >"$scratch/workers.log" 2>&1 &
    pids+=($!)
fi
for host in $hosts; do
    # -tt: the worker ends with its connection.
    ssh -tt "$host" "cd $(printf %q "$PWD") && PATH=$(printf %q "$PATH") $start" >"$scratch/$host.log" 2>&1 &
    pids+=($!)
done

shard-builder build --config "$config" "${settings[@]}" --executor dask --scheduler "$address"
