"""What pruning, a teacher and the truth bring: equal runs, each with more of them.

    python -m training.ablation --pack PACK --pruned PRUNED --teacher TEACHER [--spec L19] [--steps 400]

Every run sees the same steps of the same crops. Four scores, on fixed crops of clips that no run was trained on: PSNR
of real samples, and of real samples three and four frames apart, beside that of blending both frames; PSNR where
nothing moves; and how far the flow is wrong for still frames in a moving window, where it is known exactly, against a
flow of zero (1.00: no flow yet, 0: exact).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from training.checkpoint import read_initial_weights
from training.console import exit_code
from training.forward import Estimate, TrainingForward
from training.losses import LossWeights
from training.monitor import Monitor
from training.pack import Pack, open_pack
from training.prepare import Preparation
from training.samples import STRIDE_SHARES, Batch, Mix, Sampler
from training.synthetic import Motion
from training.teacher import Teacher, load_teacher
from training.trainer import Plan, Ranks, Schedule, Trainer, run
from vsrife.networks.ifnet import IFNet
from vsrife.ops.reference import resize

HELD_OUT_EVERY = 8  # every so manyth clip is for the score
SCORE_STEPS, SCORE_BATCH, SCORE_CROP_PX = 6, 8, 128
SCORE_SPREAD_PX = 4.0
FAR = (0.0, 0.0, 0.5, 0.5)  # shares of strides
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Variant:
    """One run."""

    name: str
    pruned: bool = True  # whether it starts from the pruned weights
    taught: bool = True
    truth: bool = True


VARIANTS = (
    Variant("from scratch", pruned=False, taught=False),
    Variant("pruned", taught=False),
    Variant("pruned, teacher", truth=False),
    Variant("pruned, teacher and truth"),
)


def split_clips(pack: Pack) -> tuple[Pack, Pack]:
    """The clips to train on and the clips for the score."""
    held = set(pack.entries[HELD_OUT_EVERY // 2 :: HELD_OUT_EVERY])
    rest = tuple(entry for entry in pack.entries if entry not in held)
    return Pack(rest, pack.pixels), Pack(tuple(e for e in pack.entries if e in held), pack.pixels)


def score_batches(
    pack: Pack, synthetic: float = 0.0, still: float = 0.0, strides: tuple[float, ...] = STRIDE_SHARES
) -> list[Batch]:
    """Fixed samples: real ones, moving windows or still ones."""
    mix = Mix(SCORE_CROP_PX, SCORE_BATCH, synthetic, still_share=still, strides=strides, degraded_share=0.0)
    sampler, preparation = Sampler(pack, mix, seed=99), Preparation(pack, CPU)
    motion = Motion(SCORE_SPREAD_PX, layers=False)
    return [preparation.make(sampler.draw(step), motion) for step in range(SCORE_STEPS)]


def psnr_db(batches: Sequence[Batch], interpolate: Callable[[Batch], Tensor]) -> float:
    """Mean over all samples."""
    pictures = ((interpolate(b).clamp(0, 1), b.truth) for b in batches)
    errors = [((image - resize(truth, *image.shape[-2:])) ** 2).mean(dim=(1, 2, 3)) for image, truth in pictures]
    return float((-10 * torch.cat(errors).log10()).mean())


def blend(batch: Batch) -> Tensor:
    return torch.lerp(batch.frame0, batch.frame1, batch.timestep.view(-1, 1, 1, 1))


def flow_error(batches: Sequence[Batch], estimate: Callable[[Batch], Estimate]) -> float:
    """Mean distance to the exact flow over the mean length of that flow."""
    flows = ((estimate(b).stages[-1].flow, b.flow) for b in batches)
    distances = [(flow - resize(exact, *flow.shape[-2:])).abs().mean() for flow, exact in flows]
    return float(torch.stack(distances).sum() / torch.stack([b.flow.abs().mean() for b in batches]).sum())


@torch.no_grad()
def score(trainer: Trainer, pictures: Sequence[Sequence[Batch]], windows: Sequence[Batch]) -> str:
    """PSNR in dB of each set of samples, relative flow error on moving windows, as cells of a table."""
    net = IFNet(trainer.net.layout)
    net.load_state_dict(trainer.average)
    forward = TrainingForward(net)

    def estimate(batch: Batch) -> Estimate:
        found: Estimate = forward(batch.frame0, batch.frame1, batch.timestep)
        return found

    decibels = [psnr_db(batches, lambda b: estimate(b).image) for batches in pictures]
    return " | ".join(f"{value:.2f}" for value in (*decibels, flow_error(windows, estimate)))


def train_variant(variant: Variant, plan: Plan, pack: Pack, pruned: Path, teacher: Teacher) -> Trainer:
    weights = plan.weights if variant.taught else replace(plan.weights, flow=0.0, picture=0.0)
    weights = weights if variant.truth else replace(weights, pyramid=0.0, psnr=0.0)
    trainer = Trainer(replace(plan, weights=weights), pack, Ranks(0, 1, CPU), teacher=teacher)
    if variant.pruned:
        trainer.start_from(read_initial_weights(pruned))
    with tempfile.TemporaryDirectory() as name, Monitor(Path(name), plan.schedule.steps, 0) as monitor:
        run(trainer, Path(name), save_every_s=float("inf"), monitor=monitor)
    return trainer


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.ablation", description="What pruning, a teacher and the truth bring"
    )
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--pruned", type=Path, required=True, help="what training.prune made")
    parser.add_argument("--teacher", type=Path, required=True, help="weights of any layout")
    parser.add_argument("--spec", default="L19")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--crop", type=int, default=192, help="side of the crops in pixels (default 192)")
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of variants, from 0")
    arguments = parser.parse_args(argv)
    plan = Plan(
        layout=arguments.spec,
        mix=Mix(arguments.crop, arguments.batch, synthetic_share=0.08, strides=(0.3, 0.3, 0.2, 0.2)),
        schedule=Schedule(arguments.steps, peak=arguments.rate, warmup=arguments.steps // 10),
        weights=LossWeights(psnr=0.06, flow=0.05, picture=1.0),
        ema=0.98,
    )
    chosen = [VARIANTS[i] for i in arguments.only or range(len(VARIANTS))]
    return exit_code(lambda: compare(chosen, plan, open_pack(arguments.pack), arguments.pruned, arguments.teacher))


def compare(variants: Sequence[Variant], plan: Plan, pack: Pack, pruned: Path, teacher: Path) -> None:
    """Train and score each, and print a row of a table for it."""
    training, scoring = split_clips(pack)
    known = load_teacher(teacher, CPU, torch.float32)
    pictures = [score_batches(scoring), score_batches(scoring, strides=FAR), score_batches(scoring, still=1.0)]
    windows = score_batches(scoring, synthetic=1.0)
    print(
        f"| blending | {psnr_db(pictures[0], blend):.2f} | {psnr_db(pictures[1], blend):.2f} | | 1.00 | |", flush=True
    )
    for variant in variants:
        began = time.process_time()
        trainer = train_variant(variant, plan, training, pruned, known)
        cells = score(trainer, pictures, windows)
        print(f"| {variant.name} | {cells} | {time.process_time() - began:.0f} s |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
