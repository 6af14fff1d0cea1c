"""Training speed on this machine, and the share of time spent waiting for data, as a markdown table.

    python benchmarks/training.py --clips CLIPS [--spec 4.25] [--device cpu] [--precision fp32] [--steps 20]

Runs real training steps (data, forward, loss, gradients, optimiser) on a pack of the clips, one row for each crop size.
`samples/s` counts crops; `data` is the share of the time in which nothing is trained because samples are being drawn,
cut, changed and rendered; `waiting` is the part of it spent waiting for the drawing thread.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

if __name__ == "__main__":  # `training` is the package beside this folder, not this file
    sys.path[0] = str(Path(__file__).parents[1])

from training.losses import LossWeights
from training.pack import Pack, build_pack, find_clips
from training.samples import Mix
from training.teacher import load_teacher
from training.trainer import Plan, Ranks, Schedule, Trainer, find_layout
from vsrife.errors import RifeError

WARMUP_STEPS = 3


@dataclass(frozen=True, slots=True)
class Row:
    """Figures of one crop size."""

    crop_px: int
    batch: int
    samples_per_s: float
    data_share: float
    waiting_share: float

    def __str__(self) -> str:
        shares = f"{self.data_share:.1%} | {self.waiting_share:.1%}"
        return f"| {self.crop_px} | {self.batch} | {self.samples_per_s:.1f} | {shares} |"


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(trainer: Trainer, steps: int) -> Row:
    """Train some steps after a few untimed ones."""
    device, mix = trainer.ranks.device, trainer.plan.mix
    waiting = data = 0.0
    began = time.perf_counter()
    with ThreadPoolExecutor(1) as drawing:
        following = drawing.submit(trainer.sampler.draw, 0)
        for step in range(WARMUP_STEPS + steps):
            if step == WARMUP_STEPS:
                synchronise(device)
                began, waiting, data = time.perf_counter(), 0.0, 0.0
            asked = time.perf_counter()
            draws = following.result()
            following = drawing.submit(trainer.sampler.draw, step + 1)
            waiting += time.perf_counter() - asked
            batch = trainer.prepare(draws)
            synchronise(device)  # so that the time of the samples is not counted as the network's
            data += time.perf_counter() - asked
            trainer.learn(batch)
        synchronise(device)
    seconds = time.perf_counter() - began
    return Row(mix.crop_px, mix.batch, steps * mix.batch / seconds, data / seconds, waiting / seconds)


def make_trainer(arguments: argparse.Namespace, pack: Pack, crop_px: int) -> Trainer:
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    plan = Plan(
        layout=find_layout(arguments.spec).id,
        mix=Mix(crop_px, arguments.batch, synthetic_share=arguments.synthetic),
        schedule=Schedule(1000),
        weights=LossWeights(psnr=0.1, flow=0.03, picture=0.5),
    )
    precision = torch.bfloat16 if arguments.precision == "bf16" else torch.float32
    teacher = load_teacher(arguments.teacher, device, precision) if arguments.teacher else None
    return Trainer(plan, pack, Ranks(0, 1, device), precision, teacher)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Samples/s of training and the share of time spent waiting for data")
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--pack", type=Path, help="where the decoded clips are kept (default: a temporary folder)")
    parser.add_argument("--spec", default="4.25")
    parser.add_argument("--device")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--crops", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--synthetic", type=float, default=0.06)
    parser.add_argument("--teacher", type=Path, help="weights of a network that teaches")
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    try:
        with tempfile.TemporaryDirectory() as folder:
            pack = build_pack(find_clips(arguments.clips), arguments.pack or Path(folder) / "pack")
            rows = [measure(make_trainer(arguments, pack, crop), arguments.steps) for crop in arguments.crops]
    except RifeError as error:
        print(f"training: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.spec}, {arguments.precision}, {torch.get_num_threads()} CPU threads")
    print("| crop px | batch | samples/s | data | waiting |\n|---|---|---|---|---|")
    print(*rows, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
