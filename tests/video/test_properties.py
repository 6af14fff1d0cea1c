"""Whatever options and source: a plan keeps time, or is refused; and any name is a file."""

from __future__ import annotations

import ast
import os
import sys
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vsrife.errors import RifeError
from vsrife.images.numbering import find_sequence, numbered
from vsrife.timing.timeline import Timeline, constant, measured
from vsrife.video.demuxing import open_media
from vsrife.video.inputs import find_inputs
from vsrife.video.plan import Mark, VideoOptions, make_plan
from vsrife.video.script import _path

FIXED = settings(
    max_examples=150, derandomize=True, database=None, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
FACTORS = st.fractions(1, 8, max_denominator=30)
RATES = st.one_of(st.integers(1, 240).map(Fraction), st.sampled_from([Fraction(24000, 1001), Fraction(60000, 1001)]))
MARKS = st.one_of(
    st.none(), st.integers(0, 30).map(lambda n: Mark(frame=n)),
    st.fractions(0, 2, max_denominator=1000).map(lambda s: Mark(seconds=s)),
)  # fmt: skip
OPTIONS = st.builds(
    VideoOptions, multi=st.none() | FACTORS, fps=st.none() | RATES, slow_motion=st.just(Fraction(1)) | FACTORS,
    start=MARKS, end=MARKS, deinterlace=st.booleans(), inverse_telecine=st.booleans(),
    duplicates=st.sampled_from(["keep", "fill", "even"]), replace=st.none() | st.sampled_from(["0", "3-4", "99", ""]),
)  # fmt: skip
LASTS = st.lists(st.integers(1, 400), min_size=2, max_size=30)
TIMELINES = st.one_of(
    st.builds(constant, st.integers(1, 30), RATES, st.fractions(0, 4000, max_denominator=90000)),
    LASTS.map(lambda lasts: measured([*accumulate(lasts[:-1], initial=5)], Fraction(1, 1000), lasts[-1], [])),
)
# Without a separator; what no file system here takes is left out by the test.
NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=30)


@FIXED
@given(options=OPTIONS, timeline=TIMELINES)
def test_a_plan_keeps_time_or_is_refused(options: VideoOptions, timeline: Timeline) -> None:
    try:
        plan = make_plan(options, timeline)
        times = plan.output_timeline()
    except RifeError:
        return
    first, end = plan.timeline.start, plan.timeline.end
    length = (end - first) * plan.slow_motion
    starts = [times[n] for n in range(times.frames + 1)]
    assert starts == sorted(set(starts))
    assert starts[0] == first
    assert starts[-2] < first + length <= starts[-1]


@pytest.mark.skipif(sys.platform == "win32", reason="names on Windows follow other rules")
@FIXED
@given(name=NAMES)
def test_any_name_is_a_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(f"{name}.y4m")
    if name.startswith("-") or len(os.fsencode(path.name)) > 255:
        return
    path.write_bytes(b"YUV4MPEG2 W2 H2 F25:1 C420\nFRAME\n" + bytes(6))
    (found,) = find_inputs([str(path)])
    assert (found.files, found.sequence) == ((path,), False)
    with open_media(path) as container:
        assert len(list(container.decode(video=0))) == 1
    assert os.fsencode(ast.literal_eval(_path(path))) == os.fsencode(path.resolve())


@pytest.mark.skipif(sys.platform == "win32", reason="names on Windows follow other rules")
@FIXED
@given(
    before=NAMES.map(lambda text: text.replace("%", "")), after=NAMES.map(lambda text: text.replace("%", "")),
    width=st.integers(1, 6), first=st.integers(0, 2000), count=st.integers(1, 12),
)  # fmt: skip
def test_a_pattern_finds_what_it_names(
    before: str, after: str, width: int, first: int, count: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pattern = tmp_path_factory.mktemp("pattern") / f"{before}%0{width}d{after}"
    paths = [path for n in range(first, first + count) if (path := numbered(pattern, n)) is not None]
    if len(os.fsencode(pattern.name)) > 240:
        return
    for path in paths:
        path.touch()
    assert find_sequence(str(pattern)) == paths
