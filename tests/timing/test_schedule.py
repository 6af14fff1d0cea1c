"""Output frames lie exactly where they should, in any ratio, for variable rates and for clips of any length."""

from __future__ import annotations

import math
import random
import tracemalloc
from collections.abc import Sequence
from fractions import Fraction

import pytest

from vsrife.errors import OptionError
from vsrife.timing.schedule import (
    MAX_FRAMES,
    MAX_TABLE,
    SNAP_SECONDS,
    Position,
    Schedule,
    by_factor,
    by_timestamps,
)


def random_factors(count: int) -> list[tuple[int, Fraction]]:
    """Clip length and a factor of at least 1."""
    rng = random.Random(0)
    rows = [(1, Fraction(2)), (2, Fraction(5, 2)), (7, Fraction(1001, 1000)), (1, Fraction(1)), (3, Fraction(8))]
    for _ in range(count):
        q = rng.randint(1, rng.choice([3, 30, 1001]))
        rows.append((rng.randint(1, 300), Fraction(rng.randint(q, 5 * q), q)))
    return rows


ROWS = random_factors(60)


def at(schedule: Schedule, n: int) -> Fraction:
    position = schedule[n]
    return position.left + position.t


@pytest.mark.parametrize(("frames", "multi"), ROWS)
def test_positions_are_exact(frames: int, multi: Fraction) -> None:
    schedule = by_factor(frames, multi)
    assert schedule.num_frames == math.ceil(frames * multi)
    for n in range(schedule.num_frames):
        position = schedule[n]
        assert 0 <= position.t < 1
        wanted = n / multi
        if wanted >= frames - 1:
            assert position == Position(frames - 1, Fraction(0))  # the tail shows the last frame
        else:
            assert position.left == math.floor(wanted)
            assert position.left + position.t == wanted
    order = [at(schedule, n) for n in range(schedule.num_frames)]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("multi", "n", "left", "t"),
    [
        (Fraction(2), 3, 1, Fraction(1, 2)),
        (Fraction(5, 2), 4, 1, Fraction(3, 5)),  # 24 to 60 fps
        (Fraction(2), 4, 2, Fraction(0)),  # falls on a source frame: copied, not computed
        (Fraction(60000, 1001) / Fraction(24000, 1001), 1, 0, Fraction(2, 5)),
        (Fraction(60) / Fraction(24000, 1001), 1, 0, Fraction(400, 1001)),
    ],
)
def test_position(multi: Fraction, n: int, left: int, t: Fraction) -> None:
    assert by_factor(100, multi)[n] == Position(left, t)


def test_nearer_frame() -> None:
    assert [Position(3, Fraction(i, 4)).near for i in range(4)] == [3, 3, 4, 4]


def variable_durations(frames: int, seed: int) -> list[Fraction]:
    rng = random.Random(seed)
    return [Fraction(rng.randint(1, 5000), rng.choice([1000, 24000, 90000])) for _ in range(frames)]


@pytest.mark.parametrize(("frames", "multi"), ROWS)
def test_durations_add_up(frames: int, multi: Fraction) -> None:
    """A variable rate keeps its total to the last bit when the clip ends with an output frame."""
    frames *= multi.denominator
    if frames * multi > 20_000:
        frames = multi.denominator
    schedule = by_factor(frames, multi)
    source = variable_durations(frames, frames)
    total = Fraction(0)
    for n in range(schedule.num_frames):
        position, (share, rest) = schedule[n], schedule.shares(n)
        assert share > 0
        assert rest >= 0
        assert share + rest == 1 / multi
        left = math.floor(n / multi)  # in the tail too, where the picture is the last frame
        start = Fraction(sum(source[:left])) + source[left] * (n / multi - left) if n < 50 else None
        assert start is None or start == total  # each frame begins when those before it end
        assert position.left <= left
        total += source[left] * share + (source[left + 1] * rest if rest else 0)
    assert total == sum(source)


@pytest.mark.parametrize(("frames", "multi"), ROWS)
def test_every_boundary_is_crossed_once(frames: int, multi: Fraction) -> None:
    """So that a cut is marked on one frame before it and one after it."""
    schedule = by_factor(frames, multi)
    crossed = [schedule.boundary(n) for n in range(-1, schedule.num_frames + 2)]
    assert [k for k in crossed if k is not None] == list(range(frames - 1))
    for n in range(1, schedule.num_frames):
        k = schedule.boundary(n)
        if k is not None:
            assert at(schedule, n - 1) < k + Fraction(1, 2) <= at(schedule, n)


@pytest.mark.parametrize(("frames", "multi"), ROWS)
def test_next_computed(frames: int, multi: Fraction) -> None:
    schedule = by_factor(frames, multi)
    computed = [n for n in range(schedule.num_frames) if schedule[n].t]
    for n in range(schedule.num_frames):
        assert schedule.next_computed(n) == next((m for m in computed if m > n), None)


@pytest.mark.parametrize("multi", [Fraction(2), Fraction(5, 2), Fraction(60000, 23976)])
@pytest.mark.parametrize("frames", [2**27, 2**31 - 1])
def test_clips_without_an_end(frames: int, multi: Fraction) -> None:
    """Players hand over clips of 2**27 frames and more: their length costs neither memory nor exactness."""
    tracemalloc.start()
    try:
        schedule = by_factor(frames, multi)
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000
    assert schedule.num_frames <= MAX_FRAMES
    assert schedule.num_frames == min(math.ceil(frames * multi), math.ceil(MAX_FRAMES // multi * multi))
    n = 100_000_007
    assert at(schedule, n) == n / multi
    assert schedule[schedule.num_frames - 1].left == schedule.source_frames - 1


def test_fine_fractions() -> None:
    multi = Fraction(10**9 + 7, 10**9)
    schedule = by_factor(1000, multi)  # a table of the whole clip
    assert schedule.num_frames == 1001
    assert at(schedule, 998) == 998 / multi
    with pytest.raises(
        OptionError, match=r"multi must be a smaller or simpler number .*, got 1000000007/1000000000; round it"
    ):
        by_factor(MAX_TABLE + 1, multi)


# --- time codes -------------------------------------------------------------------------------------------------------


def cumulative(durations: Sequence[Fraction], start: Fraction = Fraction(0)) -> list[Fraction]:
    times = [start]
    for duration in durations:
        times.append(times[-1] + duration)
    return times


def naive_position(times: Sequence[Fraction], time: Fraction) -> Fraction:
    """Source position of a time, without snapping."""
    for i in range(len(times) - 1):
        if times[i] <= time < times[i + 1]:
            return i + (time - times[i]) / (times[i + 1] - times[i])
    return Fraction(len(times) - 1)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("with_end", [False, True], ids=["frames", "end"])
def test_variable_to_constant_rate(seed: int, with_end: bool) -> None:
    rng = random.Random(seed)
    frames, fps = rng.randint(2, 60), rng.choice([Fraction(60), Fraction(60000, 1001), Fraction(25)])
    durations = [Fraction(rng.randint(5, 200), 1000) for _ in range(frames)]
    times = cumulative(durations, Fraction(rng.randint(-5, 5), 3))
    end = times[-1] if with_end else times[-2] + durations[-2]
    starts = times[:-1]
    schedule = by_timestamps(times if with_end else starts, frames, fps)
    assert schedule.num_frames == math.ceil((end - starts[0]) * fps)
    assert schedule.step is None
    for n in range(schedule.num_frames):
        time = starts[0] + n / fps
        near = min(starts, key=lambda start: abs(start - time))
        if time >= starts[-1]:
            assert schedule[n] == Position(frames - 1, Fraction(0))
        elif abs(near - time) <= SNAP_SECONDS:
            assert schedule[n] == Position(starts.index(near), Fraction(0))
        else:
            assert at(schedule, n) == naive_position(starts, time)


def test_milliseconds_of_a_constant_rate_copy_every_frame() -> None:
    """Rounded time codes must not make a new frame where the source has one."""
    fps = Fraction(24000, 1001)
    times = [Fraction(round(i / fps * 1000), 1000) for i in range(500)]
    schedule = by_timestamps(times, 500, fps)
    assert schedule.num_frames == 500
    assert [schedule[n] for n in range(500)] == [Position(n, Fraction(0)) for n in range(500)]
    doubled = by_timestamps(times, 500, 2 * fps)
    assert [doubled[2 * n] for n in range(500)] == [Position(n, Fraction(0)) for n in range(500)]
    assert all(abs(doubled[2 * n + 1].t - Fraction(1, 2)) < Fraction(1, 40) for n in range(499))


def test_gap_is_filled_and_dense_frames_are_passed_over() -> None:
    times = [Fraction(t) for t in ("0", "0.1", "1.1", "1.11", "1.12", "1.2")]
    schedule = by_timestamps(times, 6, Fraction(10))
    got = [at(schedule, n) for n in range(schedule.num_frames)]
    assert got == [0, *(1 + Fraction(i, 10) for i in range(10)), 2, 5]


def test_single_frame() -> None:
    assert by_timestamps([Fraction(3)], 1, Fraction(25)).num_frames == 1
    assert by_timestamps([Fraction(3), Fraction(4)], 1, Fraction(25)).num_frames == 25


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ((0, 1), "give a time for each of the clip's 3 frames, got 2; one more, the end of the last frame, is allowed"),
        ((0, 1, 2, 3, 4), "give a time for each of the clip's 3 frames, got 5; one more"),
        ((0, 2, 1), "increase, got 1 s for frame 2 after 2 s; sort them or drop the frame"),
        ((0, 1, 1), "increase, got 1 s for frame 2 after 1 s"),
        ((0, 1, 2, 2), "increase, got 2 s for frame 3 after 2 s"),
    ],
)
def test_times_that_do_not_fit(times: tuple[int, ...], message: str) -> None:
    with pytest.raises(OptionError, match=f"timestamps must {message}"):
        by_timestamps([Fraction(t) for t in times], 3, Fraction(25))
    assert by_timestamps([Fraction(t) for t in (0, 1, 2)], 3, Fraction(25)).num_frames == 75
    assert by_timestamps([Fraction(t) for t in (0, 1, 2, 4)], 3, Fraction(25)).num_frames == 100
