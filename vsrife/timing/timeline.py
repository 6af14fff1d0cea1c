"""When the frames of a file are shown, exactly: whole ticks of a container's clock, or a constant rate."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from vsrife.errors import OptionError


class _Rational(Protocol):
    """FFmpeg's fractions, which PyAV does not call fractions."""

    @property
    def numerator(self) -> int: ...
    @property
    def denominator(self) -> int: ...


def exact(value: _Rational) -> Fraction:
    return Fraction(value.numerator, value.denominator)


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """The times of a clip's frames; eight bytes a frame, or none where the rate is constant.

    Attributes:
        start: seconds at which the first frame is shown.
        frames: how many there are.
        rate: frames a second where it is constant, else None.
        ticks: of each frame, and of the end of the last one; empty where the rate is constant.
        tick: seconds.
    """

    start: Fraction
    frames: int
    rate: Fraction | None
    ticks: Sequence[int] = ()
    tick: Fraction = Fraction(1)

    def __getitem__(self, n: int) -> Fraction:
        """Seconds at which frame n is shown; for n = `frames` the end."""
        return self.ticks[n] * self.tick if self.rate is None else self.start + n / self.rate

    @property
    def end(self) -> Fraction:
        return self[self.frames]

    @property
    def mean_rate(self) -> Fraction:
        """Frames a second on average, for encoders and names; not for times."""
        if self.rate is not None:
            return self.rate
        return (self.frames / (self.end - self.start)).limit_denominator(1001)

    def at(self, position: Fraction) -> Fraction:
        """Seconds of a position in frames: 3 + 1/2 is halfway between frames 3 and 4."""
        left = min(int(position), self.frames - 1)
        if self.rate is not None:
            return self.start + position / self.rate
        return self[left] + (position - left) * (self[left + 1] - self[left])

    def first_at(self, seconds: Fraction) -> int:
        """The first frame that is shown at this time or later; `frames` after the last."""
        if self.rate is not None:
            return min(max(-int(-(seconds - self.start) * self.rate // 1), 0), self.frames)
        return bisect_left(self.ticks, seconds / self.tick, hi=self.frames)

    def part(self, first: int, end: int) -> Timeline:
        """Frames `first` up to and without `end`, at their own times."""
        return Timeline(self[first], end - first, self.rate, self.ticks[first : end + 1], self.tick)

    def doubled(self) -> Timeline:
        """With one more frame in the middle of each frame's time."""
        if self.rate is not None:
            return Timeline(self.start, self.frames * 2, self.rate * 2)
        twice = array("q")
        for now, following in zip(self.ticks, self.ticks[1:], strict=False):
            twice.extend((2 * now, now + following))
        twice.append(2 * self.ticks[-1])
        return Timeline(self.start, self.frames * 2, None, twice, self.tick / 2)

    def moved(self, by: Fraction) -> Timeline:
        """Everything later by this many seconds."""
        if self.rate is not None:
            return Timeline(self.start + by, self.frames, self.rate)
        scale = (by / self.tick).denominator
        shift = int(by / self.tick * scale)
        ticks = array("q", (tick * scale + shift for tick in self.ticks))
        return Timeline(self.start + by, self.frames, None, ticks, self.tick / scale)


def constant(frames: int, rate: Fraction, start: Fraction = Fraction(0)) -> Timeline:
    return Timeline(start, frames, rate)


def measured(ticks: Iterable[int], tick: Fraction, last_ticks: int | None, rates: Iterable[Fraction]) -> Timeline:
    """The timeline of a container's time stamps.

    Args:
        ticks: of each frame, increasing.
        tick: seconds.
        last_ticks: how long the last frame lasts; None: as the one before.
        rates: what may be the exact rate behind stamps that a container has rounded; the first that agrees with all
            of them within one tick makes the timeline constant.

    Raises:
        OptionError: two frames have the same time, or times go back.
    """
    stamps = array("q", ticks)
    for n in range(1, len(stamps)):
        if stamps[n] <= stamps[n - 1]:
            raise OptionError(
                f"frame {n} is shown no later than the frame before, got {float(stamps[n] * tick):.3f} s for both; "
                "remux the file, e.g. with mkvmerge, or give --rate to take a constant rate"
            )
    for rate in rates if len(stamps) > 1 or last_ticks is None else ():
        if _agrees(stamps, tick, rate):
            return constant(len(stamps), rate, stamps[0] * tick)
    if last_ticks is None or last_ticks <= 0:
        last_ticks = stamps[-1] - stamps[-2] if len(stamps) > 1 else max(1, round(1 / (24 * tick)))
    stamps.append(stamps[-1] + last_ticks)
    return Timeline(stamps[0] * tick, len(stamps) - 1, None, stamps, tick)


def _agrees(stamps: Sequence[int], tick: Fraction, rate: Fraction) -> bool:
    """Whether frame n at n / rate, rounded to ticks from anywhere within one, gives these stamps."""
    step = 1 / (rate * tick)  # ticks a frame
    p, q = step.numerator, step.denominator
    lowest = highest = stamps[0] * q
    for n, stamp in enumerate(stamps):
        error = stamp * q - n * p
        lowest, highest = min(lowest, error), max(highest, error)
        if highest - lowest > q:
            return False
    return True
