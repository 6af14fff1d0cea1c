"""Timelines from time stamps."""

from __future__ import annotations

from fractions import Fraction

import pytest

from vsrife.errors import OptionError
from vsrife.timing.timeline import measured

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
    with pytest.raises(OptionError, match="frame 2 is shown no later than the frame before"):
        measured([0, 40, 40, 80], MILLISECOND, None, [])
