"""Whatever a script passes to the filter or stores as a frame prop is taken, or refused in a sentence that begins with
`RIFE:` and names it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import vapoursynth as vs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.clips import core
from vsrife import RIFE

pytestmark = pytest.mark.usefixtures("mixed_frames")
FIXED = settings(
    max_examples=60, derandomize=True, database=None, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
SMALL = core.std.BlankClip(format=vs.YUV420P8, width=16, height=16, length=4, fpsnum=24, keep=True)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.binary(max_size=4),
    st.just(5000).map(lambda digits: 10**digits),
)
VALUES = st.one_of(
    SCALARS, st.lists(SCALARS, max_size=3), st.tuples(SCALARS, SCALARS), st.dictionaries(SCALARS, SCALARS)
)
KEYWORDS = (
    "multi", "fps", "timestamps", "times", "times_in", "carry", "sc_threshold", "realtime", "duplicates", "max_repeats",
    "duplicate_prop", "replace", "model", "scale", "ensemble", "tta", "tta_temporal", "device", "precision",
)  # fmt: skip
PROPS = (
    "_DurationNum", "_DurationDen", "_AbsoluteTime", "_SceneChangePrev", "_SceneChangeNext", "_Matrix", "_Range",
    "_ChromaLocation", "_FieldBased", "_Duplicate",
)  # fmt: skip
INTEGERS = st.integers(-(2**63), 2**63 - 1)
STORED = st.one_of(
    INTEGERS, st.floats(), st.text(max_size=4), st.binary(max_size=4), st.lists(INTEGERS, min_size=2, max_size=3)
)


def refusal(make: Callable[[], vs.VideoNode | list[vs.VideoNode]]) -> str | None:
    """The error of a call and its second frame; None if there is none."""
    try:
        made = make()
        (made[0] if isinstance(made, list) else made).get_frame(1).close()
    except vs.Error as error:
        return str(error)
    return None


@pytest.mark.parametrize("keyword", KEYWORDS)
@FIXED
@given(value=VALUES)
def test_any_value_is_taken_or_refused(keyword: str, value: Any) -> None:
    said = refusal(lambda: RIFE(SMALL, **{keyword: value}))
    assert said is None or said.startswith("RIFE: ")
    assert len(said or "") < 1500


@FIXED
@given(props=st.dictionaries(st.sampled_from(PROPS), STORED, max_size=4))
def test_any_prop_is_taken_or_refused(props: dict[str, Any]) -> None:
    clip = SMALL.std.SetFrameProps(**props) if props else SMALL
    said = refusal(lambda: RIFE(clip, duplicates="fill", duplicate_prop="_Duplicate"))
    assert said is None or ("RIFE: " in said and any(name in said for name in props))
