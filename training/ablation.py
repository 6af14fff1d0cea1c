"""What each part of training brings: equal short runs from scratch, each without one part.

    python -m training.ablation --pack PACK [--steps 400]

Every run sees the same steps of the same crops. The score is the PSNR on fixed crops of clips that no run was trained
on, beside that of blending both frames.
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

from training.forward import TrainingForward
from training.losses import LossWeights
from training.monitor import Monitor
from training.pack import Pack, open_pack
from training.prepare import Preparation
from training.samples import Batch, Mix, Sampler
from training.synthetic import Motion
from training.trainer import Plan, Ranks, Schedule, Trainer, run
from vsrife.errors import RifeError
from vsrife.network import IFNet

HELD_OUT_EVERY = 8  # every so manyth clip is for the score
SCORE_STEPS, SCORE_BATCH, SCORE_CROP_PX = 8, 8, 128
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
    Variant("no logarithmic error", _weights(psnr=0.0)),
    Variant("with the privileged block", lambda plan: replace(plan, privileged=True)),
    Variant("twice the learning rate", lambda plan: replace(plan, schedule=replace(plan.schedule, peak=1e-3))),
)


def split_clips(pack: Pack) -> tuple[Pack, Pack]:
    """The clips to train on and the clips for the score."""
    held = set(pack.entries[HELD_OUT_EVERY // 2 :: HELD_OUT_EVERY])
    rest = tuple(entry for entry in pack.entries if entry not in held)
    return Pack(rest, pack.pixels), Pack(tuple(e for e in pack.entries if e in held), pack.pixels)


def score_batches(pack: Pack) -> list[Batch]:
    """Fixed real samples."""
    mix = Mix(SCORE_CROP_PX, SCORE_BATCH, synthetic_share=0.0, still_share=0.0, degraded_share=0.0)
    sampler, preparation = Sampler(pack, mix, seed=99), Preparation(pack, CPU)
    return [preparation.make(sampler.draw(step), Motion(), taught=False) for step in range(SCORE_STEPS)]


def psnr_db(batches: Sequence[Batch], interpolate: Callable[[Batch], Tensor]) -> float:
    """Mean over all samples."""
    errors = [((interpolate(b).clamp(0, 1) - b.truth) ** 2).mean(dim=(1, 2, 3)) for b in batches]
    return float((-10 * torch.cat(errors).log10()).mean())


def blend(batch: Batch) -> Tensor:
    return torch.lerp(batch.frame0, batch.frame1, batch.timestep.view(-1, 1, 1, 1))


def score(trainer: Trainer, batches: Sequence[Batch]) -> float:
    net = IFNet(trainer.net.layout)
    net.load_state_dict(trainer.average)
    forward = TrainingForward(net)
    with torch.no_grad():
        return psnr_db(batches, lambda b: forward(b.frame0, b.frame1, b.timestep).image)


def train_variant(variant: Variant, plan: Plan, pack: Pack) -> Trainer:
    trainer = Trainer(variant.change(plan), pack, Ranks(0, 1, CPU))
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
    parser.add_argument("--only", type=int, nargs="*", help="numbers of variants, from 0")
    arguments = parser.parse_args(argv)
    steps = arguments.steps
    plan = Plan(
        layout=arguments.spec,
        mix=Mix(64, arguments.batch, window_steps=int(WINDOW_SHARE * steps)),
        schedule=Schedule(steps, peak=5e-4, warmup=steps // 20),
        weights=LossWeights(psnr=0.1, flow=0.02),
        ema=0.98,
    )
    try:
        training, scoring = split_clips(open_pack(arguments.pack))
    except RifeError as error:
        print(f"training: {error}", file=sys.stderr)
        return 1
    batches = score_batches(scoring)
    print(f"| blending | {psnr_db(batches, blend):.2f} | |", flush=True)
    for variant in [VARIANTS[i] for i in arguments.only or range(len(VARIANTS))]:
        began = time.process_time()
        result = score(train_variant(variant, plan, training), batches)
        print(f"| {variant.name} | {result:.2f} | {time.process_time() - began:.0f} s |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
