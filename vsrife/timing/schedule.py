"""Exact timing: which two source frames lie around an output frame, and where between them.

Everything is integers and fractions. Positions count source frames: 3 + 1/2 lies halfway between source frames 3 and 4.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise

from vsrife.errors import OptionError, decimal

# Most output frames: VapourSynth counts frames in 32 bits, and originals are interleaved with new frames once.
MAX_FRAMES = (2**31 - 1) // 2
# A clip this long comes from a player, which does not know its end (mpv: 2**27 frames): the output may be shorter.
ENDLESS_FRAMES = 2**26
# Timecodes are commonly rounded to milliseconds: an output time this close to a source frame is that frame.
SNAP_SECONDS = Fraction(1, 2000)
SNAP_FRAMES = Fraction(1, 1000)  # the same for positions of a speed ramp, which come from decimals
MAX_TABLE = 10_000_000  # most positions held in memory
_MAX_CYCLE = 3_000_000  # the same of a table that repeats: numbers with a larger one are typing errors
# A table up to this long is complete even if the clip is shorter: only a complete table scales durations exactly.
WHOLE_TABLE = 2**16


@dataclass(frozen=True, slots=True)
class Position:
    """A time between two source frames.

    Attributes:
        left: index of the source frame at or before it.
        t: share of the way to the next source frame, in [0, 1).
    """

    left: int
    t: Fraction

    @property
    def near(self) -> int:
        """Index of the nearer source frame; halfway counts as the right one."""
        return self.left + (self.t >= Fraction(1, 2))


@dataclass(frozen=True, slots=True)
class Schedule:
    """The position of every output frame, as a table that repeats.

    Attributes:
        source_frames: length of the source.
        cycle: source frames after which the table repeats; all of them if it does not.
        positions: positions of the output frames of one cycle, relative to its first source frame.
        num_frames: length of the output.
        step: source frames per output frame; None if that varies (timecodes to a constant rate, speed ramps).
    """

    source_frames: int
    cycle: int
    positions: tuple[Position, ...]
    num_frames: int
    step: Fraction | None

    def __getitem__(self, n: int) -> Position:
        """Position of output frame n; never beyond the last source frame."""
        cycles, i = divmod(n, len(self.positions))
        position = self.positions[i]
        left = cycles * self.cycle + position.left
        if left >= self.source_frames - 1:
            return Position(self.source_frames - 1, Fraction(0))
        return Position(left, position.t)

    @property
    def repeats(self) -> bool:
        """Whether selecting by the table scales durations exactly; otherwise it covers the output once."""
        return self.step is not None and Fraction(self.cycle, len(self.positions)) == self.step

    def boundary(self, n: int) -> int | None:
        """The source frame k for which a cut between k and k + 1 lies between output frames n - 1 and n, or None.

        Of these output frames one is nearer to a source frame up to k, the other to a later one.
        """
        if not 0 < n < self.num_frames:
            return None
        before, after = self[n - 1].near, self[n].near
        if after == before:
            return None
        return after - 1 if after > before else after  # a speed ramp may go backwards

    def next_computed(self, n: int) -> int | None:
        """The first output frame after n that is not a source frame, or None."""
        for m in range(n + 1, min(n + 1 + len(self.positions), self.num_frames)):
            if self[m].t:
                return m
        return None

    def phase(self, n: int) -> Fraction:
        """The share of its source frame's duration that has passed at output frame n, also within the last one."""
        return self.positions[n % len(self.positions)].t

    def shares(self, n: int) -> tuple[Fraction, Fraction]:
        """The shares of the left and of the next source frame's duration that output frame n lasts.

        Exact for variable rates: the durations of all output frames add up to those of the source.
        """
        assert self.step is not None
        left = min(1 - self.phase(n), self.step)
        return left, self.step - left


def by_factor(source_frames: int, multi: Fraction) -> Schedule:
    """Output frame n of `multi` = p/q lies at source position n * q / p.

    Args:
        source_frames: length of the source.
        multi: output frames per source frame, at least 1.

    Returns:
        A schedule of ceil(source_frames * multi) frames; of `MAX_FRAMES` at most if the source is endless.

    Raises:
        OptionError: the output would be too long, or the fraction is so fine that its table would not fit in memory.
    """
    p, q = multi.numerator, multi.denominator
    most = MAX_FRAMES * q // p
    if source_frames > most and (source_frames < ENDLESS_FRAMES or most < 1):
        raise OptionError(
            f"the output must have at most {MAX_FRAMES} frames, got {math.ceil(source_frames * multi)} from "
            f"{source_frames} at {multi} for each; use a smaller multi or fps, or trim the clip"
        )
    source_frames = min(source_frames, most)
    num_frames = math.ceil(source_frames * multi)
    period, cycle = (p, q) if p <= max(num_frames, WHOLE_TABLE) else (num_frames, source_frames)
    if period > _MAX_CYCLE:
        raise OptionError(
            f"multi must be a smaller or simpler number for a clip of this length, got {multi}; round it, e.g. to 5/2"
        )
    positions = tuple(Position(n * q // p, Fraction(n * q % p, p)) for n in range(period))
    return Schedule(source_frames, cycle, positions, num_frames, 1 / multi)


def by_timestamps(times: Sequence[Fraction], source_frames: int, fps: Fraction) -> Schedule:
    """A constant rate from frames at any times: output n lies at times[0] + n / fps.

    Args:
        times: seconds, strictly increasing, one per source frame, and possibly the end of the last.
        source_frames: length of the source.
        fps: output rate.

    Returns:
        A schedule up to the end of the last source frame, which lasts as long as the one before unless `times` has
        its end.

    Raises:
        OptionError: wrong number of times, not increasing, or too many output frames.
    """
    check_timestamps(times, source_frames)
    if len(times) > source_frames:
        *starts, end = times
    else:
        starts = list(times)
        end = starts[-1] + (starts[-1] - starts[-2] if source_frames > 1 else 1 / fps)
    count = math.ceil((end - starts[0]) * fps)
    check_length("timestamps and fps", count)
    return Schedule(source_frames, source_frames, tuple(_at_rate(starts, fps, count)), count, None)


def check_length(names: str, count: int) -> None:
    """Check that a table of positions fits in memory.

    Args:
        names: of the arguments, for the error.
        count: positions.

    Raises:
        OptionError: none, or too many.
    """
    if not 1 <= count <= MAX_TABLE:
        raise OptionError(
            f"{names} must give 1 to {MAX_TABLE} output frames, got {count}; check the last time and the rate"
        )


def check_timestamps(times: Sequence[Fraction], source_frames: int) -> None:
    """Check that there is a time for each source frame, increasing, and possibly the end of the last.

    Raises:
        OptionError: there is not.
    """
    if len(times) not in (source_frames, source_frames + 1):
        raise OptionError(
            f"timestamps must give a time for each of the clip's {source_frames} frames, got {len(times)}; "
            "one more, the end of the last frame, is allowed"
        )
    for i in range(1, len(times)):
        if times[i] <= times[i - 1]:
            raise OptionError(
                f"timestamps must increase, got {decimal(times[i])} s for frame {i} after {decimal(times[i - 1])} s; "
                "sort them or drop the frame"
            )


def _at_rate(starts: Sequence[Fraction], fps: Fraction, count: int) -> Iterator[Position]:
    """Positions of starts[0] + n / fps for n < count, computed in integers of a unit that divides all times."""
    units = math.lcm(SNAP_SECONDS.denominator, fps.numerator, *(start.denominator for start in starts))  # in a second
    times = [start.numerator * (units // start.denominator) for start in starts]
    step, snap = units // fps.numerator * fps.denominator, units // SNAP_SECONDS.denominator
    left, last = 0, len(times) - 1
    for n in range(count):
        time = times[0] + n * step
        while left < last and times[left + 1] <= time:
            left += 1
        if left == last or time - times[left] <= snap:
            yield Position(left, Fraction(0))
        elif times[left + 1] - time <= snap:
            yield Position(left + 1, Fraction(0))
        else:
            yield Position(left, Fraction(time - times[left], times[left + 1] - times[left]))


def by_positions(positions: Iterable[Fraction], source_frames: int) -> Schedule:
    """Any positions in any order: output frame n lies at the n-th of `positions`.

    Args:
        positions: in source frames, at least 0; the last source frame is shown from its position on.
        source_frames: length of the source.

    Raises:
        OptionError: none, or too many.
    """
    table = tuple(_snapped(position, source_frames - 1) for position in islice(positions, MAX_TABLE + 1))
    check_length("times", len(table))
    return Schedule(source_frames, source_frames, table, len(table), None)


def _snapped(position: Fraction, last: int) -> Position:
    left, t = divmod(position, 1)
    if t <= SNAP_FRAMES or left >= last:
        return Position(min(left, last), Fraction(0))
    return Position(left + 1, Fraction(0)) if 1 - t <= SNAP_FRAMES else Position(left, t)


def along_curve(points: Sequence[tuple[Fraction, Fraction]], fps: Fraction) -> Iterator[Fraction]:
    """Source times of output frames along a curve, straight from point to point.

    Args:
        points: (output time in seconds, source time in any unit), at least two, output times increasing.
        fps: output rate.

    Returns:
        The source time of output frame n, at output time points[0] + n / fps, before the last point's.
    """
    n = 0
    for (begin, first), (end, last) in pairwise(points):
        while (time := points[0][0] + n / fps) < end:
            yield first + (last - first) * (time - begin) / (end - begin)
            n += 1


def source_position(seconds: Fraction, starts: Sequence[Fraction]) -> Fraction:
    """The position, in source frames, of a time after the first frame's, given the times of all frames."""
    time = starts[0] + seconds
    left = max(0, bisect_right(starts, time) - 1)
    if left >= len(starts) - 1:
        return Fraction(len(starts) - 1)
    return left + (time - starts[left]) / (starts[left + 1] - starts[left])
