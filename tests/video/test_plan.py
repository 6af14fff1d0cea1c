"""Points of a clip on the command line, and plans made of options."""

from __future__ import annotations

from fractions import Fraction

from vsrife.timing.timeline import constant, measured
from vsrife.video.plan import Mark, VideoOptions, make_plan, parse_mark

MILLISECOND = Fraction(1, 1000)


def test_marks_choose_the_frame_that_is_shown_then() -> None:
    timeline = measured([0, 100, 133, 233], MILLISECOND, 30, [])
    assert [Mark(seconds=Fraction(text)).frame_in(timeline) for text in ("0", "0.1", "0.101", "0.2", "1")] == [
        0, 1, 2, 3, 4
    ]  # fmt: skip
    moved = constant(10, Fraction(25), Fraction(3))  # times on the command line count from the first frame
    assert [parse_mark("--start", text).frame_in(moved) for text in ("0", "0.04", "0.05", "99f", "7f")] == [
        0, 1, 2, 10, 7
    ]  # fmt: skip
    assert parse_mark("--end", "01:02:03.5").seconds == Fraction(7447, 2)


def test_slow_motion_and_rate_together() -> None:
    """Four times slower at 60 frames a second needs 240 frames for each source second."""
    options = VideoOptions(fps=Fraction(60), slow_motion=Fraction(4))
    times = make_plan(options, constant(24, Fraction(24), Fraction(1))).output_timeline()
    assert times.frames == 240
    assert [times[n] for n in (0, 1, 240)] == [1, 1 + Fraction(1, 60), 5]
