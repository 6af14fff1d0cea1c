"""Speed ramps: `RIFE(times=...)` as a script sees them."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import vapoursynth as vs

from tests.clips import NEXT, PREV, counting, duration_of, linear_engine, marks, spliced, value_of, without_rate
from vsrife import RIFE


@pytest.fixture(autouse=True)
def linear() -> Iterator[None]:
    """New frames are mixes: on a counting clip, a frame's value is its source position."""
    with linear_engine():
        yield


def values(clip: vs.VideoNode) -> list[float]:
    return [value_of(clip, n) for n in range(clip.num_frames)]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 0.5, 1.25, 3, 3], [0, 0.5, 1.25, 3, 3]),
        ([4, 3.5, 2.9, 0], [4, 3.5, 2.9, 0]),
        ([1, 4, 0.3], [1, 4, 0.3]),
        ([Fraction(1, 3), 4.7, 5], [1 / 3, 4, 4]),  # from the last source frame on, that frame
        ([2.0004, 2.9996], [2, 3]),
    ],
    ids=["forward", "backward", "jumps", "end", "snaps"],
)
def test_frames(times: list[Any], expected: list[float]) -> None:
    output = RIFE(counting(5), times=times, times_in="frames", sc_threshold=1.0)
    assert values(output) == pytest.approx(expected, abs=1e-5)
    assert output.fps == 24
    assert [duration_of(output, n) for n in range(len(times))] == [Fraction(1, 24)] * len(times)


def test_random_access_gives_the_same_frames() -> None:
    output = RIFE(counting(5), times=[0.5, 3.5, 2.25, 1.0], times_in="frames", sc_threshold=1.0)
    assert [value_of(output, n) for n in (3, 1, 2, 0)] == pytest.approx([1.0, 3.5, 2.25, 0.5], abs=1e-5)


def test_seconds_and_another_rate() -> None:
    output = RIFE(counting(25), times=[0, 0.1, 0.5, 1], fps="60000/1001", sc_threshold=1.0)
    assert values(output) == pytest.approx([0, 2.4, 12, 24], abs=1e-5)
    assert output.fps == Fraction(60000, 1001)
    assert duration_of(output, 1) == Fraction(1001, 60000)


def test_seconds_of_a_variable_rate() -> None:
    clip = without_rate(counting(4))
    output = RIFE(clip, times=[0, 0.5, 1.5, 2.5, 4], timestamps=[10, 11, 13, 14], fps=25, sc_threshold=1.0)
    assert values(output) == pytest.approx([0, 0.5, 1.25, 1.75, 3], abs=1e-5)


CURVE = [(0, 0), (0.5, 0.25), (1, 0.25), (1.25, 1)]  # half speed, a freeze, triple speed


@pytest.mark.parametrize("from_file", [False, True], ids=["points", "csv"])
def test_a_curve(from_file: bool, tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    path.write_text("output,source\n# begins slowly\n" + "".join(f"{out}, {src}\n" for out, src in CURVE))
    output = RIFE(counting(25), times=path if from_file else CURVE, sc_threshold=1.0)
    expected = [n / 2 for n in range(12)] + [6] * 12 + [6 + 3 * n for n in range(6)]
    assert values(output) == pytest.approx(expected, abs=1e-5)


def test_a_cut_is_marked_once_in_either_direction() -> None:
    """The cut lies between source frames 2 and 3."""
    clip = spliced(3, 3)
    forward = RIFE(clip, times=[1, 1.6, 2.2, 2.8, 3.4, 4], times_in="frames")
    assert marks(forward) == {NEXT: [2], PREV: [3]}
    backward = RIFE(clip, times=[4, 3.4, 2.8, 2.2, 1.6, 1], times_in="frames")
    assert marks(backward) == {NEXT: [2], PREV: [3]}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"times": [0, 6], "times_in": "frames"}, "times must lie between 0 and 5 frames, got 6"),
        ({"times": [-0.1]}, "times must lie between 0 and 0.208333 seconds, got -0.1"),
        ({"times": []}, "times must give 1 to 10000000 output frames, got 0"),
        ({"times": [0, "x"]}, "times must be a number, got 'x'"),
        ({"times": 3}, "times must be source times, points of a curve or the path of a CSV file, got 3"),
        ({"times": [(0, 0), (0, 0.1)]}, "times must have output times that increase, got 0 s after 0 s"),
        ({"times": [(0, 0)]}, "times must have at least two points for a curve, got 1"),
        ({"times": [0], "multi": 3}, "multi and times exclude each other, got multi=3"),
        ({"times": [0], "times_in": "hours"}, "times_in must be 'seconds' or 'frames', got 'hours'"),
        ({"times": [0], "timestamps": [0, 1]}, "timestamps must give a time for each of the clip's 5 frames, got 2"),
        ({"times": "absent.csv"}, "times file cannot be read, got 'absent.csv'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(vs.Error) as caught:
        RIFE(counting(5), **options)
    assert text in str(caught.value)


def test_a_bad_line_of_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    path.write_text("0,0\n1;2\n")
    with pytest.raises(vs.Error, match=r"got '1;2' in line 2 of curve.csv; write two numbers a line"):
        RIFE(counting(5), times=path)


def test_without_a_rate_it_says_what_to_do() -> None:
    with pytest.raises(vs.Error, match="times needs a clip with a known rate, got a rate of 0/0; give fps= and"):
        RIFE(without_rate(counting(5)), times=[0, 0.1])
