"""Train a network of any published layout.

    python -m training.train --spec 4.25 --clips CLIPS --out RUN
    torchrun --nproc-per-node 4 -m training.train --spec 4.25 --clips CLIPS --out RUN

A run that was stopped, or killed, goes on where its last checkpoint stands when the same command is given again.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from training import checkpoint
from training.forward import TrainingForward
from training.losses import Loss, LossWeights, compute_loss
from training.monitor import Monitor
from training.pack import Pack, build_pack, find_clips, open_pack
from training.prepare import Preparation
from training.samples import Mix, Sampler
from training.start import initialise
from training.synthetic import Motion
from vsrife.catalogue import LAYOUTS, MODELS, Layout
from vsrife.errors import OptionError, RifeError
from vsrife.network import IFNet

GRADIENT_LIMIT = 1.0
FADED = 0.75  # of a run, from where on no teacher is heard
WEIGHT_DECAY = 1e-4
"""Shrinks weights a little each step, times the rate (AdamW)."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rate over a run: up in a line, down in a cosine."""

    steps: int
    peak: float = 2e-4
    last: float = 1e-6
    warmup: int = 300

    def rate(self, step: int) -> float:
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        progress = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        return self.last + (self.peak - self.last) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All of a run that decides its result."""

    layout: str
    mix: Mix
    schedule: Schedule
    weights: LossWeights = field(default_factory=LossWeights)
    ema: float = 0.999
    seed: int = 1

    def loss_weights(self, step: int) -> LossWeights:
        """The teachers fade in a line."""
        progress = step / (FADED * self.schedule.steps)
        return replace(self.weights, flow=self.weights.flow * max(0.0, 1 - progress))


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among all that train together."""

    rank: int
    count: int
    device: torch.device

    @property
    def leads(self) -> bool:
        return self.rank == 0


@contextmanager
def join_ranks(device: str | None) -> Iterator[Ranks]:
    """Join the processes that torchrun started; alone without it."""
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if "WORLD_SIZE" not in os.environ:
        yield Ranks(0, 1, torch.device(chosen))
        return
    if chosen == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if chosen == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), torch.device(chosen))
    finally:
        dist.destroy_process_group()


class Trainer:
    """One run: the network, its average, the optimiser and the step it has reached.

    Args:
        plan: What to do.
        pack: The clips.
        ranks: The processes; the batch is shared out among them.
        precision: Of the convolutions; everything else is float32.
    """

    def __init__(self, plan: Plan, pack: Pack, ranks: Ranks, precision: torch.dtype = torch.float32) -> None:
        if plan.mix.batch % (ranks.count * (4 if plan.mix.wide_share else 1)):
            raise OptionError(f"the batch must divide among {ranks.count} processes, got {plan.mix.batch}")
        layout = find_layout(plan.layout)
        if plan.mix.crop_px % layout.align_px:
            raise OptionError(f"crops must be multiples of {layout.align_px} pixels, got {plan.mix.crop_px}")
        self.plan, self.ranks = plan, ranks
        self.sampler = Sampler(pack, plan.mix, plan.seed)
        self.preparation = Preparation(pack.to(ranks.device), ranks.device)
        self.net = IFNet(layout)
        torch.manual_seed(plan.seed)
        initialise(self.net)
        self.net.to(ranks.device)
        forward = TrainingForward(self.net, precision)
        self.forward: nn.Module = nn.parallel.DistributedDataParallel(forward, gradient_as_bucket_view=True) if ranks.count > 1 else forward
        self.optimiser = torch.optim.AdamW(self.net.parameters(), lr=0.0, weight_decay=WEIGHT_DECAY)
        self.average = {name: value.detach().clone() for name, value in self.net.state_dict().items()}
        self.step = 0

    def start_from(self, tensors: dict[str, Tensor]) -> int:
        """Take over tensors whose name and shape fit; returns how many."""
        state = self.net.state_dict()
        fitting = {n: t for n, t in tensors.items() if n in state and t.shape == state[n].shape}
        self.net.load_state_dict(fitting, strict=False)
        self.average = {name: value.detach().clone() for name, value in self.net.state_dict().items()}
        return len(fitting)

    def state(self) -> dict[str, Any]:
        """Everything that a run needs to go on."""
        return {
            "step": self.step,
            "plan": asdict(self.plan),
            "net": self.net.state_dict(),
            "ema": self.average,
            "optimiser": self.optimiser.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        if state["plan"]["layout"] != self.plan.layout:
            raise OptionError(
                f"the checkpoint is of layout {state['plan']['layout']}, got {self.plan.layout}; choose another folder"
            )
        self.step = int(state["step"])
        self.net.load_state_dict(state["net"])
        self.average = {name: value.to(self.ranks.device) for name, value in state["ema"].items()}
        self.optimiser.load_state_dict(state["optimiser"])

    def train_step(self, draws: Any) -> tuple[Loss, Any, Any]:
        """One step on the samples drawn for it."""
        mine = draws.part(self.ranks.rank, self.ranks.count)
        weights = self.plan.loss_weights(self.step)
        batch = self.preparation.make(mine, Motion(), taught=weights.flow > 0)
        rate = self.plan.schedule.rate(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        estimate = self.forward(batch.frame0, batch.frame1, batch.timestep)
        loss = compute_loss(estimate, batch, weights)
        loss.total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), GRADIENT_LIMIT)
        self.optimiser.step()
        self._follow()
        self.step += 1
        return loss, batch, estimate

    def _follow(self) -> None:
        """Move the average towards the network; faster in the beginning, when there is little to average."""
        decay = min(self.plan.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            names = self.net.state_dict()
            torch._foreach_lerp_(list(self.average.values()), [names[n] for n in self.average], 1 - decay)


def find_layout(spec: str) -> Layout:
    """The layout of a published version ("4.25") or of a row of the catalogue ("L14").

    Raises:
        OptionError: there is no such row.
    """
    if spec in MODELS:
        return MODELS[spec].layout
    if spec in LAYOUTS:
        return LAYOUTS[spec]
    raise OptionError(f"spec must be a version or a layout of the catalogue, got {spec!r}; such as 4.25 or 4.25.lite")


def run(trainer: Trainer, out: Path, *, save_every_s: float, monitor: Monitor, until: float | None = None) -> None:
    """Train to the end of the plan, or until a time of `time.time()`; checkpoints on the way and at the end."""
    saved = time.monotonic()
    with ThreadPoolExecutor(1) as drawing:
        following = drawing.submit(trainer.sampler.draw, trainer.step)
        while trainer.step < trainer.plan.schedule.steps and (until is None or time.time() < until):
            with monitor.waiting():
                draws = following.result()
                following = drawing.submit(trainer.sampler.draw, trainer.step + 1)
            monitor.show(trainer.step, trainer.plan.schedule.rate(trainer.step), *trainer.train_step(draws))
            if trainer.ranks.leads and time.monotonic() - saved > save_every_s:
                save(trainer, out)
                saved = time.monotonic()
    if trainer.ranks.leads:
        save(trainer, out)


def save(trainer: Trainer, out: Path) -> None:
    checkpoint.save_checkpoint(out, trainer.state())


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.train", description="Train a RIFE network")
    parser.add_argument("--spec", default="4.25", help="version or layout of the catalogue (default 4.25)")
    parser.add_argument("--clips", type=Path, help="folder of training clips")
    parser.add_argument("--pack", type=Path, help="decoded clips (default: OUT/pack)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run: checkpoint, logs")
    parser.add_argument("--init", type=Path, help="weights to start from; a checkpoint in OUT goes first")
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--minutes", type=float, help="stop after this time even if steps are left")
    parser.add_argument("--crop", type=int, default=192, help="side of the crops in pixels (default 192)")
    parser.add_argument("--batch", type=int, default=8, help="samples of a step over all processes (default 8)")
    parser.add_argument("--rate", type=float, default=2e-4, help="peak learning rate (default 2e-4)")
    parser.add_argument("--synthetic", type=float, default=0.25, help="share of synthetic motion (default 0.25)")
    parser.add_argument("--wide", type=float, default=0.0, help="share of steps with crops of twice the side (default 0)")
    parser.add_argument("--charbonnier", type=float, default=0.0, help="weight of this part of the loss")
    parser.add_argument("--flow", type=float, default=0.0, help="weight of the known flow")
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", help="cpu, cuda (default: the GPU where there is one)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, help="CPU threads of each process")
    parser.add_argument("--save-every", type=float, default=60.0, help="seconds between checkpoints (default 60)")
    return parser


def make_plan(a: argparse.Namespace) -> Plan:
    return Plan(
        layout=find_layout(a.spec).id,
        mix=Mix(crop_px=a.crop, batch=a.batch, synthetic_share=a.synthetic, wide_share=a.wide),
        schedule=Schedule(a.steps, a.rate),
        weights=LossWeights(charbonnier=a.charbonnier, flow=a.flow),
        ema=a.ema,
        seed=a.seed,
    )


def open_clips(arguments: argparse.Namespace, ranks: Ranks) -> Pack:
    """The pack of the run; the first process of a machine makes it, the others wait."""
    folder = arguments.pack or arguments.out / "pack"
    if arguments.clips and ranks.leads:
        build_pack(find_clips(arguments.clips), folder)
    if ranks.count > 1:
        dist.barrier()
    return open_pack(folder)


def train(arguments: argparse.Namespace) -> None:
    """Carry out one command line."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    until = time.time() + 60 * arguments.minutes if arguments.minutes else None
    with join_ranks(arguments.device) as ranks:
        plan = make_plan(arguments)
        precision = torch.bfloat16 if arguments.precision == "bf16" else torch.float32
        trainer = Trainer(plan, open_clips(arguments, ranks), ranks, precision)
        stored = checkpoint.load_checkpoint(arguments.out)
        if stored:
            trainer.restore(stored)
        elif arguments.init:
            trainer.start_from(checkpoint.read_initial_weights(arguments.init))
        monitor = Monitor(arguments.out, plan.schedule.steps, trainer.step, plan.mix.batch, shown=ranks.leads)
        with monitor:
            run(trainer, arguments.out, save_every_s=arguments.save_every, monitor=monitor, until=until)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = make_parser().parse_args(argv)
    try:
        train(arguments)
    except RifeError as error:
        print(f"training: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
