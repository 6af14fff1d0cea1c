"""Timelines from time stamps."""

from __future__ import annotations

from fractions import Fraction

import pytest

from vsrife.errors import MediaError
from vsrife.timing.timeline import fill_missing, measured

MILLISECOND = Fraction(1, 1000)


def test_rounded_stamps_are_recognised_as_a_constant_rate() -> None:
    rate = Fraction(24000, 1001)
    stamps = [21 + round(n / rate * 1000) for n in range(1000)]
    timeline = measured(stamps, MILLISECOND, 42, [Fraction(24), rate])
    assert timeline.rate == rate
    assert timeline[999] == Fraction(21, 1000) + 999 / rate
    stamps[500] += 3  # a real jitter
    assert measured(stamps, MILLISECOND, 42, [rate]).rate is None


def test_times_that_go_back_are_refused() -> None:
    with pytest.raises(MediaError, match="frame 2 is shown no later than the frame before"):
        measured([0, 40, 40, 80], MILLISECOND, None, [])


@pytest.mark.parametrize(
    ("stamps", "filled"),
    [([None, 2, 4], [0, 2, 4]), ([0, None, None, 6], [0, 2, 4, 6]), ([1, 3, None], [1, 3, 5]), ([7], [7])],
)
def test_missing_stamps_are_filled_in(stamps: list[int | None], filled: list[int]) -> None:
    assert fill_missing(stamps, Fraction(2)) == filled


def test_a_skipped_frame_is_no_rounding() -> None:
    """An AVI counts in frames: 0, 2, 3 has a frame shown twice."""
    assert measured([0, 2, 3, 4], Fraction(1, 25), 1, [Fraction(25)]).rate is None
