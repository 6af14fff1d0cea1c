#!/bin/sh
# One of three runs of base on a rented GPU, under ten minutes, on a machine that has PyTorch, OpenCV and safetensors:
#
#   sh training/gpu.sh CLIPS RESULTS TEACHER                  # first
#   sh training/gpu.sh CLIPS RESULTS TEACHER carried.pt       # second and third, with what the run before left
#
# CLIPS: folder made by `python -m training.compact`. RESULTS: gets carried.pt (weights, average, step; 23 MB) and log.jsonl.
# TEACHER: weights of layout 4.25, which are also what the first run begins with. Its last block alone is trained: with
# so few clips the others lose what they know (README.md). For other parts, set FROZEN.
# STEPS: all steps of the three runs together; measure steps/s with benchmarks/training.py first, and plan 24 minutes of them.
set -eu
clips=$1
results=$2
teacher=$3
frozen=${FROZEN-encode block0 block1 block2 block3}
work=$(mktemp -d)
minutes=${MINUTES:-8}   # of training; decoding the clips comes before it
set -- --spec 4.25 --clips "$clips" --out "$work" --device cuda --precision bf16 \
    --steps "${STEPS:-20000}" --minutes "$minutes" --crop 256 --batch "${BATCH:-64}" --rate 2e-4 \
    --strides 3 3 2 2 --halfway 0.4 --synthetic 0.1 --reach 4 --still 0.05 --degraded 0.2 --reduced 0.1 \
    --init "$teacher" --teacher "$teacher" --psnr 0.1 --flow 0.03 --picture 0.5 ${4:+--carried "$4"} ${frozen:+--freeze $frozen}
python -m training.train "$@"
mkdir -p "$results"
cp "$work/carried.pt" "$work/log.jsonl" "$results/"
rm -rf "$work"
