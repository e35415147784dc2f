#!/usr/bin/env bash
# From raw archives to a pretrained model and its pictures, on this machine.
#   --raw DIR    use the archives in DIR (SEN12MS, MDAS, GeoPile, MillionAID; any subset) instead of making demo ones
#   --out DIR    where everything is written (default: quickstart-out)
#   --gpus N     train on N GPUs (default: 2 CPU processes)
#   --fresh      remove what an earlier quick start wrote to the output folder, and start over
# Run again, it continues where it was.
set -euo pipefail
PROJECT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$PROJECT/launch/environment.sh"

raw="" out=quickstart-out gpus=0 fresh=no
while [ $# -gt 0 ]; do
    case $1 in
        --raw | --out | --gpus) [ $# -ge 2 ] || fail "$1 needs a value" ;;&
        --raw) raw=$2; shift 2 ;;
        --out) out=$2; shift 2 ;;
        --gpus) gpus=$2; shift 2 ;;
        --fresh) fresh=yes; shift ;;
        -h | --help) sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) fail "unknown option $1; known: --raw DIR, --out DIR, --gpus N, --fresh" ;;
    esac
done
[[ $gpus =~ ^[0-9]+$ ]] || fail "--gpus takes a number, found '$gpus'"
[ -z "$raw" ] || [ -d "$raw" ] || fail "--raw $raw is no folder; give the folder that holds the archives"

# Paths given by the user are relative to where they stand; the product's own commands run in the project folder.
[ -z "$raw" ] || raw=$(cd "$raw" && pwd)
mkdir -p "$out" || fail "cannot make the output folder $out"
out=$(cd "$out" && pwd)
if [ $fresh = yes ]; then
    rm -rf "${out:?}"/{raw,shards,run,pictures}
fi
cd "$PROJECT"
prepare_environment train

if [ -z "$raw" ]; then
    raw=$out/raw
    step shard-builder demo --out "$raw" --places 96 --tile-px 128 --seed 0
fi

# Streams whose archives are not there are left out of the mixture.
sources=() overrides=()
found() { compgen -G "$raw/$1" >/dev/null; }
if found 'GeoPile*'; then sources+=(geopile); fi
if found 'millionaid*' || found 'MillionAID*' || found 'Million-AID*'; then sources+=(millionaid); fi
case "${sources[*]}" in
    "") overrides+=(--set data.streams.rgb=null) ;;
    *\ *) ;;
    *) overrides+=(--set "data.streams.rgb.collections=[${sources[0]}]") ;;
esac
if found 'ROIs*'; then sources+=(sen12ms); else overrides+=(--set data.streams.sen12ms=null); fi
if found 'Augsburg*' || found 'MDAS*'; then sources+=(mdas); else overrides+=(--set data.streams.mdas=null); fi
[ ${#sources[@]} -gt 0 ] || fail "found none of the archives in $raw: GeoPile*, millionaid*, ROIs*_s1.tar.gz, Augsburg*"

for source in "${sources[@]}"; do
    step shard-builder build --config "configs/build/$source.yaml" \
        --set "input=$raw" --set "output=$out/shards/$source" --set workers=2
done

# On CPUs one thread per process: two processes with more would fight over the cores.
ranks=$gpus devices=()
if [ "$gpus" = 0 ]; then
    ranks=2 devices=(--cpu)
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
else
    overrides+=(--set "data.lanes=$ranks")
fi
step gfm-launch local --processes "$ranks" "${devices[@]}" --config configs/pretrain/quickstart.yaml \
    --set "data.root=$out/shards" --set "run_dir=$out/run" "${overrides[@]}"

step gfm visualize --run "$out/run" --out "$out/pictures"

cat <<EOF

Done. What was made:
  $raw
      raw archives
  $out/shards
      collections: plain WebDataset tars with sidecars, statistics in manifest.json, catalog.parquet
  $out/run
      metrics.jsonl, TensorBoard (tensorboard --logdir $out/run/tensorboard), checkpoints, resolved config.yaml
  $out/pictures
      reconstructions per sensor and across sensors, loss curves, expert load

What to try next (activate the environment first: source $VENV/bin/activate):
  bash launch/quickstart.sh --raw DIR --out DIR2      the same from your own archives
  gfm config show --config configs/pretrain/msgfm_base.yaml      the paper's run in full
  gfm data order --config configs/pretrain/quickstart.yaml --set data.root=$out/shards --rank 0 --world 2 --step 10
  gfm-launch local --processes $ranks ${devices[*]} --config configs/pretrain/quickstart.yaml --set data.root=$out/shards \\
      --set run_dir=$out/run-no-cross --set objectives.cross_sensor_mim.cross_share=0
EOF
