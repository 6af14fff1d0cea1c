"""Film out of pulldown: which frames to drop, and the exact times of the others.

Pulldown spreads four film frames over five video frames. Hard pulldown stores five frames, of which one repeats the
frame before once its fields have been matched. Soft pulldown stores the four, and flags make them last two and three
fields in turn. Mixed material has parts of real video between, which stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from fractions import Fraction
from itertools import groupby, pairwise

from vsrife.timing.timeline import Timeline, constant

CYCLE, FILM = 5, 4  # video frames of a cycle, and film frames in it
SHORTEST = 3  # cycles of a part; fewer between two parts of the other kind belong to these: an edit, or a still
EQUAL = Fraction(1, 4)  # two durations are equal if they differ by at most this share
COARSE, ROUNDED = 16, 2  # ticks of a container finer than so many a frame may have rounded a time by so many
_FILM_RATES = (Fraction(24000, 1001), Fraction(24))


type Repeats = Callable[[float, Sequence[float]], bool]


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """What is left of a clip.

    Attributes:
        dropped: frames that repeat the one before, increasing.
        video: first frame and the one after the last of each part that is not film.
        timeline: times of the frames that stay.
    """

    dropped: Sequence[int]
    video: Sequence[tuple[int, int]]
    timeline: Timeline


class _Kind(Enum):
    HARD = auto()  # one frame of five repeats the one before
    SOFT = auto()  # four frames last two and three fields in turn
    STILL = auto()  # nothing moves: part of what was before
    VIDEO = auto()
    OTHER = auto()  # a single frame of another duration


@dataclass(slots=True)
class _Part:
    first: int
    end: int
    kind: _Kind


def find_film(timeline: Timeline, changes: Sequence[float], is_repeat: Repeats) -> Film:
    """Find the frames to drop.

    Args:
        timeline: of the clip whose fields have been matched.
        changes: how much each frame differs from the one before; any value for the first.
        is_repeat: whether a change is none, given those around.
    """
    ticks, tick = _ticks(timeline)
    parts = _parts(ticks, changes, is_repeat)
    _settle(parts)
    dropped: list[int] = []
    starts: list[int] = []  # in quarters of a tick
    phase: int | None = 0
    step = Fraction(0)  # between film frames
    for part in parts:
        frames = list(range(part.first, part.end))  # that stay
        begin, length = 4 * ticks[part.first], 4 * (ticks[part.end] - ticks[part.first])
        end = begin + length
        if part.kind is _Kind.HARD:
            phase, step = _dropped(part, changes, is_repeat, phase), Fraction(length * CYCLE, len(frames) * FILM)
            if phase is not None:
                dropped.append(frames.pop(phase))
        elif part.kind is _Kind.SOFT and _alternates([ticks[n + 1] - ticks[n] for n in frames]):
            step = Fraction(length, FILM)
        if part.kind in (_Kind.HARD, _Kind.SOFT):
            starts += [begin + int(i * step) for i in range(len(frames))]
            end = begin + int(len(frames) * step)
        else:
            starts += [4 * ticks[n] for n in frames]
    video = _joined([(part.first, part.end) for part in parts if part.kind not in (_Kind.HARD, _Kind.SOFT)])
    rates = [*([timeline.rate * FILM / CYCLE, timeline.rate] if timeline.rate else []), *_FILM_RATES]
    for rate in rates:
        if _follows(starts, tick / 4, rate, 4 * ROUNDED if tick * rate * COARSE < 1 else 0):
            return Film(dropped, video, constant(len(starts), rate, timeline.start))
    return Film(dropped, video, Timeline(timeline.start, len(starts), None, [*starts, end], tick / 4))


def _ticks(timeline: Timeline) -> tuple[Sequence[int], Fraction]:
    """Times of the frames and of the end, in whole ticks; and a tick, seconds."""
    if timeline.rate is None:
        return timeline.ticks, timeline.tick
    step = 1 / timeline.rate
    unit = Fraction(1, math.lcm(step.denominator, timeline.start.denominator))
    first, each = int(timeline.start / unit), int(step / unit)
    return [first + n * each for n in range(timeline.frames + 1)], unit


def _parts(ticks: Sequence[int], changes: Sequence[float], is_repeat: Repeats) -> list[_Part]:
    parts, first, frames = list[_Part](), 0, len(ticks) - 1
    lasts = [after - now for now, after in pairwise(ticks)]
    while first < frames:
        if _alternates(lasts[first : first + FILM]):
            end, kind = first + FILM, _Kind.SOFT
        elif parts and parts[-1].kind is _Kind.SOFT and first + FILM >= frames:
            end, kind = frames, _Kind.SOFT  # the rest: no container tells how long the last frame lasts
        else:
            end = min(first + CYCLE, frames)
            cycle = lasts[first:end]
            if max(cycle) - min(cycle) <= EQUAL * min(cycle):
                cycle_changes = [changes[n] for n in range(max(first, 1), end)]
                repeats = sum(is_repeat(change, cycle_changes) for change in cycle_changes)
                kind = (
                    _Kind.STILL if repeats > CYCLE // 2 or not cycle_changes else _Kind.HARD if repeats else _Kind.VIDEO
                )
            else:
                end, kind = first + 1, _Kind.OTHER
        parts.append(_Part(first, end, kind))
        first = end
    return parts


def _alternates(lasts: Sequence[int]) -> bool:
    """Whether these are four durations of two and three fields in turn."""
    if len(lasts) != FILM:
        return False
    a, b = sorted((lasts[0] + lasts[2], lasts[1] + lasts[3]))
    pairs = ((lasts[0], lasts[2]), (lasts[1], lasts[3]))
    return 1.3 * a < b < 1.7 * a and all(abs(one - other) <= EQUAL * min(one, other) for one, other in pairs)


def _settle(parts: list[_Part]) -> None:
    """Decide about stills and about parts that are too short."""
    decided = next((part.kind for part in parts if part.kind in (_Kind.HARD, _Kind.VIDEO)), _Kind.VIDEO)
    for part in parts:
        if part.kind is _Kind.STILL:
            part.kind = decided
        elif part.kind in (_Kind.HARD, _Kind.VIDEO):
            decided = part.kind
    for kind in (_Kind.HARD, _Kind.VIDEO):  # film between video first, then video between film
        groups = [list(group) for _, group in groupby(parts, key=lambda part: part.kind)]
        for i, group in enumerate(groups):
            around = {groups[k][0].kind for k in (i - 1, i + 1) if 0 <= k < len(groups)}
            other = _Kind.VIDEO if kind is _Kind.HARD else _Kind.HARD
            if group[0].kind is kind and len(group) < SHORTEST and around == {other}:
                for part in group:
                    part.kind = other


def _dropped(part: _Part, changes: Sequence[float], is_repeat: Repeats, phase: int | None) -> int | None:
    """Which frame of a cycle repeats the one before; that at the place of the last cycle's, if several or none do."""
    part_changes = {n - part.first: changes[n] for n in range(max(part.first, 1), part.end)}
    repeats = {i: change for i, change in part_changes.items() if is_repeat(change, list(part_changes.values()))}
    if phase is not None and (phase in repeats or (not repeats and part.end - part.first == CYCLE)):
        return phase
    return min(repeats, key=repeats.__getitem__, default=None)


def _joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges in order; adjoining ones are joined."""
    result: list[tuple[int, int]] = []
    for first, end in ranges:
        if result and result[-1][1] == first:
            first = result.pop()[0]
        result.append((first, end))
    return result


def _follows(times: Sequence[int], tick: Fraction, rate: Fraction, allowed: int) -> bool:
    """Whether all times lie within so many ticks of n / rate."""
    step = 1 / (rate * tick)
    p, q = step.numerator, step.denominator
    errors = [time * q - n * p for n, time in enumerate(times)]
    return max(errors) - min(errors) <= allowed * q
