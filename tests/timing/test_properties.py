"""Whatever a user writes as a rate, factor, time, frames or a file of times is a bounded value or an `OptionError`."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vsrife.errors import OptionError
from vsrife.timing.parsing import parse_fps, parse_frames, parse_multi, read_curve, read_timecodes
from vsrife.video.plan import parse_mark

FIXED = settings(
    max_examples=150, derandomize=True, database=None, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
WRITTEN = st.text("0123456789.eE+-/:_ naif,f\u0663\n", max_size=90)  # as numbers are written, or nearly
VALUES: st.SearchStrategy[Any] = st.one_of(
    WRITTEN, st.floats(), st.integers(), st.fractions(), st.none(), st.booleans(), st.binary(max_size=4),
    st.tuples(st.integers(), st.integers()), st.just(5000).map(lambda digits: 10**digits),
)  # fmt: skip


@pytest.mark.parametrize("parse", [parse_multi, parse_fps])
@FIXED
@given(value=VALUES)
def test_a_ratio_is_positive_and_fits_into_32_bits(parse: Callable[[Any], Fraction], value: Any) -> None:
    try:
        ratio = parse(value)
    except OptionError:
        return
    assert 0 < ratio.numerator < 2**31
    assert 0 < ratio.denominator < 2**31


@FIXED
@given(text=WRITTEN)
def test_a_mark_is_a_frame_or_a_time(text: str) -> None:
    try:
        mark = parse_mark("--start", text)
    except OptionError:
        return
    assert (mark.frame is None) != (mark.seconds is None)


@FIXED
@given(text=WRITTEN)
def test_a_list_of_frames_is_within_the_clip(text: str) -> None:
    try:
        frames = parse_frames("replace", text, 100)
    except OptionError:
        return
    assert list(frames) == sorted(set(frames) & set(range(100)))


@pytest.mark.parametrize("read", [read_timecodes, read_curve])
@FIXED
@given(data=st.one_of(st.binary(max_size=200), st.lists(WRITTEN).map(lambda lines: "\n".join(lines).encode())))
def test_a_file_of_times_is_read_or_refused(read: Callable[[Path], list[Any]], data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "times.txt"
    path.write_bytes(data)
    try:
        values = read(path)
    except OptionError:
        return
    assert len(values) <= len(data)
