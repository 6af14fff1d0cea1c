"""What a run shows: a progress bar, a log, and scalars and pictures for TensorBoard. Bar and TensorBoard need their
packages (`pip install vsrife[train]`); a machine that has only PyTorch and OpenCV does without.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

from training.forward import Estimate
from training.losses import Loss
from training.samples import Batch
from vsrife.ops.reference import resize

LOG_FILE = "log.jsonl"
SCALARS_EVERY = 50  # steps
PICTURES_EVERY = 500
PICTURES = 4  # samples shown


class Monitor:
    """Follows one run.

    Args:
        out: Folder of the run.
        steps: Planned steps.
        first: The step it starts at.
        every: Steps between two lines of the log, which are means over those steps and all processes.
        shown: False for all processes but one.
    """

    def __init__(self, out: Path, steps: int, first: int, *, every: int = SCALARS_EVERY, shown: bool = True) -> None:
        self.out, self.every, self.shown = out, every, shown
        self._bar = _make_bar(steps, first) if shown else None
        self._board = _make_board(out / "tensorboard") if shown else None
        self._reset()

    def _reset(self) -> None:
        self._began, self._waited_s, self._samples, self._count = time.monotonic(), 0.0, 0, 0
        self._sums: dict[str, Tensor] = {}

    def __enter__(self) -> Self:
        self.out.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for part in (self._bar, self._board):
            if part is not None:
                part.close()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time spent here is time without data."""
        began = time.monotonic()
        yield
        self._waited_s += time.monotonic() - began

    def show(self, step: int, rate: float, samples: int, result: tuple[Loss, Batch, Estimate]) -> None:
        """Take note of a finished step of `samples` samples; values stay on the device until they are written."""
        loss, batch, estimate = result
        image = estimate.image.detach()
        error = ((image - resize(batch.truth, *image.shape[-2:])) ** 2).mean(dim=(1, 2, 3))
        values = {"loss": loss.total.detach(), "psnr_db": -10 * error.clamp_min(1e-8).log10().mean(), **loss.parts}
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, value.new_zeros(())) + value
        self._count += 1
        self._samples += samples
        if self._bar is not None:
            self._bar.update(1)
        if (step + 1) % self.every == 0:
            means = self._means()
            if self.shown:
                self._write_scalars(step + 1, rate, means)
            self._reset()
        if self._board is not None and (step + 1) % PICTURES_EVERY == 0:
            self._board.add_image("samples", draw_samples(batch, estimate), step + 1)

    def _means(self) -> dict[str, float]:
        """Means since the last line, over all processes."""
        values = torch.stack(list(self._sums.values())) / self._count
        if dist.is_initialized():
            dist.all_reduce(values)
            values /= dist.get_world_size()
        return {name: round(value, 6) for name, value in zip(self._sums, values.tolist(), strict=True)}

    def _write_scalars(self, step: int, rate: float, means: dict[str, float]) -> None:
        scalars = dict(means)
        seconds = time.monotonic() - self._began
        scalars |= {
            "rate": rate,
            "samples_per_s": round(self._samples / seconds, 2),
            "waited_share": round(self._waited_s / seconds, 4),
        }
        with (self.out / LOG_FILE).open("a") as stream:
            stream.write(json.dumps({"step": step, "time": round(time.time(), 1), **scalars}) + "\n")
        if self._bar is not None:
            self._bar.set_postfix(loss=scalars["loss"], psnr_db=scalars["psnr_db"])
        if self._board is not None:
            for name, value in scalars.items():
                self._board.add_scalar(name, value, step)


def _make_bar(steps: int, first: int) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=steps, initial=first, unit="step", mininterval=1.0, dynamic_ncols=True)


def _make_board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))


def draw_samples(batch: Batch, estimate: Estimate) -> Tensor:
    """Samples as rows of a picture (3, H, W): frame 0, prediction, truth, error x4, flow to frame 0 as colour, mask."""
    last = estimate.stages[-1]
    image = last.blend.detach()
    first, truth = (resize(frames, *image.shape[-2:]) for frames in (batch.frame0, batch.truth))
    columns = (
        first,
        image,
        truth,
        ((image - truth).abs() * 4).clamp(0, 1),
        colour_flow(last.flow.detach()[:, :2]),
        torch.sigmoid(last.mask.detach()).expand_as(image),
    )
    rows = torch.cat([column[:PICTURES] for column in columns], dim=3)
    return torch.cat(list(rows), dim=1).float().cpu()


def colour_flow(flow: Tensor) -> Tensor:
    """Flow (N, 2, H, W) as RGB: hue for the direction, saturation for the length, full at the sample's longest."""
    x, y = flow[:, 0], flow[:, 1]
    length = torch.sqrt(x * x + y * y)
    share = length / length.amax(dim=(1, 2), keepdim=True).clamp_min(1e-6)
    angle = torch.atan2(y, x)
    turns = angle.new_tensor([0.0, 2 * torch.pi / 3, -2 * torch.pi / 3])
    tint = 0.5 + 0.5 * torch.cos(angle[:, None] - turns.view(1, 3, 1, 1))
    return 1 - share[:, None] * (1 - tint)
