"""Speed of this machine, and the best model, precision and flow scale that keep up with a player."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
import vapoursynth as vs
from numpy.typing import NDArray

import vsrife
from vsrife.checkpoints.finding import bundled_name, find_weights
from vsrife.engine.devices import parse_device, parse_precision
from vsrife.errors import RifeError

_POOL = 8  # source frames of the benchmark, repeated
_MANY = 100_000
_UHD_PIXELS = 2560 * 1440  # from here on half the flow scale comes first
MARGIN = 1.2  # a player decodes and shows frames at the same time

# Model and precision, best quality first. None: the device's default precision.
MODELS = ((None, None), (None, "int8"), ("lite", None), ("lite", "int8"), ("fast", None), ("fast", "int8"))


@dataclass(frozen=True, slots=True)
class Candidate:
    """Keywords of `RIFE` to measure; None and 1 are its defaults."""

    model: str | None
    precision: str | None
    scale: float

    def keywords(self) -> dict[str, Any]:
        values = {"model": self.model, "precision": self.precision, "scale": self.scale}
        return {name: value for name, value in values.items() if value not in (None, 1.0)}

    def __str__(self) -> str:
        return f"{self.model or 'default model'}, {self.precision or 'default precision'}, scale {self.scale:g}"


@dataclass(frozen=True, slots=True)
class Measurement:
    """How fast a candidate is."""

    candidate: Candidate
    frames_per_second: float  # of output


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidate to use.

    Attributes:
        needed: output frames/s, with `MARGIN`.
        measured: every candidate that was tried, best quality first.
    """

    width: int
    height: int
    rate: Fraction
    needed: float
    measured: Sequence[Measurement] = field(default_factory=tuple)

    @property
    def best(self) -> Measurement:
        """The best quality that keeps up; if none does, the fastest."""
        fitting = (each for each in self.measured if each.frames_per_second >= self.needed)
        return next(fitting, max(self.measured, key=lambda each: each.frames_per_second))

    @property
    def keeps_up(self) -> bool:
        return self.best.frames_per_second >= self.needed

    def script_line(self, device: str | None = None) -> str:
        """The call of `RIFE` for a player's script."""
        keywords = {"multi": 2, **self.best.candidate.keywords(), **({"device": device} if device else {})}
        arguments = ", ".join(f"{name}={value!r}" for name, value in keywords.items())
        return f"clip = vsrife.RIFE(clip, {arguments}, realtime=True)"


def candidates(width: int, height: int, device: str | None = None) -> Iterator[Candidate]:
    """What runs on the device, in order of quality; on large frames with half the flow scale first."""
    distinct = dict[tuple[Path, torch.dtype], tuple[str | None, str | None]]()
    for model, precision in MODELS:
        try:
            dtype = parse_precision(precision, parse_device(device), bundled=bundled_name(model))
            distinct.setdefault((find_weights(model), dtype), (model, precision))
        except RifeError:
            continue
    for scale in (0.5,) if width * height > _UHD_PIXELS else (1.0, 0.5):
        for model, precision in distinct.values():
            yield Candidate(model, precision, scale)


def choose(
    width: int,
    height: int,
    rate: Fraction,
    *,
    device: str | None = None,
    seconds: float = 1.0,
    tried: Callable[[Measurement], None] = lambda _: None,
) -> Choice:
    """Measure candidates until one doubles a clip of this size and rate in real time.

    Args:
        width, height: of the clip.
        rate: frames/s of the source.
        device: as for `RIFE`.
        seconds: time for each candidate, after its first frame.
        tried: called with each measurement.

    Raises:
        RifeError: no model runs on the device.
    """
    clip, needed, measured = moving_clip(width, height), float(2 * rate * Fraction(MARGIN)), list[Measurement]()
    for candidate in candidates(width, height, device):
        measured.append(Measurement(candidate, filter_rate(clip, seconds, device=device, **candidate.keywords())))
        tried(measured[-1])
        if measured[-1].frames_per_second >= needed:
            break
    return Choice(width, height, rate, needed, tuple(measured))


def pair_ms(width: int, height: int, seconds: float) -> float:
    """Milliseconds to interpolate between two new RGB pictures."""
    pictures = [picture(width, height, n) for n in range(3)]
    vsrife.interpolate(pictures[0], pictures[1])  # loads and compiles, untimed
    start, done = time.perf_counter(), 0
    while done == 0 or time.perf_counter() - start < seconds:
        vsrife.interpolate(pictures[done % 2], pictures[done % 2 + 1])
        done += 1
    return 1000 * (time.perf_counter() - start) / done


def filter_rate(clip: vs.VideoNode, seconds: float, **keywords: Any) -> float:
    """Output frames per second of a doubled clip, after its first frames."""
    frames = vsrife.RIFE(clip, sc_threshold=1, **keywords).frames(close=True)
    next(frames), next(frames)  # loads and compiles, untimed
    start, done = time.perf_counter(), 0
    for _ in frames:
        done += 1
        if done % 2 == 0 and time.perf_counter() - start > seconds:
            break
    elapsed = time.perf_counter() - start
    frames.close()  # type: ignore[attr-defined, unused-ignore]
    return done / elapsed


def picture(width: int, height: int, n: int) -> NDArray[np.uint8]:
    """A coloured pattern that moves by 3 pixels per frame, (H, W, 3)."""
    x, y = np.arange(width) + 3 * n, np.arange(height)[:, None]
    planes = [np.sin(x / a) * np.cos((y + x / 3) / b) for a, b in ((17, 11), (23, 7), (9, 19))]
    return (127.5 + 100 * np.stack(planes, axis=-1)).astype(np.uint8)


def moving_clip(width: int, height: int) -> vs.VideoNode:
    """A long YUV420P8 clip of the pattern, rendered beforehand so that only interpolation is timed."""
    blank = vs.core.std.BlankClip(width=width, height=height, format=vs.RGB24, length=_POOL, keep=True)

    def paint(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        frame, pixels = f.copy(), picture(width, height, n)
        for plane in range(3):
            np.asarray(frame[plane])[:] = pixels[..., plane]
        return frame

    clip = blank.std.ModifyFrame([blank], paint).resize.Bicubic(format=vs.YUV420P8, matrix_s="709")
    pool = [clip.get_frame(n) for n in range(clip.num_frames)]
    long = clip.std.BlankClip(length=_MANY, keep=True)
    return long.std.ModifyFrame([long], lambda n, f: pool[n % _POOL])  # noqa: ARG005
