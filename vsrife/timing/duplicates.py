"""Positions among source frames of which some repeat others: which distinct frames lie around, and where between them.

Pure arithmetic on what is known of neighbouring frames. Nothing depends on more than a window of links around the
position, so that random access gives the same result as a linear run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction
from typing import Literal

from vsrife.timing.schedule import Position

Duplicates = Literal["keep", "fill", "even"]
MAX_CYCLE = 6  # source frames of the longest rhythm that `even` finds: 25 in 30
EVEN_REACH = 2 * MAX_CYCLE  # links that `even` looks at, on each side
STEADY = 4  # a rhythm goes on while durations differ by at most one part in so many: times may be rounded


class Link(IntEnum):
    """How a source frame relates to the one before."""

    MOTION = 0
    REPEAT = 1  # the same picture
    REPLACED = 2  # a stand-in for a damaged frame: the frame before, to be replaced whatever the length of the run
    CUT = 3
    END = 4  # there is no such frame

    @property
    def repeats(self) -> bool:
        return self in (Link.REPEAT, Link.REPLACED)


@dataclass(frozen=True, slots=True)
class Window:
    """Links around a source frame.

    Attributes:
        center: the frame.
        links: of frames center - reach + 1 to center + reach with the frame before each; of even length.
        durations: seconds that the same frames last, None where that is unknown; empty if all last equally long.
    """

    center: int
    links: Sequence[Link]
    durations: Sequence[Fraction | None] = ()

    @property
    def reach(self) -> int:
        return len(self.links) // 2

    def __getitem__(self, k: int) -> Link:
        """The link between frames k - 1 and k; `END` outside the window."""
        i = k - self.center + self.reach - 1
        return self.links[i] if 0 <= i < len(self.links) else Link.END

    def duration(self, k: int) -> Fraction | None:
        """Seconds that frame k lasts; None where that is unknown."""
        i = k - self.center + self.reach - 1
        return self.durations[i] if 0 <= i < len(self.durations) else None

    def seconds(self, first: int, at: Fraction) -> Fraction | None:
        """Seconds from frame `first` to a later position; None where a duration on the way is unknown."""
        total = Fraction(0)
        for k in range(first, math.ceil(at)):
            lasts = self.duration(k)
            if lasts is None:
                return None
            total += lasts * min(Fraction(1), at - k)
        return total

    def steady(self, k: int) -> bool:
        """Whether frame k lasts about as long as the center, as far as that is known."""
        lasts, here = self.duration(k), self.duration(self.center)
        return lasts is None or here is None or abs(lasts - here) * STEADY <= here


@dataclass(frozen=True, slots=True)
class Anchors:
    """What to show.

    Attributes:
        left: source frame; itself, unmodified, where t is 0.
        right: source frame after it.
        t: share of the way from `left` to `right`, in [0, 1).
    """

    left: int
    right: int
    t: Fraction

    @classmethod
    def frame(cls, n: int) -> Anchors:
        return cls(n, n, Fraction(0))


def fill_reach(most: int, replaced: int = 0) -> int:
    """Links that `fill` looks at on each side, for runs of up to `most` repeats and `replaced` replaced frames."""
    return most + replaced + 1


def fill(position: Position, window: Window, most: int) -> Anchors:
    """Replace repeats by motion between the distinct frames around their run, evenly in time.

    Args:
        position: the position in source frames.
        window: links around `position.left`, reaching `fill_reach` frames far.
        most: repeats of a run at most; a longer one is a pause and stays.
    """
    left, t = position.left, position.t
    after = window[left + 1]
    if t and after in (Link.CUT, Link.END):
        return Anchors.frame(left + (after is Link.CUT and t >= Fraction(1, 2)))
    first = last = left
    while window[first].repeats:
        first -= 1
    while window[last + 1].repeats:
        last += 1
    repeats = sum(window[k] is Link.REPEAT for k in range(first + 1, last + 1))
    follows = window[last + 1] is Link.MOTION
    if first == last or repeats > most:
        return Anchors(left, left + 1, t) if t else Anchors.frame(left)
    if not follows:
        return Anchors.frame(left)
    passed, whole = window.seconds(first, left + t), window.seconds(first, Fraction(last + 1))
    if passed is None or not whole:
        passed, whole = left + t - first, Fraction(last + 1 - first)
    return Anchors(first, last + 1, passed / whole)


@dataclass(frozen=True, slots=True)
class Rhythm:
    """A pattern of repeats that comes again.

    Attributes:
        cycle: source frames after which it does.
        starts: the distinct frames of one cycle, increasing.
        origin: position of the first of `starts` if all of them are evenly spaced in time.
        first, last: frames between which the pattern holds; None where its end is not in sight.
    """

    cycle: int
    starts: tuple[int, ...]
    origin: Fraction
    first: int | None
    last: int | None

    def start(self, j: int) -> int:
        """Source frame of distinct frame j, counted from the first of `starts`."""
        cycles, i = divmod(j, len(self.starts))
        return self.starts[i] + cycles * self.cycle

    def share(self, at: Fraction) -> Fraction:
        """How much of the even spacing applies, 0..1: none within a cycle of the rhythm's ends, all after another."""
        far = [at - self.first] if self.first is not None else []
        far += [self.last - at] if self.last is not None else []
        return max(Fraction(0), min(Fraction(1), min(far, default=Fraction(2 * self.cycle)) / self.cycle - 1))

    def distinct(self, at: Fraction) -> Fraction:
        """The position in distinct frames at a position in source frames."""
        j = math.floor((at - self.starts[0]) * len(self.starts) / self.cycle) - 1
        while self.start(j + 1) <= at:
            j += 1
        uneven = j + (at - self.start(j)) / (self.start(j + 1) - self.start(j))
        even = (at - self.origin) * len(self.starts) / self.cycle
        return uneven + self.share(at) * (even - uneven)


def find_rhythm(window: Window, at: Fraction, most: int) -> Rhythm | None:
    """The rhythm of which most applies at a position, the shortest of several; None without one.

    At least two distinct frames come in a cycle: with one, nothing has to be moved. They are spaced so that one of them
    keeps its place, the one nearest to the mean of all.

    Args:
        window: reaching `EVEN_REACH` frames far.
        at: the position, in source frames.
        most: repeats of a run at most.
    """
    rhythms = (rhythm for cycle in range(3, MAX_CYCLE + 1) if (rhythm := _rhythm(window, cycle, most)) is not None)
    return max((rhythm for rhythm in rhythms if rhythm.share(at)), key=lambda rhythm: rhythm.share(at), default=None)


def _rhythm(window: Window, cycle: int, most: int) -> Rhythm | None:
    center = window.center
    pattern: dict[int, bool] = {}
    links = 0

    def broken(frames: Iterable[int]) -> int | None:
        """The first of these frames that breaks the pattern; None if the window or the clip ends before."""
        nonlocal links
        for k in frames:
            link = window[k]
            if link is Link.END:
                return None
            if not window.steady(k - 1) or pattern.setdefault(k % cycle, link.repeats) is not link.repeats:
                return k
            links += 1
        return None

    after = broken(range(center + 1, center + 2 * cycle + 1))
    before = broken(range(center, center - 2 * cycle, -1))
    starts = tuple(k for k in range(center, center + cycle) if not pattern.get(k % cycle, False))
    if links < 2 * cycle or not 2 <= len(starts) < cycle:
        return None
    step = Fraction(cycle, len(starts))
    offsets = [start - starts[0] - j * step for j, start in enumerate(starts)]
    mean = sum(offsets, Fraction(0)) / len(offsets)
    kept = min(offsets, key=lambda offset: (abs(offset - mean), -offset))
    rhythm = Rhythm(cycle, starts, starts[0] + kept, before, None if after is None else after - 1)
    longest = max(rhythm.start(j + 1) - rhythm.start(j) for j in range(len(starts)))
    return rhythm if longest <= most + 1 else None


def even(position: Position, window: Window, most: int) -> Anchors:
    """Spread the distinct frames of a regular rhythm evenly in time; without one, `fill`.

    Where a rhythm begins and ends, one way leads to the other over a cycle, so that time never runs backwards. A rhythm
    ends where frames last longer or shorter.

    Args:
        position, most: as for `fill`.
        window: links around `position.left`, reaching `EVEN_REACH` frames far, or as far as `fill` needs.
    """
    left, at = position.left, position.left + position.t
    rhythm = find_rhythm(window, at, most)
    if rhythm is None or (position.t and window[left + 1] in (Link.CUT, Link.END)):
        return fill(position, window, most)
    first, last = left, left  # of the scene, as far as the window shows it
    while window[first] not in (Link.CUT, Link.END) and left - first < window.reach:
        first -= 1
    while window[last + 1] not in (Link.CUT, Link.END) and last - left < window.reach:
        last += 1
    j, share = divmod(rhythm.distinct(at), 1)
    before, following = rhythm.start(int(j)), rhythm.start(int(j) + 1)
    if before < first:
        return Anchors.frame(first)
    if following > last or not share:
        return Anchors.frame(before)
    return Anchors(before, following, share)
