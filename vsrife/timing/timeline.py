"""Exact times of a file's frames: whole ticks of its container's clock, or a constant rate."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Protocol

from vsrife.errors import MediaError

_FINE_TICKS = 4  # a frame, from which on a tick more or less is no skipped frame


class _Rational(Protocol):
    """Anything with a numerator and a denominator, such as PyAV's rationals."""

    @property
    def numerator(self) -> int: ...
    @property
    def denominator(self) -> int: ...


def exact(value: _Rational) -> Fraction:
    """A rational as a `Fraction`."""
    return Fraction(value.numerator, value.denominator)


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """Times of a clip's frames; takes eight bytes a frame, or none if the rate is constant.

    Attributes:
        start: time of the first frame, seconds.
        frames: number of frames.
        rate: frames per second if constant, else None.
        ticks: times of all frames and of the end of the last one, in ticks; empty if the rate is constant.
        tick: seconds of a tick.
    """

    start: Fraction
    frames: int
    rate: Fraction | None
    ticks: Sequence[int] = ()
    tick: Fraction = Fraction(1)

    def __getitem__(self, n: int) -> Fraction:
        """Time of frame n, seconds; for n = `frames` the end of the last."""
        return self.ticks[n] * self.tick if self.rate is None else self.start + n / self.rate

    @property
    def end(self) -> Fraction:
        return self[self.frames]

    @property
    def mean_rate(self) -> Fraction:
        """Frames per second on average, rounded: for encoders and names, not for times."""
        if self.rate is not None:
            return self.rate
        return (self.frames / (self.end - self.start)).limit_denominator(1001)

    def at(self, position: Fraction) -> Fraction:
        """Time of a position in frames, seconds: 3 + 1/2 is halfway between frames 3 and 4."""
        left = min(int(position), self.frames - 1)
        if self.rate is not None:
            return self.start + position / self.rate
        return self[left] + (position - left) * (self[left + 1] - self[left])

    def first_at(self, seconds: Fraction) -> int:
        """The first frame at this time or later; `frames` if there is none."""
        if self.rate is not None:
            return min(max(-int(-(seconds - self.start) * self.rate // 1), 0), self.frames)
        return bisect_left(self.ticks, seconds / self.tick, hi=self.frames)

    def part(self, first: int, end: int) -> Timeline:
        """Frames `first` up to and without `end`, at unchanged times."""
        return Timeline(self[first], end - first, self.rate, self.ticks[first : end + 1], self.tick)

    def doubled(self) -> Timeline:
        """With another frame halfway through each frame's duration."""
        if self.rate is not None:
            return Timeline(self.start, self.frames * 2, self.rate * 2)
        twice = array("q")
        for now, following in zip(self.ticks, self.ticks[1:], strict=False):
            twice.extend((2 * now, now + following))
        twice.append(2 * self.ticks[-1])
        return Timeline(self.start, self.frames * 2, None, twice, self.tick / 2)


def constant(frames: int, rate: Fraction, start: Fraction = Fraction(0)) -> Timeline:
    """A timeline of constant rate, frames per second."""
    return Timeline(start, frames, rate)


def fill_missing(stamps: Sequence[int | None], step: Fraction) -> list[int]:
    """Fill in missing time stamps: evenly between two known ones, else `step` ticks a frame from the nearest.

    Args:
        stamps: of each frame in order of display, ticks; None where missing. At least one is known.
        step: ticks between frames, by the nominal rate.
    """
    stamped = [(n, stamp) for n, stamp in enumerate(stamps) if stamp is not None]
    (first, start), (last, end) = stamped[0], stamped[-1]
    filled = [round(start - (first - n) * step) for n in range(first)]
    for (left, begin), (right, stop) in pairwise(stamped):
        filled += [begin + round(Fraction((stop - begin) * n, right - left)) for n in range(right - left)]
    return filled + [round(end + (n - last) * step) for n in range(last, len(stamps))]


def measured(ticks: Iterable[int], tick: Fraction, last_ticks: int | None, rates: Iterable[Fraction]) -> Timeline:
    """A timeline from a container's time stamps.

    Args:
        ticks: time of each frame, increasing.
        tick: seconds of a tick.
        last_ticks: duration of the last frame; None: that of the frame before.
        rates: candidates for the exact rate behind rounded stamps, frames per second; the first that agrees with all
            stamps within one tick makes the timeline constant.

    Raises:
        MediaError: the times do not increase.
    """
    stamps = array("q", ticks)
    for n in range(1, len(stamps)):
        if stamps[n] <= stamps[n - 1]:
            raise MediaError(
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
    """Whether all stamps lie within one tick of n / rate plus a constant."""
    step = 1 / (rate * tick)  # ticks a frame
    p, q = step.numerator, step.denominator
    allowed = q if step >= _FINE_TICKS else q - 1  # rounding moves stamps by less than a tick, a skipped frame by more
    lowest = highest = stamps[0] * q
    for n, stamp in enumerate(stamps):
        error = stamp * q - n * p
        lowest, highest = min(lowest, error), max(highest, error)
        if highest - lowest > allowed:
            return False
    return True
