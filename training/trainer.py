"""One training run: its plan, its processes and its steps."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from training import checkpoint
from training.forward import Estimate, TrainingForward
from training.losses import Loss, LossWeights, compute_loss
from training.monitor import Monitor
from training.pack import Pack
from training.prepare import Preparation
from training.samples import WIDE_CROPS, Batch, Draws, Mix, Sampler
from training.start import initialise
from training.synthetic import Motion
from training.teacher import Teacher
from vsrife.errors import OptionError
from vsrife.networks.catalogue import LAYOUTS, MODELS, Layout
from vsrife.networks.ifnet import IFNet

GRADIENT_LIMIT = 1.0
WEIGHT_DECAY = 1e-4


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rate over a run: a cosine; the trainer lets it rise in a line first."""

    steps: int
    peak: float = 2e-4
    last: float = 1e-6
    warmup: int = 300

    def rate(self, step: int) -> float:
        progress = min(1.0, max(0, step - self.warmup) / max(1, self.steps - self.warmup))
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
    blocks: int | None = None  # how many blocks run and learn, from the coarsest; all if None
    frozen: tuple[str, ...] = ()  # parts that keep their weights, as "block0"
    motion: Motion = field(default_factory=Motion)  # of synthetic samples
    echoes: int = 1  # steps that learn from the same samples, every second of them mirrored


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among all that train together."""

    rank: int
    count: int
    device: torch.device
    opens: bool = True  # the first process of its machine, which prepares files for the others

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
        opens = os.environ.get("LOCAL_RANK", "0") == "0"
        yield Ranks(dist.get_rank(), dist.get_world_size(), torch.device(chosen), opens)
    finally:
        dist.destroy_process_group()


class Trainer:
    """One run: the network, its average, the optimiser and the step it has reached.

    Args:
        plan: What to do.
        pack: The clips.
        ranks: The processes; the batch is shared out among them.
        precision: Of the convolutions; everything else is float32.
        teacher: A network whose flow and picture are taught.
    """

    def __init__(
        self,
        plan: Plan,
        pack: Pack,
        ranks: Ranks,
        precision: torch.dtype = torch.float32,
        teacher: Teacher | None = None,
    ) -> None:
        layout = find_layout(plan.layout)
        for each in (layout, *([teacher.layout] if teacher else [])):
            check_mix(plan.mix, each, ranks.count)
        check_blocks(plan, layout)
        self.plan, self.ranks, self.teacher = plan, ranks, teacher
        self.sampler = Sampler(pack, plan.mix, plan.seed)
        self.preparation = Preparation(pack.to(ranks.device), ranks.device)
        self.net = IFNet(layout)
        torch.manual_seed(plan.seed)
        initialise(self.net)
        self.net.to(ranks.device).to(memory_format=torch.channels_last)
        for part in plan.frozen:
            self.net.get_submodule(part).requires_grad_(False)
        self.forward: nn.Module = TrainingForward(self.net, precision, plan.blocks)
        if ranks.count > 1:
            self.forward = nn.parallel.DistributedDataParallel(self.forward, gradient_as_bucket_view=True)
        self.optimiser = torch.optim.AdamW(self.net.parameters(), lr=0.0, weight_decay=WEIGHT_DECAY, fused=True)
        self.average = {name: value.detach().clone() for name, value in self.net.state_dict().items()}
        self.step = 0
        self._fresh_since = 0
        self._heard: tuple[int, Batch] | None = None  # the samples last made, and their number

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
            "fresh_since": self._fresh_since,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        stored, mine = state["plan"]["layout"], self.plan.layout
        if stored != mine:
            raise OptionError(f"layout is {stored} in the checkpoint, got {mine}; choose another folder")
        self.step = int(state["step"])
        self.net.load_state_dict(state["net"])
        self.average = {name: value.to(self.ranks.device, torch.float32) for name, value in state["ema"].items()}
        if "optimiser" in state:
            self.optimiser.load_state_dict(state["optimiser"])
            self._fresh_since = int(state["fresh_since"])
        else:
            self._fresh_since = self.step

    def rate(self, step: int) -> float:
        """The learning rate of a step; it rises anew where the optimiser has lost its memory."""
        known = min(1.0, (step - self._fresh_since + 1) / self.plan.schedule.warmup)
        return self.plan.schedule.rate(step) * known

    def train_step(self, draws: Draws) -> tuple[Loss, Batch, Estimate]:
        """One step on the samples drawn for it, or on an echo of them."""
        batch = self.samples(draws)
        loss, estimate = self.learn(batch)
        return loss, batch, estimate

    def draw(self, step: int) -> Draws:
        """What is drawn for a step; the same for all its echoes."""
        return self.sampler.draw(step // self.plan.echoes)

    def samples(self, draws: Draws) -> Batch:
        """This process's samples of the step; those of the step before, mirrored or not, where it is an echo."""
        number, echo = divmod(self.step, self.plan.echoes)
        if self._heard is None or self._heard[0] != number:
            self._heard = number, self.prepare(draws)
        batch = self._heard[1]
        return batch.mirrored() if echo % 2 else batch

    def prepare(self, draws: Draws) -> Batch:
        """Make this process's samples and have them taught."""
        batch = self.preparation.make(draws.part(self.ranks.rank, self.ranks.count), self.plan.motion)
        return self.teacher.teach(batch) if self.teacher else batch

    def learn(self, batch: Batch) -> tuple[Loss, Estimate]:
        """Forward, loss, gradients, optimiser, average."""
        rate = self.rate(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        estimate = self.forward(batch.frame0, batch.frame1, batch.timestep)
        loss = compute_loss(estimate, batch, self.plan.weights)
        loss.total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), GRADIENT_LIMIT)
        self.optimiser.step()
        self._follow()
        self.step += 1
        return loss, estimate

    def _follow(self) -> None:
        """Move the average towards the network; faster in the beginning, when there is little to average."""
        decay = min(self.plan.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            names = self.net.state_dict()
            torch._foreach_lerp_(list(self.average.values()), [names[n] for n in self.average], 1 - decay)


def check_mix(mix: Mix, layout: Layout, processes: int) -> None:
    """Refuse sizes that cannot be shared out or that the layout would pad.

    Raises:
        OptionError: the batch or the crop does not divide.
    """
    portion = processes * (WIDE_CROPS if mix.wide_share else 1)
    if mix.batch % portion:
        raise OptionError(f"the batch must be a multiple of {portion} samples, got {mix.batch}; processes share it")
    if mix.crop_px % layout.align_px:
        raise OptionError(f"crops must be multiples of {layout.align_px} pixels in this layout, got {mix.crop_px}")


def check_blocks(plan: Plan, layout: Layout) -> None:
    """Refuse a number of blocks, and parts to freeze, that the layout has not.

    Raises:
        OptionError: it has fewer, or others.
    """
    parts = [*(f"block{index}" for index in range(layout.blocks)), *(["encode"] if layout.head else [])]
    for part in plan.frozen:
        if part not in parts:
            raise OptionError(f"parts to freeze must be {', '.join(parts)} in this layout, got {part!r}")
    if set(parts) == set(plan.frozen):
        raise OptionError("nothing is left to train; freeze fewer parts")
    if plan.blocks is not None and not 1 <= plan.blocks <= layout.blocks:
        raise OptionError(f"blocks must be 1 to {layout.blocks} in this layout, got {plan.blocks}")


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
        following = drawing.submit(trainer.draw, trainer.step)
        while trainer.step < trainer.plan.schedule.steps and not _is_over(until, trainer.ranks):
            with monitor.waiting():
                draws = following.result()
                following = drawing.submit(trainer.draw, trainer.step + 1)
            result = trainer.train_step(draws)
            done = trainer.step - 1
            monitor.show(done, trainer.rate(done), draws.shape.batch, result)
            if trainer.ranks.leads and time.monotonic() - saved > save_every_s:
                checkpoint.save_checkpoint(out, trainer.state())
                saved = time.monotonic()
    if trainer.ranks.leads:
        checkpoint.save_checkpoint(out, trainer.state())
        checkpoint.save_carried(out, trainer.state())


def _is_over(until: float | None, ranks: Ranks) -> bool:
    """Whether the time is up, by the clock of the first process, so that all stop at the same step."""
    if until is None:
        return False
    over = torch.tensor([float(time.time() >= until)], device=ranks.device)
    if ranks.count > 1:
        dist.broadcast(over, 0)
    return bool(over.item())
