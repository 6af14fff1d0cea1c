#!/bin/sh
# One of three runs of base on a rented GPU, under ten minutes, on a machine that has PyTorch and OpenCV and nothing else:
#
#   sh training/gpu.sh CLIPS RESULTS                          # first
#   sh training/gpu.sh CLIPS RESULTS carried.pt               # second and third, with what the run before left
#
# CLIPS: folder made by `python -m training.compact`. RESULTS: gets carried.pt (weights, average, step; 23 MB) and log.jsonl.
# STEPS: all steps of the three runs together; measure steps/s with benchmarks/training.py first, and plan 24 minutes of them.
set -eu
clips=$1
results=$2
work=$(mktemp -d)
minutes=${MINUTES:-8}   # of training; decoding the clips comes before it
set -- --spec 4.25 --clips "$clips" --out "$work" --device cuda --precision bf16 \
    --steps "${STEPS:-20000}" --minutes "$minutes" --crop 256 --batch "${BATCH:-64}" --rate 3e-4 \
    --synthetic 0.2 --window 1500 --psnr 0.1 --flow 0.02 --no-classical --privileged ${3:+--carried "$3"}
python -m training.train "$@"
mkdir -p "$results"
cp "$work/carried.pt" "$work/log.jsonl" "$results/"
rm -rf "$work"
