"""What a run shows: a progress bar, and scalars and pictures for TensorBoard where they are installed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from training.forward import Estimate
from training.losses import Loss
from training.samples import Batch

LOG_FILE = "log.jsonl"
SCALARS_EVERY = 50
IMAGES_EVERY = 1000


class Monitor:
    """Follows one run.

    Args:
        out: Folder of the run.
        steps: Planned steps.
        first: The step it starts at.
        batch: Samples of a step.
        shown: False for all processes but one.
    """

    def __init__(self, out: Path, steps: int, first: int, batch: int, *, shown: bool = True) -> None:
        self.out, self.batch, self.shown, self.steps = out, batch, shown, steps
        self.waited_s = 0.0
        self._began, self._since = time.monotonic(), first
        self._sums: dict[str, float] = {}
        self._count = 0

    def __enter__(self) -> Self:
        self.out.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time spent here is time without data."""
        began = time.monotonic()
        yield
        self.waited_s += time.monotonic() - began

    def show(self, step: int, rate: float, loss: Loss, batch: Batch, estimate: Estimate) -> None:
        """Take note of a finished step."""
        if not self.shown:
            return
        mse = ((estimate.image.detach() - batch.truth) ** 2).mean(dim=(1, 2, 3))
        values = {"loss": loss.total.detach(), "psnr": -10 * mse.clamp_min(1e-8).log10().mean(), **loss.parts}
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
        self._count += 1
        if (step + 1) % SCALARS_EVERY == 0:
            self._write(step + 1, rate)

    def _write(self, step: int, rate: float) -> None:
        seconds = time.monotonic() - self._began
        scalars: dict[str, Any] = {k: round(v / self._count, 5) for k, v in self._sums.items()}
        scalars |= {
            "rate": rate,
            "samples_per_s": round(self._count * self.batch / seconds, 2),
            "waited": round(self.waited_s / seconds, 4),
        }
        with (self.out / LOG_FILE).open("a") as stream:
            stream.write(json.dumps({"step": step, "time": round(time.time(), 1), **scalars}) + "\n")
        self._sums, self._count, self.waited_s, self._began = {}, 0, 0.0, time.monotonic()
