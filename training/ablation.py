"""What each part of training brings: equal short runs, each without one part.

    python -m training.ablation --pack PACK [--steps 400] [--blocks 2] [--init WEIGHTS]

Every run sees the same steps of the same crops. Three scores, on fixed crops of clips that no run was trained on: PSNR
of real samples, beside that of blending both frames; PSNR where nothing moves; and how far the flow is wrong for still
frames in a moving window, where it is known exactly, against a flow of zero (1.00: no flow yet, 0: exact). With
`--blocks` only so many run, and pictures and flows are compared at the resolution the next block would read them at.
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
from torch import Tensor, nn

from training.checkpoint import read_initial_weights
from training.console import exit_code
from training.forward import Estimate, TrainingForward
from training.losses import LossWeights
from training.monitor import Monitor
from training.pack import Pack, open_pack
from training.prepare import Preparation
from training.samples import Batch, Mix, Sampler
from training.synthetic import Motion
from training.trainer import Plan, Ranks, Schedule, Trainer, run
from vsrife.networks.ifnet import IFNet
from vsrife.ops.reference import resize

HELD_OUT_EVERY = 8  # every so manyth clip is for the score
SCORE_STEPS, SCORE_BATCH, SCORE_CROP_PX = 6, 8, 128
SCORE_SPREAD_PX = 4.0
WINDOW_SHARE = 0.3  # of the steps
CPU = torch.device("cpu")


def reset_by_default(net: nn.Module) -> None:
    """PyTorch's own initialisation, output layers of zero."""
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.reset_parameters()
            if "lastconv" in name:
                nn.init.zeros_(module.weight)


def keep(net: nn.Module) -> None:
    """The initialisation of training."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One run: how its plan differs from the full one."""

    name: str
    change: Callable[[Plan], Plan] = lambda plan: plan
    start: Callable[[nn.Module], None] = keep


def _mix(**changes: float) -> Callable[[Plan], Plan]:
    return lambda plan: replace(plan, mix=replace(plan.mix, **changes))  # type: ignore[arg-type]


def _weights(**changes: float) -> Callable[[Plan], Plan]:
    return lambda plan: replace(plan, weights=replace(plan.weights, **changes))


VARIANTS = (
    Variant("all parts"),
    Variant("PyTorch's initialisation, output layers of zero", start=reset_by_default),
    Variant("no moving window at first", _mix(window_steps=0)),
    Variant("no taught flow", _weights(flow=0.0)),
    Variant("no synthetic motion after the window", _mix(synthetic_share=0.0)),
    Variant("no still samples", _mix(still_share=0.0)),
    Variant("no logarithmic error", _weights(psnr=0.0)),
    Variant("with the privileged block", lambda plan: replace(plan, privileged=True)),
    Variant("twice the learning rate", lambda plan: replace(plan, schedule=replace(plan.schedule, peak=1e-3))),
)


def split_clips(pack: Pack) -> tuple[Pack, Pack]:
    """The clips to train on and the clips for the score."""
    held = set(pack.entries[HELD_OUT_EVERY // 2 :: HELD_OUT_EVERY])
    rest = tuple(entry for entry in pack.entries if entry not in held)
    return Pack(rest, pack.pixels), Pack(tuple(e for e in pack.entries if e in held), pack.pixels)


def score_batches(pack: Pack, synthetic: float = 0.0, still: float = 0.0) -> list[Batch]:
    """Fixed samples: real ones, moving windows or still ones."""
    mix = Mix(SCORE_CROP_PX, SCORE_BATCH, synthetic, still_share=still, degraded_share=0.0)
    sampler, preparation = Sampler(pack, mix, seed=99), Preparation(pack, CPU)
    motion = Motion(SCORE_SPREAD_PX, layers=False)
    return [preparation.make(sampler.draw(step), motion, taught=False) for step in range(SCORE_STEPS)]


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
def score(trainer: Trainer, real: Sequence[Batch], still: Sequence[Batch], windows: Sequence[Batch]) -> str:
    """PSNR in dB of real samples and of still ones, relative flow error on moving windows, as cells of a table."""
    net = IFNet(trainer.net.layout)
    net.load_state_dict(trainer.average)
    forward = TrainingForward(net, blocks=trainer.plan.blocks)

    def estimate(batch: Batch) -> Estimate:
        found: Estimate = forward(batch.frame0, batch.frame1, batch.timestep)
        return found

    pictures = (psnr_db(batches, lambda b: estimate(b).image) for batches in (real, still))
    return " | ".join(f"{value:.2f}" for value in (*pictures, flow_error(windows, estimate)))


def train_variant(variant: Variant, plan: Plan, pack: Pack, init: Path | None) -> Trainer:
    trainer = Trainer(variant.change(plan), pack, Ranks(0, 1, CPU))
    if init:
        trainer.start_from(read_initial_weights(init))
    variant.start(trainer.net)
    with tempfile.TemporaryDirectory() as name, Monitor(Path(name), plan.schedule.steps, 0) as monitor:
        run(trainer, Path(name), save_every_s=float("inf"), monitor=monitor)
    return trainer


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.ablation", description="What each part of training brings"
    )
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--spec", default="L18")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=64, help="side of the crops in pixels (default 64)")
    parser.add_argument("--blocks", type=int, help="run and train only so many blocks, from the coarsest")
    parser.add_argument("--init", type=Path, help="weights to start from; the moving window is left out then")
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of variants, from 0")
    arguments = parser.parse_args(argv)
    steps = arguments.steps
    plan = Plan(
        layout=arguments.spec,
        mix=Mix(arguments.crop, arguments.batch, window_steps=0 if arguments.init else int(WINDOW_SHARE * steps)),
        schedule=Schedule(steps, peak=arguments.rate, warmup=steps // 20),
        weights=LossWeights(psnr=0.1, flow=0.02),
        ema=0.98,
        blocks=arguments.blocks,
    )
    chosen = [VARIANTS[i] for i in arguments.only or range(len(VARIANTS))]
    return exit_code(lambda: compare(chosen, plan, open_pack(arguments.pack), arguments.init))


def compare(variants: Sequence[Variant], plan: Plan, pack: Pack, init: Path | None) -> None:
    """Train and score each, and print a row of a table for it."""
    training, scoring = split_clips(pack)
    sets = (score_batches(scoring), score_batches(scoring, still=1.0), score_batches(scoring, synthetic=1.0))
    print(f"| blending | {psnr_db(sets[0], blend):.2f} | | 1.00 | |", flush=True)
    for variant in variants:
        began = time.process_time()
        trainer = train_variant(variant, plan, training, init)
        print(f"| {variant.name} | {score(trainer, *sets)} | {time.process_time() - began:.0f} s |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
