#!/bin/bash
# Everything that this project wants of a GPU, in 15 minutes and in this order:
#   a  a decoder of 128 pixels for the packed encoder of `dinov2-small` (autoencoder of factor 8 first)    8 minutes
#   b  trace and decoding at the sizes of `kandinsky-2.2`, bfloat16                                        2 minutes
#   c  the importance study of that decoder's pair, with what is left
# Each step has its own limit, a failed step does not stop the next, and results are written as they come: at most 8 files
# of at most 15 MB in OUT, of which results.txt says what happened.
#
# Before: python benchmarks/gpu_pack.py pack --data DATA --encoder real-vit/vit-s14 --out .gpu   (39 MB)
# On a machine without the packages: put their wheels (transformers, diffusers, tyro and what they need) into .gpu/wheels.
# Where only a small tree may travel, leave behind what is not needed: git sparse-checkout set --no-cone '/*' '!/docs/' \
#   '!/tests/' '!/src/steerlens/zoo/emoji/' '!/src/steerlens/zoo/dinov2_small/'; afterwards: git sparse-checkout disable
# After: cat OUT/decoder.tar.* | tar x; python benchmarks/gpu_assemble.py decoder RUN_ON_CPU NEW_RUN --data DATA
#
# To try it on a CPU, with a pack of few pictures (--every 60): MINUTES=6 TINY=1 OUT=gpu-trial bash benchmarks/gpu_once.sh
set -u
OUT=${OUT:?a folder for the results}
PACKED=${PACKED:-.gpu}
WORK=${WORK:-$OUT.work}
MINUTES=${MINUTES:-14}  # of everything; the machine's own start takes one
TINY=${TINY:-}
PYTHON=${PYTHON:-python3}
START=$SECONDS
export PYTHONUNBUFFERED=1 PYTHONPATH=$PWD/src:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH} HF_HUB_OFFLINE=1
mkdir -p "$OUT" "$WORK"
if compgen -G "$PACKED/wheels/*.whl" >/dev/null; then
  $PYTHON -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$WORK/site" \
    "$PACKED"/wheels/*.whl && export PYTHONPATH=$WORK/site:$PYTHONPATH
fi

left() { echo $((MINUTES * 60 - SECONDS + START)); }  # seconds
share() { echo $((MINUTES * 4 * $1)); }               # seconds of $1 minutes in 15
step() {  # NAME SECONDS COMMAND...
  local name=$1 limit=$2 began=$SECONDS status
  shift 2
  [ "$limit" -gt 5 ] || { echo "== $name: no time left" | tee -a "$OUT/results.txt"; return; }
  echo "== $name (limit $limit s)" | tee -a "$OUT/results.txt"
  timeout --kill-after=10 "$limit" "$@" >"$WORK/$name.txt" 2>&1
  status=$?
  tail -n 60 "$WORK/$name.txt" >>"$OUT/results.txt"
  echo "== $name: exit $status after $((SECONDS - began)) s" | tee -a "$OUT/results.txt"
}
keep() {  # FOLDER: in parts that are small enough
  [ ! -d "$WORK/$1" ] || tar -C "$WORK" -cf - "$1" | split -b 15000000 -d - "$OUT/$1.tar."
}

tiny=()
[ -z "$TINY" ] || tiny=(--tiny --scenes 64 --batch 8)
step unpack "$(share 1)" $PYTHON benchmarks/gpu_pack.py unpack "$PACKED" "$WORK"
step a "$(share 9)" $PYTHON benchmarks/gpu_decoder.py "$WORK" --out "$WORK/decoder" "${tiny[@]}" \
  --minutes "$(awk "BEGIN {print $MINUTES * ${TINY:+0.1 *} 7 / 15}")"
keep decoder
cp "$WORK/decoder/grid.png" "$OUT" 2>/dev/null
size=vit-bigg-14 count=24 few=()
[ -z "$TINY" ] || size=emoji count=2 few=(--steps 2)
step b1 "$(share 1)" $PYTHON benchmarks/bench_trace.py --size $size --dtype bfloat16 --batch 8 --repeats 5
[ -n "$TINY" ] || step b2 "$(share 2)" $PYTHON benchmarks/gpu_decode.py --seconds "$(share 2)"
# Half a minute is kept to pack the results.
step c $(($(left) - 30)) $PYTHON -m steerlens.cli.main study importance --model "$WORK/run/pair" --images "$WORK/scenes" \
  --count $count --choose 2 --strengths rho=1 --no-extras "${few[@]}" --out "$WORK/importance"
keep importance
ls -l "$OUT"
